//! Pieces of JSON, written by hand: what a line needs at the price that every request can pay.

use std::time::Duration;

use http::HeaderValue;

/// Bytes that stand in a JSON text between the quotes as they are; those beyond ASCII are valid already.
pub(super) fn text(line: &mut Vec<u8>, text: &str) {
    if is_plain(text.as_bytes(), false) {
        line.extend_from_slice(text.as_bytes());
    } else {
        escape(line, text);
    }
}

/// The first characters of what a client sent, as valid text.
pub(super) fn client_text(line: &mut Vec<u8>, value: &HeaderValue, chars: usize) {
    let bytes = value.as_bytes();
    let short = &bytes[..bytes.len().min(chars)];
    // In ASCII a byte is a character.
    if is_plain(short, true) {
        line.extend_from_slice(short);
        return;
    }
    // A character has at most four bytes; more is not looked at.
    let bytes = &bytes[..bytes.len().min(4 * chars)];
    let valid = String::from_utf8_lossy(bytes);
    let end = valid.char_indices().nth(chars).map_or(valid.len(), |(at, _)| at);
    escape(line, &valid[..end]);
}

/// Whether there is nothing to escape, and, if asked for, nothing beyond ASCII. Looks at eight bytes at a time.
#[inline]
fn is_plain(bytes: &[u8], only_ascii: bool) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const TOPS: u64 = ONES << 7;
    // Subtracting sets a byte's top bit where the byte was below what is taken off; a borrow spoils only bytes above
    // one that was found. Swapping 0x22 (a quote) with 0x20 (a space) first puts the quote right behind the control
    // bytes; a backslash is looked for as the only byte that becomes zero.
    let marks = |word: u64| {
        let control_or_quote = (word ^ (ONES * 0x02)).wrapping_sub(ONES * 0x21);
        let backslash = (word ^ (ONES * 0x5c)).wrapping_sub(ONES);
        let found = (control_or_quote | backslash) & !word;
        if only_ascii { found | word } else { found }
    };
    // The last word covers what the whole ones leave, and some bytes twice.
    let found = if let Some(last) = bytes.last_chunk() {
        let whole = bytes.as_chunks().0.iter();
        whole.fold(marks(u64::from_le_bytes(*last)), |found, chunk| found | marks(u64::from_le_bytes(*chunk)))
    } else if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        marks(u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last)))
    } else {
        // The bytes that are not there stand as zeros, the digit.
        marks(bytes.iter().fold(ONES * u64::from(b'0'), |word, byte| word << 8 | u64::from(*byte)))
    };
    found & TOPS == 0
}

#[cold]
fn escape(line: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for byte in text.bytes() {
        match byte {
            b'"' => line.extend_from_slice(br#"\""#),
            b'\\' => line.extend_from_slice(br"\\"),
            b'\n' => line.extend_from_slice(br"\n"),
            b'\r' => line.extend_from_slice(br"\r"),
            b'\t' => line.extend_from_slice(br"\t"),
            0..0x20 => {
                line.extend_from_slice(br"\u00");
                line.extend([byte >> 4, byte & 15].map(|digit| HEX[usize::from(digit)]));
            }
            _ => line.push(byte),
        }
    }
}

/// A whole number.
#[inline]
pub(super) fn number(line: &mut Vec<u8>, number: u64) {
    line.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// A key and its value: milliseconds with three decimals. The key comes with room for `000.000` and one byte more.
#[inline]
pub(super) fn milliseconds<const N: usize>(line: &mut Vec<u8>, key: &[u8; N], time: Duration) {
    line.extend_from_slice(key);
    let end = line.len();
    if time.as_secs() > 0 {
        line.truncate(end - ROOM);
        return many_milliseconds(line, time);
    }
    let micros = time.subsec_micros();
    let whole = micros / 1_000;
    // All digits that there may be, of which the zeros in front are shifted out: no branch, and a copy of fixed
    // length.
    let digits = u64::from(three_digits(whole)) | POINT | u64::from(three_digits(micros % 1_000)) << 32;
    let zeros = usize::from(whole < 100) + usize::from(whole < 10);
    if let Some(room) = line.last_chunk_mut() {
        *room = (digits >> (8 * zeros)).to_le_bytes();
    }
    line.truncate(end - 1 - zeros);
}

/// Bytes at a key's end that are written over.
pub(super) const ROOM: usize = 8;
const POINT: u64 = (b'.' as u64) << 24;

#[cold]
fn many_milliseconds(line: &mut Vec<u8>, time: Duration) {
    let micros = time.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(time.subsec_micros()));
    number(line, micros / 1_000);
    let [a, b, c, _] = three_digits((micros % 1_000) as u32).to_le_bytes();
    line.extend_from_slice(&[b'.', a, b, c]);
}

/// The digits of a number below 1,000, the first one in the lowest byte, and a zero byte.
#[inline]
pub(super) fn three_digits(number: u32) -> u32 {
    DIGITS[number as usize]
}

/// Looked up at a third of the price of working them out.
static DIGITS: [u32; 1_000] = {
    let mut digits = [0; 1_000];
    let mut number = 0;
    while number < 1_000 {
        let n = number as u32;
        digits[number] = (n / 100) | (n / 10 % 10) << 8 | (n % 10) << 16 | 0x30_30_30;
        number += 1;
    }
    digits
};

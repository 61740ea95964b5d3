//! Reads when a certificate expires: a walk to one field of its DER form, for operators to be warned in time.
//! Nothing is decided by it; a certificate that it cannot read has no known end.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0] EXPLICIT Version`.
const VERSION: u8 = 0xa0;

/// `notAfter` in seconds since 1970 (RFC 5280 §4.1.2.5).
pub(super) fn not_after(certificate: &[u8]) -> Option<i64> {
    let (_, certificate, _) = element(certificate)?;
    let (_, signed, _) = element(certificate)?;
    let (tag, _, mut rest) = element(signed)?;
    if tag == VERSION {
        // The serial number.
        (_, _, rest) = element(rest)?;
    }
    for _ in ["signature", "issuer"] {
        (_, _, rest) = element(rest)?;
    }
    let (tag, validity, _) = element(rest)?;
    let (_, _, rest) = element(validity)?;
    let (kind, text, _) = element(rest)?;
    if tag == SEQUENCE { seconds(kind, std::str::from_utf8(text).ok()?) } else { None }
}

/// Tag, content and what follows of the first element.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, der) = der.split_first()?;
    let (&length, mut der) = der.split_first()?;
    let mut length = usize::from(length);
    if length >= 0x80 {
        let (bytes, rest) = der.split_at_checked(length - 0x80)?;
        if bytes.is_empty() || bytes.len() > 4 {
            return None;
        }
        length = bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        der = rest;
    }
    let (content, rest) = der.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn seconds(kind: u8, text: &str) -> Option<i64> {
    let text = match kind {
        // Two digits of the year: 50 to 99 are of the last century.
        UTC_TIME => format!("{}{text}", if text.get(..2)? >= "50" { "19" } else { "20" }),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let time = DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn made_until(year: i32) -> Vec<u8> {
        let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 3, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn reads_both_forms_of_time() {
        assert_eq!(not_after(&made_until(1999)), Some(920_246_400));
        assert_eq!(not_after(&made_until(2030)), Some(1_898_553_600));
        assert_eq!(not_after(&made_until(2060)), Some(2_845_324_800));
        assert_eq!(not_after(&made_until(4096)), Some(67_095_302_400));
    }

    #[test]
    fn what_is_cut_or_changed_never_panics() {
        let whole = made_until(2030);
        for end in 0..whole.len() {
            let _ = not_after(&whole[..end]);
        }
        for place in 0..whole.len() {
            for byte in [0, 0x7f, 0x80, 0x84, 0x88, 0xff] {
                let mut changed = whole.clone();
                changed[place] = byte;
                let _ = not_after(&changed);
            }
        }
    }
}

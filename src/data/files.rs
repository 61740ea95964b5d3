//! Reads small files that an operator has named, such as certificates and key sets. A file that is no regular
//! file or is too long is an error instead of a read without an end.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Longest file that is read.
pub const LONGEST_BYTES: u64 = 1024 * 1024;

/// The whole content of a regular file; links are followed.
///
/// # Errors
/// What the system says, or that it is no regular file or longer than [`LONGEST_BYTES`].
pub fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    // Asked before it is opened: opening a named pipe waits for a writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut content = Vec::new();
    File::open(path)?.take(LONGEST_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LONGEST_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than 1 MiB"));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_up_to_the_limit_and_regular_files_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, vec![7; LONGEST_BYTES as usize]).unwrap();
        assert_eq!(read_small(&path).unwrap().len() as u64, LONGEST_BYTES);
        std::fs::write(&path, vec![7; LONGEST_BYTES as usize + 1]).unwrap();
        assert_eq!(read_small(&path).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read_small(folder.path()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(read_small(&folder.path().join("no")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

//! The file itself: there, readable, and text.

use std::fs;
use std::path::Path;

use crate::error::SetupError;

/// The text of the configuration file `path`.
///
/// # Errors
/// It cannot be read, or is no UTF-8, as TOML must be.
pub fn read(path: &Path) -> Result<String, SetupError> {
    let name = path.display().to_string();
    let bytes = fs::read(path).map_err(|error| {
        SetupError::system("read configuration", name.as_str(), &error)
            .or_mend("give a file that is there and may be read with --config")
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|&&byte| byte == b'\n').count() + 1;
        SetupError::new(
            "read configuration",
            name,
            format_args!("line {line} is not UTF-8"),
        )
        .mend("TOML is text in UTF-8: save it so")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_told_with_its_line() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("c.toml");
        fs::write(&path, b"[vtep]\nname = \"\xe9\"\n").expect("written");
        let told = read(&path).expect_err("Latin-1").to_string();
        assert!(
            told.ends_with("c.toml: line 2 is not UTF-8 (TOML is text in UTF-8: save it so)"),
            "{told}"
        );
        fs::remove_file(&path).expect("removed");
        let told = read(&path).expect_err("gone").to_string();
        assert!(
            told.contains(": ENOENT (give a file that is there"),
            "{told}"
        );
    }
}

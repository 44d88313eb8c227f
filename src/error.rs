//! Set-up errors: one line that says operation, object, cause and mend.

use std::fmt;

/// A step of set-up that failed, as in `attach silk-vtep: TUNSETIFF: EPERM (needs CAP_NET_ADMIN)`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SetupError {
    /// What was tried, a verb: `attach`.
    pub operation: String,
    /// On what: `silk-vtep`.
    pub object: String,
    /// Why it failed: `TUNSETIFF: EPERM`.
    pub cause: String,
    /// What a person can do: `needs CAP_NET_ADMIN`; empty if nothing better can be said.
    pub mend: String,
}

impl SetupError {
    /// An error without a mend yet.
    pub fn new(
        operation: impl Into<String>,
        object: impl Into<String>,
        cause: impl fmt::Display,
    ) -> Self {
        Self {
            operation: operation.into(),
            object: object.into(),
            cause: cause.to_string(),
            mend: String::new(),
        }
    }

    /// Adds what a person can do.
    #[must_use]
    pub fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = mend.into();
        self
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.operation, self.object, self.cause)?;
        if self.mend.is_empty() {
            Ok(())
        } else {
            write!(f, " ({})", self.mend)
        }
    }
}

/// An error of the operating system by its name, `EPERM`, as manuals and search engines know it.
#[must_use]
pub fn errno(error: &std::io::Error) -> String {
    match error.raw_os_error().map(nix::errno::Errno::from_raw) {
        Some(nix::errno::Errno::UnknownErrno) | None => error.to_string(),
        Some(errno) => format!("{errno:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_operation_object_cause_and_mend() {
        let denied = std::io::Error::from_raw_os_error(libc::EPERM);
        let error = SetupError::new(
            "attach",
            "silk-vtep",
            format_args!("TUNSETIFF: {}", errno(&denied)),
        );
        assert_eq!(error.to_string(), "attach silk-vtep: TUNSETIFF: EPERM");
        assert_eq!(
            error.mend("needs CAP_NET_ADMIN").to_string(),
            "attach silk-vtep: TUNSETIFF: EPERM (needs CAP_NET_ADMIN)"
        );
    }
}

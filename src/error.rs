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

    /// The failure of a system call, with what mends it if something is used up.
    pub fn system(
        operation: impl Into<String>,
        object: impl Into<String>,
        error: &std::io::Error,
    ) -> Self {
        Self::new(operation, object, errno(error)).mend(shortage(error))
    }

    /// Says what a person can do.
    #[must_use]
    pub fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = mend.into();
        self
    }

    /// Says what a person can do unless that is said already.
    #[must_use]
    pub fn or_mend(self, mend: impl Into<String>) -> Self {
        if self.mend.is_empty() {
            self.mend(mend)
        } else {
            self
        }
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

/// What mends a system call for which something was used up, as any may find; empty for other errors.
#[must_use]
pub fn shortage(error: &std::io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE) => "raise the limit of open files (RLIMIT_NOFILE)",
        Some(libc::ENFILE) => "raise the host's limit of open files (fs.file-max)",
        Some(libc::EAGAIN) => {
            "raise the limit of threads (RLIMIT_NPROC, or pids.max of the cgroup)"
        }
        Some(libc::ENOMEM | libc::ENOBUFS) => "the host is short of memory: try again",
        _ => "",
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

    #[test]
    fn a_shortage_has_its_own_mend_and_other_errors_the_callers() {
        let told = |errno| {
            let error = std::io::Error::from_raw_os_error(errno);
            let told = SetupError::system("open", "it", &error).or_mend("try another");
            told.to_string()
        };
        assert_eq!(
            told(libc::EMFILE),
            "open it: EMFILE (raise the limit of open files (RLIMIT_NOFILE))"
        );
        assert_eq!(told(libc::ENOENT), "open it: ENOENT (try another)");
    }
}

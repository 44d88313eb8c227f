//! Why the kernel did not do what was asked.

use nix::errno::Errno;

use crate::error::SetupError;

/// One netlink request that failed. `request` is the kernel's name of it, as in `RTM_NEWADDR`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel said no.
    #[error("{request}: {errno:?}{}", explained(explanation))]
    Refused {
        /// What was asked.
        request: &'static str,
        /// The kernel's answer.
        errno: Errno,
        /// The extended acknowledgement's text (NLMSGERR_ATTR_MSG), empty if there was none.
        explanation: String,
    },
    /// The socket failed.
    #[error("{request}: {call}: {errno:?}")]
    Socket {
        /// What was asked.
        request: &'static str,
        /// The system call.
        call: &'static str,
        /// Its error.
        errno: Errno,
    },
    /// The kernel did not answer in time.
    #[error("{request}: no answer within {seconds} s")]
    TimedOut {
        /// What was asked.
        request: &'static str,
        /// How long we waited.
        seconds: u64,
    },
    /// What was listed changed each time while it was being listed (NLM_F_DUMP_INTR).
    #[error("{request}: interrupted {attempts} times by changes")]
    Interrupted {
        /// What was asked.
        request: &'static str,
        /// How often it was tried.
        attempts: usize,
    },
    /// The answer could not be read.
    #[error("{request}: {what}")]
    Malformed {
        /// What was asked.
        request: &'static str,
        /// What is wrong with the answer.
        what: String,
    },
}

fn explained(explanation: &str) -> String {
    if explanation.is_empty() {
        String::new()
    } else {
        format!(", \"{explanation}\"")
    }
}

impl NetlinkError {
    /// The kernel's error number, if it was the kernel that refused.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } | Self::Socket { errno, .. } => Some(*errno),
            Self::TimedOut { .. } | Self::Interrupted { .. } | Self::Malformed { .. } => None,
        }
    }

    /// This error as the failure of `operation` on `object`, with the mend its errno suggests.
    #[must_use]
    pub fn setup(self, operation: &str, object: &str) -> SetupError {
        SetupError::new(operation, object, &self).mend(self.mend())
    }

    /// As [`Self::setup`], naming the step of the operation that failed: `set up host 10.255.1.2: add address
    /// 169.254.0.1: RTM_NEWADDR: EPERM (needs CAP_NET_ADMIN)`.
    #[must_use]
    pub fn setup_step(self, operation: &str, object: &str, step: &str) -> SetupError {
        SetupError::new(operation, object, format_args!("{step}: {self}")).mend(self.mend())
    }

    fn mend(&self) -> &'static str {
        match self.errno() {
            Some(Errno::EPERM | Errno::EACCES) => {
                "needs CAP_NET_ADMIN: run as root or grant the capability"
            }
            Some(Errno::EEXIST) => "one is already there: remove it, or choose another",
            Some(Errno::ENODEV) => "the link is not there: it may just have been deleted",
            Some(Errno::ESRCH) => "there is none to remove",
            Some(Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT) => {
                "the kernel lacks it: load the module, or switch the feature off"
            }
            Some(Errno::ENETDOWN) => "bring the link up, `lo` included: ip link set lo up",
            Some(Errno::ENOBUFS | Errno::ENOMEM) => "the kernel is short of memory: try again",
            _ => "",
        }
    }
}

/// `Ok` also where the kernel said `errno`: for removals of what is no longer there.
pub(super) fn unless(errno: Errno, result: Result<(), NetlinkError>) -> Result<bool, NetlinkError> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.errno() == Some(errno) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(errno: Errno, explanation: &str) -> NetlinkError {
        NetlinkError::Refused {
            request: "RTM_NEWROUTE",
            errno,
            explanation: explanation.to_owned(),
        }
    }

    #[test]
    fn says_operation_object_step_cause_and_mend() {
        let error = refused(Errno::EPERM, "").setup_step(
            "set up host",
            "10.255.1.2",
            "add address 169.254.0.1",
        );
        assert_eq!(
            error.to_string(),
            "set up host 10.255.1.2: add address 169.254.0.1: RTM_NEWROUTE: EPERM \
             (needs CAP_NET_ADMIN: run as root or grant the capability)"
        );
    }

    #[test]
    fn quotes_the_kernels_explanation() {
        let error = refused(Errno::EINVAL, "Nexthop has invalid gateway");
        assert_eq!(
            error.to_string(),
            "RTM_NEWROUTE: EINVAL, \"Nexthop has invalid gateway\""
        );
    }
}

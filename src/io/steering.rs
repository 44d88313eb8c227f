//! Who chooses the TAP queue of a packet: our program, or the kernel.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::TapQueue;
use crate::bpf::steering;
use crate::error::{SetupError, errno};
use crate::sys;
use crate::sys::bpf::{LoadError, ProgramType};

/// How packets of the host are spread over the queues of a TAP, and so over lanes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Steering {
    /// There is one queue.
    OneQueue,
    /// By the flow alone ([`bpf::steering`](crate::bpf::steering)): a flow stays on its queue, and in order.
    Program,
    /// By the kernel, which moves a flow to the queue its reply was written on: packets of a flow may overtake each other. Holds why
    /// there is no program.
    Automatic(SetupError),
}

impl Steering {
    /// Attaches the program to the TAP `name`, whose queues these are. Where it cannot be had the kernel chooses, whatever program an
    /// earlier daemon left on a persistent device.
    #[must_use]
    pub fn attach(name: &str, queues: &[TapQueue]) -> Self {
        let [queue, _, ..] = queues else {
            return Self::OneQueue;
        };
        let tap = queue.as_fd();
        match attach_program(name, tap) {
            Ok(()) => Self::Program,
            Err(error) => {
                // Before Linux 4.16, which has no steering, this fails and there is nothing to detach.
                let _ = sys::tun::set_steering(tap, None);
                Self::Automatic(error)
            }
        }
    }
}

/// As `link show -j` has it: one word, and the reason where there is one.
impl fmt::Display for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneQueue => f.write_str("one-queue"),
            Self::Program => f.write_str("program"),
            Self::Automatic(reason) => write!(f, "automatic: {reason}"),
        }
    }
}

/// The device holds the program; our descriptor of it is closed here.
fn attach_program(name: &str, tap: BorrowedFd<'_>) -> Result<(), SetupError> {
    let program = steering::program();
    let program = sys::bpf::load(ProgramType::SocketFilter, steering::NAME, &program)
        .map_err(|error| not_loaded("steer", name, &error))?;
    sys::tun::set_steering(tap, Some(program.as_fd())).map_err(|error| not_attached(name, &error))
}

/// `operation` on `name` failed, for want of its program.
pub(crate) fn not_loaded(
    operation: &str,
    name: &str,
    LoadError { error, log }: &LoadError,
) -> SetupError {
    let failed = SetupError::new(
        operation,
        name,
        format_args!("BPF_PROG_LOAD: {}", errno(error)),
    );
    match error.raw_os_error() {
        Some(libc::EPERM) => failed.mend("needs CAP_BPF: run as root, or grant it to the service"),
        Some(libc::ENOSYS) => failed.mend("this kernel is built without BPF"),
        _ => failed.mend(last_words(log)),
    }
}

fn not_attached(name: &str, error: &io::Error) -> SetupError {
    let failed = SetupError::new(
        "steer",
        name,
        format_args!("TUNSETSTEERINGEBPF: {}", errno(error)),
    );
    match error.raw_os_error() {
        Some(libc::EINVAL) => failed.mend("needs Linux 4.16"),
        _ => failed,
    }
}

/// The verifier says last but for its statistics what it minds.
fn last_words(log: &str) -> String {
    let statistics = |line: &&str| line.starts_with("processed ");
    let line = log.lines().rev().find(|line| !statistics(line));
    line.map_or_else(String::new, |line| format!("the verifier says: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(errno: i32, log: &str) -> String {
        let error = LoadError {
            error: io::Error::from_raw_os_error(errno),
            log: log.to_owned(),
        };
        Steering::Automatic(not_loaded("steer", "silk-vtep", &error)).to_string()
    }

    #[test]
    fn a_missing_capability_is_named() {
        assert_eq!(
            refused(libc::EPERM, ""),
            "automatic: steer silk-vtep: BPF_PROG_LOAD: EPERM (needs CAP_BPF: run as root, or grant it to the service)"
        );
    }

    #[test]
    fn a_refusal_has_the_verifiers_reason() {
        let log = "0: (95) exit\nR0 !read_ok\nprocessed 1 insns (limit 1000000)";
        assert_eq!(
            refused(libc::EACCES, log),
            "automatic: steer silk-vtep: BPF_PROG_LOAD: EACCES (the verifier says: R0 !read_ok)"
        );
    }
}

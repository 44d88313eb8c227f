//! Loading programs into the kernel: bpf(2).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use libc::{c_int, c_uint};

/// BPF_PROG_LOAD.
const PROG_LOAD: c_int = 5;
/// Room for the verifier's words, in bytes; the rest of a longer log is lost.
const LOG_BYTES: usize = 64 << 10;
/// BPF_OBJ_NAME_LEN, a zero byte at the end among them.
pub(super) const NAME_LEN: usize = 16;

/// What a program may do and where it runs (`enum bpf_prog_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ProgramType {
    /// BPF_PROG_TYPE_SOCKET_FILTER: sockets, and the queue choice of a TAP.
    SocketFilter = 1,
    /// BPF_PROG_TYPE_SCHED_CLS: packets on their way to or from a device (tc).
    SchedCls = 3,
}

/// A program the kernel did not take.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct LoadError {
    /// EPERM without CAP_BPF (or CAP_SYS_ADMIN before Linux 5.8); ENOSYS without BPF; EACCES or EINVAL if the verifier refused.
    #[source]
    pub error: io::Error,
    /// What the verifier said; empty if it was not reached.
    pub log: String,
}

/// The part of `union bpf_attr` that BPF_PROG_LOAD reads; zeros stand for all behind it.
#[repr(C)]
struct Attributes {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; NAME_LEN],
}

const _: () = assert!(size_of::<Attributes>() == 64);

/// BPF_PROG_LOAD: has `instructions` (`struct bpf_insn`) verified and compiled. Closed on exec. It calls itself MIT, so helpers kept for
/// the GPL are not open to it.
///
/// # Errors
/// The kernel refuses, and was asked a second time for the verifier's log; or `name` is longer than 15 bytes.
pub fn load(kind: ProgramType, name: &str, instructions: &[[u8; 8]]) -> Result<OwnedFd, LoadError> {
    load_with_log(kind, name, instructions, &mut []).or_else(|_| {
        let mut log = vec![0; LOG_BYTES];
        load_with_log(kind, name, instructions, &mut log).map_err(|error| LoadError {
            error,
            log: text(&log),
        })
    })
}

/// One call; an empty `log` asks for none.
fn load_with_log(
    kind: ProgramType,
    name: &str,
    instructions: &[[u8; 8]],
    log: &mut [u8],
) -> io::Result<OwnedFd> {
    let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
    let mut attributes = Attributes {
        prog_type: kind as u32,
        insn_cnt: u32::try_from(instructions.len()).map_err(|_| invalid())?,
        insns: instructions.as_ptr().expose_provenance() as u64,
        license: c"MIT".as_ptr().expose_provenance() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: u32::try_from(log.len()).map_err(|_| invalid())?,
        log_buf: match log {
            [] => 0,
            log => log.as_mut_ptr().expose_provenance() as u64,
        },
        kern_version: 0,
        prog_flags: 0,
        prog_name: [0; NAME_LEN],
    };
    if name.len() >= NAME_LEN {
        return Err(invalid());
    }
    attributes.prog_name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: the addresses in the attributes are of `instructions`, of a text that ends in a zero byte, and of `log`, which is
    // written up to its true length. All outlive the call.
    let fd = unsafe { bpf(PROG_LOAD, &mut attributes) }?;
    // SAFETY: the kernel has just made the descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// bpf(2).
///
/// # Safety
/// `attributes` is laid out as the command wants it (`union bpf_attr`), zeros standing for all behind it, and what it has addresses of
/// is as large as it says and lives through the call.
pub(super) unsafe fn bpf<T>(command: c_int, attributes: &mut T) -> io::Result<c_int> {
    // SAFETY: the attributes are read, and written, in their true size. For the rest the caller answers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>() as c_uint,
        )
    };
    match c_int::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Up to the first zero byte.
fn text(log: &[u8]) -> String {
    let text = log.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETURN_0: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];

    /// True where this host lets nobody, or not us, load programs.
    fn is_denied(error: &LoadError) -> bool {
        matches!(error.error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS))
    }

    #[test]
    fn a_refusal_comes_with_the_verifiers_words() {
        let returns_nothing = &RETURN_0[1..];
        let refused = load(ProgramType::SocketFilter, "refused", returns_nothing)
            .expect_err("R0 is what it returns, and was never written");
        assert_eq!(refused.log.is_empty(), is_denied(&refused), "{refused:?}");
        assert!(
            is_denied(&refused) || refused.log.contains("R0 !read_ok"),
            "{refused:?}"
        );
    }

    #[test]
    fn a_valid_program_loads_where_programs_may_be_loaded() {
        let loaded = load(ProgramType::SocketFilter, "return_0", &RETURN_0);
        assert!(loaded.as_ref().err().is_none_or(is_denied), "{loaded:?}");
    }

    #[test]
    fn a_name_too_long_is_refused_before_the_kernel_is_asked() {
        let refused = load(ProgramType::SocketFilter, "a_name_of_sixteen", &RETURN_0);
        let errno = refused.expect_err("too long").error.raw_os_error();
        assert_eq!(errno, Some(libc::EINVAL));
    }
}

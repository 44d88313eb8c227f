//! What this process may do.

use std::fs;
use std::num::NonZeroUsize;

use nix::sys::resource::{Resource, getrlimit};

use super::check::Check;
use crate::error::SetupError;
use crate::netlink::Namespace;

/// linux/capability.h
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

/// Descriptors of one lane, its pool of sending sockets the most of them.
const FILES_PER_LANE: u64 = 40;
/// All others: control connections, netlink, signals.
const FILES_BESIDE: u64 = 100;

/// The one right a daemon needs. UDP 4789 is no privileged port.
pub(super) fn net_admin() -> Check {
    let purpose = "makes the TAP, its addresses and routes";
    capability("cap-net-admin", CAP_NET_ADMIN, purpose).needed()
}

/// Needed by what reaches into other namespaces.
pub(super) fn sys_admin() -> Check {
    let purpose = "`container add`, `demo` and `bench` enter network namespaces; the daemon, with marks = \"bpf\", knows a killed one's programs again";
    capability("cap-sys-admin", CAP_SYS_ADMIN, purpose)
}

fn capability(name: &'static str, number: u32, purpose: &str) -> Check {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    match effective(&status) {
        Some(held) if held >> number & 1 == 1 => Check::ok(name, purpose),
        Some(_) => Check::missing(name, format!("{purpose}: not held")).mend(format!(
            "run as root, or grant it to the service: AmbientCapabilities={}",
            name.to_uppercase().replace('-', "_")
        )),
        None => Check::unknown(name, format!("{purpose}: /proc does not tell")).mend("mount /proc"),
    }
}

/// The mask of effective capabilities in the text of /proc/PID/status.
fn effective(status: &str) -> Option<u64> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

/// Whether a namespace could be made.
pub(super) fn namespaces(made: &Result<Namespace, SetupError>) -> Check {
    const NAME: &str = "namespaces";
    let purpose = "containers, `demo` and `bench` live in network namespaces";
    match made {
        Ok(_) => Check::ok(NAME, purpose),
        Err(error) if error.cause.ends_with("EPERM") => {
            Check::unknown(NAME, format!("{purpose}: not tried without CAP_SYS_ADMIN"))
        }
        Err(error) => Check::missing(NAME, format!("{purpose}: {}", error.cause)).mend(&error.mend),
    }
}

/// The daemon raises the soft limit to the hard one by itself.
pub(super) fn open_files(lanes: NonZeroUsize) -> Check {
    const NAME: &str = "open-files";
    let wanted = lanes.get() as u64 * FILES_PER_LANE + FILES_BESIDE;
    let purpose = format!("{lanes} lanes hold up to {wanted} descriptors");
    let check = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if hard >= wanted => Check::ok(NAME, format!("{purpose} of {hard}")),
        Ok((_, hard)) => Check::off(NAME, format!("{purpose}: the hard limit is {hard}")).mend(
            format!("raise RLIMIT_NOFILE, with LimitNOFILE={wanted} in the service, or set fewer `lanes`"),
        ),
        Err(errno) => Check::unknown(NAME, format!("{purpose}: getrlimit: {errno:?}")),
    };
    check.needed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_effective_mask_and_no_other() {
        let status = "Name:\tsv\nCapInh:\t0000000000000000\nCapPrm:\t0\nCapEff:\t0000000000201000\nCapBnd:\tff\n";
        let mask = effective(status).expect("a line CapEff");
        assert_eq!(mask, 1 << CAP_NET_ADMIN | 1 << CAP_SYS_ADMIN);
        assert_eq!(effective("Name:\tsv\n"), None);
    }

    #[test]
    fn more_lanes_than_descriptors_are_told_before_they_fail() {
        let lanes = NonZeroUsize::new(usize::MAX >> 8).expect("not zero");
        assert_eq!(open_files(lanes).hindrance(), Some("open-files"));
        assert_eq!(open_files(NonZeroUsize::MIN).hindrance(), None);
    }
}

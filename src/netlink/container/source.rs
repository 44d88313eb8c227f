//! The program that keeps a container to its IPv6 address, on the host's end of its link: it goes with the link.

use std::io;
use std::net::Ipv6Addr;
use std::os::fd::AsFd;

use crate::bpf::source;
use crate::error::{SetupError, errno};
use crate::io::not_loaded;
use crate::netlink::socket::Netlink;
use crate::sys;
use crate::sys::bpf::ProgramType;
use crate::sys::tcx::{self, Side};

const OPERATION: &str = "check sources on";
const WITHOUT: &str = "or give containers no IPv6 (`subnet6`)";

/// Has the link `name` with number `interface`, of the calling thread's namespace, take IPv6 packets from `own` alone.
///
/// # Errors
/// Which step failed and what mends it: without the program the container could speak as any other of this cell.
pub(super) fn keep(
    netlink: &mut Netlink,
    interface: u32,
    name: &str,
    own: Ipv6Addr,
) -> Result<(), SetupError> {
    let program = sys::bpf::load(ProgramType::SchedCls, source::NAME, &source::ingress(own))
        .map_err(|error| not_loaded(OPERATION, name, &error))
        .map_err(|error| {
            let mend = format!("{}; {WITHOUT}", error.mend);
            error.mend(mend)
        })?;
    match tcx::attach(interface, Side::Ingress, &program, None) {
        // Before Linux 6.6.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
        attached => return attached.map_err(|error| failed(name, "BPF_PROG_ATTACH", &error)),
    }
    netlink
        .ensure_clsact(interface)
        .map_err(|error| error.setup_step(OPERATION, name, "add clsact qdisc"))?;
    let program = program.as_fd();
    netlink
        .put_filter(interface, Side::Ingress, source::NAME, program, None)
        .map_err(|error| error.setup_step(OPERATION, name, "add bpf filter"))
}

/// Whether a link has the program.
///
/// # Errors
/// If the kernel does not tell.
pub(super) fn is_kept(
    netlink: &mut Netlink,
    interface: u32,
    name: &str,
) -> Result<bool, SetupError> {
    let ids = match tcx::attached(interface, Side::Ingress) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
            Vec::new()
        }
        told => told.map_err(|error| failed(name, "BPF_PROG_QUERY", &error))?,
    };
    for id in ids {
        match tcx::program(id).and_then(tcx::info) {
            Ok(info) if info.name == source::NAME => return Ok(true),
            Ok(_) => {}
            // Gone meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(failed(name, "BPF_PROG_GET_FD_BY_ID", &error)),
        }
    }
    let filters = netlink
        .filters(interface, Side::Ingress)
        .map_err(|error| error.setup_step(OPERATION, name, "list filters"))?;
    Ok(filters
        .iter()
        .any(|filter| filter.name.as_deref() == Some(source::NAME)))
}

fn failed(name: &str, step: &str, error: &io::Error) -> SetupError {
    let failed = SetupError::new(OPERATION, name, format_args!("{step}: {}", errno(error)));
    match error.raw_os_error() {
        Some(libc::EPERM) => failed.mend(format!(
            "needs CAP_NET_ADMIN, CAP_BPF and CAP_SYS_ADMIN: run as root, {WITHOUT}"
        )),
        _ => failed,
    }
}

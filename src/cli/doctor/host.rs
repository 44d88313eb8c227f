//! How the host is set up.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use libc::c_int;
use socket2::{Domain, Socket, Type};

use super::check::Check;
use crate::error::errno;
use crate::io::BUFFER_BYTES;
use crate::sys;

/// Room for bursts in the kernel.
pub(super) fn socket_buffers() -> Check {
    const NAME: &str = "socket-buffers";
    let purpose = format!("bursts of {} KiB wait in the kernel", BUFFER_BYTES >> 10);
    let forced = Socket::new(Domain::IPV4, Type::DGRAM, None).and_then(|socket| {
        sys::udp::set_option(
            &socket,
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            BUFFER_BYTES,
        )
    });
    let Err(error) = forced else {
        return Check::ok(NAME, purpose);
    };
    let max = sysctl("net/core/rmem_max").and_then(|max| max.parse::<c_int>().ok());
    let max = max.unwrap_or(0);
    if max >= BUFFER_BYTES {
        return Check::ok(NAME, purpose);
    }
    let cause = format!(
        "{purpose}: SO_RCVBUFFORCE: {}, net.core.rmem_max = {max}",
        errno(&error)
    );
    Check::off(NAME, cause).mend(format!(
        "needs CAP_NET_ADMIN, or sysctl -w net.core.rmem_max={BUFFER_BYTES}"
    ))
}

/// How many lanes there will be.
pub(super) fn cpus(lanes: NonZeroUsize) -> Check {
    let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let detail = format!(
        "`lanes = 0` is {lanes}: as many as CPUs this process may use, of {} online",
        online.trim()
    );
    Check::ok("cpus", detail)
}

/// Containers reach the TAP by it.
pub(super) fn ip_forward() -> Check {
    const NAME: &str = "ip-forward";
    let purpose = "containers reach the overlay through this host's routes";
    let value = sysctl("net/ipv4/ip_forward");
    match value.as_deref() {
        Some("0") => Check::off(NAME, format!("{purpose}: net.ipv4.ip_forward = 0"))
            .mend("`container add` switches it on; without it: sysctl -w net.ipv4.ip_forward=1"),
        Some(_) => Check::ok(NAME, purpose),
        None => {
            Check::unknown(NAME, format!("{purpose}: /proc/sys does not tell")).mend("mount /proc")
        }
    }
}

fn sysctl(path: &str) -> Option<String> {
    let value = fs::read_to_string(Path::new("/proc/sys").join(path)).ok()?;
    Some(value.trim().to_owned())
}

/// The kernel's own VXLAN, which nobody needs here: what this daemon replaces, and what `bench` compares with.
pub(super) fn kernel_vxlan() -> Check {
    const NAME: &str = "kernel-vxlan";
    let purpose = "`bench` compares with the kernel's vxlan device; the daemon does without";
    if Path::new("/sys/module/vxlan").exists() {
        return Check::ok(NAME, purpose);
    }
    let release = sysctl("kernel/osrelease").unwrap_or_default();
    let modules = Path::new("/lib/modules").join(release);
    // Asking the kernel for a device would load the module.
    let lists = ["modules.builtin", "modules.dep"].map(|list| modules.join(list));
    let lists = lists.map(|list| fs::read_to_string(list).unwrap_or_default());
    if lists.iter().any(|list| has_vxlan(list)) {
        return Check::ok(NAME, format!("{purpose}: a module, not loaded"));
    }
    Check::missing(NAME, format!("{purpose}: no such module"))
        .mend("`bench` measures this dataplane alone")
}

/// In a list such as `kernel/drivers/net/vxlan/vxlan.ko.xz: ...`.
fn has_vxlan(list: &str) -> bool {
    list.lines()
        .filter_map(|line| line.split(':').next())
        .any(|path| path.contains("/vxlan.ko"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_vxlan_as_a_module_and_not_as_anothers_need() {
        assert!(has_vxlan(
            "kernel/drivers/net/vxlan/vxlan.ko.zst: kernel/net/ipv4/udp_tunnel.ko.zst\n"
        ));
        assert!(has_vxlan("kernel/net/a.ko\nkernel/drivers/net/vxlan.ko\n"));
        assert!(!has_vxlan(
            "kernel/drivers/net/geneve.ko: kernel/drivers/net/vxlan/vxlan.ko\n"
        ));
        assert!(!has_vxlan(""));
    }
}

//! The TAP, and what the kernel takes over on it and on UDP sockets.

use crate::control::config::VtepConfig;
use crate::control::rows::SilkVtep;
use crate::daemon::offload::{self, Kernel};
use crate::error::{SetupError, errno};
use crate::io::{self, Offload, OffloadState, Offloads, TapQueue};
use crate::netlink::{Hook, MarkPrograms, Namespace, Netlink, existing};
use crate::sys;

use super::check::Check;

/// Queues of the TAP that is tried: a second one shows that there may be many.
const QUEUES: usize = 2;

/// The device node.
pub(super) fn tun() -> Check {
    const NAME: &str = "tun";
    let check = match sys::tun::open() {
        Ok(_) => Check::ok(NAME, format!("{} opens", sys::tun::NODE)),
        Err(error) => {
            let mend = match error.raw_os_error() {
                Some(libc::EACCES | libc::EPERM) => {
                    "run as root, or give the service's user the device node"
                }
                _ => "modprobe tun, or pass the device node into this container",
            };
            Check::missing(NAME, format!("{}: {}", sys::tun::NODE, errno(&error))).mend(mend)
        }
    };
    check.needed()
}

/// A TAP as the daemon opens it, and what it gives and takes. It is made in `scratch`, or here under a name of its own, and gone at once.
pub(super) fn tap(
    vtep: &VtepConfig,
    scratch: Option<&Namespace>,
    running: Option<&SilkVtep>,
) -> Vec<Check> {
    let tried = match scratch {
        Some(scratch) => scratch.run(|| open_tap(vtep)).and_then(|opened| opened),
        None => open_tap(vtep),
    };
    let purpose = "a TAP of several queues with virtio_net_hdr";
    let check = match &tried {
        Ok(_) => Check::ok("tap", purpose),
        Err(error) if error.cause.starts_with(sys::tun::NODE) => Check::unknown(
            "tap",
            format!("{purpose}: not tried without {}", sys::tun::NODE),
        ),
        Err(error) => {
            Check::missing("tap", format!("{purpose}: {}", error.cause)).mend(&error.mend)
        }
    };
    let offloads = tried.as_ref().ok().map(|tried| &tried.offloads);
    vec![
        check.needed(),
        tap_offload(
            Offload::Tso,
            offloads,
            "the TAP gives TCP super-frames",
            "Linux 2.6.27 or later has it",
        ),
        tap_offload(
            Offload::Uso,
            offloads,
            "the TAP gives and takes UDP super-frames",
            "Linux 6.2 or later has it",
        ),
        tap_offload(
            Offload::TapCoalescing,
            offloads,
            "the TAP takes super-frames",
            "some kernels refuse them all, as 6.6.44: update it",
        ),
        marks(tried.as_ref().ok().map(|tried| &tried.marks), running),
    ]
}

/// What a TAP was found to do.
struct Tried {
    offloads: Offloads,
    marks: Result<Hook, SetupError>,
}

/// Packets' own marks as groups; and where a daemon that runs has them from.
fn marks(tried: Option<&Result<Hook, SetupError>>, running: Option<&SilkVtep>) -> Check {
    const NAME: &str = "marks";
    let purpose = "programs carry skb->mark over the TAP (marks = \"bpf\")";
    let check = marks_here(NAME, purpose, tried);
    let Some(running) = running else { return check };
    let uses = format!(
        "the daemon that runs uses {}: {}",
        running.marks, running.marks_why
    );
    match &running.marks_trouble {
        None => check.also(uses),
        Some(trouble) => Check::off(NAME, format!("{purpose}; {uses}; {trouble}"))
            .mend("have those programs run behind, or end with TCX_NEXT"),
    }
}

fn marks_here(
    name: &'static str,
    purpose: &str,
    tried: Option<&Result<Hook, SetupError>>,
) -> Check {
    match tried {
        Some(Ok(hook)) => {
            let hook = hook.name();
            let auto = "`auto` is that, unless the file has groups";
            Check::ok(name, format!("{purpose}: by {hook}; {auto}"))
        }
        Some(Err(error)) => {
            let instead = "`auto` is then the group table";
            let mend = Some(error.mend.as_str()).filter(|mend| !mend.is_empty());
            Check::missing(name, format!("{purpose}: {}: {instead}", error.cause))
                .mend(mend.unwrap_or("give groups as [[group]]"))
        }
        None => Check::unknown(name, format!("{purpose}: not tried without a TAP")),
    }
}

fn open_tap(vtep: &VtepConfig) -> Result<Tried, SetupError> {
    // Nobody else's: it has our process id.
    let name = format!("svdoc{}", std::process::id());
    let wanted = offload::wanted_of_tap(vtep.offload);
    let queues = (0..QUEUES).map(|_| TapQueue::open(&name, wanted));
    let mut queues = queues.collect::<Result<Vec<_>, _>>()?;
    Ok(Tried {
        offloads: offload::probe(vtep, &mut queues[0]),
        marks: attach_marks(&name, vtep),
    })
}

/// They go with the TAP.
fn attach_marks(name: &str, vtep: &VtepConfig) -> Result<Hook, SetupError> {
    let mut netlink = Netlink::open()?;
    let link = existing(&mut netlink, name)?
        .ok_or_else(|| SetupError::new("look up link", name, "the TAP is gone"))?;
    let programs = MarkPrograms::attach(link.index, name, vtep.mac, None, None)?;
    Ok(programs.hook())
}

fn tap_offload(offload: Offload, offloads: Option<&Offloads>, purpose: &str, mend: &str) -> Check {
    let name = offload.name();
    match offloads.map(|offloads| offloads.state(offload)) {
        Some(OffloadState::On) => Check::ok(name, purpose),
        Some(_) => Check::missing(name, format!("{purpose}: this kernel does not")).mend(mend),
        None => Check::unknown(name, format!("{purpose}: not tried without a TAP")),
    }
}

/// The host cuts.
pub(super) fn udp_gso() -> Check {
    udp_offload(
        Offload::UdpGso,
        "one send for many datagrams (UDP_SEGMENT)",
        io::supports_gso(),
        Kernel::running().has_sound_gso(),
        "Linux 4.18 or later has it, and 7.0 to 7.1.4 spoil headers",
    )
}

/// The host joins.
pub(super) fn udp_gro() -> Check {
    udp_offload(
        Offload::UdpGro,
        "one read for many datagrams (UDP_GRO)",
        io::supports_gro(),
        Kernel::running().has_sound_gro(),
        "Linux 5.12 or later has it without known faults",
    )
}

fn udp_offload(offload: Offload, purpose: &str, supported: bool, sound: bool, mend: &str) -> Check {
    let name = offload.name();
    match (supported, sound) {
        (true, true) => Check::ok(name, purpose),
        (false, _) => Check::missing(name, format!("{purpose}: the kernel has it not")).mend(mend),
        (true, false) => {
            Check::missing(name, format!("{purpose}: not used on this kernel")).mend(mend)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(check: &Check) -> String {
        let line = check.to_string();
        line.split(' ').next().unwrap_or_default().to_owned()
    }

    #[test]
    fn an_offload_that_failed_its_probe_is_missing_and_untried_ones_are_unknown() {
        let offloads = Offloads::from_fn(|offload| match offload {
            Offload::Uso => OffloadState::Unsupported,
            _ => OffloadState::On,
        });
        let check = |offload, offloads| tap_offload(offload, offloads, "", "");
        assert_eq!(state(&check(Offload::Tso, Some(&offloads))), "ok");
        assert_eq!(state(&check(Offload::Uso, Some(&offloads))), "missing");
        assert_eq!(state(&check(Offload::Tso, None)), "unknown");
    }

    #[test]
    fn marks_that_cannot_be_carried_say_why_and_what_is_used_instead() {
        let error = SetupError::new("carry marks over", "svdoc1", "BPF_PROG_LOAD: EPERM");
        let line = marks(Some(&Err(error.mend("needs CAP_BPF"))), None).to_string();
        assert!(line.starts_with("missing  marks"), "{line}");
        assert!(
            line.contains("EPERM: `auto` is then the group table"),
            "{line}"
        );
        assert!(line.ends_with("(needs CAP_BPF)"), "{line}");
        let line = marks(Some(&Ok(Hook::Clsact)), None).to_string();
        assert!(line.starts_with("ok       marks"), "{line}");
        assert!(
            line.ends_with("by clsact; `auto` is that, unless the file has groups"),
            "{line}"
        );
        assert_eq!(state(&marks(None, None)), "unknown");
    }

    #[test]
    fn a_daemon_that_runs_says_what_it_uses_and_what_is_wrong_with_it() {
        let mut running = SilkVtep {
            lanes: 1,
            addresses: Vec::new(),
            overlays: Vec::new(),
            routing: true,
            strict_source: true,
            marks: "table".to_owned(),
            marks_why: "the configuration has groups".to_owned(),
            marks_trouble: None,
            policy: "off".to_owned(),
            features: Default::default(),
        };
        let line = |running: &SilkVtep| marks(Some(&Ok(Hook::Tcx)), Some(running)).to_string();
        let used = "; the daemon that runs uses table: the configuration has groups";
        assert!(line(&running).ends_with(used), "{}", line(&running));
        running.marks_trouble = Some("program 7 is first".to_owned());
        let troubled = line(&running);
        assert!(troubled.starts_with("off      marks"), "{troubled}");
        assert!(
            troubled.contains("; program 7 is first (have those"),
            "{troubled}"
        );
    }

    #[test]
    fn a_kernel_with_a_known_fault_counts_as_one_without() {
        let check = |supported, sound| udp_offload(Offload::UdpGso, "", supported, sound, "");
        assert_eq!(state(&check(true, true)), "ok");
        assert_eq!(state(&check(true, false)), "missing");
        assert_eq!(state(&check(false, true)), "missing");
    }
}

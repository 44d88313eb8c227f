//! Which offloads are used: those that the configuration leaves on, that pass their probe, and that no known fault of this kernel spoils.

use std::fs;

use crate::control::config::{OffloadConfig, VtepConfig};
use crate::io::{self, Offload, OffloadState, Offloads, TapOffloads, TapQueue};
use crate::wire::vnet::GsoType;

/// What to ask of the TAP.
pub(crate) fn wanted_of_tap(config: OffloadConfig) -> TapOffloads {
    TapOffloads {
        tso: config.tso,
        uso: config.tso && config.uso,
    }
}

/// Whether to ask the host to join datagrams.
pub(super) fn wants_gro(config: OffloadConfig) -> bool {
    config.udp_gro && Kernel::running().has_sound_gro()
}

/// The state of each, given the TAP they are to be used on.
pub(crate) fn probe(vtep: &VtepConfig, tap: &mut TapQueue) -> Offloads {
    let config = vtep.offload;
    let kernel = Kernel::running();
    let given = tap.offloads();
    let mut takes = |gso_type| tap.takes_super_frames(gso_type);
    let takes_tcp = takes(GsoType::TcpV4);
    let takes_udp = takes(GsoType::UdpL4);
    if given.uso && !takes_udp {
        // Nobody else holds the device: what fails now fails again when its queue is read, and is told then.
        let _ = tap.without_uso();
    }
    Offloads::from_fn(|offload| match offload {
        Offload::Tso => state(config.tso, given.tso),
        // In both directions or not at all.
        Offload::Uso => state(config.tso && config.uso, given.uso && takes_udp),
        Offload::TapCoalescing => state(config.tap_coalescing, takes_tcp),
        // The host cuts only what it puts checksums on (`udp_send_skb`).
        Offload::UdpGso => state(
            config.udp_gso && vtep.udp_checksum,
            io::supports_gso() && kernel.has_sound_gso(),
        ),
        Offload::UdpGro => state(config.udp_gro, io::supports_gro() && kernel.has_sound_gro()),
    })
}

fn state(wanted: bool, supported: bool) -> OffloadState {
    match (wanted, supported) {
        (false, _) => OffloadState::Off,
        (true, false) => OffloadState::Unsupported,
        (true, true) => OffloadState::On,
    }
}

/// A kernel's version, for faults that no probe shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kernel([u32; 3]);

impl Kernel {
    /// This host's.
    pub(crate) fn running() -> Self {
        Self::parse(&fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default())
    }

    /// `6.18.44-cloud` is 6.18.44. What is no version is one without known faults.
    fn parse(release: &str) -> Self {
        let mut numbers = release
            .split(|c: char| !c.is_ascii_digit())
            .map(|digits| digits.parse().ok());
        let mut next = || numbers.next().flatten();
        match (next(), next(), next()) {
            (Some(major), Some(minor), patch) => Self([major, minor, patch.unwrap_or(0)]),
            _ => Self([u32::MAX; 3]),
        }
    }

    /// 7.0 to 7.1.4 corrupt the headers of what they cut.
    pub(crate) fn has_sound_gso(self) -> bool {
        !(Self([7, 0, 0])..=Self([7, 1, 4])).contains(&self)
    }

    /// Before 5.12 tunnelled datagrams are joined that must not be.
    pub(crate) fn has_sound_gro(self) -> bool {
        self >= Self([5, 12, 0])
    }

    /// Before 5.13 no program makes room for a tunnel's headers (BPF_F_ADJ_ROOM_ENCAP_L2_ETH), though it may be loaded.
    pub(crate) fn makes_tunnel_room(self) -> bool {
        self >= Self([5, 13, 0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_versions_of_distributions() {
        for (release, version) in [
            ("6.18.44-cloud-amd64", [6, 18, 44]),
            ("5.10.0-33-amd64\n", [5, 10, 0]),
            ("7.1", [7, 1, 0]),
            ("6.6-rc1", [6, 6, 0]),
            ("", [u32::MAX; 3]),
        ] {
            assert_eq!(Kernel::parse(release), Kernel(version), "{release}");
        }
    }

    #[test]
    fn known_faults_have_their_bounds() {
        let sound = |release| {
            let kernel = Kernel::parse(release);
            (kernel.has_sound_gso(), kernel.has_sound_gro())
        };
        assert_eq!(sound("5.11.22"), (true, false));
        assert_eq!(sound("5.12.0"), (true, true));
        assert_eq!(sound("6.19.9"), (true, true));
        assert_eq!(sound("7.0.0"), (false, true));
        assert_eq!(sound("7.1.4"), (false, true));
        assert_eq!(sound("7.1.5"), (true, true));
    }
}

//! What the host does for us, and whether it does: each feature is probed at start, can be switched off by configuration, and steps
//! down when the host refuses it in earnest. Everything works without any of them, only slower.
//!
//! ```text
//! tso ----> uso              frames from the TAP
//!   \-----> tap-coalescing   frames to the TAP (with uso also those of UDP)
//! udp-gso, udp-gro           datagrams
//! ```

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// Work that a host may take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// The TAP gives TCP super-frames, and frames whose checksum is not finished (TUN_F_TSO4, TUN_F_TSO6).
    Tso,
    /// The TAP gives UDP super-frames, since Linux 6.2 (TUN_F_USO4, TUN_F_USO6).
    Uso,
    /// The TAP takes super-frames.
    TapCoalescing,
    /// The host cuts a send into datagrams, since Linux 4.18 (UDP_SEGMENT).
    UdpGso,
    /// The host joins datagrams of one sender for one read, since Linux 5.0 (UDP_GRO).
    UdpGro,
}

impl Offload {
    /// All, in the order they are shown.
    pub const ALL: [Self; 5] = [
        Self::Tso,
        Self::Uso,
        Self::TapCoalescing,
        Self::UdpGso,
        Self::UdpGro,
    ];

    /// As it is shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tso => "tso",
            Self::Uso => "uso",
            Self::TapCoalescing => "tap-coalescing",
            Self::UdpGso => "udp-gso",
            Self::UdpGro => "udp-gro",
        }
    }
}

/// Whether an offload is used, and if not, why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum OffloadState {
    /// The configuration says no, or another that it needs is off.
    #[default]
    Off,
    /// It is used.
    On,
    /// The probe at start failed.
    Unsupported,
    /// It was used until the host refused what it had promised.
    Refused,
}

impl OffloadState {
    /// As it is shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On => "on",
            Self::Unsupported => "unsupported",
            Self::Refused => "refused",
        }
    }

    const fn of(byte: u8) -> Self {
        match byte {
            1 => Self::On,
            2 => Self::Unsupported,
            3 => Self::Refused,
            _ => Self::Off,
        }
    }
}

/// The state of every offload: read by all lanes, written when one is refused.
#[derive(Debug, Default)]
pub struct Offloads {
    states: [AtomicU8; Offload::ALL.len()],
    refusals: AtomicU64,
}

impl Offloads {
    /// Every offload in the state that `state` gives.
    pub fn from_fn(state: impl Fn(Offload) -> OffloadState) -> Self {
        Self {
            states: Offload::ALL.map(|offload| AtomicU8::new(state(offload) as u8)),
            refusals: AtomicU64::new(0),
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self, offload: Offload) -> OffloadState {
        OffloadState::of(self.states[offload as usize].load(Relaxed))
    }

    /// Whether it is used.
    #[must_use]
    pub fn is_on(&self, offload: Offload) -> bool {
        self.state(offload) == OffloadState::On
    }

    /// The host refused it, and did without it what was asked. Nobody asks for it from now on.
    pub fn refuse(&self, offload: Offload) {
        self.count_refusal(offload);
        let before = self.states[offload as usize].swap(OffloadState::Refused as u8, Relaxed);
        if OffloadState::of(before) == OffloadState::On {
            tracing::warn!(
                "the host refuses {}: done without from now on",
                offload.name()
            );
        }
    }

    /// The host refused it this once, and did without it what was asked: for one peer, or for one frame.
    pub fn count_refusal(&self, offload: Offload) {
        self.refusals.fetch_add(1, Relaxed);
        tracing::trace!("the host refused {} once", offload.name());
    }

    /// How often an offload in use was refused. Nothing is lost by it: the refused packets went without.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_offload_stays_off_and_is_counted() {
        let offloads = Offloads::from_fn(|_| OffloadState::On);
        offloads.refuse(Offload::UdpGso);
        offloads.refuse(Offload::UdpGso);
        assert_eq!(offloads.state(Offload::UdpGso), OffloadState::Refused);
        assert!(offloads.is_on(Offload::UdpGro));
        assert_eq!(offloads.refusals(), 2);
    }

    #[test]
    fn every_state_is_kept_as_it_was_given() {
        use OffloadState::{Off, On, Refused, Unsupported};
        for state in [Off, On, Unsupported, Refused] {
            let offloads = Offloads::from_fn(|_| state);
            assert!(
                Offload::ALL
                    .iter()
                    .all(|offload| offloads.state(*offload) == state)
            );
        }
    }
}

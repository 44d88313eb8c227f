//! One case: what goes into both devices, and how it is told in one line.

use super::setup::Setup;
use super::view::{hex, unhex};
use crate::support::Result;

/// Which side of the device it is put on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Frames of the host, captured on the underlay.
    Transmit,
    /// Packets of the underlay, captured on the device.
    Receive,
}

/// One packet that is put in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stimulus {
    /// Its `skb->mark`.
    pub(crate) mark: u32,
    /// A `virtio_net_hdr` that makes a super-frame of it.
    pub(crate) vnet: Option<[u8; VNET_BYTES]>,
    /// From its Ethernet header on.
    pub(crate) bytes: Vec<u8>,
}

/// Bytes of a `virtio_net_hdr`.
pub(crate) const VNET_BYTES: usize = 10;

/// What goes in, and where.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) direction: Direction,
    pub(crate) setup: &'static Setup,
    /// One after another.
    pub(crate) stimuli: Vec<Stimulus>,
}

impl Direction {
    /// As a case's line has it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Transmit => "tx",
            Self::Receive => "rx",
        }
    }
}

impl Case {
    /// In one word: direction, setup, and for each packet mark, `virtio_net_hdr` and bytes in hex.
    pub(crate) fn word(&self) -> String {
        let mut word = format!("{}/{}", self.direction.name(), self.setup.name);
        for stimulus in &self.stimuli {
            let vnet = stimulus.vnet.map(|vnet| hex(&vnet)).unwrap_or_default();
            let bytes = hex(&stimulus.bytes);
            word.push_str(&format!("/{:x}.{vnet}.{bytes}", stimulus.mark));
        }
        word
    }

    /// Reads what [`Self::word`] wrote.
    pub(crate) fn parse(word: &str) -> Result<Self> {
        let mut parts = word.split('/');
        let direction = match parts.next() {
            Some("tx") => Direction::Transmit,
            Some("rx") => Direction::Receive,
            other => return Err(format!("a case begins with tx or rx, not {other:?}").into()),
        };
        let name = parts.next().unwrap_or_default();
        let setup = Setup::named(name).ok_or_else(|| format!("no setup is named {name:?}"))?;
        let stimuli = parts.map(Stimulus::parse).collect::<Option<Vec<_>>>();
        Ok(Self {
            direction,
            setup,
            stimuli: stimuli.ok_or("each packet of a case is MARK.[VNET].HEX")?,
        })
    }
}

impl Stimulus {
    /// These bytes, without a mark.
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            ..Self::default()
        }
    }

    fn parse(part: &str) -> Option<Self> {
        let mut fields = part.split('.');
        let mark = u32::from_str_radix(fields.next()?, 16).ok()?;
        let vnet = match unhex(fields.next()?)? {
            empty if empty.is_empty() => None,
            vnet => Some(vnet.try_into().ok()?),
        };
        let bytes = unhex(fields.next()?)?;
        fields
            .next()
            .is_none()
            .then_some(Self { mark, vnet, bytes })
    }
}

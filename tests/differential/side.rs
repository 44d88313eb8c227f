//! One of the two hosts that are compared: a device on it, and the wire of its underlay.
//!
//! Nothing is waited for by time. Behind each case goes a fence, a packet that both devices let through: what has not come when it comes
//! does not come. A lane may send what it has in hand in an order of its own, but has sent all of that before it reads again: so a second
//! fence, put in when the first has come, is behind all.

use std::sync::Arc;

use nix::errno::Errno;

use super::case::{Case, Direction};
use super::datagram::{Datagram, VNI};
use super::frames::{ARP, EXPERIMENTAL, IPV4, IPV6, Inner};
use super::packet_socket::{ALL_PROTOCOLS, Frame, Listener, Sender};
use super::setup::Setup;
use super::verdict::Drops;
use super::view::is_tunnels;
use super::{device, host};
use crate::support::{Daemon, Namespace, Result, Stats, VTEP_NAME, ensure};

/// Who handles a side's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Kernel,
    Silk,
}

/// What came out of one case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Observation {
    /// What the device did not take at all.
    pub(crate) refused: Vec<Errno>,
    /// On the underlay.
    pub(crate) underlay: Vec<Vec<u8>>,
    /// On the device, for its host.
    pub(crate) overlay: Vec<Frame>,
}

/// Dropped in the order of its fields: a daemon before its namespace.
pub(crate) struct Side {
    kind: Kind,
    setup: &'static Setup,
    onto_device: Sender,
    onto_device_with_vnet_header: Sender,
    onto_wire: Sender,
    from_wire: Listener,
    /// Several where captures are by protocol.
    from_device: Vec<Listener>,
    fences: u64,
    refused: Vec<Errno>,
    daemon: Option<Daemon>,
    _host: Arc<Namespace>,
    _wire: Namespace,
}

/// What a fence carries before its number.
const FENCE: [u8; 16] = *b"fence/8f1d03c2b7";

impl Side {
    /// Builds host, wire and device.
    pub(crate) fn new(kind: Kind, setup: &'static Setup) -> Result<Self> {
        let (host, wire) = (Arc::new(Namespace::new()?), Namespace::new()?);
        host::join(&host, &wire, setup)?;
        let daemon = match kind {
            Kind::Kernel => device::of_kernel(&host, setup).map(|()| None)?,
            Kind::Silk => Some(device::of_daemon(&host, setup)?),
        };
        if let Some(mtu) = setup.shrunk_mtu {
            host.ip(&format!("link set eth0 mtu {mtu}"))?;
        }
        let protocols: &[u16] = if setup.marks {
            &[IPV4, IPV6, ARP, EXPERIMENTAL]
        } else {
            &[ALL_PROTOCOLS]
        };
        let listen = |protocol: &u16| Listener::open(&host, VTEP_NAME, *protocol);
        Ok(Self {
            kind,
            setup,
            onto_device: Sender::open(&host, VTEP_NAME)?,
            onto_device_with_vnet_header: Sender::open_with_vnet_header(&host, VTEP_NAME)?,
            onto_wire: Sender::open(&wire, "wire0")?,
            from_wire: Listener::open(&wire, "wire0", ALL_PROTOCOLS)?,
            from_device: protocols.iter().map(listen).collect::<Result<_>>()?,
            fences: 0,
            refused: Vec::new(),
            daemon,
            _host: host,
            _wire: wire,
        })
    }

    /// Puts a case in, and the first fence behind it.
    pub(crate) fn stimulate(&mut self, case: &Case) -> Result {
        self.drain()?;
        for stimulus in &case.stimuli {
            let refused = match (case.direction, stimulus.vnet) {
                (Direction::Receive, _) => self.onto_wire.send(&stimulus.bytes, 0)?,
                (Direction::Transmit, None) => {
                    self.onto_device.send(&stimulus.bytes, stimulus.mark)?
                }
                (Direction::Transmit, Some(vnet)) => {
                    let bytes = [&vnet[..], &stimulus.bytes].concat();
                    let sender = &mut self.onto_device_with_vnet_header;
                    sender.send(&bytes, stimulus.mark)?
                }
            };
            self.refused.extend(refused);
        }
        self.fence(case.direction)
    }

    /// What has come of it.
    pub(crate) fn observe(&mut self, case: &Case) -> Result<Observation> {
        let mut seen = Observation::default();
        self.until_fence(case.direction, &mut seen)?;
        self.fence(case.direction)?;
        self.until_fence(case.direction, &mut seen)?;
        while let Some(frame) = self.from_wire.next_now()? {
            seen.underlay(frame);
        }
        for listener in &mut self.from_device {
            while let Some(frame) = listener.next_now()? {
                seen.overlay.push(frame);
            }
        }
        seen.refused = std::mem::take(&mut self.refused);
        Ok(seen)
    }

    /// What a person wants to see beside a difference.
    pub(crate) fn diagnosis(&self) -> String {
        let Some(daemon) = &self.daemon else {
            return String::new();
        };
        let stats = daemon
            .ctl("stats")
            .unwrap_or_else(|error| error.to_string());
        format!("{stats}\n{}", daemon.stderr())
    }

    /// What the daemon has dropped so far; nothing where there is none.
    pub(crate) fn drops(&self) -> Result<Drops> {
        match &self.daemon {
            Some(daemon) => Stats::read(daemon)?.drops_by_reason(),
            None => Ok(Drops::new()),
        }
    }

    fn drain(&mut self) -> Result {
        while self.from_wire.next_now()?.is_some() {}
        for listener in &mut self.from_device {
            while listener.next_now()?.is_some() {}
        }
        Ok(())
    }

    fn fence(&mut self, direction: Direction) -> Result {
        self.fences += 1;
        let frame = Inner::raw(EXPERIMENTAL, &self.fence_payload());
        let refused = match direction {
            Direction::Transmit => self.onto_device.send(&frame.0, 0)?,
            Direction::Receive => {
                let header = [8, 0, 0, 0, 0, 0, VNI as u8, 0];
                let packet = Datagram::new(self.setup.v6, header, &frame.inbound()).packet();
                self.onto_wire.send(&packet, 0)?
            }
        };
        ensure!(refused.is_none(), "a fence was refused: {refused:?}");
        Ok(())
    }

    fn fence_payload(&self) -> Vec<u8> {
        [&FENCE[..], &self.fences.to_be_bytes()].concat()
    }

    fn until_fence(&mut self, direction: Direction, seen: &mut Observation) -> Result {
        let fence = self.fence_payload();
        let listener = match direction {
            Direction::Transmit => &mut self.from_wire,
            // The fence's protocol is the last.
            Direction::Receive => self.from_device.last_mut().ok_or("a listener")?,
        };
        loop {
            let Some(frame) = listener.next()? else {
                let kind = self.kind;
                return Err(format!("no fence passed {kind:?}: {}", self.diagnosis()).into());
            };
            if frame.bytes.ends_with(&fence) {
                return Ok(());
            }
            match direction {
                Direction::Transmit => seen.underlay(frame),
                Direction::Receive => seen.overlay.push(frame),
            }
        }
    }
}

impl Observation {
    fn underlay(&mut self, frame: Frame) {
        if is_tunnels(&frame.bytes) {
            self.underlay.push(frame.bytes);
        }
    }
}

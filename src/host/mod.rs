//! The host's part of the underlay, without a host: what Linux does with a packet before the daemon's socket has it, and what it puts
//! around a datagram that the daemon sends.
//!
//! [`Host::receive`] is the way in: IP version, lengths and header checksum, destination, reassembly, UDP length, checksum and port; each
//! packet is answered with a [`Datagram`], as kept, or with one [`HostDrop`]. [`Outgoing::emit`] is the way out. No I/O, no clock: age is
//! counted in packets. What depends on more than packet and configuration is not played: routes, netfilter, the link's MAC address,
//! martian sources, what IP options ask for, memory and queues other than those for fragments.
//!
//! Called by [`cli::replay`](crate::cli::replay); by whoever feeds the core from captured or made-up packets.

mod drop;
mod fragments;
mod ip;
mod link;
mod send;
mod udp;

use std::collections::HashSet;
use std::net::IpAddr;

pub use drop::HostDrop;
pub use fragments::{MAX_AGE_PACKETS, MAX_BYTES, MAX_QUEUES, Settled};
pub use link::Link;
pub use send::{Outgoing, Unsendable};
pub use udp::Datagram;

use crate::wire::ip::protocol;
use fragments::Fragments;
use ip::Content;

/// What the host knows of the daemon's socket.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The daemon's underlay address; the socket is of its family.
    pub local: IpAddr,
    /// The daemon's UDP port.
    pub port: u16,
    /// Which destinations are this host's.
    pub addresses: Addresses,
    /// Take UDP over IPv6 without checksum.
    pub zero_checksum_v6: bool,
}

/// Which destinations are this host's.
#[derive(Debug, Clone)]
pub enum Addresses {
    /// [`Rules::local`] alone.
    Local,
    /// Whatever is not one of these, the peers' own: a capture does not tell the other addresses of the host it was made on, but what
    /// goes to a peer is on its way out.
    AllBut(HashSet<IpAddr>),
}

impl Rules {
    fn takes(&self, destination: IpAddr) -> bool {
        match &self.addresses {
            Addresses::Local => destination == self.local,
            Addresses::AllBut(others) => !others.contains(&destination),
        }
    }
}

/// A packet as a capture has it.
#[derive(Clone, Copy, Debug)]
pub struct Captured<'a> {
    /// What it starts with.
    pub link: Link,
    /// The bytes there are.
    pub bytes: &'a [u8],
    /// The wire had more.
    pub snapped: bool,
}

/// What the host does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// The daemon receives a datagram: this packet, or the one that this fragment completed.
    Datagram(Datagram<'a>),
    /// A fragment, kept until the others are there: [`Host::settled`] tells what became of it.
    Kept,
    /// The daemon never sees it.
    Drop(HostDrop),
}

/// A host that receives packets.
#[derive(Debug)]
pub struct Host {
    rules: Rules,
    fragments: Fragments,
    packets: u64,
    settled: Vec<Settled>,
}

impl Host {
    /// A host that has received nothing yet.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            fragments: Fragments::default(),
            packets: 0,
            settled: Vec::new(),
        }
    }

    /// The next packet; the first has number 1.
    pub fn receive<'a>(&'a mut self, captured: Captured<'a>) -> Outcome<'a> {
        self.packets += 1;
        self.fragments.expire(self.packets, &mut self.settled);
        match self.judge(captured) {
            Ok(outcome) => outcome,
            Err(reason) => Outcome::Drop(reason),
        }
    }

    /// The payload of a datagram that the daemon sends to another host's port, if this packet is one whole; of several that a network
    /// card is to cut apart, from the first on. Its checksum may be the card's to write, so it is not looked at.
    #[must_use]
    pub fn sent<'a>(&self, captured: Captured<'a>) -> Option<&'a [u8]> {
        let packet = captured.link.packet(captured.bytes).ok()?;
        let header = ip::parse(packet, captured.snapped).ok()?;
        let is_ours = header.source == self.rules.local && !self.rules.takes(header.destination);
        match header.content {
            Content::Whole {
                protocol: protocol::UDP,
                payload,
            } if is_ours => udp::sent(&self.rules, payload),
            Content::Whole { .. } | Content::Fragment(_) => None,
        }
    }

    /// What became of fragments since this was asked last, each told once, in no order.
    pub fn settled(&mut self) -> impl Iterator<Item = Settled> + '_ {
        self.settled.drain(..)
    }

    /// No packet will come any more: every fragment still kept is settled.
    pub fn finish(&mut self) {
        self.fragments.finish(&mut self.settled);
    }

    fn judge<'a>(&'a mut self, captured: Captured<'a>) -> Result<Outcome<'a>, HostDrop> {
        let packet = captured.link.packet(captured.bytes);
        let packet = packet.map_err(|reason| match reason {
            HostDrop::ShortFrame if captured.snapped => HostDrop::TruncatedCapture,
            reason => reason,
        })?;
        let header = ip::parse(packet, captured.snapped)?;
        if !self.rules.takes(header.destination) {
            return Err(HostDrop::NotForUs);
        }
        let ends = (header.source, header.destination);
        let (protocol, tos, payload) = match header.content {
            Content::Whole { protocol, payload } => (protocol, header.tos, payload),
            Content::Fragment(fragment) => {
                let settled = &mut self.settled;
                let fragments = &mut self.fragments;
                match fragments.insert(self.packets, ends, header.tos, &fragment, settled)? {
                    None => return Ok(Outcome::Kept),
                    Some(whole) if ends.0.is_ipv4() => (whole.protocol, whole.tos, whole.payload),
                    Some(whole) => match ip::extensions(whole.protocol, whole.payload)? {
                        Content::Whole { protocol, payload } => (protocol, whole.tos, payload),
                        // Fragments of fragments: Linux would begin again.
                        Content::Fragment(_) => return Err(HostDrop::IpExtension),
                    },
                }
            }
        };
        if protocol != protocol::UDP {
            return Err(HostDrop::NotUdp);
        }
        udp::receive(&self.rules, ends, tos, payload).map(Outcome::Datagram)
    }
}

#[cfg(test)]
mod tests;

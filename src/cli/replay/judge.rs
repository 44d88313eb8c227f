//! The core asked about one packet, and its answer written out. Everything that replay asks of [`vtep`] is here.

use std::net::{IpAddr, SocketAddr};

use super::line::{Line, Reason, Underlay};
use crate::DropReason;
use crate::control::config::VtepConfig;
use crate::host::{Datagram, Outgoing, Unsendable};
use crate::io::DEFAULT_SOURCE_PORTS;
use crate::io::flows::{FlowTable, Moment};
use crate::io::source_ports::{pick, spread};
use crate::tables::{Destination, Tables};
use crate::vtep::{self, Egress, Encap, Fate, Ingress, Received};
use crate::wire::ethernet::Frame;
use crate::wire::vxlan::{self, Header};
use crate::wire::{MacAddr, Mark, ethernet, ip, mark_tag};

/// Takes the frames that a packet became, one after the other.
pub(super) trait Sink {
    /// Why it takes no more.
    type Error;

    /// One frame.
    fn put(&mut self, frame: &[u8]) -> Result<(), Self::Error>;
}

/// One daemon's part: its tables, and how it sends.
pub(super) struct Judge<'t> {
    tables: &'t Tables,
    flows: FlowTable,
    local: IpAddr,
    checksum: bool,
    source_ports: Vec<u16>,
    next_id: u16,
    /// Room for what is written, and for a frame whose mark was taken out.
    frame: Vec<u8>,
    untagged: Vec<u8>,
}

impl<'t> Judge<'t> {
    pub(super) fn new(vtep: &VtepConfig, tables: &'t Tables, flows: FlowTable) -> Self {
        Self {
            tables,
            flows,
            local: vtep.local,
            checksum: vtep.udp_checksum,
            source_ports: source_ports(vtep),
            next_id: 0,
            frame: Vec::new(),
            untagged: Vec::new(),
        }
    }

    /// A frame that the host gives, perhaps with its mark in place of the source MAC. Whether a mark is heard the tables say.
    pub(super) fn frame<S: Sink>(
        &mut self,
        n: u64,
        bytes: &[u8],
        sink: &mut S,
    ) -> Result<Line<'t>, S::Error> {
        let tagged = Frame::new_checked(bytes)
            .and_then(|frame| mark_tag::parse(frame.source()))
            .is_some();
        if !tagged {
            return self.marked_frame(n, bytes, Mark::NONE, sink);
        }
        let mut untagged = std::mem::take(&mut self.untagged);
        untagged.clear();
        untagged.extend_from_slice(bytes);
        let line = match mark_tag::take(&mut untagged, self.tables.local.mac) {
            Some(Mark::NONE) => Ok(Line::drop(n, Reason::Daemon(DropReason::ForgedMark))),
            taken => self.marked_frame(n, &untagged, taken.unwrap_or(Mark::NONE), sink),
        };
        self.untagged = untagged;
        line
    }

    /// As [`Self::frame`], with its mark no longer in the source MAC.
    fn marked_frame<S: Sink>(
        &mut self,
        n: u64,
        bytes: &[u8],
        mark: Mark,
        sink: &mut S,
    ) -> Result<Line<'t>, S::Error> {
        match vtep::egress(self.tables, bytes, mark) {
            Egress::Encap(encap) => match self.encap(&encap, bytes, sink)? {
                Ok(()) => Ok(encapsulated(n, &encap)),
                Err(reason) => Ok(Line::drop(n, Reason::Daemon(reason))),
            },
            Egress::Reply(reply) => {
                sink.put(reply.frame())?;
                Ok(Line::new(n, Fate::Reply))
            }
            // Nobody tells replay of a path that is narrower than the underlay.
            Egress::Fragment { .. } | Egress::TooBig(_) => {
                Ok(Line::drop(n, Reason::Daemon(DropReason::PathMtu)))
            }
            Egress::Drop(reason) => Ok(Line::drop(n, Reason::Daemon(reason))),
        }
    }

    /// A datagram that the daemon sent: where a policy is enforced its flow may be answered.
    pub(super) fn sent(&self, datagram: &[u8], now: Moment) {
        let parts = datagram.split_first_chunk();
        if let Some((header, frame)) = parts
            && self.tables.policy.is_some()
            && Header::parse_vni(header) == Ok(self.tables.local.vni)
        {
            self.flows.note_frame(frame, now);
        }
    }

    /// What no rule lets in is delivered if it is part of a flow that the capture shows to begin here, as in the lanes.
    fn admitted(&self, verdict: Ingress<'t>, now: Moment) -> Ingress<'t> {
        match verdict {
            Ingress::Unsolicited { deliver, subject }
                if self.flows.admits_packet(subject.as_ref(), now) =>
            {
                Ingress::Deliver(deliver)
            }
            verdict => verdict,
        }
    }

    /// A datagram that the host received.
    pub(super) fn datagram<S: Sink>(
        &mut self,
        n: u64,
        (datagram, now): (&Datagram<'_>, Moment),
        sink: &mut S,
    ) -> Result<Line<'t>, S::Error> {
        let received = Received {
            source: datagram.source.ip().to_canonical(),
            tos: datagram.tos,
        };
        let judged = vtep::ingress(self.tables, datagram.payload, received);
        let line = match self.admitted(judged, now) {
            Ingress::Deliver(deliver) => {
                let inner = &datagram.payload[vxlan::HEADER_LEN..];
                if self.tables.policy.is_some() {
                    self.flows.note_let_in(inner, now);
                }
                self.frame.clear();
                self.frame.extend_from_slice(inner);
                if let Some(ecn) = deliver.ecn {
                    ip::write_ecn(&mut self.frame, ecn);
                }
                sink.put(&self.frame)?;
                Line::new(n, Fate::Deliver).mark(deliver.mark)
            }
            Ingress::Unsolicited { .. } => Line::drop(n, Reason::Daemon(DropReason::PolicyDenied)),
            Ingress::Reply { reply, peer: _ } => self.reply(n, reply.frame(), sink)?,
            Ingress::Drop { reason, peer: _ } => Line::drop(n, Reason::Daemon(reason)),
        };
        let header = datagram.payload.first_chunk();
        let vni = header.and_then(|header| Header::parse_vni(header).ok());
        Ok(line.vni(vni).underlay(Underlay::One(received.source)))
    }

    /// An answer to a peer takes the way of any frame of the host, as in the lanes.
    fn reply<S: Sink>(&mut self, n: u64, reply: &[u8], sink: &mut S) -> Result<Line<'t>, S::Error> {
        let refused = match vtep::egress(self.tables, reply, Mark::NONE) {
            Egress::Encap(encap) => self.encap(&encap, reply, sink)?,
            Egress::Reply(_) => Err(DropReason::NoFdbEntry),
            Egress::Fragment { .. } | Egress::TooBig(_) => Err(DropReason::PathMtu),
            Egress::Drop(reason) => Err(reason),
        };
        Ok(match refused {
            Ok(()) => Line::new(n, Fate::Reply),
            Err(reason) => Line::drop(n, Reason::Daemon(reason)),
        })
    }

    /// A copy for each destination.
    fn encap<S: Sink>(
        &mut self,
        encap: &Encap<'_>,
        bytes: &[u8],
        sink: &mut S,
    ) -> Result<Result<(), DropReason>, S::Error> {
        for destination in encap.copies() {
            let outgoing = self.outgoing(encap, destination);
            let header = encap.header(destination);
            let (mac, rest) = bytes.split_at(ethernet::DESTINATION.end);
            let routed = encap.destination_mac.map(MacAddr::octets);
            let mac = routed.as_ref().map_or(mac, <[u8; 6]>::as_slice);
            self.frame.clear();
            match outgoing.emit(&[&header, mac, rest], &mut self.frame) {
                Ok(()) => sink.put(&self.frame)?,
                Err(Unsendable::TooBig) => return Ok(Err(DropReason::TooBig)),
                Err(Unsendable::Families) => return Ok(Err(DropReason::UnderlaySendFailed)),
            }
        }
        Ok(Ok(()))
    }

    fn outgoing(&mut self, encap: &Encap<'_>, destination: &Destination) -> Outgoing {
        let port = self.source_ports[pick(encap.flow_hash, self.source_ports.len())];
        // Never 0, which some middleboxes take for none; Linux leaves it out as well.
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        Outgoing {
            source: SocketAddr::new(self.local, port),
            destination: destination.underlay,
            ttl: encap.outer.ttl,
            tos: encap.outer.tos,
            dont_fragment: encap.outer.df,
            id: self.next_id,
            checksum: self.checksum,
        }
    }
}

fn encapsulated<'t>(n: u64, encap: &Encap<'t>) -> Line<'t> {
    let line = Line::new(n, Fate::Encap).mark(encap.mark);
    match encap.destinations {
        [] => line,
        [one] => line
            .vni(Some(one.vni))
            .underlay(Underlay::One(one.underlay.ip())),
        [first, ..] => line
            .vni(Some(first.vni))
            .underlay(Underlay::Each(encap.destinations)),
    }
}

/// The ports that a daemon would open, were nothing else on the host; the host's own range is not asked for.
fn source_ports(vtep: &VtepConfig) -> Vec<u16> {
    let range = match vtep.source_ports {
        Some((min, max)) => min..max,
        None => DEFAULT_SOURCE_PORTS,
    };
    let free = |port| Ok::<_, std::convert::Infallible>((port != vtep.port).then_some(port));
    let Ok(ports) = spread(&range, free);
    if ports.is_empty() {
        // The VXLAN port is all that the range has: no daemon would start, but a packet can be judged.
        return vec![range.start];
    }
    ports
}

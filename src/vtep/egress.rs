//! From the overlay: where a frame of the host goes.

use std::net::IpAddr;

use super::Reply;
use super::reply::Question;
use crate::drop_reason::DropReason;
use crate::tables::{Address, Destination, Local, MarkSource, Tables};
use crate::wire::ethernet::{EtherType, Frame};
use crate::wire::flow;
use crate::wire::ip::{Ipv4, Ipv6, Network};
use crate::wire::vxlan::{self, Header};
use crate::wire::{Ecn, MacAddr, Mark};

/// What happens to a frame from the host.
#[derive(Debug)]
pub enum Egress<'t> {
    /// It goes to the underlay, once per destination.
    Encap(Encap<'t>),
    /// It asked for a neighbour: this frame goes back to the host.
    Reply(Reply),
    /// It goes nowhere.
    Drop(DropReason),
}

/// How a frame is encapsulated.
#[derive(Debug, Clone)]
pub struct Encap<'t> {
    /// Where it goes: one destination, or several for head-end replication; never none.
    pub destinations: &'t [Destination],
    /// The inner destination MAC to write, if routing changed it.
    pub destination_mac: Option<MacAddr>,
    /// Who is speaking; `None`: no group is sent.
    pub mark: Option<Mark>,
    /// TOS or traffic class of the outer packet, ECN bits included.
    pub tos: u8,
    /// Chooses the outer source port.
    pub flow_hash: u32,
}

impl Encap<'_> {
    /// The VXLAN header of the copy for `destination`.
    #[must_use]
    pub fn header(&self, destination: &Destination) -> [u8; vxlan::HEADER_LEN] {
        Header {
            vni: destination.vni,
            mark: self.mark,
        }
        .emit()
    }
}

/// Judges one frame from the host: `bytes` starts with the Ethernet header, and `mark` is what the host's rules marked it with
/// (`skb->mark`), [`Mark::NONE`] where they did not or where that is not known.
///
/// A frame for the VTEP's own MAC is routed: route, neighbour, FDB. Any other unicast MAC goes by FDB alone, so hosts that install
/// routes per cell work too. Broadcast and multicast go to the zero-MAC entries; ARP requests and neighbour solicitations are answered.
#[must_use]
pub fn egress<'t>(tables: &'t Tables, bytes: &[u8], mark: Mark) -> Egress<'t> {
    match judge(tables, bytes, mark) {
        Ok(egress) => egress,
        Err(reason) => Egress::Drop(reason),
    }
}

fn judge<'t>(tables: &'t Tables, bytes: &[u8], mark: Mark) -> Result<Egress<'t>, DropReason> {
    let frame = Frame::new_checked(bytes).ok_or(DropReason::ShortFrame)?;
    // The families part here and not after `Network::parse`: a `Network` that may be either is written to the stack and read back.
    match frame.ethertype() {
        EtherType::IPV4 => {
            let ip = Ipv4::new_checked(frame.payload()).ok_or(DropReason::TruncatedIp)?;
            let ends = (ip.source(), ip.destination());
            judge_packet(tables, frame, Network::V4(ip), Some(ends), mark)
        }
        EtherType::IPV6 => {
            let ip = Ipv6::new_checked(frame.payload()).ok_or(DropReason::TruncatedIp)?;
            let ends = (ip.source(), ip.destination());
            judge_packet(tables, frame, Network::V6(ip), Some(ends), mark)
        }
        _ => {
            let ends = None::<(IpAddr, IpAddr)>;
            judge_packet(tables, frame, Network::Other, ends, mark)
        }
    }
}

/// `ends`: source and destination of an IP packet.
#[inline]
fn judge_packet<'t, A: Address>(
    tables: &'t Tables,
    frame: Frame<'_>,
    network: Network<'_>,
    ends: Option<(A, A)>,
    mark: Mark,
) -> Result<Egress<'t>, DropReason> {
    let mac = frame.destination();
    let (destination_mac, destinations) = if mac == tables.local.mac && tables.local.routing {
        let (_, destination) = ends.ok_or(DropReason::NotRoutable)?;
        let (mac, destinations) = route(tables, destination)?;
        (Some(mac), destinations)
    } else if mac.is_multicast() {
        match answer(tables, frame)? {
            Some(reply) => return Ok(Egress::Reply(reply)),
            None => (None, flood(tables, mac)?),
        }
    } else {
        (None, bridge(tables, mac)?)
    };
    let source = ends.map(|(source, _)| source);
    check_source(&tables.local, source)?;
    Ok(Egress::Encap(Encap {
        destinations,
        destination_mac,
        mark: sent_mark(tables, mark, source),
        tos: tables.local.tos | network.ecn().map_or(Ecn::NotEct, Ecn::encap) as u8,
        flow_hash: flow::hash_parsed(frame, network),
    }))
}

/// Route, neighbour, FDB: the MAC to write and where the packet goes.
#[inline]
fn route(
    tables: &Tables,
    destination: impl Address,
) -> Result<(MacAddr, &[Destination]), DropReason> {
    if tables.local.in_own_subnet(destination) {
        return Err(DropReason::AbsentContainer);
    }
    tables.forward(destination)
}

/// The neighbour's answer to an ARP request or neighbour solicitation; `None` if the frame asks nothing, or is to be flooded.
fn answer(tables: &Tables, frame: Frame<'_>) -> Result<Option<Reply>, DropReason> {
    if !tables.local.routing {
        return Ok(None);
    }
    let Some(question) = Question::parse(frame) else {
        return Ok(None);
    };
    match tables.neighbors.lookup(question.target()) {
        Some(mac) if !question.is_probe() => Ok(Some(question.answer(mac))),
        _ if tables.fdb.lookup(MacAddr::ZERO).is_empty() => Err(DropReason::NoNeighbor),
        _ => Ok(None),
    }
}

/// Broadcast and multicast: the address's own entry, else the zero-MAC entries.
fn flood(tables: &Tables, mac: MacAddr) -> Result<&[Destination], DropReason> {
    non_empty(tables.fdb.lookup(mac))
        .or_else(|| non_empty(tables.fdb.lookup(MacAddr::ZERO)))
        .ok_or(DropReason::NoFloodEntry)
}

/// Unicast by FDB alone. Without routing the zero-MAC entries serve unknown addresses too, as they do for the kernel's device
/// (`vxlan_xmit`); with it they do not: nothing is flooded by accident.
fn bridge(tables: &Tables, mac: MacAddr) -> Result<&[Destination], DropReason> {
    non_empty(tables.fdb.lookup(mac))
        .or_else(|| {
            (!tables.local.routing)
                .then(|| tables.fdb.lookup(MacAddr::ZERO))
                .and_then(non_empty)
        })
        .ok_or(DropReason::NoFdbEntry)
}

fn non_empty(destinations: &[Destination]) -> Option<&[Destination]> {
    (!destinations.is_empty()).then_some(destinations)
}

/// Judged after the destination, so that a packet for an absent container is counted as that.
#[inline]
fn check_source(local: &Local, source: Option<impl Address>) -> Result<(), DropReason> {
    match source {
        Some(source) if local.strict_source && !local.covers(source) => {
            Err(DropReason::SourceNotLocal)
        }
        _ => Ok(()),
    }
}

#[inline]
fn sent_mark(tables: &Tables, own: Mark, source: Option<impl Address>) -> Option<Mark> {
    if !tables.local.gbp {
        return None;
    }
    match tables.local.marks {
        MarkSource::Packet => (own != Mark::NONE).then_some(own),
        MarkSource::Table => tables.groups.lookup(source?).map(Mark::from),
        MarkSource::Off => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::vtep::fixture::*;

    fn encap<'t>(tables: &'t Tables, frame: &[u8]) -> Encap<'t> {
        match egress(tables, frame, Mark::NONE) {
            Egress::Encap(encap) => encap,
            other => panic!("expected encap, got {other:?}"),
        }
    }

    fn drop_reason(tables: &Tables, frame: &[u8]) -> DropReason {
        match egress(tables, frame, Mark::NONE) {
            Egress::Drop(reason) => reason,
            other => panic!("expected drop, got {other:?}"),
        }
    }

    fn to(destination: Ipv4Addr) -> Vec<u8> {
        udp((OWN_MAC, OWN_MAC), (OWN_CONTAINER, destination), 0)
    }

    #[test]
    fn routes_a_frame_for_its_own_mac() {
        let tables = tables();
        let encap = encap(&tables, &from_host(0));
        assert_eq!(encap.destination_mac, Some(PEER_MAC));
        assert_eq!(encap.destinations.len(), 1);
        assert_eq!(encap.destinations[0].underlay, (PEER_UNDERLAY, 4789).into());
        assert_eq!(
            encap.header(&encap.destinations[0]),
            [0x88, 0, 0, 3, 0, 0, 1, 0]
        );
    }

    #[test]
    fn sends_no_group_where_none_is_known_or_wanted() {
        let mut spec = spec();
        spec.groups.clear();
        let without_entry = compile(local(), &spec);
        let without_gbp = compile(
            Local {
                gbp: false,
                ..local()
            },
            &super::super::fixture::spec(),
        );
        for tables in [without_entry, without_gbp] {
            let encap = encap(&tables, &from_host(0));
            assert_eq!(
                encap.header(&encap.destinations[0]),
                [0x08, 0, 0, 0, 0, 0, 1, 0]
            );
        }
    }

    /// The header of a frame that the host's rules marked, where the group table has group 3 for its source.
    fn marked_header(marks: MarkSource, gbp: bool, mark: u32) -> [u8; 8] {
        let local = Local {
            marks,
            gbp,
            ..local()
        };
        let tables = compile(local, &spec());
        let Egress::Encap(encap) = egress(&tables, &from_host(0), Mark(mark)) else {
            panic!("it is routed");
        };
        encap.header(&encap.destinations[0])
    }

    #[test]
    fn one_source_alone_says_what_group_a_packet_is_of() {
        let header = |marks, mark| marked_header(marks, true, mark);
        let none = [0x08, 0, 0, 0, 0, 0, 1, 0];
        let mark = 0xde48_abcd;
        assert_eq!(
            header(MarkSource::Packet, mark),
            [0x88, 0x48, 0xab, 0xcd, 0, 0, 1, 0]
        );
        assert_eq!(header(MarkSource::Packet, 0), none);
        for mark in [0, mark] {
            assert_eq!(header(MarkSource::Table, mark), [0x88, 0, 0, 3, 0, 0, 1, 0]);
            assert_eq!(header(MarkSource::Off, mark), none);
            for marks in [MarkSource::Packet, MarkSource::Table, MarkSource::Off] {
                assert_eq!(marked_header(marks, false, mark), none);
            }
        }
    }

    #[test]
    fn carries_inner_ecn_out_as_the_kernel_does() {
        let tables = compile(
            Local {
                tos: 0x28,
                ..local()
            },
            &spec(),
        );
        for (inner, outer) in [(0, 0x28), (1, 0x29), (2, 0x2a), (3, 0x2a), (0xb8, 0x28)] {
            assert_eq!(
                encap(&tables, &from_host(inner)).tos,
                outer,
                "inner {inner}"
            );
        }
    }

    #[test]
    fn a_resolved_frame_goes_by_fdb_alone() {
        let tables = tables();
        let addresses = (OWN_CONTAINER, Ipv4Addr::new(192, 0, 2, 1));
        let encap = encap(&tables, &udp((OWN_MAC, PEER_MAC), addresses, 0));
        assert_eq!(encap.destination_mac, None);
        assert_eq!(encap.destinations[0].underlay.ip(), PEER_UNDERLAY);
    }

    #[test]
    fn each_missing_entry_has_its_own_reason() {
        assert_eq!(
            drop_reason(&tables(), &to(Ipv4Addr::new(10, 255, 44, 1))),
            DropReason::NoRoute
        );
        let without = |change: fn(&mut crate::tables::TableSpec)| {
            let mut spec = spec();
            change(&mut spec);
            drop_reason(&compile(local(), &spec), &from_host(0))
        };
        assert_eq!(
            without(|spec| spec.neighbors.clear()),
            DropReason::NoNeighbor
        );
        assert_eq!(without(|spec| spec.fdb.clear()), DropReason::NoFdbEntry);
    }

    #[test]
    fn an_absent_container_is_named_before_its_sender() {
        let stranger = Ipv4Addr::new(192, 0, 2, 1);
        let frame = udp(
            (OWN_MAC, OWN_MAC),
            (stranger, Ipv4Addr::new(10, 255, 108, 9)),
            0,
        );
        assert_eq!(drop_reason(&tables(), &frame), DropReason::AbsentContainer);
    }

    #[test]
    fn a_foreign_source_is_dropped_unless_sources_are_not_checked() {
        let frame = udp(
            (OWN_MAC, OWN_MAC),
            (Ipv4Addr::new(192, 0, 2, 1), PEER_CONTAINER),
            0,
        );
        assert_eq!(drop_reason(&tables(), &frame), DropReason::SourceNotLocal);
        let lax = compile(
            Local {
                strict_source: false,
                ..local()
            },
            &spec(),
        );
        encap(&lax, &frame);
    }

    #[test]
    fn an_unknown_mac_is_flooded_only_without_routing() {
        let unknown = MacAddr::new([2, 0, 0, 0, 0, 9]);
        let frame = udp((OWN_MAC, unknown), (OWN_CONTAINER, PEER_CONTAINER), 0);
        let mut spec = spec();
        spec.fdb.push(fdb_entry(MacAddr::ZERO, PEER_UNDERLAY));
        assert_eq!(
            drop_reason(&compile(local(), &spec), &frame),
            DropReason::NoFdbEntry
        );
        let plain = compile(
            Local {
                routing: false,
                ..local()
            },
            &spec,
        );
        assert_eq!(encap(&plain, &frame).destinations.len(), 1);
    }

    #[test]
    fn broadcast_goes_to_every_zero_mac_entry_in_order() {
        let other: IpAddr = Ipv4Addr::new(10, 0, 16, 15).into();
        let mut spec = spec();
        let frame = udp(
            (OWN_MAC, MacAddr::BROADCAST),
            (OWN_CONTAINER, Ipv4Addr::BROADCAST),
            0,
        );
        assert_eq!(
            drop_reason(&compile(local(), &spec), &frame),
            DropReason::NoFloodEntry
        );
        for underlay in [PEER_UNDERLAY, other] {
            spec.fdb.push(fdb_entry(MacAddr::ZERO, underlay));
        }
        let tables = compile(local(), &spec);
        let encap = encap(&tables, &frame);
        let underlays: Vec<_> = encap.destinations.iter().map(|d| d.underlay.ip()).collect();
        assert_eq!(underlays, [PEER_UNDERLAY, other]);
    }

    #[test]
    fn an_arp_request_is_answered_from_the_neighbor_table() {
        let tables = tables();
        let request = arp_request(OWN_MAC, OWN_VTEP, PEER_VTEP);
        let Egress::Reply(reply) = egress(&tables, &request, Mark::NONE) else {
            panic!("expected a reply");
        };
        assert_eq!(reply.frame()[..6], OWN_MAC.octets());
        assert_eq!(reply.frame()[22..28], PEER_MAC.octets());
        let unknown = arp_request(OWN_MAC, OWN_VTEP, Ipv4Addr::new(10, 255, 44, 0));
        assert_eq!(drop_reason(&tables, &unknown), DropReason::NoNeighbor);
    }

    #[test]
    fn short_frames_and_cut_off_headers_are_dropped() {
        let tables = tables();
        let frame = from_host(0);
        assert_eq!(drop_reason(&tables, &frame[..13]), DropReason::ShortFrame);
        assert_eq!(drop_reason(&tables, &frame[..33]), DropReason::TruncatedIp);
        let arp_to_own_mac = [&frame[..12], &[8, 6], &frame[14..]].concat();
        assert_eq!(
            drop_reason(&tables, &arp_to_own_mac),
            DropReason::NotRoutable
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), own in any::<bool>()) {
            let tables = tables();
            let mut frame = bytes;
            if own && frame.len() >= 14 {
                frame[..6].copy_from_slice(&OWN_MAC.octets());
                frame[12..14].copy_from_slice(&[8, 0]);
            }
            let _ = egress(&tables, &frame, Mark::NONE);
        }
    }
}

//! From the overlay: where a frame of the host goes.

use std::net::IpAddr;

use super::forward::{bridge, flood, route};
use super::reply::Question;
use super::{Encap, Outer, Reply, TooBig, source};
use crate::drop_reason::DropReason;
use crate::tables::{Address, MarkSource, Tables};
use crate::wire::ethernet::{EtherType, Frame};
use crate::wire::flow;
use crate::wire::ip::{Ipv4, Ipv6, Network};
use crate::wire::{MacAddr, Mark};

/// What happens to a frame from the host.
#[derive(Debug)]
pub enum Egress<'t> {
    /// It goes to the underlay, once per destination.
    Encap(Encap<'t>),
    /// It asked for a neighbour: this frame goes back to the host.
    Reply(Reply),
    /// It goes to the underlay in [fragments](crate::wire::ip::Fragmenter), a super-frame cut into its segments first: it does not fit the
    /// path to its peer, and is IPv4 without DF.
    Fragment {
        /// How each of them is encapsulated.
        encap: Encap<'t>,
        /// The largest packet that fits, in bytes behind the Ethernet header.
        mtu: u32,
    },
    /// It goes nowhere: it does not fit the path to its peer.
    TooBig(TooBig<'t>),
    /// It goes nowhere.
    Drop(DropReason),
}

/// Judges one frame from the host: `bytes` starts with the Ethernet header, and `mark` is what the host's rules marked it with
/// (`skb->mark`), [`Mark::NONE`] where they did not or where that is not known.
///
/// A frame for the VTEP's own MAC is routed: route, neighbour, FDB. Any other unicast MAC goes by FDB alone, so hosts that install
/// routes per cell work too. Broadcast and multicast go to the zero-MAC entries; ARP requests and neighbour solicitations are answered.
#[must_use]
pub fn egress<'t>(tables: &'t Tables, bytes: &[u8], mark: Mark) -> Egress<'t> {
    decide(tables, bytes, mark, || bytes.len())
}

/// The verdict on a super-frame, once for all its segments. `segment_len` gives the bytes of the largest of them, headers included; it is
/// asked only where that matters.
#[must_use]
pub fn egress_super_frame<'t>(
    tables: &'t Tables,
    bytes: &[u8],
    mark: Mark,
    segment_len: impl FnOnce() -> usize,
) -> Egress<'t> {
    decide(tables, bytes, mark, segment_len)
}

/// `len`: bytes of the largest frame that it becomes.
#[inline]
fn decide<'t>(
    tables: &'t Tables,
    bytes: &[u8],
    mark: Mark,
    len: impl FnOnce() -> usize,
) -> Egress<'t> {
    match judge(tables, bytes, mark) {
        Ok(Judged::Encap(encap)) => match encap.exceeds(len) {
            None => Egress::Encap(encap),
            Some(too_big) if may_be_fragmented(bytes) => Egress::Fragment {
                encap,
                mtu: too_big.mtu,
            },
            Some(too_big) => Egress::TooBig(too_big),
        },
        Ok(Judged::Reply(reply)) => Egress::Reply(reply),
        Err(reason) => Egress::Drop(reason),
    }
}

/// Whether the packet itself, behind no VLAN tag, is IPv4 without DF.
fn may_be_fragmented(bytes: &[u8]) -> bool {
    let network = Frame::new_checked(bytes).map(Network::parse);
    matches!(network, Some(Ok(Network::V4(ip))) if !ip.dont_fragment())
}

/// What can be said without the length.
enum Judged<'t> {
    Encap(Encap<'t>),
    Reply(Reply),
}

fn judge<'t>(tables: &'t Tables, bytes: &[u8], mark: Mark) -> Result<Judged<'t>, DropReason> {
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
            // Behind VLAN tags there may be IP. It gives the outer header's fields, and must be whole (`skb_vlan_inet_prepare`).
            let inner = Network::parse_untagged(frame).map_err(|_| DropReason::TruncatedIp)?;
            judge_packet(tables, frame, inner, None::<(IpAddr, IpAddr)>, mark)
        }
    }
}

/// `ends`: source and destination of an IP packet that stands behind no VLAN tag.
#[inline]
fn judge_packet<'t, A: Address>(
    tables: &'t Tables,
    frame: Frame<'_>,
    network: Network<'_>,
    ends: Option<(A, A)>,
    mark: Mark,
) -> Result<Judged<'t>, DropReason> {
    let mac = frame.destination();
    let (destination_mac, destinations) = if mac == tables.local.mac && tables.local.routing {
        let Some((_, destination)) = ends else {
            let reply = answer(tables, frame)?.ok_or(DropReason::NotRoutable)?;
            return Ok(Judged::Reply(reply));
        };
        let (mac, destinations) = route(tables, destination)?;
        (Some(mac), destinations)
    } else if mac.is_multicast() {
        match answer(tables, frame)? {
            Some(reply) => return Ok(Judged::Reply(reply)),
            None => (None, flood(tables, mac)?),
        }
    } else {
        (None, bridge(tables, mac)?)
    };
    let source = ends.map(|(source, _)| source);
    // After the destination, so that a packet for an absent container is counted as that.
    source::check_host(&tables.local, frame, network, source)?;
    Ok(Judged::Encap(Encap {
        destinations,
        destination_mac,
        mark: sent_mark(tables, mark, source),
        outer: Outer::of(&tables.local.outer, network, ends.is_none()),
        flow_hash: flow::hash_parsed(frame, network),
    }))
}

/// The neighbour's answer to an ARP request or neighbour solicitation; `None` if the frame asks nothing, or is to be flooded.
///
/// Whoever probes for an address by ARP is told that a peer has it (`arp_reduce`). Duplicate address detection by ND is not answered:
/// the kernel's answer goes to the unspecified address, where nobody receives it.
fn answer(tables: &Tables, frame: Frame<'_>) -> Result<Option<Reply>, DropReason> {
    if !tables.local.routing {
        return Ok(None);
    }
    let Some(question) = Question::parse(frame) else {
        return Ok(None);
    };
    match tables.neighbors.lookup(question.target()) {
        Some(mac) if !question.is_duplicate_detection() => Ok(Some(question.answer(mac))),
        _ if tables.fdb.lookup(MacAddr::ZERO).is_empty() => Err(DropReason::NoNeighbor),
        _ => Ok(None),
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
    use crate::tables::{Local, OuterField, OuterRules};
    use crate::vtep::fixture::*;

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
                outer: OuterRules {
                    tos: OuterField::Fixed(0x28),
                    ..OuterRules::default()
                },
                ..local()
            },
            &spec(),
        );
        for (inner, outer) in [(0, 0x28), (1, 0x29), (2, 0x2a), (3, 0x2a), (0xb8, 0x28)] {
            assert_eq!(
                encap(&tables, &from_host(inner)).outer.tos,
                outer,
                "inner {inner}"
            );
        }
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
    fn an_arp_request_is_answered_whether_it_probes_or_asks_the_vtep_itself() {
        let tables = tables();
        let probe = arp_request(OWN_MAC, Ipv4Addr::UNSPECIFIED, PEER_VTEP);
        let mut unicast = arp_request(OWN_MAC, OWN_VTEP, PEER_VTEP);
        unicast[..6].copy_from_slice(&OWN_MAC.octets());
        for request in [probe, unicast] {
            let Egress::Reply(reply) = egress(&tables, &request, Mark(0)) else {
                panic!("expected a reply");
            };
            assert_eq!(reply.frame()[22..28], PEER_MAC.octets());
            assert_eq!(reply.frame()[38..42], request[28..32], "to the asker");
        }
    }

    #[test]
    fn duplicate_address_detection_is_not_answered_from_the_neighbor_table() {
        let mut spec = spec();
        let address: IpAddr = "fd00::12:3456".parse().unwrap();
        spec.neighbors.push(crate::tables::Neighbor {
            address,
            mac: PEER_MAC,
        });
        let tables = compile(local(), &spec);
        let asked = solicitation("fd00::1".parse().unwrap());
        assert!(matches!(egress(&tables, &asked, Mark(0)), Egress::Reply(_)));
        let detection = solicitation(std::net::Ipv6Addr::UNSPECIFIED);
        assert_eq!(drop_reason(&tables, &detection), DropReason::NoNeighbor);
    }

    #[test]
    fn the_smallest_frame_that_is_not_ip_is_sent_as_it_is() {
        let tables = tables();
        let mut frame = udp((OWN_MAC, PEER_MAC), (OWN_CONTAINER, PEER_CONTAINER), 3);
        frame.truncate(14);
        assert_eq!(drop_reason(&tables, &frame), DropReason::TruncatedIp);
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        let encap = encap(&tables, &frame);
        assert_eq!((encap.destination_mac, encap.outer.tos), (None, 0));
    }

    #[test]
    fn a_tagged_frame_is_carried_with_the_ecn_of_the_packet_behind_the_tags() {
        let tables = tables();
        let untagged = udp((OWN_MAC, PEER_MAC), (OWN_CONTAINER, PEER_CONTAINER), 0xbb);
        for tags in [&[0x81, 0, 0, 5][..], &[0x88, 0xa8, 0, 6, 0x81, 0, 0, 5]] {
            let mut frame = untagged.clone();
            frame.splice(12..12, tags.iter().copied());
            let tagged = encap(&tables, &frame);
            assert_eq!((tagged.destination_mac, tagged.mark), (None, None));
            assert_eq!(tagged.outer.tos, 2);
            assert_eq!(tagged.flow_hash, encap(&tables, &untagged).flow_hash);
            frame.truncate(14 + tags.len() + 19);
            assert_eq!(drop_reason(&tables, &frame), DropReason::TruncatedIp);
            frame.truncate(14 + tags.len() - 2);
            assert_eq!(encap(&tables, &frame).outer.tos, 0);
        }
    }

    #[test]
    fn vxlan_inside_vxlan_is_carried_like_any_other_packet() {
        let tables = tables();
        let nested = crate::vtep::fixture::nested();
        let encap = encap(&tables, &nested);
        assert_eq!(encap.destination_mac, Some(PEER_MAC));
        assert_eq!(
            encap.flow_hash,
            flow::hash(Frame::new_checked(&nested).unwrap())
        );
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

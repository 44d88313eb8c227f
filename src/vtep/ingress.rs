//! From the underlay: what a datagram on the VXLAN port is.

use std::net::IpAddr;
use std::sync::Arc;

use super::policy::{self, Reading};
use super::reply::Question;
use super::{Reply, Subject, source};
use crate::drop_reason::DropReason;
use crate::tables::policy::Action;
use crate::tables::{Local, Peer, PeerId, Policy, Tables};
use crate::wire::ethernet::Frame;
use crate::wire::ip::Network;
use crate::wire::vxlan::{self, Header, HeaderError};
use crate::wire::{Ecn, Mark};

/// What the outer headers said of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Outer source address.
    pub source: IpAddr,
    /// Outer TOS or traffic class.
    pub tos: u8,
}

/// What happens to a datagram from the underlay.
#[derive(Debug)]
pub enum Ingress<'t> {
    /// The inner frame goes to the host.
    Deliver(Deliver<'t>),
    /// No rule of the policy lets it in: it goes to the host only as part of a flow that began here.
    Unsolicited {
        /// How it is delivered then.
        deliver: Deliver<'t>,
        /// What it is; `None` for IP that cannot be read, which is part of no flow.
        subject: Option<Subject>,
    },
    /// It asked for our own address: this frame goes back through [`egress`](super::egress).
    Reply {
        /// The answer.
        reply: Reply,
        /// Who asked.
        peer: Option<&'t Arc<Peer>>,
    },
    /// It goes nowhere.
    Drop {
        /// Why.
        reason: DropReason,
        /// Who sent it, if it is one of ours.
        peer: Option<&'t Arc<Peer>>,
    },
}

/// How the inner frame, at `datagram[vxlan::HEADER_LEN..]`, is delivered.
#[derive(Debug, Clone)]
pub struct Deliver<'t> {
    /// Who sent it; `None` for a stranger, let in without `strict_source`.
    pub peer: Option<&'t Arc<Peer>>,
    /// The mark the kernel's device would leave; `None` if the header had no group.
    pub mark: Option<Mark>,
    /// ECN bits to write into the inner IP header, if the tunnel changed them.
    pub ecn: Option<Ecn>,
}

/// Judges one datagram: `bytes` is the UDP payload.
///
/// The checks are those of the kernel's device and in its order (`vxlan_rcv`), with ours around them: first whether the sender is a
/// peer, last whether the inner source address lies behind it, and then, if a policy is enforced, whether its group may speak to whom it
/// speaks to.
///
/// ```
/// use std::sync::Arc;
///
/// use silk_vtep::DropReason;
/// use silk_vtep::tables::{CounterRegistry, Local, TableSpec, Tables};
/// use silk_vtep::vtep::{self, Ingress, Received};
///
/// let local = Arc::new(Local::silk("10.255.108.0/24".parse()?));
/// let tables = Tables::compile(local, &TableSpec::default(), &mut CounterRegistry::new(1));
/// let received = Received { source: "192.0.2.1".parse()?, tos: 0 };
/// match vtep::ingress(&tables, b"any bytes", received) {
///     Ingress::Drop { reason, peer } => {
///         assert_eq!(reason, DropReason::UnknownPeer);
///         assert!(peer.is_none());
///     }
///     other => panic!("nobody is known here, and yet: {other:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn ingress<'t>(tables: &'t Tables, bytes: &[u8], received: Received) -> Ingress<'t> {
    let id = tables.peers.find(received.source);
    match judge(tables, bytes, received, id) {
        Ok(verdict) => verdict,
        Err(reason) => Ingress::Drop {
            reason,
            peer: id.map(|id| tables.peers.at(id)),
        },
    }
}

fn judge<'t>(
    tables: &'t Tables,
    bytes: &[u8],
    received: Received,
    id: Option<PeerId>,
) -> Result<Ingress<'t>, DropReason> {
    let local = &*tables.local;
    let strict = match id {
        None if local.strict_source => return Err(DropReason::UnknownPeer),
        id => id.filter(|_| local.strict_source),
    };
    let (header, inner) = bytes.split_first_chunk().ok_or(DropReason::ShortDatagram)?;
    let header = check_header(local, header)?;
    let frame = Frame::new_checked(inner).ok_or(DropReason::ShortInnerFrame)?;
    if frame.source() == local.mac {
        return Err(DropReason::OwnSourceMac);
    }
    let network = Network::parse(frame).map_err(|_| DropReason::TruncatedInnerIp)?;
    let ecn = decap_ecn(network, received.tos)?;
    if let Some(id) = strict {
        source::check_peer(tables, frame, network, id)?;
    }
    let peer = id.map(|id| tables.peers.at(id));
    if let Some(reply) = answer(local, frame) {
        return Ok(Ingress::Reply { reply, peer });
    }
    let deliver = Deliver {
        peer,
        mark: header.mark,
        ecn,
    };
    match &tables.policy {
        None => Ok(Ingress::Deliver(deliver)),
        Some(policy) => Ok(guard(policy, frame, deliver)),
    }
}

/// What the rules make of a frame that is otherwise to be delivered.
fn guard<'t>(policy: &Policy, frame: Frame<'_>, deliver: Deliver<'t>) -> Ingress<'t> {
    let reading = Reading::of(frame);
    let decision = policy::decide(policy, &reading, deliver.mark);
    if decision.is_none_or(|decision| decision.action() == Action::Accept) {
        return Ingress::Deliver(deliver);
    }
    let subject = match reading {
        Reading::Packet(subject) => Some(subject),
        Reading::Exempt | Reading::Opaque => None,
    };
    Ingress::Unsolicited { deliver, subject }
}

/// I flag, then VNI, then the reserved bits: the kernel's order.
fn check_header(local: &Local, bytes: &[u8; vxlan::HEADER_LEN]) -> Result<Header, DropReason> {
    if *bytes == vxlan::PROBE_HEADER {
        return Err(DropReason::PathProbe);
    }
    if Header::parse_vni(bytes)? != local.vni {
        return Err(DropReason::UnknownVni);
    }
    Ok(Header::parse(bytes, local.gbp)?)
}

impl From<HeaderError> for DropReason {
    fn from(error: HeaderError) -> Self {
        match error {
            HeaderError::MissingVniFlag => Self::MissingVniFlag,
            HeaderError::ReservedBits => Self::ReservedBits,
        }
    }
}

/// The ECN bits to write, if the outer ones change the inner (RFC 6040); frames that are not IP have none.
fn decap_ecn(network: Network<'_>, outer_tos: u8) -> Result<Option<Ecn>, DropReason> {
    let Some(inner) = network.ecn() else {
        return Ok(None);
    };
    let ecn = Ecn::decap(inner, Ecn::from_tos(outer_tos)).ok_or(DropReason::EcnCeNotEct)?;
    Ok((ecn != inner).then_some(ecn))
}

/// The answer to a request for one of our own overlay addresses. Everything else is delivered, as the kernel does.
fn answer(local: &Local, frame: Frame<'_>) -> Option<Reply> {
    if !local.routing {
        return None;
    }
    let question = Question::parse(frame)?;
    // A probe too: the address is taken, and nobody but us would say so (RFC 5227 section 2.4, RFC 4862 section 5.4.3).
    let ours = local.addresses.contains(&question.target());
    ours.then(|| question.answer(local.mac))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::tables::TableSpec;
    use crate::vtep::fixture::*;
    use crate::wire::MacAddr;

    const HEADER: [u8; 8] = [0x88, 0, 0, 7, 0, 0, 1, 0];

    fn received(tos: u8) -> Received {
        Received {
            source: PEER_UNDERLAY,
            tos,
        }
    }

    fn reason(tables: &Tables, bytes: &[u8], received: Received) -> DropReason {
        match ingress(tables, bytes, received) {
            Ingress::Drop { reason, .. } => reason,
            other => panic!("expected drop, got {other:?}"),
        }
    }

    fn deliver<'t>(tables: &'t Tables, bytes: &[u8], received: Received) -> Deliver<'t> {
        match ingress(tables, bytes, received) {
            Ingress::Deliver(deliver) => deliver,
            other => panic!("expected deliver, got {other:?}"),
        }
    }

    #[test]
    fn delivers_a_peers_packet_with_its_mark() {
        let tables = tables();
        let deliver = deliver(&tables, &from_peer(HEADER, 0), received(0));
        assert_eq!(deliver.mark, Some(Mark(7)));
        assert_eq!(deliver.ecn, None);
        assert_eq!(deliver.peer.expect("a peer").underlay, PEER_UNDERLAY);
    }

    #[test]
    fn refuses_strangers_unless_sources_are_not_checked() {
        let stranger = Received {
            source: Ipv4Addr::new(192, 0, 2, 1).into(),
            tos: 0,
        };
        let packet = from_peer(HEADER, 0);
        assert_eq!(
            reason(&tables(), &packet, stranger),
            DropReason::UnknownPeer
        );
        let lax = compile(
            Local {
                strict_source: false,
                ..local()
            },
            &spec(),
        );
        assert!(deliver(&lax, &packet, stranger).peer.is_none());
    }

    #[test]
    fn checks_headers_in_the_kernels_order() {
        let tables = tables();
        let cases: [(&[u8], DropReason); 7] = [
            (&[], DropReason::ShortDatagram),
            (&HEADER[..7], DropReason::ShortDatagram),
            (
                &[0xf7, 0xff, 0xff, 0xff, 0, 0, 1, 0],
                DropReason::MissingVniFlag,
            ),
            (&vxlan::PROBE_HEADER, DropReason::PathProbe),
            (&[0x0c, 0, 0, 0, 0, 0, 2, 1], DropReason::UnknownVni),
            (&[0x0c, 0, 0, 0, 0, 0, 1, 0], DropReason::ReservedBits),
            (
                &[0x08, 0, 0, 0, 0, 0, 1, 0, 1, 2, 3],
                DropReason::ShortInnerFrame,
            ),
        ];
        for (bytes, expected) in cases {
            assert_eq!(
                reason(&tables, bytes, received(0)),
                expected,
                "{bytes:02x?}"
            );
        }
    }

    #[test]
    fn a_frame_of_our_own_mac_has_looped() {
        let frame = udp((OWN_MAC, OWN_MAC), (PEER_CONTAINER, OWN_CONTAINER), 0);
        let packet = [&HEADER[..], &frame].concat();
        assert_eq!(
            reason(&tables(), &packet, received(0)),
            DropReason::OwnSourceMac
        );
    }

    #[test]
    fn an_inner_source_must_lie_behind_its_sender() {
        let tables = tables();
        let stranger = Ipv4Addr::new(10, 255, 44, 1);
        for (source, expected) in [
            (OWN_CONTAINER, DropReason::OwnSourceAddress),
            (OWN_VTEP, DropReason::OwnSourceAddress),
            (stranger, DropReason::SourceNotPeers),
        ] {
            let frame = udp((PEER_MAC, OWN_MAC), (source, OWN_CONTAINER), 0);
            let packet = [&HEADER[..], &frame].concat();
            assert_eq!(reason(&tables, &packet, received(0)), expected, "{source}");
        }
        let vtep = udp((PEER_MAC, OWN_MAC), (PEER_VTEP, OWN_CONTAINER), 0);
        deliver(&tables, &[&HEADER[..], &vtep].concat(), received(0));
    }

    #[test]
    fn without_routing_the_fdb_places_the_inner_source() {
        let tables = bridging();
        deliver(&tables, &from_peer(HEADER, 0), received(0));
        let other_mac = MacAddr::new([2, 0, 0, 0, 0, 9]);
        let frame = udp((other_mac, OWN_MAC), (PEER_CONTAINER, OWN_CONTAINER), 0);
        let packet = [&HEADER[..], &frame].concat();
        assert_eq!(
            reason(&tables, &packet, received(0)),
            DropReason::SourceNotPeers
        );
    }

    #[test]
    fn without_routing_the_flood_list_places_nobody() {
        let plain = Local {
            routing: false,
            ..local()
        };
        let group = MacAddr::new([1, 0, 0x5e, 0, 0, 5]);
        let flooded = [MacAddr::ZERO, group];
        let spec = TableSpec {
            fdb: flooded.map(|mac| fdb_entry(mac, PEER_UNDERLAY)).into(),
            ..TableSpec::default()
        };
        let tables = compile(plain, &spec);
        for mac in flooded {
            let frame = udp((mac, OWN_MAC), (PEER_CONTAINER, OWN_CONTAINER), 0);
            let packet = [&HEADER[..], &frame].concat();
            let dropped = reason(&tables, &packet, received(0));
            assert_eq!(dropped, DropReason::SourceNotPeers, "{mac}");
        }
    }

    #[test]
    fn outer_congestion_reaches_the_inner_packet_or_drops_it() {
        let tables = tables();
        assert_eq!(
            deliver(&tables, &from_peer(HEADER, 2), received(3)).ecn,
            Some(Ecn::Ce)
        );
        assert_eq!(
            reason(&tables, &from_peer(HEADER, 0), received(3)),
            DropReason::EcnCeNotEct
        );
    }

    #[test]
    fn a_request_for_our_own_address_is_answered() {
        let tables = tables();
        let ask = |target| [&HEADER[..], &arp_request(PEER_MAC, PEER_VTEP, target)].concat();
        let Ingress::Reply { reply, .. } = ingress(&tables, &ask(OWN_VTEP), received(0)) else {
            panic!("expected a reply");
        };
        assert_eq!(reply.frame()[..6], PEER_MAC.octets());
        assert_eq!(reply.frame()[22..28], OWN_MAC.octets());
        deliver(&tables, &ask(OWN_CONTAINER), received(0));
    }

    #[test]
    fn a_peer_that_probes_for_our_own_address_is_told_that_it_is_taken() {
        let lax = Local {
            strict_source: false,
            ..local()
        };
        let probe = arp_request(PEER_MAC, Ipv4Addr::UNSPECIFIED, OWN_VTEP);
        let packet = [&HEADER[..], &probe].concat();
        for tables in [tables(), compile(lax, &spec())] {
            let Ingress::Reply { reply, .. } = ingress(&tables, &packet, received(0)) else {
                panic!("expected a reply");
            };
            assert_eq!(reply.frame()[22..28], OWN_MAC.octets());
        }
    }

    #[test]
    fn nobody_is_answered_at_a_multicast_address() {
        let asker = MacAddr::new([0x33, 0x33, 0, 0, 0, 1]);
        let request = arp_request(asker, PEER_VTEP, OWN_VTEP);
        deliver(&tables(), &[&HEADER[..], &request].concat(), received(0));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), tos in any::<u8>(), valid in any::<bool>()) {
            let tables = tables();
            let packet = if valid { [&HEADER[..], &bytes].concat() } else { bytes };
            let _ = ingress(&tables, &packet, received(tos));
        }

        #[test]
        fn a_datagram_is_judged_by_its_own_bytes_alone(mac in any::<[u8; 6]>()) {
            let tables = tables();
            let frame = udp((MacAddr::new(mac), OWN_MAC), (PEER_CONTAINER, OWN_CONTAINER), 0);
            let packet = [&HEADER[..], &frame].concat();
            let dropped = matches!(ingress(&tables, &packet, received(0)), Ingress::Drop { reason: DropReason::OwnSourceMac, .. });
            prop_assert_eq!(dropped, mac == OWN_MAC.octets());
        }
    }
}

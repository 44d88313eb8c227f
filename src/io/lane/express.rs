//! Which flows a lane offers to the express path, and when.

use std::net::IpAddr;

use arrayvec::ArrayVec;

use crate::bpf::express::FlowKey;
use crate::io::express::{Answer, InForce, Offer};
use crate::vtep::Encap;
use crate::wire::Mark;
use crate::wire::ethernet::{EtherType, Frame};
use crate::wire::ip::{IPV4_HEADER_LEN, Ipv4, protocol};
use crate::wire::vnet::GsoType;

/// Flows that one batch offers at the most; others are offered by a later one.
const OFFERS_MAX: usize = 8;
/// Flows that are weighed at once, a power of two. Of two that share a place each puts the other's weight back: one is offered when so much
/// of it comes in a row.
const KNOWN: usize = 512;
/// A flow is offered when its frames weigh so much: an entry is not worth a system call for less.
const WEIGHT_OFFERED: u32 = 64;
/// What a super-frame weighs; any other frame weighs one.
const WEIGHT_SUPER: u32 = 32;
/// When so much more came by it is offered again: its entry may have gone to another flow.
const WEIGHT_AGAIN: u32 = WEIGHT_OFFERED + 256 * WEIGHT_SUPER;

/// What the lane's egress side remembers.
#[derive(Debug)]
pub(super) struct Offers {
    waiting: ArrayVec<Offer, OFFERS_MAX>,
    known: Box<[Known; KNOWN]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    flow_hash: u32,
    /// Of the frames that came by in this generation, or since it was offered again.
    weight: u32,
    /// 0: no flow.
    generation: u64,
}

impl Default for Offers {
    fn default() -> Self {
        Self {
            waiting: ArrayVec::new(),
            known: Box::new([Known::default(); KNOWN]),
        }
    }
}

impl Offers {
    /// A frame is about to be sent: its flow may be one to offer.
    pub(super) fn note(
        &mut self,
        frame: &[u8],
        (mark, gso_type): (Mark, GsoType),
        encap: &Encap<'_>,
        express: &InForce<'_>,
    ) {
        let known = &mut self.known[encap.flow_hash as usize % KNOWN];
        if (known.flow_hash, known.generation) != (encap.flow_hash, express.generation) {
            *known = Known {
                flow_hash: encap.flow_hash,
                generation: express.generation,
                weight: 0,
            };
        }
        let before = known.weight;
        known.weight += match gso_type {
            GsoType::TcpV4 => WEIGHT_SUPER,
            GsoType::None | GsoType::TcpV6 | GsoType::UdpL4 => 1,
        };
        if known.weight >= WEIGHT_AGAIN {
            known.weight = 0;
        }
        let is_due = before < WEIGHT_OFFERED && known.weight >= WEIGHT_OFFERED;
        if is_due
            && let Some(offer) = offer(frame, mark, encap)
            && self.waiting.try_push(offer).is_err()
        {
            // It comes again with the flow's next frame.
            known.weight = before;
        }
    }

    /// The batch was sent. `is_drained`: nothing waits behind it in the TAP's queue that a frame on the express path could pass.
    pub(super) fn settle(&mut self, is_drained: bool, express: Option<&InForce<'_>>) {
        for offer in self.waiting.drain(..) {
            let is_settled = is_drained
                && express.is_some_and(|express| express.take(&offer) == Answer::Settled);
            if !is_settled {
                // It is due again with the flow's next frame.
                self.known[offer.flow_hash as usize % KNOWN].weight = WEIGHT_OFFERED - 1;
            }
        }
    }
}

/// The decision on a frame, if the express path takes such: TCP over IPv4 in IPv4, without options, whole, to one peer and without
/// DF outside, since what a path carries may change without a word to the program.
fn offer(bytes: &[u8], mark: Mark, encap: &Encap<'_>) -> Option<Offer> {
    let [destination] = encap.destinations else {
        return None;
    };
    let IpAddr::V4(peer) = destination.underlay.ip() else {
        return None;
    };
    let frame = Frame::new_checked(bytes)?;
    let ip = Ipv4::new_checked(frame.payload())?;
    let is_plain = frame.ethertype() == EtherType::IPV4
        && ip.version() == 4
        && ip.header_len() == Some(IPV4_HEADER_LEN)
        && ip.protocol() == protocol::TCP
        && !ip.is_fragment();
    if !is_plain || encap.outer.df {
        return None;
    }
    let &[a, b, c, d] = frame.payload().get(IPV4_HEADER_LEN..)?.first_chunk()?;
    Some(Offer {
        flow: FlowKey {
            source: ip.source(),
            destination: ip.destination(),
            source_port: u16::from_be_bytes([a, b]),
            destination_port: u16::from_be_bytes([c, d]),
            mark: mark.0,
            tos: ip.tos(),
            ttl: ip.ttl(),
            dont_fragment: ip.dont_fragment(),
        },
        peer,
        port: destination.underlay.port(),
        frame_destination: frame.destination(),
        frame_source: frame.source(),
        inner_destination: encap.destination_mac.unwrap_or(frame.destination()),
        vxlan: encap.header(destination),
        outer: encap.outer,
        flow_hash: encap.flow_hash,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use arc_swap::ArcSwap;
    use etherparse::PacketBuilder;

    use super::*;
    use crate::io::Express;
    use crate::io::express::{Wanted, tests as shared};
    use crate::tables::{Df, Local, OuterRules, Tables};
    use crate::vtep::fixture::{
        OWN_CONTAINER, OWN_MAC, PEER_CONTAINER, PEER_UNDERLAY, compile, encap, from_host, local,
        spec, tables,
    };

    /// A TCP segment of our container for the peer's, from `port`.
    fn tcp(port: u16) -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(OWN_MAC.octets(), OWN_MAC.octets())
            .ipv4(OWN_CONTAINER.octets(), PEER_CONTAINER.octets(), 64)
            .tcp(port, 80, 1, 1024)
            .write(&mut frame, b"payload")
            .expect("a Vec takes all");
        frame
    }

    fn peer() -> std::net::Ipv4Addr {
        match PEER_UNDERLAY {
            IpAddr::V4(peer) => peer,
            IpAddr::V6(_) => unreachable!(),
        }
    }

    /// As control has them, and as a lane has loaded them.
    fn both() -> (ArcSwap<Tables>, Arc<Tables>) {
        let swap = ArcSwap::from_pointee(tables());
        let tables = swap.load_full();
        (swap, tables)
    }

    /// In force, the way to the peer known if it `is_known`.
    fn in_force(
        tables: &ArcSwap<Tables>,
        is_known: bool,
    ) -> Option<(Express, crossbeam_channel::Receiver<Wanted>)> {
        let (express, wanted) = shared::express()?;
        if is_known {
            let hops = HashMap::from([(peer(), Some(shared::hop(&express)))]);
            express.set_hops(hops, tables);
        }
        express.renew(tables);
        Some((express, wanted))
    }

    fn note(
        offers: &mut Offers,
        express: &Express,
        tables: &Tables,
        frame: &[u8],
        gso_type: GsoType,
    ) {
        let in_force = express.in_force().expect("it is in force");
        offers.note(
            frame,
            (Mark::NONE, gso_type),
            &encap(tables, frame),
            &in_force,
        );
    }

    fn key(frame: &[u8], tables: &Tables) -> FlowKey {
        offer(frame, Mark::NONE, &encap(tables, frame))
            .expect("it is plain TCP")
            .flow
    }

    /// How many super-frames, or else how many frames, a flow has until it is the kernel's.
    fn frames_until_offered(gso_type: GsoType) -> Option<usize> {
        let (swap, tables) = both();
        let (express, _wanted) = in_force(&swap, true)?;
        let (mut offers, frame) = (Offers::default(), tcp(1000));
        let key = key(&frame, &tables);
        (1..=100).find(|_| {
            note(&mut offers, &express, &tables, &frame, gso_type);
            offers.settle(true, express.in_force().as_ref());
            express.is_decided(&key)
        })
    }

    #[test]
    fn a_flow_is_offered_when_it_is_worth_it() {
        let Some(frames) = frames_until_offered(GsoType::None) else {
            return;
        };
        assert_eq!(frames, WEIGHT_OFFERED as usize);
        assert_eq!(
            frames_until_offered(GsoType::TcpV4),
            Some((WEIGHT_OFFERED / WEIGHT_SUPER) as usize)
        );
    }

    #[test]
    fn nothing_is_handed_over_past_what_waits_in_the_queue() {
        let (swap, tables) = both();
        let Some((express, _wanted)) = in_force(&swap, true) else {
            return;
        };
        let (mut offers, frame) = (Offers::default(), tcp(1000));
        let key = key(&frame, &tables);
        for _ in 0..20 {
            note(&mut offers, &express, &tables, &frame, GsoType::TcpV4);
            offers.settle(false, express.in_force().as_ref());
            assert!(!express.is_decided(&key));
        }
        note(&mut offers, &express, &tables, &frame, GsoType::TcpV4);
        offers.settle(true, express.in_force().as_ref());
        assert!(express.is_decided(&key));
    }

    #[test]
    fn the_way_to_a_peer_is_asked_for_and_waited_for() {
        let (swap, tables) = both();
        let Some((express, wanted)) = in_force(&swap, false) else {
            return;
        };
        let (mut offers, frame) = (Offers::default(), tcp(1000));
        let key = key(&frame, &tables);
        let mut come_by = || {
            for _ in 0..2 {
                note(&mut offers, &express, &tables, &frame, GsoType::TcpV4);
                offers.settle(true, express.in_force().as_ref());
            }
        };
        come_by();
        assert_eq!(wanted.try_recv(), Ok(Wanted::Hop(peer())));
        assert!(!express.is_decided(&key));
        let hops = HashMap::from([(peer(), Some(shared::hop(&express)))]);
        express.set_hops(hops, &swap);
        come_by();
        assert!(express.is_decided(&key));
    }

    #[test]
    fn a_new_generation_has_flows_offered_anew() {
        let (swap, tables) = both();
        let Some((express, _wanted)) = in_force(&swap, true) else {
            return;
        };
        let (mut offers, frame) = (Offers::default(), tcp(1000));
        let key = key(&frame, &tables);
        for _ in 0..3 {
            for _ in 0..2 {
                note(&mut offers, &express, &tables, &frame, GsoType::TcpV4);
                offers.settle(true, express.in_force().as_ref());
            }
            assert!(express.is_decided(&key));
            express.renew(&swap);
            assert!(!express.is_decided(&key), "it is of the generation before");
        }
    }

    #[test]
    fn what_was_noted_in_a_generation_that_is_over_is_not_handed_over_in_the_next() {
        let (swap, tables) = both();
        let Some((express, _wanted)) = in_force(&swap, true) else {
            return;
        };
        let (mut offers, frame) = (Offers::default(), tcp(1000));
        let before = express.in_force();
        for _ in 0..2 {
            note(&mut offers, &express, &tables, &frame, GsoType::TcpV4);
        }
        express.renew(&swap);
        offers.settle(true, before.as_ref());
        assert!(!express.is_decided(&key(&frame, &tables)));
    }

    #[test]
    fn only_plain_tcp_to_one_peer_without_df_outside_is_offered() {
        let tables = tables();
        let plain = tcp(1000);
        assert!(offer(&plain, Mark::NONE, &encap(&tables, &plain)).is_some());
        let mut options = plain.clone();
        options[14] = 0x46;
        let mut fragment = plain.clone();
        fragment[20] = 0x20;
        let short = &plain[..14 + 20 + 3];
        for (name, frame) in [
            ("UDP", &from_host(0)[..]),
            ("options", &options),
            ("a fragment", &fragment),
            ("cut off", short),
        ] {
            assert!(
                offer(frame, Mark::NONE, &encap(&tables, frame)).is_none(),
                "{name}"
            );
        }
        let with_df = Local {
            outer: OuterRules {
                df: Df::Set,
                ..OuterRules::default()
            },
            ..local()
        };
        let mut over_v6 = spec();
        over_v6.fdb[0].underlay = "fd00::10:e".parse().expect("an address");
        for tables in [compile(with_df, &spec()), compile(local(), &over_v6)] {
            assert!(offer(&plain, Mark::NONE, &encap(&tables, &plain)).is_none());
        }
    }
}

//! Whole streams, cut on one side and joined on the other, with whatever a network does to them in between.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use silk_vtep::offload::{CoalesceOptions, SLICES_MAX};
use silk_vtep::wire::vnet::VnetHeader;

use super::frames::{ACK, CWR, ECE, FIN, PSH, Packet, make_partial};
use super::harness::{Arrival, assert_faithful, coalesce, cut};
use super::model;
use super::strategies::{any_packet, bytes};

/// What happens to a frame on its way.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrives,
    Lost,
    Doubled,
    Late,
    OtherFlags(u8),
    OtherTtl,
    OtherTos,
    OtherWindow,
    OtherAcknowledgment,
    OtherId,
    OtherTunnel,
    NoPayload,
    NoUdpChecksum,
    Tagged,
    IpOptions,
    Padded,
    Partial,
    WrongChecksum,
    Fragment,
    Spoilt(Index, u8),
}

fn any_fate() -> impl Strategy<Value = Fate> {
    let harmless = vec![Fate::Arrives, Fate::Arrives, Fate::Partial];
    let harmful = vec![
        Fate::Lost,
        Fate::Doubled,
        Fate::Late,
        Fate::OtherFlags(PSH),
        Fate::OtherFlags(FIN),
        Fate::OtherFlags(ECE),
        Fate::OtherTtl,
        Fate::OtherTos,
        Fate::OtherWindow,
        Fate::OtherAcknowledgment,
        Fate::OtherId,
        Fate::OtherTunnel,
        Fate::NoPayload,
        Fate::NoUdpChecksum,
        Fate::Tagged,
        Fate::IpOptions,
        Fate::Padded,
        Fate::WrongChecksum,
        Fate::Fragment,
    ];
    prop_oneof![15 => select(harmless), 1 => select(harmful)]
}

/// A flow's super-frame, where to cut it and what becomes of the pieces.
#[derive(Clone, Debug)]
struct Stream {
    packet: Packet,
    gso_size: usize,
    fates: Vec<Fate>,
}

impl Stream {
    /// What comes out of the network, in order.
    fn arrivals(&self) -> Vec<Arrival> {
        let mut arrivals = Vec::new();
        let mut late = None;
        for (index, packet) in self.packet.cut(self.gso_size).into_iter().enumerate() {
            let fate = self.fates[index % self.fates.len()];
            let arrival = arrival(packet, fate);
            let before = arrivals.len();
            match fate {
                Fate::Lost => {}
                Fate::Late => late = Some(arrival),
                Fate::Doubled => arrivals.extend([arrival.clone(), arrival]),
                _ => arrivals.push(arrival),
            }
            if arrivals.len() > before {
                arrivals.extend(late.take());
            }
        }
        arrivals.extend(late);
        arrivals
    }
}

fn arrival(mut packet: Packet, fate: Fate) -> Arrival {
    match fate {
        Fate::OtherFlags(flag) => packet.flags ^= flag,
        Fate::OtherTtl => packet.ttl ^= 1,
        Fate::OtherTos => packet.tos ^= 1,
        Fate::OtherWindow => packet.window ^= 1,
        Fate::OtherAcknowledgment => packet.acknowledgment ^= 1,
        Fate::OtherId => packet.id ^= 0x100,
        Fate::NoPayload => packet.payload.clear(),
        Fate::NoUdpChecksum => packet.udp_checksum = false,
        Fate::Tagged => packet.vlans = vec![5],
        Fate::IpOptions if !packet.v6 => packet.ip_options = vec![1; 4],
        _ => {}
    }
    let mut arrival = Arrival::from(&packet);
    let frame = &mut arrival.frame;
    match fate {
        Fate::OtherTunnel => arrival.key.header[3] ^= 1,
        Fate::Padded => frame.extend([0; 3]),
        Fate::Partial => *frame = packet.super_frame(0).1,
        Fate::WrongChecksum => {
            let (header, _) = packet.super_frame(0);
            frame[usize::from(header.csum_start + header.csum_offset)] ^= 0x04;
        }
        Fate::Fragment if !packet.v6 => frame[20] |= 0x20,
        Fate::Spoilt(at, value) => {
            let at = at.index(packet.header_len() + 1).min(frame.len() - 1);
            frame[at] ^= value;
        }
        _ => {}
    }
    arrival
}

fn any_stream(fates: impl Strategy<Value = Fate>) -> impl Strategy<Value = Stream> {
    let flags = prop_oneof![
        4 => Just(ACK),
        2 => Just(ACK | PSH),
        1 => select(vec![ACK | ECE, ACK | FIN | PSH, ACK | CWR, 0]),
    ];
    let gso_sizes = prop_oneof![10_usize..60, 100_usize..1400];
    (
        any_packet(4000, true),
        flags,
        0..8_u8,
        0..2_u16,
        gso_sizes,
        vec(fates, 1..60),
    )
        .prop_map(|(packet, flags, host, port, gso_size, fates)| Stream {
            packet: Packet {
                flags,
                host,
                port,
                udp_checksum: true,
                ..packet
            },
            gso_size,
            fates,
        })
}

/// Streams in bursts between each other, in batches.
fn batches(streams: &[Stream], bursts: &[(Index, usize)], batch_len: usize) -> Vec<Vec<Arrival>> {
    let mut queues: Vec<_> = streams
        .iter()
        .map(|stream| stream.arrivals().into_iter())
        .collect();
    let mut arrivals = Vec::new();
    for (queue, len) in bursts {
        arrivals.extend(queue.get_mut(&mut queues).by_ref().take(*len));
    }
    arrivals.extend(queues.into_iter().flatten());
    arrivals.chunks(batch_len).map(<[_]>::to_vec).collect()
}

fn any_bursts() -> impl Strategy<Value = Vec<(Index, usize)>> {
    vec((any::<Index>(), 1_usize..10), 0..100)
}

fn any_options() -> impl Strategy<Value = CoalesceOptions> {
    (
        prop_oneof![3 => Just(1500), 1 => 40_u32..1500],
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.9),
    )
        .prop_map(|(mtu_bytes, tcp, udp)| CoalesceOptions {
            mtu_bytes,
            tcp,
            udp,
        })
}

proptest! {
    #[test]
    fn a_super_frame_comes_back_as_it_was(packet in any_packet(60_000, true), gso_size in 900_u16..1400, flags in select(vec![0, ACK, ACK | PSH, ACK | ECE])) {
        let gso_len = usize::from(gso_size);
        prop_assume!(packet.payload.len() > gso_len && packet.payload.len() <= gso_len * SLICES_MAX);
        let packet = Packet { flags, udp_checksum: true, ..packet };
        let (header, frame) = packet.super_frame(gso_size);
        let arrivals: Vec<_> = cut(&frame, &header).unwrap().into_iter().map(Arrival::new).collect();
        let options = CoalesceOptions { mtu_bytes: 1500, tcp: true, udp: true };
        let written = coalesce(options, &[arrivals]);
        prop_assert_eq!(written.len(), 1);
        prop_assert_eq!(written[0].header, VnetHeader { ecn: false, ..header });
        prop_assert!(written[0].frame == frame);
    }

    #[test]
    fn a_stream_comes_back_byte_for_byte(
        parts in vec((1_usize..9000).prop_flat_map(bytes), 1..8), v6: bool, tcp: bool, gso_size in 50_u16..1400,
        batch_len in 1_usize..100,
    ) {
        let mut base = Packet::new(v6, tcp, Vec::new());
        base.flags |= PSH;
        let mut arrivals = Vec::new();
        for part in &parts {
            base.payload.clone_from(part);
            let (header, frame) = base.super_frame(gso_size);
            arrivals.extend(cut(&frame, &header).unwrap().into_iter().map(Arrival::new));
            base.sequence = base.sequence.wrapping_add(u32::try_from(part.len()).unwrap());
        }
        let batches: Vec<_> = arrivals.chunks(batch_len).map(<[_]>::to_vec).collect();
        let options = CoalesceOptions { mtu_bytes: 1500, tcp: true, udp: true };
        let stream: Vec<u8> = coalesce(options, &batches)
            .iter()
            .flat_map(|written| &written.frame[base.header_len()..])
            .copied()
            .collect();
        prop_assert!(stream == parts.concat());
    }

    #[test]
    fn a_stream_is_merged_alike_whichever_of_its_checksums_are_partial(
        payload in (1_usize..60_000).prop_flat_map(bytes), v6: bool, tcp: bool, gso_size in 50_u16..1400,
        partial in vec(any::<bool>(), 1..70), batch_len in 1_usize..100,
    ) {
        let mut packet = Packet::new(v6, tcp, payload);
        packet.flags |= PSH;
        let (header, frame) = packet.super_frame(gso_size);
        let complete: Vec<_> = cut(&frame, &header).unwrap().into_iter().map(Arrival::new).collect();
        let mut mixed = complete.clone();
        let made = mixed.iter_mut().zip(partial.iter().cycle()).filter(|(_, partial)| **partial);
        let count = made.map(|(arrival, _)| make_partial(&mut arrival.frame)).count();
        let options = CoalesceOptions { mtu_bytes: 1500, tcp: true, udp: true };
        let batches = |arrivals: &[Arrival]| arrivals.chunks(batch_len).map(<[_]>::to_vec).collect::<Vec<_>>();
        let written = coalesce(options, &batches(&mixed));
        assert_faithful(options, &mixed, &written);
        let counted: u32 = written.iter().map(|written| written.partial).sum();
        // One in 65,536 is complete all the same.
        let by_chance = mixed.iter().zip(&complete).filter(|(mixed, complete)| mixed.frame == complete.frame);
        prop_assert!((counted as usize..=counted as usize + by_chance.count()).contains(&count));
        let expected = coalesce(options, &batches(&complete));
        prop_assert_eq!(written.len(), expected.len());
        for (written, expected) in written.iter().zip(expected) {
            prop_assert_eq!(&written.arrivals, &expected.arrivals);
            if written.arrivals.len() > 1 {
                prop_assert_eq!(written.header, expected.header);
                prop_assert!(written.frame == expected.frame);
            }
        }
        let stream: Vec<u8> =
            written.iter().flat_map(|written| &written.frame[packet.header_len()..]).copied().collect();
        prop_assert!(stream == packet.payload);
    }

    #[test]
    fn groups_are_those_of_the_naive_way(
        streams in vec(any_stream(any_fate()), 1..20), bursts in any_bursts(), options in any_options(), batch_len in 1_usize..400,
    ) {
        let batches = batches(&streams, &bursts, batch_len);
        let written = coalesce(options, &batches);
        let mut expected = Vec::new();
        let mut base = 0;
        for batch in &batches {
            let groups = model::groups(options, batch).into_iter();
            expected.extend(groups.map(|group| group.into_iter().map(|index| base + index).collect::<Vec<_>>()));
            base += batch.len();
        }
        let groups: Vec<_> = written.iter().map(|written| written.arrivals.clone()).collect();
        prop_assert_eq!(groups, expected);
    }

    #[test]
    fn nothing_is_lost_changed_or_out_of_order(
        streams in vec(any_stream(any_harsh_fate()), 1..20), bursts in any_bursts(), options in any_options(), batch_len in 1_usize..400,
    ) {
        let batches = batches(&streams, &bursts, batch_len);
        let written = coalesce(options, &batches);
        assert_faithful(options, &batches.concat(), &written);
    }

    #[test]
    fn no_bytes_panic(frames in vec(vec(any::<u8>(), 0..120), 0..20), options in any_options()) {
        let arrivals: Vec<_> = frames.into_iter().map(Arrival::new).collect();
        let written = coalesce(options, std::slice::from_ref(&arrivals));
        assert_faithful(options, &arrivals, &written);
    }
}

fn any_harsh_fate() -> impl Strategy<Value = Fate> {
    let spoilt = (any::<Index>(), any::<u8>()).prop_map(|(at, value)| Fate::Spoilt(at, value));
    prop_oneof![8 => any_fate(), 1 => spoilt]
}

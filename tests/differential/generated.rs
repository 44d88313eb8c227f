//! Cases nobody thought of: bases of every kind, their headers set, mutated and cut at random. The seed names the whole run.

use super::case::{Case, Direction, Stimulus};
use super::datagram::{Checksum, Datagram};
use super::device::NEIGHBOR_WITHOUT_FDB;
use super::frames::*;
use super::setup::{MTU, Setup};
use super::super_frame::{super_frame, with_ecn};
use crate::support::Noise;

/// The source of cases for one setup and direction.
pub(crate) struct Generator {
    noise: Noise,
    setup: &'static Setup,
    direction: Direction,
}

/// Ethertypes that something happens to, and some that nothing does.
const ETHERTYPES: [u16; 10] = [
    IPV4,
    IPV6,
    ARP,
    0x8100,
    0x88a8,
    0x8847,
    EXPERIMENTAL,
    46,
    0,
    0x05ff,
];
const MACS: [[u8; 6]; 9] = [
    OWN_MAC,
    PEER_MAC,
    OTHER_PEER_MAC,
    UNKNOWN_MAC,
    GROUP_MAC,
    OTHER_GROUP_MAC,
    BROADCAST,
    BRIDGE_MAC,
    [0; 6],
];
/// The largest frame that both devices take from a packet socket.
const FRAME_MAX: usize = 14 + MTU as usize;

impl Generator {
    /// The cases that `seed` names.
    pub(crate) fn new(seed: u64, setup: &'static Setup, direction: Direction) -> Self {
        // Each setup and direction has a stream of its own.
        let name = setup.name.bytes().chain(direction.name().bytes());
        let own = name.fold(seed, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut noise = Noise::new(own);
        noise.next_u64();
        Self {
            noise,
            setup,
            direction,
        }
    }

    /// What it generates for.
    pub(crate) fn name(&self) -> String {
        format!("{}::{}", self.direction.name(), self.setup.name)
    }

    /// The next one.
    pub(crate) fn case(&mut self) -> Case {
        let stimuli = match self.direction {
            Direction::Transmit => vec![self.transmit()],
            Direction::Receive => self.receive(),
        };
        Case {
            direction: self.direction,
            setup: self.setup,
            stimuli,
        }
    }

    fn transmit(&mut self) -> Stimulus {
        if self.one_in(16) && !self.setup.neighbors {
            return self.super_frame();
        }
        let mut frame = if self.setup.neighbors {
            self.question()
        } else {
            self.frame()
        };
        if self.one_in(3) {
            frame = match self.mac() {
                // It has an FDB entry, by which ours forwards what it does not answer; the kernel eats that.
                GROUP_MAC if self.setup.neighbors => frame,
                mac => frame.to(mac),
            };
        }
        // Behind our tc program only our own MAC carries a mark: see DIFFERENCES.
        if self.one_in(8) {
            frame = frame.from(self.mac());
        }
        let mut bytes = self.mutated(frame.0, 14);
        bytes.truncate(FRAME_MAX);
        let mark = if self.setup.marks { self.mark() } else { 0 };
        Stimulus {
            mark,
            ..Stimulus::of(bytes)
        }
    }

    /// What a host may give to a card, so that cutting it is defined.
    fn super_frame(&mut self) -> Stimulus {
        let (len, gso_size) = if self.one_in(4) {
            (1 + self.noise.below(20_000), 500 + self.noise.below(870))
        } else {
            (1 + self.noise.below(3000), 40 + self.noise.below(1330))
        };
        let flags = self.pick(&[0x10, 0x18, 0x11, 0x19, 0x98, 0x90, 0xd8, 0x30]);
        let tos = self.byte();
        let frame = match self.noise.below(4) {
            0 => Inner::tcp4(len)
                .tos(tos)
                .id(self.noise.next_u64() as u16)
                .tcp_flags(flags),
            1 => Inner::tcp6(len).tos(tos).tcp_flags(flags),
            2 => Inner::udp4_of(len).tos(tos),
            _ => Inner::udp6_of(len).tos(tos),
        };
        let frame = if self.one_in(4) {
            frame.to(self.mac())
        } else {
            frame
        };
        let is_tcp = frame.is_tcp();
        let stimulus = super_frame(frame, gso_size as u16);
        if is_tcp && self.one_in(3) {
            with_ecn(stimulus)
        } else {
            stimulus
        }
    }

    fn receive(&mut self) -> Vec<Stimulus> {
        let mut frame = self.frame().inbound();
        if self.one_in(4) {
            frame = frame.to(self.mac());
        }
        if self.one_in(8) {
            frame = frame.from(self.mac());
        }
        let inner = Inner(self.mutated(frame.0, 0));
        let header = self.header();
        let mut datagram = Datagram::new(self.setup.v6, header, &inner).tos(self.byte());
        if self.one_in(8) {
            datagram = datagram.from(self.pick(&[3, 4, 77]));
        }
        if self.one_in(8) {
            datagram = datagram.ttl(self.pick(&[0, 1, 255]));
        }
        match self.noise.below(16) {
            0 => datagram = datagram.checksum(Checksum::Zero),
            1 => datagram = datagram.checksum(Checksum::Bad),
            2 => datagram = datagram.udp_length(self.noise.below(60) as i32 - 40),
            // Who is impersonated is told from a whole packet.
            3 if self.setup.name != "strict" => return self.fragments(&datagram),
            _ => {}
        }
        vec![Stimulus::of(datagram.packet())]
    }

    fn fragments(&mut self, datagram: &Datagram) -> Vec<Stimulus> {
        let len = datagram.segment_len();
        let cut = (self.noise.below(len) / 8 * 8).max(8).min(len);
        let mut packets = datagram.fragments(&[0..cut, cut..len]);
        if self.one_in(2) {
            packets.reverse();
        }
        packets.into_iter().map(Stimulus::of).collect()
    }

    /// A VXLAN header, in three of four cases one that passes.
    fn header(&mut self) -> [u8; 8] {
        let word = self.noise.next_u64();
        let mut header = [8, 0, 0, 0, 0, 0, 100, 0];
        if self.one_in(2) && self.setup.name != "plain" {
            header[0] |= 0x80;
            header[1..4].copy_from_slice(&word.to_be_bytes()[..3]);
        }
        if self.one_in(4) {
            let at = self.noise.below(8);
            header[at] = self.byte();
        }
        header
    }

    fn frame(&mut self) -> Inner {
        let ports = [self.noise.next_u64() as u16, self.noise.next_u64() as u16];
        let most = if self.one_in(8) { 1390 } else { 100 };
        let len = self.noise.below(most);
        let tos = self.byte();
        let tci = self.noise.next_u64() as u16;
        let ttl = self.byte();
        match self.noise.below(16) {
            0..=3 => Inner::udp4_between(HERE, THERE, ports, &payload(len))
                .tos(tos)
                .ttl(ttl),
            4 => Inner::udp4().df(self.one_in(2)),
            5..=6 => Inner::udp6_between(HERE_V6, THERE_V6, ports)
                .tos(tos)
                .ttl(ttl),
            7 => Inner::tcp4(len).tos(tos),
            8 => Inner::tcp6(len.min(1370)).tos(tos),
            9 => Inner::ping4(tci).tos(tos),
            10 => self.question(),
            11 => Inner::udp4().tos(tos).vlan(tci),
            12 => Inner::udp6().tos(tos).vlan(tci).provider_vlan(tci),
            13 => Inner::tcp4(len).tos(tos).partial(),
            14 => Inner::fragment4(tci & 0xff, self.one_in(2)),
            _ => {
                let ethertype = self.pick(&ETHERTYPES);
                Inner::raw(ethertype, &self.noise.bytes(len))
            }
        }
    }

    fn question(&mut self) -> Inner {
        match self.noise.below(6) {
            0 => Inner::arp(NEIGHBOR_WITHOUT_FDB),
            1 => Inner::arp([10, 255, 43, self.byte()]),
            2 => Inner::solicitation(THERE_V6, true),
            3 => Inner::solicitation(THERE_V6, false),
            4 => Inner::solicitation(HERE_V6, true),
            _ => Inner::arp(THERE),
        }
    }

    /// Bytes set at random, mostly in the headers, and an end somewhere else.
    fn mutated(&mut self, mut bytes: Vec<u8>, least: usize) -> Vec<u8> {
        if self.one_in(2) {
            for _ in 0..1 + self.noise.below(3) {
                let at = 12 + self.noise.below(60);
                let value = self.byte();
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
        }
        match self.noise.below(12) {
            0 => bytes.truncate(least.max(self.noise.below(60))),
            1 => bytes.extend(vec![0; self.noise.below(30)]),
            _ => {}
        }
        bytes
    }

    fn mark(&mut self) -> u32 {
        let mark = self.noise.next_u64() as u32;
        match self.noise.below(4) {
            0 => 0,
            1 => mark & 0xffff,
            2 => mark & 0x0048_ffff,
            _ => mark,
        }
    }

    fn mac(&mut self) -> [u8; 6] {
        self.pick(&MACS)
    }

    fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.noise.below(among.len())]
    }

    fn byte(&mut self) -> u8 {
        self.noise.next_u64() as u8
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.noise.below(n) == 0
    }
}

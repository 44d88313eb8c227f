//! A wire that loses, doubles and reorders, the same way for the same seed.

use std::collections::VecDeque;

use super::{MemoryUnderlay, WireDatagram};

/// How many datagrams one can overtake at the most. A bound, so that nothing is held back for long.
pub const OVERTAKEN_MAX: usize = 8;

/// What a [`Wire`] does to datagrams, each in so many of a hundred cases; the default is a perfect wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// It never arrives.
    pub lost_percent: u8,
    /// It arrives twice.
    pub doubled_percent: u8,
    /// It overtakes up to [`OVERTAKEN_MAX`] others.
    pub reordered_percent: u8,
}

/// What a [`Wire`] has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Datagrams that were put on the wire.
    pub sent: u64,
    /// Those of them that never arrive.
    pub lost: u64,
    /// Those that arrive twice.
    pub doubled: u64,
    /// Those, counting second copies, that overtook at least one other.
    pub reordered: u64,
}

/// Carries datagrams between [`MemoryUnderlay`] ports, and on the way loses, doubles and reorders them as [`Faults`] say. What it does to
/// which datagram follows from the seed alone, so a run that found something can be repeated.
///
/// ```
/// use silk_vtep::io::memory::{Faults, MemoryUnderlay, Wire};
///
/// let mut wire = Wire::new(Faults { lost_percent: 10, ..Faults::default() }, 1);
/// let [mut a, mut b] = ["10.0.32.12", "10.0.16.14"].map(|ip| MemoryUnderlay::new(ip.parse().unwrap()));
/// wire.take_from(&mut a); // all that a has sent
/// wire.give_to(&mut b); // all of it that is for b, less what was lost
/// assert_eq!(wire.damage().lost, 0, "nothing was sent");
/// ```
#[derive(Clone, Debug)]
pub struct Wire {
    faults: Faults,
    noise: Noise,
    under_way: VecDeque<WireDatagram>,
    damage: Damage,
}

impl Wire {
    /// An empty wire.
    #[must_use]
    pub fn new(faults: Faults, seed: u64) -> Self {
        Self {
            faults,
            noise: Noise(seed),
            under_way: VecDeque::new(),
            damage: Damage::default(),
        }
    }

    /// A wire that carries everything once and in order.
    #[must_use]
    pub fn perfect() -> Self {
        Self::new(Faults::default(), 0)
    }

    /// Puts everything on the wire that `port` has sent.
    pub fn take_from(&mut self, port: &mut MemoryUnderlay) {
        while let Some(datagram) = port.take_sent() {
            self.put(datagram);
        }
    }

    /// Lets everything arrive at `port` that is addressed to it. The rest stays under way.
    pub fn give_to(&mut self, port: &mut MemoryUnderlay) {
        for _ in 0..self.under_way.len() {
            let Some(datagram) = self.under_way.pop_front() else {
                return;
            };
            if datagram.destination.ip() == port.local() {
                port.arrive(datagram);
            } else {
                self.under_way.push_back(datagram);
            }
        }
    }

    /// Puts one datagram on the wire.
    pub fn put(&mut self, datagram: WireDatagram) {
        self.damage.sent += 1;
        if self.noise.happens(self.faults.lost_percent) {
            self.damage.lost += 1;
            return;
        }
        if self.noise.happens(self.faults.doubled_percent) {
            self.damage.doubled += 1;
            self.enqueue(datagram.clone());
        }
        self.enqueue(datagram);
    }

    /// Datagrams that are neither lost nor given to a port yet.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// What was done so far.
    #[must_use]
    pub fn damage(&self) -> Damage {
        self.damage
    }

    fn enqueue(&mut self, datagram: WireDatagram) {
        let overtaken_max = self.under_way.len().min(OVERTAKEN_MAX);
        let mut position = self.under_way.len();
        if overtaken_max > 0 && self.noise.happens(self.faults.reordered_percent) {
            position -= 1 + self.noise.below(overtaken_max);
            self.damage.reordered += 1;
        }
        self.under_way.insert(position, datagram);
    }
}

/// Numbers that look random, the same for the same seed: SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is small, so that the remainder's bias is nothing.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn happens(&mut self, percent: u8) -> bool {
        self.below(100) < usize::from(percent)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vtep::Outer;

    fn datagram(number: u16, to: [u8; 4]) -> WireDatagram {
        WireDatagram {
            source: ([10, 0, 0, 1], 32768).into(),
            destination: (to, 4789).into(),
            outer: Outer::of_tos(0),
            payload: number.to_be_bytes().to_vec().into(),
        }
    }

    /// The numbers of what arrives at 10.0.0.2 of `count` datagrams, and what the wire says it did.
    fn carry(faults: Faults, seed: u64, count: u16) -> (Vec<u16>, Damage) {
        let mut wire = Wire::new(faults, seed);
        for number in 0..count {
            wire.put(datagram(number, [10, 0, 0, 2]));
        }
        let numbers = wire
            .under_way
            .iter()
            .map(|datagram| u16::from_be_bytes([datagram.payload[0], datagram.payload[1]]));
        (numbers.collect(), wire.damage())
    }

    #[test]
    fn a_perfect_wire_changes_nothing() {
        let (arrived, damage) = carry(Faults::default(), 7, 500);
        assert_eq!(arrived, (0..500).collect::<Vec<_>>());
        assert_eq!((damage.lost, damage.doubled, damage.reordered), (0, 0, 0));
    }

    #[test]
    fn each_fault_happens_as_often_as_asked() {
        for faults in [
            Faults {
                lost_percent: 20,
                ..Faults::default()
            },
            Faults {
                doubled_percent: 20,
                ..Faults::default()
            },
            Faults {
                reordered_percent: 20,
                ..Faults::default()
            },
        ] {
            let (_, damage) = carry(faults, 1, 10_000);
            let happened = damage.lost + damage.doubled + damage.reordered;
            assert!((1_800..2_200).contains(&happened), "{damage:?}");
        }
    }

    #[test]
    fn a_datagram_goes_to_the_port_it_is_addressed_to() {
        let mut wire = Wire::perfect();
        wire.put(datagram(1, [10, 0, 0, 2]));
        wire.put(datagram(2, [10, 0, 0, 3]));
        let mut third = MemoryUnderlay::new([10, 0, 0, 3].into());
        wire.give_to(&mut third);
        assert_eq!(third.arrived, [datagram(2, [10, 0, 0, 3])]);
        assert_eq!(wire.under_way(), 1);
    }

    proptest! {
        #[test]
        fn the_seed_decides_and_the_damage_is_what_was_done(seed: u64, lost in 0..60_u8, doubled in 0..60_u8, reordered in 0..60_u8) {
            let faults = Faults { lost_percent: lost, doubled_percent: doubled, reordered_percent: reordered };
            let (arrived, damage) = carry(faults, seed, 200);
            prop_assert_eq!(&carry(faults, seed, 200).0, &arrived);
            prop_assert_eq!(arrived.len() as u64, damage.sent - damage.lost + damage.doubled);
            if damage.reordered == 0 {
                prop_assert!(arrived.is_sorted());
            }
        }
    }
}

//! Cutting an IPv4 packet into fragments (RFC 791 section 3.2), as the kernel's `ip_do_fragment` does.

use std::ops::Range;

use super::{IPV4_HEADER_LEN, Ipv4, Network};
use crate::wire::checksum;
use crate::wire::ethernet::{self, Frame};

/// Bytes of the longest headers of a fragment: Ethernet, and IPv4 with all its options.
pub const FRAGMENT_HEADER_LEN_MAX: usize = ethernet::HEADER_LEN + 60;

/// Fragment offsets count in these.
const UNIT: usize = 8;
const MORE_FRAGMENTS: u16 = 0x2000;

/// Options of one byte.
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
/// An option that every fragment carries.
const COPIED: u8 = 0x80;

/// A frame whose IPv4 packet may be fragmented, ready to be cut.
#[derive(Clone, Copy, Debug)]
pub struct Fragmenter<'a> {
    frame: &'a [u8],
    ip: Ipv4<'a>,
    header_len: usize,
    /// Bytes of payload in every fragment but the last.
    chunk: usize,
    payload_len: usize,
}

impl<'a> Fragmenter<'a> {
    /// Fragments of `mtu` bytes behind the Ethernet header at the most. `None` if there is no IPv4, DF forbids it, the header lies, or
    /// nothing fits beside the headers.
    #[must_use]
    pub fn new(frame: &'a [u8], mtu: u32) -> Option<Self> {
        let Ok(Network::V4(ip)) = Network::parse(Frame::new_checked(frame)?) else {
            return None;
        };
        let (header, payload) = ip.split()?;
        let chunk = (mtu as usize).checked_sub(header.len())? / UNIT * UNIT;
        let end = usize::from(ip.fragment_offset()) + payload.len();
        let is_sound = !ip.dont_fragment() && chunk > 0 && end <= usize::from(u16::MAX);
        is_sound.then_some(Self {
            frame,
            ip,
            header_len: header.len(),
            chunk,
            payload_len: payload.len(),
        })
    }

    /// How many fragments there are, 1 at the least.
    #[must_use]
    pub fn count(&self) -> usize {
        self.payload_len.div_ceil(self.chunk).max(1)
    }

    /// Bytes of each fragment's headers, Ethernet included.
    #[must_use]
    pub fn header_len(&self) -> usize {
        ethernet::HEADER_LEN + self.header_len
    }

    /// Writes the headers of fragment `index` to the front of `slot` and returns where in the frame its payload is.
    ///
    /// # Panics
    /// If there is no such fragment, or `slot` is shorter than [`header_len`](Self::header_len).
    pub fn emit(&self, index: usize, slot: &mut [u8]) -> Range<usize> {
        assert!(index < self.count(), "no fragment {index}");
        let start = index * self.chunk;
        let end = self.payload_len.min(start + self.chunk);
        let headers = &mut slot[..self.header_len()];
        headers.copy_from_slice(&self.frame[..self.header_len()]);
        let header = &mut headers[ethernet::HEADER_LEN..];
        // Both are inside of what a 16-bit field held: `new` saw to it.
        let total_len = (self.header_len + end - start) as u16;
        let offset = (usize::from(self.ip.fragment_offset()) + start) / UNIT;
        let more = self.ip.more_fragments() || end < self.payload_len;
        let word = offset as u16 | if more { MORE_FRAGMENTS } else { 0 };
        header[2..4].copy_from_slice(&total_len.to_be_bytes());
        header[6..8].copy_from_slice(&word.to_be_bytes());
        if start > 0 {
            blank_options(&mut header[IPV4_HEADER_LEN..]);
        }
        header[10..12].fill(0);
        let sum = !checksum::fold(checksum::sum(0, header));
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        self.header_len() + start..self.header_len() + end
    }
}

/// Options that only the first fragment carries become no operations (`ip_options_fragment`).
fn blank_options(mut options: &mut [u8]) {
    while let [kind, rest @ ..] = options {
        let len = match *kind {
            END_OF_OPTIONS => return,
            NO_OPERATION => 1,
            _ => rest.first().map_or(0, |&len| usize::from(len)),
        };
        if !(1..=options.len()).contains(&len) {
            return;
        }
        let (option, behind) = options.split_at_mut(len);
        if option[0] & COPIED == 0 {
            option.fill(NO_OPERATION);
        }
        options = behind;
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{IpFragOffset, Ipv4Header, Ipv4Options, ip_number};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn frame(options: &[u8], offset: u16, more_fragments: bool, payload: &[u8]) -> Vec<u8> {
        let addresses = ([10, 255, 108, 184], [10, 255, 43, 6]);
        let len = payload.len() as u16;
        let mut header =
            Ipv4Header::new(len, 63, ip_number::UDP, addresses.0, addresses.1).unwrap();
        header.identification = 0x1234;
        header.dont_fragment = false;
        header.more_fragments = more_fragments;
        header.fragment_offset = IpFragOffset::try_new(offset).unwrap();
        header.options = Ipv4Options::try_from(options).unwrap();
        header.header_checksum = header.calc_header_checksum();
        let ethernet = [[2; 12].as_slice(), &[8, 0]].concat();
        [ethernet.as_slice(), &header.to_bytes(), payload].concat()
    }

    /// Headers and payload of each fragment.
    fn cut(frame: &[u8], mtu: u32) -> Option<Vec<(Ipv4Header, Vec<u8>)>> {
        let fragmenter = Fragmenter::new(frame, mtu)?;
        let fragments = (0..fragmenter.count()).map(|index| {
            let mut slot = [0xee; FRAGMENT_HEADER_LEN_MAX];
            let payload = fragmenter.emit(index, &mut slot);
            let fragment = [&slot[..fragmenter.header_len()], &frame[payload]].concat();
            assert!(fragment.len() <= 14 + mtu as usize);
            assert_eq!(fragment[..14], frame[..14]);
            let (header, payload) = Ipv4Header::from_slice(&fragment[14..]).unwrap();
            assert_eq!(header.calc_header_checksum(), header.header_checksum);
            assert_eq!(header.payload_len().unwrap() as usize, payload.len());
            (header, payload.to_vec())
        });
        Some(fragments.collect())
    }

    #[test]
    fn fragments_name_their_places() {
        let fragments = cut(&frame(&[], 0, false, &[7; 2000]), 1000).unwrap();
        let places: Vec<_> = fragments
            .iter()
            .map(|(header, payload)| {
                let offset = header.fragment_offset.value();
                (offset, header.more_fragments, payload.len())
            })
            .collect();
        assert_eq!(places, [(0, true, 976), (122, true, 976), (244, false, 48)]);
    }

    #[test]
    fn a_fragment_is_cut_further() {
        let fragments = cut(&frame(&[], 100, true, &[7; 1600]), 1000).unwrap();
        let places: Vec<_> = fragments
            .iter()
            .map(|(header, _)| (header.fragment_offset.value(), header.more_fragments))
            .collect();
        assert_eq!(places, [(100, true), (222, true)]);
    }

    #[test]
    fn later_fragments_carry_only_the_options_that_every_fragment_does() {
        // Record route (7) is not copied, loose source route (0x83) is.
        let options = [7, 3, 4, 0x83, 3, 4, 1, 0];
        let fragments = cut(&frame(&options, 0, false, &[7; 1500]), 1000).unwrap();
        assert_eq!(fragments[0].0.options.as_slice(), options);
        assert_eq!(
            fragments[1].0.options.as_slice(),
            [1, 1, 1, 0x83, 3, 4, 1, 0]
        );
    }

    #[test]
    fn what_must_not_be_cut_is_not() {
        let sound = frame(&[], 0, false, &[7; 1500]);
        assert!(cut(&sound, 1000).is_some() && cut(&sound, 28).is_some());
        assert!(cut(&sound, 27).is_none(), "nothing fits");
        assert!(cut(&sound[..1000], 1000).is_none(), "cut off");
        let mut with_df = sound.clone();
        with_df[20] = 0x40;
        let mut arp = sound.clone();
        arp[13] = 6;
        let past_the_end = frame(&[], 8191, false, &[7; 1500]);
        for frame in [with_df, arp, past_the_end] {
            assert!(cut(&frame, 1000).is_none());
        }
    }

    proptest! {
        #[test]
        fn fragments_put_together_are_the_packet(
            payload in vec(any::<u8>(), 0..4000), offset in 0..100_u16, more: bool, mtu in 28..1500_u32,
        ) {
            let whole = frame(&[], offset, more, &payload);
            let fragments = cut(&whole, mtu).unwrap();
            let mut next = usize::from(offset) * 8;
            let count = fragments.len();
            let mut put_together = Vec::new();
            for (index, (header, part)) in fragments.into_iter().enumerate() {
                prop_assert_eq!(usize::from(header.fragment_offset.value()) * 8, next);
                prop_assert_eq!(header.more_fragments, more || index + 1 < count);
                prop_assert_eq!(header.identification, 0x1234);
                next += part.len();
                put_together.extend(part);
            }
            prop_assert_eq!(put_together, payload);
        }
    }
}

//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

use std::net::IpAddr;

use multiversion::multiversion;

/// Bytes that are added up at a time.
const WORD: usize = 8;

/// Bytes from which vectors repay finding out which of them the machine has: no header of IP or TCP is longer.
const LONG: usize = 64;

/// The one's complement sum of `bytes` as big-endian 16-bit words, an odd last byte padded with zero, added to `initial`,
/// to be folded. To sum a buffer in pieces, all but the last must be of even length.
///
/// Adds 64-bit words in native order: 2^16 is 1 in one's complement arithmetic, so the width is free, and byte order is settled
/// once at the end (RFC 1071 section 2 (B)).
#[must_use]
#[inline]
pub fn sum(initial: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<WORD>();
    let total = if bytes.len() < LONG {
        words_carried(words)
    } else {
        words_in_halves(words)
    };
    let total = add(total, last_word(rest));
    add(initial, u64::from(u16::from_be(fold(total))))
}

/// A header's.
#[inline]
fn words_carried(words: &[[u8; WORD]]) -> u64 {
    let words = words.iter().map(|word| u64::from_ne_bytes(*word));
    words.fold(0, add)
}

/// A payload's: each word in two halves, which compilers turn into vector code without a carry to mind.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn words_in_halves(words: &[[u8; WORD]]) -> u64 {
    // Each half grows by less than 2^32 a word: neither wraps before 32 GiB. A check of each addition would cost the vectors.
    let (mut low, mut high) = (0_u64, 0_u64);
    for word in words.iter().map(|word| u64::from_ne_bytes(*word)) {
        low = low.wrapping_add(word & 0xffff_ffff);
        high = high.wrapping_add(word >> 32);
    }
    add(low, high)
}

/// What is left behind the words, padded with zeros.
#[inline]
fn last_word(rest: &[u8]) -> u64 {
    let mut last = [0; WORD];
    // What headers leave, at its length: a copy of any length is a call.
    match rest {
        [] => return 0,
        [a, b, c, d] => last[..4].copy_from_slice(&[*a, *b, *c, *d]),
        rest => last[..rest.len()].copy_from_slice(rest),
    }
    u64::from_ne_bytes(last)
}

/// A sum folded to 16 bits; not inverted.
#[must_use]
pub fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let [.., high, low] = sum.to_be_bytes();
    u16::from_be_bytes([high, low])
}

/// The pseudo-header's sum (RFC 793, RFC 8200 section 8.1), not folded. `len`: bytes of the transport header and payload.
/// `source` and `destination` are of one family.
#[must_use]
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, len: u32) -> u64 {
    let addresses = add(address(source), address(destination));
    add(addresses, u64::from(protocol) + u64::from(len))
}

/// The checksum field after one of the 16-bit words it covers changed from `old` to `new` (RFC 1624, equation 3).
#[must_use]
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

/// One's complement addition: a carry out of the top comes back in at the bottom.
const fn add(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    // A sum that wrapped is at most 2^64 - 2, so the carry has room.
    sum + carry as u64
}

/// An address as the sum of its 64-bit words.
fn address(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            add((bits >> 64) as u64, bits as u64)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// The definition, word by word.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            let word = [pair[0], pair.get(1).copied().unwrap_or(0)];
            sum += u32::from(u16::from_be_bytes(word));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap()
    }

    #[test]
    fn sums_the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(0, &bytes)), 0xddf2);
    }

    #[test]
    fn pads_an_odd_last_byte_behind() {
        assert_eq!(fold(sum(0, &[0xab])), 0xab00);
        assert_eq!(fold(sum(0, &[0, 1, 0xab])), 0xab01);
    }

    #[test]
    fn folds_the_largest_sum() {
        assert_eq!(fold(u64::MAX), 0xffff);
        assert_eq!(fold(sum(u64::MAX, &[0, 1])), 1);
        assert_eq!(fold(0), 0);
    }

    #[test]
    fn carries_across_a_whole_datagram_of_ones() {
        assert_eq!(fold(sum(0, &[0xff; 65_535])), naive(&[0xff; 65_535]));
    }

    #[test]
    fn update_agrees_with_the_example_of_rfc_1624() {
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    proptest! {
        #[test]
        fn sum_is_the_naive_sum(initial: u32, bytes in vec(any::<u8>(), 0..1_500)) {
            let initial = u64::from(initial);
            let expected = fold(initial + u64::from(naive(&bytes)));
            prop_assert_eq!(fold(sum(initial, &bytes)), expected);
        }

        #[test]
        fn sum_of_pieces_is_the_sum_of_the_whole(bytes in vec(any::<u8>(), 0..300), at in 0_usize..150) {
            let (head, tail) = bytes.split_at((at * 2).min(bytes.len() & !1));
            prop_assert_eq!(fold(sum(sum(0, head), tail)), fold(sum(0, &bytes)));
        }

        #[test]
        fn update_agrees_with_computing_again(mut words in vec(any::<u16>(), 2..40), at: prop::sample::Index, new: u16) {
            // A header's checksum is never over all zeros: its first byte is the version.
            words[0] |= 0x4000;
            let at = 1 + at.index(words.len() - 1);
            let checksum = |words: &[u16]| {
                let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
                !fold(sum(0, &bytes))
            };
            let (before, old) = (checksum(&words), words[at]);
            words[at] = new;
            prop_assert_eq!(update(before, old, new), checksum(&words));
        }

        #[test]
        fn pseudo_header_is_the_sum_of_its_bytes(source: u32, destination: u32, protocol: u8, len: u16) {
            let (source, destination) = (Ipv4Addr::from(source), Ipv4Addr::from(destination));
            let bytes = [
                &source.octets()[..], &destination.octets(), &[0, protocol], &len.to_be_bytes(),
            ].concat();
            let sum = pseudo_header(source.into(), destination.into(), protocol, len.into());
            prop_assert_eq!(fold(sum), naive(&bytes));
        }

        #[test]
        fn pseudo_header_of_ipv6_is_the_sum_of_its_bytes(source: u128, destination: u128, protocol: u8, len: u32) {
            let (source, destination) = (Ipv6Addr::from(source), Ipv6Addr::from(destination));
            let bytes = [
                &source.octets()[..], &destination.octets(), &len.to_be_bytes(), &[0, 0, 0, protocol],
            ].concat();
            let sum = pseudo_header(source.into(), destination.into(), protocol, len);
            prop_assert_eq!(fold(sum), naive(&bytes));
        }
    }
}

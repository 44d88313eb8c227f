//! The Internet checksum (RFC 1071), word by word, so that it shares nothing with what it checks.

/// The folded ones' complement sum of `bytes`, an odd last one filled up with zero.
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    fold(words(bytes))
}

/// What a checksum field holds over `bytes` that have zero in it.
pub(crate) fn complement(bytes: &[u8]) -> u16 {
    !sum(bytes)
}

/// The folded sum of a pseudo-header: `addresses` of either family, both together.
pub(crate) fn pseudo_header(addresses: &[u8], protocol: u8, len: usize) -> u16 {
    fold(words(addresses) + u64::from(protocol) + len as u64)
}

/// The checksum of a transport segment that has zero in its field.
pub(crate) fn transport(addresses: &[u8], protocol: u8, segment: &[u8]) -> u16 {
    let pseudo = pseudo_header(addresses, protocol, segment.len());
    match !fold(u64::from(pseudo) + words(segment)) {
        0 => u16::MAX,
        sum => sum,
    }
}

/// Whether the checksum inside `segment` is right.
pub(crate) fn transport_is_valid(addresses: &[u8], protocol: u8, segment: &[u8]) -> bool {
    let pseudo = pseudo_header(addresses, protocol, segment.len());
    fold(u64::from(pseudo) + words(segment)) == u16::MAX
}

fn words(bytes: &[u8]) -> u64 {
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u64::from(*low));
    bytes.chunks(2).map(word).sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

//! A super-frame's headers, summed once without the fields that change, so that a segment's checksums cost a few additions and
//! the sum of its payload.

use std::ops::Range;

use super::super::fields::{ipv4, ipv6, read_sequence, read_u16, tcp, udp, write_u16};
use super::super::transport::{Protocol, Segment};
use crate::wire::checksum;
use crate::wire::ip::{IPV6_HEADER_LEN, Network};

/// The word of a TCP header with the flags in its low byte.
const FLAG_WORD: Range<usize> = tcp::DATA_OFFSET..tcp::FLAGS + 1;

const _: () = assert!(FLAG_WORD.end - FLAG_WORD.start == 2);

/// Where in the stream a segment stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Bytes of payload before it.
    pub(super) offset: usize,
    pub(super) is_last: bool,
}

/// The IP header.
#[derive(Clone, Copy, Debug)]
pub(super) enum NetworkTemplate {
    /// `sum`: of the header without total length, identification and checksum.
    V4 {
        sum: u64,
        id: u16,
    },
    V6,
}

impl NetworkTemplate {
    /// `headers`: of the frame, up to the transport header.
    pub(super) fn of(headers: &[u8], segment: &Segment<'_>) -> Self {
        let header = &headers[segment.transport.network_offset..];
        match segment.network {
            Network::V4(ip) => Self::V4 {
                sum: sum_without(header, [ipv4::TOTAL_LEN, ipv4::ID, ipv4::CHECKSUM]),
                id: ip.id(),
            },
            Network::V6(_) | Network::Other => Self::V6,
        }
    }

    /// Makes `header`, a copy of the super-frame's, that of segment `index`, with `segment_len` bytes behind it.
    pub(super) fn write(&self, header: &mut [u8], index: usize, segment_len: usize) {
        let len = header.len() + segment_len;
        match *self {
            Self::V4 { sum, id } => {
                let len = length(len);
                // As `inet_gso_segment`, DF or not.
                let id = id.wrapping_add(index as u16);
                let sum = sum + u64::from(len) + u64::from(id);
                write_u16(header, ipv4::TOTAL_LEN, len);
                write_u16(header, ipv4::ID, id);
                write_u16(header, ipv4::CHECKSUM, !checksum::fold(sum));
            }
            Self::V6 => write_u16(header, ipv6::PAYLOAD_LEN, length(len - IPV6_HEADER_LEN)),
        }
    }
}

/// The transport header.
#[derive(Clone, Copy, Debug)]
pub(super) enum TransportTemplate {
    /// `sum`: of pseudo-header and header without length, sequence number, flag word and checksum.
    Tcp {
        sum: u64,
        sequence: u32,
        flag_word: u16,
    },
    /// `sum`: of pseudo-header and header without lengths and checksum; `None` if there is no checksum.
    Udp { sum: Option<u64> },
}

impl TransportTemplate {
    /// `header`: the segment's, with its options. `is_partial`: the checksum field holds the pseudo-header's sum.
    pub(super) fn of(header: &[u8], segment: &Segment<'_>, is_partial: bool) -> Self {
        let pseudo = if is_partial {
            u64::from(segment.checksum()) + u64::from(!segment.len())
        } else {
            u64::from(checksum::fold(segment.pseudo_header(0)))
        };
        match segment.protocol {
            Protocol::Tcp => Self::Tcp {
                sum: pseudo + sum_without(header, [tcp::SEQUENCE, FLAG_WORD, tcp::CHECKSUM]),
                sequence: read_sequence(header),
                flag_word: read_u16(header, FLAG_WORD),
            },
            Protocol::Udp => {
                let may_go_without = matches!(segment.network, Network::V4(_)) && !is_partial;
                let has_checksum = segment.checksum() != 0 || !may_go_without;
                let sum = pseudo + sum_without(header, [udp::LEN, udp::CHECKSUM]);
                Self::Udp {
                    sum: has_checksum.then_some(sum),
                }
            }
        }
    }

    /// Makes `header`, a copy of the super-frame's, that of the segment with `payload`.
    pub(super) fn write(&self, header: &mut [u8], place: Place, payload: &[u8]) {
        let len = length(header.len() + payload.len());
        match *self {
            Self::Tcp {
                sum,
                sequence,
                flag_word,
            } => {
                // Sequence numbers wrap; an offset in a frame does not come near 2^32.
                let sequence = sequence.wrapping_add(place.offset as u32);
                let flag_word = flag_word & !u16::from(absent_flags(place));
                header[tcp::SEQUENCE].copy_from_slice(&sequence.to_be_bytes());
                write_u16(header, FLAG_WORD, flag_word);
                let sum = sum + u64::from(len) + u64::from(sequence) + u64::from(flag_word);
                let checksum = !checksum::fold(checksum::sum(sum, payload));
                write_u16(header, tcp::CHECKSUM, checksum);
            }
            Self::Udp { sum } => {
                write_u16(header, udp::LEN, len);
                let Some(sum) = sum else { return };
                // The length counts twice, in the pseudo-header and in the header.
                let sum = checksum::sum(sum + 2 * u64::from(len), payload);
                // 0 would say that there is no checksum (RFC 768); `CSUM_MANGLED_0`.
                let checksum = match !checksum::fold(sum) {
                    0 => u16::MAX,
                    checksum => checksum,
                };
                write_u16(header, udp::CHECKSUM, checksum);
            }
        }
    }
}

/// TCP flags that a segment does not take over: FIN and PSH are the last one's, CWR the first one's (`tcp_gso_segment`).
fn absent_flags(place: Place) -> u8 {
    let end = if place.is_last {
        0
    } else {
        tcp::FIN | tcp::PSH
    };
    let start = if place.offset == 0 { 0 } else { tcp::CWR };
    end | start
}

/// The sum of `header` with `fields` taken as zero: adding a complement subtracts. All stand at even offsets.
fn sum_without<const N: usize>(header: &[u8], fields: [Range<usize>; N]) -> u64 {
    fields
        .into_iter()
        .map(|field| !checksum::fold(checksum::sum(0, &header[field])))
        .fold(checksum::sum(0, header), |sum, word| sum + u64::from(word))
}

fn length(bytes: usize) -> u16 {
    u16::try_from(bytes)
        .expect("no segment is longer than its super-frame, whose own field held its length")
}

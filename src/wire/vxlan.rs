//! The VXLAN header with the group policy extension (RFC 7348 section 5, draft-smith-vxlan-group-policy-05).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! |G|R|R|R|I|R|R|R|R|D|R|R|A|R|R|R|       group policy id         |
//! |                VXLAN network identifier       |   reserved    |
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

/// Bytes of a VXLAN header.
pub const HEADER_LEN: usize = 8;
/// What a datagram that only measures the path starts with, in place of a header: I is clear, so every VTEP drops it.
pub const PROBE_HEADER: [u8; HEADER_LEN] = *b"\0\0\0\0silk";
/// The port IANA assigned to VXLAN.
pub const PORT: u16 = 4789;

/// Byte 0: a group policy id is present (`VXLAN_HF_GBP`).
const FLAG_GROUP: u8 = 0x80;
/// Byte 0: the VNI is valid (`VXLAN_HF_VNI`).
const FLAG_VNI: u8 = 0x08;
/// Byte 1: D and A, which stand in the same bits of the mark's third byte.
const POLICY_BITS: u8 = 0x48;

const _: () = assert!(PROBE_HEADER[0] & FLAG_VNI == 0);
const _: () = assert!(POLICY_BITS as u32 == (Mark::DONT_LEARN | Mark::POLICY_APPLIED) >> 16);

/// A VXLAN network identifier: 24 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Vni(u32);

/// A number over 2^24-1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("VNI {0} is over 16777215 (2^24-1)")]
pub struct VniOutOfRange(pub u32);

impl Vni {
    /// Silk's: 1.
    pub const SILK: Self = Self(1);

    /// # Errors
    /// `value` does not fit in 24 bits.
    pub const fn new(value: u32) -> Result<Self, VniOutOfRange> {
        if value >> 24 == 0 {
            Ok(Self(value))
        } else {
            Err(VniOutOfRange(value))
        }
    }

    /// The identifier, below 2^24.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Vni {
    type Error = VniOutOfRange;

    fn try_from(value: u32) -> Result<Self, Self::Error> {
        Self::new(value)
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> Self {
        vni.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A group policy id: who is speaking. Zero means nobody was named and is never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupId(pub u16);

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:04x}", self.0)
    }
}

/// What the kernel device keeps in `skb->mark`: the group id in the low 16 bits, A in bit 19, D in bit 22
/// (`VXLAN_GBP_POLICY_APPLIED`, `VXLAN_GBP_DONT_LEARN`). Zero means no group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mark(pub u32);

impl Mark {
    /// No group.
    pub const NONE: Self = Self(0);
    /// A: the sender has applied its policy (`VXLAN_GBP_POLICY_APPLIED`).
    pub const POLICY_APPLIED: u32 = 1 << 19;
    /// D: the receiver is not to learn the source (`VXLAN_GBP_DONT_LEARN`).
    pub const DONT_LEARN: u32 = 1 << 22;

    /// What a header carries of it to the receiver's mark: group, A and D.
    #[must_use]
    pub const fn carried(self) -> Self {
        Self(self.0 & (0xffff | Self::POLICY_APPLIED | Self::DONT_LEARN))
    }

    /// Whether A is set.
    #[must_use]
    pub const fn is_policy_applied(self) -> bool {
        self.0 & Self::POLICY_APPLIED != 0
    }

    /// Whether D is set.
    #[must_use]
    pub const fn is_dont_learn(self) -> bool {
        self.0 & Self::DONT_LEARN != 0
    }

    /// The group id in the low 16 bits.
    #[must_use]
    pub const fn group(self) -> GroupId {
        let [.., high, low] = self.0.to_be_bytes();
        GroupId(u16::from_be_bytes([high, low]))
    }
}

impl From<GroupId> for Mark {
    fn from(group: GroupId) -> Self {
        Self(u32::from(group.0))
    }
}

/// The fields of one header, as far as a strict receiver lets them differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The network identifier.
    pub vni: Vni,
    /// The group policy bits as the kernel keeps them; `None` if G is clear.
    pub mark: Option<Mark>,
}

/// Why eight bytes are no header that the kernel's gbp device would take (`vxlan_rcv`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The I flag is clear.
    #[error("the I flag is clear")]
    MissingVniFlag,
    /// A bit is set that this device does not know.
    #[error("a reserved bit is set")]
    ReservedBits,
}

impl Header {
    /// The VNI alone and whether I is set, read before the strict checks, in the kernel's order.
    ///
    /// # Errors
    /// `MissingVniFlag` if I is clear.
    pub fn parse_vni(bytes: &[u8; HEADER_LEN]) -> Result<Vni, HeaderError> {
        if bytes[0] & FLAG_VNI == 0 {
            return Err(HeaderError::MissingVniFlag);
        }
        let [_, _, _, _, a, b, c, _] = *bytes;
        Ok(Vni(u32::from_be_bytes([0, a, b, c])))
    }

    /// The whole header, after the kernel's checks: with `gbp`, byte 0 may hold I and G only, all 24 low bits of word 0
    /// pass, byte 7 must be 0; without, nothing but I and the VNI.
    ///
    /// # Errors
    /// `MissingVniFlag`, then `ReservedBits`.
    pub fn parse(bytes: &[u8; HEADER_LEN], gbp: bool) -> Result<Self, HeaderError> {
        let vni = Self::parse_vni(bytes)?;
        let [flags, policy, high, low, _, _, _, reserved] = *bytes;
        let known = if gbp {
            flags & !(FLAG_VNI | FLAG_GROUP) == 0
        } else {
            [flags, policy, high, low] == [FLAG_VNI, 0, 0, 0]
        };
        if !known || reserved != 0 {
            return Err(HeaderError::ReservedBits);
        }
        let mark = Mark(u32::from_be_bytes([0, policy & POLICY_BITS, high, low]));
        let mark = (flags & FLAG_GROUP != 0).then_some(mark);
        Ok(Self { vni, mark })
    }

    /// The eight bytes the kernel would send: G iff the mark is there and its 32 bits are non-zero, then D, A and the id.
    #[must_use]
    pub fn emit(&self) -> [u8; HEADER_LEN] {
        let [_, a, b, c] = self.vni.0.to_be_bytes();
        match self.mark {
            None | Some(Mark(0)) => [FLAG_VNI, 0, 0, 0, a, b, c, 0],
            Some(Mark(mark)) => {
                let [_, policy, high, low] = mark.to_be_bytes();
                let flags = FLAG_VNI | FLAG_GROUP;
                [flags, policy & POLICY_BITS, high, low, a, b, c, 0]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(mark: u32) -> Header {
        Header {
            vni: Vni::new(100).unwrap(),
            mark: Some(Mark(mark)),
        }
    }

    /// Word 0, then VNI 100 and a zero.
    fn bytes(word: u32) -> [u8; HEADER_LEN] {
        (u64::from(word) << 32 | 100 << 8).to_be_bytes()
    }

    #[test]
    fn emits_what_the_kernel_sends_for_each_mark() {
        for (mark, word) in [
            (0, 0x0800_0000),
            (0x1234, 0x8800_1234),
            (0xffff, 0x8800_ffff),
            (0x0040_1234, 0x8840_1234),
            (0x0008_1234, 0x8808_1234),
            (0x0048_abcd, 0x8848_abcd),
            (0x0001_0000, 0x8800_0000),
            (0xff00_0000, 0x8800_0000),
            (0x8000_0000, 0x8800_0000),
            (0xdead_beef, 0x8808_beef),
        ] {
            assert_eq!(header(mark).emit(), bytes(word), "mark {mark:#x}");
        }
    }

    #[test]
    fn emits_no_group_without_a_mark() {
        let vni = Vni::new(0x00ab_cdef).unwrap();
        let sent = Header { vni, mark: None }.emit();
        assert_eq!(sent, [8, 0, 0, 0, 0xab, 0xcd, 0xef, 0]);
    }

    #[test]
    fn gbp_receiver_reads_the_mark_as_the_kernel_does() {
        for (word, mark) in [
            (0x8800_1234, Some(0x1234)),
            (0x8848_1234, Some(0x0048_1234)),
            (0x88b7_1234, Some(0x1234)),
            (0x88ff_ffff, Some(0x0048_ffff)),
            (0x8800_0000, Some(0)),
            (0x0820_0000, None),
            (0x0800_1234, None),
            (0x0800_0000, None),
        ] {
            let parsed = Header::parse(&bytes(word), true).unwrap();
            assert_eq!(parsed.mark, mark.map(Mark), "word {word:#010x}");
            assert_eq!(parsed.vni.value(), 100);
        }
    }

    #[test]
    fn gbp_receiver_refuses_any_other_flag() {
        for flag in [0x01, 0x02, 0x04, 0x10, 0x20, 0x40] {
            let word = u32::from(FLAG_VNI | flag) << 24;
            let refused = Header::parse(&bytes(word), true);
            assert_eq!(refused, Err(HeaderError::ReservedBits), "flag {flag:#x}");
        }
    }

    #[test]
    fn plain_receiver_takes_nothing_but_i_and_vni() {
        assert_eq!(
            Header::parse(&bytes(0x0800_0000), false).unwrap().mark,
            None
        );
        for bit in (0..32).filter(|bit| *bit != 27) {
            let refused = Header::parse(&bytes(0x0800_0000 | 1 << bit), false);
            assert_eq!(refused, Err(HeaderError::ReservedBits), "bit {bit}");
        }
    }

    #[test]
    fn last_byte_must_be_zero() {
        for last in [0x01, 0x80, 0xff] {
            let mut sent = header(3).emit();
            sent[7] = last;
            assert_eq!(Header::parse(&sent, true), Err(HeaderError::ReservedBits));
            assert_eq!(Header::parse(&sent, false), Err(HeaderError::ReservedBits));
            assert_eq!(Header::parse_vni(&sent).unwrap().value(), 100);
        }
    }

    #[test]
    fn missing_vni_flag_comes_before_reserved_bits() {
        for word in [0, 0xf7ff_ffff] {
            let refused = Err(HeaderError::MissingVniFlag);
            assert_eq!(
                Header::parse_vni(&bytes(word)),
                Err(HeaderError::MissingVniFlag)
            );
            assert_eq!(Header::parse(&bytes(word), true), refused);
            assert_eq!(Header::parse(&bytes(word), false), refused);
        }
    }

    #[test]
    fn vni_is_24_bits() {
        assert_eq!(Vni::new(0x00ff_ffff).map(Vni::value), Ok(0x00ff_ffff));
        assert_eq!(Vni::new(0x0100_0000), Err(VniOutOfRange(0x0100_0000)));
    }

    proptest! {
        #[test]
        fn a_sent_mark_arrives_as_its_group_and_policy_bits(vni in 0..1_u32 << 24, mark in 1_u32..) {
            let sent = Header { vni: Vni(vni), mark: Some(Mark(mark)) };
            let kept = sent.mark.unwrap().carried();
            let received = Header { vni: Vni(vni), mark: Some(kept) };
            prop_assert_eq!(Header::parse(&sent.emit(), true), Ok(received));
            prop_assert_eq!(kept.group(), Mark(mark).group());
        }

        #[test]
        fn a_plain_header_survives_the_trip(vni in 0..1_u32 << 24, gbp: bool) {
            let sent = Header { vni: Vni(vni), mark: None };
            prop_assert_eq!(Header::parse(&sent.emit(), gbp), Ok(sent));
        }

        #[test]
        fn parse_and_parse_vni_agree(bytes: [u8; HEADER_LEN], gbp: bool) {
            match Header::parse(&bytes, gbp) {
                Ok(header) => prop_assert_eq!(Header::parse_vni(&bytes), Ok(header.vni)),
                Err(HeaderError::ReservedBits) => prop_assert!(Header::parse_vni(&bytes).is_ok()),
                Err(error) => prop_assert_eq!(Header::parse_vni(&bytes), Err(error)),
            }
        }
    }
}

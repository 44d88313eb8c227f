//! What may happen next. One byte says what, the rest follows, most of it a byte each:
//!
//! ```text
//! 0, 1  Send       from, frame (10 bytes, see FrameSpec)
//! 2     HostBytes  from, how, length, virtio_net_hdr and frame
//! 3     Datagram   to, source, TOS, length, UDP payload
//! 4     Carry      to, count, fate, two more bytes
//! 5     Forward    at
//! 6     Change     at, change (6 bytes, see ChangeSpec)
//! 7     Refuse     at, what
//! ```

use arbitrary::{Arbitrary, Result, Unstructured};

use super::super::repair::{Checksum, repair};

/// One step.
#[derive(Debug)]
pub enum Step<'a> {
    /// A host sends a frame or super-frame of a container.
    Send {
        /// Which cell.
        from: u8,
        /// What.
        frame: FrameSpec,
    },
    /// A host sends what a TAP might give.
    HostBytes {
        /// Which cell.
        from: u8,
        /// virtio_net_hdr and frame.
        packet: Vec<u8>,
    },
    /// Somebody sends a datagram to a cell.
    Datagram {
        /// Which cell.
        to: u8,
        /// Who.
        source: u8,
        /// The outer TOS.
        tos: u8,
        /// The UDP payload.
        payload: &'a [u8],
    },
    /// Datagrams of the wire reach a cell, the first ones first.
    Carry {
        /// Which cell.
        to: u8,
        /// How many at the most.
        count: u8,
        /// What becomes of them.
        fate: Fate,
    },
    /// A cell forwards what it was given.
    Forward {
        /// Which cell.
        at: u8,
    },
    /// An operator changes a table.
    Change {
        /// Which cell.
        at: u8,
        /// How.
        change: ChangeSpec,
    },
    /// A host refuses from now on what it did until now, or begins what it did not.
    Refuse {
        /// Which cell.
        at: u8,
        /// What.
        what: Refusal,
    },
}

/// A frame of a container, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct FrameSpec {
    /// See [`kind`].
    pub kind: u8,
    /// Last byte of the source address.
    pub source: u8,
    /// Chooses the destination.
    pub destination: u8,
    /// Chooses the port, and with it the flow.
    pub port: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// TCP flags besides ACK.
    pub flags: u8,
    /// How many of them follow one another, and bits of [`count`].
    pub count: u8,
    /// Segment size of a super-frame, in units of 8 bytes.
    pub segment: u8,
    /// Bytes of payload.
    pub len: u16,
}

/// Bits of [`FrameSpec::count`] that do not count.
pub mod count {
    /// The source MAC has the form in which marks cross the TAP.
    pub const MARKED: u8 = 0x80;
    /// But it holds none.
    pub const FORGED: u8 = 0x40;
}

/// Bits of [`FrameSpec::kind`].
pub mod kind {
    /// IPv6.
    pub const V6: u8 = 1;
    /// TCP; else UDP.
    pub const TCP: u8 = 2;
    /// To be cut.
    pub const SUPER: u8 = 4;
    /// To the peer's MAC; else to the VTEP's own, to be routed.
    pub const BRIDGED: u8 = 8;
    /// To everybody.
    pub const BROADCAST: u8 = 16;
    /// DF is clear.
    pub const FRAGMENTABLE: u8 = 32;
    /// UDP without a checksum.
    pub const NO_CHECKSUM: u8 = 64;
    /// The checksum is left for a card to finish.
    pub const PARTIAL: u8 = 128;
}

/// A change of one table, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct ChangeSpec {
    /// Add, replace, delete or delete exactly.
    pub verb: u8,
    /// Which table.
    pub table: u8,
    /// Chooses the key.
    pub key: u8,
    /// Chooses the value.
    pub value: u8,
    /// Chooses the rest.
    pub more: [u8; 2],
}

/// What happens to a datagram on the wire.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// Nothing.
    Arrives,
    /// It is gone.
    Lost,
    /// It comes twice.
    Doubled,
    /// All others overtake it.
    Late,
    /// Some bits are flipped.
    Spoilt {
        /// Where.
        at: u8,
        /// Which.
        bits: u8,
    },
    /// A router marks it.
    OtherTos(u8),
    /// Its end is missing.
    Cut(u8),
}

/// What a host does differently from now on.
#[derive(Clone, Copy, Debug)]
pub enum Refusal {
    /// It does not cut a send into datagrams.
    Runs,
    /// Its TAP takes no super-frames.
    SuperFrames,
    /// It joins datagrams of one sender.
    Joins,
    /// The programs that carry marks across its TAP are gone, or back.
    MarkTags,
    /// The path to a peer carries packets of so many bytes inside; `None`: as large as the device takes.
    Narrow {
        /// Which.
        peer: u8,
        /// How many.
        limit: Option<u32>,
    },
}

/// Set in the `what` of [`Step::Refuse`] that is [`Refusal::Narrow`].
pub const NARROW: u8 = 0x80;

/// Bits of the `how` of [`Step::HostBytes`].
const REPAIRED: u8 = 1;

impl<'a> Arbitrary<'a> for Step<'a> {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match byte(bytes)? & 7 {
            0 | 1 => Self::Send {
                from: byte(bytes)?,
                frame: FrameSpec::arbitrary(bytes)?,
            },
            2 => Self::HostBytes {
                from: byte(bytes)?,
                packet: host_bytes(bytes)?,
            },
            3 => Self::Datagram {
                to: byte(bytes)?,
                source: byte(bytes)?,
                tos: byte(bytes)?,
                payload: counted(bytes)?,
            },
            4 => Self::Carry {
                to: byte(bytes)?,
                count: byte(bytes)?,
                fate: Fate::arbitrary(bytes)?,
            },
            5 => Self::Forward { at: byte(bytes)? },
            6 => Self::Change {
                at: byte(bytes)?,
                change: ChangeSpec::arbitrary(bytes)?,
            },
            _ => Self::Refuse {
                at: byte(bytes)?,
                what: Refusal::of(byte(bytes)?),
            },
        })
    }
}

impl Refusal {
    /// Narrow paths carry from 60 bytes, less than an answer to a neighbour solicitation has, to nearly all that the device takes.
    fn of(what: u8) -> Self {
        match what {
            what if what & NARROW != 0 => Self::Narrow {
                peer: what & 3,
                limit: match what >> 2 & 0x1f {
                    0 => None,
                    units => Some(60 + (u32::from(units) - 1) * 45),
                },
            },
            what => match what & 3 {
                0 => Self::Runs,
                1 => Self::SuperFrames,
                2 => Self::Joins,
                _ => Self::MarkTags,
            },
        }
    }
}

impl<'a> Arbitrary<'a> for FrameSpec {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self {
            kind: byte(bytes)?,
            source: byte(bytes)?,
            destination: byte(bytes)?,
            port: byte(bytes)?,
            tos: byte(bytes)?,
            flags: byte(bytes)?,
            count: byte(bytes)?,
            segment: byte(bytes)?,
            len: u16::from_le_bytes([byte(bytes)?, byte(bytes)?]),
        })
    }
}

impl<'a> Arbitrary<'a> for ChangeSpec {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self {
            verb: byte(bytes)?,
            table: byte(bytes)?,
            key: byte(bytes)?,
            value: byte(bytes)?,
            more: [byte(bytes)?, byte(bytes)?],
        })
    }
}

impl<'a> Arbitrary<'a> for Fate {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        let [which, a, b] = [byte(bytes)?, byte(bytes)?, byte(bytes)?];
        Ok(match which % 10 {
            4 => Self::Lost,
            5 => Self::Doubled,
            6 => Self::Late,
            7 => Self::Spoilt { at: a, bits: b },
            8 => Self::OtherTos(a),
            9 => Self::Cut(a),
            _ => Self::Arrives,
        })
    }
}

fn byte(bytes: &mut Unstructured<'_>) -> Result<u8> {
    Ok(bytes.bytes(1)?[0])
}

/// As many bytes as a byte says, or as there are.
fn counted<'a>(bytes: &mut Unstructured<'a>) -> Result<&'a [u8]> {
    let len = usize::from(byte(bytes)?).min(bytes.len());
    bytes.bytes(len)
}

/// A header at the least: a TAP never gives less.
fn host_bytes(bytes: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let how = byte(bytes)?;
    let mut packet = counted(bytes)?.to_vec();
    packet.resize(packet.len().max(10), 0);
    if how & REPAIRED != 0 {
        let checksum = if packet[0] & 1 != 0 {
            Checksum::Partial
        } else {
            Checksum::Complete
        };
        repair(&mut packet[10..], checksum);
    }
    Ok(packet)
}

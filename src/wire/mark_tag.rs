//! How a mark crosses a TAP, which loses `skb->mark`: in place of the frame's source MAC.
//!
//! ```text
//!  0           6     8          12    14
//! | destination |03:01|   mark   | type|  payload          the mark big endian
//! ```
//!
//! No station has such a MAC: the first bit sent says that it is a group's (IEEE 802.3 section 3.2.3), which a source never is, and
//! bridges drop such frames (`br_handle_frame`). So the form describes itself. The programs of [`bpf::marks`](crate::bpf::marks) write
//! and read it on the host's side, the lane on ours.
//!
//! A mark of 0 is no mark and is not sent so: a tag with it says that somebody else had written a tag, and what it held is gone.

use super::ethernet::{self, Frame};
use super::{MacAddr, Mark};

/// What a tag begins with.
pub const PREFIX: [u8; 2] = [0x03, 0x01];

/// The source MAC of a frame whose own gave way to a mark: nobody's, a single station's and locally administered. It is the tag
/// without its group bit and without a mark.
pub const LOST_SOURCE: MacAddr = MacAddr::new([PREFIX[0] & !1, PREFIX[1], 0, 0, 0, 0]);

/// The tag of `mark`.
#[must_use]
pub const fn emit(mark: Mark) -> MacAddr {
    let [a, b] = PREFIX;
    let [c, d, e, f] = mark.0.to_be_bytes();
    MacAddr::new([a, b, c, d, e, f])
}

/// The mark, if a frame's source MAC is a tag.
#[must_use]
#[inline]
pub const fn parse(source: MacAddr) -> Option<Mark> {
    match source.octets() {
        [a, b, mark @ ..] if a == PREFIX[0] && b == PREFIX[1] => {
            Some(Mark(u32::from_be_bytes(mark)))
        }
        _ => None,
    }
}

/// Puts `source` back where a frame has a tag, and gives the tag's mark; `None` if it has none.
#[inline]
pub fn take(frame: &mut [u8], source: MacAddr) -> Option<Mark> {
    let mark = Frame::new_checked(frame)
        .map(Frame::source)
        .and_then(parse)?;
    ethernet::write_source(frame, source);
    Some(mark)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_tag_is_no_stations_address_and_what_replaces_it_is() {
        assert_eq!(emit(Mark(0xdead_beef)).to_string(), "03:01:de:ad:be:ef");
        assert!(emit(Mark::NONE).is_multicast());
        assert!(!LOST_SOURCE.is_multicast());
        assert_eq!(LOST_SOURCE.octets()[0] & 2, 2, "locally administered");
        assert_eq!(parse(LOST_SOURCE), None);
    }

    proptest! {
        #[test]
        fn a_mark_survives_its_tag(mark: u32) {
            prop_assert_eq!(parse(emit(Mark(mark))), Some(Mark(mark)));
        }

        #[test]
        fn a_tag_taken_leaves_the_source_and_nothing_else_changes(mut frame in proptest::collection::vec(any::<u8>(), 0..40), mark: Option<u32>) {
            let source = MacAddr::new([2; 6]);
            if let (Some(mark), Some(field)) = (mark, frame.get_mut(ethernet::SOURCE)) {
                field.copy_from_slice(&emit(Mark(mark)).octets());
            }
            let before = frame.clone();
            let tag = Frame::new_checked(&before).map(Frame::source).and_then(parse);
            prop_assert_eq!(take(&mut frame, source), tag);
            if tag.is_some() {
                prop_assert_eq!(&frame[ethernet::SOURCE], &source.octets());
                frame[ethernet::SOURCE].copy_from_slice(&before[ethernet::SOURCE]);
            }
            prop_assert_eq!(frame, before);
        }

        #[test]
        fn nothing_else_is_a_tag(octets: [u8; 6]) {
            let mac = MacAddr::new(octets);
            match parse(mac) {
                Some(mark) => prop_assert_eq!(emit(mark), mac),
                None => prop_assert_ne!(&octets[..2], &PREFIX[..]),
            }
        }
    }
}

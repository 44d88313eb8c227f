//! Datagrams of the kernel's, or of what takes itself for it.

use silk_vtep::netlink::{Answer, Object, WatchEvent};

/// The link that is watched, and the number of the request that is answered.
const NUMBER: u32 = 7;
/// `struct nlmsghdr`.
const HEADER_LEN: usize = 16;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_NEWNEIGH: u16 = 28;

/// What two datagrams say is what one of both says; an answer ends where it says so; objects keep their own rules.
pub fn target(data: &[u8]) {
    let messages = messages(data);
    for message in &messages {
        check_events(message, data);
    }
    let mut answer = Answer::new("RTM_GETLINK", NUMBER);
    let outcome = answer.take(data);
    let mut alone = Answer::new("RTM_GETLINK", NUMBER);
    let one_by_one = messages.iter().try_for_each(|message| alone.take(message));
    assert_eq!(outcome, one_by_one);
    assert_eq!(answer.is_complete(), alone.is_complete());
    assert_eq!(answer.is_interrupted(), alone.is_interrupted());
    assert_eq!(answer.into_objects(), alone.into_objects());
    for message in messages {
        check_objects(message);
    }
}

/// The messages of a datagram, by the length fields.
fn messages(mut datagram: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while let Some(length) = datagram.first_chunk() {
        let length = u32::from_ne_bytes(*length) as usize;
        if length < HEADER_LEN || length > datagram.len() {
            break;
        }
        messages.push(&datagram[..length]);
        let next = length.next_multiple_of(4).min(datagram.len());
        datagram = &datagram[next..];
    }
    messages
}

fn check_events(message: &[u8], datagram: &[u8]) {
    let of_all = WatchEvent::of(datagram, NUMBER);
    assert!(WatchEvent::of(message, NUMBER) <= of_all);
    let mut doubled = message.to_vec();
    doubled.resize(message.len().next_multiple_of(4), 0);
    doubled.extend(message);
    assert_eq!(
        WatchEvent::of(&doubled, NUMBER),
        WatchEvent::of(message, NUMBER)
    );
    // A datagram cut short inside its only message may have said anything.
    for end in [0, 1, HEADER_LEN - 1, message.len() - 1] {
        let cut = WatchEvent::of(&message[..end.min(message.len() - 1)], NUMBER);
        assert_eq!(cut, WatchEvent::Changed);
    }
}

/// A message is one object at the most, and its fixed header is where the kernel has it.
fn check_objects(message: &[u8]) {
    let mut answer = Answer::new("RTM_GETLINK", NUMBER);
    if answer.take(message).is_err() {
        return;
    }
    let objects = answer.into_objects();
    let [object] = &objects[..] else {
        return assert!(objects.is_empty());
    };
    let kind = u16::from_ne_bytes([message[4], message[5]]);
    let body = &message[HEADER_LEN..];
    let number = |at: usize| u32::from_ne_bytes(std::array::from_fn(|index| body[at + index]));
    match object {
        Object::Link(link) => {
            assert_eq!((kind, number(4)), (RTM_NEWLINK, link.index));
        }
        Object::Address(address) => {
            assert_eq!((kind, number(4)), (RTM_NEWADDR, address.interface));
            assert_eq!(body[1], address.prefix_len);
            assert_ne!(address.peer, Some(address.local), "then it is no peer");
        }
        Object::Route(route) => {
            let family = if route.destination.addr().is_ipv4() {
                libc::AF_INET
            } else {
                libc::AF_INET6
            };
            assert_eq!((kind, i32::from(body[0])), (RTM_NEWROUTE, family));
            assert_eq!(body[1], route.destination.prefix_len());
            assert_eq!(route.destination, route.destination.trunc());
        }
        Object::Neighbor(neighbor) => {
            assert_eq!((kind, number(4)), (RTM_NEWNEIGH, neighbor.interface));
        }
    }
}

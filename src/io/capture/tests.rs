use super::*;
use crate::DropReason;
use crate::vtep::Fate;
use crate::vtep::fixture::*;

fn seen() -> Seen<'static> {
    Seen::dropped(DropReason::NoRoute, None)
}

fn offer(captures: &Captures, lane: usize, frame: &[u8]) {
    if let Some(sessions) = captures.load() {
        sessions.offer(lane, &seen(), frame, std::iter::empty());
    }
}

fn drained(capture: &mut Capture) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    capture.drain(|record| found.push(record.bytes.clone()));
    found
}

#[test]
fn nobody_is_asked_while_nobody_captures() {
    let captures = Arc::new(Captures::default());
    assert!(captures.load().is_none());
    let capture = captures.start(1, Filter::default(), 64).expect("none runs");
    assert!(captures.load().is_some());
    drop(capture);
    assert!(captures.load().is_none());
}

#[test]
fn each_capture_gets_what_it_wants() {
    let captures = Arc::new(Captures::default());
    let mut all = captures.start(2, Filter::default(), 64).expect("none runs");
    let of_peer = Filter {
        peer: Some(PEER_UNDERLAY),
        ..Filter::default()
    };
    let mut of_peer = captures.start(2, of_peer, 64).expect("one runs");
    offer(&captures, 1, b"first");
    offer(&captures, 0, b"second");
    assert_eq!(drained(&mut all), [b"first".to_vec(), b"second".to_vec()]);
    assert!(drained(&mut all).is_empty());
    assert!(drained(&mut of_peer).is_empty());
    assert_eq!(of_peer.count(Direction::Egress), Count::default());
}

#[test]
fn captures_are_bounded_and_a_place_is_free_when_one_ends() {
    let captures = Arc::new(Captures::default());
    let start = || captures.start(1, Filter::default(), 64);
    let mut running: Vec<_> = (0..CAPTURES_MAX).map(|_| start().expect("room")).collect();
    assert_eq!(start().err(), Some(TooMany));
    running.pop();
    assert!(start().is_ok());
}

#[test]
fn what_a_slow_reader_misses_is_counted_and_what_it_gets_is_whole() {
    let captures = Arc::new(Captures::default());
    let mut capture = captures
        .start(1, Filter::default(), SNAP_BYTES_MAX)
        .expect("none runs");
    for n in 0..100_u8 {
        offer(&captures, 0, &[n; 100]);
    }
    let count = capture.count(Direction::Egress);
    let found = drained(&mut capture);
    assert_eq!(count.wanted, 100);
    assert_eq!(found.len() as u64, count.wanted - count.missed);
    assert!(count.missed > 0 && found.len() >= 64, "{count:?}");
    for (n, bytes) in found.iter().enumerate() {
        assert_eq!(*bytes, [n as u8; 100]);
    }
    offer(&captures, 0, b"again");
    assert_eq!(drained(&mut capture), [b"again"], "there is room again");
}

#[test]
fn no_more_than_the_snap_length_is_kept_of_a_packet_in_parts() {
    let captures = Arc::new(Captures::default());
    let mut capture = captures.start(1, Filter::default(), 10).expect("none runs");
    let sessions = captures.load().expect("one runs");
    let parts = [&b"defghi"[..], b"jklmno", b""];
    sessions.offer(0, &seen(), b"abc", parts.into_iter());
    let mut found = Vec::new();
    capture.drain(|record| found.push((record.len, record.bytes.clone())));
    assert_eq!(found, [(15, b"abcdefghij".to_vec())]);
}

#[test]
fn what_arrives_is_told_with_its_header_and_its_sender() {
    let sender = Sender {
        source: (PEER_UNDERLAY, 40_000).into(),
        tos: 2,
    };
    let datagram = from_peer([0x88, 0x48, 0, 7, 0, 0, 9, 0], 0);
    let reason = Some(DropReason::UnknownVni);
    let captures = Arc::new(Captures::default());
    let filter = Filter {
        drops: true,
        peer: Some(PEER_UNDERLAY),
        address: Some("10.255.43.6/32".parse().unwrap()),
    };
    let mut capture = captures.start(1, filter, 2000).expect("none runs");
    let sessions = captures.load().expect("one runs");
    for fate in [Fate::Drop, Fate::Deliver] {
        let seen = Seen::arrived(sender, &datagram, true, fate, reason);
        sessions.offer(0, &seen, &datagram, std::iter::empty());
    }
    let mut found = 0;
    capture.drain(|record| {
        found += 1;
        assert_eq!(record.bytes, datagram);
        assert_eq!((record.fate, record.reason), (Fate::Drop, reason));
        assert_eq!(record.mark.map(|mark| mark.0), Some(0x48_0007));
        assert_eq!(record.vni.map(crate::wire::Vni::value), Some(9));
        assert_eq!(record.peer, Some(PEER_UNDERLAY));
        assert_eq!(record.sender, Some(sender));
    });
    assert_eq!(found, 1);
}

//! Capture files, byte by byte.

pub(crate) const ETHERNET: u32 = 1;

/// A pcap file, little endian, in microseconds; packets a millisecond apart, from second 1000 on.
pub(crate) fn pcap(packets: &[Vec<u8>]) -> Vec<u8> {
    pcap_of(ETHERNET, packets)
}

pub(crate) fn pcap_of(link: u32, packets: &[Vec<u8>]) -> Vec<u8> {
    let mut file = pcap_header(link);
    for (i, packet) in packets.iter().enumerate() {
        file.extend(pcap_record(i, packet.len(), packet));
    }
    file
}

pub(crate) fn pcap_header(link: u32) -> Vec<u8> {
    let mut header = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0];
    for word in [0, 0, 65_535, link] {
        header.extend(word.to_le_bytes());
    }
    header
}

/// Of a packet that had `wire_len` bytes.
pub(crate) fn pcap_record(i: usize, wire_len: usize, bytes: &[u8]) -> Vec<u8> {
    let mut record = Vec::new();
    let words = [1000, i as u32 * 1000, bytes.len() as u32, wire_len as u32];
    for word in words {
        record.extend(word.to_le_bytes());
    }
    record.extend(bytes);
    record
}

/// The seconds, nanoseconds and bytes of each packet of a little-endian pcap file in nanoseconds, of Ethernet frames.
pub(crate) fn read_pcap(file: &[u8]) -> Vec<(u32, u32, Vec<u8>)> {
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("four bytes"));
    assert_eq!(word(0), 0xa1b2_3c4d, "magic");
    assert_eq!(word(20), ETHERNET);
    let mut packets = Vec::new();
    let mut at = 24;
    while at < file.len() {
        let len = word(at + 8) as usize;
        assert_eq!(word(at + 12) as usize, len);
        packets.push((
            word(at),
            word(at + 4),
            file[at + 16..at + 16 + len].to_vec(),
        ));
        at += 16 + len;
    }
    packets
}

pub(crate) fn frames(file: &[u8]) -> Vec<Vec<u8>> {
    let packets = read_pcap(file).into_iter();
    packets.map(|(_, _, frame)| frame).collect()
}

/// A pcapng block, big endian.
pub(crate) fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut padded = body.to_vec();
    padded.resize(body.len().next_multiple_of(4), 0);
    let len = (padded.len() as u32 + 12).to_be_bytes();
    [&kind.to_be_bytes()[..], &len, &padded, &len].concat()
}

pub(crate) fn section() -> Vec<u8> {
    let mut body = vec![0x1a, 0x2b, 0x3c, 0x4d, 0, 1, 0, 0];
    body.extend([0xff; 8]);
    block(0x0a0d_0d0a, &body)
}

/// An interface with nanoseconds (`if_tsresol` 9) and a time zone.
pub(crate) fn interface(link: u16) -> Vec<u8> {
    let [high, low] = link.to_be_bytes();
    let mut body = vec![high, low, 0, 0, 0, 0, 0, 0];
    body.extend([0, 9, 0, 1, 9, 0, 0, 0]);
    body.extend([0, 10, 0, 4, 0, 0, 0, 0]);
    body.extend([0; 4]);
    block(1, &body)
}

/// An enhanced packet block; the time is 1000 seconds and `i` nanoseconds.
pub(crate) fn enhanced(interface: u32, i: u64, bytes: &[u8]) -> Vec<u8> {
    let mut body = interface.to_be_bytes().to_vec();
    body.extend((1000 * 1_000_000_000 + i).to_be_bytes());
    body.extend((bytes.len() as u32).to_be_bytes());
    body.extend((bytes.len() as u32).to_be_bytes());
    body.extend(bytes);
    block(6, &body)
}

pub(crate) fn simple(bytes: &[u8]) -> Vec<u8> {
    let len = (bytes.len() as u32).to_be_bytes();
    block(3, &[&len[..], bytes].concat())
}

//! The pcapng file: two interfaces, and a comment for every packet.
//!
//! | interface | packets | link type |
//! |---|---|---|
//! | the device's name | frames of the host, as the lane read them | Ethernet |
//! | the same and `:underlay` | datagrams of other hosts, behind [headers](super::outer) made of what the socket tells | Ethernet |

use std::borrow::Cow;
use std::error::Error;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use pcap_file::DataLink;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
};
use pcap_file::pcapng::blocks::interface_statistics::{
    InterfaceStatisticsBlock, InterfaceStatisticsOption,
};
use pcap_file::pcapng::blocks::opt_common::CommonOption;
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};

use super::outer::{self, Outer};
use super::outlet::Outlet;
use crate::DropReason;
use crate::cli::lab::interrupt::Interrupt;
use crate::control::capture::{
    CaptureCount, CaptureStarted, CapturedPacket, PacketCount, PacketDirection,
};
use crate::vtep::Fate;
use crate::wire::Mark;

/// The first interface.
const OVERLAY: u32 = 0;
/// The second.
const UNDERLAY: u32 = 1;
/// Of `epb_flags`, which way a packet went past an interface.
const INBOUND: u32 = 1;

/// A file on its way.
pub(super) struct File {
    writer: PcapNgWriter<BufWriter<Box<dyn Write>>>,
    started: CaptureStarted,
    since: Duration,
    /// Written, by interface.
    packets: [u64; 2],
    outer: Outer,
}

impl File {
    /// Creates the file, or replaces what was there, and writes its head.
    pub(super) fn create(
        path: &Path,
        started: &CaptureStarted,
        interrupt: &Interrupt,
    ) -> io::Result<Self> {
        Self::new(Box::new(Outlet::open(path, interrupt)?), started)
    }

    fn new(out: Box<dyn Write>, started: &CaptureStarted) -> io::Result<Self> {
        let application = concat!("silk-vtep ", env!("CARGO_PKG_VERSION"));
        let section = SectionHeaderBlock {
            options: vec![SectionHeaderOption::UserApplication(application.into())],
            ..SectionHeaderBlock::default()
        };
        let writer = PcapNgWriter::with_section_header(BufWriter::new(out), section);
        let mut file = Self {
            writer: writer.map_err(io_error)?,
            started: started.clone(),
            since: now(),
            packets: [0; 2],
            outer: Outer::new((started.local, started.port).into()),
        };
        let name = &started.ifname;
        file.interface(name.clone(), "frames that the host sends")?;
        let (local, port) = (started.local, started.port);
        let about = format!(
            "datagrams that arrive at {local} port {port}; outer headers made of what a socket tells"
        );
        file.interface(format!("{name}:underlay"), &about)?;
        file.flush()?;
        Ok(file)
    }

    fn interface(&mut self, name: String, about: &str) -> io::Result<()> {
        let snaplen = self.started.snap + outer::BYTES_MAX;
        let block = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: u32::try_from(snaplen).unwrap_or(u32::MAX),
            options: vec![
                InterfaceDescriptionOption::IfName(name.into()),
                InterfaceDescriptionOption::IfDescription(about.into()),
                InterfaceDescriptionOption::IfTsResol(InterfaceTsResolution::NANO),
            ],
        };
        self.writer.write_pcapng_block(block).map_err(io_error)?;
        Ok(())
    }

    /// How many packets were written.
    pub(super) fn packets(&self) -> u64 {
        self.packets.iter().sum()
    }

    /// Appends a packet.
    pub(super) fn packet(&mut self, packet: &CapturedPacket, bytes: &[u8]) -> io::Result<()> {
        let interface_id = match packet.direction {
            PacketDirection::Egress => OVERLAY,
            PacketDirection::Ingress => UNDERLAY,
        };
        let (data, len) = match packet.sender {
            Some(sender) => self.outer.put_before(packet, sender, bytes),
            None => (bytes, packet.len),
        };
        let block = EnhancedPacketBlock {
            interface_id,
            timestamp: Duration::new(packet.at.0, packet.at.1),
            original_len: len as u32,
            data: Cow::Borrowed(data),
            options: vec![
                EnhancedPacketOption::Flags(INBOUND),
                EnhancedPacketOption::Common(CommonOption::Comment(comment(packet).into())),
            ],
        };
        self.writer.write_pcapng_block(block).map_err(io_error)?;
        self.packets[interface_id as usize] += 1;
        Ok(())
    }

    /// Hands on what waits.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.writer.get_mut().flush()
    }

    /// Writes the statistics: the file is whole.
    pub(super) fn finish(mut self, count: &CaptureCount) -> io::Result<()> {
        for (id, count) in [(OVERLAY, count.egress), (UNDERLAY, count.ingress)] {
            let PacketCount { wanted, missed } = count;
            let block = InterfaceStatisticsBlock {
                interface_id: id,
                timestamp: now(),
                options: vec![
                    InterfaceStatisticsOption::IsbStartTime(self.since),
                    InterfaceStatisticsOption::IsbEndTime(now()),
                    InterfaceStatisticsOption::IsbFilterAccept(wanted),
                    InterfaceStatisticsOption::IsbIfDrop(missed),
                    InterfaceStatisticsOption::IsbUsrDeliv(self.packets[id as usize]),
                ],
            };
            self.writer.write_pcapng_block(block).map_err(io_error)?;
        }
        self.flush()
    }
}

/// `drop reason=source-not-peers direction=ingress vni=1 group=0x0003 d=0 a=0 peer=10.0.16.14: An inner source address that ...`
fn comment(packet: &CapturedPacket) -> String {
    use std::fmt::Write as _;

    let verdict = &packet.verdict;
    let mut text = verdict.fate.name().to_owned();
    let mut put = |words: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        let _ = text.write_fmt(words);
    };
    if let Some(reason) = &verdict.reason {
        put(format_args!(" reason={reason}"));
    }
    let direction = match packet.direction {
        PacketDirection::Egress => "egress",
        PacketDirection::Ingress => "ingress",
    };
    put(format_args!(" direction={direction}"));
    if let Some(vni) = verdict.vni {
        put(format_args!(" vni={vni}"));
    }
    if let (Some(group), Some(mark)) = (verdict.group, verdict.mark) {
        let mark = Mark(mark);
        let [d, a] = [mark.is_dont_learn(), mark.is_policy_applied()].map(u8::from);
        put(format_args!(" group={group} d={d} a={a}"));
    }
    if let Some(peer) = packet.peer {
        put(format_args!(" peer={peer}"));
    }
    if let Some(copies) = packet.copies {
        put(format_args!(" copies={copies}"));
    }
    if verdict.fate == Fate::Drop {
        let reason = verdict.reason.as_deref();
        let known = DropReason::ALL
            .into_iter()
            .find(|known| Some(known.name()) == reason);
        if let Some(known) = known {
            put(format_args!(": {}", known.meaning().trim()));
        }
    }
    text
}

fn now() -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default()
}

/// The crate's error has no name outside it.
fn io_error(error: impl Error + Send + Sync + 'static) -> io::Error {
    let cause = error.source();
    let Some(cause) = cause.and_then(|cause| cause.downcast_ref::<io::Error>()) else {
        return io::Error::other(error);
    };
    match cause.raw_os_error() {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::new(cause.kind(), cause.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;
    use crate::cli::capture::outer::PAYLOAD_MAX;
    use crate::control::Verdict;
    use crate::host::{Addresses, Captured, Host, Link, Outcome, Rules};
    use crate::vtep::fixture::*;

    /// What was written, to be looked at afterwards.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn started(local: &str) -> CaptureStarted {
        CaptureStarted {
            ifname: "silk-vtep".to_owned(),
            local: local.parse().unwrap(),
            port: 4789,
            snap: 2000,
        }
    }

    fn arrived(sender: &str, bytes: &[u8]) -> CapturedPacket {
        CapturedPacket {
            at: (1_764_000_000, 5),
            direction: PacketDirection::Ingress,
            verdict: Verdict {
                fate: Fate::Drop,
                reason: Some("source-not-peers".to_owned()),
                meaning: None,
                vni: Some(crate::wire::Vni::SILK),
                group: Some(GROUP),
                mark: Some(0x40_0003),
            },
            peer: Some(PEER_UNDERLAY),
            copies: None,
            sender: Some(sender.parse().unwrap()),
            tos: Some(2),
            len: bytes.len(),
            bytes: bytes.len(),
        }
    }

    /// What `write` writes, read back as another would.
    fn read_back(local: &str, write: impl FnOnce(&mut File)) -> Vec<Block<'static>> {
        let paper = Paper::default();
        let mut file = File::new(Box::new(paper.clone()), &started(local)).unwrap();
        write(&mut file);
        let count = CaptureCount {
            ingress: PacketCount {
                wanted: 9,
                missed: 8,
            },
            ..CaptureCount::default()
        };
        file.finish(&count).unwrap();
        let written = paper.0.lock().clone();
        let mut reader = PcapNgReader::new(&written[..]).unwrap();
        let mut blocks = Vec::new();
        while let Some(block) = reader.next_block() {
            blocks.push(block.unwrap().0.into_owned());
        }
        blocks
    }

    fn packets(blocks: &[Block<'static>]) -> Vec<EnhancedPacketBlock<'static>> {
        let packets = blocks.iter().filter_map(|block| match block {
            Block::EnhancedPacket(packet) => Some(packet.clone()),
            _ => None,
        });
        packets.collect()
    }

    #[test]
    fn a_datagram_is_one_that_its_host_would_take_over_both_families() {
        let datagram = from_peer([0x88, 0x40, 0, 3, 0, 0, 1, 0], 2);
        for (local, sender) in [
            ("10.0.32.12", "10.0.16.14:40000"),
            ("fd00::1", "[fd00::2]:40000"),
        ] {
            let blocks = read_back(local, |file| {
                file.packet(&arrived(sender, &datagram), &datagram).unwrap();
            });
            let [packet] = &packets(&blocks)[..] else {
                panic!("{blocks:?}");
            };
            let mut host = Host::new(Rules {
                local: local.parse().unwrap(),
                port: 4789,
                addresses: Addresses::Local,
                zero_checksum_v6: false,
            });
            let captured = Captured {
                link: Link::Ethernet,
                bytes: &packet.data,
                snapped: false,
            };
            let Outcome::Datagram(received) = host.receive(captured) else {
                panic!("refused: {packet:?}");
            };
            assert_eq!(received.payload, datagram);
            assert_eq!(
                (received.source, received.tos),
                (sender.parse().unwrap(), 2)
            );
        }
    }

    #[test]
    fn what_became_of_a_packet_is_its_comment() {
        let datagram = from_peer([0x88, 0x40, 0, 3, 0, 0, 1, 0], 0);
        let blocks = read_back("10.0.32.12", |file| {
            let packet = arrived("10.0.16.14:40000", &datagram);
            file.packet(&packet, &datagram).unwrap();
            let frame = from_host(0);
            let sent = CapturedPacket {
                direction: PacketDirection::Egress,
                verdict: Verdict {
                    fate: Fate::Encap,
                    reason: None,
                    ..packet.verdict
                },
                copies: Some(3),
                sender: None,
                tos: None,
                len: 9000,
                bytes: frame.len(),
                ..packet
            };
            file.packet(&sent, &frame).unwrap();
        });
        let packets = packets(&blocks);
        let comments: Vec<_> = packets
            .iter()
            .flat_map(|packet| &packet.options)
            .filter_map(|option| match option {
                EnhancedPacketOption::Common(CommonOption::Comment(comment)) => Some(&**comment),
                _ => None,
            })
            .collect();
        assert_eq!(
            comments,
            [
                "drop reason=source-not-peers direction=ingress vni=1 group=0x0003 d=1 a=0 peer=10.0.16.14: An inner source address that our tables do not place behind the sending peer (strict_source).",
                "encap direction=egress vni=1 group=0x0003 d=1 a=0 peer=10.0.16.14 copies=3",
            ]
        );
        assert_eq!(packets[0].timestamp, Duration::new(1_764_000_000, 5));
        let interfaces: Vec<_> = packets.iter().map(|packet| packet.interface_id).collect();
        assert_eq!(interfaces, [UNDERLAY, OVERLAY]);
        assert_eq!(packets[1].original_len, 9000);
        assert_eq!(packets[1].data, from_host(0));
    }

    #[test]
    fn a_datagram_that_was_cut_off_says_how_long_it_was() {
        let datagram = from_peer([8, 0, 0, 0, 0, 0, 1, 0], 0);
        for (len, told) in [(1450, 1450), (100_000, PAYLOAD_MAX)] {
            let blocks = read_back("10.0.32.12", |file| {
                let packet = CapturedPacket {
                    len,
                    ..arrived("10.0.16.14:40000", &datagram)
                };
                file.packet(&packet, &datagram).unwrap();
            });
            let packet = &packets(&blocks)[0];
            assert_eq!(packet.original_len as usize, 14 + 20 + 8 + told);
            assert_eq!(packet.data[42..], datagram);
            assert_eq!(packet.data[38..40], ((8 + told) as u16).to_be_bytes());
        }
    }

    #[test]
    fn what_was_left_out_is_in_the_statistics() {
        let datagram = from_peer([8, 0, 0, 0, 0, 0, 1, 0], 0);
        let blocks = read_back("10.0.32.12", |file| {
            let packet = arrived("10.0.16.14:40000", &datagram);
            file.packet(&packet, &datagram).unwrap();
        });
        let statistics: Vec<_> = blocks
            .iter()
            .filter_map(|block| match block {
                Block::InterfaceStatistics(statistics) => Some(statistics),
                _ => None,
            })
            .collect();
        assert_eq!(statistics.len(), 2);
        for option in [
            InterfaceStatisticsOption::IsbFilterAccept(9),
            InterfaceStatisticsOption::IsbIfDrop(8),
            InterfaceStatisticsOption::IsbUsrDeliv(1),
        ] {
            let found = &statistics[UNDERLAY as usize].options;
            assert!(found.contains(&option), "{option:?} in {found:?}");
        }
    }
}

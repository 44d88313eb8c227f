//! Others than the kernel agree: tshark and scapy read what our daemon sends, and it understands what scapy writes.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::case::{Case, Direction, Stimulus};
use super::frames::*;
use super::ground::Ground;
use super::pcap::write_pcap;
use super::view::{hex, unhex};
use crate::support::{Result, ensure};

/// The group of our container, by its packets' mark.
const GROUP: u32 = 0x1234;

/// Where Debian's scapy is found if the first `python3` is another.
const PYTHONS: [&str; 2] = ["python3", "/usr/bin/python3"];

/// What keeps tshark from running.
pub(crate) fn tshark_obstacle() -> Option<String> {
    let tried = Command::new("tshark").arg("--version").output();
    tried.err().map(|error| format!("needs tshark: {error}"))
}

/// What keeps scapy from running.
pub(crate) fn scapy_obstacle() -> Option<String> {
    python().err().map(|error| error.to_string())
}

/// What is sent, and the protocols that it is, outermost first.
fn sent() -> Vec<(Inner, &'static str)> {
    const OUTER: [&str; 7] = [
        "eth:ethertype:ip:udp:vxlan:eth:ethertype:ip:udp",
        "eth:ethertype:ip:udp:vxlan:eth:ethertype:ipv6:udp",
        "eth:ethertype:ip:udp:vxlan:eth:ethertype:ip:tcp",
        "eth:ethertype:ip:udp:vxlan:eth:ethertype:ipv6:tcp",
        "eth:ethertype:ip:udp:vxlan:eth:ethertype:ip:icmp",
        "eth:ethertype:ip:udp:vxlan:eth:ethertype:arp",
        "eth:ethertype:ip:udp:vxlan:eth:ethertype:vlan:ethertype:ip:udp",
    ];
    // No port that something else than data is expected at.
    let udp = || Inner::udp4_between(HERE, THERE, [40_000, 40_053], &payload(100));
    let frames = [
        udp(),
        Inner::udp6_between(HERE_V6, THERE_V6, [40_000, 40_053]),
        Inner::tcp4(1000),
        Inner::tcp6(1000),
        Inner::ping4(7),
        Inner::arp(THERE),
        udp().vlan(5),
    ];
    frames.into_iter().zip(OUTER).collect()
}

/// Our packets, with our group.
fn packets(ground: &mut Ground) -> Result<Vec<Vec<u8>>> {
    let mut packets = Vec::new();
    for (frame, protocols) in sent() {
        let case = Case {
            direction: Direction::Transmit,
            setup: ground.setup,
            stimuli: vec![Stimulus {
                mark: GROUP,
                ..Stimulus::of(frame.0)
            }],
        };
        let ours = ground.ours(&case)?.underlay;
        ensure!(ours.len() == 1, "{} packets for {protocols}", ours.len());
        packets.extend(ours);
    }
    Ok(packets)
}

/// Flags, group, VNI, inner layers; nothing malformed, no checksum wrong.
pub(crate) fn tshark_reads_ours(ground: &mut Ground) -> Result {
    let directory = TempDir::new()?;
    let file = directory.path().join("ours.pcap");
    write_pcap(&file, &packets(ground)?)?;
    const FIELDS: [&str; 7] = [
        "frame.protocols",
        "vxlan.flag_i",
        "vxlan.flag_g",
        "vxlan.flag_d",
        "vxlan.flag_a",
        "vxlan.gbp",
        "vxlan.vni",
    ];
    let mut arguments = vec!["-T", "fields", "-E", "separator=|"];
    arguments.extend(FIELDS.iter().flat_map(|field| ["-e", field]));
    let seen = tshark(&file, &arguments)?;
    let lines: Vec<&str> = seen.lines().collect();
    let sent = sent();
    ensure!(
        lines.len() == sent.len(),
        "tshark saw other packets:\n{seen}"
    );
    for (line, (_, protocols)) in lines.iter().zip(sent) {
        let expected = format!("|1|1|0|0|{GROUP}|100");
        ensure!(
            line.starts_with(protocols) && line.ends_with(&expected),
            "tshark read {line}; it is {protocols}{expected}"
        );
    }
    let wrong = "_ws.malformed || ip.checksum.status == 0 || udp.checksum.status == 0 || tcp.checksum.status == 0 || icmp.checksum.status == 0";
    let wrong = tshark(&file, &["-Y", wrong])?;
    ensure!(wrong.is_empty(), "tshark finds wrong:\n{wrong}");
    // What it finds right, so that the look above is one: outer UDP everywhere.
    let right = tshark(&file, &["-Y", "udp.checksum.status == 1"])?;
    ensure!(
        right.lines().count() == lines.len(),
        "tshark finds right only:\n{right}"
    );
    Ok(())
}

fn tshark(file: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("tshark");
    command.arg("-n").arg("-r").arg(file);
    for protocol in ["ip", "udp", "tcp"] {
        command
            .arg("-o")
            .arg(format!("{protocol}.check_checksum:TRUE"));
    }
    run(command.args(arguments))
}

/// Every field, and the same bytes when it builds the packet again with checksums of its own.
pub(crate) fn scapy_reads_ours(ground: &mut Ground) -> Result {
    let directory = TempDir::new()?;
    let file = directory.path().join("ours.pcap");
    let packets = packets(ground)?;
    write_pcap(&file, &packets)?;
    let seen = run(script(include_str!("scapy_read.py"))?.arg(&file))?;
    let seen = lines_of_json(&seen)?;
    ensure!(
        seen.len() == packets.len(),
        "scapy saw {} packets",
        seen.len()
    );
    for ((seen, packet), (frame, protocols)) in seen.iter().zip(&packets).zip(sent()) {
        ensure!(
            seen["flags"] == 0x88 && seen["gpid"] == GROUP && seen["vni"] == 100,
            "scapy read {seen}; it is {protocols}"
        );
        ensure!(
            seen["inner"] == hex(&frame.0),
            "scapy read another frame: {seen}"
        );
        ensure!(
            seen["rebuilt"] == hex(packet),
            "scapy builds {seen}\nof {}",
            hex(packet)
        );
    }
    Ok(())
}

/// Delivered with the inner frame it put in, and the mark its fields mean; or dropped where it says so.
pub(crate) fn ours_reads_scapys(ground: &mut Ground) -> Result {
    let built = lines_of_json(&run(&mut script(include_str!("scapy_write.py"))?)?)?;
    ensure!(built.len() > 10, "scapy built {} packets", built.len());
    for packet in &built {
        let text = |key: &str| {
            packet[key]
                .as_str()
                .ok_or_else(|| format!("no {key} in {packet}"))
        };
        let bytes = unhex(text("packet")?).ok_or("hex of a packet")?;
        let case = Case {
            direction: Direction::Receive,
            setup: ground.setup,
            stimuli: vec![Stimulus::of(bytes)],
        };
        let seen = ground.ours(&case)?.overlay;
        let mut expected: Vec<Vec<u8>> = packet["inner"]
            .as_str()
            .and_then(unhex)
            .into_iter()
            .collect();
        let mut frames: Vec<Vec<u8>> = seen.iter().map(|frame| frame.bytes.clone()).collect();
        for frame in &seen {
            let mark = frame.mark;
            ensure!(packet["mark"] == mark, "{packet} came with mark {mark:x}");
        }
        for frame in frames.iter_mut().chain(&mut expected) {
            // A mark takes the source MAC's place (see DIFFERENCES), and the kernel a tag out before it looks at protocols.
            frame[6..12].fill(0);
            if frame[12..14] == [0x81, 0] {
                frame.drain(12..16);
            }
        }
        ensure!(
            frames == expected,
            "of {packet} came {:?}",
            frames.iter().map(|frame| hex(frame)).collect::<Vec<_>>()
        );
    }
    Ok(())
}

fn lines_of_json(text: &str) -> Result<Vec<Value>> {
    let lines = text.lines();
    Ok(lines
        .map(serde_json::from_str)
        .collect::<std::result::Result<_, _>>()?)
}

/// A Python with scapy.
fn python() -> Result<&'static str> {
    let has_scapy = |python: &&&str| {
        let tried = Command::new(python)
            .args(["-c", "import scapy.all"])
            .output();
        tried.is_ok_and(|output| output.status.success())
    };
    let python = PYTHONS.iter().find(has_scapy);
    Ok(python.copied().ok_or("needs python3 with scapy")?)
}

fn script(text: &str) -> Result<Command> {
    let mut command = Command::new(python()?);
    command.args(["-W", "ignore", "-c", text]);
    Ok(command)
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{:?}: {}\n{stderr}",
        command.get_program(),
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}

//! `capture`: what tshark reads of it, and what a client that stands still or dies costs the others.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;
use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use tempfile::TempDir;

use super::super::Case;
use crate::support::Kind::Silk;
use crate::support::{
    Connection, Lab, Plan, Process, Result, Stats, Wait, ensure, ping, wait_until,
};

const PINGS: u32 = 5;
/// Some 40,000 packets: more than a lane's queue, the socket and the client hold.
const STREAM_BYTES: usize = 60_000_000;

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, plan: Plan, body: fn(&mut Lab) -> Result| {
        Case::new(format!("capture::{name}"), plan.programs(&["tshark"]), body)
    };
    let pair = || Plan::of(&[Silk, Silk]).lanes(2).group(3);
    vec![
        case("tshark_reads_packets_and_verdicts", pair(), |lab| {
            tshark_reads(lab, false)
        }),
        case("tshark_reads_them_over_v6", pair().v6(), |lab| {
            tshark_reads(lab, true)
        }),
        case("drops_go_down_a_pipe", pair(), drops_go_down_a_pipe),
        case(
            "a_signal_ends_it_though_its_pipe_stands_still",
            pair(),
            pipe_stands_still,
        ),
        case("a_super_frame_is_cut_off_and_says_so", pair(), super_frames),
        case(
            "a_client_that_stands_still_misses_packets_and_nobody_else_does",
            pair().without_offloads(),
            client_stands_still,
        ),
        case("a_client_that_dies_is_forgotten", pair(), client_dies),
        case("what_cannot_be_captured_is_told", pair(), bad_usage),
    ]
}

/// One capture of the second cell, running.
pub(super) struct Running {
    directory: TempDir,
    process: Process,
}

impl Running {
    pub(super) fn start(lab: &mut Lab, words: &str) -> Result<Self> {
        let directory = TempDir::new()?;
        let file = directory.path().join("live.pcapng");
        let errors = directory.path().join("stderr");
        let words = format!("capture -w {} {words}", file.display());
        let process = lab.cells[1].daemon()?.start_ctl(&words, &errors)?;
        let running = Self { directory, process };
        // Its head is written once the daemon has said that it captures.
        wait_until("the capture runs", || {
            let len = fs::metadata(running.file()).map_or(0, |file| file.len());
            Ok(Wait::unless(len > 0, || running.stderr()))
        })?;
        Ok(running)
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("live.pcapng")
    }

    pub(super) fn stderr(&self) -> String {
        fs::read_to_string(self.directory.path().join("stderr")).unwrap_or_default()
    }

    pub(super) fn end(&mut self) -> Result {
        self.process.signal(Signal::SIGTERM)?;
        let status = self.process.wait()?;
        ensure!(status.success(), "{status}: {}", self.stderr());
        Ok(())
    }

    /// The fields of each packet, with tabs between.
    pub(super) fn fields(&self, filter: &str, fields: &[&str]) -> Result<Vec<String>> {
        let mut command = Command::new("tshark");
        command
            .arg("-r")
            .arg(self.file())
            .args(["-n", "-T", "fields", "-Y", filter]);
        fields.iter().for_each(|field| {
            command.args(["-e", field]);
        });
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{command:?}: {said}");
        let lines = String::from_utf8(output.stdout)?;
        Ok(lines.lines().map(str::to_owned).collect())
    }

    /// By interface: what was wanted, missed and written, as the file's own statistics say.
    fn statistics(&self) -> Result<Vec<[u64; 3]>> {
        statistics(&fs::read(self.file())?)
    }
}

/// By interface of a capture: what was wanted, missed and written.
pub(super) fn statistics(capture: &[u8]) -> Result<Vec<[u64; 3]>> {
    let mut reader = PcapNgReader::new(capture)?;
    let mut found = Vec::new();
    while let Some(block) = reader.next_block() {
        let Block::InterfaceStatistics(block) = block?.0 else {
            continue;
        };
        let mut counts = [0; 3];
        for option in block.options {
            match option {
                InterfaceStatisticsOption::IsbFilterAccept(wanted) => counts[0] = wanted,
                InterfaceStatisticsOption::IsbIfDrop(missed) => counts[1] = missed,
                InterfaceStatisticsOption::IsbUsrDeliv(written) => counts[2] = written,
                _ => {}
            }
        }
        found.push(counts);
    }
    Ok(found)
}

/// A packet of the second cell's container that has nowhere to go.
fn lose_one(lab: &Lab) -> Result {
    let socket = lab.cells[1].container()?.udp()?;
    socket.send_to(b"lost", ("10.255.200.1", 9))?;
    Ok(())
}

fn dropped(lab: &mut Lab) -> Result<u64> {
    Ok(Stats::read(lab.cells[1].daemon()?)?.dropped("no-route"))
}

fn tshark_reads(lab: &mut Lab, v6: bool) -> Result {
    let address = lab.cells[0].site.container;
    let mut running = Running::start(lab, &format!("--address {address}"))?;
    let mut all = Running::start(lab, "")?;
    let to = lab.cells[1].site.container;
    ping(&lab.cells[0].container()?.namespace, to, PINGS, "")?;
    let before = dropped(lab)?;
    lose_one(lab)?;
    wait_until("the lost one is counted", || {
        let now = dropped(lab)?;
        Ok(Wait::unless(now > before, || now.to_string()))
    })?;
    running.end()?;
    all.end()?;

    let peer = lab.cells[0].site.underlay(v6);
    let fields = [
        "frame.interface_name",
        "icmp.type",
        "vxlan.vni",
        "frame.comment",
    ];
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for line in running.fields("icmp", &fields)? {
        *seen.entry(line).or_default() += 1;
    }
    // The replies' group is the second container's, as the first one's is theirs.
    let expected = BTreeMap::from([
        (
            format!(
                "silk-vtep:underlay\t8\t1\tdeliver direction=ingress vni=1 group=0x0003 d=0 a=0 peer={peer}"
            ),
            PINGS,
        ),
        (
            format!(
                "silk-vtep\t0\t\tencap direction=egress vni=1 group=0x0003 d=0 a=0 peer={peer}"
            ),
            PINGS,
        ),
    ]);
    ensure!(
        seen.keys().eq(expected.keys()) && seen.values().all(|count| *count >= PINGS),
        "{seen:#?}"
    );
    let lost = running.fields("udp.dstport == 9", &["frame.comment"])?;
    ensure!(lost.is_empty(), "it is of another address: {lost:?}");
    let lost = all.fields("udp.dstport == 9", &["frame.comment"])?;
    ensure!(
        lost == ["drop reason=no-route direction=egress: No route covers the destination."],
        "{lost:?}"
    );
    let malformed = all.fields("_ws.malformed", &["frame.number"])?;
    ensure!(malformed.is_empty(), "malformed: {malformed:?}");
    let statistics = all.statistics()?;
    ensure!(
        statistics
            .iter()
            .all(|[wanted, missed, written]| *missed == 0 && wanted == written),
        "{statistics:?}"
    );
    let packets: u64 = statistics.iter().map(|[_, _, written]| written).sum();
    let said = all.stderr();
    ensure!(
        said == format!("silk-vtep: {packets} packets captured\n"),
        "{said}"
    );
    Ok(())
}

fn drops_go_down_a_pipe(lab: &mut Lab) -> Result {
    let directory = TempDir::new()?;
    let output = directory.path().join("stdout");
    let script = "\"$SILK_VTEP\" capture -w - --drops --address 10.255.200.0/24 -c 3 --socket \"$SOCKET\" | tshark -r - -n -T fields -e frame.comment -e ip.dst";
    let mut shell = lab.cells[1].daemon()?.start_shell(script, &output)?;
    let mut ended = None;
    // Until it has seen three of them, whenever it began.
    wait_until("the capture ends by itself", || {
        lose_one(lab)?;
        ping(
            &lab.cells[0].container()?.namespace,
            lab.cells[1].site.container,
            1,
            "",
        )?;
        ended = shell.ended()?;
        Ok(Wait::unless(ended.is_some(), || "it runs".into()))
    })?;
    let said = fs::read_to_string(&output)?;
    let lines: Vec<_> = said.lines().collect();
    let line =
        "drop reason=no-route direction=egress: No route covers the destination.\t10.255.200.1";
    ensure!(lines == [line; 3], "{ended:?}: {said}");
    Ok(())
}

fn pipe_stands_still(lab: &mut Lab) -> Result {
    let directory = TempDir::new()?;
    let pipe = directory.path().join("pipe");
    // Who writes to it holds its other end too, and reads nothing.
    let script = format!(
        "mkfifo {0} && exec 3<>{0} && exec \"$SILK_VTEP\" capture -w - --socket \"$SOCKET\" >&3",
        pipe.display()
    );
    let output = directory.path().join("stdout");
    let mut capture = lab.cells[1].daemon()?.start_shell(&script, &output)?;
    wait_until("there is a pipe", || {
        Ok(Wait::unless(pipe.exists(), || "none".into()))
    })?;
    // The head is written once the daemon has said that it captures.
    fs::File::open(&pipe)?.read_exact(&mut [0; 28])?;
    let (a, b) = (lab.cells[0].container()?, lab.cells[1].container()?);
    // Many times what a pipe holds.
    Connection::open(b, a)?.upload(3_000_000)?;
    capture.signal(Signal::SIGTERM)?;
    let status = capture.wait()?;
    ensure!(status.code() == Some(1), "{status}");
    Ok(())
}

fn super_frames(lab: &mut Lab) -> Result {
    const SNAP: usize = 300;
    let mut running = Running::start(lab, &format!("-s {SNAP}"))?;
    let (a, b) = (lab.cells[0].container()?, lab.cells[1].container()?);
    Connection::open(b, a)?.upload(3_000_000)?;
    running.end()?;
    let fields = ["frame.len", "frame.cap_len"];
    let largest = running.fields(
        "frame.interface_name == \"silk-vtep\" && frame.len > 20000",
        &fields,
    )?;
    ensure!(!largest.is_empty(), "no super-frame");
    ensure!(
        largest
            .iter()
            .all(|line| line.ends_with(&format!("\t{SNAP}"))),
        "{largest:?}"
    );
    let encapsulated = running.fields("frame.comment contains \"drop\"", &["frame.comment"])?;
    ensure!(encapsulated.is_empty(), "{encapsulated:?}");
    Ok(())
}

fn client_stands_still(lab: &mut Lab) -> Result {
    let mut running = Running::start(lab, "")?;
    running.process.signal(Signal::SIGSTOP)?;
    let (a, b) = (lab.cells[0].container()?, lab.cells[1].container()?);
    Connection::open(a, b)?.upload(STREAM_BYTES)?;
    ping(&a.namespace, b.address, 20, "")?;
    // Another one sees all that goes on meanwhile.
    let mut other = Running::start(lab, "")?;
    let (a, b) = (lab.cells[0].container()?, lab.cells[1].container()?);
    ping(&a.namespace, b.address, PINGS, "")?;
    other.end()?;
    let echoes = other.fields("icmp.type == 8", &["frame.comment"])?;
    ensure!(echoes.len() >= PINGS as usize, "{echoes:?}");

    running.process.signal(Signal::SIGCONT)?;
    running.end()?;
    let statistics = running.statistics()?;
    let sum = |index: usize| statistics.iter().map(|counts| counts[index]).sum::<u64>();
    let (wanted, missed, written) = (sum(0), sum(1), sum(2));
    ensure!(
        missed > 0 && wanted == missed + written,
        "wanted {wanted}, missed {missed}, written {written}"
    );
    let said = running.stderr();
    let expected = format!(
        "silk-vtep: {written} packets captured, {missed} left out because they came faster than they were read\n"
    );
    ensure!(said == expected, "{said}");
    let read = running.fields("frame", &["frame.number"])?;
    ensure!(
        read.len() as u64 == written,
        "tshark reads {} packets",
        read.len()
    );
    Ok(())
}

fn client_dies(lab: &mut Lab) -> Result {
    // As many as may run at once.
    let mut running = (0..4)
        .map(|_| Running::start(lab, ""))
        .collect::<Result<Vec<_>>>()?;
    let refused = lab.cells[1].daemon()?.ctl("capture -w -");
    let refused = refused.err().ok_or("a fifth runs")?.to_string();
    ensure!(refused.contains("4 captures run already"), "{refused}");
    for one in &mut running {
        one.process.signal(Signal::SIGKILL)?;
        one.process.wait()?;
    }
    let (a, b) = (lab.cells[0].container()?, lab.cells[1].container()?);
    ping(&a.namespace, b.address, PINGS, "")?;
    let mut next = None;
    wait_until("their places are free", || {
        let started = Running::start(lab, "-c 1");
        let said = started.as_ref().err().map(ToString::to_string);
        next = started.ok();
        Ok(Wait::unless(next.is_some(), || said.unwrap_or_default()))
    })?;
    let next = next.as_mut().ok_or("it runs")?;
    let (a, b) = (lab.cells[0].container()?, lab.cells[1].container()?);
    ping(&a.namespace, b.address, 1, "")?;
    let status = next.process.wait()?;
    ensure!(status.success(), "{status}: {}", next.stderr());
    let read = next.fields("frame", &["frame.number"])?;
    ensure!(read.len() == 1, "{read:?}");
    Ok(())
}

fn bad_usage(lab: &mut Lab) -> Result {
    let daemon = lab.cells[1].daemon()?;
    for (words, status, expected) in [
        ("", 2, "--write <FILE>"),
        ("-w - -c 0", 2, "invalid value '0'"),
        ("-w - --address web", 2, "a prefix such as"),
        ("-w - -j", 2, "it writes packets, no JSON"),
        (
            "-w /nowhere/live.pcapng",
            1,
            "write capture /nowhere/live.pcapng: ENOENT",
        ),
    ] {
        daemon.refuses(&format!("capture {words}"), status, expected)?;
    }
    Ok(())
}

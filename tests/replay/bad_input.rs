//! Captures, files and words that are no good: what is said, what is left behind, and the exit status.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Stdio;

use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proptest::prelude::*;
use serde_json::json;

use crate::bench::{A, Bench, Run};
use crate::captures::*;
use crate::packets::*;

const UNDERLAY: &str = "--from-underlay";

/// Replays a capture that is refused before its first packet; nothing is written.
fn refused(capture: &[u8]) -> Run {
    let (run, bench) = failed(capture);
    assert_eq!(bench.files(), ["in.pcap"], "nothing is left behind");
    run
}

/// Replays a damaged capture; the lines before the damage are printed, and what was delivered until then is written.
fn damaged(capture: &[u8]) -> Run {
    let (run, bench) = failed(capture);
    assert_eq!(bench.files(), ["in.pcap", "out.pcap"]);
    let delivered = |line: &&serde_json::Value| line["verdict"] == "deliver";
    assert_eq!(
        read_pcap(&bench.read("out.pcap")).len(),
        run.json().iter().filter(delivered).count()
    );
    assert!(
        run.stderr()
            .ends_with("; out.pcap is written up to there)\n"),
        "{}",
        run.stderr()
    );
    run
}

fn failed(capture: &[u8]) -> (Run, Bench) {
    let bench = Bench::new(A, "");
    bench.put("in.pcap", capture);
    let run = bench.run(&[UNDERLAY, "in.pcap", "-w", "out.pcap", "--json"]);
    assert_eq!(run.code(), Some(1), "{}", run.stderr());
    (run, bench)
}

#[track_caller]
fn assert_told(run: &Run, what: &str) {
    assert_eq!(
        run.stderr(),
        format!("silk-vtep: read capture in.pcap: {what}\n")
    );
}

#[test]
fn what_is_no_capture_is_told_as_what_it_is() {
    for (bytes, what) in [
        (&b""[..], "it is empty (give a pcap or pcapng file)"),
        (
            b"abc",
            "it is no capture: less than four bytes (give a pcap or pcapng file)",
        ),
        (
            b"[vtep]\n",
            "it is no capture: it begins with 5b 76 74 65 (give a pcap or pcapng file)",
        ),
        (
            &[0x1f, 0x8b, 8, 0],
            "it is compressed (gzip): it begins with 1f 8b 08 00 (unpack it first: gunzip)",
        ),
        (&pcap_header(1)[..20], "the file ends inside its header"),
        (&section()[..20], "the file ends inside its header"),
    ] {
        let run = refused(bytes);
        assert_told(&run, what);
        assert_eq!(run.stdout(), "");
    }
}

#[test]
fn a_foreign_link_type_is_named() {
    let run = refused(&pcap_of(105, &[honest()]));
    assert!(
        run.stderr()
            .contains("link type IEEE802_11 (105) (Ethernet (1) from the overlay; "),
        "{}",
        run.stderr()
    );
    let bench = Bench::new(A, "");
    bench.put("in.pcap", &pcap_of(101, &[honest()[IP..].to_vec()]));
    let run = bench.run(&["--from-overlay", "in.pcap"]);
    assert_eq!(run.code(), Some(1));
    assert!(
        run.stderr().contains("link type RAW (101)"),
        "{}",
        run.stderr()
    );
}

#[test]
fn a_capture_cut_off_is_reported_up_to_there() {
    let whole = pcap(&[honest(), honest(), honest()]);
    let second = 24 + 2 * (16 + honest().len());
    for cut in [second + 1, second + 16, whole.len() - 1] {
        let run = damaged(&whole[..cut]);
        assert_eq!(run.json().len(), 2);
        let what = format!(
            "packet 3 at byte {second}: the file ends inside it (2 before it were replayed; out.pcap is written up to there)"
        );
        assert_told(&run, &what);
    }
}

#[test]
fn a_length_that_cannot_be_is_damage() {
    let mut capture = pcap(&[honest(), honest()]);
    let second = 24 + 16 + honest().len();
    capture[second + 8..second + 12].copy_from_slice(&[0xff, 0xff, 0xff, 0x7f]);
    let run = damaged(&capture);
    assert_eq!(run.json().len(), 1);
    let what = format!(
        "packet 2 at byte {second}: it claims 2147483647 bytes (1 before it were replayed; out.pcap is written up to there)"
    );
    assert_told(&run, &what);
}

#[test]
fn fragments_before_the_damage_have_their_lines_too() {
    let pieces = fragments(&honest(), 40);
    let capture = pcap(&[pieces[0].clone(), honest(), honest()]);
    let run = damaged(&capture[..capture.len() - 1]);
    let incomplete = json!({"n": 1, "verdict": "drop", "reason": "host-fragment-incomplete"});
    assert_eq!(run.json()[0], incomplete);
    assert_eq!(run.json().len(), 2);
}

#[test]
fn a_snapped_packet_is_told_from_a_lying_one() {
    let bench = Bench::new(A, "");
    let frame = honest();
    let cut = &frame[..60];
    let records = [pcap_record(0, frame.len(), cut), pcap_record(1, 60, cut)].concat();
    let seen = bench.verdicts(UNDERLAY, &[pcap_header(1), records].concat());
    assert_eq!(seen[0]["reason"], "host-truncated-capture");
    assert_eq!(seen[1]["reason"], "host-ip-length");
}

#[test]
fn pcapng_with_several_interfaces_is_judged_packet_by_packet() {
    let bench = Bench::new(A, "");
    let packet = honest();
    let capture = [
        section(),
        interface(1),
        interface(105),
        enhanced(0, 1, &packet),
        enhanced(1, 2, &packet),
        block(0x0bad, &[0; 8]),
        interface(101),
        enhanced(2, 3, &packet[IP..]),
        simple(&packet),
        // A new section begins with interfaces of its own.
        section(),
        interface(228),
        enhanced(0, 4, &packet[IP..]),
    ]
    .concat();
    let seen = bench.verdicts(UNDERLAY, &capture);
    let verdicts: Vec<_> = seen
        .iter()
        .map(|line| line["verdict"].as_str().expect("a word"))
        .collect();
    assert_eq!(
        verdicts,
        ["deliver", "drop", "deliver", "deliver", "deliver"]
    );
    assert_eq!(seen[1]["reason"], "host-foreign-link");
    let times: Vec<_> = read_pcap(&bench.read("out.pcap"))
        .iter()
        .map(|&(s, n, _)| (s, n))
        .collect();
    assert_eq!(times, [(1000, 1), (1000, 3), (0, 0), (1000, 4)]);
}

#[test]
fn pcapng_damage_is_told_and_foreign_alone_too() {
    let packet = enhanced(0, 1, &honest());
    let good = [section(), interface(1), packet.clone()].concat();
    for (capture, what) in [
        (
            [&good[..], &packet[..packet.len() - 1]].concat(),
            "the file ends inside it",
        ),
        ([&good[..], &enhanced(3, 1, &honest())].concat(), "nterface"),
        (
            [&good[..], &[0, 0, 0, 6, 0, 0, 0, 13], &[0; 20]].concat(),
            "13",
        ),
        (
            [&good[..], &[0, 0, 0, 6, 0x7f, 0xff, 0xff, 0xfc], &[0; 20]].concat(),
            "it claims 2147483",
        ),
    ] {
        let run = damaged(&capture);
        assert_eq!(run.json().len(), 1);
        let stderr = run.stderr();
        assert!(
            stderr.contains("packet 2 at byte ") && stderr.contains(what),
            "{what}: {stderr}"
        );
    }
    let run = damaged(&[section(), interface(105), packet].concat());
    assert!(
        run.stderr()
            .contains("none of its packets is of a link type that can be read"),
        "{}",
        run.stderr()
    );
}

#[test]
fn both_byte_orders_and_both_resolutions_are_read() {
    let bench = Bench::new(A, "");
    let packet = honest();
    for (nanos, magic) in [(false, 0xa1b2_c3d4_u32), (true, 0xa1b2_3c4d)] {
        let mut capture = magic.to_be_bytes().to_vec();
        capture.extend([0, 2, 0, 4]);
        let len = packet.len() as u32;
        for word in [0, 0, 65_535, 1, 1000, 5, len, len] {
            capture.extend(u32::to_be_bytes(word));
        }
        capture.extend(&packet);
        bench.verdicts(UNDERLAY, &capture);
        let (seconds, fraction, _) = read_pcap(&bench.read("out.pcap"))[0];
        assert_eq!((seconds, fraction), (1000, if nanos { 5 } else { 5000 }));
    }
}

#[test]
fn an_empty_but_honest_capture_is_no_error() {
    let bench = Bench::new(A, "");
    assert!(bench.verdicts(UNDERLAY, &pcap(&[])).is_empty());
    assert!(read_pcap(&bench.read("out.pcap")).is_empty());
    bench.put("in.pcap", &pcap(&[]));
    let text = bench.run(&[UNDERLAY, "in.pcap"]).stdout();
    assert_eq!(text, "\npackets, total  0\n");
}

#[test]
fn wrong_usage_exits_with_two() {
    let bench = Bench::new(A, "");
    bench.put("in.pcap", &pcap(&[honest()]));
    for words in [
        &["in.pcap"][..],
        &["--from-overlay", "--from-underlay", "in.pcap"],
        &["--from-underlay"],
        &["--from-underlay", "in.pcap", "more"],
        &["--from-underlay", "in.pcap", "-w", "-"],
        &["--from-underlay", "in.pcap", "--name", "vtep7"],
        &["--from-underlay", "in.pcap", "--socket", "/tmp/x"],
    ] {
        assert_eq!(bench.run(words).code(), Some(2), "{words:?}");
    }
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let bench = Bench::new(A, "");
    bench.put("in.pcap", &pcap(&[honest()]));
    for (words, what) in [
        (
            &[UNDERLAY, "none.pcap"][..],
            "read capture none.pcap: ENOENT (give a file",
        ),
        (&[UNDERLAY, "."], "read capture .: EISDIR (give a file"),
        (
            &[UNDERLAY, "in.pcap", "-w", "none/out.pcap"],
            "write capture none/out.pcap: ENOENT (give a file in",
        ),
        (&[UNDERLAY, "in.pcap", "-w", "."], "EISDIR"),
        (
            &[UNDERLAY, "in.pcap", "-w", "/dev/full"],
            "write capture /dev/full: ENOSPC",
        ),
    ] {
        let run = bench.run(words);
        assert_eq!(run.code(), Some(1), "{words:?}");
        assert!(run.stderr().contains(what), "{what}: {}", run.stderr());
    }
    let broken = Bench::new("[vtep]\nlocl = 1\n", "");
    broken.put("in.pcap", &pcap(&[]));
    let run = broken.run(&[UNDERLAY, "in.pcap"]);
    assert_eq!(run.code(), Some(1));
    assert!(
        run.stderr().contains("is not usable") && run.stderr().contains("locl"),
        "{}",
        run.stderr()
    );
}

#[test]
fn without_an_output_damage_is_told_without_one() {
    let bench = Bench::new(A, "");
    let whole = pcap(&[honest(), honest()]);
    bench.put("in.pcap", &whole[..whole.len() - 1]);
    let run = bench.run(&[UNDERLAY, "in.pcap"]);
    assert!(
        run.stderr().ends_with(" (1 before it were replayed)\n"),
        "{}",
        run.stderr()
    );
}

#[test]
fn an_output_that_was_there_keeps_its_mode_and_its_links() {
    let bench = Bench::new(A, "");
    let path = bench.put("out.pcap", &[7; 10_000]);
    fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("it is ours");
    fs::hard_link(&path, bench.path("link.pcap")).expect("linked");
    bench.put("in.pcap", &pcap(&[honest(), honest()]));
    bench.run(&[UNDERLAY, "in.pcap", "-w", "out.pcap"]).ok();
    assert_eq!(read_pcap(&bench.read("link.pcap")).len(), 2);
    let mode = fs::metadata(&path).expect("there").mode();
    assert_eq!(mode & 0o7777, 0o640);
    assert_eq!(bench.files(), ["in.pcap", "link.pcap", "out.pcap"]);
}

#[test]
fn the_input_is_never_written() {
    let bench = Bench::new(A, "");
    let capture = pcap(&[honest()]);
    let path = bench.put("in.pcap", &capture);
    fs::hard_link(&path, bench.path("link.pcap")).expect("linked");
    symlink(&path, bench.path("symlink.pcap")).expect("linked");
    for output in ["in.pcap", "./in.pcap", "link.pcap", "symlink.pcap"] {
        for input in ["in.pcap", "-"] {
            let mut command = bench.command();
            command.args([UNDERLAY, input, "-w", output]);
            let run = command.stdin(File::open(&path).expect("it is there"));
            let run = Run(run.output().expect("it runs"));
            assert_eq!(run.code(), Some(1));
            assert!(run.stderr().contains("it is the input"), "{}", run.stderr());
            assert_eq!(bench.read("in.pcap"), capture);
        }
    }
}

#[test]
fn interrupted_it_ends_with_what_was_judged_until_then() {
    let bench = Bench::new(A, "");
    let mut command = bench.command();
    command.args([UNDERLAY, "-", "-w", "out.pcap", "--json"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
    // More lines than are printed at once, so that some come; then a packet that ends nowhere.
    let mut capture = pcap(&vec![honest(); 1000]);
    capture.extend(&pcap_record(0, 100, &honest())[..20]);
    let mut input = child.stdin.take().expect("piped");
    input.write_all(&capture).expect("it reads");
    let mut first = [0];
    let lines = child.stdout.as_mut().expect("piped");
    lines.read_exact(&mut first).expect("it prints");
    let pid = Pid::from_raw(child.id().cast_signed());
    kill(pid, Signal::SIGINT).expect("it runs");
    let mut output = child.wait_with_output().expect("it ends");
    output.stdout.insert(0, first[0]);
    let run = Run(output);
    assert_eq!(run.code(), Some(1));
    let judged = run.json().len();
    assert_eq!(read_pcap(&bench.read("out.pcap")).len(), judged);
    assert_eq!(
        run.stderr(),
        format!(
            "silk-vtep: read capture -: interrupted ({judged} packets were replayed; out.pcap is written up to there)\n"
        )
    );
}

#[test]
fn how_far_it_is_a_terminal_is_told_and_nobody_else() {
    let bench = Bench::new(A, "");
    bench.put("in.pcap", &pcap(&vec![honest(); 5000]));
    let terminal = openpty(None, None).expect("a terminal");
    let mut command = bench.command();
    command.args([UNDERLAY, "in.pcap"]).stdout(Stdio::null());
    command.stderr(terminal.slave);
    assert!(command.status().expect("it runs").success());
    // Our copy of the terminal's other end: without it reading ends (EIO).
    drop(command);
    let mut told = Vec::new();
    let _ = File::from(terminal.master).read_to_end(&mut told);
    let told = String::from_utf8(told).expect("UTF-8");
    assert!(told.contains(" %  4096 packets  about "), "{told:?}");
    assert!(told.ends_with("\r\x1b[K"), "{told:?}");

    let elsewhere = bench.run(&[UNDERLAY, "in.pcap"]);
    elsewhere.ok();
    assert_eq!(elsewhere.stderr(), "");
}

#[test]
fn help_lists_no_option_that_replay_refuses() {
    let help = Bench::new(A, "").run(&["--help"]).stdout();
    assert!(help.contains("--write"), "{help}");
    assert!(
        !help.contains("--socket") && !help.contains("--name"),
        "{help}"
    );
}

#[test]
fn standard_input_is_read_as_a_dash() {
    let bench = Bench::new(A, "");
    let mut command = bench.command();
    command
        .args([UNDERLAY, "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(&pcap(&[honest()])).expect("it reads");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success());
    assert!(
        output
            .stdout
            .starts_with(b"{\"n\":1,\"verdict\":\"deliver\"")
    );
}

#[test]
fn nobody_reading_is_no_error_and_the_output_is_whole() {
    let bench = Bench::new(A, "");
    let packets = vec![honest(); 5000];
    bench.put("in.pcap", &pcap(&packets));
    for written in [false, true] {
        let mut command = bench.command();
        command.args([UNDERLAY, "in.pcap"]);
        if written {
            command.args(["-w", "out.pcap"]);
        }
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success());
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert_eq!(bench.exists("out.pcap"), written);
    }
    assert_eq!(read_pcap(&bench.read("out.pcap")).len(), packets.len());
}

#[test]
fn fragments_never_completed_do_not_hold_lines_back_for_ever() {
    let bench = Bench::new(A, "");
    let first = fragments(&honest(), 40).remove(0);
    let mut packets = vec![honest(); 20_000];
    packets.insert(0, first);
    let seen = bench.verdicts(UNDERLAY, &pcap(&packets));
    assert_eq!(seen.len(), packets.len());
    assert_eq!(seen[0]["reason"], "host-fragment-incomplete");
    let numbers = seen
        .iter()
        .map(|line| line["n"].as_u64().expect("a number"));
    assert!(numbers.eq(1..=packets.len() as u64));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is damaged, it ends by itself, with 0 or 1, and with a line for every packet it counts.
    #[test]
    fn damaged_captures_end_in_a_line_of_error(ng: bool, changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), cut: Option<prop::sample::Index>) {
        let mut capture = if ng {
            [section(), interface(1), enhanced(0, 1, &honest()), simple(&honest()), interface(101), enhanced(1, 1, &honest()[IP..])].concat()
        } else {
            pcap(&[honest(), fragments(&honest(), 40).remove(0), honest()])
        };
        for (at, value) in changes {
            let at = at.index(capture.len());
            capture[at] = value;
        }
        if let Some(cut) = cut {
            capture.truncate(cut.index(capture.len()));
        }
        let bench = Bench::new(A, "");
        bench.put("in.pcap", &capture);
        let run = bench.run(&[UNDERLAY, "in.pcap", "-w", "out.pcap", "--json"]);
        let numbers: Vec<_> = run.json().iter().map(|line| line["n"].as_u64().expect("a number")).collect();
        prop_assert!(numbers.iter().copied().eq(1..=numbers.len() as u64));
        match run.code() {
            Some(0) => prop_assert_eq!(run.stderr(), ""),
            Some(1) => {
                prop_assert_eq!(run.stderr().lines().count(), 1, "{}", run.stderr());
                let told = run.stderr().contains("out.pcap is written up to there");
                prop_assert_eq!(bench.exists("out.pcap"), told);
                if told {
                    read_pcap(&bench.read("out.pcap"));
                }
            }
            other => prop_assert!(false, "{:?}: {}", other, run.stderr()),
        }
    }
}

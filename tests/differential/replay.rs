//! `silk-vtep replay` on the tables' lines, without root: its verdicts are those of [`verdict`](super::verdict).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::case::Direction;
use super::frames::{OTHER_PEER_MAC, PEER_MAC};
use super::host::underlay_address;
use super::pcap::write_pcap;
use super::row::Row;
use super::setup::Setup;
use super::unplayable::{self, UNPLAYABLE, Unplayable};
use super::verdict;
use crate::support::{Result, ensure, mac_text};

/// The binary under test.
const SILK_VTEP: &str = env!("CARGO_BIN_EXE_silk-vtep");

/// One line for each row that replay can play, as in `verdicts.txt`, against that file. Prints how many were left out, and why.
///
/// # Errors
/// The lines that differ.
pub(crate) fn verdicts_are_the_expected(rows: Vec<Row>) -> Result {
    let directory = TempDir::new()?;
    let mut left_out = [0; UNPLAYABLE.len()];
    let mut captures: BTreeMap<(&str, &str), Vec<Row>> = BTreeMap::new();
    for row in rows {
        if let Some(kind) = unplayable::of(&row.case) {
            left_out[kind] += 1;
        } else {
            let key = (row.case.setup.name, row.case.direction.name());
            captures.entry(key).or_default().push(row);
        }
    }
    let mut seen = BTreeMap::new();
    for rows in captures.values() {
        for (row, verdicts) in rows.iter().zip(played(directory.path(), rows)?) {
            let twice = seen.insert(row.name.as_str(), verdicts);
            ensure!(twice.is_none(), "two rows are named {}", row.name);
        }
    }
    let all: usize = left_out.iter().sum();
    println!("replay: {} rows judged, {all} left out", seen.len());
    for (Unplayable { name, reason, .. }, count) in UNPLAYABLE.iter().zip(left_out) {
        println!("  {name}, {count} rows: {reason}");
        ensure!(count > 0, "no row is left out as {name}");
    }
    compare(&seen)
}

/// Replay's verdicts of rows of one setup and direction, row by row.
fn played(directory: &Path, rows: &[Row]) -> Result<Vec<String>> {
    let Some(Row { case, .. }) = rows.first() else {
        return Ok(Vec::new());
    };
    let (config, capture) = (directory.join("config.toml"), directory.join("in.pcap"));
    fs::write(&config, configuration(case.setup))?;
    let stimuli = rows.iter().flat_map(|row| &row.case.stimuli);
    let packets: Vec<Vec<u8>> = stimuli.map(|stimulus| stimulus.bytes.clone()).collect();
    write_pcap(&capture, &packets)?;
    let from = match case.direction {
        Direction::Transmit => "--from-overlay",
        Direction::Receive => "--from-underlay",
    };
    let output = Command::new(SILK_VTEP)
        .arg("replay")
        .arg("--config")
        .arg(&config)
        .args([from, "--json"])
        .arg(&capture)
        .output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && errors.is_empty(),
        "replay of {}: {}\n{errors}",
        case.setup.name,
        output.status
    );
    let text = String::from_utf8(output.stdout)?;
    let mut lines = text.lines().enumerate().map(|(i, line)| told(i + 1, line));
    let each = rows.iter().map(|row| {
        let lines: Result<Vec<String>> = lines.by_ref().take(row.case.stimuli.len()).collect();
        Ok(lines?.join(", "))
    });
    let verdicts = each.collect::<Result<Vec<_>>>()?;
    let lines = text.lines().count();
    ensure!(
        lines == packets.len(),
        "{lines} lines for {} packets",
        packets.len()
    );
    Ok(verdicts)
}

/// The verdict of packet `n`, with its reason.
fn told(n: usize, line: &str) -> Result<String> {
    let line: Value = serde_json::from_str(line)?;
    ensure!(line["n"] == n, "packet {n} has the line {line}");
    let verdict = line["verdict"].as_str().ok_or("a verdict")?;
    Ok(match line["reason"].as_str() {
        Some(reason) => format!("{verdict} {reason}"),
        None => verdict.to_owned(),
    })
}

/// The setup's, with its two peers in the file: replay asks no daemon, where the trials put FDB entries in. A neighbour is a peer's
/// first address.
fn configuration(setup: &Setup) -> String {
    let first = if setup.neighbors {
        "10.255.43.6/32"
    } else {
        "10.255.43.0/24"
    };
    let peers = [(first, 2, PEER_MAC), ("10.255.77.0/24", 3, OTHER_PEER_MAC)];
    let peers = peers.map(|(subnet, host, mac)| {
        let underlay = underlay_address(setup, host);
        let mac = mac_text(mac);
        format!("[[peer]]\nsubnet = \"{subnet}\"\nunderlay = \"{underlay}\"\nmac = \"{mac}\"\n")
    });
    setup.config() + &peers.concat()
}

/// How many differences are told.
const TOLD: usize = 20;

fn compare(seen: &BTreeMap<&str, String>) -> Result {
    let expected = verdict::expected();
    let mut wrong = Vec::new();
    for (name, verdicts) in seen {
        match expected.get(name) {
            Some(expected) if expected == verdicts => {}
            Some(expected) => wrong.push(format!("{name}: {verdicts}, expected {expected}")),
            None => wrong.push(format!("{name}: {verdicts}, but it has no line")),
        }
    }
    let gone = expected.keys().filter(|name| !seen.contains_key(*name));
    wrong.extend(gone.map(|name| format!("{name}: a line without a row")));
    if wrong.is_empty() {
        return Ok(());
    }
    let lines = seen
        .iter()
        .map(|(name, verdicts)| format!("{name} {verdicts}\n"));
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("verdicts.txt");
    let written = fs::write(&path, lines.collect::<String>());
    let place = written.map_or_else(|error| error.to_string(), |()| path.display().to_string());
    let shown = wrong.len().min(TOLD);
    Err(format!(
        "{} verdicts differ\n{}\n  what replay says of all: {place}",
        wrong.len(),
        wrong[..shown].join("\n")
    )
    .into())
}

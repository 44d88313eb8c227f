//! `doctor`: says what is so, and leaves nothing behind.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use serde_json::Value;
use tempfile::TempDir;

use super::super::Case;
use super::offload::features;
use crate::support::Kind::{Kernel, Silk};
use crate::support::{Daemon, Lab, Namespace, Plan, Result, Snapshot, ensure};

const SILK_VTEP: &str = env!("CARGO_BIN_EXE_silk-vtep");

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, plan, body: fn(&mut Lab) -> Result| {
        Case::new(format!("doctor::{name}"), plan, body)
    };
    vec![
        case(
            "a_host_that_can_is_told_so_and_left_as_it_was",
            Plan::of(&[Silk]).cold(),
            able_host_is_left_alone,
        ),
        case(
            "beside_a_daemon_it_says_what_the_daemon_shows",
            Plan::of(&[Silk]),
            agrees_with_a_daemon,
        ),
        case(
            "a_nobody_is_told_what_is_missing",
            Plan::of(&[Silk]).cold(),
            nobody_is_told,
        ),
        case(
            "a_kernel_device_in_the_way_is_named",
            Plan::of(&[Kernel]),
            kernel_device_is_named,
        ),
        case(
            "the_express_path_is_told_of_to_who_asks_and_its_mend_mends",
            Plan::of(&[Silk])
                .cold()
                .marks("bpf")
                .vtep_lines("express = true"),
            express_is_mended,
        ),
    ]
}

fn able_host_is_left_alone(lab: &mut Lab) -> Result {
    let host = &lab.cells[0].host;
    let before = Snapshot::of(host)?;
    let output = doctor(host, &[], SILK_VTEP, "")?;
    before.same_as(&Snapshot::of(host)?)?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{}:\n{said}", output.status);
    for name in ["cap-net-admin", "tap", "marks", "udp-port", "udp-gso"] {
        let is_ok =
            |line: &str| line.starts_with("ok ") && line.split_whitespace().nth(1) == Some(name);
        ensure!(said.lines().any(is_ok), "{name} is not ok:\n{said}");
    }
    Ok(())
}

fn agrees_with_a_daemon(lab: &mut Lab) -> Result {
    let host = lab.cells[0].host.clone();
    let daemon = lab.cells[0].daemon()?;
    let before = Snapshot::of(&host)?;
    let checks = json(&doctor(&host, &[], SILK_VTEP, "-j")?)?;
    before.same_as(&Snapshot::of(&host)?)?;
    let shown = features(daemon)?;
    for offload in ["tso", "uso", "tap-coalescing", "udp-gso", "udp-gro"] {
        let doctors = state(&checks, offload);
        ensure!(
            (doctors == "ok") == (shown[offload] == "on"),
            "{offload}: {doctors} says doctor, {} the daemon",
            shown[offload]
        );
    }
    for taken in ["name", "udp-port"] {
        ensure!(state(&checks, taken) == "ok", "{taken}: {checks}");
    }
    Ok(())
}

fn nobody_is_told(lab: &mut Lab) -> Result {
    // Where our own program is, others may not be let in.
    let directory = TempDir::new()?;
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
    let program = directory.path().join("silk-vtep");
    fs::copy(SILK_VTEP, &program)?;
    let program = program
        .to_str()
        .ok_or("a temporary directory has a plain name")?;
    let nobody = [
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
    ];
    let host = &lab.cells[0].host;
    let output = doctor(host, &nobody, program, "--json")?;
    ensure!(output.status.code() == Some(1), "{}", output.status);
    let verdict = String::from_utf8_lossy(&output.stderr);
    ensure!(
        verdict.contains("cannot run here") && verdict.lines().count() == 1,
        "on standard error: {verdict:?}"
    );
    let checks = json(&output)?;
    ensure!(state(&checks, "cap-net-admin") == "missing", "{checks}");
    for check in checks.as_array().ok_or("a list")? {
        let is_mendable = check["state"] != "missing" || check["mend"] != "";
        ensure!(is_mendable, "no mend: {check}");
    }
    Ok(())
}

fn kernel_device_is_named(lab: &mut Lab) -> Result {
    let output = doctor(&lab.cells[0].host, &[], SILK_VTEP, "")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.code() == Some(1),
        "{}:\n{said}",
        output.status
    );
    for (name, word) in [("name", "vxlan"), ("udp-port", "ip link del silk-vtep")] {
        let line = said
            .lines()
            .find(|line| line.split_whitespace().nth(1) == Some(name));
        let line = line.unwrap_or_default();
        ensure!(
            line.starts_with("missing ") && line.contains(word),
            "{said}"
        );
    }
    Ok(())
}

fn express_is_mended(lab: &mut Lab) -> Result {
    let host = lab.cells[0].host.clone();
    let daemon = lab.cells[0].daemon()?;
    let directory = TempDir::new()?;
    let file = directory.path().join("config.toml");
    fs::write(&file, daemon.config()?)?;
    let asked = format!("doctor -j --config {}", file.display());
    let before = Snapshot::of(&host)?;
    let unasked: Value = serde_json::from_str(&daemon.ctl("doctor -j")?)?;
    ensure!(state(&unasked, "express") == "not listed", "{unasked}");
    express_is(daemon, &asked, "ok", "over eth0", "")?;
    before.same_as(&Snapshot::of(&host)?)?;

    let switch = |to| format!("ethtool -K eth0 tx-udp_tnl-segmentation {to}");
    let (off, on) = (switch("off"), switch("on"));
    host.exec(&off)?;
    express_is(daemon, &asked, "off", "of eth0 is off", &on)?;
    host.exec(&on)?;
    express_is(daemon, &asked, "ok", "over eth0", "")?;

    daemon.start()?;
    let said = "over eth0; the daemon that runs says on";
    express_is(daemon, &asked, "ok", said, "")?;
    express_is(
        daemon,
        "doctor -j",
        "ok",
        "; the daemon that runs says on",
        "",
    )?;

    fs::write(&file, format!("{}df = \"set\"\n", head(&daemon.config()?)))?;
    let mend = "set df = \"unset\", or express = false";
    express_is(daemon, &asked, "off", "df = \"unset\"", mend)
}

/// The line `express` of the doctor who was asked so.
fn express_is(daemon: &Daemon, asked: &str, state: &str, detail: &str, mend: &str) -> Result {
    let checks: Value = serde_json::from_str(&daemon.ctl(asked)?)?;
    let mut lines = checks.as_array().into_iter().flatten();
    let line = lines.find(|check| check["name"] == "express");
    let line = line.ok_or_else(|| format!("not listed: {checks}"))?;
    ensure!(line["state"] == state && line["mend"] == mend, "{line}");
    let told = line["detail"].as_str().unwrap_or_default();
    ensure!(told.contains(detail), "{line}");
    Ok(())
}

/// `[vtep]` of a configuration, which stands first.
fn head(config: &str) -> &str {
    config
        .match_indices("\n[")
        .next()
        .map_or(config, |(end, _)| &config[..=end])
}

fn doctor(host: &Namespace, prefix: &[&str], program: &str, option: &str) -> Result<Output> {
    let words = prefix.iter().copied().chain([program, "doctor"]);
    let mut words = words.chain(option.split_whitespace());
    let mut command = host.command(words.next().ok_or("a program")?);
    Ok(command.args(words).output()?)
}

fn json(output: &Output) -> Result<Value> {
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn state<'a>(checks: &'a Value, name: &str) -> &'a str {
    let checks = checks.as_array().into_iter().flatten();
    let mut checks = checks.filter(|check| check["name"] == name);
    checks
        .next()
        .and_then(|check| check["state"].as_str())
        .unwrap_or("not listed")
}

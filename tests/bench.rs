//! `silk-vtep bench` as its users run it, the shortest there is: what it prints, and what it leaves behind, also when it is interrupted.
//!
//! They need root and /dev/net/tun. Where those are missing they are reported as ignored, with the reason;
//! `SILK_VTEP_REQUIRE_NETNS=1` makes that a failure. No figure is compared with anything: what a busy machine measures is
//! nobody's fault.

mod bench {
    pub(crate) mod report;
    pub(crate) mod run;
}

use std::fs::File;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Trial};
use nix::sys::signal::Signal;

use bench::report::Report;
use bench::run::{self, Run};

/// Anything a test can fail with; its text is what a person reads.
type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T = ()> = std::result::Result<T, Error>;

/// Fails the test with a formatted message unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        let holds: bool = $condition;
        if !holds {
            return Err(format!($($message)+).into());
        }
    };
}
use ensure;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let obstacle = obstacle();
    let trials = vec![
        trial("tcp_is_measured_and_told", &obstacle, tcp),
        trial("udp_is_measured_and_told", &obstacle, udp),
        trial("round_trips_are_measured_and_told", &obstacle, round_trips),
        trial("the_cni_plugin_is_measured_and_told", &obstacle, cni),
        trial(
            "sigint_ends_the_cni_plugins_and_nothing_stays",
            &obstacle,
            cni_interrupted,
        ),
        trial("sigint_ends_it_and_nothing_stays", &obstacle, || {
            interrupted(Signal::SIGINT)
        }),
        trial("sigterm_ends_it_and_nothing_stays", &obstacle, || {
            interrupted(Signal::SIGTERM)
        }),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The trial that runs `body` with a /run of its own, or says what stands in its way.
fn trial(name: &str, obstacle: &Option<String>, body: fn() -> Result) -> Trial {
    let obstacle = obstacle.clone();
    Trial::ignorable_test(name, move || match obstacle {
        None => {
            run::with_own_run_directory(body).map_err(|error| error.to_string())?;
            Ok(Completion::Completed)
        }
        Some(obstacle) if is_required() => Err(obstacle.into()),
        Some(obstacle) => Ok(Completion::ignored_with(obstacle)),
    })
}

/// What keeps this machine from running them.
fn obstacle() -> Option<String> {
    let tried = File::open("/dev/net/tun")
        .map_err(|error| format!("/dev/net/tun: {error}").into())
        .and_then(|_| run::with_own_run_directory(|| Ok(())));
    let error: Error = tried.err()?;
    Some(format!("needs root and /dev/net/tun: {error}"))
}

fn is_required() -> bool {
    std::env::var_os("SILK_VTEP_REQUIRE_NETNS").is_some_and(|value| value == "1")
}

fn tcp() -> Result {
    let page = tempfile::NamedTempFile::new()?;
    let path = page.path().to_str().ok_or("a path that is text")?;
    let options = format!("--only tcp --set lanes=1 --set express=true --html {path}");
    let report = Report::of(&options)?;
    report.check_heading("tcp")?;
    let set = &report.json["set"];
    ensure!(set["lanes"] == 1 && set["express"] == true, "{set}");
    let note = "express = true: on wire super the kernel forwarded ";
    let notes = &report.json["notes"];
    ensure!(notes.to_string().contains(note), "{notes}");
    let mut rows = report.rows()?;
    for streams in [1, 4] {
        for way in ["out", "back"] {
            rows.check_positive(&format!("tcp-{streams}-{way}-rate"), "Gbit/s")?;
            rows.check_positive(&format!("tcp-{streams}-{way}-cpu"), "CPU s/Gbit")?;
        }
    }
    rows.check_no_more()?;
    let page = std::fs::read_to_string(page.path())?;
    ensure!(
        page.contains("<svg") && page.ends_with("</html>\n"),
        "no whole page: {page}"
    );
    for told in ["lanes = 1, express = true", note] {
        ensure!(page.contains(told), "{told}: not told");
    }
    Ok(())
}

fn udp() -> Result {
    let report = Report::of("--only udp")?;
    report.check_heading("udp")?;
    let mut rows = report.rows()?;
    for bytes in [64, 512, 1400] {
        rows.check_positive(&format!("udp-{bytes}-saturated"), "kpps")?;
        // A machine that is busy with other things may lose some at any rate.
        rows.check_not_negative(&format!("udp-{bytes}-zero-loss"), "kpps")?;
        rows.check_positive(&format!("udp-{bytes}-cpu"), "CPU s/Mpkt")?;
    }
    rows.check_no_more()?;
    report.check_curves(&[64, 512, 1400])
}

fn round_trips() -> Result {
    let report = Report::of("--only rtt")?;
    report.check_heading("rtt")?;
    let mut rows = report.rows()?;
    // Half load is half of it.
    rows.check_positive("udp-64-saturated", "kpps")?;
    for beside in ["idle", "half-load", "beside-tcp"] {
        let measure = |what: &str| format!("round-trip-{beside}-{what}");
        for percentile in ["p50", "p99", "p99.9"] {
            rows.check_positive(&measure(percentile), "us")?;
        }
        rows.check_rising(&["p50", "p99", "p99.9"].map(measure))?;
        rows.check_not_negative(&measure("lost"), "%")?;
    }
    rows.check_no_more()
}

fn cni() -> Result {
    let ended = Run::start_words("bench cni --count 12 --parallel 4 --json")?.wait()?;
    ensure!(ended.status.success(), "{}: {}", ended.status, ended.stderr);
    run::check_nothing_stayed()?;
    let json: serde_json::Value = serde_json::from_str(&ended.stdout)?;
    ensure!(json["containers"] == 12, "{json}");
    let rows = json["results"].as_array().ok_or("no results")?;
    let measured: Vec<_> = rows
        .iter()
        .map(|row| (row["command"].as_str(), row["at_once"].as_u64()))
        .collect();
    let expected = [
        ("VERSION", 1),
        ("ADD", 1),
        ("DEL", 1),
        ("ADD", 4),
        ("DEL", 4),
    ];
    let expected = expected.map(|(command, at_once)| (Some(command), Some(at_once)));
    ensure!(measured == expected, "{measured:?}");
    for row in rows {
        let figure = |key: &str| row[key].as_f64().unwrap_or_default();
        let (p50, p99, max) = (figure("p50_ms"), figure("p99_ms"), figure("max_ms"));
        ensure!(
            row["calls"] == 12 && p50 > 0.0 && p50 <= p99 && p99 <= max,
            "{row}"
        );
    }
    Ok(())
}

fn cni_interrupted() -> Result {
    ends_at(
        Signal::SIGINT,
        Run::start_words("bench cni --count 100 --json")?,
        "[3/",
    )
}

fn interrupted(signal: Signal) -> Result {
    // Everything is built by then.
    ends_at(signal, Run::start("--only tcp")?, "[1/")
}

fn ends_at(signal: Signal, mut run: Run, step: &str) -> Result {
    run.wait_until_it_says(step)?;
    run.signal(signal)?;
    let ended = run.wait()?;
    ensure!(
        ended.status.code() == Some(1) && ended.stderr.ends_with("bench: interrupted\n"),
        "{}: {}",
        ended.status,
        ended.stderr
    );
    ensure!(ended.stdout.is_empty(), "half a report: {}", ended.stdout);
    run::check_nothing_stayed()
}

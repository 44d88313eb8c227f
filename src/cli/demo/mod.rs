//! `silk-vtep demo`: two cells and two containers on this machine, a packet's walk through their tables, pings, TCP,
//! and everything removed again.
//!
//! Called by the command line. It stands on `lab`, which undoes itself on every way out. Only kill -9
//! leaves something to the operator: the two daemons, who end by SIGTERM, four names under /run/netns, and a directory
//! under /run, all with the tag `sv-demo-xxxx` in their names.

mod kernel;
mod ping;
mod report;
mod screen;
mod transfer;
mod walk;

use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::cli::lab::LabError;
use crate::cli::lab::ground::{self, CellPlan};
use crate::cli::lab::interrupt::Interrupt;
use crate::cli::lab::scratch::Scratch;
use crate::cli::lab::site::Site;
use crate::cli::{CliError, print};
use crate::control::client::ClientError;
use crate::control::protocol::Request;
use crate::control::stats::Stats;
use crate::error::SetupError;
use kernel::Kernel;
use ping::{Pinger, Pings};
use report::{CellFigures, Report};
use screen::{Screen, indented};

const PINGS: u16 = 100;
const TRANSFER_TIME: Duration = Duration::from_secs(3);

/// Runs the demo, which takes about ten seconds and needs root. With `json` standard output gets one JSON object with
/// the figures, else the story for a person.
///
/// # Errors
/// [`CliError::Failed`] with `demo: FAILED: ` and what failed first. All was removed by then as far as it could be.
pub fn run(json: bool) -> Result<(), CliError> {
    let started = Instant::now();
    let mut screen = Screen::new(json);
    let mut report = Report::default();
    let ended = Interrupt::on_signals()
        .map_err(DemoError::from)
        .and_then(|interrupt| stage(&mut screen, &interrupt, &mut report));
    report.error = ended.err().map(|error| error.to_string());
    report.seconds = started.elapsed().as_secs_f64();
    conclude(&report, &mut screen, json)
}

/// Why the story ended before its end.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error(transparent)]
    Lab(#[from] LabError),
    #[error("write to standard output: {0}")]
    Output(io::Error),
}

impl From<SetupError> for DemoError {
    fn from(error: SetupError) -> Self {
        Self::Lab(error.into())
    }
}

impl From<ClientError> for DemoError {
    fn from(error: ClientError) -> Self {
        Self::Lab(error.into())
    }
}

/// Sets the stage, plays, clears it, and looks whether it is clear.
fn stage(screen: &mut Screen, interrupt: &Interrupt, report: &mut Report) -> Result<(), DemoError> {
    let mut scratch = Scratch::claim("demo")?;
    let played = play(&mut scratch, screen, interrupt, report);
    // By now all is gone: `play` owned what it built.
    let left = scratch.left_behind();
    report.namespaces_left = left.as_ref().ok().map(Vec::len);
    let told = screen.settle(match left.as_deref() {
        Ok([]) => format!("removed: nothing of {}-* is left", scratch.tag()),
        Ok(names) => format!("left behind: {}", names.join(" ")),
        Err(_) => format!("what is left of {}-* cannot be told", scratch.tag()),
    });
    played
        .and(left.map(drop).map_err(DemoError::from))
        .and(told)
}

fn play(
    scratch: &mut Scratch,
    screen: &mut Screen,
    interrupt: &Interrupt,
    report: &mut Report,
) -> Result<(), DemoError> {
    screen.lines(format_args!(
        "building two cells in namespaces {}-*",
        scratch.tag()
    ))?;
    let [a, b] = &CellPlan::BOTH;
    let places = ground::lay(scratch, [a, b])?;
    let mut site = Site::build(places, scratch, &[], interrupt)?;
    if let Err(error) = acts(screen, &site, interrupt, report) {
        // A daemon that ended explains whatever its absence led to.
        site.check_daemons()?;
        return Err(error);
    }
    screen.heading("Cleaning up")?;
    Ok(site.close()?)
}

fn acts(
    screen: &mut Screen,
    site: &Site,
    interrupt: &Interrupt,
    report: &mut Report,
) -> Result<(), DemoError> {
    show_topology(screen, site)?;
    show_containers(screen, site)?;
    show_walk(screen, site)?;
    ping(screen, site, interrupt, report)?;
    transfer(screen, site, interrupt, report)?;
    count(screen, site, report)
}

fn show_topology(screen: &mut Screen, site: &Site) -> Result<(), DemoError> {
    screen.heading("Two cells, two containers")?;
    let [a, b] = [site.cells[0].place.plan, site.cells[1].place.plan];
    let row = |left: String, right: String| format!("{left:<36}{right}\n");
    screen.lines(format_args!(
        "{}{}{}{}{}",
        row(
            format!("container {}", a.container),
            format!("container {}", b.container)
        ),
        row("  | veth pair".to_owned(), "  | veth pair".to_owned()),
        row(
            format!("cell a, VTEP {}", a.vtep),
            format!("cell b, VTEP {}", b.vtep)
        ),
        row(
            "  | veth pair between the cells".to_owned(),
            "  |".to_owned()
        ),
        row(
            format!("{} <----- UDP 4789 ---->", a.underlay),
            b.underlay.to_string()
        ),
    ))?;
    for cell in &site.cells {
        let link = cell.client()?.call(&Request::Link)?;
        let (name, daemon) = (cell.place.plan.name, &cell.daemon);
        screen.lines(format_args!(
            "\ncell {name}: namespace {}, its container's {}\n  daemon pid {}, socket {}\n  $ silk-vtep link show\n{}",
            cell.place.host.label(),
            cell.place.container.label(),
            daemon.pid(),
            daemon.socket().display(),
            indented(&print::link(&link)),
        ))?;
    }
    Ok(())
}

fn show_containers(screen: &mut Screen, site: &Site) -> Result<(), DemoError> {
    screen.heading("What the containers know: one gateway, never asked for")?;
    for cell in &site.cells {
        let mut kernel = Kernel::of(&cell.place.container)?;
        let (routes, neighbors) = (kernel.routes(None)?, kernel.neighbors()?);
        let known = format!("$ ip route\n{routes}$ ip neigh\n{neighbors}");
        screen.lines(format_args!(
            "container {}\n{}",
            cell.place.plan.container,
            indented(&known)
        ))?;
    }
    Ok(())
}

fn show_walk(screen: &mut Screen, site: &Site) -> Result<(), DemoError> {
    let [a, b] = &site.cells;
    let (from, to) = (a.place.plan, b.place.plan);
    screen.heading(format_args!(
        "One packet's walk, {} -> {}: the tables as they are now",
        from.container, to.container
    ))?;
    show_steps(screen, "on cell a", &walk::outward(a, b)?)?;
    screen.lines(format_args!("on the wire\n  {}", wire_line(from, to)))?;
    show_steps(screen, "on cell b", &walk::inward(a, b)?)
}

fn show_steps(screen: &mut Screen, place: &str, steps: &[walk::Step]) -> Result<(), DemoError> {
    screen.lines(place)?;
    for step in steps {
        let asked = format!("$ {}\n{}", step.command, step.answer);
        screen.lines(format_args!(
            "  {}\n{}",
            step.why,
            indented(&indented(&asked))
        ))?;
    }
    Ok(())
}

fn wire_line(from: &CellPlan, to: &CellPlan) -> String {
    let group = from
        .group
        .map(|group| format!(", group {group:#06x}"))
        .unwrap_or_default();
    format!(
        "UDP {}:<flow hash> -> {}:4789, VXLAN VNI 1{group}",
        from.underlay, to.underlay
    )
}

fn ping(
    screen: &mut Screen,
    site: &Site,
    interrupt: &Interrupt,
    report: &mut Report,
) -> Result<(), DemoError> {
    let [a, b] = &site.cells;
    screen.heading(format_args!(
        "{PINGS} pings, {} -> {}",
        a.place.plan.container, b.place.plan.container
    ))?;
    let pinger = Pinger::new(&a.place.container, b.place.plan.container)?;
    let pings = pinger.run(PINGS, interrupt, |pings| screen.live(ping_line(pings)))?;
    report.ping = Some(pings);
    screen.settle(ping_line(&pings))
}

fn ping_line(pings: &Pings) -> String {
    let Pings {
        sent,
        received,
        min_us,
        avg_us,
        max_us,
    } = pings;
    let lost = sent - received;
    format!(
        "{sent} sent, {received} received, {lost} lost, round trip min/avg/max {min_us:.0}/{avg_us:.0}/{max_us:.0} us"
    )
}

fn transfer(
    screen: &mut Screen,
    site: &Site,
    interrupt: &Interrupt,
    report: &mut Report,
) -> Result<(), DemoError> {
    screen.heading("TCP, each way")?;
    let [a, b] = &site.cells;
    for (from, to) in [(a, b), (b, a)] {
        let name = format!(
            "{} -> {}",
            from.place.plan.container, to.place.plan.container
        );
        let progress = |bytes, elapsed: Duration| {
            let rate = transfer::gbit_per_s(bytes, elapsed);
            screen.live(format_args!(
                "{name}  {:.1} s  {} MB  {rate:.2} Gbit/s",
                elapsed.as_secs_f64(),
                bytes / 1_000_000
            ))
        };
        let done = transfer::run(
            from.place.end(),
            to.place.end(),
            TRANSFER_TIME,
            interrupt,
            progress,
        )?;
        let checked = if done.verified {
            "content verified"
        } else {
            "CONTENT DIFFERS"
        };
        let (seconds, megabytes, rate) = (done.seconds, done.bytes / 1_000_000, done.gbit_per_s);
        report.tcp.push(done);
        screen.settle(format_args!(
            "{name}  {seconds:.1} s  {megabytes} MB  {rate:.2} Gbit/s  {checked}"
        ))?;
    }
    Ok(())
}

fn count(screen: &mut Screen, site: &Site, report: &mut Report) -> Result<(), DemoError> {
    for cell in &site.cells {
        let stats: Stats = cell.client()?.call(&Request::Stats)?;
        screen.heading(format_args!("Counters of cell {}", cell.place.plan.name))?;
        screen.lines(print::stats(&stats, false, None))?;
        report.cells.push(CellFigures {
            name: cell.place.plan.name,
            counters: stats.total,
        });
    }
    Ok(())
}

/// The verdict: one that is good on standard output, any other as the error it is.
fn conclude(report: &Report, screen: &mut Screen, json: bool) -> Result<(), CliError> {
    let failure = report.failure();
    let told = if json {
        writeln!(io::stdout(), "{}", report.json()).map_err(DemoError::Output)
    } else if failure.is_none() {
        screen.heading(format_args!("demo: passed ({:.1} s)", report.seconds))
    } else {
        Ok(())
    };
    let failure = failure.or_else(|| told.err().map(|error| error.to_string()));
    failure.map_or(Ok(()), |what| {
        Err(CliError::Failed(format!("demo: FAILED: {what}")))
    })
}

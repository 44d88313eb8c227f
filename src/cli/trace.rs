//! `silk-vtep trace`: one imagined packet's walk through the tables of a running daemon, as lines.

use std::io::Write;

use super::CliError;
use super::args::{Global, TraceArgs};
use super::print;
use super::tables::Asker;
use super::words::UsageError;
use crate::control::protocol::Request;
use crate::control::trace::{Line, Stage, Step, Trace};
use crate::vtep::Fate;

/// What `trace` takes.
const USAGE: &str = "usage: silk-vtep trace --src ADDRESS --dst ADDRESS [--proto tcp|udp|icmp] [--dport PORT] [--sport PORT] [--group ID | --mark MARK] [--len BYTES] [--df] [--mac MAC] [--ingress [--from UNDERLAY]]";

/// Where what is said of a step stands: behind the longest name of a stage, and two spaces.
const INDENT: usize = Stage::Destination.name().len() + 2;

/// Asks the daemon and prints the walk.
///
/// # Errors
/// Wrong usage, a daemon that cannot be reached or refuses, or a closed `out`.
pub fn run(args: &TraceArgs, global: &Global, out: &mut dyn Write) -> Result<(), CliError> {
    let request = args.request();
    request.check().map_err(|wrong| UsageError {
        wrong: format!("trace: {wrong}"),
        usage: USAGE,
    })?;
    Asker::connect(global)?.print(&Request::Trace(request), out, text)
}

/// The walk for a person: a line for each decision, the table lines that made it below.
#[must_use]
pub fn text(trace: &Trace) -> String {
    let mut text: String = trace.steps.iter().map(step).collect();
    text.push_str(&row("verdict", &verdict(trace)));
    text
}

fn step(step: &Step) -> String {
    let Step {
        step,
        says,
        lines,
        reason,
    } = step;
    let ends = reason
        .as_ref()
        .map_or_else(String::new, |reason| format!(": {reason}"));
    let lines = lines.iter().map(|one| row("", line(one).trim_end()));
    row(step.name(), &format!("{says}{ends}")) + &lines.collect::<String>()
}

fn row(name: &str, says: &str) -> String {
    format!("{name:<INDENT$}{says}\n")
}

/// As `show` prints it.
fn line(line: &Line) -> String {
    match line {
        Line::Route(row) => print::route(row),
        Line::Neigh(row) => print::neigh(row),
        Line::Fdb(row) => print::fdb(row),
        Line::Peer(row) => print::peers(std::slice::from_ref(row)),
        Line::Group(row) => print::groups(std::slice::from_ref(row)),
        Line::Policy(row) => print::policy(std::slice::from_ref(row)),
    }
}

fn verdict(trace: &Trace) -> String {
    let Trace { verdict, way, .. } = trace;
    let word = verdict.fate.name();
    let underlay: Vec<_> = way.underlay.iter().map(ToString::to_string).collect();
    match (verdict.fate, &verdict.reason) {
        (Fate::Drop, Some(reason)) => {
            let meaning = verdict.meaning.as_deref().unwrap_or_default();
            format!("{word} {reason}: {meaning}")
        }
        (Fate::Encap, _) => format!("{word} to {}", underlay.join(",")),
        (Fate::Deliver, _) => format!("{word} from {}", underlay.join(",")),
        (Fate::Reply | Fate::Fragment | Fate::Drop, _) => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::control::Control;
    use crate::control::fixtures::{self, CONFIG, ip};
    use crate::control::trace::{Proto, TraceRequest};

    fn control_of(text: &str) -> (tempfile::TempDir, Arc<Control>) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (control, _) = fixtures::control_of(text, directory.path());
        (directory, control)
    }

    fn tcp(src: &str, dst: &str) -> TraceRequest {
        TraceRequest {
            proto: Some(Proto::Tcp),
            dport: Some(8080),
            ..TraceRequest::new(ip(src), ip(dst))
        }
    }

    #[test]
    fn a_packet_of_a_container_walks_through_every_table() {
        let (_directory, control) = control_of(CONFIG);
        let trace = control.trace(&tcp("10.255.108.184", "10.255.43.6"));
        assert_eq!(
            text(&trace.expect("it can be imagined")),
            "\
packet       10.255.108.184 -> 10.255.43.6 tcp sport 49152 dport 8080, 40 bytes, from the host to silk-vtep
destination  10.255.43.6 is of another cell
route        the longest prefix that covers 10.255.43.6
             10.255.43.0/24 via 10.255.43.0 dev silk-vtep src 10.255.108.0
neigh        10.255.43.0 is the next hop: the inner destination MAC is ee:ee:0a:ff:2b:00
             10.255.43.0 dev silk-vtep lladdr ee:ee:0a:ff:2b:00 PERMANENT
fdb          where ee:ee:0a:ff:2b:00 is
             ee:ee:0a:ff:2b:00 dev silk-vtep dst 10.0.16.14 self permanent
source       10.255.108.184 is of this cell's 10.255.108.0/24
group        group 0x0003, by the source address
             10.255.108.184  id 0x0003  config
outer        10.0.32.12:46880 -> 10.0.16.14:4789 ttl 64 tos 0x00 df 0, vni 1 group 0x0003 D 0 A 0
mtu          40 bytes of 1410
verdict      encap to 10.0.16.14
"
        );
    }

    #[test]
    fn a_packet_of_a_peer_is_walked_to_the_host() {
        let (_directory, control) = control_of(CONFIG);
        let asked = TraceRequest {
            ingress: true,
            mark: Some(0x48_0003),
            ..tcp("10.255.43.6", "10.255.108.184")
        };
        assert_eq!(
            text(&control.trace(&asked).expect("it can be imagined")),
            "\
packet       10.255.43.6 -> 10.255.108.184 tcp sport 49152 dport 8080, 40 bytes, from ee:ee:0a:ff:2b:00 at 10.0.16.14 to silk-vtep
peer         10.0.16.14 is one
             10.255.43.0/24  underlay 10.0.16.14  mac ee:ee:0a:ff:2b:00  config
header       vni 1 group 0x0003 D 1 A 1
source       where packets to 10.255.43.6 go must be where it comes from
             10.255.43.0/24 via 10.255.43.0 dev silk-vtep src 10.255.108.0
policy       none here: the host's rules decide, by mark
delivery     to the host; 10.255.108.184: the host has a link for it, or answers that it is unreachable
verdict      deliver from 10.0.16.14
"
        );
    }

    #[test]
    fn a_drop_is_told_where_it_happens_and_at_the_end_with_its_meaning() {
        let (_directory, control) = control_of(CONFIG);
        let trace = control.trace(&tcp("10.255.108.184", "10.255.44.1"));
        let text = text(&trace.expect("it can be imagined"));
        let last: Vec<_> = text.lines().skip(2).collect();
        assert_eq!(
            last,
            [
                "route        none covers 10.255.44.1: no-route",
                "verdict      drop no-route: No route covers the destination."
            ]
        );
    }
}

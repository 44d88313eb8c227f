//! What a reader has to know to read the figures right.

use super::curve;
use super::dataplane::Dataplane;
use super::machine::Machine;
use super::plan::Plan;
use super::results::{Evenness, Results};
use super::round_trip;
use super::summary::Row;
use super::table::number;
use crate::cli::args::BenchSubject;

/// Of figures that nobody should quote.
pub(super) const UNOPTIMIZED: &str = "DEBUG BUILD: the figures say nothing; build with --release";
/// Why there is no ratio.
pub(super) const NO_KERNEL_VXLAN: &str =
    "this kernel has no VXLAN device to compare with: silk-vtep is measured without a ratio";
/// A kernel sender's nature, which a comparison must not hide.
const INLINE_SENDER: &str = "a kernel device's sender does the work of the whole path inline, and so throttles itself: \
     where it cannot offer more nothing is lost either, and its zero-loss and saturated rates are what one sending \
     thread reaches";
const CPU: &str = "CPU is that of the whole machine, load generators included, but for what a paced sender spends waiting \
     for the next datagram";
const HALF_LOAD: &str =
    "half load: for all the same rate, half of what the weakest delivers when flooded";

/// All notes that apply, the general first.
pub(super) fn all(
    plan: &Plan,
    machine: &Machine,
    dataplanes: &[Dataplane],
    results: &Results,
) -> Vec<String> {
    let measures = |subject| plan.subjects.contains(&subject);
    let (tcp, udp, rtt) = (
        measures(BenchSubject::Tcp),
        measures(BenchSubject::Udp),
        measures(BenchSubject::Rtt),
    );
    let compared = dataplanes.contains(&Dataplane::Kernel);
    let known = [
        (!machine.optimized, UNOPTIMIZED.to_owned()),
        (!compared, NO_KERNEL_VXLAN.to_owned()),
        (
            plan.quick,
            "--quick: short and few measurements, for a first look".to_owned(),
        ),
        (true, rounds(plan)),
        (tcp, format!("TCP over {} s each", plan.tcp.as_secs_f64())),
        (udp || rtt, saturated(plan)),
        (udp, zero_loss(plan)),
        (udp && compared, INLINE_SENDER.to_owned()),
        (rtt, round_trips(plan)),
        (udp || rtt, HALF_LOAD.to_owned()),
        (tcp || udp, CPU.to_owned()),
        (
            !machine.all_processes_seen,
            "in a PID namespace: what processes outside it use is not seen, and makes nothing void"
                .to_owned(),
        ),
    ];
    let mut notes: Vec<_> = known
        .into_iter()
        .filter_map(|(applies, note)| applies.then_some(note))
        .collect();
    notes.extend(found(results));
    notes
}

/// How Open vSwitch was used.
pub(super) fn ovs(version: &str) -> String {
    format!(
        "ovs: Open vSwitch {version}, userspace datapath (netdev) over AF_PACKET. It takes neither partial checksums nor \
         super-frames from a veth, so its containers send without offloads; and it carries no group ids, which nobody sends \
         here: the VXLAN header is the same for all. Its containers are on one switched network, where those of the others are routed"
    )
}

/// What only the results tell.
fn found(results: &Results) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(results.evenness().map(pacing));
    notes.extend(limits(results));
    notes.push(void(results));
    if results.rows().iter().any(Row::is_void) {
        notes.push(
            "* no sample of this figure counts: it is of void ones, an indication at best"
                .to_owned(),
        );
    }
    notes
}

fn rounds(plan: &Plan) -> String {
    let rounds = plan.rounds;
    let s = if rounds == 1 { "" } else { "s" };
    format!("medians (min-max) of {rounds} round{s}")
}

fn saturated(plan: &Plan) -> String {
    format!(
        "UDP from one sender to one receiver, payload in bytes; saturated: delivered, when sent as fast as one thread can \
         for {} s",
        plan.flood.as_secs_f64()
    )
}

fn zero_loss(plan: &Plan) -> String {
    let exact = curve::resolution(plan.curve_points, plan.zero_loss_steps);
    format!(
        "zero loss, after RFC 2544 section 26.1: the highest rate offered of which every datagram came through, in trials \
         of {} s (section 24 asks for 60 s) at {} rates and then {} times half way between the last without loss and \
         the first with it: to within {} % of what the strongest delivers when flooded. A trial is void, and its rate not \
         reached, if its sender missed the rate by more than 1 %, twice",
        plan.trial.as_secs_f64(),
        plan.curve_points,
        plan.zero_loss_steps,
        number(exact * 100.0),
    )
}

fn round_trips(plan: &Plan) -> String {
    format!(
        "round trips over {} s of {}-byte UDP datagrams, one at a time",
        plan.round_trip.as_secs_f64(),
        round_trip::PAYLOAD_BYTES
    )
}

/// Whose zero-loss rates may be higher than one sender can show; `None` if nobody's.
fn limits(results: &Results) -> Option<String> {
    let limited = results.sender_limited();
    let told: Vec<_> = limited
        .iter()
        .filter(|(_, (limited, _))| *limited > 0)
        .map(|(dataplane, (limited, all))| format!("{limited} of {all} of {}", dataplane.name()))
        .collect();
    (!told.is_empty()).then(|| {
        format!(
            "zero-loss rates that ended where the sender did, without a loss, and may be higher: {}",
            told.join(", ")
        )
    })
}

fn pacing(evenness: Evenness) -> String {
    let Evenness {
        late_share,
        latest_us,
    } = evenness;
    format!(
        "paced senders send one datagram at a time, evenly spaced: they spin on the monotonic clock, and yield the CPU to \
         whoever wants it; {} % left more than one spacing after their time, the latest {} us; a sender that is behind \
         catches up at twice its pace at most",
        number(late_share * 100.0),
        number(latest_us),
    )
}

fn void(results: &Results) -> String {
    let (void, taken) = results.void();
    format!(
        "{void} of {taken} samples void: more than 2 % of the CPU time went to other processes or was stolen by the \
         hypervisor, or the load beside them was not the one asked for"
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Command, CommandLine};
    use crate::cli::bench::curve::{Limit, Trials, ZeroLoss};
    use crate::cli::bench::exercise::Findings;
    use crate::cli::bench::meter::Usage;
    use crate::cli::bench::results::Occasion;
    use crate::cli::bench::wire::Wire;

    fn notes(options: &str, dataplanes: &[Dataplane]) -> String {
        let words = format!("silk-vtep bench {options}");
        let line = CommandLine::try_parse_from(words.split_whitespace()).expect("accepted");
        let Command::Bench(args) = line.command else {
            panic!("{options}");
        };
        all(
            &Plan::new(&args),
            &Machine::default(),
            dataplanes,
            &Results::default(),
        )
        .join("\n")
    }

    #[test]
    fn alone_is_said_and_compared_explained() {
        let alone = notes("", &[Dataplane::SilkVtep]);
        assert!(
            alone.contains(NO_KERNEL_VXLAN) && !alone.contains("inline"),
            "{alone}"
        );
        let compared = notes("", &[Dataplane::Kernel, Dataplane::SilkVtep]);
        assert!(
            compared.contains("inline") && !compared.contains(NO_KERNEL_VXLAN),
            "{compared}"
        );
    }

    #[test]
    fn what_was_not_measured_is_not_explained() {
        let tcp = notes("--only tcp", &[Dataplane::Kernel, Dataplane::SilkVtep]);
        assert!(
            !tcp.contains("zero loss") && !tcp.contains("half load"),
            "{tcp}"
        );
        let rtt = notes("--only rtt", &[Dataplane::Kernel, Dataplane::SilkVtep]);
        assert!(
            rtt.contains("half load") && !rtt.contains("TCP over"),
            "{rtt}"
        );
    }

    #[test]
    fn whose_zero_loss_rates_may_be_higher_is_told() {
        let mut results = Results::default();
        assert_eq!(limits(&results), None);
        for (dataplane, limit) in [
            (Dataplane::Kernel, Limit::Sender),
            (Dataplane::Kernel, Limit::Loss),
            (Dataplane::SilkVtep, Limit::Loss),
        ] {
            results.add(occasion(dataplane), Some(64), curve_that_ended_with(limit));
        }
        let told = limits(&results).expect("one of the kernel's");
        assert!(told.ends_with("higher: 1 of 2 of kernel"), "{told}");
    }

    fn occasion(dataplane: Dataplane) -> Occasion {
        Occasion {
            wire: Wire::Mtu,
            dataplane,
            round: 1,
        }
    }

    fn curve_that_ended_with(limit: Limit) -> Findings {
        let zero_loss = ZeroLoss { rate: 1.0, limit };
        Findings {
            readings: Vec::new(),
            trials: Some(Trials {
                grid: Vec::new(),
                search: Vec::new(),
                zero_loss,
            }),
            usage: Usage {
                seconds: 1.0,
                busy_seconds: 1.0,
                steal_share: 0.0,
                foreign_share: 0.0,
            },
        }
    }

    #[test]
    fn the_spacing_of_datagrams_is_stated() {
        let note = pacing(Evenness {
            late_share: 0.0312,
            latest_us: 1234.0,
        });
        assert!(
            note.contains("3.12 %") && note.contains("1234 us"),
            "{note}"
        );
    }

    #[test]
    fn length_and_resolution_of_trials_are_stated() {
        let full = notes("", &[]);
        assert!(
            full.contains("trials of 0.5 s") && full.contains("within 1.04 %"),
            "{full}"
        );
        let quick = notes("--quick", &[]);
        assert!(
            quick.contains("trials of 0.1 s") && quick.contains("within 8.33 %"),
            "{quick}"
        );
    }
}

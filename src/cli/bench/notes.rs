//! What a reader has to know to read the figures right.

use super::dataplane::Dataplane;
use super::machine::Machine;
use super::plan::Plan;
use super::results::{Evenness, Results, Row};
use super::round_trip;
use super::table::number;

/// A kernel sender's nature, which a comparison must not hide.
const INLINE_SENDER: &str = "a kernel device's sender does the work of the whole path inline, and so throttles itself: \
     it hardly loses anything and cannot offer more";

const CPU: &str = "CPU is that of the whole machine, load generators included, but for what a paced sender spends waiting \
     for the next datagram";

/// All notes that apply, the general first.
pub(super) fn all(
    plan: &Plan,
    machine: &Machine,
    dataplanes: &[Dataplane],
    results: &Results,
) -> Vec<String> {
    let mut notes = vec![lengths(plan), udp(plan)];
    notes.extend(results.evenness().map(pacing));
    notes.push(CPU.to_owned());
    let compared = dataplanes.contains(&Dataplane::Kernel);
    let conditions = [
        (compared, INLINE_SENDER),
        (
            !compared,
            "this kernel has no VXLAN device: measured alone, without a ratio",
        ),
        (
            plan.quick,
            "--quick: short and few measurements, for a first look",
        ),
        (
            !machine.all_processes_seen,
            "in a PID namespace: what processes outside it use is not seen, and makes nothing void",
        ),
        (
            !machine.optimized,
            "DEBUG BUILD: the figures say nothing; build with --release",
        ),
    ];
    notes.extend(
        conditions
            .into_iter()
            .filter(|(applies, _)| *applies)
            .map(|(_, note)| note.to_owned()),
    );
    notes.push(void(results));
    if results.rows().iter().any(Row::is_void) {
        notes.push(
            "* no sample of this figure counts: it is of void ones, an indication at best"
                .to_owned(),
        );
    }
    notes
}

fn lengths(plan: &Plan) -> String {
    let Plan {
        rounds,
        tcp,
        round_trip,
        ..
    } = plan;
    let s = if *rounds == 1 { "" } else { "s" };
    format!(
        "medians (min-max) of {rounds} round{s}; TCP over {} s each, round trips over {} s of {}-byte UDP datagrams, one at a time",
        tcp.as_secs_f64(),
        round_trip.as_secs_f64(),
        round_trip::PAYLOAD_BYTES,
    )
}

fn udp(plan: &Plan) -> String {
    format!(
        "UDP from one sender to one receiver, payload in bytes; zero loss: the highest rate offered (within 1 %) of which \
         all came through, after RFC 2544 section 26.1, in trials of {} s where it asks for 60; saturated: delivered, when \
         sent as fast as one thread can",
        plan.trial.as_secs_f64(),
    )
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
    use super::*;
    use crate::cli::args::BenchArgs;

    fn notes(quick: bool, dataplanes: &[Dataplane]) -> String {
        all(
            &Plan::new(&BenchArgs {
                quick,
                ..BenchArgs::default()
            }),
            &Machine::default(),
            dataplanes,
            &Results::default(),
        )
        .join("\n")
    }

    #[test]
    fn alone_is_said_and_compared_explained() {
        let alone = notes(false, &[Dataplane::SilkVtep]);
        assert!(
            alone.contains("no VXLAN device") && !alone.contains("inline"),
            "{alone}"
        );
        let compared = notes(false, &[Dataplane::Kernel, Dataplane::SilkVtep]);
        assert!(
            compared.contains("inline") && !compared.contains("no VXLAN device"),
            "{compared}"
        );
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
    fn the_length_of_trials_is_stated() {
        assert!(notes(false, &[]).contains("trials of 0.5 s"));
        assert!(notes(true, &[]).contains("trials of 0.1 s"));
    }
}

//! `silk-vtep bench cni`: how long the CNI plugin takes for ADD and DEL, one at a time and several, as a runtime would call it: a process
//! each, the configuration on its standard input. A daemon runs beside, as in life, and is asked and told.
//!
//! What a run leaves is looked at, too: an address that two containers got, or a container that outlived its DEL, is an error and no
//! figure.

mod call;
mod figures;
mod stage;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::failed;
use super::machine::Machine;
use super::notes::UNOPTIMIZED;
use super::progress::Progress;
use crate::cli::CliError;
use crate::cli::args::CniBenchArgs;
use crate::cli::lab::interrupt::Interrupt;
use crate::cli::lab::{LabError, joined};
use crate::error::SetupError;
use call::{Call, Verb};
use figures::Figures;
use stage::Stage;

/// Runs the benchmark, which needs root, and prints its table; with `json` one JSON object instead.
///
/// # Errors
/// [`CliError::Failed`] with what failed first. All was removed by then as far as it could be.
pub(super) fn run(args: &CniBenchArgs, json: bool) -> Result<(), CliError> {
    let machine = Machine::read();
    let all = measure(args, &machine).map_err(failed)?;
    let text = match json {
        true => json!({
            "machine": machine,
            "containers": args.count,
            "ipam": ipam(args),
            "results": all,
            "notes": notes(args, &machine),
        })
        .to_string(),
        false => {
            let notes = notes(args, &machine).join("\n");
            format!("{}\n{}\n{notes}", machine.line(), figures::table(&all))
        }
    };
    writeln!(io::stdout(), "{}", text.trim_end())?;
    Ok(())
}

fn notes(args: &CniBenchArgs, machine: &Machine) -> Vec<String> {
    let debug = (!machine.optimized).then(|| UNOPTIMIZED.to_owned());
    let method = format!(
        "{} containers; each call is a process, and its time that from its start to its end: VERSION does no more; addresses by {}",
        args.count,
        ipam(args)
    );
    debug.into_iter().chain([method]).collect()
}

fn ipam(args: &CniBenchArgs) -> &'static str {
    match args.cni_path {
        Some(_) => "host-local",
        None => "the plugin itself",
    }
}

/// VERSION does nothing: what it takes is the process.
fn measure(args: &CniBenchArgs, machine: &Machine) -> Result<Vec<Figures>, LabError> {
    let interrupt = Interrupt::on_signals()?;
    let at_once = [1, args.parallel];
    let mut progress = Progress::new(2 + 2 * at_once.len());
    progress.say(machine.line());
    progress.step(format_args!("a cell and {} namespaces", args.count));
    let stage = Stage::build(args, &interrupt)?;
    let mut all = Vec::new();
    let mut phase = |verb, at_once| {
        progress.step(format_args!(
            "{} {} times, {at_once} at a time",
            verb_name(verb),
            args.count
        ));
        let (figures, answers) = each(&stage, verb, at_once, &interrupt)?;
        all.push(figures);
        Ok::<_, LabError>(answers)
    };
    phase(Verb::Version, 1)?;
    for at_once in at_once {
        let added = phase(Verb::Add, at_once)?;
        check_addresses(&added)?;
        stage.check_containers(args.count as usize)?;
        phase(Verb::Del, at_once)?;
        stage.check_containers(0)?;
    }
    stage.close()?;
    Ok(all)
}

fn verb_name(verb: Verb) -> &'static str {
    match verb {
        Verb::Add => "ADD",
        Verb::Del => "DEL",
        Verb::Version => "VERSION",
    }
}

/// Calls the plugin for every container. Gives what each call took and said; the first that fails ends all.
fn each(
    stage: &Stage,
    verb: Verb,
    at_once: u32,
    interrupt: &Interrupt,
) -> Result<(Figures, Vec<Value>), LabError> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let worker = || {
        // A call is a process of the cell's namespace because the thread is.
        stage.host().run(|| {
            while let Some(container) = stage.container(next.fetch_add(1, Relaxed)) {
                interrupt.check()?;
                let outcome = Call {
                    verb,
                    stage,
                    container,
                }
                .make();
                if outcome.is_err() {
                    // The others have nothing more to do.
                    next.store(usize::MAX / 2, Relaxed);
                }
                let outcome = outcome?;
                if let Ok(mut done) = done.lock() {
                    done.push(outcome);
                }
            }
            Ok::<_, LabError>(())
        })?
    };
    let started = Instant::now();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(worker)).collect();
        let ended: Vec<_> = workers.into_iter().map(joined).collect();
        ended.into_iter().collect::<Result<(), LabError>>()
    })?;
    let took = started.elapsed();
    let (times, answers): (Vec<Duration>, Vec<Value>) =
        done.into_inner().unwrap_or_default().into_iter().unzip();
    Ok((Figures::of(verb_name(verb), at_once, times, took), answers))
}

/// Two hundred ADDs are two hundred addresses.
fn check_addresses(added: &[Value]) -> Result<(), SetupError> {
    let addresses: BTreeSet<_> = added
        .iter()
        .map(|result| result["ips"][0]["address"].to_string())
        .collect();
    match addresses.len() == added.len() {
        true => Ok(()),
        false => Err(SetupError::new(
            "check",
            "addresses",
            format!("{} containers have {}", added.len(), addresses.len()),
        )),
    }
}

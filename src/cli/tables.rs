//! The commands that a running daemon answers.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::args::{self, Global, TableCommand};
use super::words::{self, Premises, Sentence, Table};
use super::{CliError, print, trace, warn};
use crate::control::client::{Client, ClientError};
use crate::control::protocol::{Applied, Failure, Reloaded, Request, Show};
use crate::control::rows::{LinkRow, RouteRow};
use crate::control::stats::Stats;
use crate::error::SetupError;

const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Cursor home, and nothing left behind (ECMA-48 CUP, ED).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Runs a command against the daemon and prints the answer to `out`.
///
/// # Errors
/// Wrong usage, a daemon that cannot be reached or refuses, or a closed `out`.
pub fn run(command: &TableCommand, global: &Global, out: &mut dyn Write) -> Result<(), CliError> {
    let (table, words) = match command {
        TableCommand::Link(args) => (Table::Link, &args.words),
        TableCommand::Route(args) => (Table::Route, &args.words),
        TableCommand::Neigh(args) => (Table::Neigh, &args.words),
        TableCommand::Fdb(args) => (Table::Fdb, &args.words),
        TableCommand::Peer(args) => (Table::Peer, &args.words),
        TableCommand::Group(args) => (Table::Group, &args.words),
        TableCommand::Policy(args) => (Table::Policy, &args.words),
        TableCommand::Stats(args) => return stats(*args, &mut Asker::connect(global)?, out),
        TableCommand::Reload => return reload(&mut Asker::connect(global)?, out),
        TableCommand::Batch { file } => return batch(file, global, out),
    };
    // Wrong words are wrong without a daemon too.
    let Sentence { request, premises } = words::parse(table, words)?;
    let mut asker = Asker::connect(global)?;
    asker.check(&[premises]).map_err(|(_, error)| error)?;
    ask(&request, &mut asker, out)
}

/// A daemon, and whether its answers are printed as JSON.
pub(super) struct Asker {
    client: Client,
    json: bool,
}

impl Asker {
    pub(super) fn connect(global: &Global) -> Result<Self, CliError> {
        Ok(Self {
            client: Client::connect(&global.socket_path())?,
            json: global.json,
        })
    }

    /// Holds what words took for granted against the daemon's device.
    ///
    /// # Errors
    /// The first that is not so, and its place.
    fn check(&mut self, premises: &[Premises]) -> Result<(), (usize, CliError)> {
        let Some(first) = premises.iter().position(|given| !given.is_empty()) else {
            return Ok(());
        };
        let link = self.client.call::<LinkRow>(&Request::Link);
        let link = link.map_err(|error| (first, error.into()))?;
        let mut each = premises.iter().enumerate();
        each.try_for_each(|(place, given)| {
            given.check(&link).map_err(|error| (place, error.into()))
        })
    }

    /// Asks, and prints the answer as JSON or as `text` has it.
    pub(super) fn print<T: DeserializeOwned + Serialize>(
        &mut self,
        request: &Request,
        out: &mut dyn Write,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), CliError> {
        let answer = self.client.call(request)?;
        let text = if self.json {
            json(&answer)?
        } else {
            text(&answer)
        };
        Ok(out.write_all(text.as_bytes())?)
    }
}

fn ask(request: &Request, asker: &mut Asker, out: &mut dyn Write) -> Result<(), CliError> {
    match request {
        Request::Show(show) => match show {
            Show::Route(_) => asker.print(request, out, |rows: &Vec<_>| each(rows, print::route)),
            Show::Neigh(_) => asker.print(request, out, |rows: &Vec<_>| each(rows, print::neigh)),
            Show::Fdb(_) => asker.print(request, out, |rows: &Vec<_>| each(rows, print::fdb)),
            Show::Peer(_) => asker.print(request, out, |rows: &Vec<_>| print::peers(rows)),
            Show::Group(_) => asker.print(request, out, |rows: &Vec<_>| print::groups(rows)),
            Show::Policy(_) => asker.print(request, out, |rows: &Vec<_>| print::policy(rows)),
        },
        Request::Change(_) => {
            let applied = asker.client.call(request)?;
            applied_to(&applied, asker.json, out)
        }
        // `ip` prints lists of one for these.
        Request::RouteGet(_) => {
            let row: RouteRow = asker.client.call(request)?;
            one(&row, asker.json, print::route, out)
        }
        Request::Link => {
            let row: LinkRow = asker.client.call(request)?;
            one(&row, asker.json, print::link, out)
        }
        Request::Denied => asker.print(request, out, print::denied),
        Request::Stats => asker.print(request, out, |answer| print::stats(answer, false, None)),
        Request::Reload => reload(asker, out),
        // No table's words ask for these.
        Request::Network | Request::Container(_) => {
            asker.print(request, out, |answer: &Value| format!("{answer}\n"))
        }
        Request::Trace(_) => asker.print(request, out, trace::text),
        // No words ask for one: it is no answer but a stream.
        Request::Capture(_) => Err(CliError::Failed("see `silk-vtep capture`".to_owned())),
    }
}

fn each<T>(rows: &[T], line: impl Fn(&T) -> String) -> String {
    rows.iter().map(line).collect()
}

fn one<T: Serialize>(
    row: &T,
    as_json: bool,
    text: impl Fn(&T) -> String,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let text = if as_json { json(&[row])? } else { text(row) };
    Ok(out.write_all(text.as_bytes())?)
}

fn applied_to(applied: &Applied, as_json: bool, out: &mut dyn Write) -> Result<(), CliError> {
    applied.warnings.iter().for_each(warn);
    if as_json {
        out.write_all(json(applied)?.as_bytes())?;
    }
    Ok(())
}

fn reload(asker: &mut Asker, out: &mut dyn Write) -> Result<(), CliError> {
    let reloaded: Reloaded = asker.client.call(&Request::Reload)?;
    reloaded.warnings.iter().for_each(warn);
    let text = if asker.json {
        json(&reloaded)?
    } else {
        format!("{reloaded}\n")
    };
    Ok(out.write_all(text.as_bytes())?)
}

fn batch(file: &Path, global: &Global, out: &mut dyn Write) -> Result<(), CliError> {
    let failed = |number: usize, what: &dyn std::fmt::Display| {
        CliError::Failed(format!("{}: line {number}: {what}", file.display()))
    };
    let (mut changes, mut premises) = (Vec::new(), Vec::new());
    // Line numbers of `changes`, from 1.
    let mut numbers = Vec::new();
    for (number, line) in (1..).zip(open(file)?.lines()) {
        let line = line.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => failed(number, &"it is not UTF-8"),
            _ => unreadable(file, &error).into(),
        })?;
        let read = words::parse_batch_line(&line).map_err(|error| failed(number, &error))?;
        if let Some((change, premise)) = read {
            changes.push(change);
            premises.push(premise);
            numbers.push(number);
        }
    }
    let mut asker = Asker::connect(global)?;
    asker
        .check(&premises)
        .map_err(|(at, error)| failed(numbers[at], &error))?;
    match asker.client.call(&Request::Change(changes)) {
        Ok(applied) => applied_to(&applied, global.json, out),
        Err(ClientError::Refused(Failure {
            message,
            change: Some(at),
        })) if at < numbers.len() => Err(failed(
            numbers[at],
            &format!("{message} (nothing was changed)"),
        )),
        Err(error) => Err(error.into()),
    }
}

fn open(file: &Path) -> Result<Box<dyn BufRead>, CliError> {
    if file == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let opened = File::open(file).map_err(|error| unreadable(file, &error))?;
    Ok(Box::new(BufReader::new(opened)))
}

fn unreadable(file: &Path, error: &io::Error) -> SetupError {
    SetupError::system("read batch", file.display().to_string(), error)
        .or_mend("give a file that is there and may be read, or - for standard input")
}

fn stats(args: args::Stats, asker: &mut Asker, out: &mut dyn Write) -> Result<(), CliError> {
    if !args.watch {
        return asker.print(&Request::Stats, out, |answer| {
            print::stats(answer, args.lanes, None)
        });
    }
    let clear = !asker.json && io::stdout().is_terminal();
    let mut before: Option<Stats> = None;
    loop {
        let now: Stats = asker.client.call(&Request::Stats)?;
        let text = if asker.json {
            json(&now)?
        } else {
            print::stats(
                &now,
                args.lanes,
                before.as_ref().map(|before| &before.total),
            )
        };
        if clear {
            out.write_all(CLEAR.as_bytes())?;
        }
        out.write_all(text.as_bytes())?;
        out.flush()?;
        before = Some(now);
        std::thread::sleep(WATCH_INTERVAL);
    }
}

/// One line, as `ip -j`.
fn json<T: Serialize + ?Sized>(answer: &T) -> Result<String, CliError> {
    let json = serde_json::to_string(answer);
    json.map(|json| json + "\n")
        .map_err(|error| CliError::Failed(format!("encode the answer: {error}")))
}

#[cfg(test)]
mod tests;

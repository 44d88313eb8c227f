//! `silk-vtep replay`: what a daemon with this configuration does with the packets of a capture, without one, and without privileges.
//!
//! ```text
//! --from-overlay    frame ------------------------> vtep::egress  -> underlay frame | reply to the host
//! --from-underlay   frame -> host::Host, datagram -> vtep::ingress -> inner frame    | reply to the underlay
//! ```
//!
//! The core is the daemon's, its tables are compiled from the configuration by the daemon's code ([`Directory`]); [`host`](crate::host)
//! plays the kernel's part. Every packet has one line. A fragment has the verdict `fragment` if a later one completed its datagram, which
//! has that one's verdict, and else the host's reason to drop it; until that is known the lines behind it wait.

mod input;
mod judge;
mod line;
mod output;
mod progress;
mod report;

use std::io::{BufWriter, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use self::input::{Capture, Packet};
use self::judge::{Judge, Sink};
use self::line::{Line, Reason};
use self::output::Output;
use self::progress::Progress;
use self::report::Report;
use super::args::{Global, ReplayArgs};
use super::lab::interrupt::Interrupt;
use super::words::UsageError;
use super::{CliError, warn};
use crate::control::config::Bind;
use crate::control::{Config, Directory};
use crate::daemon::read_config;
use crate::error::SetupError;
use crate::host::{Addresses, Captured, Host, HostDrop, Link, Outcome, Rules};
use crate::io::flows::{FlowTable, Moment};
use crate::tables::{CounterRegistry, Tables};

/// Judges every packet of the capture.
///
/// # Errors
/// Wrong usage; the configuration is not usable; the capture cannot be read or is damaged, with what stands before the damage reported;
/// the output cannot be written.
pub fn run(args: &ReplayArgs, global: &Global, out: &mut impl Write) -> Result<(), CliError> {
    check_usage(args, global).map_err(|wrong| UsageError {
        wrong: format!("replay: {wrong}"),
        usage: "usage: silk-vtep replay --config FILE (--from-overlay|--from-underlay) IN.pcap [-w OUT.pcap] [--json]",
    })?;
    let config = read_config(&args.config, &|_| None)?;
    let tables = compile(&config);
    let side = if args.from_overlay {
        Side::Overlay
    } else {
        Side::Underlay(Box::new(Host::new(rules(&config, &tables))))
    };
    let interrupt = Interrupt::default();
    let capture = Capture::open(&args.input, side.reads(), &interrupt)?;
    let output = args.output.as_deref();
    let output = output.map(|path| Output::create(path, &args.input));
    let output = output.transpose()?;
    if output.is_some() {
        // Without an output there is nothing that a signal could cut short.
        interrupt.listen()?;
    }
    let out = BufWriter::with_capacity(OUT_BYTES, out);
    let mut replay = Replay {
        judge: Judge::new(&config.vtep, &tables, FlowTable::new(config.policy.flows)),
        report: Report::new(out, global.json, output.is_some()),
        written: Written {
            output,
            time: Duration::ZERO,
        },
        side,
    };
    let early = replay.packets(capture);
    let written = replay.finish();
    // Of two errors the first says more.
    match (early?, written?) {
        (None, _) => Ok(()),
        (Some(early), None) => Err(early.into()),
        (Some(early), Some(path)) => {
            let mend = format!("{}; {} is written up to there", early.mend, path.display());
            let mend = mend.trim_start_matches("; ").to_owned();
            Err(early.mend(mend).into())
        }
    }
}

/// Hands every packet of a capture to `visit`, in order: the reading that `replay` does, alone.
///
/// # Errors
/// It is no capture, or damaged; what stands before the damage was visited.
pub fn each_packet(
    reader: Box<dyn Read>,
    mut visit: impl FnMut(Captured<'_>),
) -> Result<(), SetupError> {
    let mut capture = Capture::of(reader)?;
    while let Some(packet) = capture.next()? {
        visit(packet.captured());
    }
    Ok(())
}

/// Bytes of lines that are printed at once.
const OUT_BYTES: usize = 1 << 16;

/// Options of the other commands that mean nothing here, and an output that would stand among the lines.
fn check_usage(args: &ReplayArgs, global: &Global) -> Result<(), &'static str> {
    let name = args.name.as_ref().or(global.name.as_ref());
    let socket = args.socket.as_ref().or(global.socket.as_ref());
    if name.is_some() || socket.is_some() {
        return Err("it asks no daemon (`--name`, `--socket`)");
    }
    if args
        .output
        .as_ref()
        .is_some_and(|path| path.as_os_str() == "-")
    {
        return Err("standard output has the verdicts: give `-w` a file");
    }
    Ok(())
}

/// As a daemon that starts without live entries.
fn compile(config: &Config) -> Tables {
    let mut directory = Directory::new(&config.vtep);
    let (_, refusals) = directory.reload(config);
    for refusal in refusals {
        warn(format_args!("left out of the configuration: {refusal}"));
    }
    let local = Arc::new(config.local());
    Tables::compile(local, &directory.spec(), &mut CounterRegistry::new(1))
}

/// The sockets that a daemon would open.
fn rules(config: &Config, tables: &Tables) -> Rules {
    let vtep = &config.vtep;
    Rules {
        local: vtep.local,
        port: vtep.port,
        addresses: match vtep.bind {
            Bind::Local => Addresses::Local,
            Bind::Any => Addresses::AllBut(tables.peers.iter().map(|peer| peer.underlay).collect()),
        },
        zero_checksum_v6: vtep.zero_checksum_rx,
    }
}

/// Where packets come from.
enum Side {
    Overlay,
    Underlay(Box<Host>),
}

impl Side {
    /// The links that can be read from there.
    fn reads(&self) -> fn(Link) -> bool {
        match self {
            Self::Overlay => |link| link == Link::Ethernet,
            Self::Underlay(_) => |link| !matches!(link, Link::Other(_)),
        }
    }
}

/// The frames that packets became, on their way to the output if there is one.
struct Written {
    output: Option<Output>,
    /// Of the packet at hand.
    time: Duration,
}

impl Sink for Written {
    type Error = SetupError;

    fn put(&mut self, frame: &[u8]) -> Result<(), SetupError> {
        match &mut self.output {
            Some(output) => output.write(self.time, frame),
            None => Ok(()),
        }
    }
}

/// One capture's way through one daemon.
struct Replay<'t, W: Write> {
    judge: Judge<'t>,
    report: Report<'t, W>,
    written: Written,
    side: Side,
}

impl<W: Write> Replay<'_, W> {
    /// Why the capture ended before its end, if it did.
    fn packets(&mut self, mut capture: Capture) -> Result<Option<SetupError>, CliError> {
        let mut progress = Progress::new();
        loop {
            match capture.next() {
                Ok(Some(packet)) => self.packet(&packet)?,
                Ok(None) => return Ok(None),
                Err(early) => return Ok(Some(early)),
            }
            progress.tick(self.report.next_packet() - 1, capture.position());
        }
    }

    fn packet(&mut self, packet: &Packet<'_>) -> Result<(), CliError> {
        let n = self.report.next_packet();
        self.written.time = packet.time;
        match &mut self.side {
            Side::Overlay => {
                let line = match unreadable(packet) {
                    Some(reason) => Line::drop(n, Reason::Host(reason)),
                    None => self.judge.frame(n, packet.bytes, &mut self.written)?,
                };
                self.report.put(line)?;
            }
            Side::Underlay(host) => {
                let now = Moment::of(packet.time);
                if let Some(datagram) = host.sent(packet.captured()) {
                    self.judge.sent(datagram, now);
                }
                match host.receive(packet.captured()) {
                    Outcome::Datagram(datagram) => {
                        let judged = (&datagram, now);
                        let line = self.judge.datagram(n, judged, &mut self.written)?;
                        self.report.put(line)?;
                    }
                    Outcome::Kept => self.report.wait(),
                    Outcome::Drop(reason) => {
                        self.report.put(Line::drop(n, Reason::Host(reason)))?;
                    }
                }
                self.report.settle(host.settled())?;
            }
        }
        Ok(())
    }

    /// What is written, if anything is.
    fn finish(mut self) -> Result<Option<PathBuf>, CliError> {
        if let Side::Underlay(host) = &mut self.side {
            host.finish();
            self.report.settle(host.settled())?;
        }
        self.report.finish()?;
        Ok(self.written.output.map(Output::finish).transpose()?)
    }
}

/// Why a frame of the overlay cannot be judged.
fn unreadable(packet: &Packet<'_>) -> Option<HostDrop> {
    if packet.link != Link::Ethernet {
        Some(HostDrop::ForeignLink)
    } else if packet.snapped {
        Some(HostDrop::TruncatedCapture)
    } else {
        None
    }
}

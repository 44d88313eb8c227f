//! The daemon: set-up, the threads, repair, and the way out.
//!
//! `setup` builds the daemon step by step, each step a value whose drop undoes it, so that a failure anywhere leaves nothing behind and
//! the regular end is the same path. Then the main thread waits for events: signals, changes of the device, a lane that ended.
//!
//! Called by `cli` for `silk-vtep run`.

mod events;
mod express;
pub(crate) mod express_needs;
mod limits;
mod link_facts;
mod lock;
mod marks;
pub(crate) mod offload;
mod path_watch;
mod paths;
pub(crate) mod port_holder;
mod repair;
pub(crate) mod setup;
mod thread;
mod untold;
mod workers;

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::control::config::{self, ConfigErrors, UnderlayOf};
use crate::control::{Config, Control, HealthServer, Server, default_socket_path};
use crate::error::SetupError;
use crate::netlink::{Device, DeviceError, Netlink, Underlay, underlay};
use events::{Event, SignalThread, WatchThread};
use express::ExpressWatch;
use lock::Lock;
use marks::Marks;
use path_watch::PathWatch;
use repair::Schedule;
use workers::Workers;

/// How often the threads are looked for.
const ROLL_CALL_EVERY: Duration = Duration::from_secs(1);

/// What `silk-vtep run` was given.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The configuration file.
    pub config: PathBuf,
    /// The control socket; `None`: `/run/silk-vtep/<name>.sock`.
    pub socket: Option<PathBuf>,
}

/// Why the daemon did not start, or ended other than by request.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration has errors: one line each.
    #[error("configuration {} is not usable:\n{errors}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// All of them.
        errors: ConfigErrors,
    },
    /// A step of set-up failed.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// Something the daemon cannot do without went away.
    #[error("run {name}: ended: {cause}")]
    Ended {
        /// The device.
        name: String,
        /// What went away.
        cause: String,
    },
}

/// Runs the daemon in the foreground until SIGTERM or SIGINT; `ready` is told the one line to print.
///
/// # Errors
/// The configuration is not usable, a step of set-up failed, or the device was deleted under us.
pub fn run(options: &RunOptions, ready: impl FnOnce(&str)) -> Result<(), DaemonError> {
    let config = read_config(&options.config, &underlay_of)?;
    let socket = options
        .socket
        .clone()
        .unwrap_or_else(|| default_socket_path(&config.vtep.name));
    let mut daemon = setup::start(&config, &options.config, &socket)?;
    ready(&ready_line(&config, daemon.mtu_bytes, &socket));
    daemon.serve()
}

/// Reads a configuration, for the host whose underlay `underlay_of` tells.
pub(crate) fn read_config(path: &Path, underlay_of: UnderlayOf<'_>) -> Result<Config, DaemonError> {
    let text = config::read(path)?;
    Config::parse_on(&text, underlay_of).map_err(|errors| DaemonError::Config {
        path: path.to_owned(),
        errors,
    })
}

/// What is in the way of an answer is told by set-up, which asks again.
fn underlay_of(local: IpAddr) -> Option<Underlay> {
    underlay(&mut Netlink::open().ok()?, local).ok()?
}

fn ready_line(config: &Config, mtu_bytes: u32, socket: &Path) -> String {
    let vtep = &config.vtep;
    let mut line = format!(
        "{} ready: vni {} local {} port {}",
        vtep.name, vtep.vni, vtep.local, vtep.port
    );
    for address in &vtep.addresses {
        // Writing to a String cannot fail.
        let _ = write!(line, " address {address}");
    }
    let _ = write!(
        line,
        " mtu {mtu_bytes} lanes {} peers {} socket {}",
        vtep.lanes,
        config.peers.len(),
        socket.display()
    );
    line
}

/// A running daemon. Fields are dropped in this order: nobody changes tables or the device while the lanes end, and the name is given
/// back last.
struct Daemon {
    events: Receiver<Event>,
    _server: Server,
    _health: Option<HealthServer>,
    watch: WatchThread,
    signals: SignalThread,
    paths: Option<PathWatch>,
    express: Option<ExpressWatch>,
    workers: Workers,
    /// When to look for the threads next.
    roll_call: Instant,
    device: OwnedDevice,
    marks: Marks,
    mtu_bytes: u32,
    control: Arc<Control>,
    _lock: Lock,
}

impl Daemon {
    /// Waits for events until one ends the daemon.
    fn serve(&mut self) -> Result<(), DaemonError> {
        let mut schedule = Schedule::new(Instant::now());
        loop {
            match self.next_event(&schedule) {
                Some(Event::Stop) => return Ok(()),
                Some(Event::Reload) => self.reload(),
                Some(Event::DeviceChanged) => schedule.changed(Instant::now()),
                Some(Event::DeviceGone) => return Err(self.gone()),
                Some(Event::WatchFailed(error)) => return Err(error.into()),
                Some(Event::LaneEnded(index, error)) => {
                    return Err(self.ended(format_args!("lane {index}: {error}")));
                }
                None => self.look(&mut schedule)?,
            }
        }
    }

    /// Looks at what is due to be looked at.
    fn look(&mut self, schedule: &mut Schedule) -> Result<(), DaemonError> {
        let now = Instant::now();
        if self.roll_call <= now {
            self.roll_call = now + ROLL_CALL_EVERY;
            self.call_the_roll()?;
        }
        if self.marks.due().is_some_and(|due| due <= now) {
            self.marks.look(now);
        }
        if schedule.next().is_some_and(|due| due <= now) {
            let repaired = self.repair()?;
            schedule.looked(Instant::now(), repaired);
        }
        Ok(())
    }

    /// Ends the daemon if the kernel has ended a thread of it.
    fn call_the_roll(&self) -> Result<(), DaemonError> {
        let watches = [self.watch.thread(), self.signals.thread()].into_iter();
        let paths = self.paths.iter().map(PathWatch::thread);
        let express = self.express.iter().map(ExpressWatch::thread);
        let mut all = watches
            .chain(paths)
            .chain(express)
            .chain(self.workers.threads());
        match all.find(|thread| thread.was_killed()) {
            None => Ok(()),
            Some(thread) => Err(self.ended(format_args!(
                "the kernel ended the thread \"{}\" (its log, dmesg, tells why; start the daemon again)",
                thread.name()
            ))),
        }
    }

    /// The next event, or `None` when something is due to be looked at.
    fn next_event(&self, schedule: &Schedule) -> Option<Event> {
        let others = schedule.next().into_iter().chain(self.marks.due());
        let due = others.fold(self.roll_call, Instant::min);
        match self.events.recv_deadline(due) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            // The signal thread holds a sender for as long as we live, so this is not reached; ending is the safe answer.
            Err(RecvTimeoutError::Disconnected) => Some(Event::Stop),
        }
    }

    fn reload(&self) {
        match self.control.reload() {
            Ok(reloaded) => {
                tracing::info!("reload: {reloaded}");
                for warning in reloaded.warnings {
                    tracing::warn!("reload: {warning}");
                }
            }
            Err(failure) => tracing::error!("{failure}"),
        }
    }

    /// Makes the device what it should be; true if something was not. A step that fails is tried again at the next change.
    fn repair(&mut self) -> Result<bool, DaemonError> {
        match self.device.device.configure() {
            Ok(mended) => {
                for one in &mended {
                    tracing::warn!("repaired {}: {one}", self.device.name);
                }
                Ok(!mended.is_empty())
            }
            Err(DeviceError::Gone(_)) => Err(self.gone()),
            Err(DeviceError::Setup(error)) => {
                tracing::error!("repair: {error}");
                Ok(true)
            }
        }
    }

    fn gone(&self) -> DaemonError {
        self.ended(format_args!(
            "the TAP was deleted, or moved to another network namespace (start the daemon again)"
        ))
    }

    fn ended(&self, cause: std::fmt::Arguments<'_>) -> DaemonError {
        DaemonError::Ended {
            name: self.device.name.clone(),
            cause: cause.to_string(),
        }
    }
}

/// The device, removed when dropped unless it is to stay.
struct OwnedDevice {
    device: Device,
    name: String,
    keep: bool,
}

impl Drop for OwnedDevice {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Err(error) = self.device.remove() {
            tracing::error!("{error}");
        }
    }
}

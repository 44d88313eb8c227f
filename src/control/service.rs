//! [`Control`]: the directory, and what each change to it sets in motion. The socket server, SIGHUP and the poller of a controller call
//! the same methods.

mod containers;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::capture::CaptureStarted;
use super::config::{self, VtepConfig};
use super::effect::Use;
use super::policy::{self, DeniedReport, PolicyRow};
use super::protocol::{Applied, Failure, Reloaded, Reply, Request, Show};
use super::rows::{FdbRow, GroupRow, LinkRow, NeighRow, PeerRow, RouteRow};
use super::stats::{ExpressStats, PeerStats, Stats, per_lane};
use super::trace::{Sending, Trace, TraceRequest, View, trace};
use super::{Change, Config, Containers, Directory, Entry, Key, LinkSource, Origin, StateFile};
use crate::counters::Counters;
use crate::io::capture::{Capture, Filter, TooMany};
use crate::io::flows::Moment;
use crate::io::{Captures, Express, Guard};
use crate::tables::{Changed, CounterRegistry, Local, MarkSource, Peer, Tables};

/// Decides what the tables hold, and publishes them.
pub struct Control {
    vtep: VtepConfig,
    master: Mutex<Master>,
    tables: Arc<ArcSwap<Tables>>,
    options: Options,
}

/// What control works with beside the configuration.
pub struct Options {
    /// The device's counters, which the lanes write.
    pub counters: Arc<Counters>,
    /// The file that a reload reads.
    pub config_path: PathBuf,
    /// Where live entries are kept; `None`: they end with the process.
    pub state: Option<StateFile>,
    /// Tells what the kernel knows of the device.
    pub link: LinkSource,
    /// Where marks come from: as the configuration wants it, or as the host can.
    pub marks: MarkSource,
    /// What the lanes enforce a policy with.
    pub guard: Arc<Guard>,
    /// What this cell's containers are wired with, and found again by.
    pub containers: ContainerOptions,
    /// How the lanes send.
    pub sending: Sending,
    /// What the lanes show packets to.
    pub captures: Arc<Captures>,
    /// What forwards flows in the lanes' place, if anything does.
    pub express: Option<Arc<Express>>,
}

pub use containers::ContainerOptions;

/// What one request at a time may change.
struct Master {
    directory: Directory,
    registry: CounterRegistry,
    containers: Containers,
}

impl Control {
    /// Loads the live entries from disk and the peers and groups of `config`, and compiles the first snapshot. What had to be left out
    /// comes back as warnings, one line each; where a live entry and the configuration disagree, the live one stays.
    #[must_use]
    pub fn new(config: &Config, options: Options) -> (Self, Vec<String>) {
        let (live, damage) = options
            .state
            .as_ref()
            .map_or_else(Default::default, StateFile::load);
        let mut directory = Directory::new(&config.vtep);
        let (_, stale) = directory.restore(live);
        let (_, collisions) = directory.reload(config);
        let stale = stale.iter().map(|refusal| {
            format!("live entry left out, kept on disk until it is deleted: {refusal}")
        });
        let collisions = collisions.iter().map(left_out_of_config);
        let (containers, forgotten) = options.containers.restore(&config.vtep);
        let unkept = options.state.as_ref().map(StateFile::check);
        let unkept = unkept.and_then(|checked| checked.err().map(|error| error.to_string()));
        let warnings = damage.into_iter().chain(unkept);
        let warnings = warnings.chain(stale).chain(collisions);
        let use_of = Use {
            vtep: &config.vtep,
            marks: options.marks,
            regime: directory.regime(),
        };
        let idle = use_of.without_effect(directory.iter().map(|held| &held.entry));
        let warnings = warnings.chain(forgotten).chain(idle).collect();

        let mut registry = CounterRegistry::new(options.counters.lanes());
        let local = Local {
            marks: options.marks,
            ..config.local()
        };
        let tables = Tables::compile(Arc::new(local), &directory.spec(), &mut registry)
            .with_containers(containers.table());
        let control = Self {
            vtep: config.vtep.clone(),
            master: Mutex::new(Master {
                directory,
                registry,
                containers,
            }),
            tables: Arc::new(ArcSwap::from_pointee(tables)),
            options,
        };
        (control, warnings)
    }

    /// The snapshot that lanes load once per batch.
    #[must_use]
    pub fn tables(&self) -> &Arc<ArcSwap<Tables>> {
        &self.tables
    }

    /// What the lanes count in.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.options.counters
    }

    /// Answers one request of the socket.
    ///
    /// # Errors
    /// As the method that serves it.
    pub fn answer(&self, request: &Request) -> Result<Reply, Failure> {
        Ok(match request {
            Request::Show(show) => self.show(show),
            Request::RouteGet(destination) => Reply::Route(Box::new(self.route_get(*destination)?)),
            Request::Change(changes) => Reply::Applied(self.apply(changes, Origin::Live)?),
            Request::Link => Reply::Link(Box::new(self.link()?)),
            Request::Denied => Reply::Denied(self.denied()),
            Request::Stats => Reply::Stats(Box::new(self.stats())),
            Request::Reload => Reply::Reloaded(self.reload()?),
            Request::Network => Reply::Network(self.network()?),
            Request::Container(request) => self.container(request)?,
            Request::Trace(request) => Reply::Trace(Box::new(self.trace(request)?)),
            Request::Capture(_) => {
                return Err(Failure::new("a capture wants a connection of its own"));
            }
        })
    }

    /// The rows of one table, in the order of their keys.
    #[must_use]
    pub fn show(&self, show: &Show) -> Reply {
        let master = self.master.lock();
        let rows = master
            .directory
            .iter()
            .filter(|held| show.wants(&held.entry));
        let vtep = &self.vtep;
        match show {
            Show::Route(_) => {
                Reply::Routes(rows.filter_map(|held| RouteRow::new(held, vtep)).collect())
            }
            Show::Neigh(_) => {
                Reply::Neighbors(rows.filter_map(|held| NeighRow::new(held, vtep)).collect())
            }
            Show::Fdb(_) => Reply::Fdb(rows.filter_map(|held| FdbRow::new(held, vtep)).collect()),
            Show::Peer(_) => {
                let tables = self.tables.load();
                Reply::Peers(
                    rows.filter_map(|held| PeerRow::new(held, &tables))
                        .collect(),
                )
            }
            Show::Group(_) => Reply::Groups(rows.filter_map(GroupRow::new).collect()),
            Show::Policy(_) => Reply::Policy(rows.filter_map(PolicyRow::new).collect()),
        }
    }

    /// The route that a packet to `destination` takes, by the snapshot that lanes use.
    ///
    /// # Errors
    /// No route covers it, or it is local.
    pub fn route_get(&self, destination: IpAddr) -> Result<RouteRow, Failure> {
        // The lock keeps directory and snapshot of one age.
        let master = self.master.lock();
        let tables = self.tables.load();
        if tables.local.covers(destination) {
            return Err(Failure::new(format!(
                "no route to {destination}: it is this cell's own"
            )));
        }
        let prefix = tables.routes.lookup(destination).map(|route| route.prefix);
        let no_route = || Failure::new(format!("no route to {destination}"));
        let prefix = prefix.ok_or_else(no_route)?;
        let row = master.directory.lookup(&Key::Route(prefix));
        let row = row
            .and_then(|held| RouteRow::new(held, &self.vtep))
            .ok_or_else(no_route)?;
        Ok(row.for_destination(destination, prefix))
    }

    /// Takes all changes or none, in one swap.
    ///
    /// # Errors
    /// The first change that was refused, and its place.
    pub fn apply(&self, changes: &[Change], origin: Origin) -> Result<Applied, Failure> {
        let mut master = self.master.lock();
        let changed = master.directory.apply(changes, origin)?;
        self.publish(&mut master, changed);
        let saved = match origin {
            Origin::Live => self.save(&master.directory),
            Origin::Config | Origin::Controller => Ok(()),
        };
        let given = changes.iter().filter_map(|change| match change {
            Change::Add(entry) | Change::Replace(entry) => Some(entry),
            Change::Del(_) | Change::DelExact(_) => None,
        });
        let idle = self.use_of(&master).without_effect(given);
        Ok(Applied {
            changes: changes.len(),
            warnings: saved.err().into_iter().chain(idle).collect(),
        })
    }

    /// Reads the configuration file again and replaces the entries that came from it. `[vtep]` takes effect at a restart only.
    ///
    /// # Errors
    /// The file cannot be read, has errors, or has entries for another `[vtep]` than the one that runs, all of them; nothing changed.
    pub fn reload(&self) -> Result<Reloaded, Failure> {
        // Locked before the file is read: of two reloads at once the later one reads the newer file.
        let mut master = self.master.lock();
        let path = &self.options.config_path;
        let failure = |cause: &dyn std::fmt::Display| {
            Failure::new(format!("reload: nothing was changed: {cause}"))
        };
        let text = config::read(path).map_err(|error| failure(&error))?;
        let config = Config::parse(&text).map_err(|errors| {
            failure(&format_args!(
                "configuration {} is not usable:\n{errors}",
                path.display()
            ))
        })?;
        let misfits = master.directory.misfits(&config);
        if !misfits.is_empty() {
            // The file agrees with itself. Taking what fits would leave the overlay that runs without its peers.
            return Err(failure(&misfits_told(path, &misfits)));
        }

        let (differs, collisions) = master.directory.reload(&config);
        self.publish(&mut master, differs);
        let given: Vec<Entry> = config.entries().collect();
        let idle = self.use_of(&master).without_effect(given.iter());
        let policy = policy::told(master.directory.regime());
        drop(master);
        let changed = config.vtep != self.vtep;
        let restart = changed.then(|| "[vtep] changed: restart to use it".to_owned());
        let resized = config.policy.flows != *self.options.guard.flows.limits();
        let resized = resized.then(|| "[policy.flows] changed: restart to use it".to_owned());
        Ok(Reloaded {
            peers: config.peers.len(),
            groups: config.groups.len(),
            rules: config.policy.rules.len(),
            policy,
            warnings: restart
                .into_iter()
                .chain(resized)
                .chain(collisions.iter().map(left_out_of_config))
                .chain(idle)
                .collect(),
        })
    }

    /// Whom policy refused, and at whom, since the start.
    #[must_use]
    pub fn denied(&self) -> DeniedReport {
        let regime = self.master.lock().directory.regime().copied();
        DeniedReport::new(&self.options.guard, self.moment(), regime.as_ref())
    }

    fn moment(&self) -> Moment {
        self.options.guard.flows.moment(Instant::now())
    }

    /// The counters of all lanes and peers.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let tables = self.tables.load_full();
        let forwarded = self
            .options
            .express
            .as_ref()
            .map(|express| express.collect(&self.options.counters, &tables));
        let master = self.master.lock();
        let mut peers: Vec<_> = tables
            .peers
            .iter()
            .map(|peer| peer_stats(peer, &master.directory))
            .collect();
        drop(master);
        peers.sort_unstable_by_key(|peer| peer.underlay);
        Stats {
            ifname: self.vtep.name.clone(),
            total: self.options.counters.totals().into(),
            lanes: per_lane(&self.options.counters),
            peers,
            flows: (tables.policy.is_some())
                .then(|| self.options.guard.flows.counts(self.moment()).into()),
            express: forwarded.map(|count| ExpressStats {
                tx_packets: count.packets,
                tx_bytes: count.bytes,
            }),
        }
    }

    /// The device.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn link(&self) -> Result<LinkRow, Failure> {
        let facts = (self.options.link)().map_err(Failure::new)?;
        let policy = policy::told(self.master.lock().directory.regime());
        Ok(LinkRow::new(facts, &self.vtep, policy))
    }

    /// The walk of one imagined packet, by the snapshot that lanes use.
    ///
    /// # Errors
    /// The request contradicts itself or the device.
    pub fn trace(&self, request: &TraceRequest) -> Result<Trace, Failure> {
        // The lock keeps directory and snapshot of one age.
        let master = self.master.lock();
        let view = View {
            vtep: &self.vtep,
            directory: &master.directory,
            tables: &self.tables.load(),
            sending: &self.options.sending,
        };
        trace(&view, request)
    }

    /// Begins to capture, in all lanes.
    ///
    /// # Errors
    /// As many captures run as may.
    pub(super) fn start_capture(&self, filter: Filter, snap: usize) -> Result<Capture, TooMany> {
        let lanes = self.options.counters.lanes();
        let capture = self.options.captures.start(lanes, filter, snap)?;
        // From now on the lanes are to see every packet.
        self.renew_express();
        Ok(capture)
    }

    /// What a client is told when its capture begins.
    pub(super) fn capture_started(&self, capture: &Capture) -> CaptureStarted {
        CaptureStarted {
            ifname: self.vtep.name.clone(),
            local: self.vtep.local,
            port: self.vtep.port,
            snap: capture.snap_bytes(),
        }
    }

    /// Compiles what changed and swaps it in: the moment at which all lanes' next batch sees it.
    fn publish(&self, master: &mut Master, changed: Changed) {
        if changed == Changed::default() {
            return;
        }
        let spec = master.directory.spec();
        let next = Arc::new(
            self.tables
                .load()
                .update(&spec, changed, &mut master.registry),
        );
        if self.tables.load().policy.is_none() && next.policy.is_some() {
            self.options.guard.begin(Instant::now());
        }
        self.tables.store(Arc::clone(&next));
        self.renew_express();
        master.registry.retain(&next.peers);
    }

    /// Takes back what was decided by the tables before, or while nobody captured.
    fn renew_express(&self) {
        if let Some(express) = &self.options.express {
            express.renew(&self.tables);
        }
    }

    /// What entries are looked at for.
    fn use_of<'a>(&'a self, master: &'a Master) -> Use<'a> {
        Use {
            vtep: &self.vtep,
            marks: self.options.marks,
            regime: master.directory.regime(),
        }
    }

    fn save(&self, directory: &Directory) -> Result<(), String> {
        let Some(state) = &self.options.state else {
            return Ok(());
        };
        let live: Vec<_> = directory.live().collect();
        state
            .save(&live)
            .map_err(|error| format!("changed, but not for the next start: {error}"))
    }
}

fn misfits_told(path: &Path, misfits: &[super::Refusal]) -> String {
    let told = format!(
        "configuration {} has entries for another [vtep] than the one that is running (restart to use the new one):",
        path.display()
    );
    misfits
        .iter()
        .fold(told, |told, misfit| format!("{told}\n{misfit}"))
}

fn left_out_of_config(refusal: &super::Refusal) -> String {
    format!("entry of the configuration left out: {refusal}")
}

fn peer_stats(peer: &Peer, directory: &Directory) -> PeerStats {
    let subnets = match directory
        .lookup(&Key::Peer(peer.underlay))
        .map(|held| &held.entry)
    {
        Some(Entry::Peer(spec)) => spec.subnets.clone(),
        _ => Vec::new(),
    };
    PeerStats {
        underlay: peer.underlay,
        subnets,
        udp_gso_refused: peer.segmentation.is_refused(),
        count: peer.counters.totals().into(),
    }
}

#[cfg(test)]
mod tests;

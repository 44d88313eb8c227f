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
use super::policy::{self, DeniedReport, PolicyRow};
use super::protocol::{Applied, Failure, Reloaded, Reply, Request, Show};
use super::rows::{FdbRow, GroupRow, LinkRow, NeighRow, PeerRow, RouteRow};
use super::stats::{PeerStats, Stats, per_lane};
use super::trace::{Sending, Trace, TraceRequest, View, trace};
use super::{Change, Config, Containers, Directory, Entry, Key, LinkSource, Origin, StateFile};
use crate::counters::Counters;
use crate::io::capture::{Capture, Filter, TooMany};
use crate::io::flows::Moment;
use crate::io::{Captures, Guard};
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
        let has_groups = directory.iter().any(|held| is_group(&held.entry));
        let unused = has_groups.then(|| unused_groups(options.marks, config.vtep.gbp));
        let unused = unused.flatten();
        let (containers, forgotten) = options.containers.restore(&config.vtep);
        let warnings = damage.into_iter().chain(stale).chain(collisions);
        let rules = directory.iter().map(|held| &held.entry);
        let idle = policy::idle_rules(rules, directory.regime(), &config.vtep);
        let warnings = warnings
            .chain(unused)
            .chain(forgotten)
            .chain(idle)
            .collect();

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
        let gives_groups = given.clone().any(is_group);
        let unused = gives_groups.then(|| unused_groups(self.options.marks, self.vtep.gbp));
        let idle = policy::idle_rules(given, master.directory.regime(), &self.vtep);
        Ok(Applied {
            changes: changes.len(),
            warnings: (saved.err().into_iter())
                .chain(unused.flatten())
                .chain(idle)
                .collect(),
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
        drop(master);
        let changed = config.vtep != self.vtep;
        let restart = changed.then(|| "[vtep] changed: restart to use it".to_owned());
        let resized = config.policy.flows != *self.options.guard.flows.limits();
        let resized = resized.then(|| "[policy.flows] changed: restart to use it".to_owned());
        let rules: Vec<Entry> = config.entries().collect();
        let regime = config.policy.enforced();
        let idle = policy::idle_rules(rules.iter(), regime.as_ref(), &self.vtep);
        let has_groups = !config.groups.is_empty();
        let unused = has_groups.then(|| unused_groups(self.options.marks, self.vtep.gbp));
        Ok(Reloaded {
            peers: config.peers.len(),
            groups: config.groups.len(),
            rules: config.policy.rules.len(),
            warnings: restart
                .into_iter()
                .chain(resized)
                .chain(collisions.iter().map(left_out_of_config))
                .chain(unused.flatten())
                .chain(idle)
                .collect(),
        })
    }

    /// Whom policy refused, and at whom, since the start.
    #[must_use]
    pub fn denied(&self) -> DeniedReport {
        DeniedReport::new(&self.options.guard, self.moment())
    }

    fn moment(&self) -> Moment {
        self.options.guard.flows.moment(Instant::now())
    }

    /// The counters of all lanes and peers.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let tables = self.tables.load_full();
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
        self.options.captures.start(lanes, filter, snap)
    }

    /// What a client is told of the device when its capture begins.
    pub(super) fn capture_started(&self) -> CaptureStarted {
        CaptureStarted {
            ifname: self.vtep.name.clone(),
            local: self.vtep.local,
            port: self.vtep.port,
            snap: 0,
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
        self.tables.store(Arc::clone(&next));
        master.registry.retain(&next.peers);
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

fn is_group(entry: &Entry) -> bool {
    matches!(entry, Entry::Group { .. })
}

/// Told to who gives groups that nobody looks up.
fn unused_groups(marks: MarkSource, gbp: bool) -> Option<String> {
    let table = "set marks = \"table\" and restart to use it";
    let (instead, mend) = match marks {
        MarkSource::Table => return None,
        MarkSource::Packet => ("packets bring their own marks (marks = \"bpf\")", table),
        MarkSource::Off if gbp => ("no groups are sent (marks = \"off\")", table),
        MarkSource::Off => (
            "no groups are sent (gbp = false)",
            "set gbp = true and marks = \"table\" and restart to use it",
        ),
    };
    Some(format!(
        "the group table is without effect: {instead}; {mend}"
    ))
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
mod tests {
    use super::*;
    use crate::DropReason;
    use crate::control::fixtures::{self, CONFIG, group, ip, peer, peers};
    use crate::tables::Destination;

    fn start() -> (tempfile::TempDir, Arc<Control>) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (control, warnings) = fixtures::control(directory.path());
        assert_eq!(warnings, [""; 0]);
        (directory, control)
    }

    fn add(control: &Control, entry: Entry) {
        let applied = control
            .apply(&[Change::Add(entry)], Origin::Live)
            .expect("nothing is in its way");
        assert_eq!(applied.warnings, [""; 0]);
    }

    fn destination(tables: &Tables, address: &str) -> Option<Destination> {
        let next_hop = tables.routes.lookup(ip(address))?.next_hop(ip(address));
        tables
            .fdb
            .lookup(tables.neighbors.lookup(next_hop)?)
            .first()
            .cloned()
    }

    #[test]
    fn a_peer_is_in_the_next_snapshot_and_not_in_the_last() {
        let (_directory, control) = start();
        let before = control.tables().load_full();
        add(&control, peer("10.255.44.0/24", "10.0.16.15"));
        assert!(destination(&before, "10.255.44.7").is_none());
        let after = destination(&control.tables().load(), "10.255.44.7").expect("routed");
        assert_eq!(after.underlay.to_string(), "10.0.16.15:4789");
    }

    #[test]
    fn a_peer_shows_what_its_path_carries_while_that_is_less() {
        let (_directory, control) = start();
        let shown = || match control.show(&Show::Peer(None)) {
            Reply::Peers(rows) => rows[0].mtu,
            other => panic!("{other:?}"),
        };
        let tables = control.tables().load_full();
        let peer = tables.peers.lookup(ip("10.0.16.14")).expect("configured");
        assert_eq!(shown(), None);
        peer.path_mtu.set_limit(Some(1350));
        assert_eq!(shown(), Some(1350));
        peer.path_mtu.set_limit(None);
        assert_eq!(shown(), None);
    }

    #[test]
    fn a_change_that_changes_nothing_swaps_nothing() {
        let (_directory, control) = start();
        let before = control.tables().load_full();
        let same = [Change::Replace(peer("10.255.43.0/24", "10.0.16.14"))];
        control
            .apply(&same, Origin::Live)
            .expect("it is there as it is");
        assert!(Arc::ptr_eq(&before, &control.tables().load()));
    }

    #[test]
    fn counters_outlive_a_change_of_their_peer() {
        let (_directory, control) = start();
        let tables = control.tables().load_full();
        let told = destination(&tables, "10.255.43.7").expect("routed");
        told.peer.counters.lane(1).count_tx(1, 98);
        told.peer.counters.lane(0).count_drop(DropReason::TooBig);
        let moved = [Change::Replace(peer("10.255.45.0/24", "10.0.16.14"))];
        control
            .apply(&moved, Origin::Live)
            .expect("nothing is in its way");
        let stats = control.stats();
        let peer = &stats.peers[0];
        assert_eq!(
            (
                peer.count.tx_packets,
                peer.count.tx_bytes,
                peer.count.dropped()
            ),
            (1, 98, 1)
        );
        assert_eq!(peer.subnets, ["10.255.45.0/24".parse().expect("a prefix")]);
        assert_eq!(stats.lanes.len(), 2);
    }

    #[test]
    fn live_entries_are_there_after_a_restart() {
        let (directory, control) = start();
        add(&control, peer("10.255.44.0/24", "10.0.16.15"));
        drop(control);
        let (control, warnings) = fixtures::control(directory.path());
        assert_eq!(warnings, [""; 0]);
        assert!(destination(&control.tables().load(), "10.255.44.7").is_some());
    }

    #[test]
    fn a_live_entry_that_meets_another_configuration_stays_and_is_told() {
        let (directory, control) = start();
        let moved = [Change::Replace(peer("10.255.45.0/24", "10.0.16.14"))];
        control
            .apply(&moved, Origin::Live)
            .expect("nothing is in its way");
        let (control, warnings) = fixtures::control(directory.path());
        assert_eq!(
            warnings,
            ["entry of the configuration left out: peer 10.0.16.14 exists already (live)"]
        );
        assert!(destination(&control.tables().load(), "10.255.45.7").is_some());
    }

    #[test]
    fn live_entries_left_out_at_a_start_outlive_the_next_change() {
        let (directory, control) = start();
        drop(control);
        let elsewhere = peer("10.254.44.0/24", "10.0.16.15");
        let state = StateFile::new(directory.path().join("live.json"));
        state.save(&[&elsewhere]).expect("the directory is ours");
        let (control, warnings) = fixtures::control(directory.path());
        let told = "live entry left out, kept on disk until it is deleted: peer 10.0.16.15: ";
        assert!(warnings[0].starts_with(told), "{warnings:?}");
        let group = group("10.255.108.7", 5);
        add(&control, group.clone());
        assert_eq!(state.load(), (vec![group.clone(), elsewhere.clone()], None));
        let forgotten = control.apply(&[Change::Del(elsewhere.key())], Origin::Live);
        assert_eq!(forgotten.expect("it is on disk").warnings, [""; 0]);
        assert_eq!(state.load(), (vec![group], None));
    }

    #[test]
    fn live_entries_that_cannot_be_saved_are_a_warning() {
        let (directory, control) = start();
        std::fs::create_dir(directory.path().join("live.json.tmp")).expect("the directory is ours");
        let applied = control
            .apply(&[Change::Add(group("10.255.108.7", 5))], Origin::Live)
            .expect("taken");
        assert!(
            applied.warnings[0]
                .starts_with("changed, but not for the next start: write live entries")
        );
        assert_eq!(
            control.tables().load().groups.lookup(ip("10.255.108.7")),
            Some(crate::wire::GroupId(5))
        );
    }

    #[test]
    fn a_reload_takes_the_new_peers_and_keeps_the_live_ones() {
        let (directory, control) = start();
        add(&control, peer("10.255.44.0/24", "10.0.16.15"));
        let next = CONFIG.replace("10.255.43.0", "10.255.45.0");
        std::fs::write(directory.path().join("silk-vtep.toml"), format!("\n{next}"))
            .expect("the directory is ours");
        let reloaded = control.reload().expect("a good file");
        assert_eq!(
            (reloaded.peers, reloaded.groups, reloaded.warnings),
            (1, 1, vec![])
        );
        let tables = control.tables().load();
        let routed = ["10.255.43.7", "10.255.44.7", "10.255.45.7"]
            .map(|address| destination(&tables, address).is_some());
        assert_eq!(routed, [false, true, true]);
    }

    #[test]
    fn a_reload_of_a_bad_file_changes_nothing_and_tells_every_error() {
        let (directory, control) = start();
        let before = control.tables().load_full();
        let bad = CONFIG.replace("id = 3", "id = 0").replace("lanes", "lane");
        std::fs::write(directory.path().join("silk-vtep.toml"), bad)
            .expect("the directory is ours");
        let message = control.reload().expect_err("two errors").message;
        assert!(
            message.contains("vtep.lane") && message.contains("group[0].id"),
            "{message}"
        );
        assert!(Arc::ptr_eq(&before, &control.tables().load()));
    }

    #[test]
    fn a_reload_of_entries_for_another_vtep_changes_nothing() {
        let (directory, control) = start();
        let before = control.tables().load_full();
        // The file agrees with itself, but not with the device that runs.
        let moved = CONFIG.replace("10.255.", "10.254.");
        std::fs::write(directory.path().join("silk-vtep.toml"), moved)
            .expect("the directory is ours");
        let message = control.reload().expect_err("another overlay").message;
        for told in [
            " has entries for another [vtep] than the one that is running (restart",
            "\npeer 10.0.16.14: 10.254.43.0/24 is inside no overlay",
            "\ngroup 10.254.108.184: ",
        ] {
            assert!(message.contains(told), "{message}");
        }
        assert!(Arc::ptr_eq(&before, &control.tables().load()));
        assert!(destination(&before, "10.255.43.7").is_some());
    }

    #[test]
    fn a_reload_of_a_file_that_is_no_good_changes_nothing_and_says_why() {
        let (directory, control) = start();
        let before = control.tables().load_full();
        let path = directory.path().join("silk-vtep.toml");
        let name = path.display();
        let reload = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("the directory is ours");
            control.reload().expect_err("no good").message
        };
        let begin = "reload: nothing was changed: ";
        assert_eq!(
            reload(b"[vtep]\nname = \"\xe9\"\n"),
            format!(
                "{begin}read configuration {name}: line 2 is not UTF-8 (TOML is text in UTF-8: save it so)"
            )
        );
        let told = reload(CONFIG.replace("lanes = 2", "lane = 2").as_bytes());
        let usable = format!("{begin}configuration {name} is not usable:\nline ");
        assert!(told.starts_with(&usable), "{told}");
        assert!(told.contains("did you mean `lanes`?"), "{told}");
        assert!(Arc::ptr_eq(&before, &control.tables().load()));
    }

    #[test]
    fn a_reload_says_that_the_device_changes_at_a_restart() {
        let (directory, control) = start();
        let next = CONFIG.replace("lanes = 2", "lanes = 1");
        std::fs::write(directory.path().join("silk-vtep.toml"), next)
            .expect("the directory is ours");
        assert_eq!(
            control.reload().expect("a good file").warnings,
            ["[vtep] changed: restart to use it"]
        );
    }

    #[test]
    fn route_get_tells_the_longest_match_or_why_there_is_none() {
        let (_directory, control) = start();
        add(&control, fixtures::route("10.255.0.0/16", "10.255.43.0"));
        let row = control.route_get(ip("10.255.43.6")).expect("routed");
        assert_eq!(
            (row.dst.as_str(), row.gateway),
            ("10.255.43.6", Some(ip("10.255.43.0")))
        );
        assert_eq!(
            row.matched,
            Some("10.255.43.0/24".parse().expect("a prefix"))
        );
        let own = control
            .route_get(ip("10.255.108.7"))
            .expect_err("ours")
            .message;
        assert_eq!(own, "no route to 10.255.108.7: it is this cell's own");
        assert_eq!(
            control
                .route_get(ip("fd00::1"))
                .expect_err("no route")
                .message,
            "no route to fd00::1"
        );
    }

    #[test]
    fn groups_that_nobody_looks_up_are_told_whoever_gives_them() {
        let table = "; set marks = \"table\" and restart to use it";
        let gbp = "; set gbp = true and marks = \"table\" and restart to use it";
        for (keys, told, mend) in [
            ("marks = \"bpf\"", "packets bring their own marks", table),
            ("marks = \"off\"", "no groups are sent (marks = ", table),
            ("gbp = false", "no groups are sent (gbp = false)", gbp),
        ] {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let text = CONFIG.replace("lanes = 2", &format!("lanes = 2\n{keys}"));
            let (control, warnings) = fixtures::control_of(&text, directory.path());
            let added = control.apply(&[Change::Add(group("10.255.108.7", 5))], Origin::Live);
            let reloaded = control.reload().expect("a good file");
            for warnings in [
                warnings,
                added.expect("taken all the same").warnings,
                reloaded.warnings,
            ] {
                assert_eq!(warnings.len(), 1, "{warnings:?}");
                assert!(
                    warnings[0].starts_with("the group table is without effect: ")
                        && warnings[0].contains(told)
                        && warnings[0].ends_with(mend),
                    "{warnings:?}"
                );
            }
            let other = control.apply(
                &[Change::Add(peer("10.255.44.0/24", "10.0.16.15"))],
                Origin::Live,
            );
            assert_eq!(other.expect("taken").warnings, [""; 0]);
        }
    }

    fn rule(dst: &str) -> Entry {
        Entry::Policy {
            dst: dst.parse().expect("the test wrote a prefix"),
            group: crate::wire::GroupId(3),
            proto: crate::tables::policy::Proto::Tcp,
            ports: crate::tables::policy::Ports::ALL,
            action: crate::tables::policy::Action::Accept,
        }
    }

    #[test]
    fn rules_are_enforced_as_the_file_says_and_told_if_not() {
        let (directory, control) = start();
        assert!(control.tables().load().policy.is_none());
        let added = control.apply(&[Change::Add(rule("10.255.108.7/32"))], Origin::Live);
        let warnings = added.expect("taken all the same").warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].starts_with("the rules are without effect: policy is not enforced"));
        assert!(control.tables().load().policy.is_none());

        let text = format!("{CONFIG}[policy]\nenforce = true\n");
        std::fs::write(directory.path().join("silk-vtep.toml"), &text)
            .expect("the directory is ours");
        let reloaded = control.reload().expect("a good file");
        assert_eq!((reloaded.rules, reloaded.warnings), (0, vec![]));
        let policy = control.tables().load().policy.clone().expect("enforced");
        assert_eq!(policy.rules().len(), 1, "the live rule");

        let resized = format!(
            "{text}[policy.flows]\nsize = 64\n[[policy.rule]]\ndst = \"10.255.43.6\"\ngroup = 3\nproto = \"tcp\"\n"
        );
        std::fs::write(directory.path().join("silk-vtep.toml"), resized)
            .expect("the directory is ours");
        let reloaded = control.reload().expect("a good file");
        assert_eq!(reloaded.rules, 1);
        let [flows, elsewhere] = &reloaded.warnings[..] else {
            panic!("{:?}", reloaded.warnings);
        };
        assert_eq!(flows, "[policy.flows] changed: restart to use it");
        assert!(
            elsewhere.starts_with("1 of the rules given are for no address of this cell"),
            "{elsewhere}"
        );
    }

    #[test]
    fn a_change_of_other_tables_leaves_the_policy_as_it_is() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let text = format!("{CONFIG}[policy]\nenforce = true\n");
        let (control, warnings) = fixtures::control_of(&text, directory.path());
        assert_eq!(warnings, [""; 0]);
        let policy = || control.tables().load().policy.clone().expect("enforced");
        let before = policy();
        add(&control, peer("10.255.44.0/24", "10.0.16.15"));
        assert!(Arc::ptr_eq(&before, &policy()));
        let many: Vec<_> = (0..20_000_u32)
            .map(|n| rule(&format!("fd00::{n:x}/128")))
            .map(Change::Add)
            .collect();
        let applied = control.apply(&many, Origin::Live).expect("taken");
        assert_eq!(applied.changes, 20_000);
        assert_eq!(policy().rules().len(), 20_000);
        assert_eq!(
            before.rules().len(),
            0,
            "who has the old one goes on with it"
        );
    }

    #[test]
    fn a_batch_of_many_peers_is_one_snapshot() {
        let (_directory, control) = start();
        let changes: Vec<_> = peers(10_000).map(Change::Add).collect();
        assert_eq!(
            control
                .apply(&changes, Origin::Live)
                .expect("taken")
                .changes,
            10_000
        );
        assert_eq!(control.tables().load().peers.iter().count(), 10_001);
    }
}

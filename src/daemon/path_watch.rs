//! The thread that finds out what the paths to the peers carry.
//!
//! The sockets that send with DF, or over IPv6, are deaf to what ICMP makes the kernel believe, or anybody could throttle a peer with one
//! forged message. So this thread asks the kernel, once a second for each peer that something is sent to, what its route carries (IP_MTU),
//! and has probes confirm whatever is less than the device promises. What they confirm it leaves in the peer's
//! [`PathMtu`](crate::tables::PathMtu), where the lanes read it. Probes also tell when a path is wide again.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use super::paths::{Answer, Finding, Paths};
use super::thread::Thread;
use super::untold::Untold;
use crate::control::config::{VtepConfig, carried_bytes, overhead_bytes};
use crate::error::SetupError;
use crate::io::{PathProbe, RouteMtu};
use crate::tables::{Df, Peer, Tables};

/// How often paths are looked at.
const TICK: Duration = Duration::from_secs(1);
/// Routes looked up in one tick at the most, a few microseconds each; the next tick goes on behind them.
const LOOKS_MAX: usize = 1024;
/// Peers probed at once at the most.
const ROUNDS_MAX: usize = 64;
/// Probes of one round, each from a port of its own: where several paths lead to a peer they take different ones.
const PROBES_EACH: usize = 3;
/// How long an answer may take: a way around the earth and back, and some.
const PATIENCE: Duration = Duration::from_secs(1);

const STOP: Token = Token(0);
const PROBE: Token = Token(1);

/// The thread; ends when dropped.
pub(super) struct PathWatch {
    /// Before the waker: closing that takes back a wake-up that was not heard yet.
    thread: Thread,
    waker: Waker,
}

impl PathWatch {
    /// Watches the paths of all peers of `tables`, if any can be too narrow: what is fragmented on its way fits everywhere. `mtu_bytes` is
    /// the device's.
    ///
    /// # Errors
    /// No descriptor or thread is left.
    pub(super) fn start(
        vtep: &VtepConfig,
        mtu_bytes: u32,
        tables: &Arc<ArcSwap<Tables>>,
    ) -> Result<Option<Self>, SetupError> {
        if vtep.local.is_ipv4() && vtep.outer.df == Df::Unset {
            return Ok(None);
        }
        let failed = |error: io::Error| SetupError::system("watch", "the peers' paths", &error);
        let poll = Poll::new().map_err(failed)?;
        let waker = Waker::new(poll.registry(), STOP).map_err(failed)?;
        let routes = RouteMtu::open(vtep.local).map_err(failed)?;
        let watch = Watch {
            poll,
            tables: Arc::clone(tables),
            local: vtep.local,
            port: vtep.port,
            full: mtu_bytes + overhead_bytes(vtep.local),
            paths: Paths::new(mtu_bytes + overhead_bytes(vtep.local)),
            routes,
            untold: Untold::new(vtep.addresses.iter().any(IpAddr::is_ipv6)),
            sent: HashMap::new(),
            position: 0,
        };
        let thread = Thread::spawn("paths", move || watch.run())?;
        Ok(Some(Self { waker, thread }))
    }

    pub(super) fn thread(&self) -> &Thread {
        &self.thread
    }
}

impl Drop for PathWatch {
    fn drop(&mut self) {
        // If it cannot be woken it has already ended.
        let _ = self.waker.wake();
    }
}

struct Watch {
    poll: Poll,
    tables: Arc<ArcSwap<Tables>>,
    local: IpAddr,
    port: u16,
    /// The largest packet that is ever sent.
    full: u32,
    paths: Paths,
    routes: RouteMtu,
    untold: Untold,
    /// Packets sent to each peer when it was last looked at.
    sent: HashMap<IpAddr, u64>,
    /// Where the next tick begins.
    position: usize,
}

/// The watch is asked to end.
struct Stopped;

/// One peer that is probed.
struct Round {
    peer: Arc<Peer>,
    claim: Option<u32>,
    probes: Vec<PathProbe>,
    /// The least that was answered.
    least: Option<u32>,
    /// Packets received from the peer when the probes were sent.
    received: u64,
}

impl Round {
    fn answer(&self) -> Answer {
        match self.least {
            Some(least) => Answer::Carries(least),
            None if self.peer.counters.rx_packets() != self.received => Answer::Silence,
            None => Answer::Unheard,
        }
    }
}

impl Watch {
    fn run(mut self) {
        while self.wait(Instant::now() + TICK).is_ok() {
            let tables = self.tables.load_full();
            if self.look(&tables).is_err() {
                return;
            }
        }
    }

    /// Waits until `deadline`.
    fn wait(&mut self, deadline: Instant) -> Result<(), Stopped> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.wait_for_event(left)?;
        }
    }

    /// Waits for an event, for some time.
    fn wait_for_event(&mut self, patience: Duration) -> Result<(), Stopped> {
        let mut events = Events::with_capacity(16);
        match self.poll.poll(&mut events, Some(patience)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(Stopped),
            _ if events.iter().any(|event| event.token() == STOP) => Err(Stopped),
            _ => Ok(()),
        }
    }

    fn look(&mut self, tables: &Tables) -> Result<(), Stopped> {
        let mut rounds = self.wanted(tables);
        if !rounds.is_empty() {
            self.collect(&mut rounds)?;
        }
        for round in rounds {
            self.settle(&round);
        }
        // A peer that was deleted and came back meanwhile knows nothing of it.
        for (peer, path) in self.paths.narrow() {
            if let Some(peer) = tables.peers.lookup(peer) {
                let limit = carried_bytes(self.local, path);
                peer.path_mtu.set_limit(Some(limit));
            }
        }
        Ok(())
    }

    /// Sends the probes of every peer that needs some.
    fn wanted(&mut self, tables: &Tables) -> Vec<Round> {
        let now = Instant::now();
        let is_peer = |peer: IpAddr| tables.peers.find(peer).is_some();
        self.paths.retain(is_peer);
        self.untold.retain(is_peer);
        self.sent.retain(|&peer, _| is_peer(peer));
        let peers: Vec<_> = tables.peers.iter().collect();
        let start = self.position.min(peers.len());
        let (before, behind) = peers.split_at(start);
        let (mut looks, mut rounds) = (0, Vec::new());
        for (offset, peer) in behind.iter().chain(before).enumerate() {
            if looks == LOOKS_MAX || rounds.len() == ROUNDS_MAX {
                self.position = (start + offset) % peers.len();
                break;
            }
            let sent = peer.counters.tx_packets();
            let is_active = self.sent.insert(peer.underlay, sent) != Some(sent);
            let was_refused = peer.path_mtu.take_refused();
            let is_narrow = self.paths.is_narrow(peer.underlay);
            if !is_narrow {
                // One may be left of a peer that was deleted and is back, while a snapshot from before is held.
                peer.path_mtu.set_limit(None);
            }
            if !is_active && !was_refused && !is_narrow {
                continue;
            }
            looks += 1;
            let claim = self
                .routes
                .to(SocketAddr::new(peer.underlay, self.port))
                .ok();
            if self.paths.wants_probe(peer.underlay, claim, now) {
                rounds.extend(self.probe(peer, claim));
            }
        }
        rounds
    }

    /// Sends the probes that tell. `None` if none could be sent: then nothing is known that was not before.
    fn probe(&self, peer: &Arc<Peer>, claim: Option<u32>) -> Option<Round> {
        let to = SocketAddr::new(peer.underlay, self.port);
        let received = peer.counters.rx_packets();
        let sizes = self.paths.sizes(peer.underlay, claim);
        let each = sizes.flat_map(|bytes| [bytes; PROBES_EACH]);
        let probes = each.filter_map(|bytes| {
            let probe = PathProbe::send(self.local, to, bytes).ok()?;
            let fd = probe.as_raw_fd();
            let registry = self.poll.registry();
            let registered = registry.register(&mut SourceFd(&fd), PROBE, Interest::READABLE);
            registered.is_ok().then_some(probe)
        });
        let probes: Vec<PathProbe> = probes.collect();
        (!probes.is_empty()).then(|| Round {
            peer: Arc::clone(peer),
            claim,
            probes,
            least: None,
            received,
        })
    }

    /// Waits until every probe has an answer or patience ends: several paths may lead to a peer, and several links along each be narrow.
    fn collect(&mut self, rounds: &mut [Round]) -> Result<(), Stopped> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for Round { probes, least, .. } in &mut *rounds {
                probes.retain(|probe| {
                    let told = probe.answer();
                    *least = told.into_iter().chain(*least).min();
                    told.is_none()
                });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || rounds.iter().all(|round| round.probes.is_empty()) {
                return Ok(());
            }
            self.wait_for_event(left)?;
        }
    }

    fn settle(&mut self, round: &Round) {
        let Round { peer, claim, .. } = round;
        let underlay = peer.underlay;
        let answer = round.answer();
        match self.paths.settle(underlay, *claim, answer, Instant::now()) {
            Finding::Unchanged => {}
            Finding::Narrow(path) => {
                let limit = carried_bytes(self.local, path);
                tracing::info!("the path to {underlay} carries {path} bytes: MTU {limit} for it");
                if let Some(warning) = self.untold.warning(underlay, limit) {
                    tracing::warn!("{warning}");
                }
                peer.path_mtu.set_limit(Some(limit));
            }
            Finding::Wide => {
                tracing::info!("the path to {underlay} carries {} bytes again", self.full);
                peer.path_mtu.set_limit(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::tables::CounterRegistry;
    use crate::vtep::fixture::{self, PEER_UNDERLAY};

    fn watch() -> Watch {
        let local = Ipv4Addr::LOCALHOST.into();
        Watch {
            poll: Poll::new().expect("a descriptor is left"),
            tables: Arc::new(ArcSwap::from_pointee(fixture::tables())),
            local,
            port: 4789,
            full: 1500,
            paths: Paths::new(1500),
            routes: RouteMtu::open(local).expect("loopback has a free port"),
            untold: Untold::new(false),
            sent: HashMap::new(),
            position: 0,
        }
    }

    #[test]
    fn a_peer_that_comes_back_does_not_inherit_what_its_path_carried() {
        let mut watch = watch();
        let mut registry = CounterRegistry::new(1);
        let local = Arc::new(fixture::local());
        let compile = |registry: &mut CounterRegistry, spec: &_| {
            let tables = Tables::compile(Arc::clone(&local), spec, registry);
            registry.retain(&tables.peers);
            tables
        };
        let limit = |tables: &Tables| {
            let peer = tables.peers.lookup(PEER_UNDERLAY).expect("a peer");
            peer.path_mtu.limit()
        };
        let before = compile(&mut registry, &fixture::spec());
        let (claim, answer) = (Some(1400), Answer::Carries(1400));
        watch
            .paths
            .settle(PEER_UNDERLAY, claim, answer, Instant::now());
        assert!(watch.look(&before).is_ok());
        assert_eq!(limit(&before), Some(1350));
        // A lane holds the first snapshot for longer than the peer is away.
        let without = compile(&mut registry, &crate::tables::TableSpec::default());
        assert!(watch.look(&without).is_ok());
        let after = compile(&mut registry, &fixture::spec());
        assert_eq!(limit(&after), Some(1350));
        assert!(watch.look(&after).is_ok());
        assert_eq!(limit(&after), None);
        drop(before);
    }
}

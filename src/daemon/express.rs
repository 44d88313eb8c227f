//! The express path's part of the daemon: the maps, the ways to peers, and the thread that watches them.
//!
//! A flow is forwarded only over a device that takes tunnel super-frames (NETIF_F_GSO_UDP_TUNNEL): where the kernel would have to cut
//! them in software, a receiver joins less of what comes than of a lane's runs, and `bench` shows no gain. The thread asks the host for
//! the way to a peer when a lane wants it, and again each second: nobody tells of every change that routes, links and `ethtool -K` make.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::express_needs::{self, Segmentation};
use super::marks::Marks;
use super::thread::Thread;
use crate::control::Config;
use crate::control::config::overhead_bytes;
use crate::counters::Counters;
use crate::error::{SetupError, errno};
use crate::io::express::{ExpressOptions, Hop, Obstacle, Wanted};
use crate::io::{Captures, Express};
use crate::netlink::{Link, Netlink, RouteKind};
use crate::tables::Tables;
use crate::wire::ethernet;

/// How often the ways to peers are looked at, and what was forwarded is counted.
const TICK: Duration = Duration::from_secs(1);

/// The express path as it was set up.
pub(super) enum Setup {
    /// `express` is false.
    Unwanted,
    /// It cannot be had; why.
    Unavailable(String),
    /// It is there.
    Ready(Arc<Express>, Receiver<Wanted>),
}

impl Setup {
    /// Makes the maps if `config` wants them and can have them. `source_ports` are those of the lanes' sockets.
    pub(super) fn new(config: &Config, source_ports: Vec<u16>, captures: &Arc<Captures>) -> Self {
        let vtep = &config.vtep;
        if !vtep.express {
            return Self::Unwanted;
        }
        let local = match express_needs::local(config) {
            Ok(local) => local,
            Err(unfit) => return Self::unavailable(unfit.why()),
        };
        let options = ExpressOptions {
            local,
            source_ports,
            udp_checksum: vtep.udp_checksum,
            captures: Arc::clone(captures),
        };
        match Express::create(options) {
            Ok((express, wanted)) => Self::Ready(Arc::new(express), wanted),
            Err(error) => Self::unavailable(&format!("BPF_MAP_CREATE: {}", errno(&error))),
        }
    }

    fn unavailable(why: &str) -> Self {
        tracing::warn!("express = true has no effect: {why}");
        Self::Unavailable(why.to_owned())
    }

    /// What the program at the TAP's transmit side begins with.
    pub(super) fn express(&self) -> Option<&Arc<Express>> {
        match self {
            Self::Ready(express, _) => Some(express),
            Self::Unwanted | Self::Unavailable(_) => None,
        }
    }

    /// The same, unless no program that has it could be attached.
    pub(super) fn beside(self, marks: &Marks) -> Self {
        match self {
            Self::Ready(..) if !marks.carries_express() => Self::unavailable(
                "the kernel does not take its program at the TAP (Linux 5.13, CAP_BPF)",
            ),
            other => other,
        }
    }
}

/// What `link show` tells of it.
pub(super) enum State {
    Unavailable(String),
    There(Arc<Express>),
}

impl State {
    /// `None` if it is not asked for.
    pub(super) fn of(setup: &Setup) -> Option<Self> {
        match setup {
            Setup::Unwanted => None,
            Setup::Unavailable(why) => Some(Self::Unavailable(why.clone())),
            Setup::Ready(express, _) => Some(Self::There(Arc::clone(express))),
        }
    }

    /// For a person.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Unavailable(why) => format!("unsupported: {why}"),
            Self::There(express) => match express.obstacle() {
                None if express.is_on() => "on".to_owned(),
                None => "off".to_owned(),
                Some(Obstacle::Policy) => "off: a policy is enforced".to_owned(),
                Some(Obstacle::Capture) => "off: a capture runs".to_owned(),
            },
        }
    }
}

/// The thread; when dropped it ends, and with it the express path.
pub(super) struct ExpressWatch {
    express: Arc<Express>,
    thread: Thread,
}

impl ExpressWatch {
    /// Begins to forward what lanes offer under `tables`.
    ///
    /// # Errors
    /// No descriptor or thread is left.
    pub(super) fn start(
        setup: Setup,
        tables: &Arc<ArcSwap<Tables>>,
        counters: &Arc<Counters>,
    ) -> Result<Option<Self>, SetupError> {
        let Setup::Ready(express, wanted) = setup else {
            return Ok(None);
        };
        let failed = |error: io::Error| SetupError::system("watch", "the express path", &error);
        let watch = Watch {
            host: Host::open(&express).map_err(failed)?,
            express: Arc::clone(&express),
            tables: Arc::clone(tables),
            counters: Arc::clone(counters),
            hops: HashMap::new(),
        };
        let started = Self {
            thread: Thread::spawn("express", move || watch.run(&wanted))?,
            express,
        };
        started.express.renew(tables);
        Ok(Some(started))
    }
}

impl ExpressWatch {
    pub(super) fn thread(&self) -> &Thread {
        &self.thread
    }
}

impl Drop for ExpressWatch {
    fn drop(&mut self) {
        self.express.end();
        self.express.end_watch();
    }
}

struct Watch {
    express: Arc<Express>,
    tables: Arc<ArcSwap<Tables>>,
    counters: Arc<Counters>,
    host: Host,
    hops: HashMap<Ipv4Addr, Option<Hop>>,
}

impl Watch {
    fn run(mut self, wanted: &Receiver<Wanted>) {
        let mut due = Instant::now() + TICK;
        loop {
            match wanted.recv_deadline(due) {
                Ok(Wanted::Hop(peer)) => self.want(peer),
                Ok(Wanted::End) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if due <= Instant::now() {
                self.look();
                due = Instant::now() + TICK;
            }
        }
        self.express.collect(&self.counters, &self.tables.load());
    }

    fn want(&mut self, peer: Ipv4Addr) {
        if self.hops.contains_key(&peer) {
            return;
        }
        let hop = self.hop(peer);
        self.hops.insert(peer, hop);
        self.express.set_hops(self.hops.clone(), &self.tables);
    }

    fn look(&mut self) {
        let tables = self.tables.load_full();
        self.express.collect(&self.counters, &tables);
        self.express.adjust(&self.tables);
        let peers: Vec<_> = self.hops.keys().copied().collect();
        // Those that are peers no more are asked for again if they come back.
        let still = peers
            .into_iter()
            .filter(|&peer| tables.peers.lookup(IpAddr::V4(peer)).is_some());
        let hops = still.map(|peer| (peer, self.hop(peer))).collect();
        if hops != self.hops {
            self.hops = hops;
            self.express.set_hops(self.hops.clone(), &self.tables);
        }
    }

    fn hop(&mut self, peer: Ipv4Addr) -> Option<Hop> {
        let link = match self.host.way_to(peer) {
            Ok(link) => link?,
            Err(error) => {
                tracing::debug!("{error}");
                return None;
            }
        };
        let slot = self.express.slot(peer)?;
        let carried = link
            .mtu_bytes
            .checked_sub(overhead_bytes(self.host.local.into()))?;
        Some(Hop {
            interface: link.index,
            frame_len_max: carried + ethernet::HEADER_LEN as u32,
            slot,
        })
    }
}

/// Whom the thread asks.
struct Host {
    netlink: Netlink,
    socket: UdpSocket,
    local: Ipv4Addr,
}

impl Host {
    fn open(express: &Express) -> io::Result<Self> {
        Ok(Self {
            netlink: Netlink::open().map_err(io::Error::other)?,
            socket: UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
            local: express.local(),
        })
    }

    /// The device that packets to `peer` leave by, if it is one alone and takes tunnel super-frames.
    fn way_to(&mut self, peer: Ipv4Addr) -> Result<Option<Link>, SetupError> {
        let object = peer.to_string();
        let failed = |error: crate::netlink::NetlinkError| error.setup("look up route to", &object);
        let route = self
            .netlink
            .route_from(self.local.into(), peer.into())
            .map_err(failed)?;
        let route = route.filter(|route| route.kind == RouteKind::Unicast);
        let Some(interface) = route.and_then(|route| route.interface) else {
            return Ok(None);
        };
        let Some(link) = self.netlink.link(interface).map_err(failed)? else {
            return Ok(None);
        };
        // A device that is gone by now has nothing.
        let segmentation = Segmentation::of(&self.socket, &link.name);
        let is_on = segmentation.is_ok_and(|segmentation| segmentation == Segmentation::On);
        Ok(is_on.then_some(link))
    }
}

//! Set-up, in order. Each step is a value that undoes itself when dropped, so a failure anywhere leaves nothing behind.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Sender;
use ipnet::IpNet;

use super::events::{Event, SignalThread, WatchThread, channel};
use super::express::{self, ExpressWatch};
use super::link_facts::Features;
use super::lock::Lock;
use super::marks::Marks;
use super::path_watch::PathWatch;
use super::port_holder::{Host, tcp_port_holder};
use super::workers::{Workers, check_cpus};
use super::{Daemon, DaemonError, OwnedDevice, limits, link_facts, offload};
use crate::control::config::{Bind, VtepConfig, carried_bytes};
use crate::control::container_store::ContainerStore;
use crate::control::{Config, Control, HealthServer, Sending, Server, StateFile};
use crate::control::{ContainerOptions, Options};
use crate::counters::Counters;
use crate::error::SetupError;
use crate::io::{
    Captures, DEFAULT_SOURCE_PORTS, Guard, Lane, LaneOptions, Steering, TapQueue, UdpOptions,
    UdpPort, run_max_segs,
};
use crate::netlink::{
    self, ALIAS, Departed, Device, DeviceError, DeviceSpec, HostLink, Link, LinkKind, Netlink, Tun,
    TunMode, Watcher, existing, underlay,
};
use crate::tables::DEFAULT_TTL;

pub(super) fn start(
    config: &Config,
    config_path: &Path,
    socket: &Path,
) -> Result<Daemon, DaemonError> {
    let vtep = &config.vtep;
    let (sender, receiver) = channel();
    let signals = SignalThread::start(sender.clone())?;
    // Declared last, dropped first: if set-up fails nobody waits for room in the queue.
    let events = receiver;
    let lock = Lock::acquire(&vtep.name)?;
    check_cpus(&vtep.cpus)?;
    limits::raise_open_files();
    let mut netlink = Netlink::open()?;
    let mtu_bytes = mtu_bytes(vtep, &mut netlink)?;
    let source_ports = source_ports(vtep);
    let ports = open_ports(vtep, source_ports.clone())?;
    let (mut queues, mut device) = open_device(vtep, mtu_bytes, netlink)?;
    // Before the link is up, so that the frames it tries go nowhere.
    let offloads = Arc::new(offload::probe(vtep, &mut queues[0]));
    let index = device.device.index();
    // Before it is up as well, so that no packet goes without its mark.
    let captures = Arc::new(Captures::default());
    let express = express::Setup::new(config, claimed_ports(&ports)?, &captures);
    let marks = Marks::set_up(config, index, express.express())?;
    let express = express.beside(&marks);
    let features = Features {
        offloads: Arc::clone(&offloads),
        steering: steer(&vtep.name, &queues),
        marks: marks.state().clone(),
        express: express::State::of(&express),
    };
    configure(&mut device)?;

    let counters = Arc::new(Counters::new(vtep.lanes.get()));
    let guard = Arc::new(Guard::new(config.policy.flows));
    let options = Options {
        counters,
        captures: Arc::clone(&captures),
        config_path: config_path.to_owned(),
        state: state_file(vtep, socket),
        link: link_facts::source(vtep.name.clone(), index, vtep.local, source_ports, features),
        marks: marks.source(),
        guard: Arc::clone(&guard),
        containers: container_options(vtep, mtu_bytes, socket),
        sending: Sending {
            source_ports: claimed_ports(&ports)?,
            mtu_bytes,
            mark_tags: Arc::clone(marks.tags()),
        },
        express: express.express().cloned(),
    };
    let control = Arc::new(control(config, options));
    let server = Server::start(socket, Arc::clone(&control))?;
    let health = health(vtep, &control)?;
    let watcher = Watcher::open(index, &vtep.name)?;
    let watch = WatchThread::start(watcher, sender.clone(), flows_end(vtep, &guard)?)?;
    persist(&mut queues, &vtep.name)?;
    let options = LaneOptions {
        mtu_bytes,
        offloads,
        mark_tags: Arc::clone(marks.tags()),
        guard,
        captures,
        express: express.express().cloned(),
    };
    let express = ExpressWatch::start(express, control.tables(), control.counters())?;
    let paths = PathWatch::start(vtep, mtu_bytes, control.tables())?;
    let workers = start_lanes(vtep, &queues, &ports, &control, &options, &sender)?;
    device.keep = vtep.persist;
    Ok(Daemon {
        events,
        _server: server,
        _health: health,
        watch,
        signals,
        paths,
        express,
        workers,
        roll_call: Instant::now(),
        device,
        marks,
        mtu_bytes,
        control,
        _lock: lock,
    })
}

/// What ends the flows of who is gone from our subnets: of a container that was wired without a word to us too. Whoever may be gone is.
fn flows_end(
    vtep: &VtepConfig,
    guard: &Arc<Guard>,
) -> Result<impl FnMut(Departed) + Send + use<>, SetupError> {
    let subnets = vtep.subnets.clone();
    let guard = Arc::clone(guard);
    let mut netlink = Netlink::open()?;
    Ok(move |departed: Departed| {
        let is_ours = subnets
            .iter()
            .any(|subnet| subnet.contains(&departed.address));
        if is_ours && !departed.is_reached(&mut netlink).unwrap_or(false) {
            guard.flows.forget(departed.address);
        }
    })
}

/// The TAP's MTU: what was asked for, which the configuration's check held against the underlay, else all that the underlay carries.
fn mtu_bytes(vtep: &VtepConfig, netlink: &mut Netlink) -> Result<u32, SetupError> {
    let underlay = underlay(netlink, vtep.local)?.ok_or_else(|| {
        SetupError::new(
            "look up underlay",
            vtep.local.to_string(),
            "no link of this host has that address",
        )
        .mend("give one the address first, or correct `local`")
    })?;
    let carried = carried_bytes(vtep.local, underlay.mtu_bytes);
    Ok(vtep.mtu_bytes.unwrap_or(carried))
}

/// The range of the configuration, else the host's ephemeral ports, as the kernel's device takes them (`vxlan_build_skb`).
fn source_ports(vtep: &VtepConfig) -> Range<u16> {
    if let Some((min, max)) = vtep.source_ports {
        return min..max;
    }
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(min)), Some(Ok(max))) if min < max => min..max,
        _ => DEFAULT_SOURCE_PORTS,
    }
}

fn open_ports(vtep: &VtepConfig, source_ports: Range<u16>) -> Result<Vec<UdpPort>, SetupError> {
    let options = UdpOptions {
        local: vtep.local,
        port: vtep.port,
        bind_local: vtep.bind == Bind::Local,
        source_ports,
        ttl: vtep.outer.ttl.fixed().unwrap_or(DEFAULT_TTL),
        df: vtep.outer.df,
        checksum: vtep.udp_checksum,
        zero_checksum_rx: vtep.zero_checksum_rx,
        gro: offload::wants_gro(vtep.offload),
    };
    UdpPort::open(&options, vtep.lanes.get(), &Host)
}

fn claimed_ports(ports: &[UdpPort]) -> Result<Vec<u16>, SetupError> {
    let claimed = ports.first().map_or(Ok(Vec::new()), UdpPort::source_ports);
    claimed.map_err(|error| SetupError::system("look up", "source ports", &error))
}

/// Opens one queue a lane. A device that was there before, left by `persist` or by a daemon that was killed, is taken over, and kept if
/// set-up fails later on.
fn open_device(
    vtep: &VtepConfig,
    mtu_bytes: u32,
    mut netlink: Netlink,
) -> Result<(Vec<TapQueue>, OwnedDevice), SetupError> {
    let found = existing(&mut netlink, &vtep.name)?;
    if let Some(link) = &found {
        check_ours(link)?;
    }
    let queues = (0..vtep.lanes.get())
        .map(|_| TapQueue::open(&vtep.name, offload::wanted_of_tap(vtep.offload)))
        .collect::<Result<Vec<_>, _>>()?;
    let link = existing(&mut netlink, &vtep.name)?
        .ok_or_else(|| SetupError::new("attach", vtep.name.as_str(), "the TAP vanished at once"))?;
    let device = OwnedDevice {
        device: Device::new(netlink, link.index, device_spec(vtep, mtu_bytes)),
        name: vtep.name.clone(),
        keep: found.is_some(),
    };
    Ok((queues, device))
}

/// Before a fresh device is up, so that no flow begins on another lane than it stays on.
fn steer(name: &str, queues: &[TapQueue]) -> Steering {
    let steering = Steering::attach(name, queues);
    if let Steering::Automatic(reason) = &steering {
        tracing::warn!("{reason}; packets of a flow may overtake each other on their way out");
    }
    steering
}

/// Whether a link that has our name is a TAP we can attach to.
pub(crate) fn check_ours(link: &Link) -> Result<(), SetupError> {
    let refuse = |cause: String, mend: String| {
        Err(SetupError::new("attach", link.name.as_str(), cause).mend(mend))
    };
    let delete = format!("ip link del {}, or choose another `name`", link.name);
    let LinkKind::Tun(tun) = &link.kind else {
        let kind = kind_told(&link.kind);
        let cause = format!("the name is taken by a link that is no TAP ({kind})");
        return refuse(cause, delete);
    };
    if tun.mode != TunMode::Tap || !tun.multi_queue || !tun.vnet_hdr {
        let mode = mode_told(tun);
        let cause = format!("the name is taken by a tun device of another mode ({mode})");
        return refuse(cause, delete);
    }
    if link.alias.as_deref() != Some(ALIAS) {
        let cause = format!("the name is taken by a TAP whose alias is not {ALIAS}, so not ours");
        let give = format!("ip link set {} alias {ALIAS}", link.name);
        return refuse(cause, format!("{delete}; {give} makes it ours"));
    }
    match tun.queues {
        Some(queues) if queues > 0 => refuse(
            format!("another process holds {queues} queue(s) of this TAP"),
            "stop it, or choose another `name`".to_owned(),
        ),
        _ => Ok(()),
    }
}

fn kind_told(kind: &LinkKind) -> &str {
    match kind {
        LinkKind::Vxlan(_) => "the kernel's vxlan",
        LinkKind::Veth => "veth",
        LinkKind::Other(Some(kind)) => kind,
        LinkKind::Other(None) | LinkKind::Tun(_) => "physical",
    }
}

/// `single-queue TUN without vnet_hdr`.
fn mode_told(tun: &Tun) -> String {
    let queues = if tun.multi_queue { "multi" } else { "single" };
    let mode = match tun.mode {
        TunMode::Tap => "TAP",
        TunMode::Tun => "TUN",
    };
    let header = if tun.vnet_hdr { "with" } else { "without" };
    format!("{queues}-queue {mode} {header} vnet_hdr")
}

fn device_spec(vtep: &VtepConfig, mtu_bytes: u32) -> DeviceSpec {
    DeviceSpec {
        name: vtep.name.clone(),
        mac: vtep.mac,
        mtu_bytes,
        addresses: vtep
            .addresses
            .iter()
            .filter_map(|address| {
                let overlay = vtep
                    .overlays
                    .iter()
                    .find(|overlay| overlay.contains(address))?;
                IpNet::new(*address, overlay.prefix_len()).ok()
            })
            .collect(),
        overlays: vtep.overlays.clone(),
        own_subnets: vtep.subnets.clone(),
        routing: vtep.routing,
        silk_routes: vtep.silk_routes,
    }
}

fn configure(device: &mut OwnedDevice) -> Result<(), SetupError> {
    let mended = device.device.configure().map_err(|error| match error {
        DeviceError::Setup(error) => error,
        DeviceError::Gone(name) => SetupError::new("set up", name, "the TAP was deleted meanwhile"),
    })?;
    for one in mended {
        tracing::debug!("set up {}: {one}", device.name);
    }
    Ok(())
}

fn state_file(vtep: &VtepConfig, socket: &Path) -> Option<StateFile> {
    state_path(vtep, socket, "state.json").map(StateFile::new)
}

/// Beside the control socket unless `state_dir` says where: as unique as the socket.
fn state_path(vtep: &VtepConfig, socket: &Path, extension: &str) -> Option<PathBuf> {
    let file = socket.with_extension(extension);
    match &vtep.state_dir {
        Some(directory) => Some(directory.join(file.file_name()?)),
        None => Some(file),
    }
}

fn container_options(vtep: &VtepConfig, mtu_bytes: u32, socket: &Path) -> ContainerOptions {
    ContainerOptions {
        mtu_bytes,
        // Where super-frames are not sent as such nothing is gained by smaller ones.
        gso_max_segs: vtep.offload.udp_gso.then(|| run_max_segs(mtu_bytes)),
        state: state_path(vtep, socket, "containers.json").map(StateFile::of_containers),
        links: Box::new(host_links),
        datastore: vtep.datastore.as_ref().map(ContainerStore::new),
    }
}

fn host_links(name: Option<&str>) -> Result<Vec<HostLink>, SetupError> {
    let netlink = &mut Netlink::open()?;
    match name {
        Some(name) => Ok(netlink::host_link(netlink, name)?.into_iter().collect()),
        None => netlink::host_links(netlink),
    }
}

fn control(config: &Config, options: Options) -> Control {
    let (control, warnings) = Control::new(config, options);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    control
}

fn health(vtep: &VtepConfig, control: &Control) -> Result<Option<HealthServer>, SetupError> {
    let address = vtep.health_check;
    let server = address.map(|address| HealthServer::start(address, control, tcp_port_holder));
    server.transpose()
}

/// From here on the device outlives a crash, and open connections with it. The regular end removes it.
fn persist(queues: &mut [TapQueue], name: &str) -> Result<(), SetupError> {
    let mut first = queues.iter_mut().take(1);
    first.try_for_each(|queue| queue.persist(name))
}

fn start_lanes(
    vtep: &VtepConfig,
    queues: &[TapQueue],
    ports: &[UdpPort],
    control: &Control,
    options: &LaneOptions,
    events: &Sender<Event>,
) -> Result<Workers, SetupError> {
    Workers::start(vtep, events, |index| {
        Lane::new(
            index,
            queues[index].clone(),
            ports[index].clone(),
            Arc::clone(control.tables()),
            Arc::clone(control.counters()),
            options,
        )
    })
}

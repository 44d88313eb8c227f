//! Open vSwitch's userspace datapath in one cell, as its manual has it for a host without its kernel module.
//!
//! ```text
//! container's veth <-AF_PACKET-> br-int [vxlan] ~ route and neighbour ~> br-phy <-AF_PACKET-> eth0
//! ```
//!
//! The bridges learn, as switches do; the containers know each other by permanent neighbours. Each cell has a database
//! and a switch of its own, whose files are all in one directory: an Open vSwitch that this machine runs is not touched.

mod programs;

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

pub(super) use programs::Programs;

use super::kernel_vtep::{MTU_BYTES, OVERLAY_PREFIX_LENGTH, PORT, VNI};
use super::{offloads, round_trip};
use crate::cli::lab::LabError;
use crate::cli::lab::ground::{self, CONTAINER_LINK, CellPlan, End, Place, UNDERLAY_LINK};
use crate::cli::lab::interrupt::Interrupt;
use crate::cli::lab::process::Process;
use crate::cli::lab::scratch::Scratch;
use crate::error::{SetupError, errno};
use crate::netlink::container::host_name;
use crate::netlink::{Address, AddressScope, Namespace, Neighbor, Netlink, NetlinkError, VethEnd};
use crate::wire::MacAddr;

/// Bridge with the container and the tunnel.
const INNER_BRIDGE: &str = "br-int";
/// Bridge with the underlay's link; its own port has the cell's address.
const OUTER_BRIDGE: &str = "br-phy";
/// A database that starts, and two switches that learn each other's address.
const READY_PATIENCE: Duration = Duration::from_secs(10);
/// How long `ovs-vsctl` waits for the switch to do what it was told.
const CONFIGURE_PATIENCE_SECONDS: u32 = 10;
/// Long enough for one question: an answer that does not come is waited for anyway.
const PROBE: Duration = Duration::from_millis(1);
/// Without checksum offload there is no segmentation offload either. The switch takes neither from a veth: its frames
/// would be checked as they are, and those above the MTU dropped.
const CONTAINER_OFFLOADS: [(&str, bool); 1] = [("tx-checksum-ip-generic", false)];

/// A cell with its database and its switch. Dropped in this order: both go before the namespace.
#[derive(Debug)]
pub(super) struct Switch {
    vswitchd: Process,
    database: Process,
    place: Place,
}

impl Switch {
    /// Starts database and switch in `place`, with a tunnel to the cell of `peer`, and wires the container.
    ///
    /// # Errors
    /// The step that failed, or [`LabError::Interrupted`].
    pub(super) fn start(
        place: Place,
        peer: &CellPlan,
        scratch: &Scratch,
        interrupt: &Interrupt,
    ) -> Result<Self, LabError> {
        let programs = Programs::find()?;
        let directory = scratch.directory(&format!("{}-ovs", place.plan.name))?;
        silence_ipv6(&place);
        release_underlay(&place)?;
        add_container(&place, peer)?;
        let database = start_database(&programs, &place, &directory, interrupt)?;
        let vswitchd = start_vswitchd(&programs, &place, &directory)?;
        let mut switch = Self {
            vswitchd,
            database,
            place,
        };
        let made = switch
            .configure(&programs, &directory, peer)
            .and_then(|()| switch.address_bridge())
            .and_then(|()| switch.introduce(&programs, &directory, peer));
        // What ended explains what its absence led to.
        made.or_else(|error| switch.check().and(Err(error)))?;
        Ok(switch)
    }

    /// Where it is.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Its processes.
    pub(super) fn pids(&self) -> [u32; 2] {
        [self.vswitchd.pid(), self.database.pid()]
    }

    /// Whether both processes still run.
    ///
    /// # Errors
    /// The first that does not, with the last thing it said.
    pub(super) fn check(&mut self) -> Result<(), SetupError> {
        self.vswitchd.check()?;
        self.database.check()
    }

    /// Ends both processes.
    ///
    /// # Errors
    /// The first that did not end in order. Both are ended nevertheless.
    pub(super) fn stop(self) -> Result<(), SetupError> {
        // They clean up and then die by the signal they were sent.
        let in_order = |status: ExitStatus| {
            status.success() || status.signal() == Some(Signal::SIGTERM as i32)
        };
        let stopped = self.vswitchd.stop(in_order);
        stopped.and(self.database.stop(in_order))
    }

    fn configure(
        &self,
        programs: &Programs,
        directory: &Path,
        peer: &CellPlan,
    ) -> Result<(), SetupError> {
        let mut command = tool(&programs.vsctl, directory);
        command
            .arg(format!("--db={}", database_address(directory)))
            .arg(format!("--timeout={CONFIGURE_PATIENCE_SECONDS}"));
        command.args(bridges(self.place.plan, peer).split_ascii_whitespace());
        finish(&mut command).map_err(|cause| {
            SetupError::new("configure Open vSwitch in", self.place.host.label(), cause)
        })
    }

    /// Tells the switch the other cell's MAC. To ask for it takes a frame that has to go there, which is lost; and if the one
    /// question or its answer is lost too, the switch asks no more while frames keep coming.
    fn introduce(
        &self,
        programs: &Programs,
        directory: &Path,
        peer: &CellPlan,
    ) -> Result<(), SetupError> {
        let mut command = tool(&programs.appctl, directory);
        command
            .arg("-t")
            .arg(switch_control(directory))
            .args(["tnl/neigh/set", OUTER_BRIDGE])
            .arg(peer.underlay.to_string())
            .arg(bridge_mac(peer).to_string());
        finish(&mut command).map_err(|cause| {
            let host = self.place.host.label();
            SetupError::new("add Open vSwitch's neighbour in", host, cause)
        })
    }

    /// Gives the bridge the cell's address: what the switch sends follows the routes of bridges only.
    fn address_bridge(&self) -> Result<(), SetupError> {
        let Place { plan, host, .. } = &self.place;
        let mut netlink = Netlink::open_in(host)?;
        let mut address = || {
            // A link that is not there is an error of the next step, which says so.
            let bridge = netlink
                .link_named(OUTER_BRIDGE)?
                .map_or(0, |link| link.index);
            netlink.add_address(&ground::underlay_address(plan, bridge))?;
            netlink.set_up(bridge, true)
        };
        address().map_err(|error| error.setup("address br-phy in", host.label()))
    }
}

/// Takes the underlay's link from the kernel, which would answer for the bridge's address there as well, and with another
/// MAC: whose answer is later would win.
fn release_underlay(place: &Place) -> Result<(), SetupError> {
    let mut netlink = Netlink::open_in(&place.host)?;
    let mut release = || {
        let eth0 = netlink
            .link_named(UNDERLAY_LINK)?
            .map_or(0, |link| link.index);
        netlink.delete_address(&ground::underlay_address(place.plan, eth0))?;
        netlink.set_noarp(eth0, true)
    };
    release().map_err(|error| error.setup("release eth0 in", place.host.label()))
}

/// Waits until the containers reach each other: the switches learn of their hosts' new routes some time after.
///
/// # Errors
/// If they do not in time; when interrupted.
pub(super) fn await_path([a, b]: [End<'_>; 2], interrupt: &Interrupt) -> Result<(), LabError> {
    let answered = interrupt.wait_for(READY_PATIENCE, || {
        let round_trips = round_trip::run(a, b, PROBE, interrupt)?;
        Ok(round_trips.percentile_us(1.0).map(drop))
    })?;
    let seconds = READY_PATIENCE.as_secs();
    let silent = || {
        let path = format!("{} and {}", a.address, b.address);
        let cause = format!("no answer within {seconds} s");
        SetupError::new("join by Open vSwitch", path, cause)
    };
    Ok(answered.ok_or_else(silent)?)
}

/// The outer bridge's. It is not its link's: then the kernel, which sees what that receives as well, takes it for somebody
/// else's.
fn bridge_mac(plan: &CellPlan) -> MacAddr {
    let [a, b, c, d] = plan.underlay.octets();
    MacAddr::new([0x02, 1, a, b, c, d])
}

/// Both bridges, as `ovs-vsctl` takes them. Without `exts=gbp`, which the userspace datapath does not carry.
fn bridges(plan: &CellPlan, peer: &CellPlan) -> String {
    let mac = bridge_mac(plan);
    let (container, local, remote) = (host_name(plan.container), plan.underlay, peer.underlay);
    format!(
        "add-br {OUTER_BRIDGE} -- set bridge {OUTER_BRIDGE} datapath_type=netdev other_config:hwaddr={mac} \
         -- add-port {OUTER_BRIDGE} {UNDERLAY_LINK} \
         -- add-br {INNER_BRIDGE} -- set bridge {INNER_BRIDGE} datapath_type=netdev \
         -- add-port {INNER_BRIDGE} {container} \
         -- add-port {INNER_BRIDGE} vxlan -- set interface vxlan type=vxlan options:key={VNI} \
         options:local_ip={local} options:remote_ip={remote} options:dst_port={PORT}"
    )
}

/// Links of the host that come up would speak of themselves to the bridges. Without IPv6 there is nothing to silence.
fn silence_ipv6(place: &Place) {
    for namespace in [&place.host, &place.container] {
        for links in ["all", "default"] {
            let path = format!("net/ipv6/conf/{links}/disable_ipv6");
            let _ = namespace.set_sysctl(&path, "1");
        }
    }
}

/// A veth pair; the other container is on the same network, at a permanent neighbour's.
fn add_container(place: &Place, peer: &CellPlan) -> Result<(), SetupError> {
    let plan = place.plan;
    let failed = |error: NetlinkError| error.setup("add container in", place.container.label());
    let name = host_name(plan.container);
    let end = |name, mac| VethEnd {
        name,
        mac,
        mtu_bytes: MTU_BYTES,
        gso_max_segs: None,
    };
    let host = end(&name, MacAddr::host_side(plan.container));
    let container = end(CONTAINER_LINK, MacAddr::overlay(plan.container));
    let mut netlink = Netlink::open_in(&place.host)?;
    netlink
        .create_veth(&host, &container, &place.container)
        .map_err(failed)?;
    let index = netlink.link_named(&name).map_err(failed)?;
    netlink
        .set_up(index.map_or(0, |link| link.index), true)
        .map_err(failed)?;
    let mut inside = Netlink::open_in(&place.container)?;
    wire_container(&mut inside, plan, peer).map_err(failed)?;
    offloads::set(&place.container, CONTAINER_LINK, &CONTAINER_OFFLOADS)
}

fn wire_container(
    inside: &mut Netlink,
    plan: &CellPlan,
    peer: &CellPlan,
) -> Result<(), NetlinkError> {
    // Made a moment ago: not to find it is an error of the next step, which says so.
    let interface = inside
        .link_named(CONTAINER_LINK)?
        .map_or(0, |link| link.index);
    inside.add_address(&Address {
        interface,
        local: plan.container.into(),
        peer: None,
        prefix_len: OVERLAY_PREFIX_LENGTH,
        scope: AddressScope::Global,
        no_prefix_route: false,
        no_dad: false,
    })?;
    inside.set_up(interface, true)?;
    let mac = MacAddr::overlay(peer.container);
    inside.add_neighbor(&Neighbor::permanent(interface, peer.container.into(), mac))
}

fn start_database(
    programs: &Programs,
    place: &Place,
    directory: &Path,
    interrupt: &Interrupt,
) -> Result<Process, LabError> {
    let file = directory.join("conf.db");
    finish(tool(&programs.tool, directory).arg("create").arg(&file))
        .map_err(|cause| SetupError::new("create database", file.display().to_string(), cause))?;
    let mut command = command(&programs.server, directory);
    command
        .arg(&file)
        .arg(format!("--remote=p{}", database_address(directory)))
        .arg(format!(
            "--unixctl={}",
            directory.join("ovsdb.ctl").display()
        ));
    let mut process = start(command, place, directory, "ovsdb-server")?;
    let listens = interrupt.wait_for(READY_PATIENCE, || {
        process.check()?;
        Ok(database_path(directory).exists().then_some(()))
    })?;
    let late = || process.failed(format_args!("not ready: {}", process.last_words()));
    listens.ok_or_else(late)?;
    Ok(process)
}

fn start_vswitchd(
    programs: &Programs,
    place: &Place,
    directory: &Path,
) -> Result<Process, SetupError> {
    let mut command = command(&programs.vswitchd, directory);
    command
        .arg(database_address(directory))
        .arg(format!("--unixctl={}", switch_control(directory).display()));
    start(command, place, directory, "ovs-vswitchd")
}

/// In the foreground; what it has to say comes to standard error.
fn start(
    mut command: Command,
    place: &Place,
    directory: &Path,
    name: &str,
) -> Result<Process, SetupError> {
    command.arg("-vconsole:warn");
    let label = format!("{name} of cell {}", place.plan.name);
    let host: &Namespace = &place.host;
    Process::start(command, host, &directory.join(name), label)
}

/// `program`, with `directory` for all that it keeps.
fn command(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
        command.env(variable, directory);
    }
    command.arg("-vsyslog:off");
    command
}

/// One that runs to its end: what it logs on its way is not what it has to say.
fn tool(program: &Path, directory: &Path) -> Command {
    let mut command = command(program, directory);
    command.arg("-vconsole:off");
    command
}

/// Runs it to its end.
fn finish(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output();
    let Output { status, stderr, .. } = output.map_err(|error: io::Error| errno(&error))?;
    let stderr = String::from_utf8_lossy(&stderr);
    match (status.success(), stderr.lines().last()) {
        // ovs-vsctl ends well when the switch refuses a port, and says so.
        (true, None) => Ok(()),
        (_, said) => Err(format!("{status}: {}", said.unwrap_or("it said nothing"))),
    }
}

fn database_path(directory: &Path) -> PathBuf {
    directory.join("db.sock")
}

fn switch_control(directory: &Path) -> PathBuf {
    directory.join("vswitchd.ctl")
}

fn database_address(directory: &Path) -> String {
    format!("unix:{}", database_path(directory).display())
}

//! ADD: an address, a link, and everybody told.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};

use super::attachment::Attachment;
use super::claim::alias_of;
use super::config::Config;
use super::daemon::{self, Wiring};
use super::del::{Record, detach, unwire};
use super::environment::Environment;
use super::error::CniError;
use super::ipam::{self, Ipam};
use super::result::AddResult;
use crate::control::ContainerStore;
use crate::control::container_store;
use crate::netlink::{ContainerLinks, ContainerSpec, Netlink, container};

/// Attaches the container.
///
/// # Errors
/// The step that failed; all before it is taken back.
pub(super) fn run(
    environment: &Environment,
    config: &Config,
    stdout: &mut dyn Write,
) -> Result<(), CniError> {
    let namespace = environment.namespace()?;
    let who = environment.attachment(&config.name);
    let ipam = Ipam::new(config, environment);
    let network = daemon::discover(&config.daemon)?;
    daemon::check_subnet6(config, &network)?;
    let pool = ipam::pool(network.overlay_subnet, config.subnet)?;
    let wiring = Wiring::of(config, &network);
    let mut netlink = Netlink::open().map_err(|error| CniError::wiring(&error))?;
    let address = ipam.add(&pool, &who, &mut netlink)?;
    let spec = ContainerSpec {
        address,
        address_v6: config.address_v6(address),
        namespace,
        ifname: who.ifname.clone(),
        mtu_bytes: wiring.mtu_bytes,
        gso_max_segs: wiring.gso_max_segs,
        alias: alias_of(&who),
    };
    let made = attach(
        config,
        &who,
        environment.netns(),
        &mut netlink,
        &spec,
        stdout,
    );
    made.map_err(|error| error.and_undone(ipam.del(&who, Some(address))))
}

fn attach(
    config: &Config,
    who: &Attachment,
    netns: &str,
    netlink: &mut Netlink,
    spec: &ContainerSpec,
    stdout: &mut dyn Write,
) -> Result<(), CniError> {
    let links = container::add(netlink, spec).map_err(|error| CniError::wiring(&error))?;
    // A store that could not be written is as it was: looking into it again would only wait for its lock again.
    let own = [spec.address];
    if let Err(error) = record(config, who, netns, spec) {
        return Err(error.and_undone(unwire(netlink, &own)));
    }
    let told = tell(config, who, netns, spec, &links, stdout);
    told.map_err(|error| {
        let record = Record::read(config);
        error.and_undone(detach(config, who, netlink, &own, &record))
    })
}

/// The daemon after the store, which it reads at a start; the runtime last, which takes it for done then.
fn tell(
    config: &Config,
    who: &Attachment,
    netns: &str,
    spec: &ContainerSpec,
    links: &ContainerLinks,
    stdout: &mut dyn Write,
) -> Result<(), CniError> {
    let more = spec.address_v6.map(IpAddr::from);
    daemon::register(config, who, netns, (spec.address, more))?;
    let result = AddResult {
        links,
        sandbox: netns,
        address: spec.address,
        address_v6: spec.address_v6,
        mtu_bytes: spec.mtu_bytes,
    };
    let written = result.write(config.version, stdout);
    written.map_err(|error| CniError::io("write the result").because(error))
}

fn record(
    config: &Config,
    who: &Attachment,
    netns: &str,
    spec: &ContainerSpec,
) -> Result<(), CniError> {
    let attachment = container_store::Attachment {
        container_id: who.container_id.clone(),
        ifname: who.ifname.clone(),
        network: who.network.clone(),
        netns: netns.to_owned(),
        mtu: spec.mtu_bytes,
        ipv6: spec.address_v6,
    };
    let address: Ipv4Addr = spec.address;
    ContainerStore::new(&config.store)
        .update(|entries| entries.insert(address, &attachment))
        .map_err(|error| CniError::store("write container metadata", &error))
}

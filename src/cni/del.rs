//! DEL: everything that ADD made, as far as it is there.

use std::net::{IpAddr, Ipv4Addr};

use super::attachment::Attachment;
use super::config::Config;
use super::daemon;
use super::environment::Environment;
use super::error::CniError;
use super::ipam::{Ipam, Owner};
use crate::control::ContainerStore;
use crate::control::container_store::{Entries, Stored};
use crate::netlink::container;

/// Detaches the container. One that is not there, or whose namespace, link or daemon is not, is no error.
///
/// # Errors
/// Something is there and cannot be removed. Its address stays reserved then.
pub(super) fn run(environment: &Environment, config: &Config) -> Result<(), CniError> {
    let who = environment.attachment(&config.name);
    let ipam = Ipam::new(config, environment);
    let reserved = ipam.reservations.all()?;
    let stored = stored(config);
    let mut addresses = addresses_of(&stored, &who, &reserved);
    if addresses.is_empty() {
        addresses.extend(wired(environment, &who, &reserved, &stored));
    }
    detach(config, &who, &addresses)?;
    let mut held = reserved.iter().filter(|(_, owner)| owner.is(&who));
    ipam.del(&who, held.find_map(|(address, _)| v4(*address)))
}

/// Takes the container from the kernel, the daemon and the store: all of ADD but the reservation. The daemon after the kernel, whose links
/// it looks for when it starts: one that starts in between would find the container again, and nobody would tell it a second time.
///
/// # Errors
/// A link cannot be removed, or the store not be written.
pub(super) fn detach(
    config: &Config,
    who: &Attachment,
    addresses: &[Ipv4Addr],
) -> Result<(), CniError> {
    unwire(addresses)?;
    daemon::forget(config, who, addresses);
    unrecord(config, who, addresses)
}

/// Takes containers from the kernel.
pub(super) fn unwire(addresses: &[Ipv4Addr]) -> Result<(), CniError> {
    for &address in addresses {
        container::del(address).map_err(|error| CniError::step("tear down container", error))?;
    }
    Ok(())
}

/// What is on disk for `who`: reserved, or in the store and not meanwhile reserved for another.
fn addresses_of(stored: &Entries, who: &Attachment, reserved: &[(IpAddr, Owner)]) -> Vec<Ipv4Addr> {
    let mut addresses: Vec<_> = reserved
        .iter()
        .filter(|(_, owner)| owner.is(who))
        .filter_map(|(address, _)| v4(*address))
        .collect();
    let stored = stored.attached(&who.network, &who.container_id, &who.ifname);
    let stored = stored.map(|stored| stored.address);
    let is_whos = |address: &Ipv4Addr| !is_anothers(*address, who, reserved);
    addresses.extend(stored.filter(is_whos));
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// What the kernel alone knows: the link in the container, if it is one of ours. A runtime calls DEL after an ADD that failed, because the
/// name was taken too: then the link is somebody else's, of another network even, whose reservations are in another directory.
fn wired(
    environment: &Environment,
    who: &Attachment,
    reserved: &[(IpAddr, Owner)],
    stored: &Entries,
) -> Option<Ipv4Addr> {
    let namespace = environment.namespace().ok()?;
    let found = container::find(&namespace, &who.ifname);
    let found = found.inspect_err(|error| super::note(error)).ok()?;
    let is_recorded = |address: Ipv4Addr| {
        let mut containers = stored.containers();
        containers.any(|stored| stored.address == address && stored.attachment.is_some())
    };
    found.filter(|address| !is_anothers(*address, who, reserved) && !is_recorded(*address))
}

fn is_anothers(address: Ipv4Addr, who: &Attachment, reserved: &[(IpAddr, Owner)]) -> bool {
    let held = reserved.iter().find(|(held, _)| *held == address);
    held.is_some_and(|(_, owner)| !owner.is(who))
}

/// A store that cannot be read is told, and does not keep a container's link from being removed.
pub(super) fn stored(config: &Config) -> Entries {
    let entries = ContainerStore::new(&config.store).read();
    entries
        .inspect_err(|error| super::note(error))
        .unwrap_or_default()
}

fn unrecord(config: &Config, who: &Attachment, addresses: &[Ipv4Addr]) -> Result<(), CniError> {
    let is_gone = |stored: &Stored| match &stored.attachment {
        Some(attachment) => {
            (
                &attachment.network,
                &attachment.container_id,
                &attachment.ifname,
            ) == (&who.network, &who.container_id, &who.ifname)
        }
        // Silk's plugin made it.
        None => addresses.contains(&stored.address),
    };
    let store = ContainerStore::new(&config.store);
    let failed = |error| CniError::store("write container metadata", &error);
    // A store that nothing is to be removed from need not be there, nor be writable.
    let entries = store.read().map_err(failed)?;
    if !entries.containers().any(|stored| is_gone(&stored)) {
        return Ok(());
    }
    let removed = store.update(|entries| {
        let gone: Vec<_> = entries.containers().filter(is_gone).collect();
        for stored in gone {
            entries.remove(&stored.key);
        }
    });
    removed.map_err(failed)
}

pub(super) fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

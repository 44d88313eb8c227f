//! DEL: everything that ADD made, as far as it is there, and nothing of anybody else's.
//!
//! Runtimes call it after an ADD that failed, too, be it because the link's name or the address was taken: what is there then is another's.
//! So nothing goes that is not ours by a record: the reservation, the datastore, or what the link says of itself ([`Claim`]), which wins
//! over both.

use std::net::{IpAddr, Ipv4Addr};

use super::attachment::Attachment;
use super::claim::{Claim, said_by};
use super::config::Config;
use super::daemon;
use super::environment::Environment;
use super::error::CniError;
use super::ipam::{Ipam, Owner};
use crate::control::ContainerStore;
use crate::control::container_store::{Entries, StoreError, Stored};
use crate::error::SetupError;
use crate::netlink::{Link, LinkKind, Namespace, Netlink, container};

const STEP: &str = "tear down container";

/// Detaches the container. One that is not there, or whose namespace, link or daemon is not, is no error.
///
/// # Errors
/// Something is there and cannot be removed. Its address stays reserved then.
pub(super) fn run(environment: &Environment, config: &Config) -> Result<(), CniError> {
    let who = environment.attachment(&config.name);
    let ipam = Ipam::new(config, environment);
    let reserved = ipam.reservations.all()?;
    let record = Record::read(config);
    let on_disk = addresses_of(record.entries(), &who, &reserved);
    let mut netlink = Netlink::open().map_err(|error| CniError::step(STEP, error))?;
    let addresses = match on_disk[..] {
        [] => claimed(&mut netlink, &who)?,
        _ => {
            // One that is not there holds no link that could be another's.
            let namespace = environment.namespace().ok();
            own(&mut netlink, &who, on_disk, namespace.as_ref())?
        }
    };
    detach(config, &who, &mut netlink, &addresses, &record)?;
    let mut held = reserved.iter().filter(|(_, owner)| owner.is(&who));
    ipam.del(&who, held.find_map(|(address, _)| v4(*address)))
}

/// Takes the container from the kernel, the daemon and the store: all of ADD but the reservation. The daemon after the kernel, whose links
/// it looks for when it starts: one that starts in between would find the container again, and nobody would tell it a second time.
///
/// # Errors
/// A link cannot be removed, or the store not be read or written.
pub(super) fn detach(
    config: &Config,
    who: &Attachment,
    netlink: &mut Netlink,
    addresses: &[Ipv4Addr],
    record: &Record,
) -> Result<(), CniError> {
    unwire(netlink, addresses)?;
    daemon::forget(config, addresses);
    record.remove(config, who, addresses)
}

/// Takes containers from the kernel.
pub(super) fn unwire(netlink: &mut Netlink, addresses: &[Ipv4Addr]) -> Result<(), CniError> {
    for &address in addresses {
        container::del(netlink, address).map_err(|error| CniError::step(STEP, error))?;
    }
    Ok(())
}

/// Of the `addresses` that the disk has for `who` those that are not behind another's link.
///
/// # Errors
/// The kernel does not answer.
pub(super) fn own(
    netlink: &mut Netlink,
    who: &Attachment,
    addresses: Vec<Ipv4Addr>,
    namespace: Option<&Namespace>,
) -> Result<Vec<Ipv4Addr>, CniError> {
    let failed = |error| CniError::step(STEP, error);
    let mut own = Vec::new();
    for address in addresses {
        let link = container::host_end(netlink, address).map_err(failed)?;
        let is_own = match &link {
            None => true,
            Some(link) => is_own(link, who, namespace).map_err(failed)?,
        };
        if is_own {
            own.push(address);
        }
    }
    Ok(own)
}

/// A link that says nothing may have been wired by hand: then it does not lead to the container.
fn is_own(
    link: &Link,
    who: &Attachment,
    namespace: Option<&Namespace>,
) -> Result<bool, SetupError> {
    match (Claim::of(link.alias.as_deref(), who), namespace) {
        (Claim::Ours, _) | (Claim::Unsaid, None) => Ok(true),
        (Claim::Anothers, _) => Ok(false),
        // No veth leads anywhere; it is told when it is to be removed.
        (Claim::Unsaid, Some(_)) if link.kind != LinkKind::Veth => Ok(true),
        (Claim::Unsaid, Some(namespace)) => container::leads_to(link, namespace),
    }
}

/// The addresses of the links that say that they are `who`'s.
fn claimed(netlink: &mut Netlink, who: &Attachment) -> Result<Vec<Ipv4Addr>, CniError> {
    let claims = claims(netlink)?.into_iter();
    let ours = claims.filter(|(said, _)| said == who);
    Ok(ours.map(|(_, address)| address).collect())
}

/// The links that say whose they are, by address: what the kernel alone knows.
pub(super) fn claims(netlink: &mut Netlink) -> Result<Vec<(Attachment, Ipv4Addr)>, CniError> {
    let links = netlink.links();
    let links = links.map_err(|error| CniError::step(STEP, error.setup("list", "links")))?;
    let veths = links.iter().filter(|link| link.kind == LinkKind::Veth);
    let claim = |link: &Link| {
        let said = said_by(link.alias.as_deref()?)?;
        Some((said, container::address_of(&link.name)?))
    };
    Ok(veths.filter_map(claim).collect())
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

fn is_anothers(address: Ipv4Addr, who: &Attachment, reserved: &[(IpAddr, Owner)]) -> bool {
    let held = reserved.iter().find(|(held, _)| *held == address);
    held.is_some_and(|(_, owner)| !owner.is(who))
}

/// What the store said when it was read; it is not waited for a second time.
pub(super) struct Record {
    entries: Entries,
    failure: Option<StoreError>,
}

impl Record {
    /// Reads the store. One that cannot be read does not keep a container's link from being removed.
    pub(super) fn read(config: &Config) -> Self {
        match ContainerStore::new(&config.store).read() {
            Ok(entries) => Self {
                entries,
                failure: None,
            },
            Err(error) => Self {
                entries: Entries::default(),
                failure: Some(error),
            },
        }
    }

    /// Its entries. A store that cannot be read is told, and has none.
    pub(super) fn entries(&self) -> &Entries {
        self.failure.iter().for_each(super::note);
        &self.entries
    }

    /// Removes what is `who`'s, and what Silk's plugin has at `addresses`. A store that has nothing of that need not be writable.
    fn remove(
        &self,
        config: &Config,
        who: &Attachment,
        addresses: &[Ipv4Addr],
    ) -> Result<(), CniError> {
        const STEP: &str = "write container metadata";
        if let Some(error) = &self.failure {
            return Err(CniError::store(STEP, error));
        }
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
        if !self.entries.containers().any(|stored| is_gone(&stored)) {
            return Ok(());
        }
        let removed = ContainerStore::new(&config.store).update(|entries| {
            let gone: Vec<_> = entries.containers().filter(is_gone).collect();
            for stored in gone {
                entries.remove(&stored.key);
            }
        });
        removed.map_err(|error| CniError::store(STEP, &error))
    }
}

pub(super) fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

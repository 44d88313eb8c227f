//! GC: what is left of containers that are not there any more.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::attachment::Attachment;
use super::config::Config;
use super::del::{Record, claims, detach, own, v4};
use super::error::CniError;
use super::ipam::Reservations;
use crate::control::container_store;
use crate::netlink::Netlink;

/// Removes everything of this network, on disk or said by a link, that is not of an attachment in `cni.dev/valid-attachments`.
///
/// Always done here, whoever reserved: the files are the same, and no `host-local` before 1.5 has GC.
///
/// # Errors
/// The list is missing; or what could not be removed, after all else is.
pub(super) fn run(config: &Config) -> Result<(), CniError> {
    let valid = config.valid_attachments()?;
    let reservations = Reservations::of(config);
    let mut failures = Vec::new();
    let record = Record::read(config);
    let mut netlink = Netlink::open().map_err(|error| CniError::step(STEP, error))?;
    let claims = claims(&mut netlink)?;
    for Leftover { who, addresses } in leftovers(config, &reservations, &record, claims, &valid)? {
        let own = own(&mut netlink, &who, addresses.clone(), None);
        let removed = own.and_then(|own| detach(config, &who, &mut netlink, &own, &record));
        let removed = removed.and_then(|()| {
            reservations.release_where(|address, owner| {
                owner.is(&who) && v4(address).is_some_and(|address| addresses.contains(&address))
            })
        });
        failures.extend(
            removed
                .err()
                .map(|error| format!("{who}: {}", error.text())),
        );
    }
    if failures.is_empty() {
        return Ok(());
    }
    Err(CniError::step(STEP, failures.join("; ")))
}

const STEP: &str = "collect garbage";

struct Leftover {
    who: Attachment,
    addresses: Vec<Ipv4Addr>,
}

fn leftovers(
    config: &Config,
    reservations: &Reservations,
    record: &Record,
    claims: Vec<(Attachment, Ipv4Addr)>,
    valid: &[(String, String)],
) -> Result<Vec<Leftover>, CniError> {
    let is_valid = |id: &str, ifname: Option<&str>| {
        valid.iter().any(|(valid_id, valid_ifname)| {
            id == valid_id && ifname.is_none_or(|it| it == valid_ifname)
        })
    };
    let who = |id: &str, ifname: Option<&str>| Attachment {
        network: config.name.clone(),
        container_id: id.to_owned(),
        ifname: ifname.unwrap_or_default().to_owned(),
    };
    let mut left = Vec::new();
    let mut held = BTreeSet::new();
    for (address, owner) in reservations.all()? {
        held.insert(address);
        let ifname = owner.ifname.as_deref();
        if !is_valid(&owner.container_id, ifname) {
            left.push(Leftover {
                who: who(&owner.container_id, ifname),
                addresses: v4(address).into_iter().collect(),
            });
        }
    }
    for entry in record.entries().containers() {
        let Some(attachment) = &entry.attachment else {
            continue;
        };
        let container_store::Attachment {
            container_id,
            ifname,
            network,
            ..
        } = attachment;
        // What has a reservation was seen above, or is another's now and goes from the store alone.
        if *network == config.name && !is_valid(container_id, Some(ifname)) {
            let free = !held.contains(&entry.address.into());
            left.push(Leftover {
                who: who(container_id, Some(ifname)),
                addresses: free.then_some(entry.address).into_iter().collect(),
            });
        }
    }
    for (who, address) in claims {
        let is_seen = left.iter().any(|left| left.addresses.contains(&address));
        let is_gone = who.network == config.name && !is_valid(&who.container_id, Some(&who.ifname));
        if is_gone && !is_seen {
            left.push(Leftover {
                who,
                addresses: vec![address],
            });
        }
    }
    Ok(left)
}

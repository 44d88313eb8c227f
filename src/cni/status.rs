//! STATUS: whether an ADD could be served.

use std::path::Path;

use nix::unistd::{AccessFlags, access};

use super::config::Config;
use super::daemon;
use super::del::Record;
use super::error::CniError;
use super::ipam::{self, Reservations, Taken};
use crate::netlink::Netlink;

/// Says nothing if it could.
///
/// # Errors
/// Why it could not: 51 if containers are there, and the daemon that carries their packets is not.
pub(super) fn run(config: &Config) -> Result<(), CniError> {
    let absent = |error: &CniError, is_ours: bool| match is_ours && has_containers(config) {
        true => CniError::limited(error),
        false => CniError::unavailable(error),
    };
    // A daemon known by its port may be Silk's, whose packets the kernel carries.
    let is_ours = config.daemon.port.is_none();
    let network = daemon::discover(&config.daemon).map_err(|error| absent(&error, is_ours))?;
    daemon::check_is_there(&config.daemon).map_err(|error| absent(&error, true))?;
    daemon::check_subnet6(config, &network)
        .and_then(|()| check_room(config, network.overlay_subnet))
        .map_err(|error| CniError::unavailable(&error))
}

fn has_containers(config: &Config) -> bool {
    Record::read(config).entries().containers().any(|stored| {
        let attachment = stored.attachment;
        attachment.is_none_or(|attachment| attachment.network == config.name)
    })
}

/// An address is left, and both files can be written.
fn check_room(config: &Config, overlay: ipnet::IpNet) -> Result<(), CniError> {
    let pool = ipam::pool(overlay, config.subnet)?;
    let reserved = Reservations::of(config).all()?;
    let mut netlink = Netlink::open().map_err(|error| CniError::step("create config", error))?;
    let mut taken = Taken::new(&mut netlink);
    pool.next_free(None, &reserved, &mut |address| taken.by(address))?;
    for (key, path) in [
        ("dataDir", &config.ipam_dir()),
        ("datastore", &config.store),
    ] {
        let there = path.ancestors().find(|path| path.exists());
        let there = there.unwrap_or(Path::new("/"));
        access(there, AccessFlags::W_OK).map_err(|errno| {
            let details = format!("`{key}`: {} cannot be written: {errno:?}", there.display());
            CniError::step("create config", details)
        })?;
    }
    Ok(())
}

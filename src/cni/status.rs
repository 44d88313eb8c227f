//! STATUS: whether an ADD could be served.

use std::path::Path;

use nix::unistd::{AccessFlags, access};

use super::config::Config;
use super::daemon;
use super::del::stored;
use super::error::CniError;
use super::ipam::{self, Reservations};

/// Says nothing if it could.
///
/// # Errors
/// Why it could not: 51 if containers are there, and the daemon that carries their packets is not.
pub(super) fn run(config: &Config) -> Result<(), CniError> {
    let network = daemon::discover(&config.daemon).map_err(|error| {
        // A daemon known by its port may be Silk's, whose packets the kernel carries.
        let ours = config.daemon.port.is_none();
        if ours && has_containers(config) {
            CniError::limited(&error)
        } else {
            CniError::unavailable(&error)
        }
    })?;
    check_room(config, network.overlay_subnet).map_err(|error| CniError::unavailable(&error))
}

fn has_containers(config: &Config) -> bool {
    stored(config).containers().any(|stored| {
        let attachment = stored.attachment;
        attachment.is_none_or(|attachment| attachment.network == config.name)
    })
}

/// An address is left, and both files can be written.
fn check_room(config: &Config, overlay: ipnet::IpNet) -> Result<(), CniError> {
    let pool = ipam::pool(overlay, config.subnet)?;
    let reserved = Reservations::of(config).all()?;
    let taken = |address| reserved.iter().any(|(held, _)| *held == address);
    if pool
        .behind(None)
        .all(|address| taken(std::net::IpAddr::from(address)))
    {
        let details = format!("no IP addresses available in range set: {pool}");
        return Err(CniError::step("run ipam plugin", details));
    }
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

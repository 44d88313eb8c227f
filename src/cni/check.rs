//! CHECK: everything as ADD made it, and all that it needs.

use super::attachment::Attachment;
use super::claim::alias_of;
use super::config::Config;
use super::daemon::{self, Wiring};
use super::del::Record;
use super::environment::Environment;
use super::error::CniError;
use super::ipam::Ipam;
use super::prev_result::PrevResult;
use crate::control::container_store;
use crate::netlink::{ContainerSpec, container};

/// Says nothing if all is well.
///
/// # Errors
/// Every deviation, by name.
pub(super) fn run(environment: &Environment, config: &Config) -> Result<(), CniError> {
    let namespace = environment.namespace()?;
    let who = environment.attachment(&config.name);
    let previous = PrevResult::of(config, &who.ifname)?;
    let mut wrong = Vec::new();
    let wiring = match daemon::discover(&config.daemon) {
        Ok(network) => Some(Wiring::of(config, &network)),
        Err(error) => {
            wrong.push(error.text());
            None
        }
    };
    let recorded = recorded(config, &who, &previous, &mut wrong);
    let recorded_mtu = recorded.as_ref().map(|recorded| recorded.mtu);
    let made = previous.mtu_bytes.or(recorded_mtu).or(config.mtu_bytes);
    let Some(mtu_bytes) = made.or(wiring.map(|wiring| wiring.mtu_bytes)) else {
        return Err(failed(&wrong));
    };
    let spec = ContainerSpec {
        address: previous.address,
        address_v6: previous.address_v6,
        namespace,
        ifname: who.ifname.clone(),
        mtu_bytes,
        gso_max_segs: wiring
            .filter(|wiring| wiring.mtu_bytes == mtu_bytes)
            .and_then(|wiring| wiring.gso_max_segs),
        // Links that Silk's plugin made say nothing.
        alias: recorded.and_then(|_| alias_of(&who)),
    };
    let deviations = container::check(&spec, &previous.links);
    let deviations = deviations.map_err(|error| CniError::step(STEP, error))?;
    wrong.extend(deviations.iter().map(ToString::to_string));
    let reserved = Ipam::new(config, environment).check(&who, previous.address);
    wrong.extend(reserved.err().map(|error| error.text()));
    // A daemon that is not there was named above.
    if wiring.is_some() {
        wrong.extend(unregistered(config, &who, &previous));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(failed(&wrong))
}

const STEP: &str = "check container";

fn failed(wrong: &[String]) -> CniError {
    CniError::step(STEP, wrong.join("; "))
}

/// What our ADD put into the store, which says what it made where the result cannot.
fn recorded(
    config: &Config,
    who: &Attachment,
    previous: &PrevResult,
    wrong: &mut Vec<String>,
) -> Option<container_store::Attachment> {
    let record = Record::read(config);
    let entries = record.entries();
    let address = previous.address;
    let Some(entry) = entries.attached(&who.network, &who.container_id, &who.ifname) else {
        // Silk's plugin records less.
        if !entries.containers().any(|entry| entry.address == address) {
            wrong.push(format!("datastore has no entry for {address}"));
        }
        return None;
    };
    if entry.address != address {
        let recorded = entry.address;
        wrong.push(format!("datastore has address {recorded}, not {address}"));
    }
    entry.attachment
}

fn unregistered(config: &Config, who: &Attachment, previous: &PrevResult) -> Option<String> {
    let rows = match daemon::containers(config) {
        Ok(rows) => rows?,
        Err(error) => return Some(error.text()),
    };
    let address = previous.address;
    let row = rows.iter().find(|row| row.address == address);
    match row.map(|row| row.id.as_ref()) {
        None => Some(format!("the daemon does not know {address}")),
        Some(Some(id)) if *id != who.container_id => {
            Some(format!("the daemon has {address} as container {id}'s"))
        }
        // It may have found it in the kernel.
        Some(_) => None,
    }
}

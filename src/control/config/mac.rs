//! The MAC of a VTEP, ours or a peer's: given, or what follows from its overlay address.

use std::net::IpAddr;

use super::form;
use super::reader::{List, Reader};
use super::report::{Located, Reported};
use crate::wire::MacAddr;

/// A VTEP's MAC.
pub(super) struct Mac {
    /// Where it is given; if derived, where the address is.
    pub(super) at: Located<MacAddr>,
    pub(super) derived: bool,
}

impl Mac {
    /// Takes `mac`, or derives it from the first IPv4 address of `list`; reports it missing if there surely is none.
    pub(super) fn read<T>(
        keys: &mut Reader<'_, '_>,
        list: &List<T>,
        address_of: impl Fn(&T) -> IpAddr,
    ) -> Result<Self, Reported> {
        if let Some(at) = keys.optional("mac", &form::MAC)? {
            return Ok(Self { at, derived: false });
        }
        if let Some(mac) = list.items.iter().find_map(|item| derive(item, &address_of)) {
            return Ok(mac);
        }
        list.whole?;
        let accepted = format!("{} ({NOT_DERIVED})", form::MAC.accepted);
        Err(keys.missing("mac", &accepted))
    }
}

const NOT_DERIVED: &str = "there is no IPv4 address that it could follow from";

fn derive<T>(item: &Located<T>, address_of: impl Fn(&T) -> IpAddr) -> Option<Mac> {
    let IpAddr::V4(address) = address_of(&item.value) else {
        return None;
    };
    let at = Located {
        value: MacAddr::overlay(address),
        place: item.place.clone(),
    };
    Some(Mac { at, derived: true })
}

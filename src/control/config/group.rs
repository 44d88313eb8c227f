//! `[[group]]`: each entry, held against `[vtep]` and against the others.

use std::net::IpAddr;

use super::form;
use super::reader::Reader;
use super::report::{Claims, Located, Report, Reported};
use super::vtep::Own;
use crate::tables::GroupEntry;
use crate::wire::GroupId;

/// One entry, as far as it could be read.
pub(super) struct RawGroup {
    address: Result<Located<IpAddr>, Reported>,
    id: Result<Located<GroupId>, Reported>,
}

/// Takes every key of one `[[group]]`.
pub(super) fn read(mut keys: Reader<'_, '_>) -> RawGroup {
    let address = keys.required("address", &form::CONTAINER);
    let id = keys.required("id", &form::GROUP_ID);
    keys.finish();
    RawGroup { address, id }
}

/// Checks all groups. O(n) in their number.
pub(super) fn check(
    groups: &[RawGroup],
    own: &Own,
    report: &mut Report,
) -> Result<Vec<GroupEntry>, Reported> {
    let mut claims = Claims::new();
    for address in groups.iter().flat_map(|group| &group.address) {
        if own.is_outside(address.value.into()) {
            let wrong = format!("{} is in no overlay", address.value);
            let accepted = format!("an address inside {}", own.overlays_shown());
            report.refuse(&address.place, wrong, accepted);
        }
        if let Err(first) = claims.claim(address.value, &address.place) {
            let wrong = format!("{} has a group already at {first}", address.value);
            report.refuse(&address.place, wrong, "one group for each address");
        }
    }
    groups.iter().map(RawGroup::entry).collect()
}

impl RawGroup {
    fn entry(&self) -> Result<GroupEntry, Reported> {
        Ok(GroupEntry {
            address: self.address.as_ref()?.value,
            id: self.id.as_ref()?.value,
        })
    }
}

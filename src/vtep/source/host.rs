//! In whose name this cell's host may speak.

use crate::drop_reason::DropReason;
use crate::tables::{Address, Local};
use crate::wire::claim::Claim;
use crate::wire::ethernet::Frame;
use crate::wire::ip::Network;
use crate::wire::ndisc;

/// Whether the host may send this. `source` is the address of a packet behind no VLAN tag, of the type that it has; `network` is behind
/// any.
#[inline]
pub(in crate::vtep) fn check_host(
    local: &Local,
    frame: Frame<'_>,
    network: Network<'_>,
    source: Option<impl Address>,
) -> Result<(), DropReason> {
    if !local.strict_source {
        return Ok(());
    }
    let checked = match source {
        Some(source) => check_local(local, source),
        None => {
            let ends = network.addresses();
            ends.map_or(Ok(()), |(source, _)| check_local(local, source))
        }
    };
    if checked.is_err() {
        return host_looks(local, network).unwrap_or(checked);
    }
    match Claim::of(frame, network) {
        None => Ok(()),
        Some(Claim {
            is_hidden: true, ..
        }) => Err(DropReason::SourceNotLocal),
        Some(Claim { address, .. }) => {
            address.map_or(Ok(()), |address| check_local(local, address))
        }
    }
}

/// A host that looks whether an address is free, as one that is bridged does, speaks as that one. `None`: nobody looks.
#[cold]
fn host_looks(local: &Local, network: Network<'_>) -> Option<Result<(), DropReason>> {
    match network {
        Network::V6(ip) => ndisc::tentative(ip).map(|wanted| check_local(local, wanted)),
        Network::V4(_) | Network::Other => None,
    }
}

#[inline]
fn check_local(local: &Local, source: impl Address) -> Result<(), DropReason> {
    if local.covers(source) {
        return Ok(());
    }
    let is_underlay = local.underlay == Some(source.into());
    Err(if is_underlay {
        DropReason::SourceIsUnderlay
    } else {
        DropReason::SourceNotLocal
    })
}

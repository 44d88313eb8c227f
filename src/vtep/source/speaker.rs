//! In whose name a peer may speak.

use std::net::IpAddr;

use crate::drop_reason::DropReason;
use crate::tables::{Address, PeerId, Tables};
use crate::wire::MacAddr;
use crate::wire::claim::Claim;
use crate::wire::ethernet::{EtherType, Frame};
use crate::wire::ip::{Ipv6, Network};
use crate::wire::ndisc;

/// Whether `peer` may send this. `network` is behind no VLAN tag.
#[inline]
pub(in crate::vtep) fn check_peer(
    tables: &Tables,
    frame: Frame<'_>,
    network: Network<'_>,
    peer: PeerId,
) -> Result<(), DropReason> {
    let said_of = Speaker {
        tables,
        frame,
        peer,
    };
    match network {
        Network::V4(ip) => said_of.address(ip.source()),
        Network::V6(ip) => said_of.ipv6(ip),
        Network::Other => said_of.behind_tags(),
    }
}

/// A peer, and the frame that it speaks by.
struct Speaker<'a> {
    tables: &'a Tables,
    frame: Frame<'a>,
    peer: PeerId,
}

impl Speaker<'_> {
    /// An address that is said to be the speaker's.
    #[inline]
    fn address(&self, address: impl Address) -> Result<(), DropReason> {
        let local = &*self.tables.local;
        let (is_own, is_theirs) = if local.routing {
            (
                local.covers(address),
                self.tables.belongs_to(address, self.peer),
            )
        } else {
            // One subnet may lie on both sides of a bridge; the FDB is all there is.
            let is_own = local.addresses.contains(&address.into());
            (is_own, self.has_mac(self.frame.source()))
        };
        if is_own {
            Err(DropReason::OwnSourceAddress)
        } else if is_theirs {
            Ok(())
        } else {
            Err(DropReason::SourceNotPeers)
        }
    }

    #[inline]
    fn ipv6(&self, ip: Ipv6<'_>) -> Result<(), DropReason> {
        match self.address(ip.source()) {
            Ok(()) => self.claim(Claim::of_ipv6(ip)),
            Err(reason) => self.tentative(ip).unwrap_or(Err(reason)),
        }
    }

    /// Who looks whether an address is free has none to speak from, and speaks as that one: of its own, as always, or of the VTEP's,
    /// which it is to be told is taken. `None`: nobody looks.
    #[cold]
    fn tentative(&self, ip: Ipv6<'_>) -> Option<Result<(), DropReason>> {
        let wanted = ndisc::tentative(ip)?;
        let local = &*self.tables.local;
        if !local.addresses.contains(&wanted.into()) {
            return Some(self.address(wanted));
        }
        if local.routing || self.has_mac(self.frame.source()) {
            return Some(Ok(()));
        }
        Some(Err(DropReason::SourceNotPeers))
    }

    fn has_mac(&self, mac: MacAddr) -> bool {
        is_stations(mac) && self.tables.has_destination(mac, self.peer)
    }

    fn claim(&self, claim: Option<Claim>) -> Result<(), DropReason> {
        let Some(claim) = claim else {
            return Ok(());
        };
        if claim.mac == Some(self.tables.local.mac) {
            return Err(DropReason::OwnSourceMac);
        }
        if claim.is_hidden {
            return Err(DropReason::SourceNotPeers);
        }
        claim
            .address
            .map_or(Ok(()), |address: IpAddr| self.address(address))
    }

    /// ARP, and what VLAN tags hide.
    fn behind_tags(&self) -> Result<(), DropReason> {
        match Network::parse_untagged(self.frame) {
            Ok(Network::V4(ip)) => self.address(ip.source()),
            Ok(Network::V6(ip)) => self.ipv6(ip),
            Ok(Network::Other) if self.frame.untagged().0 == EtherType::ARP => {
                if !self.tables.local.routing && !self.has_mac(self.frame.source()) {
                    return Err(DropReason::SourceNotPeers);
                }
                self.claim(Claim::of_other(self.frame))
            }
            Ok(Network::Other) => self.claim(Claim::of_other(self.frame)),
            // Too short for what it says it is: no host makes a packet of it.
            Err(_) => Ok(()),
        }
    }
}

/// False for the zero MAC and for groups: where they have FDB entries, these are lists of whom to flood to, and nobody's home.
fn is_stations(mac: MacAddr) -> bool {
    !mac.is_zero() && !mac.is_multicast()
}

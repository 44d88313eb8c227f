//! Who may speak, and in whose name: the checks of `strict_source`.
//!
//! | who | must be from |
//! |---|---|
//! | the host | this cell: its subnet, or the VTEP's address |
//! | a peer, where we route | behind that peer, by our own routes, and not this cell |
//! | a peer, by FDB alone | a MAC whose FDB entry is that peer, and not one of our addresses |
//!
//! What an ARP or ND body says of its sender counts as what the headers say ([`Claim`]), and what stands behind VLAN tags as what stands
//! behind none: a tag of VLAN 0 is no tag to the host that hears it. What stands behind more tags than are looked through is nobody's.
//! Frames that are neither IP nor ARP say nothing. Duplicate address detection, from the unspecified address, speaks as the address that
//! it asks for, as an ARP probe speaks as none: else no peer could learn that an address of ours is taken.

mod host;
mod speaker;
#[cfg(test)]
mod tests;

pub(super) use host::check_host;
pub(super) use speaker::check_peer;

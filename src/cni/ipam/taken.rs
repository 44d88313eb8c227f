//! Addresses that are reserved for nobody here, and taken all the same: by a container that was wired by hand, or of another network on
//! the same subnet.

use std::net::Ipv4Addr;

use super::STEP;
use crate::cni::error::CniError;
use crate::netlink::Netlink;
use crate::netlink::container::{Occupant, Occupied};

/// Tells who has an address, if anybody.
pub(in crate::cni) type Look<'a> =
    &'a mut dyn FnMut(Ipv4Addr) -> Result<Option<Occupant>, CniError>;

/// Asks the kernel, once one address is asked for.
pub(in crate::cni) struct Taken<'a> {
    netlink: &'a mut Netlink,
    occupied: Option<Occupied>,
}

impl<'a> Taken<'a> {
    /// In the namespace of `netlink`, the host's.
    pub(in crate::cni) fn new(netlink: &'a mut Netlink) -> Self {
        Self {
            netlink,
            occupied: None,
        }
    }

    /// Who has `address`, if that shows.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(in crate::cni) fn by(&mut self, address: Ipv4Addr) -> Result<Option<Occupant>, CniError> {
        self.ask(address)
            .map_err(|error| CniError::step(STEP, error))
    }

    fn ask(&mut self, address: Ipv4Addr) -> Result<Option<Occupant>, crate::error::SetupError> {
        let occupied = match self.occupied.take() {
            Some(occupied) => occupied,
            None => Occupied::list(self.netlink)?,
        };
        let occupied = self.occupied.insert(occupied);
        occupied.by(self.netlink, address)
    }
}

//! Addresses of links.

use std::net::IpAddr;

use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope as RawScope,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use super::error::{NetlinkError, unless};
use super::socket::{CREATE, Change, Netlink};

/// How far an address is good for (RT_SCOPE_*).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressScope {
    /// Anywhere.
    #[default]
    Global,
    /// On this link.
    Link,
    /// On this host, or a scope of the administrator's.
    Other(u8),
}

/// An address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The link's number.
    pub interface: u32,
    /// The address itself.
    pub local: IpAddr,
    /// The other end's address, on a point-to-point link.
    pub peer: Option<IpAddr>,
    /// Prefix length, of `peer` if there is one.
    pub prefix_len: u8,
    /// How far it is good for.
    pub scope: AddressScope,
    /// IFA_F_NOPREFIXROUTE: the kernel makes no connected route for the prefix.
    pub no_prefix_route: bool,
    /// IFA_F_NODAD: no duplicate address detection; v6 only.
    pub no_dad: bool,
}

impl Netlink {
    /// The addresses of one link, or of all; IPv4 first.
    ///
    /// # Errors
    /// If the kernel does not answer, or ENODEV if the link is gone.
    pub fn addresses(&mut self, interface: Option<u32>) -> Result<Vec<Address>, NetlinkError> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = AddressMessage::default();
            request.header.family = family;
            request.header.index = interface.unwrap_or(0);
            let answer = self.dump(&RouteNetlinkMessage::GetAddress(request))?;
            // Without IPv6 the kernel answers a v6 dump with all families.
            found.extend(answer.into_iter().filter_map(|message| {
                address_of(message, family)
                    .filter(|address| interface.is_none_or(|index| index == address.interface))
            }));
        }
        Ok(found)
    }

    /// Adds an address.
    ///
    /// # Errors
    /// EEXIST if the link has it already, ENODEV if the link is gone.
    pub fn add_address(&mut self, address: &Address) -> Result<(), NetlinkError> {
        self.change_one(address.addition())
    }

    /// Removes an address; false if the link did not have it.
    ///
    /// # Errors
    /// ENODEV if the link is gone.
    pub fn delete_address(&mut self, address: &Address) -> Result<bool, NetlinkError> {
        let message = RouteNetlinkMessage::DelAddress(message_of(address));
        unless(Errno::EADDRNOTAVAIL, self.change(message, 0))
    }
}

impl Address {
    /// Adds it.
    pub(super) fn addition(&self) -> Change {
        Change::new(RouteNetlinkMessage::NewAddress(message_of(self)), CREATE)
    }
}

/// AF_INET or AF_INET6.
pub(super) fn family_of(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn message_of(address: &Address) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family_of(address.local);
    message.header.prefix_len = address.prefix_len;
    message.header.index = address.interface;
    message.header.scope = match address.scope {
        AddressScope::Global => RawScope::Universe,
        AddressScope::Link => RawScope::Link,
        AddressScope::Other(raw) => RawScope::from(raw),
    };
    let mut flags = AddressFlags::empty();
    flags.set(AddressFlags::Noprefixroute, address.no_prefix_route);
    flags.set(AddressFlags::Nodad, address.no_dad);
    message.attributes = vec![
        AddressAttribute::Local(address.local),
        AddressAttribute::Address(address.peer.unwrap_or(address.local)),
        AddressAttribute::Flags(flags),
    ];
    message
}

pub(super) fn address_of(message: RouteNetlinkMessage, family: AddressFamily) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(message) = message else {
        return None;
    };
    if message.header.family != family {
        return None;
    }
    let (mut local, mut prefix, mut flags) = (None, None, AddressFlags::empty());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => prefix = Some(*address),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let header = message.header;
    // IFA_LOCAL is there only where it may differ from IFA_ADDRESS (if_addr.h).
    let local = local.or(prefix)?;
    Some(Address {
        interface: header.index,
        local,
        peer: prefix.filter(|peer| *peer != local),
        prefix_len: header.prefix_len,
        scope: scope_of(header.scope),
        no_prefix_route: flags.contains(AddressFlags::Noprefixroute),
        no_dad: header.flags.contains(AddressHeaderFlags::Nodad),
    })
}

fn scope_of(scope: RawScope) -> AddressScope {
    match scope {
        RawScope::Universe => AddressScope::Global,
        RawScope::Link => AddressScope::Link,
        other => AddressScope::Other(other.into()),
    }
}

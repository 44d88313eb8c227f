//! The kernel's own VXLAN device, for those who compare with it: made here, fed one forwarding entry at a time.

use std::net::Ipv4Addr;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::error::NetlinkError;
use super::socket::{CREATE, Netlink};
use crate::wire::MacAddr;

/// A VXLAN device to be made: `type vxlan id VNI local LOCAL dstport PORT nolearning gbp`.
#[derive(Debug, Clone)]
pub struct VxlanSpec<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its address.
    pub mac: MacAddr,
    /// Its MTU.
    pub mtu_bytes: u32,
    /// VNI.
    pub vni: u32,
    /// Outer source address.
    pub local: Ipv4Addr,
    /// UDP port it listens on and sends to.
    pub port: u16,
}

impl Netlink {
    /// Makes a VXLAN device with the group policy extension, which learns nothing; it is down.
    ///
    /// # Errors
    /// EOPNOTSUPP if the kernel has no VXLAN, EEXIST if the name is taken.
    pub fn create_vxlan(&mut self, spec: &VxlanSpec<'_>) -> Result<(), NetlinkError> {
        let mut request = LinkMessage::default();
        request.attributes = vec![
            LinkAttribute::IfName(spec.name.to_owned()),
            LinkAttribute::Mtu(spec.mtu_bytes),
            LinkAttribute::Address(spec.mac.octets().to_vec()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vxlan),
                LinkInfo::Data(InfoData::Vxlan(vec![
                    InfoVxlan::Id(spec.vni),
                    InfoVxlan::Local(spec.local),
                    InfoVxlan::Port(spec.port),
                    InfoVxlan::Learning(false),
                    InfoVxlan::Gbp,
                ])),
            ]),
        ];
        self.change(RouteNetlinkMessage::NewLink(request), CREATE)
    }

    /// Appends a permanent forwarding entry to a VXLAN device: frames to `mac` go to `remote`, as
    /// `bridge fdb append MAC dev DEVICE dst REMOTE self permanent`.
    ///
    /// # Errors
    /// EEXIST if `mac` has a remote and may have only one; EOPNOTSUPP or EINVAL if the link is no VXLAN device.
    pub fn append_fdb(
        &mut self,
        interface: u32,
        mac: MacAddr,
        remote: Ipv4Addr,
    ) -> Result<(), NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = interface;
        message.header.state = NeighbourState::Permanent;
        message.header.flags = NeighbourFlags::Own;
        message.attributes = vec![
            NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec()),
            NeighbourAttribute::Destination(remote.into()),
        ];
        let message = RouteNetlinkMessage::NewNeighbour(message);
        self.change(message, NLM_F_CREATE | NLM_F_APPEND)
    }
}

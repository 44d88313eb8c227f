//! Packet sockets: one that sees what passes a namespace's devices, one that puts frames on a device.

use std::io::{ErrorKind, Read};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::time::Instant;

use etherparse::{IpSlice, SlicedPacket, TransportSlice};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, bind, send, setsockopt, socket, sockopt,
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{BOUND, Namespace, Result, Wait, ensure, wait_until};

/// VXLAN's port.
const PORT: u16 = 4789;
/// ETH_P_ALL in network byte order, as packet(7) wants it.
const ETH_P_ALL: i32 = 0x0003_u16.to_be() as i32;
/// The largest super-frame that veth hands over, and some.
const FRAME_BYTES: usize = 70_000;
/// Room for all that one test sends, in bytes.
const SOCKET_BUFFER_BYTES: usize = 16 << 20;

/// One datagram to port 4789, as it passed.
#[derive(Debug, Clone)]
pub(crate) struct Outer {
    /// Outer source address.
    pub(crate) source: IpAddr,
    /// Outer UDP source port.
    pub(crate) source_port: u16,
    /// Outer TTL or hop limit.
    pub(crate) ttl: u8,
    /// Outer TOS or traffic class.
    pub(crate) tos: u8,
    /// Outer DF; never on IPv6.
    pub(crate) dont_fragment: bool,
    /// The VXLAN header.
    pub(crate) vxlan: [u8; 8],
    /// The frame inside.
    pub(crate) inner: Vec<u8>,
}

impl Outer {
    /// Source port of a UDP packet inside.
    pub(crate) fn inner_udp_source(&self) -> Option<u16> {
        match SlicedPacket::from_ethernet(&self.inner).ok()?.transport? {
            TransportSlice::Udp(udp) => Some(udp.source_port()),
            _ => None,
        }
    }

    /// What passed, if it is a datagram to port 4789.
    pub(crate) fn parse(frame: &[u8]) -> Option<Self> {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let Some(TransportSlice::Udp(udp)) = &packet.transport else {
            return None;
        };
        let (vxlan, inner) = udp.payload().split_first_chunk()?;
        let ip = match packet.net? {
            etherparse::NetSlice::Ipv4(ip) => IpSlice::Ipv4(ip),
            etherparse::NetSlice::Ipv6(ip) => IpSlice::Ipv6(ip),
            etherparse::NetSlice::Arp(_) => return None,
        };
        let (ttl, tos, dont_fragment) = match &ip {
            IpSlice::Ipv4(ip) => (
                ip.header().ttl(),
                ip.header().slice()[1],
                ip.header().dont_fragment(),
            ),
            IpSlice::Ipv6(ip) => (ip.header().hop_limit(), ip.header().traffic_class(), false),
        };
        (udp.destination_port() == PORT).then(|| Self {
            source: ip.source_addr(),
            source_port: udp.source_port(),
            ttl,
            tos,
            dont_fragment,
            vxlan: *vxlan,
            inner: inner.to_vec(),
        })
    }
}

/// Sees every frame that passes any device of a namespace, in both directions, from its start on.
pub(crate) struct Sniffer(Socket);

impl Sniffer {
    /// Starts in `namespace`.
    pub(crate) fn start(namespace: &Namespace) -> Result<Self> {
        let socket = namespace.run(|| {
            Ok(Socket::new(
                Domain::PACKET,
                Type::RAW,
                Some(Protocol::from(ETH_P_ALL)),
            )?)
        })?;
        setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER_BYTES)?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// Waits until `count` datagrams to port 4789 that `wanted` likes have passed; returns all it likes, in order.
    pub(crate) fn outers(
        &self,
        count: usize,
        wanted: impl Fn(&Outer) -> bool,
    ) -> Result<Vec<Outer>> {
        self.collect(count, |frame| Outer::parse(frame).filter(&wanted))
    }

    /// Waits until `count` frames have passed that `parse` makes something of.
    pub(crate) fn collect<T>(
        &self,
        count: usize,
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>> {
        let mut found = Vec::new();
        wait_until(&format!("{count} packets of a kind passed"), || {
            found.extend(self.so_far(&parse)?);
            Ok(Wait::unless(found.len() >= count, || {
                format!("{} of them", found.len())
            }))
        })?;
        Ok(found)
    }

    /// What `parse` makes of the frames that have passed until now and were not looked at yet.
    pub(crate) fn so_far<T>(&self, parse: impl Fn(&[u8]) -> Option<T>) -> Result<Vec<T>> {
        let mut found = Vec::new();
        let mut frame = vec![0; FRAME_BYTES];
        let deadline = Instant::now() + BOUND;
        while let Some(len) = self.next_frame(&mut frame)? {
            found.extend(parse(&frame[..len]));
            ensure!(
                Instant::now() < deadline,
                "more packets passed than can be looked at"
            );
        }
        Ok(found)
    }

    fn next_frame(&self, frame: &mut [u8]) -> Result<Option<usize>> {
        match (&self.0).read(frame) {
            Ok(len) => Ok(Some(len)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Puts frames on a device as if the host's stack sent them.
pub(crate) struct Injector(std::os::fd::OwnedFd);

impl Injector {
    /// Onto `device` of `namespace`.
    pub(crate) fn new(namespace: &Namespace, device: &str) -> Result<Self> {
        namespace.run(|| {
            let socket = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                None,
            )?;
            // The list has each device's link-layer address, index included: what packet(7) wants to be bound to.
            let link = getifaddrs()?
                .filter(|interface| interface.interface_name == device)
                .filter_map(|interface| interface.address)
                .find(|address| address.as_link_addr().is_some())
                .ok_or_else(|| format!("no link-layer address on {device}"))?;
            bind(socket.as_raw_fd(), &link)?;
            Ok(Self(socket))
        })
    }

    /// Frames sent from now on have this `skb->mark`.
    pub(crate) fn set_mark(&self, mark: u32) -> Result {
        Ok(SockRef::from(&self.0).set_mark(mark)?)
    }

    /// Sends one frame, from its destination MAC on.
    pub(crate) fn send(&self, frame: &[u8]) -> Result {
        send(self.0.as_raw_fd(), frame, MsgFlags::empty())?;
        Ok(())
    }
}

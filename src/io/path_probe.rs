//! Asking the path itself what it carries: a large datagram with DF from a port of its own.
//!
//! A router too narrow for it answers with an ICMP message, which reaches the port it came from. What the kernel's routes say of a path is
//! only a claim: one forged message that guesses one of the known source ports makes them say it. An answer to a probe has to hit a port
//! that was drawn a moment ago, and [`Asked`] says how far it is believed; and nobody is believed who was not asked.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};

use libc::c_int;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::path_answer::{Asked, FRONT_LEN, Told};
use crate::sys;
use crate::sys::error_queue::{next_error, option};
use crate::wire::ip::{IPV4_HEADER_LEN, IPV6_HEADER_LEN};

const UDP_HEADER_LEN: usize = 8;
/// Errors of one socket that are looked at: it sends one datagram.
const ERRORS_MAX: usize = 4;
/// The largest UDP payload over IPv4.
const PAYLOAD_MAX: usize = 65_507;

/// The options of one family.
#[derive(Clone, Copy)]
struct Family {
    domain: Domain,
    level: c_int,
    receive_errors: c_int,
    discover: c_int,
    /// DF, and the link's MTU alone as bound.
    probe: c_int,
    mtu: c_int,
    header_len: usize,
}

const V4: Family = Family {
    domain: Domain::IPV4,
    level: libc::IPPROTO_IP,
    receive_errors: libc::IP_RECVERR,
    discover: libc::IP_MTU_DISCOVER,
    probe: libc::IP_PMTUDISC_PROBE,
    mtu: libc::IP_MTU,
    header_len: IPV4_HEADER_LEN,
};

const V6: Family = Family {
    domain: Domain::IPV6,
    level: libc::IPPROTO_IPV6,
    receive_errors: libc::IPV6_RECVERR,
    discover: libc::IPV6_MTU_DISCOVER,
    probe: libc::IPV6_PMTUDISC_PROBE,
    mtu: libc::IPV6_MTU,
    header_len: IPV6_HEADER_LEN,
};

impl Family {
    const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => V4,
            IpAddr::V6(_) => V6,
        }
    }

    fn socket(self, local: IpAddr) -> io::Result<Socket> {
        let socket = Socket::new(self.domain, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::from(SocketAddr::new(local, 0)))?;
        Ok(socket)
    }
}

/// Tells what the kernel believes its routes carry.
#[derive(Debug)]
pub struct RouteMtu {
    socket: Socket,
    local: IpAddr,
}

impl RouteMtu {
    /// For packets from `local`.
    ///
    /// # Errors
    /// No descriptor or port is left, or no link has the address.
    pub fn open(local: IpAddr) -> io::Result<Self> {
        let socket = Family::of(local).socket(local)?;
        Ok(Self { socket, local })
    }

    /// Bytes of the largest IP packet to `peer`, by its link and by what ICMP said (IP_MTU).
    ///
    /// # Errors
    /// There is no route.
    pub fn to(&self, peer: SocketAddr) -> io::Result<u32> {
        let family = Family::of(self.local);
        // Each connect looks the route up anew.
        self.socket.connect(&SockAddr::from(peer))?;
        let mtu = option(&self.socket, family.level, family.mtu)?;
        Ok(u32::try_from(mtu).unwrap_or(u32::MAX))
    }
}

/// One datagram on its way.
#[derive(Debug)]
pub struct PathProbe {
    socket: Socket,
    asked: Asked,
    header_len: usize,
}

impl PathProbe {
    /// Sends an IP packet of `packet_bytes` from `local` to `peer`. What is refused at once for its size is sent too:
    /// [`answer`](Self::answer) tells.
    ///
    /// # Errors
    /// No descriptor or port is left, or there is no route.
    pub fn send(local: IpAddr, peer: SocketAddr, packet_bytes: u32) -> io::Result<Self> {
        let family = Family::of(local);
        let socket = family.socket(local)?;
        sys::udp::set_option(&socket, family.level, family.receive_errors, 1)?;
        sys::udp::set_option(&socket, family.level, family.discover, family.probe)?;
        if local.is_ipv6() {
            sys::udp::set_option(&socket, family.level, libc::IPV6_DONTFRAG, 1)?;
        }
        socket.connect(&SockAddr::from(peer))?;
        let nonce = RandomState::new().build_hasher().finish().to_be_bytes();
        let probe = Self {
            socket,
            asked: Asked::new(local, nonce, packet_bytes),
            header_len: family.header_len,
        };
        match probe.send_payload() {
            Err(error) if error.raw_os_error() != Some(libc::EMSGSIZE) => Err(error),
            _ => Ok(probe),
        }
    }

    fn send_payload(&self) -> io::Result<()> {
        static ZEROS: [u8; PAYLOAD_MAX] = [0; PAYLOAD_MAX];
        let headers = self.header_len + UDP_HEADER_LEN;
        let packet_bytes = self.asked.packet_bytes() as usize;
        let padding = packet_bytes.saturating_sub(headers + FRONT_LEN);
        let padding = &ZEROS[..padding.min(PAYLOAD_MAX - FRONT_LEN)];
        let slices = [IoSlice::new(self.asked.front()), IoSlice::new(padding)];
        self.socket.send_vectored(&slices).map(drop)
    }

    /// What a link on the way said that it carries, in bytes of an IP packet; `None`: nothing yet, or nothing to be believed.
    #[must_use]
    pub fn answer(&self) -> Option<u32> {
        let mut quote = [0; FRONT_LEN];
        for _ in 0..ERRORS_MAX {
            let error = next_error(&self.socket, &mut quote).ok()?;
            let believed = self.asked.believed(&Told {
                mtu: error.info,
                by_host: error.is_local,
                quoted: &quote[..error.quoted],
            });
            if error.errno == libc::EMSGSIZE && believed.is_some() {
                return believed;
            }
        }
        None
    }
}

impl AsRawFd for PathProbe {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};

    use super::*;

    const LOOPBACKS: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];

    #[test]
    fn a_probe_is_as_long_as_was_asked_and_silence_is_no_answer() {
        for local in LOOPBACKS {
            let peer = UdpSocket::bind((local, 0)).expect("loopback has a free port");
            let probe = PathProbe::send(local, peer.local_addr().expect("bound"), 1500);
            let probe = probe.expect("loopback is reached");
            let mut payload = [0xee; 2000];
            let len = peer.recv(&mut payload).expect("loopback delivers");
            assert_eq!(len + UDP_HEADER_LEN + Family::of(local).header_len, 1500);
            assert_eq!(&payload[..FRONT_LEN], probe.asked.front());
            assert_eq!(probe.answer(), None);
        }
    }

    #[test]
    fn a_port_that_nobody_listens_on_is_no_answer_either() {
        for local in LOOPBACKS {
            let gone = UdpSocket::bind((local, 0)).expect("loopback has a free port");
            let peer = gone.local_addr().expect("bound");
            drop(gone);
            let probe = PathProbe::send(local, peer, 1500).expect("loopback is reached");
            assert_eq!(probe.answer(), None);
        }
    }

    #[test]
    fn a_route_carries_what_its_link_does() {
        for local in LOOPBACKS {
            let routes = RouteMtu::open(local).expect("loopback has a free port");
            for port in [4789, 9] {
                let mtu = routes.to((local, port).into()).expect("a route");
                assert!(mtu >= 65_535, "{mtu} of lo");
            }
        }
    }
}

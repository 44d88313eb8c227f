//! The VXLAN port on the underlay: one receiving socket a lane, and a pool of sending sockets on other ports.
//!
//! A socket bound to 4789 would always send from 4789: no entropy for ECMP, and one REUSEPORT lane at the receiver. So each lane sends
//! from [`SOURCE_PORTS`](super::SOURCE_PORTS) ports that the flow hash chooses among. All lanes bind the same ports, so a flow keeps its
//! port whichever lane it is on; nobody reads those sockets, and a filter drops what arrives at them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use libc::c_int;
use parking_lot::Mutex;
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};

use super::source_ports::{pick, spread};
use super::{Arrivals, Transmit, Underlay};
use crate::error::{SetupError, errno};
use crate::sys;
use crate::tables::Df;

/// Room for bursts: the default of 212,992 bytes holds three super-frames.
pub(crate) const BUFFER_BYTES: c_int = 4 << 20;

/// How the sockets are made. See the keys of the same names in the configuration.
#[derive(Debug, Clone)]
pub struct UdpOptions {
    /// Our underlay address: the source of what we send.
    pub local: IpAddr,
    /// The VXLAN port.
    pub port: u16,
    /// Receive on `local` alone.
    pub bind_local: bool,
    /// Source ports are chosen in this range; the end is never used.
    pub source_ports: Range<u16>,
    /// TTL or hop limit of what does not ask for another.
    pub ttl: u8,
    /// The DF bit over IPv4.
    pub df: Df,
    /// Fill in UDP checksums.
    pub checksum: bool,
    /// Take datagrams without a checksum over IPv6; over IPv4 they are always taken.
    pub zero_checksum_rx: bool,
    /// Have the host join datagrams of one sender for one read (UDP_GRO), if it can.
    pub gro: bool,
}

/// Who may hold the port; asked when it is taken.
pub trait PortHolder {
    /// One phrase, such as `kernel vxlan device vxlan0`; `None` if nobody is known.
    fn holder(&self, port: u16) -> Option<String>;
}

/// One lane's sockets; a clone is a second handle of the same.
#[derive(Debug, Clone)]
pub struct UdpPort {
    receiver: Arc<Socket>,
    senders: Arc<[Socket]>,
    /// The sockets' own TTL.
    ttl: u8,
    /// Where DF differs from packet to packet: held while a socket sends.
    turn: Option<Arc<Mutex<()>>>,
}

impl UdpPort {
    /// Opens the sockets of `lanes` lanes. The first of each port is bound without SO_REUSEPORT, or we would join sockets of the same
    /// user unnoticed: a second daemon's on the VXLAN port, and, with a sending socket and its filter, whatever shares a source port.
    /// Receivers come first, so that the pool of senders leaves out the VXLAN port too.
    ///
    /// # Errors
    /// Which step failed, why, who holds the port if it is taken, and what mends it.
    pub fn open(
        options: &UdpOptions,
        lanes: usize,
        who: &impl PortHolder,
    ) -> Result<Vec<Self>, SetupError> {
        let receivers = (0..lanes).map(|lane| options.receiver(Claim::of(lane)));
        let receivers: Vec<_> = receivers
            .collect::<io::Result<_>>()
            .map_err(|error| options.receive_error(&error, who))?;
        let first = options.senders()?;
        let ports = first.iter().map(local_port).collect::<io::Result<Vec<_>>>();
        let ports = ports.map_err(|error| options.send_error("getsockname", &error))?;
        let mut senders = Some(first);
        receivers
            .into_iter()
            .map(|receiver| {
                let senders = match senders.take() {
                    Some(first) => first,
                    None => options.senders_on(&ports)?,
                };
                Ok(Self {
                    receiver: Arc::new(receiver),
                    senders: senders.into(),
                    ttl: options.ttl,
                    turn: options.df_differs().then(Arc::default),
                })
            })
            .collect()
    }
}

impl UdpPort {
    /// The source ports by their numbers, the same for every lane.
    ///
    /// # Errors
    /// A socket cannot tell its own.
    pub fn source_ports(&self) -> io::Result<Vec<u16>> {
        self.senders.iter().map(local_port).collect()
    }
}

/// Whether the host cuts a send into datagrams (UDP_SEGMENT, since Linux 4.18), as far as a socket can tell.
#[must_use]
pub fn supports_gso() -> bool {
    supports(libc::UDP_SEGMENT)
}

/// Whether the host joins datagrams of one sender for one read (UDP_GRO, since Linux 5.0).
#[must_use]
pub fn supports_gro() -> bool {
    supports(libc::UDP_GRO)
}

fn supports(option: c_int) -> bool {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP));
    socket.is_ok_and(|socket| sys::udp::set_option(&socket, libc::SOL_UDP, option, 1).is_ok())
}

/// How a socket gets its port.
#[derive(Clone, Copy)]
enum Claim {
    /// Nobody else has it, and from then on only we may join.
    Alone,
    /// One of ours has it.
    Join,
}

impl Claim {
    fn of(lane: usize) -> Self {
        if lane == 0 { Self::Alone } else { Self::Join }
    }

    /// SO_REUSEPORT counts at bind(2): of those that ask for a port, and of those that hold it when another asks.
    fn bind(self, socket: &Socket, address: SocketAddr) -> io::Result<()> {
        socket.set_reuse_port(matches!(self, Self::Join))?;
        socket.bind(&SockAddr::from(address))?;
        socket.set_reuse_port(true)
    }
}

fn local_port(socket: &Socket) -> io::Result<u16> {
    let address = socket.local_addr()?.as_socket();
    Ok(address.map_or(0, |address| address.port()))
}

impl UdpOptions {
    /// Whether some of what is sent has DF and some has not.
    fn df_differs(&self) -> bool {
        self.df == Df::Inherit && self.local.is_ipv4()
    }

    fn domain(&self) -> Domain {
        match self.local {
            IpAddr::V4(_) => Domain::IPV4,
            IpAddr::V6(_) => Domain::IPV6,
        }
    }

    fn socket(&self) -> io::Result<Socket> {
        let socket = Socket::new(self.domain(), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        if self.local.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        Ok(socket)
    }

    /// Receives on the VXLAN port, TOS with each datagram.
    fn receiver(&self, claim: Claim) -> io::Result<Socket> {
        let socket = self.socket()?;
        if self.local.is_ipv4() {
            socket.set_recv_tos_v4(true)?;
        } else {
            socket.set_recv_tclass_v6(true)?;
            let zero = c_int::from(self.zero_checksum_rx);
            sys::udp::set_option(&socket, libc::IPPROTO_UDP, UDP_NO_CHECK6_RX, zero)?;
        }
        if self.gro {
            // A host without it gives us datagrams one by one; `supports_gro` tells.
            let _ = sys::udp::set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1);
        }
        set_buffer(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF)?;
        let address = match self.local {
            local if self.bind_local => local,
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        claim.bind(&socket, SocketAddr::new(address, self.port))?;
        Ok(socket)
    }

    /// One sending socket, not bound yet.
    fn sender(&self) -> io::Result<Socket> {
        let socket = self.socket()?;
        socket.attach_filter(&[DROP_ALL])?;
        set_buffer(&socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)?;
        if self.local.is_ipv4() {
            socket.set_ttl_v4(self.ttl.into())?;
            set_df(&socket, self.df != Df::Unset)?;
        } else {
            socket.set_unicast_hops_v6(self.ttl.into())?;
            let level = libc::IPPROTO_IPV6;
            sys::udp::set_option(
                &socket,
                level,
                libc::IPV6_MTU_DISCOVER,
                libc::IPV6_PMTUDISC_PROBE,
            )?;
            // The kernel's device never fragments over IPv6: what is too large is EMSGSIZE, and counted.
            sys::udp::set_option(&socket, level, libc::IPV6_DONTFRAG, 1)?;
            sys::udp::set_option(&socket, level, IPV6_AUTOFLOWLABEL, 0)?;
        }
        if !self.checksum {
            let (level, name) = if self.local.is_ipv4() {
                (libc::SOL_SOCKET, libc::SO_NO_CHECK)
            } else {
                (libc::IPPROTO_UDP, UDP_NO_CHECK6_TX)
            };
            sys::udp::set_option(&socket, level, name, 1)?;
        }
        Ok(socket)
    }

    fn bound_sender(&self, port: u16, claim: Claim) -> io::Result<Socket> {
        let socket = self.sender()?;
        claim.bind(&socket, SocketAddr::new(self.local, port))?;
        Ok(socket)
    }

    /// The pool of the first lane: ports spread evenly over the range, the next free one where a port is taken.
    fn senders(&self) -> Result<Vec<Socket>, SetupError> {
        let sockets = spread(&self.source_ports, |port| {
            match self.bound_sender(port, Claim::Alone) {
                Ok(socket) => Ok(Some(socket)),
                Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => Ok(None),
                Err(error) => Err(self.send_error(&format!("bind port {port}"), &error)),
            }
        })?;
        if sockets.is_empty() {
            let Range { start, end } = self.source_ports;
            return Err(SetupError::new(
                "open source ports of",
                self.local.to_string(),
                format_args!("every port in [{start}, {end}) is taken"),
            )
            .mend("give another `srcport`"));
        }
        Ok(sockets)
    }

    /// The pool of another lane, on the ports of the first.
    fn senders_on(&self, ports: &[u16]) -> Result<Vec<Socket>, SetupError> {
        ports
            .iter()
            .map(|&port| self.bound_sender(port, Claim::Join))
            .collect::<io::Result<_>>()
            .map_err(|error| self.send_error("bind", &error))
    }

    fn receive_error(&self, error: &io::Error, who: &impl PortHolder) -> SetupError {
        let taken = error.raw_os_error() == Some(libc::EADDRINUSE);
        let holder = taken.then(|| who.holder(self.port)).flatten();
        let cause = match holder {
            Some(holder) => format!("{}: held by {holder}", errno(error)),
            None => errno(error),
        };
        SetupError::new("bind", format!("UDP port {}", self.port), cause).mend(mend(error))
    }

    fn send_error(&self, step: &str, error: &io::Error) -> SetupError {
        let cause = format_args!("{step}: {}", errno(error));
        SetupError::new("open source ports of", self.local.to_string(), cause).mend(mend(error))
    }
}

/// Sets the DF bit of what is sent over IPv4, or clears it. Either way the link's MTU is the limit and not what the kernel makes of ICMP
/// messages, which may be forged (under IP_PMTUDISC_DONT one of them has every UDP_SEGMENT send to that peer refused for ten minutes).
/// With DF the kernel keeps what they say for the route all the same, to be verified; without, it does not (`ip_sk_accept_pmtu`).
fn set_df(socket: &Socket, df: bool) -> io::Result<()> {
    let discover = if df {
        libc::IP_PMTUDISC_PROBE
    } else {
        libc::IP_PMTUDISC_OMIT
    };
    sys::udp::set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, discover)
}

/// `BPF_RET | BPF_K, 0`: nobody reads a sending socket, so nothing may queue at it.
const DROP_ALL: SockFilter = SockFilter::new(0x06, 0, 0, 0);

/// linux/in6.h; the kernel's vxlan device sends flow label 0, sockets a hash of their own.
const IPV6_AUTOFLOWLABEL: c_int = 70;

/// linux/udp.h.
const UDP_NO_CHECK6_TX: c_int = 101;
/// linux/udp.h.
const UDP_NO_CHECK6_RX: c_int = 102;

/// Past the host's limit with CAP_NET_ADMIN, up to it without.
fn set_buffer(socket: &Socket, force: c_int, plain: c_int) -> io::Result<()> {
    sys::udp::set_option(socket, libc::SOL_SOCKET, force, BUFFER_BYTES)
        .or_else(|_| sys::udp::set_option(socket, libc::SOL_SOCKET, plain, BUFFER_BYTES))
}

fn mend(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => "stop whoever holds it, or give another `port`",
        Some(libc::EADDRNOTAVAIL) => {
            "no link of this host has that address yet: give it one, or correct `local`"
        }
        Some(libc::EACCES | libc::EPERM) => {
            "this user may not: run as root, or grant CAP_NET_ADMIN and CAP_NET_BIND_SERVICE"
        }
        Some(libc::EMFILE) => "raise the limit of open files (RLIMIT_NOFILE)",
        _ => "",
    }
}

impl Underlay for UdpPort {
    fn recv(&mut self, arrivals: &mut Arrivals) -> io::Result<()> {
        let (bytes, slot_bytes, messages) = arrivals.parts();
        sys::udp::recv_many(&*self.receiver, bytes, slot_bytes, messages)
    }

    fn dropped(&mut self) -> Option<u32> {
        sys::udp::dropped(&*self.receiver).ok()
    }

    fn source(&self, flow_hash: u32) -> usize {
        pick(flow_hash, self.senders.len())
    }

    fn send(&mut self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(turn) = &self.turn else {
            return self.send_as_it_is(transmit);
        };
        // Our other direction sends answers from the same sockets.
        let _turn = turn.lock();
        if transmit.outer.df {
            return self.send_as_it_is(transmit);
        }
        // DF is the socket's, not the message's. It comes back at once: an ICMP message finds any of the sockets that share its port, and
        // the kernel believes it only if that one has DF. A second pool without DF would have half of them lost.
        let socket = &self.senders[transmit.source];
        set_df(socket, false)?;
        let sent = self.send_as_it_is(transmit);
        set_df(socket, true)?;
        sent
    }
}

impl UdpPort {
    /// With the DF bit that the socket has.
    fn send_as_it_is(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let (run, outer) = (transmit.run, transmit.outer);
        // Below 2^16, or no run of more than one would fit a send.
        let payload_len = u16::try_from(run.payload_len()).unwrap_or(u16::MAX);
        sys::udp::send(
            &self.senders[transmit.source],
            &transmit.destination.into(),
            run.slices(),
            outer.tos,
            (outer.ttl != self.ttl).then_some(outer.ttl),
            (run.count() > 1).then_some(payload_len),
        )
    }
}

impl AsRawFd for UdpPort {
    /// The receiving socket: the one worth waiting for.
    fn as_raw_fd(&self) -> RawFd {
        self.receiver.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::SOURCE_PORTS;

    struct Nobody;

    impl PortHolder for Nobody {
        fn holder(&self, _: u16) -> Option<String> {
            Some("somebody".to_owned())
        }
    }

    fn loopback(port: u16) -> UdpOptions {
        UdpOptions {
            local: Ipv4Addr::LOCALHOST.into(),
            port,
            bind_local: true,
            source_ports: 32768..60999,
            ttl: 64,
            df: Df::Unset,
            checksum: true,
            zero_checksum_rx: false,
            gro: true,
        }
    }

    /// A port nobody holds, as far as can be known.
    fn free_port() -> u16 {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        socket.local_addr().expect("bound").port()
    }

    #[test]
    fn lanes_send_from_the_same_ports() {
        let lanes = UdpPort::open(&loopback(free_port()), 2, &Nobody).expect("opened");
        let ports = |lane: &UdpPort| {
            lane.senders
                .iter()
                .map(local_port)
                .collect::<io::Result<Vec<_>>>()
                .expect("bound")
        };
        assert_eq!(ports(&lanes[0]).len(), SOURCE_PORTS);
        assert_eq!(ports(&lanes[0]), ports(&lanes[1]));
    }

    #[test]
    fn a_taken_port_names_its_holder() {
        let holder = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = holder.local_addr().expect("bound").port();
        let error = UdpPort::open(&loopback(port), 1, &Nobody).expect_err("taken");
        assert_eq!(
            error.to_string(),
            format!(
                "bind UDP port {port}: EADDRINUSE: held by somebody (stop whoever holds it, or give another `port`)"
            )
        );
    }

    #[test]
    fn a_second_opening_of_one_port_is_refused() {
        let options = loopback(free_port());
        let _first = UdpPort::open(&options, 1, &Nobody).expect("opened");
        assert!(UdpPort::open(&options, 1, &Nobody).is_err());
    }

    /// The more specific of two sockets gets the datagrams, and a sending socket drops them.
    #[test]
    fn the_pool_leaves_out_the_vxlan_port() {
        for bind_local in [true, false] {
            let mut options = loopback(free_port());
            options.bind_local = bind_local;
            options.source_ports = options.port..options.port.saturating_add(8);
            let lanes = UdpPort::open(&options, 2, &Nobody).expect("opened");
            for sender in lanes[0].senders.iter() {
                assert_ne!(local_port(sender).expect("bound"), options.port);
            }
        }
    }

    #[test]
    fn the_pool_leaves_out_ports_that_others_share() {
        let shared = loopback(free_port());
        let _others = UdpPort::open(&shared, 2, &Nobody).expect("opened");
        let mut options = loopback(free_port());
        options.source_ports = shared.port..shared.port.saturating_add(1);
        assert!(UdpPort::open(&options, 1, &Nobody).is_err());
    }

    #[test]
    fn of_two_that_open_one_port_at_the_same_moment_one_is_refused() {
        for _ in 0..100 {
            let options = loopback(free_port());
            let start = std::sync::Barrier::new(2);
            let open = || {
                start.wait();
                UdpPort::open(&options, 2, &Nobody)
            };
            let (one, other) = std::thread::scope(|scope| {
                let one = scope.spawn(open);
                (open(), one.join().expect("does not panic"))
            });
            assert!(one.is_err() || other.is_err(), "both have {}", options.port);
        }
    }

    #[test]
    fn every_lane_of_a_port_receives() {
        let options = loopback(free_port());
        let mut lanes = UdpPort::open(&options, 2, &Nobody).expect("opened");
        let mut received = [false; 2];
        let mut arrivals = Arrivals::default();
        for _ in 0..64 {
            let from = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let to = (Ipv4Addr::LOCALHOST, options.port);
            from.send_to(b"x", to).expect("sent");
            for (lane, received) in lanes.iter_mut().zip(&mut received) {
                *received |= lane.recv(&mut arrivals).is_ok();
            }
        }
        assert_eq!(received, [true; 2]);
    }

    /// Loopback hands a datagram over with the checksum it was sent with, or without.
    #[test]
    fn datagrams_without_a_checksum_are_taken_over_ipv6_as_told() {
        for zero_checksum_rx in [true, false] {
            let options = UdpOptions {
                local: Ipv6Addr::LOCALHOST.into(),
                zero_checksum_rx,
                ..loopback(free_port())
            };
            let mut lanes = UdpPort::open(&options, 1, &Nobody).expect("opened");
            let from = std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).expect("a free port");
            let none = (libc::IPPROTO_UDP, UDP_NO_CHECK6_TX);
            sys::udp::set_option(&from, none.0, none.1, 1).expect("since Linux 3.16");
            let to = (Ipv6Addr::LOCALHOST, options.port);
            from.send_to(b"x", to).expect("sent");
            let received = lanes[0].recv(&mut Arrivals::default());
            assert_eq!(received.is_ok(), zero_checksum_rx, "{received:?}");
        }
    }
}

//! The express path on a real TAP, in a kernel that forwards: what a container's super-frame becomes on a wire, judged by a packet socket
//! at its other end and by another library.

use std::io::{ErrorKind, IoSlice, Read};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use etherparse::{Ipv4Header, SlicedPacket, TcpHeader, TransportSlice, UdpHeader};
use libtest_mimic::Failed;
use silk_vtep::bpf::express::{
    COUNT_LEN, Count, DECISION_LEN, Decision, FLOW_KEY_LEN, FlowKey, GENERATION_LEN, Maps,
};
use silk_vtep::bpf::marks;
use silk_vtep::io::{Tap, TapOffloads, TapQueue};
use silk_vtep::sys::bpf::{ProgramType, load};
use silk_vtep::sys::bpf_map::{Map, MapKind};
use silk_vtep::sys::tcx::{self, Side};
use silk_vtep::wire::checksum;
use silk_vtep::wire::vnet::{self, GsoType, VnetHeader};
use silk_vtep::wire::{MacAddr, ethernet};
use socket2::{Domain, Protocol, Socket, Type};

use crate::fixture::{Ns, Outcome, holds, same};

const OWN: MacAddr = MacAddr::new([0xee, 0xee, 10, 255, 108, 0]);
const PEER: MacAddr = MacAddr::new([0xee, 0xee, 10, 255, 43, 0]);
const CONTAINER: MacAddr = MacAddr::new([0xee, 0xee, 10, 255, 108, 184]);
const HOST_SIDE: MacAddr = MacAddr::new([0xaa, 0xaa, 10, 255, 108, 184]);
const PORT: u16 = 4789;
const GENERATION: u64 = 7;
const SLOT: u32 = 2;
const GSO_SIZE: usize = 1000;
/// Ethernet, IPv4, TCP.
const HEADERS_LEN: usize = 14 + 20 + 20;
/// As the host forwards it.
const FLOW: FlowKey = FlowKey {
    source: Ipv4Addr::new(10, 255, 108, 184),
    destination: Ipv4Addr::new(10, 255, 43, 6),
    source_port: 40_000,
    destination_port: 8080,
    mark: 0,
    tos: 0,
    ttl: 63,
    dont_fragment: true,
};
/// How long a packet may take that takes no time.
const LOOKS: usize = 500;
const PAUSE: Duration = Duration::from_millis(10);
/// ETH_P_ALL in network byte order, as packet(7) wants it.
const ETH_P_ALL: i32 = 0x0003_u16.to_be() as i32;

/// A cell that forwards what a container sends to its VTEP's TAP, where the program is, and a wire to its peer.
struct Cell {
    peer: Ns,
    /// We are the container.
    container: TapQueue,
    /// What the program leaves alone.
    tap: TapQueue,
    flows: Map,
    generation: Map,
    counts: Map,
    wire: u32,
    /// All that passes the wire's other end.
    seen: Socket,
    _program: OwnedFd,
    ns: Ns,
}

impl Cell {
    fn new() -> Result<Self, Failed> {
        let (ns, peer) = (Ns::new("cell")?, Ns::new("peer")?);
        let tso = TapOffloads {
            tso: true,
            uso: false,
        };
        let open = |name| ns.namespace.run(|| TapQueue::open(name, tso));
        let (container, tap) = (open("container")??, open("silk-vtep")??);
        ns.ip(&format!(
            "link add wire type veth peer name wire netns {}",
            peer.name
        ))?;
        peer.ip("address add 10.0.16.14/16 dev wire")?;
        peer.ip("link set wire up")?;
        ns.namespace.set_sysctl("net/ipv4/ip_forward", "1")?;
        for command in [
            "address add 10.0.32.12/16 dev wire",
            "link set wire up",
            &format!("link set container address {HOST_SIDE} up"),
            "route add 10.255.108.184 dev container",
            &format!("link set silk-vtep address {OWN} arp off mtu 1400"),
            "address add 10.255.108.0 dev silk-vtep",
            "link set silk-vtep up",
            "route add 10.255.0.0/16 dev silk-vtep",
        ] {
            ns.ip(command)?;
        }
        let index = |name| Ok::<_, Failed>(ns.netlink()?.link_named(name)?.ok_or("no link")?.index);
        let (overlay, wire) = (index("silk-vtep")?, index("wire")?);

        let map = |kind, key_len, value_len| Map::create(kind, "silk_test", key_len, value_len, 4);
        let flows = map(MapKind::LruHash, FLOW_KEY_LEN, DECISION_LEN)?;
        let generation = map(MapKind::Array, 4, GENERATION_LEN)?;
        let counts = map(MapKind::PerCpuArray, 4, COUNT_LEN)?;
        let number = |map: &Map| map.as_fd().as_raw_fd();
        let maps = Maps {
            flows: number(&flows),
            generation: number(&generation),
            counts: number(&counts),
        };
        let program = load(
            ProgramType::SchedCls,
            "silk_test",
            &marks::egress(OWN, Some(maps)),
        )?;
        ns.namespace
            .run(|| tcx::attach(overlay, Side::Egress, &program, None))??;
        let seen = peer
            .namespace
            .run(|| Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ETH_P_ALL))))??;
        seen.set_nonblocking(true)?;
        let cell = Self {
            peer,
            container,
            tap,
            flows,
            generation,
            counts,
            wire,
            seen,
            _program: program,
            ns,
        };
        cell.put_in_force(GENERATION)?;
        Ok(cell)
    }

    /// The same, its wire one that carries frames of its MTU alone, all checksums finished.
    fn on_a_plain_wire() -> Result<Self, Failed> {
        let cell = Self::new()?;
        let output = cell
            .ns
            .exec("ethtool -K wire tx off tso off tx-udp_tnl-segmentation off")?;
        holds(output.status.success(), format_args!("{output:?}"))?;
        Ok(cell)
    }

    fn put_in_force(&self, generation: u64) -> Outcome {
        let [index, value] = [&0_u32.to_ne_bytes()[..], &generation.to_ne_bytes()];
        Ok(self.generation.update(index, value)?)
    }

    fn decision(&self) -> Decision {
        Decision {
            generation: GENERATION,
            interface: self.wire,
            slot: SLOT,
            frame_len_max: (HEADERS_LEN + GSO_SIZE) as u32,
            udp_checksum: true,
            frame_destination: OWN,
            frame_source: OWN,
            inner_destination: PEER,
            source: Ipv4Addr::new(10, 0, 32, 12),
            destination: Ipv4Addr::new(10, 0, 16, 14),
            source_port: 51_515,
            destination_port: PORT,
            vxlan: [0x88, 0, 0, 3, 0, 0, 1, 0],
            tos: 2,
            ttl: 61,
            dont_fragment: true,
        }
    }

    fn decide(&self, decision: &Decision) -> Outcome {
        let (key, value) = (FLOW.to_bytes(), decision.to_bytes(&FLOW));
        Ok(self.flows.update(&key, &value)?)
    }

    /// The container sends a super-frame, or a frame if it is one segment, and leaves the checksum to others.
    fn send(&mut self, payload: &[u8]) -> Outcome {
        let is_super = payload.len() > GSO_SIZE;
        let header = VnetHeader {
            needs_csum: true,
            gso_type: if is_super {
                GsoType::TcpV4
            } else {
                GsoType::None
            },
            hdr_len: HEADERS_LEN as u16,
            gso_size: if is_super { GSO_SIZE as u16 } else { 0 },
            csum_start: 34,
            csum_offset: 16,
            ..VnetHeader::default()
        };
        let frame = frame([HOST_SIDE, CONTAINER], FLOW.ttl + 1, payload);
        let (header, frame) = (header.emit(), frame?);
        let sent = [IoSlice::new(&header), IoSlice::new(&frame)];
        Ok(self.container.send(&sent)?)
    }

    /// What passes the wire until it is `len` bytes of payload.
    fn passed(&mut self, len: usize) -> Result<Vec<Datagram>, Failed> {
        let mut passed: Vec<Datagram> = Vec::new();
        let mut frame = vec![0; 70_000];
        for _ in 0..LOOKS {
            match (&self.seen).read(&mut frame) {
                Ok(read) => passed.extend(Datagram::parse(&frame[..read])?),
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
                Err(error) => return Err(error.into()),
            }
            if passed.iter().map(|one| one.payload.len()).sum::<usize>() >= len {
                return Ok(passed);
            }
        }
        Err(format!("{} datagrams passed, and no more", passed.len()).into())
    }

    /// The next TCP packet that the VTEP's lane would read.
    fn read_tap<'a>(
        &mut self,
        packet: &'a mut [u8],
    ) -> Result<([u8; vnet::HEADER_LEN], &'a [u8]), Failed> {
        for _ in 0..LOOKS {
            match self.tap.recv(packet) {
                Ok(len) if is_tcp(&packet[vnet::HEADER_LEN..len]) => {
                    let (header, frame) = packet[..len].split_first_chunk().ok_or("short")?;
                    return Ok((*header, frame));
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
                Err(error) => return Err(error.into()),
            }
        }
        Err("nothing reached the TAP".into())
    }

    /// What all CPUs counted.
    fn counted(&self) -> Result<Count, Failed> {
        let counts = self.counts.lookup_per_cpu(&SLOT.to_ne_bytes())?;
        let counts = counts.ok_or("no slot")?.into_iter();
        Ok(counts.map(Count::from_bytes).sum())
    }
}

/// The container's, its TCP checksum the pseudo-header's sum: what TUN calls VIRTIO_NET_HDR_F_NEEDS_CSUM.
fn frame([destination, source]: [MacAddr; 2], ttl: u8, payload: &[u8]) -> Result<Vec<u8>, Failed> {
    let mut tcp = TcpHeader::new(FLOW.source_port, FLOW.destination_port, 1, 512);
    tcp.ack = true;
    let len = tcp.header_len() + payload.len();
    let pseudo = checksum::pseudo_header(
        FLOW.source.into(),
        FLOW.destination.into(),
        6,
        u32::try_from(len)?,
    );
    tcp.checksum = checksum::fold(pseudo);
    let (from, to) = (FLOW.source.octets(), FLOW.destination.octets());
    let mut ip = Ipv4Header::new(len.try_into()?, ttl, etherparse::IpNumber::TCP, from, to)?;
    ip.dont_fragment = FLOW.dont_fragment;
    ip.identification = 0x1234;
    ip.header_checksum = ip.calc_header_checksum();
    let mut frame = [destination.octets(), source.octets()].concat();
    frame.extend([0x08, 0x00]);
    ip.write_raw(&mut frame)?;
    tcp.write(&mut frame)?;
    frame.extend(payload);
    Ok(frame)
}

/// Bytes of which none can stand for its neighbour.
fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 / 3) as u8).collect()
}

/// One that came by.
struct Datagram {
    ip: Ipv4Header,
    udp_checksum: u16,
    /// What the checksum should be, by its bytes.
    computed: u16,
    ports: [u16; 2],
    vxlan: [u8; 8],
    inner: Inner,
    payload: Vec<u8>,
}

#[derive(Clone)]
struct Inner {
    macs: [MacAddr; 2],
    ip: Ipv4Header,
    tcp: TcpHeader,
    /// Its TCP checksum is right.
    is_right: bool,
    frame_len: usize,
}

impl Datagram {
    /// None for what else a wire carries.
    fn parse(frame: &[u8]) -> Result<Option<Self>, Failed> {
        let packet = SlicedPacket::from_ethernet(frame)?;
        let (Some(etherparse::NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) =
            (packet.net, packet.transport)
        else {
            return Ok(None);
        };
        let ip = ip.header().to_header();
        same(ip.header_checksum, ip.calc_header_checksum(), "outer IPv4")?;
        let header = udp.to_header();
        let (vxlan, inner) = udp.payload().split_first_chunk().ok_or("no VXLAN")?;
        let (inner, payload) = Inner::parse(inner)?;
        let datagram = Self {
            computed: header.calc_checksum_ipv4(&ip, udp.payload())?,
            ip,
            udp_checksum: header.checksum,
            ports: [header.source_port, header.destination_port],
            vxlan: *vxlan,
            inner,
            payload,
        };
        Ok(Some(datagram))
    }

    /// The headers are those that were decided on.
    fn is_as(&self, decision: &Decision) -> Outcome {
        let ip = &self.ip;
        let tos = ip.dscp.value() << 2 | ip.ecn.value();
        same(
            (
                ip.source.into(),
                ip.destination.into(),
                tos,
                ip.time_to_live,
            ),
            (
                decision.source,
                decision.destination,
                decision.tos,
                decision.ttl,
            ),
            "outer IPv4",
        )?;
        same(ip.dont_fragment, decision.dont_fragment, "outer DF")?;
        let ports = [decision.source_port, decision.destination_port];
        same(self.ports, ports, "ports")?;
        same(self.vxlan, decision.vxlan, "VXLAN")?;
        same(self.inner.macs, [PEER, OWN], "inner MACs")?;
        same(self.inner.ip.time_to_live, FLOW.ttl, "inner TTL")
    }
}

impl Inner {
    fn parse(frame: &[u8]) -> Result<(Self, Vec<u8>), Failed> {
        let packet = SlicedPacket::from_ethernet(frame)?;
        let (Some(etherparse::NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) =
            (packet.net, packet.transport)
        else {
            return Err(format!("no TCP: {frame:x?}").into());
        };
        let ip = ip.header().to_header();
        same(ip.header_checksum, ip.calc_header_checksum(), "inner IPv4")?;
        let header = tcp.to_header();
        let ethernet = ethernet::Frame::new_checked(frame).ok_or("no Ethernet")?;
        let inner = Self {
            macs: [ethernet.destination(), ethernet.source()],
            is_right: header.calc_checksum_ipv4(&ip, tcp.payload())? == header.checksum,
            ip,
            tcp: header,
            frame_len: frame.len(),
        };
        Ok((inner, tcp.payload().to_vec()))
    }
}

/// A last segment of another length than the others has none of its own, and so have they.
pub(crate) fn what_is_cut_has_right_checksums_or_none() -> Outcome {
    let mut cell = Cell::on_a_plain_wire()?;
    let decision = cell.decision();
    cell.decide(&decision)?;
    let mut expected = Count::default();
    for len in [40 * GSO_SIZE, 2 * GSO_SIZE, 500, 40 * GSO_SIZE - 1, 1001] {
        let sent = payload(len);
        cell.send(&sent)?;
        let passed = cell.passed(len)?;
        same(passed.len(), len.div_ceil(GSO_SIZE), "datagrams")?;
        let is_even = len % GSO_SIZE == 0 || len < GSO_SIZE;
        for (index, datagram) in passed.iter().enumerate() {
            let what = format!("{index} of {len} bytes");
            datagram.is_as(&decision)?;
            let checksum = if is_even { datagram.computed } else { 0 };
            same(datagram.udp_checksum, checksum, &what)?;
            holds(datagram.inner.is_right, &what)?;
            let sequence = 1 + (index * GSO_SIZE) as u32;
            same(datagram.inner.tcp.sequence_number, sequence, &what)?;
            expected.packets += 1;
            expected.bytes += datagram.inner.frame_len as u64;
        }
        let received: Vec<u8> = passed.into_iter().flat_map(|one| one.payload).collect();
        same(received, sent, "payload")?;
        same(cell.counted()?, expected, "counted")?;
    }
    Ok(())
}

/// veth does: one packet passes, with the checksum that each of its segments would have.
pub(crate) fn a_wire_that_carries_super_frames_gets_them_whole() -> Outcome {
    let mut cell = Cell::new()?;
    let receiver = cell
        .peer
        .namespace
        .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)))??;
    receiver.set_read_timeout(Some(LOOKS as u32 * PAUSE))?;
    let decision = cell.decision();
    cell.decide(&decision)?;
    for (len, is_even) in [(40 * GSO_SIZE, true), (40 * GSO_SIZE - 1, false)] {
        let sent = payload(len);
        cell.send(&sent)?;
        let passed = cell.passed(len)?;
        same(passed.len(), 1, "packets")?;
        let whole = &passed[0];
        whole.is_as(&decision)?;
        same(&whole.payload, &sent, "payload")?;
        let mut checksum = 0;
        if is_even {
            checksum = checksum_of_a_segment(&decision, whole, &sent[..GSO_SIZE])?;
        }
        same(whole.udp_checksum, checksum, "UDP checksum")?;

        // Linux 6.18 gives it to the socket in one piece; another may cut it first.
        let mut received = Vec::new();
        while received.len() < len {
            let mut bytes = vec![0; 70_000];
            let (read, from) = receiver.recv_from(&mut bytes)?;
            same(from.port(), decision.source_port, "source port")?;
            received.extend(Inner::parse(bytes[..read].get(8..).ok_or("no VXLAN")?)?.1);
        }
        same(received, sent, "payload received")?;
    }
    Ok(())
}

/// By the bytes of a datagram with the first segment of a super-frame, its TCP checksum finished.
fn checksum_of_a_segment(
    decision: &Decision,
    whole: &Datagram,
    payload: &[u8],
) -> Result<u16, Failed> {
    let Inner {
        mut ip, mut tcp, ..
    } = whole.inner.clone();
    ip.set_payload_len(tcp.header_len() + payload.len())?;
    ip.header_checksum = ip.calc_header_checksum();
    tcp.checksum = tcp.calc_checksum_ipv4(&ip, payload)?;
    let mut bytes = decision.vxlan.to_vec();
    bytes.extend([PEER.octets(), OWN.octets()].as_flattened());
    bytes.extend([0x08, 0x00]);
    ip.write_raw(&mut bytes)?;
    tcp.write(&mut bytes)?;
    bytes.extend(payload);
    let [source_port, destination_port] = whole.ports;
    let (from, to) = (decision.source.octets(), decision.destination.octets());
    let udp = UdpHeader {
        source_port,
        destination_port,
        length: u16::try_from(UdpHeader::LEN + bytes.len())?,
        checksum: 0,
    };
    Ok(udp.calc_checksum_ipv4_raw(from, to, &bytes)?)
}

/// Nothing is lost to a decision that is not in force, nor changed on the way.
pub(crate) fn what_is_not_taken_reaches_the_tap_as_it_was() -> Outcome {
    let mut cell = Cell::new()?;
    let decision = cell.decision();
    let too_small = Decision {
        frame_len_max: decision.frame_len_max - 1,
        ..decision
    };
    for (what, decision, generation) in [
        ("off", decision, 0),
        ("an older decision", decision, GENERATION + 1),
        ("a smaller path", too_small, GENERATION),
    ] {
        cell.decide(&decision)?;
        cell.put_in_force(generation)?;
        let sent = payload(3 * GSO_SIZE + 1);
        cell.send(&sent)?;
        let mut packet = vec![0; 70_000];
        let (header, found) = cell.read_tap(&mut packet)?;
        same(found, &frame([OWN; 2], FLOW.ttl, &sent)?[..], what)?;
        let header = VnetHeader::parse(&header).ok_or("no header")?;
        same(header.gso_type, GsoType::TcpV4, what)?;
        same(usize::from(header.gso_size), GSO_SIZE, what)?;
        same(cell.counted()?, Count::default(), what)?;
    }
    Ok(())
}

fn is_tcp(frame: &[u8]) -> bool {
    let packet = SlicedPacket::from_ethernet(frame);
    packet.is_ok_and(|packet| matches!(packet.transport, Some(TransportSlice::Tcp(_))))
}

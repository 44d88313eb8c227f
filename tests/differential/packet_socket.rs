//! Packet sockets that give and take what a packet carries beside its bytes: its mark, and the VLAN tag that the kernel has taken out.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};

use libc::c_int;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockType, UnknownCmsg, bind,
    recvmsg, send, setsockopt, socket, sockopt,
};
use silk_vtep::sys::udp::set_option;
use socket2::{Domain, Protocol, Socket, Type};

use crate::support::{BOUND, Namespace, Result};

/// Every protocol, both directions (packet(7)).
pub(crate) const ALL_PROTOCOLS: u16 = libc::ETH_P_ALL as u16;

/// Bytes of a VLAN tag.
const TAG_BYTES: usize = 4;
/// Where a VLAN tag stands in a frame.
const TAG_AT: usize = 12;
/// The largest super-frame, and some.
const FRAME_BYTES: usize = 70_000;
/// Room for a mark and a `tpacket_auxdata`, and some.
const CONTROL_BYTES: usize = 128;
/// Room for all that one case makes, in bytes.
const SOCKET_BUFFER_BYTES: usize = 16 << 20;
/// `struct tpacket_auxdata`: status, original length, captured length, two offsets, TCI, TPID.
const AUXDATA_BYTES: usize = 20;

/// What passed a device on its way in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// From the destination MAC on, with the VLAN tag that the kernel takes out on receipt (`skb_vlan_untag`).
    pub(crate) bytes: Vec<u8>,
    /// `skb->mark`.
    pub(crate) mark: u32,
}

/// Hears what comes in by one device.
pub(crate) struct Listener {
    socket: Socket,
    buffer: Vec<u8>,
    control: Vec<u8>,
}

impl Listener {
    /// On `device` of `namespace`. With one protocol instead of all it hears packets later: behind the tc programs of the device.
    pub(crate) fn open(namespace: &Namespace, device: &str, protocol: u16) -> Result<Self> {
        let protocol = Protocol::from(c_int::from(protocol.to_be()));
        let socket = namespace.run(|| {
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
            bind(socket.as_raw_fd(), &link_of(device)?)?;
            Ok(socket)
        })?;
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)?;
        set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVMARK, 1)
            .map_err(|error| format!("SO_RCVMARK, of Linux 5.19: {error}"))?;
        setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER_BYTES)?;
        socket.set_read_timeout(Some(BOUND))?;
        let mut listener = Self {
            socket,
            buffer: vec![0; FRAME_BYTES],
            control: vec![0; CONTROL_BYTES],
        };
        // Until it was bound it heard all devices.
        while listener.next_now()?.is_some() {}
        Ok(listener)
    }

    /// Waits for the next frame; `None` if none came in time.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>> {
        self.receive(MsgFlags::empty())
    }

    /// The next frame that is there.
    pub(crate) fn next_now(&mut self) -> Result<Option<Frame>> {
        self.receive(MsgFlags::MSG_DONTWAIT)
    }

    fn receive(&mut self, flags: MsgFlags) -> Result<Option<Frame>> {
        let mut slices = [IoSliceMut::new(&mut self.buffer)];
        let control = Some(&mut self.control[..]);
        let message =
            match recvmsg::<LinkAddr>(self.socket.as_raw_fd(), &mut slices, control, flags) {
                Err(Errno::EAGAIN) => return Ok(None),
                message => message?,
            };
        let mut frame = Frame {
            bytes: Vec::new(),
            mark: 0,
        };
        let mut tag = None;
        for control in message.cmsgs()? {
            let ControlMessageOwned::Unknown(control) = control else {
                continue;
            };
            let header = &control.cmsg_header;
            match (header.cmsg_level, header.cmsg_type) {
                (libc::SOL_SOCKET, libc::SO_MARK) => frame.mark = mark(&control)?,
                (libc::SOL_PACKET, libc::PACKET_AUXDATA) => tag = vlan_tag(&control)?,
                _ => {}
            }
        }
        let len = message.bytes;
        frame.bytes.extend(&self.buffer[..len]);
        if let Some(tag) = tag {
            frame.bytes.splice(TAG_AT..TAG_AT, tag);
        }
        Ok(Some(frame))
    }
}

fn mark(control: &UnknownCmsg) -> Result<u32> {
    let bytes = control
        .data_bytes
        .first_chunk()
        .ok_or("a mark of 32 bits")?;
    Ok(u32::from_ne_bytes(*bytes))
}

fn vlan_tag(control: &UnknownCmsg) -> Result<Option<[u8; TAG_BYTES]>> {
    let auxdata: &[u8; AUXDATA_BYTES] =
        (control.data_bytes.first_chunk()).ok_or("a whole tpacket_auxdata")?;
    let [s0, s1, s2, s3, .., c0, c1, p0, p1] = *auxdata;
    if u32::from_ne_bytes([s0, s1, s2, s3]) & libc::TP_STATUS_VLAN_VALID == 0 {
        return Ok(None);
    }
    let [c0, c1] = u16::from_ne_bytes([c0, c1]).to_be_bytes();
    let [p0, p1] = u16::from_ne_bytes([p0, p1]).to_be_bytes();
    Ok(Some([p0, p1, c0, c1]))
}

/// Puts frames on one device, as if the host's stack sent them.
pub(crate) struct Sender {
    socket: OwnedFd,
    mark: u32,
}

impl Sender {
    /// On `device` of `namespace`.
    pub(crate) fn open(namespace: &Namespace, device: &str) -> Result<Self> {
        namespace.run(|| {
            let (family, flags) = (AddressFamily::Packet, SockFlag::SOCK_CLOEXEC);
            let socket = socket(family, SockType::Raw, flags, None)?;
            bind(socket.as_raw_fd(), &link_of(device)?)?;
            Ok(Self { socket, mark: 0 })
        })
    }

    /// The same; what it sends starts with a `virtio_net_hdr`.
    pub(crate) fn open_with_vnet_header(namespace: &Namespace, device: &str) -> Result<Self> {
        let sender = Self::open(namespace, device)?;
        set_option(&sender.socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?;
        Ok(sender)
    }

    /// Sends a frame, from its destination MAC on, with a mark. Returns what the kernel said if it refused.
    pub(crate) fn send(&mut self, frame: &[u8], mark: u32) -> Result<Option<Errno>> {
        if mark != self.mark {
            setsockopt(&self.socket, sockopt::Mark, &mark)?;
            self.mark = mark;
        }
        Ok(send(self.socket.as_raw_fd(), frame, MsgFlags::empty()).err())
    }
}

/// What packet(7) wants to be bound to.
fn link_of(device: &str) -> Result<LinkAddr> {
    let link = getifaddrs()?
        .filter(|interface| interface.interface_name == device)
        .filter_map(|interface| interface.address)
        .find_map(|address| address.as_link_addr().copied());
    Ok(link.ok_or_else(|| format!("no link-layer address on {device}"))?)
}

//! One NETLINK_ROUTE socket: a request and its acknowledgement, a dump and its end.

use std::io;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NLMSG_ALIGNTO, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use socket2::SockRef;

use super::answer::{Answer, malformed};
use super::error::NetlinkError;
use super::namespace::Namespace;
use crate::error::{SetupError, shortage};

/// The kernel answers within the system call that sends the request, unless it waits for the RTNL lock: a link's
/// removal can hold that for a second or two. Longer than this and something is wrong.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Room for answers: a dump comes in parts of 32 KiB at most, one at a time.
const RECEIVE_BUFFER_BYTES: usize = 256 << 10;
/// A dump is repeated while others change what is dumped; a host that changes faster than this is not to be waited for.
const DUMP_ATTEMPTS: usize = 20;

/// Create, and fail with EEXIST if it is there.
pub(super) const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// A change to ask for.
#[derive(Debug, Clone)]
pub(super) struct Change {
    message: RouteNetlinkMessage,
    flags: u16,
}

impl Change {
    pub(super) fn new(message: RouteNetlinkMessage, flags: u16) -> Self {
        Self { message, flags }
    }
}

/// A NETLINK_ROUTE socket in one network namespace; its operations live with their nouns (`links`, `add_route`, ...).
///
/// One request is under way at a time, which `&mut self` enforces, so an answer cannot be another's.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    namespace: Namespace,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// If the namespace cannot be named (`/proc` not mounted) or the socket not be opened.
    pub fn open() -> Result<Self, SetupError> {
        let namespace = Namespace::current()?;
        let socket = open_socket().map_err(|error| {
            SetupError::new(
                "open",
                "netlink socket",
                format_args!("NETLINK_ROUTE: {:?}", errno(&error)),
            )
            .mend(shortage(&error))
            .or_mend("is the kernel built without netlink?")
        })?;
        Ok(Self {
            socket,
            namespace,
            sequence: 0,
        })
    }

    /// Opens a socket in `namespace`; it stays there whoever uses it.
    ///
    /// # Errors
    /// As [`Self::open`] and [`Namespace::run`].
    pub fn open_in(namespace: &Namespace) -> Result<Self, SetupError> {
        namespace.run(Self::open)?
    }

    /// The namespace this socket acts in.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Asks for a change and waits until it is made.
    pub(super) fn change(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        self.exchange(message, NLM_F_ACK | flags).map(|_| ())
    }

    /// Asks for one change and waits until it is made.
    pub(super) fn change_one(&mut self, change: Change) -> Result<(), NetlinkError> {
        self.change(change.message, change.flags)
    }

    /// Asks for changes in one send; the kernel makes them in order, and goes on after one that it refuses.
    ///
    /// # Errors
    /// The first that failed, and its place.
    pub(super) fn change_all(&mut self, changes: &[Change]) -> Result<(), (usize, NetlinkError)> {
        let mut bytes = Vec::new();
        let mut answers = Vec::with_capacity(changes.len());
        for Change { message, flags } in changes {
            self.sequence = self.sequence.wrapping_add(1);
            answers.push(Answer::new(request_name(message), self.sequence));
            append(
                &mut bytes,
                message.clone(),
                NLM_F_ACK | flags,
                self.sequence,
            );
        }
        let Some(first) = answers.first() else {
            return Ok(());
        };
        self.send_bytes(first.request(), &bytes)
            .map_err(|error| (0, error))?;
        for (place, answer) in answers.iter_mut().enumerate() {
            // What comes after a failure answers to numbers that nobody asks for any more.
            self.complete(answer).map_err(|error| (place, error))?;
        }
        Ok(())
    }

    /// Asks for one object.
    pub(super) fn query(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> Result<RouteNetlinkMessage, NetlinkError> {
        let request = request_name(&message);
        let answer = self.exchange(message, NLM_F_ACK)?;
        answer
            .into_messages()
            .into_iter()
            .next()
            .ok_or_else(|| malformed(request, "an answer without an object"))
    }

    /// Asks for all objects of a kind, again while they change under the listing.
    pub(super) fn dump(
        &mut self,
        message: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            let answer = self.exchange(message.clone(), NLM_F_DUMP)?;
            if !answer.is_interrupted() {
                return Ok(answer.into_messages());
            }
        }
        Err(NetlinkError::Interrupted {
            request: request_name(message),
            attempts: DUMP_ATTEMPTS,
        })
    }

    fn exchange(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Answer, NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut answer = Answer::new(request_name(&message), self.sequence);
        let mut bytes = Vec::new();
        append(&mut bytes, message, flags, self.sequence);
        self.send_bytes(answer.request(), &bytes)?;
        self.complete(&mut answer)?;
        Ok(answer)
    }

    /// Receives until the answer is whole. Bounded by the kernel, which ends each answer, and by the timeout, should it not.
    fn complete(&self, answer: &mut Answer) -> Result<(), NetlinkError> {
        while !answer.is_complete() {
            answer.take(&self.receive(answer.request())?)?;
        }
        Ok(())
    }

    fn send_bytes(&self, request: &'static str, bytes: &[u8]) -> Result<(), NetlinkError> {
        match self.socket.send(bytes, 0) {
            Ok(_) => Ok(()),
            Err(error) => Err(NetlinkError::Socket {
                request,
                call: "sendto",
                errno: errno(&error),
            }),
        }
    }

    /// The next datagram from the kernel, whole.
    fn receive(&self, request: &'static str) -> Result<Vec<u8>, NetlinkError> {
        loop {
            match self.socket.recv_from_full() {
                Ok((bytes, sender)) if sender.port_number() == 0 => return Ok(bytes),
                // Another process of this host wrote to our port: not the kernel's word.
                Ok(_) => {}
                // A receive timeout makes signals interrupt even with SA_RESTART (signal(7)).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let seconds = ANSWER_TIMEOUT.as_secs();
                    return Err(NetlinkError::TimedOut { request, seconds });
                }
                Err(error) => {
                    return Err(NetlinkError::Socket {
                        request,
                        call: "recvfrom",
                        errno: errno(&error),
                    });
                }
            }
        }
    }
}

/// Appends one message, padded as the next one wants it (NLMSG_ALIGN).
fn append(bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16, sequence: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = sequence;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    packet.finalize();
    let start = bytes.len();
    bytes.resize(start + packet.buffer_len(), 0);
    packet.serialize(&mut bytes[start..]);
    bytes.resize(bytes.len().next_multiple_of(NLMSG_ALIGNTO.into()), 0);
}

fn open_socket() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let options = SockRef::from(&socket);
    options.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    options.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    // Kernels before 4.12 and 4.20 lack these; answers are then less explained and less filtered, not wrong.
    let _ = socket.set_ext_ack(true);
    let _ = socket.set_cap_ack(true);
    let _ = socket.set_netlink_get_strict_chk(true);
    Ok(socket)
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

/// The kernel's name of a request, for errors.
fn request_name(message: &RouteNetlinkMessage) -> &'static str {
    match message {
        RouteNetlinkMessage::NewLink(_) => "RTM_NEWLINK",
        RouteNetlinkMessage::SetLink(_) => "RTM_SETLINK",
        RouteNetlinkMessage::DelLink(_) => "RTM_DELLINK",
        RouteNetlinkMessage::GetLink(_) => "RTM_GETLINK",
        RouteNetlinkMessage::NewAddress(_) => "RTM_NEWADDR",
        RouteNetlinkMessage::DelAddress(_) => "RTM_DELADDR",
        RouteNetlinkMessage::GetAddress(_) => "RTM_GETADDR",
        RouteNetlinkMessage::NewRoute(_) => "RTM_NEWROUTE",
        RouteNetlinkMessage::DelRoute(_) => "RTM_DELROUTE",
        RouteNetlinkMessage::GetRoute(_) => "RTM_GETROUTE",
        RouteNetlinkMessage::NewNeighbour(_) => "RTM_NEWNEIGH",
        RouteNetlinkMessage::GetNeighbour(_) => "RTM_GETNEIGH",
        RouteNetlinkMessage::NewQueueDiscipline(_) => "RTM_NEWQDISC",
        RouteNetlinkMessage::NewTrafficFilter(_) => "RTM_NEWTFILTER",
        RouteNetlinkMessage::DelTrafficFilter(_) => "RTM_DELTFILTER",
        RouteNetlinkMessage::GetTrafficFilter(_) => "RTM_GETTFILTER",
        _ => "rtnetlink",
    }
}

//! One NETLINK_ROUTE socket: a request and its acknowledgement, a dump and its end.

use std::io;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL,
    NLM_F_REQUEST, NLMSG_ALIGNTO, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN,
    NetlinkBuffer, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use socket2::SockRef;

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
/// `struct nlmsghdr`.
const HEADER_LEN: usize = 16;
/// `NLMSGERR_ATTR_MSG`: the text of an extended acknowledgement.
const ATTR_MSG: u16 = 1;

/// Create, and fail with EEXIST if it is there.
pub(super) const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;

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

    /// Asks for one object.
    pub(super) fn query(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> Result<RouteNetlinkMessage, NetlinkError> {
        let request = request_name(&message);
        let answer = self.exchange(message, NLM_F_ACK)?;
        answer
            .messages
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
            if !answer.interrupted {
                return Ok(answer.messages);
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
        self.send(message, flags)?;
        // Bounded by the kernel, which ends each answer, and by the timeout, should it not.
        while !answer.complete {
            answer.take(&self.receive(answer.request)?)?;
        }
        Ok(answer)
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<(), NetlinkError> {
        let request = request_name(&message);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        match self.socket.send(&bytes, 0) {
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

/// What came back for one request so far.
struct Answer {
    request: &'static str,
    sequence: u32,
    messages: Vec<RouteNetlinkMessage>,
    interrupted: bool,
    complete: bool,
}

impl Answer {
    fn new(request: &'static str, sequence: u32) -> Self {
        Self {
            request,
            sequence,
            messages: Vec::new(),
            interrupted: false,
            complete: false,
        }
    }

    fn take(&mut self, datagram: &[u8]) -> Result<(), NetlinkError> {
        for message in messages(datagram) {
            // An answer to an earlier request that timed out is nobody's any more.
            if message.sequence_number() == self.sequence {
                self.take_message(&message)?;
            }
        }
        Ok(())
    }

    fn take_message(&mut self, message: &NetlinkBuffer<&[u8]>) -> Result<(), NetlinkError> {
        self.interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
        match message.message_type() {
            NLMSG_NOOP => {}
            NLMSG_OVERRUN => return Err(malformed(self.request, "data lost (NLMSG_OVERRUN)")),
            NLMSG_ERROR | NLMSG_DONE => {
                self.complete = true;
                return verdict(self.request, message);
            }
            _ => self.take_object(message),
        }
        Ok(())
    }

    /// Keeps what can be decoded: one odd link of the host's must not hide all others.
    fn take_object(&mut self, message: &NetlinkBuffer<&[u8]>) {
        let mut header = NetlinkHeader::default();
        header.message_type = message.message_type();
        match RouteNetlinkMessage::deserialize(&header, message.payload()) {
            Ok(object) => self.messages.push(object),
            Err(error) => tracing::debug!(request = self.request, %error, "undecodable object"),
        }
    }
}

/// The messages of one datagram; stops at what is no message.
pub(super) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = NetlinkBuffer<&[u8]>> {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(datagram).ok()?;
        let length = message.length() as usize;
        let aligned = length.next_multiple_of(usize::from(NLMSG_ALIGNTO));
        let this = datagram.get(..length)?;
        datagram = datagram.get(aligned..).unwrap_or_default();
        Some(NetlinkBuffer::new(this))
    })
}

/// `struct nlmsgerr`, or the same errno at the end of a dump: zero is success.
fn verdict(request: &'static str, message: &NetlinkBuffer<&[u8]>) -> Result<(), NetlinkError> {
    let payload = message.payload();
    // The kernel may end a dump with no payload at all.
    let code = payload
        .first_chunk()
        .map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    if code == 0 {
        return Ok(());
    }
    let attributes = match message.message_type() {
        NLMSG_DONE => payload.get(size_of::<i32>()..),
        _ => error_attributes(message.flags(), payload),
    };
    Err(NetlinkError::Refused {
        request,
        errno: Errno::from_raw(code.wrapping_abs()),
        explanation: attributes.map(explanation).unwrap_or_default(),
    })
}

/// Attributes follow the request's header, and its payload too where the kernel did not cap the answer.
fn error_attributes(flags: u16, payload: &[u8]) -> Option<&[u8]> {
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let request = payload.get(size_of::<i32>()..)?;
    let quoted = if flags & NLM_F_CAPPED != 0 {
        HEADER_LEN
    } else {
        let length = u32::from_ne_bytes(*request.first_chunk()?) as usize;
        length.next_multiple_of(usize::from(NLMSG_ALIGNTO))
    };
    request.get(quoted..)
}

fn explanation(attributes: &[u8]) -> String {
    NlasIterator::new(attributes)
        .filter_map(Result::ok)
        .find(|attribute| attribute.kind() == ATTR_MSG)
        .map(|attribute| String::from_utf8_lossy(attribute.value()).into_owned())
        .map(|text| text.trim_end_matches('\0').to_owned())
        .unwrap_or_default()
}

fn malformed(request: &'static str, what: &str) -> NetlinkError {
    NetlinkError::Malformed {
        request,
        what: what.to_owned(),
    }
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
        RouteNetlinkMessage::DelNeighbour(_) => "RTM_DELNEIGH",
        RouteNetlinkMessage::GetNeighbour(_) => "RTM_GETNEIGH",
        RouteNetlinkMessage::NewQueueDiscipline(_) => "RTM_NEWQDISC",
        RouteNetlinkMessage::NewTrafficFilter(_) => "RTM_NEWTFILTER",
        RouteNetlinkMessage::DelTrafficFilter(_) => "RTM_DELTFILTER",
        RouteNetlinkMessage::GetTrafficFilter(_) => "RTM_GETTFILTER",
        _ => "rtnetlink",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER_LEN + payload.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn nack(flags: u16, quoted_payload: &[u8]) -> Vec<u8> {
        let mut payload = (-22_i32).to_ne_bytes().to_vec();
        payload.extend(message(26, 0, 7, quoted_payload));
        payload.extend(9_u16.to_ne_bytes());
        payload.extend(ATTR_MSG.to_ne_bytes());
        payload.extend(b"oops\0\0\0\0");
        message(NLMSG_ERROR, flags, 7, &payload)
    }

    fn answer() -> Answer {
        Answer::new("RTM_NEWROUTE", 7)
    }

    #[test]
    fn an_acknowledgement_completes_the_answer() {
        let mut answer = answer();
        let mut ack = 0_i32.to_ne_bytes().to_vec();
        ack.extend([0; HEADER_LEN]);
        assert_eq!(answer.take(&message(NLMSG_ERROR, 0, 7, &ack)), Ok(()));
        assert!(answer.complete);
    }

    #[test]
    fn answers_to_other_requests_are_passed_over() {
        let mut answer = answer();
        assert_eq!(
            answer.take(&message(NLMSG_ERROR, 0, 6, &[0xff; 20])),
            Ok(())
        );
        assert!(!answer.complete);
    }

    #[test]
    fn a_refusal_carries_errno_and_the_kernels_text() {
        let expected = Err(NetlinkError::Refused {
            request: "RTM_NEWROUTE",
            errno: Errno::EINVAL,
            explanation: "oops".to_owned(),
        });
        let capped = nack(NLM_F_ACK_TLVS | NLM_F_CAPPED, &[]);
        assert_eq!(answer().take(&capped), expected);
        let whole = nack(NLM_F_ACK_TLVS, &[1, 2, 3, 4, 5]);
        assert_eq!(answer().take(&whole), expected);
    }

    #[test]
    fn a_refusal_without_text_is_still_a_refusal() {
        let expected = Err(NetlinkError::Refused {
            request: "RTM_NEWROUTE",
            errno: Errno::EINVAL,
            explanation: String::new(),
        });
        assert_eq!(answer().take(&nack(0, &[])), expected);
        let short = message(NLMSG_ERROR, NLM_F_ACK_TLVS, 7, &(-22_i32).to_ne_bytes());
        assert_eq!(answer().take(&short), expected);
    }

    #[test]
    fn a_dump_ends_with_done_and_remembers_an_interruption() {
        let mut answer = answer();
        let mut datagram = message(NLMSG_NOOP, NLM_F_DUMP_INTR, 7, &[]);
        datagram.extend(message(NLMSG_DONE, 0, 7, &[]));
        assert_eq!(answer.take(&datagram), Ok(()));
        assert!(answer.complete && answer.interrupted);
    }

    #[test]
    fn any_bytes_are_passed_over_without_panic() {
        let whole = nack(NLM_F_ACK_TLVS, &[1, 2, 3]);
        for end in 0..whole.len() {
            let _ = answer().take(&whole[..end]);
        }
        for position in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[position] = value;
                let _ = answer().take(&bytes);
            }
        }
    }
}

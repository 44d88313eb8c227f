//! The kernel's answer to one request: datagrams of messages, put together and taken apart.

use netlink_packet_core::{
    NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP_INTR, NLMSG_ALIGNTO, NLMSG_DONE, NLMSG_ERROR,
    NLMSG_NOOP, NLMSG_OVERRUN, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;

use super::error::NetlinkError;
use super::object::Object;

/// `struct nlmsghdr`.
const HEADER_LEN: usize = 16;
/// `NLMSGERR_ATTR_MSG`: the text of an extended acknowledgement.
const ATTR_MSG: u16 = 1;

/// What came back for one request so far. It needs no socket: a recorded or invented datagram does as well.
#[derive(Debug)]
pub struct Answer {
    request: &'static str,
    sequence: u32,
    messages: Vec<RouteNetlinkMessage>,
    interrupted: bool,
    complete: bool,
}

impl Answer {
    /// Nothing yet, for the request that was numbered `sequence`; `request` is its name, for errors.
    #[must_use]
    pub fn new(request: &'static str, sequence: u32) -> Self {
        Self {
            request,
            sequence,
            messages: Vec::new(),
            interrupted: false,
            complete: false,
        }
    }

    /// Takes one datagram of the kernel's.
    ///
    /// # Errors
    /// The kernel refuses the request, or lost part of its answer.
    pub fn take(&mut self, datagram: &[u8]) -> Result<(), NetlinkError> {
        for message in messages(datagram) {
            // An answer to an earlier request that timed out is nobody's any more.
            if message.sequence_number() == self.sequence {
                self.take_message(&message)?;
            }
        }
        Ok(())
    }

    /// Whether the end has come.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether the list changed while it was being listed, so that it may lack something (NLM_F_DUMP_INTR).
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.interrupted
    }

    /// The request's name.
    pub(super) fn request(&self) -> &'static str {
        self.request
    }

    /// The objects, undecoded.
    pub(super) fn into_messages(self) -> Vec<RouteNetlinkMessage> {
        self.messages
    }

    /// The objects of those kinds that we know.
    #[must_use]
    pub fn into_objects(self) -> Vec<Object> {
        self.messages.into_iter().filter_map(Object::of).collect()
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

pub(super) fn malformed(request: &'static str, what: &str) -> NetlinkError {
    NetlinkError::Malformed {
        request,
        what: what.to_owned(),
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

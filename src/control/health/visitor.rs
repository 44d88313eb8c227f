//! One connection: its request is read, its answer written, and then whatever else it sends passed over until it ends.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use mio::net::TcpStream;

use super::request::{HEAD_BYTES_MAX, Head};

/// Bytes that are passed over after the answer. Closing a connection with bytes unread is a reset, which may take the answer with it.
const REST_BYTES_MAX: usize = 256 << 10;

/// What is answered, whatever is asked.
pub(super) struct Answer {
    /// Header fields and body.
    bytes: Vec<u8>,
    /// The length of the former.
    head_len: usize,
}

/// A connection that is being served.
pub(super) struct Visitor {
    stream: TcpStream,
    /// When it has been here too long.
    pub(super) until: Instant,
    answer: Arc<Answer>,
    stage: Stage,
}

enum Stage {
    /// Its request so far.
    Reading(Vec<u8>),
    /// What is left of the answer.
    Writing(Rest),
    /// Bytes passed over.
    Ending(usize),
}

/// A part of an answer that is not yet written.
enum Rest {
    /// `answer.bytes[from..to]`.
    Told { from: usize, to: usize },
    /// Why there is none.
    Refused(&'static [u8]),
}

const MALFORMED: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const TOO_LONG: &[u8] = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

impl Answer {
    pub(super) fn new(body: &str) -> Self {
        let length = body.len();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        Self {
            head_len: head.len(),
            bytes: (head + body).into_bytes(),
        }
    }
}

impl Visitor {
    pub(super) fn new(stream: TcpStream, answer: Arc<Answer>, until: Instant) -> Self {
        Self {
            stream,
            until,
            answer,
            stage: Stage::Reading(Vec::new()),
        }
    }

    /// Does what can be done without waiting; `Break` when the connection is at its end.
    pub(super) fn go_on(&mut self) -> ControlFlow<()> {
        loop {
            match self.step() {
                Ok(flow) => flow?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return ControlFlow::Continue(());
                }
                // It went away.
                Err(_) => return ControlFlow::Break(()),
            }
        }
    }

    /// One read or write. Each stage is bounded by its bytes.
    fn step(&mut self) -> io::Result<ControlFlow<()>> {
        let mut chunk = [0; 1024];
        match &mut self.stage {
            Stage::Reading(head) => {
                let room = chunk.len().min(HEAD_BYTES_MAX - head.len());
                let read = self.stream.read(&mut chunk[..room])?;
                if read == 0 {
                    return Ok(ControlFlow::Break(()));
                }
                head.extend_from_slice(&chunk[..read]);
                self.stage = match Head::of(head) {
                    Head::Unfinished => return Ok(ControlFlow::Continue(())),
                    Head::TooLong => Stage::Writing(Rest::Refused(TOO_LONG)),
                    Head::Malformed => Stage::Writing(Rest::Refused(MALFORMED)),
                    Head::Whole { wants_body } => Stage::Writing(self.answer.rest(wants_body)),
                };
            }
            Stage::Writing(rest) => {
                let written = self.stream.write(rest.bytes(&self.answer))?;
                rest.advance(written);
                if rest.bytes(&self.answer).is_empty() {
                    self.stream.shutdown(Shutdown::Write)?;
                    self.stage = Stage::Ending(0);
                }
            }
            Stage::Ending(passed_over) => {
                let read = self.stream.read(&mut chunk)?;
                *passed_over += read;
                if read == 0 || *passed_over > REST_BYTES_MAX {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl Answer {
    fn rest(&self, wants_body: bool) -> Rest {
        let to = match wants_body {
            true => self.bytes.len(),
            false => self.head_len,
        };
        Rest::Told { from: 0, to }
    }
}

impl Rest {
    fn bytes<'a>(&self, answer: &'a Answer) -> &'a [u8] {
        match *self {
            Self::Told { from, to } => &answer.bytes[from..to],
            Self::Refused(rest) => rest,
        }
    }

    fn advance(&mut self, written: usize) {
        match self {
            Self::Told { from, .. } => *from += written,
            Self::Refused(rest) => *rest = &rest[written..],
        }
    }
}

//! The daemon's lines and the packets between them.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::control::capture::{CaptureCount, CaptureLine, CapturedPacket};

/// What came.
#[derive(Debug)]
pub(super) enum Event<'a> {
    Packet(CapturedPacket, &'a [u8]),
    Count(CaptureCount),
    End(CaptureCount),
    /// Nothing for a while.
    Nothing,
    /// The daemon closed the connection without an end.
    HungUp,
}

/// A connection that has become a stream of packets.
pub(super) struct Stream {
    reader: BufReader<UnixStream>,
    /// As much of the next line as has come.
    line: Vec<u8>,
    /// The packet whose bytes are awaited.
    packet: Option<CapturedPacket>,
    /// As many of them as have come.
    bytes: Vec<u8>,
}

impl Stream {
    /// A stream that waits no longer than `tick` for anything.
    pub(super) fn new(reader: BufReader<UnixStream>, tick: Duration) -> io::Result<Self> {
        reader.get_ref().set_read_timeout(Some(tick))?;
        Ok(Self {
            reader,
            line: Vec::new(),
            packet: None,
            bytes: Vec::new(),
        })
    }

    pub(super) fn socket(&self) -> &UnixStream {
        self.reader.get_ref()
    }

    /// The next event, if it comes in time; what has come of it by then is kept.
    ///
    /// # Errors
    /// The connection broke, or the daemon speaks another language.
    pub(super) fn next(&mut self) -> io::Result<Event<'_>> {
        let packet = match self.packet.take() {
            Some(packet) => packet,
            None => match self.read_line()? {
                Came::Whole => {
                    let line = serde_json::from_slice(&self.line)?;
                    self.line.clear();
                    match line {
                        CaptureLine::Packet(packet) => {
                            self.bytes.clear();
                            packet
                        }
                        CaptureLine::Count(count) => return Ok(Event::Count(count)),
                        CaptureLine::End(count) => return Ok(Event::End(count)),
                    }
                }
                Came::Part => return Ok(Event::Nothing),
                Came::End => return Ok(Event::HungUp),
            },
        };
        let missing = packet.bytes - self.bytes.len();
        let mut rest = (&mut self.reader).take(missing as u64);
        match came(rest.read_to_end(&mut self.bytes))? {
            Came::Whole if self.bytes.len() == packet.bytes => {
                Ok(Event::Packet(packet, &self.bytes))
            }
            Came::Whole | Came::End => Ok(Event::HungUp),
            Came::Part => {
                self.packet = Some(packet);
                Ok(Event::Nothing)
            }
        }
    }

    fn read_line(&mut self) -> io::Result<Came> {
        match came(self.reader.read_until(b'\n', &mut self.line))? {
            Came::Whole if self.line.last() == Some(&b'\n') => Ok(Came::Whole),
            Came::Whole | Came::End => Ok(Came::End),
            Came::Part => Ok(Came::Part),
        }
    }
}

enum Came {
    Whole,
    Part,
    End,
}

/// A read that was given up has kept what it got.
fn came(read: io::Result<usize>) -> io::Result<Came> {
    match read {
        Ok(_) => Ok(Came::Whole),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Ok(Came::Part),
            io::ErrorKind::ConnectionReset => Ok(Came::End),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const TICK: Duration = Duration::from_millis(1);
    const PACKET: &[u8] = br#"{"packet":{"at":[1,2],"direction":"egress","verdict":"drop","reason":"no-route","len":9,"bytes":5}}
hello{"end":{"egress":{"wanted":1,"missed":0},"ingress":{"wanted":0,"missed":0}}}
"#;

    #[test]
    fn a_stream_in_pieces_is_read_as_one() {
        for cut in 0..PACKET.len() {
            let (mut daemon, client) = UnixStream::pair().expect("descriptors are free");
            let mut stream = Stream::new(BufReader::new(client), TICK).expect("it is open");
            let (head, tail) = PACKET.split_at(cut);
            let mut packets = 0;
            let mut tail = Some(tail);
            daemon.write_all(head).expect("there is room");
            loop {
                match stream.next().expect("it is whole") {
                    Event::Packet(packet, bytes) => {
                        assert_eq!((packet.len, bytes), (9, &b"hello"[..]));
                        packets += 1;
                    }
                    Event::End(count) => break assert_eq!(count.egress.wanted, 1),
                    Event::Nothing => {
                        let tail = tail.take().expect("then all is there");
                        daemon.write_all(tail).expect("there is room");
                    }
                    Event::Count(_) | Event::HungUp => panic!("cut at {cut}"),
                }
            }
            assert_eq!(packets, 1, "cut at {cut}");
        }
    }

    #[test]
    fn an_end_that_was_not_told_is_the_daemons() {
        for sent in [&PACKET[..0], &PACKET[..20], &PACKET[..PACKET.len() - 80]] {
            let (mut daemon, client) = UnixStream::pair().expect("descriptors are free");
            let mut stream = Stream::new(BufReader::new(client), TICK).expect("it is open");
            daemon.write_all(sent).expect("there is room");
            drop(daemon);
            let mut last = stream.next().expect("it is no error");
            while let Event::Packet(..) = last {
                last = stream.next().expect("it is no error");
            }
            assert!(matches!(last, Event::HungUp), "{last:?}");
        }
    }
}

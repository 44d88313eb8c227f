//! ICMP echo (RFC 792) from inside a container, without a ping program.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};

use super::DemoError;
use crate::cli::lab::interrupt::Interrupt;
use crate::error::{SetupError, errno};
use crate::netlink::Namespace;
use crate::wire::checksum;

/// Between one request and the next; a reply that takes longer is still counted.
const INTERVAL: Duration = Duration::from_millis(20);
/// Intervals to wait for the last replies: one second.
const GRACE_INTERVALS: u16 = 50;
/// Replies looked at in one interval, so that a flood of foreign ICMP cannot hold us.
const REPLIES_MAX: usize = 1000;

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
const HEADER_LEN: usize = 8;
/// As the usual ping sends: 64 bytes of ICMP, 84 of IP, 98 of Ethernet.
const PAYLOAD_LEN: usize = 56;
const MESSAGE_LEN: usize = HEADER_LEN + PAYLOAD_LEN;
/// The longest IPv4 header, and more than we ask back.
const RECEIVE_LEN: usize = 60 + MESSAGE_LEN + 64;

/// Round trips. Times are in microseconds, zero when nothing came back.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Pings {
    /// Requests.
    pub(super) sent: usize,
    /// Replies, each with what its request carried.
    pub(super) received: usize,
    /// The fastest.
    pub(super) min_us: f64,
    /// The mean.
    pub(super) avg_us: f64,
    /// The slowest.
    pub(super) max_us: f64,
}

/// Who asks whom.
#[derive(Debug)]
pub(super) struct Pinger {
    socket: Socket,
    to: Ipv4Addr,
    identifier: u16,
}

impl Pinger {
    /// A pinger inside `from`.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, or without a route to `to`.
    pub(super) fn new(from: &Namespace, to: Ipv4Addr) -> Result<Self, SetupError> {
        // A socket stays in the namespace it was made in, whoever uses it.
        let socket = from
            .run(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)))?
            .map_err(|error| {
                failed(to, "raw socket", &error).mend("needs CAP_NET_RAW: run as root")
            })?;
        // Connected, it hears `to` alone.
        socket
            .connect(&SocketAddrV4::new(to, 0).into())
            .map_err(|error| failed(to, "connect", &error))?;
        let [.., high, low] = std::process::id().to_be_bytes();
        Ok(Self {
            socket,
            to,
            identifier: u16::from_be_bytes([high, low]),
        })
    }

    /// Sends `count` requests and waits for their replies. `progress` is told after each what there is so far.
    ///
    /// # Errors
    /// If a request cannot be sent; as `progress`; when interrupted.
    pub(super) fn run(
        &self,
        count: u16,
        interrupt: &Interrupt,
        mut progress: impl FnMut(&Pings) -> Result<(), DemoError>,
    ) -> Result<Pings, DemoError> {
        let mut flights = Vec::new();
        let started = Instant::now();
        for tick in 0..count.saturating_add(GRACE_INTERVALS) {
            interrupt.check()?;
            if tick < count {
                flights.push(self.send(tick)?);
            } else if flights.iter().all(Flight::is_back) {
                break;
            }
            self.collect(&mut flights, started + INTERVAL * (u32::from(tick) + 1))?;
            progress(&summary(&flights))?;
        }
        Ok(summary(&flights))
    }

    fn send(&self, sequence: u16) -> Result<Flight, SetupError> {
        let sent_at = Instant::now();
        match self
            .socket
            .send(&echo(ECHO_REQUEST, self.identifier, sequence))
        {
            Ok(_) => Ok(Flight {
                sent_at,
                took: None,
            }),
            Err(error) => Err(failed(self.to, "send", &error)),
        }
    }

    /// Takes replies until `deadline`.
    fn collect(&self, flights: &mut [Flight], deadline: Instant) -> Result<(), SetupError> {
        let mut packet = [0; RECEIVE_LEN];
        for _ in 0..REPLIES_MAX {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            match self.receive(&mut packet, left) {
                Ok(len) => self.land(flights, &packet[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // A signal: whoever sent it is heard at the next interval.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(self.to, "receive", &error)),
            }
        }
        Ok(())
    }

    fn receive(&self, packet: &mut [u8], patience: Duration) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(patience))?;
        (&self.socket).read(packet)
    }

    fn land(&self, flights: &mut [Flight], packet: &[u8]) {
        let sequence = reply_sequence(packet, self.identifier);
        if let Some(flight) = sequence.and_then(|sequence| flights.get_mut(usize::from(sequence))) {
            // The first of two equal replies counts.
            flight.took.get_or_insert_with(|| flight.sent_at.elapsed());
        }
    }
}

fn failed(to: Ipv4Addr, call: &str, error: &io::Error) -> SetupError {
    let cause = format_args!("{call}: {}", errno(error));
    SetupError::new("ping", to.to_string(), cause)
}

/// One request, and how long its reply took.
#[derive(Debug, Clone, Copy)]
struct Flight {
    sent_at: Instant,
    took: Option<Duration>,
}

impl Flight {
    fn is_back(&self) -> bool {
        self.took.is_some()
    }
}

fn summary(flights: &[Flight]) -> Pings {
    let back = || flights.iter().filter_map(|flight| flight.took);
    let received = back().count();
    let total: Duration = back().sum();
    // At most 65,535 of them, so the count fits; none make no mean.
    let mean = u32::try_from(received)
        .ok()
        .and_then(|count| total.checked_div(count));
    Pings {
        sent: flights.len(),
        received,
        min_us: micros(back().min()),
        avg_us: micros(mean),
        max_us: micros(back().max()),
    }
}

fn micros(time: Option<Duration>) -> f64 {
    time.unwrap_or_default().as_nanos() as f64 / 1e3
}

/// An echo message whose payload follows from its sequence number.
fn echo(kind: u8, identifier: u16, sequence: u16) -> [u8; MESSAGE_LEN] {
    let mut message = [0; MESSAGE_LEN];
    message[0] = kind;
    message[4..6].copy_from_slice(&identifier.to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    let [_, low] = sequence.to_be_bytes();
    for (byte, position) in message[HEADER_LEN..].iter_mut().zip(0_u8..) {
        *byte = position.wrapping_add(low);
    }
    let sum = !checksum::fold(checksum::sum(0, &message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// The sequence number of the reply in an IPv4 packet, if it is one of ours, byte for byte.
fn reply_sequence(packet: &[u8], identifier: u16) -> Option<u16> {
    let header_len = usize::from(packet.first()? & 0x0f) * 4;
    let message = packet.get(header_len..)?;
    let sequence = u16::from_be_bytes(*message.get(6..)?.first_chunk()?);
    (message == echo(ECHO_REPLY, identifier, sequence)).then_some(sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(message: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45; 20];
        packet.extend(message);
        packet
    }

    #[test]
    fn an_echo_message_sums_to_zero() {
        for sequence in [0, 1, 99, 255, u16::MAX] {
            let message = echo(ECHO_REQUEST, 0x1234, sequence);
            assert_eq!(checksum::fold(checksum::sum(0, &message)), 0xffff);
        }
    }

    #[test]
    fn a_reply_is_known_by_all_its_bytes() {
        let reply = echo(ECHO_REPLY, 7, 42);
        assert_eq!(reply_sequence(&packet(&reply), 7), Some(42));
        assert_eq!(
            reply_sequence(&packet(&reply), 8),
            None,
            "another's identifier"
        );
        assert_eq!(
            reply_sequence(&packet(&echo(ECHO_REQUEST, 7, 42)), 7),
            None,
            "a request"
        );
        for position in 0..reply.len() {
            let mut damaged = reply;
            damaged[position] ^= 1;
            assert_eq!(
                reply_sequence(&packet(&damaged), 7),
                None,
                "byte {position}"
            );
        }
    }

    #[test]
    fn a_cut_packet_is_no_reply() {
        let whole = packet(&echo(ECHO_REPLY, 7, 42));
        for len in 0..whole.len() {
            assert_eq!(reply_sequence(&whole[..len], 7), None, "{len} bytes");
        }
    }

    #[test]
    fn the_summary_leaves_lost_ones_out_of_the_times() {
        let flight = |took| Flight {
            sent_at: Instant::now(),
            took,
        };
        let back = |micros| flight(Some(Duration::from_micros(micros)));
        let pings = summary(&[back(100), flight(None), back(300)]);
        assert_eq!((pings.sent, pings.received), (3, 2));
        assert!((pings.min_us - 100.0).abs() < 1e-6);
        assert!((pings.avg_us - 200.0).abs() < 1e-6);
        assert!((pings.max_us - 300.0).abs() < 1e-6);
        assert_eq!(summary(&[flight(None)]).received, 0);
    }
}

//! A connection that has become a stream of captured packets: the daemon's side.
//!
//! ```text
//! -> {"capture":{"drops":true,"peer":"10.0.16.14"}}
//! <- {"ok":{"ifname":"silk-vtep","local":"10.0.32.12","port":4789,"snap":2048}}
//! <- {"packet":{"at":[1764000000,5],"direction":"ingress","verdict":"drop","reason":"source-not-peers",...,"len":98,"bytes":98}}
//!    and behind the newline that many bytes
//! <- {"count":{"egress":{"wanted":0,"missed":0},"ingress":{"wanted":1,"missed":0}}}        when it changed, a second apart or more
//!    -> (the client closes its sending side)
//! <- {"end":{...}}                                                                        counts again, and the connection is closed
//! ```
//!
//! A client that is gone is noticed at the next write, or at the next look for its end; one that does not read for a minute is hung
//! up on. Neither costs a lane more than the look into a queue that gives nothing.

use std::fmt::Display;
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use socket2::SockRef;

use super::protocol::{Failure, Response};
use super::rules::check_prefix;
use super::{Control, Verdict};
use crate::io::capture::{Capture, Count, Filter, Record, SNAP_BYTES, SNAP_BYTES_MAX};
use crate::io::worker::Direction;

/// How often the lanes' queues are looked into. In that time a lane fills its queue at some 400,000 packets a second.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Counts are told this far apart.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);
/// A client may pause so long, as one does that writes to a pager.
const STALL_MAX: Duration = Duration::from_secs(60);
/// Bytes that are written at once.
const WRITE_BYTES: usize = 1 << 18;

/// What is to be captured. What is not said does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CaptureRequest {
    /// Dropped packets alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drops: bool,
    /// Of packets to and from this underlay address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
    /// Of packets with an inner address in this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpNet>,
    /// Bytes of each packet: [`SNAP_BYTES`] unless said, [`SNAP_BYTES_MAX`] at the most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snap: Option<usize>,
}

/// The capture runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureStarted {
    /// The device.
    pub ifname: String,
    /// Our underlay address.
    pub local: IpAddr,
    /// The VXLAN port.
    pub port: u16,
    /// Bytes that are kept of each packet.
    pub snap: usize,
}

/// A line of the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaptureLine {
    /// A packet, whose bytes follow.
    Packet(CapturedPacket),
    /// What was wanted and missed so far.
    Count(CaptureCount),
    /// The same, at the end.
    End(CaptureCount),
}

/// What is said of a packet before its bytes; keys that do not apply are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedPacket {
    /// Seconds and nanoseconds since 1970.
    pub at: (u64, u32),
    /// From the host, or from the underlay.
    pub direction: PacketDirection,
    /// What became of it.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// To whom it goes, the first of them, or who sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
    /// How many copies go out, if more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<usize>,
    /// From the underlay: outer source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<SocketAddr>,
    /// From the underlay: outer TOS or traffic class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tos: Option<u8>,
    /// Bytes that it has: from the Ethernet header on, or, from the underlay, from the VXLAN header on.
    pub len: usize,
    /// Bytes that follow.
    pub bytes: usize,
}

/// Which way a packet was going.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PacketDirection {
    /// From the host.
    Egress,
    /// From the underlay.
    Ingress,
}

/// Packets of both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureCount {
    /// From the host.
    pub egress: PacketCount,
    /// From the underlay.
    pub ingress: PacketCount,
}

/// Packets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketCount {
    /// That were wanted.
    pub wanted: u64,
    /// Of them, left out because the reader was slow.
    pub missed: u64,
}

/// Serves one capture until the client ends it or is gone.
///
/// # Errors
/// The client is gone, or stalls.
pub(super) fn serve(
    control: &Control,
    mut stream: &UnixStream,
    request: &CaptureRequest,
) -> io::Result<()> {
    let mut capture = match start(control, request) {
        Ok(capture) => capture,
        Err(failure) => {
            return put(&mut stream, &Response::<CaptureStarted>::Error(failure));
        }
    };
    stream.set_write_timeout(Some(STALL_MAX))?;
    let started = control.capture_started(&capture);
    put(&mut stream, &Response::Ok(started))?;
    let mut told = (CaptureCount::default(), Instant::now());
    let mut buffer = Vec::new();
    loop {
        // Asked first: what came before the end is still told.
        let ends = has_ended(stream)?;
        let written = forward(&mut capture, &mut buffer, &mut stream)?;
        let count = count(&capture);
        if ends {
            return put(&mut stream, &CaptureLine::End(count));
        }
        if told.0 != count && told.1.elapsed() >= COUNT_INTERVAL {
            put(&mut stream, &CaptureLine::Count(count))?;
            told = (count, Instant::now());
        }
        if written == 0 {
            thread::sleep(LOOK_INTERVAL);
        }
    }
}

fn start(control: &Control, request: &CaptureRequest) -> Result<Capture, Failure> {
    let refused = |cause: &dyn Display| Failure::new(format_args!("capture: {cause}"));
    let snap = snap_bytes(request).map_err(|cause| refused(&cause))?;
    let filter = filter(request).map_err(|cause| refused(&cause))?;
    let capture = control.start_capture(filter, snap);
    capture.map_err(|cause| refused(&cause))
}

fn snap_bytes(request: &CaptureRequest) -> Result<usize, String> {
    match request.snap.unwrap_or(SNAP_BYTES) {
        0 => Err("a packet of 0 bytes shows nothing".to_owned()),
        snap if snap > SNAP_BYTES_MAX => Err(format!(
            "{snap} bytes of a packet cannot be kept (accepted: 1 to {SNAP_BYTES_MAX}, which is more than any has)"
        )),
        snap => Ok(snap),
    }
}

/// IPv4 addresses may be written as IPv4-mapped IPv6; packets have them as they are.
fn filter(request: &CaptureRequest) -> Result<Filter, String> {
    let canonical = |net: IpNet| {
        let mapped_len = net.prefix_len().checked_sub(96);
        match (net.addr().to_canonical(), mapped_len) {
            (IpAddr::V4(address), Some(len)) if net.addr().is_ipv6() => {
                IpNet::new(address.into(), len).unwrap_or(net)
            }
            _ => net,
        }
    };
    let address = request.address.map(canonical);
    address.map_or(Ok(()), check_prefix)?;
    Ok(Filter {
        drops: request.drops,
        peer: request.peer.map(|peer| peer.to_canonical()),
        address,
    })
}

/// Writes what is there, gathered in `buffer`; returns how many packets.
fn forward(
    capture: &mut Capture,
    buffer: &mut Vec<u8>,
    stream: &mut impl Write,
) -> io::Result<usize> {
    let mut packets = 0;
    buffer.clear();
    let mut result = Ok(());
    capture.drain(|record| {
        packets += 1;
        if result.is_err() {
            return;
        }
        let line = CaptureLine::Packet(CapturedPacket::of(record));
        result = put(buffer, &line);
        buffer.extend_from_slice(&record.bytes);
        if result.is_ok() && buffer.len() >= WRITE_BYTES {
            result = stream.write_all(buffer);
            buffer.clear();
        }
    });
    result?;
    stream.write_all(buffer)?;
    Ok(packets)
}

fn put(out: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(line)?;
    line.push(b'\n');
    out.write_all(&line)
}

/// Whether the client has closed its sending side. What else it sends nobody reads.
fn has_ended(stream: &UnixStream) -> io::Result<bool> {
    let mut unread = [MaybeUninit::uninit(); 64];
    match SockRef::from(stream).recv_with_flags(&mut unread, libc::MSG_DONTWAIT) {
        Ok(0) => Ok(true),
        Ok(_) => Ok(false),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(false),
            _ => Err(error),
        },
    }
}

fn count(capture: &Capture) -> CaptureCount {
    let of = |direction| {
        let Count { wanted, missed } = capture.count(direction);
        PacketCount { wanted, missed }
    };
    CaptureCount {
        egress: of(Direction::Egress),
        ingress: of(Direction::Ingress),
    }
}

impl CaptureCount {
    /// Packets that were left out.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.egress.missed + self.ingress.missed
    }
}

impl CapturedPacket {
    fn of(record: &Record) -> Self {
        Self {
            at: (record.at.as_secs(), record.at.subsec_nanos()),
            direction: match record.direction {
                Direction::Egress => PacketDirection::Egress,
                Direction::Ingress => PacketDirection::Ingress,
            },
            verdict: Verdict {
                reason: record.reason.map(|reason| reason.name().to_owned()),
                ..Verdict::new(record.fate)
            }
            .vni(record.vni)
            .marked(record.mark),
            peer: record.peer,
            copies: (record.copies > 1).then_some(record.copies),
            sender: record.sender.map(|sender| sender.source),
            tos: record.sender.map(|sender| sender.tos),
            len: record.len,
            bytes: record.bytes.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::control::fixtures;
    use crate::io::Captures;

    #[test]
    fn a_mapped_address_is_the_one_that_packets_have() {
        for (given, expected) in [
            ("::ffff:10.255.43.0/120", "10.255.43.0/24"),
            ("::ffff:10.255.43.6/128", "10.255.43.6/32"),
            // All of IPv4, and more.
            ("::/0", "::/0"),
            ("fd00::/64", "fd00::/64"),
            ("10.255.43.0/24", "10.255.43.0/24"),
        ] {
            let request = CaptureRequest {
                peer: Some("::ffff:10.0.16.14".parse().unwrap()),
                address: Some(given.parse().unwrap()),
                ..CaptureRequest::default()
            };
            let filter = filter(&request).expect(given);
            assert_eq!(filter.peer, Some([10, 0, 16, 14].into()));
            assert_eq!(filter.address, Some(expected.parse().unwrap()), "{given}");
        }
    }

    #[test]
    fn more_bytes_than_a_packet_has_are_refused_and_not_cut_silently() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (control, _) = fixtures::control(directory.path());
        let asked = |snap| CaptureRequest {
            snap: Some(snap),
            ..CaptureRequest::default()
        };
        assert!(start(&control, &asked(SNAP_BYTES_MAX)).is_ok());
        for snap in [0, SNAP_BYTES_MAX + 1] {
            assert!(start(&control, &asked(snap)).is_err(), "{snap}");
        }
    }

    #[test]
    fn a_prefix_with_host_bits_is_refused_as_the_tables_refuse_it() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (control, _) = fixtures::control(directory.path());
        let start = |net: &str| {
            let request = CaptureRequest {
                address: Some(net.parse().unwrap()),
                ..CaptureRequest::default()
            };
            start(&control, &request).map(drop)
        };
        for (net, accepted) in [
            ("10.255.43.5/24", "10.255.43.0/24"),
            ("fd00::1/64", "fd00::/64"),
        ] {
            let said = start(net).expect_err(net).message;
            let expected = format!("capture: {net} has host bits set (accepted: {accepted})");
            assert_eq!(said, expected);
        }
        assert!(start("10.255.43.5/32").is_ok());
    }

    #[test]
    fn what_was_gathered_before_is_not_written_again() {
        let captures = Arc::new(Captures::default());
        let mut capture = captures.start(1, Filter::default(), 64).expect("none runs");
        let mut buffer = b"of the last look".to_vec();
        let mut out = Vec::new();
        assert_eq!(forward(&mut capture, &mut buffer, &mut out).unwrap(), 0);
        assert!(out.is_empty());
    }
}

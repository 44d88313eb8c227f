//! UDP request and response, one at a time, between a process in each container.

use std::io;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::socket;
use crate::cli::lab::LabError;
use crate::cli::lab::ground::End;
use crate::cli::lab::interrupt::Interrupt;
use crate::cli::lab::joined;

/// Bytes of a request and of its response.
pub(super) const PAYLOAD_BYTES: usize = 64;
/// A response that takes longer is lost.
const PATIENCE: Duration = Duration::from_millis(200);

/// Round trips, answered or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RoundTrips {
    /// What each answered one took, shortest first.
    times: Vec<Duration>,
    /// Requests without a response.
    lost: usize,
}

impl RoundTrips {
    /// Of the requests, those without a response, in per cent.
    pub(super) fn lost_percent(&self) -> f64 {
        let asked = self.times.len() + self.lost;
        100.0 * self.lost as f64 / asked.max(1) as f64
    }

    /// The time in microseconds that `share` (0 to 1) of the answered ones stayed within, by nearest rank; `None` if
    /// none was answered.
    pub(super) fn percentile_us(&self, share: f64) -> Option<f64> {
        let rank = (share * self.times.len() as f64).ceil() as usize;
        let time = self.times.get(rank.max(1) - 1)?;
        Some(time.as_secs_f64() * 1e6)
    }
}

/// Asks for as long as `duration`, the next question after each answer.
///
/// # Errors
/// If a socket fails; when interrupted.
pub(super) fn run(
    from: End<'_>,
    to: End<'_>,
    duration: Duration,
    interrupt: &Interrupt,
) -> Result<RoundTrips, LabError> {
    let (asker, echo) = socket::pair(from, to)?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let answering = scope.spawn(|| answer(&echo, &done));
        let asked = ask(&asker, duration, interrupt);
        done.store(true, Relaxed);
        let answered = joined(answering).map_err(|error| socket::failed("answer", &error));
        let round_trips = asked?;
        answered?;
        Ok(round_trips)
    })
}

/// Sends back what comes until `done`, which it notices within a socket's tick.
fn answer(socket: &UdpSocket, done: &AtomicBool) -> io::Result<()> {
    let mut buffer = [0; PAYLOAD_BYTES];
    while !done.load(Relaxed) {
        match socket.recv_from(&mut buffer) {
            Ok((len, from)) => socket::quiet(socket.send_to(&buffer[..len], from))?,
            Err(error) => socket::quiet(Err(error))?,
        };
    }
    Ok(())
}

fn ask(
    socket: &UdpSocket,
    duration: Duration,
    interrupt: &Interrupt,
) -> Result<RoundTrips, LabError> {
    let failed = |error: io::Error| socket::failed("ask", &error);
    socket.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let mut round_trips = RoundTrips::default();
    let started = Instant::now();
    let mut number = 0_u64;
    while started.elapsed() < duration {
        interrupt.check()?;
        number += 1;
        match ask_once(socket, number).map_err(failed)? {
            Some(time) => round_trips.times.push(time),
            None => round_trips.lost += 1,
        }
    }
    round_trips.times.sort_unstable();
    Ok(round_trips)
}

/// One round trip; `None` if the answer did not come in time.
fn ask_once(socket: &UdpSocket, number: u64) -> io::Result<Option<Duration>> {
    let mut request = [0; PAYLOAD_BYTES];
    request[..8].copy_from_slice(&number.to_be_bytes());
    let asked = Instant::now();
    socket::quiet(socket.send(&request))?;
    let mut response = [0; PAYLOAD_BYTES];
    while asked.elapsed() < PATIENCE {
        // A late answer to an earlier question is passed over.
        if socket::quiet(socket.recv(&mut response))?.is_some() && response == request {
            return Ok(Some(asked.elapsed()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::netlink::Namespace;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let times = (1..=1000).map(Duration::from_micros).collect();
        let round_trips = RoundTrips { times, lost: 0 };
        for (share, expected) in [
            (0.5, 500.0),
            (0.99, 990.0),
            (0.999, 999.0),
            (1.0, 1000.0),
            (0.0, 1.0),
        ] {
            let got = round_trips.percentile_us(share).unwrap_or_default();
            assert!((got - expected).abs() < 1e-6, "{share}: {got}");
        }
        assert_eq!(RoundTrips::default().percentile_us(0.5), None);
    }

    #[test]
    fn answers_come_back_on_loopback() {
        let here = Namespace::current().expect("/proc is mounted");
        let end = End {
            namespace: &here,
            address: Ipv4Addr::LOCALHOST,
        };
        let round_trips =
            run(end, end, Duration::from_millis(20), &Interrupt::default()).expect("loopback");
        assert!(round_trips.percentile_us(0.5).is_some());
        assert!(round_trips.lost_percent() < 100.0);
    }
}

//! UDP datagrams from one container to the other, at a given rate or as fast as one thread sends them.

use std::io;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::pacer::{Pacer, Spacing};
use super::socket;
use crate::cli::lab::LabError;
use crate::cli::lab::ground::End;
use crate::cli::lab::interrupt::Interrupt;
use crate::cli::lab::joined;
use crate::error::SetupError;

/// Datagrams between two looks at the clock, when sending as fast as can be.
const FLOOD_BURST: u64 = 32;
/// Of a flood, how much passes before counting begins: queues fill first.
const FLOOD_START_SHARE: f64 = 0.2;
/// A trial that offered more or less than it should by this share is void.
const MISS_SHARE: f64 = 0.01;
/// After the last datagram sent, silence for so long means that no more will come.
const QUIET: Duration = Duration::from_millis(50);
const QUIET_TICK: Duration = Duration::from_millis(5);
/// Each datagram begins with the number of its trial, so that stragglers are not taken for its own.
const NUMBER_LEN: usize = 8;
/// The largest that is asked for.
const PAYLOAD_MAX_BYTES: usize = 1400;

/// One trial: so many sent, so many delivered. Rates are in datagrams a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Trial {
    /// What was to be offered; none in a flood.
    #[serde(rename = "target_pps")]
    pub(super) target: Option<f64>,
    /// What was.
    #[serde(rename = "offered_pps")]
    pub(super) offered: f64,
    /// What came through, over the time that was sent in.
    #[serde(rename = "delivered_pps")]
    pub(super) delivered: f64,
    /// Datagrams sent in the whole trial.
    pub(super) sent: u64,
    /// Datagrams of these that never came.
    pub(super) lost: u64,
    /// The sender missed its target by more than 1 %.
    pub(super) missed: bool,
    /// How evenly they were sent; none in a flood, which knows no pace.
    pub(super) spacing: Option<Spacing>,
}

impl Trial {
    /// All that should be offered was, and all of it came through (RFC 2544 section 26.1).
    pub(super) fn is_clean(&self) -> bool {
        !self.missed && self.lost == 0
    }
}

/// A sender in one container, a receiver in the other.
#[derive(Debug)]
pub(super) struct Flow {
    sender: UdpSocket,
    receiver: UdpSocket,
    payload_bytes: usize,
    trials: u64,
}

impl Flow {
    /// Opens its sockets. `payload_bytes` is the length of the datagrams' content, 8 to 1,400.
    ///
    /// # Errors
    /// If a namespace cannot be entered or a socket not be made.
    pub(super) fn open(
        from: End<'_>,
        to: End<'_>,
        payload_bytes: usize,
    ) -> Result<Self, SetupError> {
        let (sender, receiver) = socket::pair(from, to)?;
        let payload_bytes = payload_bytes.clamp(NUMBER_LEN, PAYLOAD_MAX_BYTES);
        Ok(Self {
            sender,
            receiver,
            payload_bytes,
            trials: 0,
        })
    }

    /// Offers `rate` datagrams a second for `duration` and waits for the last of them.
    ///
    /// # Errors
    /// If a socket fails; when interrupted.
    pub(super) fn trial(
        &mut self,
        rate: f64,
        duration: Duration,
        interrupt: &Interrupt,
    ) -> Result<Trial, LabError> {
        interrupt.check()?;
        self.counted(|run| {
            let total = (rate * duration.as_secs_f64()).round() as u64;
            let deadline = duration.mul_f64(1.0 + MISS_SHARE);
            let mut pacer = Pacer::new(rate);
            while pacer.sent() < total && pacer.elapsed() < deadline {
                run.send_paced(&mut pacer)?;
            }
            let seconds = pacer.elapsed().as_secs_f64();
            let sent = pacer.sent();
            let lost = run.settle(sent);
            Ok(Trial {
                target: Some(rate),
                offered: sent as f64 / seconds,
                delivered: sent.saturating_sub(lost) as f64 / seconds,
                sent,
                lost,
                missed: misses(sent as f64 / seconds, rate),
                spacing: Some(pacer.spacing()),
            })
        })
    }

    /// Sends as fast as one thread can for `duration`; the rates are those of its steady part.
    ///
    /// # Errors
    /// As [`Self::trial`].
    pub(super) fn flood(
        &mut self,
        duration: Duration,
        interrupt: &Interrupt,
    ) -> Result<Trial, LabError> {
        interrupt.check()?;
        self.counted(|run| {
            let started = Instant::now();
            let mut sent = 0;
            let mut until = |end: Duration| {
                while started.elapsed() < end {
                    sent += run.send(FLOOD_BURST)?;
                }
                Ok::<_, io::Error>((started.elapsed(), sent, run.received()))
            };
            let (begin, sent_before, received_before) = until(duration.mul_f64(FLOOD_START_SHARE))?;
            let (end, sent, received) = until(duration)?;
            let seconds = (end - begin).as_secs_f64();
            Ok(Trial {
                target: None,
                offered: (sent - sent_before) as f64 / seconds,
                delivered: (received - received_before) as f64 / seconds,
                sent,
                lost: run.settle(sent),
                missed: false,
                spacing: None,
            })
        })
    }

    /// Does `work` while `rate` datagrams a second are offered beside it. The second answer is whether the sender
    /// missed that.
    ///
    /// # Errors
    /// If a socket fails; as `work`.
    pub(super) fn beside<T>(
        &mut self,
        rate: f64,
        work: impl FnOnce() -> Result<T, LabError>,
    ) -> Result<(T, bool), LabError> {
        self.counted_thread(|run| {
            let ended = AtomicBool::new(false);
            thread::scope(|scope| {
                let sending = scope.spawn(|| {
                    let mut pacer = Pacer::new(rate);
                    while !ended.load(Relaxed) {
                        run.send_paced(&mut pacer)?;
                    }
                    Ok(pacer.sent() as f64 / pacer.elapsed().as_secs_f64())
                });
                let stopping = SetOnDrop(&ended);
                let done = work();
                drop(stopping);
                let offered = joined(sending).map_err(|error| socket::failed("send", &error));
                Ok((done?, misses(offered?, rate)))
            })
        })
    }

    fn counted(
        &mut self,
        work: impl FnOnce(&Run<'_>) -> io::Result<Trial>,
    ) -> Result<Trial, LabError> {
        self.counted_thread(|run| Ok(work(run).map_err(|error| socket::failed("send", &error))?))
    }

    /// Does `work` while a thread counts what arrives.
    fn counted_thread<T>(
        &mut self,
        work: impl FnOnce(&Run<'_>) -> Result<T, LabError>,
    ) -> Result<T, LabError> {
        self.trials += 1;
        let run = Run {
            flow: self,
            number: self.trials.to_be_bytes(),
            received: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        };
        thread::scope(|scope| {
            let counting = scope.spawn(|| run.count());
            let stopping = SetOnDrop(&run.ended);
            let done = work(&run);
            drop(stopping);
            let counted = joined(counting).map_err(|error| socket::failed("receive", &error));
            let done = done?;
            counted?;
            Ok(done)
        })
    }
}

/// Set whichever way the work ends, a panic included: else the scope would wait for its threads for ever.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// What sender and receiver of one trial share.
struct Run<'a> {
    flow: &'a Flow,
    number: [u8; NUMBER_LEN],
    received: AtomicU64,
    ended: AtomicBool,
}

impl Run<'_> {
    /// Sends `count` datagrams; says how many were taken, for a queue may be full.
    fn send(&self, count: u64) -> io::Result<u64> {
        let mut payload = [0; PAYLOAD_MAX_BYTES];
        payload[..NUMBER_LEN].copy_from_slice(&self.number);
        let mut sent = 0;
        for _ in 0..count {
            let taken = socket::quiet(self.flow.sender.send(&payload[..self.flow.payload_bytes]))?;
            sent += u64::from(taken.is_some());
        }
        Ok(sent)
    }

    /// Sends the next datagram when it is due.
    fn send_paced(&self, pacer: &mut Pacer) -> io::Result<()> {
        pacer.wait();
        pacer.count(self.send(1)? == 1);
        Ok(())
    }

    fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }

    /// Waits until all came, or no more will; says how many are missing.
    fn settle(&self, sent: u64) -> u64 {
        let (mut last, mut since) = (self.received(), Instant::now());
        while last < sent && since.elapsed() < QUIET {
            thread::sleep(QUIET_TICK);
            let now = self.received();
            if now > last {
                (last, since) = (now, Instant::now());
            }
        }
        sent.saturating_sub(last)
    }

    /// Counts what arrives until the trial has ended, which it notices within a socket's tick.
    fn count(&self) -> io::Result<()> {
        let mut buffer = [0; PAYLOAD_MAX_BYTES];
        while !self.ended.load(Relaxed) {
            let len = socket::quiet(self.flow.receiver.recv(&mut buffer))?;
            if len == Some(self.flow.payload_bytes) && buffer.starts_with(&self.number) {
                // The only one who writes it.
                self.received.store(self.received() + 1, Relaxed);
            }
        }
        Ok(())
    }
}

fn misses(offered: f64, target: f64) -> bool {
    (offered / target - 1.0).abs() > MISS_SHARE
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::netlink::Namespace;

    fn with_flow<T>(work: impl FnOnce(&mut Flow) -> T) -> T {
        let here = Namespace::current().expect("/proc is mounted");
        let end = End {
            namespace: &here,
            address: Ipv4Addr::LOCALHOST,
        };
        work(&mut Flow::open(end, end, 64).expect("loopback"))
    }

    #[test]
    fn a_trial_offers_its_rate_times_its_length() {
        let interrupt = Interrupt::default();
        let trial = with_flow(|flow| flow.trial(2000.0, Duration::from_millis(50), &interrupt))
            .expect("loopback");
        // A busy machine may cut it short, but nothing makes it send more.
        assert!(
            trial.sent <= 100 && (trial.missed || trial.sent == 100),
            "{trial:?}"
        );
        assert_eq!(trial.lost, 0, "{trial:?}");
    }

    #[test]
    fn a_flood_delivers_no_more_than_it_sends() {
        let interrupt = Interrupt::default();
        let trial =
            with_flow(|flow| flow.flood(Duration::from_millis(20), &interrupt)).expect("loopback");
        assert!(trial.sent > 0 && trial.lost < trial.sent, "{trial:?}");
    }

    #[test]
    fn each_trial_counts_its_own_datagrams() {
        let interrupt = Interrupt::default();
        with_flow(|flow| {
            for _ in 0..3 {
                let trial = flow
                    .trial(1000.0, Duration::from_millis(20), &interrupt)
                    .expect("loopback");
                assert!(trial.sent <= 20 && trial.lost == 0, "{trial:?}");
            }
        });
    }

    #[test]
    fn work_goes_on_beside_a_flow() {
        let did = with_flow(|flow| flow.beside(1000.0, || Ok(7))).expect("loopback");
        assert_eq!(did.0, 7);
        let failed = with_flow(|flow| flow.beside(1000.0, || Err::<(), _>(LabError::Interrupted)));
        assert!(matches!(failed, Err(LabError::Interrupted)));
    }

    #[test]
    fn a_miss_is_more_than_one_per_cent_either_way() {
        assert!(!misses(99_100.0, 100_000.0) && !misses(100_900.0, 100_000.0));
        assert!(misses(98_900.0, 100_000.0) && misses(101_100.0, 100_000.0));
    }
}

//! One thing to measure on one bed, and the readings it gives.

use std::thread;
use std::time::{Duration, Instant};

use super::dataplane::Bed;
use super::measure::{Beside, Measure, Percentile, Way};
use super::meter::{Meter, Usage};
use super::plan::Plan;
use super::round_trip::{self, RoundTrips};
use super::tcp::Streams;
use crate::cli::lab::LabError;
use crate::cli::lab::interrupt::Interrupt;
use crate::error::SetupError;

/// How late a wait may notice an interruption.
const TICK: Duration = Duration::from_millis(50);

/// One step of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exercise {
    /// So many TCP streams.
    Tcp(usize, Way),
    /// UDP round trips.
    RoundTrip(Beside),
}

/// One figure, measured once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) measure: Measure,
    pub(super) value: f64,
    /// What the machine did meanwhile.
    pub(super) usage: Usage,
}

impl Exercise {
    /// All of a round, in order.
    pub(super) fn all() -> Vec<Self> {
        let tcp = [1, 4]
            .into_iter()
            .flat_map(|streams| Way::ALL.map(|way| Self::Tcp(streams, way)));
        tcp.chain(Beside::ALL.map(Self::RoundTrip)).collect()
    }

    /// For people.
    pub(super) fn label(self) -> String {
        match self {
            Self::Tcp(streams, way) => Measure::TcpRate(streams, way).label(),
            Self::RoundTrip(beside) => format!("round trips {}", beside.label()),
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// If no traffic passes at all; when interrupted.
    pub(super) fn run(
        self,
        bed: &Bed,
        plan: &Plan,
        interrupt: &Interrupt,
    ) -> Result<Vec<Reading>, LabError> {
        match self {
            Self::Tcp(streams, way) => tcp(bed, (streams, way), plan, interrupt),
            Self::RoundTrip(beside) => round_trips(bed, beside, plan, interrupt),
        }
    }
}

fn tcp(
    bed: &Bed,
    (count, way): (usize, Way),
    plan: &Plan,
    interrupt: &Interrupt,
) -> Result<Vec<Reading>, LabError> {
    let [a, b] = bed.ends();
    let (from, to) = match way {
        Way::Out => (a, b),
        Way::Back => (b, a),
    };
    let ours = bed.processes();
    let (usage, bytes) = Streams::connect(from, to, count)?.run(|streams| {
        pause(plan.tcp_start, interrupt)?;
        let meter = Meter::start(&ours)?;
        let before = streams.received();
        pause(plan.tcp, interrupt)?;
        let bytes = streams.received() - before;
        Ok((meter.stop()?, bytes))
    })?;
    if bytes == 0 {
        return Err(silent("TCP").into());
    }
    let gbit = bytes as f64 * 8.0 / 1e9;
    let reading = |measure, value| Reading {
        measure,
        value,
        usage,
    };
    Ok(vec![
        reading(Measure::TcpRate(count, way), gbit / usage.seconds),
        reading(Measure::TcpCpu(count, way), usage.busy_seconds / gbit),
    ])
}

fn round_trips(
    bed: &Bed,
    beside: Beside,
    plan: &Plan,
    interrupt: &Interrupt,
) -> Result<Vec<Reading>, LabError> {
    let [a, b] = bed.ends();
    let ours = bed.processes();
    let measured = || {
        let meter = Meter::start(&ours)?;
        let round_trips = round_trip::run(a, b, plan.round_trip, interrupt)?;
        Ok::<_, LabError>((meter.stop()?, round_trips))
    };
    let (usage, round_trips) = match beside {
        Beside::Idle => measured()?,
        Beside::Tcp => Streams::connect(a, b, 1)?.run(|_| {
            pause(plan.tcp_start, interrupt)?;
            measured()
        })?,
    };
    readings_of(&round_trips, beside, usage).ok_or_else(|| silent("UDP").into())
}

fn readings_of(round_trips: &RoundTrips, beside: Beside, usage: Usage) -> Option<Vec<Reading>> {
    let reading = |measure, value| Reading {
        measure,
        value,
        usage,
    };
    let percentile = |percentile: Percentile| {
        let value = round_trips.percentile_us(percentile.share())?;
        Some(reading(Measure::RoundTrip(beside, percentile), value))
    };
    let mut readings: Vec<_> = Percentile::ALL
        .into_iter()
        .map(percentile)
        .collect::<Option<_>>()?;
    readings.push(reading(
        Measure::RoundTripsLost(beside),
        round_trips.lost_percent(),
    ));
    Some(readings)
}

fn silent(protocol: &str) -> SetupError {
    SetupError::new("measure", protocol, "nothing came through")
}

fn pause(duration: Duration, interrupt: &Interrupt) -> Result<(), LabError> {
    let deadline = Instant::now() + duration;
    loop {
        interrupt.check()?;
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(TICK));
    }
}

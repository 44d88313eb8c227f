//! One thing to measure on one bed, and the readings it gives.

use std::thread;
use std::time::{Duration, Instant};

use super::curve::{Reference, Trials};
use super::dataplane::Bed;
use super::measure::{Beside, Measure, Percentile, Way};
use super::meter::{Meter, Usage};
use super::plan::Plan;
use super::round_trip::{self, RoundTrips};
use super::tcp::Streams;
use super::udp::Flow;
use crate::cli::args::BenchSubject;
use crate::cli::lab::LabError;
use crate::cli::lab::interrupt::Interrupt;
use crate::error::SetupError;

/// How late a wait may notice an interruption.
const TICK: Duration = Duration::from_millis(50);
/// Streams side by side.
const STREAMS: [usize; 2] = [1, 4];
/// Payload of datagrams: small, middling, and nearly a whole MTU.
pub(super) const PAYLOADS_BYTES: [usize; 3] = [64, 512, 1400];

/// One step of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exercise {
    /// So many TCP streams.
    Tcp(usize, Way),
    /// Datagrams of that payload, as fast as one thread sends them.
    UdpFlood(usize),
    /// Datagrams of that payload at given rates. Needs to know what floods delivered.
    UdpCurve(usize),
    /// UDP round trips. At half load it needs to know what floods delivered.
    RoundTrip(Beside),
}

/// Where and how it is done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting<'a> {
    pub(super) bed: &'a Bed,
    pub(super) plan: &'a Plan,
    pub(super) interrupt: &'a Interrupt,
    /// What floods of the exercise's datagrams delivered on this wire; `None` where no flood came before.
    pub(super) reference: Option<Reference>,
}

/// What came of an exercise.
#[derive(Debug, Clone)]
pub(super) struct Findings {
    pub(super) readings: Vec<Reading>,
    /// Of a curve.
    pub(super) trials: Option<Trials>,
    /// What the machine did meanwhile.
    pub(super) usage: Usage,
}

/// One figure, measured once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) measure: Measure,
    pub(super) value: f64,
    /// It does not count, whatever the rest of the exercise: the load that belongs to it was missed or disturbed.
    pub(super) void: bool,
}

impl Exercise {
    /// Those of a round that measure `subjects`, in order. Each comes after what it needs to know.
    pub(super) fn of(subjects: &[BenchSubject]) -> Vec<Self> {
        let tcp = || {
            STREAMS
                .into_iter()
                .flat_map(|streams| Way::ALL.map(|way| Self::Tcp(streams, way)))
        };
        let udp = || {
            PAYLOADS_BYTES
                .into_iter()
                .flat_map(|bytes| [Self::UdpFlood(bytes), Self::UdpCurve(bytes)])
        };
        let mut exercises = Vec::new();
        for subject in subjects {
            match subject {
                BenchSubject::Tcp => exercises.extend(tcp()),
                BenchSubject::Udp => exercises.extend(udp()),
                BenchSubject::Rtt => {
                    let flood = Self::UdpFlood(round_trip::PAYLOAD_BYTES);
                    // Half load is half of what a flood delivers.
                    if !exercises.contains(&flood) {
                        exercises.push(flood);
                    }
                    exercises.extend(Beside::ALL.map(Self::RoundTrip));
                }
            }
        }
        exercises
    }

    /// For people.
    pub(super) fn label(self) -> String {
        match self {
            Self::Tcp(streams, way) => Measure::TcpRate(streams, way).label(),
            Self::UdpFlood(bytes) => format!("UDP, {bytes} bytes, flood"),
            Self::UdpCurve(bytes) => format!("UDP, {bytes} bytes, delivered over offered"),
            Self::RoundTrip(beside) => format!("round trips {}", beside.label()),
        }
    }

    /// The datagrams whose floods it needs to know of.
    pub(super) fn payload_bytes(self) -> Option<usize> {
        match self {
            Self::UdpFlood(bytes) | Self::UdpCurve(bytes) => Some(bytes),
            Self::RoundTrip(Beside::HalfLoad) => Some(round_trip::PAYLOAD_BYTES),
            Self::Tcp(..) | Self::RoundTrip(Beside::Idle | Beside::Tcp) => None,
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// If no traffic passes at all; when interrupted.
    pub(super) fn run(self, setting: Setting<'_>) -> Result<Findings, LabError> {
        match self {
            Self::Tcp(streams, way) => tcp(setting, streams, way),
            Self::UdpFlood(bytes) => flood(setting, bytes),
            Self::UdpCurve(bytes) => udp_curve(setting, bytes),
            Self::RoundTrip(beside) => round_trips(setting, beside),
        }
    }
}

impl Findings {
    fn new(readings: Vec<Reading>, usage: Usage) -> Self {
        Self {
            readings,
            trials: None,
            usage,
        }
    }
}

impl Reading {
    fn new(measure: Measure, value: f64) -> Self {
        Self {
            measure,
            value,
            void: false,
        }
    }
}

fn tcp(setting: Setting<'_>, count: usize, way: Way) -> Result<Findings, LabError> {
    let Setting {
        bed,
        plan,
        interrupt,
        ..
    } = setting;
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
    let readings = vec![
        Reading::new(Measure::TcpRate(count, way), gbit / usage.seconds),
        Reading::new(Measure::TcpCpu(count, way), usage.busy_seconds / gbit),
    ];
    Ok(Findings::new(readings, usage))
}

fn flood(setting: Setting<'_>, bytes: usize) -> Result<Findings, LabError> {
    let [a, b] = setting.bed.ends();
    let ours = setting.bed.processes();
    let mut flow = Flow::open(a, b, bytes)?;
    let meter = Meter::start(&ours)?;
    let trial = flow.flood(setting.plan.flood, setting.interrupt)?;
    let usage = meter.stop()?;
    if trial.delivered <= 0.0 {
        return Err(silent("UDP").into());
    }
    let saturated = Reading::new(Measure::UdpSaturated(bytes), trial.delivered / 1e3);
    Ok(Findings::new(vec![saturated], usage))
}

fn udp_curve(setting: Setting<'_>, bytes: usize) -> Result<Findings, LabError> {
    let Setting {
        bed,
        plan,
        interrupt,
        ..
    } = setting;
    let reference = reference(setting)?;
    let [a, b] = bed.ends();
    let ours = bed.processes();
    let mut flow = Flow::open(a, b, bytes)?;
    let meter = Meter::start(&ours)?;
    let trial = |rate| match flow.trial(rate, plan.trial, interrupt)? {
        // Once more: the sender may just have been kept from its CPU. One that cannot reach the rate misses it again.
        first if first.missed => flow.trial(rate, plan.trial, interrupt),
        first => Ok(first),
    };
    let grid = reference.grid(plan.curve_points);
    let trials = Trials::make(grid, plan.zero_loss_steps, trial)?;
    let usage = meter.stop()?;
    let rate = trials.zero_loss.rate / 1e3;
    let mut readings = vec![Reading::new(Measure::UdpZeroLoss(bytes), rate)];
    readings.extend(half_load_cpu(setting, &mut flow, bytes, reference)?);
    Ok(Findings {
        readings,
        trials: Some(trials),
        usage,
    })
}

/// None if nothing was delivered.
fn half_load_cpu(
    setting: Setting<'_>,
    flow: &mut Flow,
    bytes: usize,
    reference: Reference,
) -> Result<Option<Reading>, LabError> {
    let ours = setting.bed.processes();
    let meter = Meter::start(&ours)?;
    let trial = flow.trial(reference.half_load(), setting.plan.flood, setting.interrupt)?;
    let usage = meter.stop()?;
    let delivered = trial.sent - trial.lost;
    // The sender's waiting for the next datagram is no work.
    let spun_seconds = trial.spacing.map_or(0.0, |spacing| spacing.spun_seconds);
    let worked_seconds = usage.busy_seconds - spun_seconds;
    let reading = Reading {
        void: trial.missed || usage.is_disturbed(),
        ..Reading::new(
            Measure::UdpCpu(bytes),
            worked_seconds / (delivered as f64 / 1e6),
        )
    };
    Ok((delivered > 0).then_some(reading))
}

fn round_trips(setting: Setting<'_>, beside: Beside) -> Result<Findings, LabError> {
    let Setting {
        bed,
        plan,
        interrupt,
        ..
    } = setting;
    let [a, b] = bed.ends();
    let ours = bed.processes();
    let measured = || {
        pause(plan.tcp_start, interrupt)?;
        let meter = Meter::start(&ours)?;
        let round_trips = round_trip::run(a, b, plan.round_trip, interrupt)?;
        Ok::<_, LabError>((meter.stop()?, round_trips))
    };
    let ((usage, round_trips), missed) = match beside {
        Beside::Idle => (measured()?, false),
        Beside::HalfLoad => {
            let rate = reference(setting)?.half_load();
            Flow::open(a, b, round_trip::PAYLOAD_BYTES)?.beside(rate, measured)?
        }
        Beside::Tcp => (Streams::connect(a, b, 1)?.run(|_| measured())?, false),
    };
    let readings = readings_of(&round_trips, beside, missed).ok_or_else(|| silent("UDP"))?;
    Ok(Findings::new(readings, usage))
}

fn readings_of(round_trips: &RoundTrips, beside: Beside, void: bool) -> Option<Vec<Reading>> {
    let reading = |measure, value| Reading {
        measure,
        value,
        void,
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

fn reference(setting: Setting<'_>) -> Result<Reference, SetupError> {
    setting
        .reference
        .ok_or_else(|| SetupError::new("measure", "UDP", "no flood came before"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_and_a_half_load_come_after_their_flood() {
        use BenchSubject::{Rtt, Tcp, Udp};
        for subjects in [&[Tcp, Udp, Rtt][..], &[Udp], &[Rtt], &[Tcp, Rtt]] {
            let exercises = Exercise::of(subjects);
            for (place, exercise) in exercises.iter().enumerate() {
                let Some(bytes) = exercise.payload_bytes() else {
                    continue;
                };
                let flood = Exercise::UdpFlood(bytes);
                let floods = exercises.iter().filter(|other| **other == flood);
                assert_eq!(floods.count(), 1, "{subjects:?}");
                assert!(exercises[..=place].contains(&flood), "{subjects:?}");
            }
        }
    }

    #[test]
    fn tcp_alone_needs_no_flood() {
        let exercises = Exercise::of(&[BenchSubject::Tcp]);
        assert_eq!(exercises.len(), STREAMS.len() * Way::ALL.len());
        assert!(
            exercises
                .iter()
                .all(|exercise| matches!(exercise, Exercise::Tcp(..)))
        );
    }
}

//! How long and how often.

use std::time::Duration;

use serde::Serialize;

/// The length of everything. Durations are printed in seconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Plan {
    /// Made to finish in a minute, not to be exact.
    pub(super) quick: bool,
    /// How often all is measured.
    pub(super) rounds: u32,
    /// Of a TCP measurement, after its start.
    #[serde(rename = "tcp_seconds", serialize_with = "seconds")]
    pub(super) tcp: Duration,
    /// For a stream to find its pace before that.
    #[serde(rename = "tcp_start_seconds", serialize_with = "seconds")]
    pub(super) tcp_start: Duration,
    /// Of a round-trip measurement.
    #[serde(rename = "round_trip_seconds", serialize_with = "seconds")]
    pub(super) round_trip: Duration,
    /// Of a flood, and of the run at half load that CPU time is taken of.
    #[serde(rename = "flood_seconds", serialize_with = "seconds")]
    pub(super) flood: Duration,
    /// Of a UDP trial. RFC 2544 section 24 asks for 60 s.
    #[serde(rename = "trial_seconds", serialize_with = "seconds")]
    pub(super) trial: Duration,
    /// Offered rates of a curve.
    pub(super) curve_points: u32,
    /// Trials more that narrow down the zero-loss rate.
    pub(super) zero_loss_steps: usize,
}

impl Plan {
    /// About a quarter of an hour at five rounds; or about a minute at one.
    pub(super) fn new(quick: bool, rounds: Option<u32>) -> Self {
        let millis = |full, short| Duration::from_millis(if quick { short } else { full });
        Self {
            quick,
            rounds: rounds.unwrap_or(if quick { 1 } else { 5 }),
            tcp: millis(2000, 500),
            tcp_start: millis(500, 150),
            round_trip: millis(2000, 500),
            flood: millis(1000, 400),
            trial: millis(500, 100),
            curve_points: if quick { 4 } else { 8 },
            zero_loss_steps: if quick { 2 } else { 4 },
        }
    }
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

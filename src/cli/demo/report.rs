//! The figures of one demo, and what they amount to.

use serde::Serialize;

use super::ping::Pings;
use super::transfer::Transfer;
use crate::control::stats::Count;

/// Everything that was measured; what was not reached is absent. The keys are part of the interface of `demo --json`.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// Round trips from the first container to the second.
    pub(super) ping: Option<Pings>,
    /// Streams, one each way.
    pub(super) tcp: Vec<Transfer>,
    /// Both cells.
    pub(super) cells: Vec<CellFigures>,
    /// Namespaces that were still there after cleaning up; absent if that could not be told.
    pub(super) namespaces_left: Option<usize>,
    /// From start to end, cleaning up included.
    pub(super) seconds: f64,
    /// What ended the demo early or went wrong in cleaning up.
    #[serde(skip)]
    pub(super) error: Option<String>,
}

/// The counters of one cell's daemon.
#[derive(Debug, Serialize)]
pub(super) struct CellFigures {
    /// `a` or `b`.
    pub(super) name: &'static str,
    /// All its lanes and peers together.
    pub(super) counters: Count,
}

/// What the report amounts to.
#[derive(Debug, Serialize)]
struct Verdict<'a> {
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(flatten)]
    report: &'a Report,
}

impl Report {
    /// What went wrong first; `None` if the demo passed.
    pub(super) fn failure(&self) -> Option<String> {
        self.error
            .clone()
            .or_else(|| self.lost())
            .or_else(|| self.corrupted())
            .or_else(|| self.left_behind())
    }

    /// One JSON object.
    pub(super) fn json(&self) -> String {
        let reason = self.failure();
        let verdict = Verdict {
            verdict: if reason.is_none() { "passed" } else { "failed" },
            reason,
            report: self,
        };
        // Proof: no map in it has keys other than strings, and floats that are not finite become null.
        serde_json::to_string(&verdict).expect("a report is plain data")
    }

    fn lost(&self) -> Option<String> {
        match self.ping {
            None => Some("no ping was sent".to_owned()),
            Some(pings) if pings.received < pings.sent => Some(format!(
                "{} of {} pings lost",
                pings.sent - pings.received,
                pings.sent
            )),
            Some(_) => None,
        }
    }

    fn corrupted(&self) -> Option<String> {
        if self.tcp.len() < 2 {
            return Some("not all TCP streams were sent".to_owned());
        }
        let wrong = self
            .tcp
            .iter()
            .find(|transfer| !transfer.verified || transfer.bytes == 0)?;
        Some(format!(
            "TCP {} -> {}: what came is not what went",
            wrong.from, wrong.to
        ))
    }

    fn left_behind(&self) -> Option<String> {
        match self.namespaces_left {
            Some(0) => None,
            Some(left) => Some(format!("{left} namespaces left behind")),
            None => Some("namespaces may be left behind".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const PINGS: Pings = Pings {
        sent: 100,
        received: 100,
        min_us: 40.0,
        avg_us: 50.0,
        max_us: 90.0,
    };
    const TRANSFER: Transfer = Transfer {
        from: Ipv4Addr::new(10, 255, 108, 184),
        to: Ipv4Addr::new(10, 255, 43, 6),
        bytes: 375_000_000,
        seconds: 3.0,
        gbit_per_s: 1.0,
        verified: true,
    };

    fn good() -> Report {
        Report {
            ping: Some(PINGS),
            tcp: vec![TRANSFER, TRANSFER],
            namespaces_left: Some(0),
            ..Report::default()
        }
    }

    #[test]
    fn passes_when_everything_came_across_and_nothing_is_left() {
        assert_eq!(good().failure(), None);
        let json: serde_json::Value = serde_json::from_str(&good().json()).unwrap();
        assert_eq!(json["verdict"], "passed");
        assert_eq!(json["ping"]["received"], 100);
        assert_eq!(json["tcp"][1]["from"], "10.255.108.184");
        assert_eq!(json["namespaces_left"], 0);
        assert_eq!(json.get("reason"), None);
    }

    #[test]
    fn each_shortcoming_is_a_failure_that_says_what() {
        let lossy = Pings {
            received: 97,
            ..PINGS
        };
        let wrong = Transfer {
            verified: false,
            ..TRANSFER
        };
        for (report, reason) in [
            (
                Report {
                    ping: Some(lossy),
                    ..good()
                },
                "3 of 100 pings lost",
            ),
            (
                Report {
                    ping: None,
                    ..good()
                },
                "no ping was sent",
            ),
            (
                Report {
                    tcp: vec![TRANSFER],
                    ..good()
                },
                "not all TCP streams were sent",
            ),
            (
                Report {
                    tcp: vec![TRANSFER, wrong],
                    ..good()
                },
                "what came is not what went",
            ),
            (
                Report {
                    namespaces_left: Some(4),
                    ..good()
                },
                "4 namespaces left behind",
            ),
            (
                Report {
                    namespaces_left: None,
                    ..good()
                },
                "may be left behind",
            ),
            (
                Report {
                    error: Some("interrupted".to_owned()),
                    ..good()
                },
                "interrupted",
            ),
        ] {
            let failure = report.failure().unwrap_or_default();
            assert!(
                failure.contains(reason),
                "{failure:?} is not about {reason:?}"
            );
            let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
            assert_eq!(json["verdict"], "failed");
            assert_eq!(json["reason"], failure);
        }
    }
}

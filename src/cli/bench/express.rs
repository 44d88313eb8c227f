//! How much took the express path, where `--set express=true` asks for it: a figure says nothing of what nobody took.

use std::collections::BTreeMap;

use super::table::number;
use super::wire::Wire;
use crate::cli::lab::LabError;
use crate::cli::lab::site::Cell;
use crate::control::protocol::Request;
use crate::control::rows::LinkRow;
use crate::control::stats::Stats;
use crate::daemon::express_needs::FEATURE;

/// What our daemons said at the end of each round.
#[derive(Debug, Default)]
pub(super) struct ExpressUse(BTreeMap<Wire, Account>);

/// All daemons and rounds on one wire.
#[derive(Debug, Default, PartialEq, Eq)]
struct Account {
    /// As `link show` has it, of whoever was asked last.
    state: String,
    forwarded_bytes: u64,
    sent_bytes: u64,
}

impl ExpressUse {
    /// Asks the daemons of `cells`, before they end.
    ///
    /// # Errors
    /// One does not answer.
    pub(super) fn ask(&mut self, wire: Wire, cells: &[Cell]) -> Result<(), LabError> {
        for cell in cells {
            let mut client = cell.client()?;
            let link: LinkRow = client.call(&Request::Link)?;
            let Some(state) = link.silk_vtep.features.get("express") else {
                continue;
            };
            let stats: Stats = client.call(&Request::Stats)?;
            let forwarded_bytes = stats.express.unwrap_or_default().tx_bytes;
            self.add(wire, state, forwarded_bytes, stats.total.tx_bytes);
        }
        Ok(())
    }

    fn add(&mut self, wire: Wire, state: &str, forwarded_bytes: u64, sent_bytes: u64) {
        let account = self.0.entry(wire).or_default();
        state.clone_into(&mut account.state);
        account.forwarded_bytes += forwarded_bytes;
        account.sent_bytes += sent_bytes;
    }

    /// One for each wire; none where nobody asked for it.
    pub(super) fn notes(&self) -> Vec<String> {
        let note = |(&wire, account): (&Wire, &Account)| account.note(wire);
        self.0.iter().map(note).collect()
    }
}

impl Account {
    fn note(&self, wire: Wire) -> String {
        let name = wire.name();
        if self.forwarded_bytes == 0 {
            return format!(
                "express = true had no effect on wire {name}: {}",
                self.why_nothing(wire)
            );
        }
        let share = self.forwarded_bytes as f64 / self.sent_bytes.max(1) as f64;
        format!(
            "express = true: on wire {name} the kernel forwarded {} % of the bytes that silk-vtep sent, TCP alone; all else went \
             through its lanes",
            number(share * 100.0)
        )
    }

    fn why_nothing(&self, wire: Wire) -> String {
        match wire {
            Wire::Super | Wire::Mtu if self.state != "on" => self.state.clone(),
            Wire::Mtu => format!("its device takes no tunnel super-frames ({FEATURE} is off)"),
            Wire::Super => "it is for TCP in bulk, and there was none".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_did_not_ask_reads_nothing() {
        assert!(ExpressUse::default().notes().is_empty());
    }

    #[test]
    fn both_cells_and_all_rounds_are_one_share() {
        let mut used = ExpressUse::default();
        for (forwarded, sent) in [(900, 1000), (0, 1000), (950, 1000), (150, 1000)] {
            used.add(Wire::Super, "on", forwarded, sent);
        }
        let notes = used.notes();
        let expected = "express = true: on wire super the kernel forwarded 50";
        assert!(notes[0].starts_with(expected), "{notes:?}");
        assert_eq!(notes.len(), 1);
    }

    #[test]
    fn what_had_no_effect_is_told_with_its_reason() {
        let note = |wire, state: &str| {
            let mut used = ExpressUse::default();
            used.add(wire, state, 0, 1000);
            used.notes().join("\n")
        };
        let unsupported = "unsupported: the underlay is IPv6";
        for wire in Wire::ALL {
            let note = note(wire, unsupported);
            assert!(note.starts_with("express = true had no effect"), "{note}");
            assert!(note.ends_with(unsupported), "{note}");
        }
        assert!(note(Wire::Mtu, "on").ends_with("(tx-udp_tnl-segmentation is off)"));
        assert!(note(Wire::Super, "on").contains("there was none"));
    }
}

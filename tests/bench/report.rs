//! What a run reports with `--json`, and what must hold of it whatever was measured.

use std::collections::BTreeMap;

use serde_json::Value;

use super::run::{Run, check_nothing_stayed};
use crate::{Result, ensure};

/// Of a run that ended well and left nothing behind.
pub(crate) struct Report {
    pub(crate) json: Value,
    dataplanes: Vec<String>,
}

impl Report {
    /// Runs it.
    pub(crate) fn of(options: &str) -> Result<Self> {
        let ended = Run::start(options)?.wait()?;
        ensure!(ended.status.success(), "{}: {}", ended.status, ended.stderr);
        check_nothing_stayed()?;
        let json: Value = serde_json::from_str(&ended.stdout)?;
        let dataplanes = serde_json::from_value(json["dataplanes"].clone())?;
        Ok(Self { json, dataplanes })
    }

    /// What was measured, on what, and what is to be known of it.
    pub(crate) fn check_heading(&self, subject: &str) -> Result {
        let plan = &self.json["plan"];
        ensure!(plan["quick"] == true && plan["rounds"] == 1, "{plan}");
        ensure!(plan["wires"] == serde_json::json!(["super"]), "{plan}");
        ensure!(plan["subjects"] == serde_json::json!([subject]), "{plan}");
        let notes = self.json["notes"].to_string();
        let alone = notes.contains("no VXLAN device");
        let expected: &[&str] = match alone {
            true => &["silk-vtep"],
            false => &["kernel", "silk-vtep"],
        };
        ensure!(self.dataplanes == expected, "{:?}", self.dataplanes);
        let machine = &self.json["machine"];
        for key in ["cpus", "memory_mib", "kernel", "version"] {
            let value = &machine[key];
            ensure!(!value.is_null() && *value != 0 && *value != "", "{machine}");
        }
        let (taken, void) = (&self.json["samples_taken"], &self.json["samples_void"]);
        ensure!(taken.as_u64() >= void.as_u64(), "{void} of {taken}");
        Ok(())
    }

    /// The figures.
    pub(crate) fn rows(&self) -> Result<Rows<'_>> {
        let rows = self.json["results"].as_array().ok_or("no results")?;
        let named = |row| (text(row, "measure"), row);
        Ok(Rows {
            left: rows.iter().map(named).collect(),
            seen: BTreeMap::new(),
            dataplanes: &self.dataplanes,
        })
    }

    /// One of each dataplane and size: what was offered is what was asked for, or was missed; what was lost is not delivered.
    pub(crate) fn check_curves(&self, payloads_bytes: &[usize]) -> Result {
        let curves = self.json["curves"].as_array().ok_or("no curves")?;
        let expected = self.dataplanes.len() * payloads_bytes.len();
        ensure!(curves.len() == expected, "{} curves", curves.len());
        for curve in curves {
            let limit = text(&curve["zero_loss"], "limit");
            ensure!(
                ["loss", "sender", "grid"].contains(&limit.as_str()),
                "{curve}"
            );
            let trials = ["grid", "search"].map(|key| curve[key].as_array());
            ensure!(trials[0].is_some_and(|grid| grid.len() == 4), "{curve}");
            for trial in trials.into_iter().flatten().flatten() {
                check_trial(trial)?;
            }
        }
        Ok(())
    }
}

fn check_trial(trial: &Value) -> Result {
    let number = |key: &str| trial[key].as_f64().unwrap_or(f64::NAN);
    let ratio = number("offered_pps") / number("target_pps");
    let missed = trial["missed"] == true;
    ensure!(missed == ((ratio - 1.0).abs() > 0.01), "{trial}");
    ensure!(number("lost") <= number("sent"), "{trial}");
    ensure!(number("delivered_pps") <= number("offered_pps"), "{trial}");
    let spacing = &trial["spacing"];
    let gap_us = spacing["gap_us"].as_f64().unwrap_or(f64::NAN);
    ensure!(
        (gap_us * number("target_pps") / 1e6 - 1.0).abs() < 1e-3,
        "{trial}"
    );
    Ok(())
}

/// The figures, by measure.
pub(crate) struct Rows<'a> {
    left: BTreeMap<String, &'a Value>,
    seen: BTreeMap<String, &'a Value>,
    dataplanes: &'a [String],
}

impl Rows<'_> {
    /// Each dataplane has such a figure, and a ratio if there are two; all of them positive.
    pub(crate) fn check_positive(&mut self, measure: &str, unit: &str) -> Result {
        self.check(measure, unit, |value| value > 0.0)?;
        if let [kernel, rest @ ..] = self.dataplanes
            && kernel == "kernel"
        {
            for dataplane in rest {
                let row = &self.seen[measure]["dataplanes"][dataplane];
                let ratio = row["ratio"]["value"].as_f64();
                ensure!(ratio.is_some_and(|ratio| ratio > 0.0), "{measure}: {row}");
            }
        }
        Ok(())
    }

    /// Each dataplane has such a figure, which may be zero.
    pub(crate) fn check_not_negative(&mut self, measure: &str, unit: &str) -> Result {
        self.check(measure, unit, |value| value >= 0.0)
    }

    /// No figure of a dataplane is less than the one before.
    pub(crate) fn check_rising(&self, measures: &[String]) -> Result {
        for dataplane in self.dataplanes {
            let medians = measures
                .iter()
                .map(|measure| median(&self.seen[measure.as_str()]["dataplanes"][dataplane]))
                .collect::<Vec<_>>();
            ensure!(medians.is_sorted(), "{dataplane}: {medians:?}");
        }
        Ok(())
    }

    /// All have been looked at.
    pub(crate) fn check_no_more(&self) -> Result {
        let left = &self.left;
        ensure!(left.is_empty(), "more than expected: {:?}", left.keys());
        Ok(())
    }

    fn check(&mut self, measure: &str, unit: &str, is_right: impl Fn(f64) -> bool) -> Result {
        let row = self.left.remove(measure);
        let row = row.ok_or_else(|| format!("no {measure}"))?;
        self.seen.insert(measure.to_owned(), row);
        ensure!(
            row["wire"] == "super" && text(row, "unit") == unit,
            "{measure}: {row}"
        );
        for dataplane in self.dataplanes {
            let figure = &row["dataplanes"][dataplane];
            let samples = figure["samples"].as_array().map_or(0, Vec::len);
            ensure!(
                samples == 1 && is_right(median(figure)),
                "{measure}, {dataplane}: {figure}"
            );
        }
        Ok(())
    }
}

/// Not a number if there is none, which then is neither positive nor negative.
fn median(figure: &Value) -> f64 {
    figure["summary"]["median"].as_f64().unwrap_or(f64::NAN)
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

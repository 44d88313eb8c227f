//! One thing looked at, and how it reads.

use std::fmt;

use serde::Serialize;

/// Something the daemon needs or uses, and how it stands here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    name: &'static str,
    state: State,
    /// What it is for, and what was found.
    detail: String,
    /// What a person can do; empty where nothing need or can be done.
    mend: String,
    /// Without it the daemon does not run.
    #[serde(skip)]
    needed: bool,
}

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// There, and as it should be.
    Ok,
    /// Not to be had here.
    Missing,
    /// There, but switched off or set too low.
    Off,
    /// It could not be tried.
    Unknown,
}

impl Check {
    /// There, and as it should be.
    pub(super) fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, State::Ok, detail)
    }

    /// Not to be had here.
    pub(super) fn missing(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, State::Missing, detail)
    }

    /// There, but switched off or set too low.
    pub(super) fn off(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, State::Off, detail)
    }

    /// It could not be tried.
    pub(super) fn unknown(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, State::Unknown, detail)
    }

    fn new(name: &'static str, state: State, detail: impl Into<String>) -> Self {
        Self {
            name,
            state,
            detail: detail.into(),
            mend: String::new(),
            needed: false,
        }
    }

    /// Adds something to what was found.
    #[must_use]
    pub(super) fn also(mut self, more: impl fmt::Display) -> Self {
        self.detail = format!("{}; {more}", self.detail);
        self
    }

    /// Adds what a person can do.
    #[must_use]
    pub(super) fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = mend.into();
        self
    }

    /// The daemon does not run without.
    #[must_use]
    pub(super) fn needed(self) -> Self {
        Self {
            needed: true,
            ..self
        }
    }

    /// Whether it is there, and as it should be.
    pub(super) fn is_ok(&self) -> bool {
        self.state == State::Ok
    }

    /// Its name, if it keeps the daemon from running.
    pub(super) fn hindrance(&self) -> Option<&'static str> {
        (self.needed && !self.is_ok()).then_some(self.name)
    }
}

impl fmt::Display for Check {
    /// One line: state, name, detail and mend.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8} {:<15} {}", self.state, self.name, self.detail)?;
        if self.mend.is_empty() {
            Ok(())
        } else {
            write!(f, " ({})", self.mend)
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Missing => "missing",
            Self::Off => "off",
            Self::Unknown => "unknown",
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_has_state_name_detail_and_mend() {
        let check = Check::missing("tap", "TUNSETIFF: EPERM").mend("run as root");
        assert_eq!(
            check.to_string(),
            "missing  tap             TUNSETIFF: EPERM (run as root)"
        );
        assert_eq!(
            Check::ok("cpus", "2").to_string(),
            "ok       cpus            2"
        );
    }

    #[test]
    fn json_has_four_keys_and_the_states_of_the_lines() {
        let json = serde_json::to_value(Check::off("uso", "detail").mend("mend").needed());
        assert_eq!(
            json.expect("strings only"),
            json!({"name": "uso", "state": "off", "detail": "detail", "mend": "mend"})
        );
        for state in [State::Ok, State::Missing, State::Off, State::Unknown] {
            let json = serde_json::to_value(state).expect("a unit variant");
            assert_eq!(json, json!(state.to_string()));
        }
    }

    #[test]
    fn only_what_is_needed_and_not_there_hinders() {
        assert_eq!(Check::missing("uso", "").hindrance(), None);
        assert_eq!(Check::ok("tap", "").needed().hindrance(), None);
        assert_eq!(Check::unknown("tap", "").needed().hindrance(), Some("tap"));
    }
}

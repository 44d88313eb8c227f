//! What may be typed after `bench`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::BenchOf;

/// How to measure.
#[derive(Debug, Clone, Default, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    /// What to measure instead of dataplanes.
    #[command(subcommand)]
    pub of: Option<BenchOf>,
    /// Finish in about a minute: one round, short measurements
    #[arg(long)]
    pub quick: bool,
    /// Write a page with plots too
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// How often to measure everything [default: 5; with --quick: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: Option<u32>,
    /// Measure another dataplane too
    #[arg(long, value_name = "WHICH")]
    pub against: Option<BenchRival>,
    /// Measure only this; may be given again
    #[arg(long, value_name = "WHAT")]
    pub only: Vec<BenchSubject>,
    /// Measure only on this wire
    #[arg(long, value_name = "WIRE")]
    pub wire: Option<BenchWire>,
    /// A key of the daemons' `[vtep]` and its value, as in `--set lanes=1`, or `policy_rules=N`: enforce a policy of N rules; may be given again
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<VtepSetting>,
}

/// Whom else `bench` can measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchRival {
    /// Open vSwitch's userspace datapath, where it is installed
    Ovs,
}

/// What `bench` can measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum BenchSubject {
    /// TCP streams
    Tcp,
    /// UDP datagrams, flooded and paced
    Udp,
    /// UDP round trips
    Rtt,
}

/// What the cells of `bench` may be joined by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchWire {
    /// A veth pair as it comes: super-frames pass whole
    Super,
    /// Every packet within the MTU
    Mtu,
}

/// One key of `[vtep]` with its value, as TOML has them. Displayed as a line of the file: `lanes = 1`.
#[derive(Debug, Clone, PartialEq)]
pub struct VtepSetting {
    /// A bare key.
    pub key: String,
    /// Its value.
    pub value: toml::Value,
}

impl FromStr for VtepSetting {
    type Err = String;

    /// Reads `KEY=VALUE`. A value that is no TOML is a string: `bind=local` needs no quotes.
    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text
            .split_once('=')
            .ok_or("accepted: KEY=VALUE, as in lanes=1")?;
        let (key, value) = (key.trim(), value.trim());
        let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if key.is_empty() || !key.chars().all(is_bare) {
            return Err(format!("`{key}` is no key of [vtep]"));
        }
        let as_text = || toml::Value::String(value.to_owned());
        Ok(Self {
            key: key.to_owned(),
            value: value.parse().unwrap_or_else(|_| as_text()),
        })
    }
}

impl fmt::Display for VtepSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.key, self.value)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Command, CommandLine};

    fn parse(options: &str) -> Result<BenchArgs, clap::Error> {
        let words = "silk-vtep bench ".to_owned() + options;
        let line = CommandLine::try_parse_from(words.split_whitespace())?;
        match line.command {
            Command::Bench(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    fn shown(setting: &str) -> String {
        setting
            .parse::<VtepSetting>()
            .expect("a setting")
            .to_string()
    }

    #[test]
    fn a_setting_is_toml_and_what_is_not_is_a_string() {
        assert_eq!(shown("lanes=1"), "lanes = 1");
        assert_eq!(shown("gbp = false"), "gbp = false");
        assert_eq!(shown("srcport=[1000, 2000]"), "srcport = [1000, 2000]");
        assert_eq!(shown("bind=local"), "bind = \"local\"");
        assert_eq!(shown("bind=\"local\""), "bind = \"local\"");
        assert_eq!(shown("a=b=c"), "a = \"b=c\"");
    }

    #[test]
    fn a_setting_is_one_key_and_no_more() {
        let text = shown("a=1\nb = 2");
        let table: toml::Table = text.parse().expect("TOML");
        assert_eq!(table.len(), 1, "{text}");
        assert_eq!(table["a"].as_str(), Some("1\nb = 2"));
    }

    #[test]
    fn a_key_is_a_bare_key() {
        for wrong in ["lanes", "=1", "[peer]=1", "a.b=1", "a b=1", "\"a\"=1"] {
            assert!(wrong.parse::<VtepSetting>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_narrows_a_run_may_be_given_again_and_only_from_the_list() {
        let args = parse("--only tcp --only rtt --wire mtu --set lanes=1 --set gbp=false")
            .expect("accepted");
        assert_eq!(args.only, [BenchSubject::Tcp, BenchSubject::Rtt]);
        assert_eq!(args.wire, Some(BenchWire::Mtu));
        assert_eq!(args.set.len(), 2);
        for wrong in [
            "--only quic",
            "--wire jumbo",
            "--against vpp",
            "--set lanes",
            "--rounds 0",
        ] {
            let error = parse(wrong).expect_err(wrong);
            assert_eq!(error.exit_code(), 2, "{wrong}");
        }
    }
}

//! The configuration file: what is accepted, and what is said about the rest.

mod accepted;
mod any_text;
mod policy;
mod relations;
mod tables;
mod values;

use silk_vtep::control::config::Config;
use silk_vtep::wire::MacAddr;

/// The example of the design, every key written out.
const EXAMPLE: &str = r#"
[vtep]
name = "silk-vtep"
vni = 1
port = 4789
local = "10.0.32.12"
address = "10.255.108.0"
overlay = ["10.255.0.0/16"]
subnet_prefix_length = 24
mtu = 1410
gbp = true
lanes = 0
strict_source = true
marks = "auto"
udp_checksum = true
ttl = 64
[[peer]]
subnet = "10.255.43.0/24"
underlay = "10.0.16.14"
[[group]]
address = "10.255.108.184"
id = 0x0003
"#;

/// The least there is, four lines; the tests put more behind it.
const LEAST: &str = r#"[vtep]
local = "10.0.32.12"
address = "10.255.108.0"
overlay = "10.255.0.0/16"
"#;

fn parse(text: &str) -> Config {
    Config::parse(text).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

/// The lines of the errors; none if the text is accepted.
fn errors(text: &str) -> Vec<String> {
    match Config::parse(text) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.to_string().lines().map(str::to_owned).collect(),
    }
}

/// Compares the errors of each text with what follows it.
fn check(cases: &[(&str, &[&str])]) {
    for (text, expected) in cases {
        assert_eq!(errors(text), *expected, "{text}");
    }
}

/// As [`check`], each text from line 5 behind [`LEAST`].
fn check_after_least(cases: &[(&str, &[&str])]) {
    for (text, expected) in cases {
        assert_eq!(errors(&format!("{LEAST}{text}")), *expected, "{text}");
    }
}

/// As [`check`], each text the value of a key of `[vtep]`, on line 5; an error is `expected`, then `accepted`.
fn check_key(key: &str, accepted: &str, cases: &[(&str, &str)]) {
    for (value, wrong) in cases {
        let text = format!("{LEAST}{key} = {value}");
        let expected = format!("line 5: vtep.{key}: {wrong}; accepted: {accepted}");
        assert_eq!(errors(&text), [expected], "{text}");
    }
}

fn mac(text: &str) -> MacAddr {
    text.parse().expect("a MAC in a test")
}

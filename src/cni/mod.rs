//! The CNI plugin: containers of a runtime, attached to this cell's VTEP as Silk's own plugin attaches them.
//!
//! The binary runs it when it is called `silk-vtep-cni`, or as `silk-vtep cni`. A runtime gives the command and the container in the
//! environment (`CNI_COMMAND`, `CNI_CONTAINERID`, ...) and the network's configuration on standard input; it gets a result, or an error
//! object, on standard output, which carries nothing else. The specification is CNI 1.1; configurations from 0.3.0 on get results of
//! their own version.
//!
//! ```text
//! ADD   daemon: subnet, MTU -> ipam: an address -> netlink::container: the links -> container store -> daemon: whose it is -> result
//! DEL   links, daemon, store, reservation, by what is on disk and what links say of themselves: needs neither daemon nor namespace nor link
//! CHECK netlink::container::check, reservation, store, daemon
//! GC    DEL of everything that is on disk, or says so itself, and is not in the runtime's list
//! ```
//!
//! Who a container is says its network, its id and the name of its link in it. Its address follows from the reservation on disk, which is
//! there before anything else and goes last; the link says whose it is, too. A step that fails takes back all before it; a plugin that is
//! killed leaves what the reservation finds, for DEL.

mod add;
mod attachment;
mod check;
mod claim;
mod config;
mod daemon;
mod del;
mod environment;
mod error;
mod gc;
mod ipam;
mod prev_result;
mod result;
mod status;
mod version;

use std::io::{self, Read, Write};

pub use claim::BY_HAND;
use config::Config;
use environment::{Command, Environment};
pub use error::CniError;
use version::Version;

/// What the binary is called where runtimes look for plugins.
pub const PROGRAM: &str = "silk-vtep-cni";
/// A configuration with results of a hundred plugins in it has not as many bytes.
const CONFIG_BYTES_MAX: u64 = 16 << 20;

/// It failed, and standard output says how.
#[derive(Debug)]
pub struct Told;

/// Does what the environment and standard input say.
///
/// Standard output gets the result or the error object, standard error what a person might want to know beside it.
///
/// # Errors
/// Told on standard output already.
pub fn run() -> Result<(), Told> {
    let environment = Environment::of(|name| std::env::var_os(name));
    let (stdin, stdout) = (&mut io::stdin().lock(), &mut io::stdout().lock());
    answer(&environment, stdin, stdout).map_err(|(error, version)| {
        // A runtime that closed its end knows that something is wrong.
        drop(error.write(version, stdout));
        Told
    })
}

/// The error, and the version of the specification to tell it in.
fn answer(
    environment: &Environment,
    stdin: &mut dyn Read,
    stdout: &mut dyn Write,
) -> Result<(), (CniError, Version)> {
    let newest = |error| (error, Version::NEWEST);
    let command = environment.command().map_err(newest)?;
    if command == Command::Version {
        return version::write(stdin, stdout).map_err(newest);
    }
    environment.check_present(command).map_err(newest)?;
    let config = Config::read(&read(stdin).map_err(newest)?, command)?;
    let version = config.version;
    dispatch(command, environment, &config, stdout).map_err(|error| (error, version))
}

fn read(stdin: &mut dyn Read) -> Result<Vec<u8>, CniError> {
    let mut bytes = Vec::new();
    match stdin.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes) {
        Ok(_) if bytes.len() as u64 > CONFIG_BYTES_MAX => {
            let details = format!("more than {CONFIG_BYTES_MAX} bytes");
            Err(CniError::decoding("network configuration").because(details))
        }
        Ok(_) => Ok(bytes),
        Err(error) => Err(CniError::io("read standard input").because(crate::error::errno(&error))),
    }
}

fn dispatch(
    command: Command,
    environment: &Environment,
    config: &Config,
    stdout: &mut dyn Write,
) -> Result<(), CniError> {
    environment.check_words(command)?;
    config.version.check_has(command)?;
    match command {
        Command::Add => add::run(environment, config, stdout),
        Command::Del => del::run(environment, config),
        Command::Check => check::run(environment, config),
        Command::Status => status::run(config),
        Command::Gc => gc::run(config),
        // It has no configuration, and was done before.
        Command::Version => Ok(()),
    }
}

/// What went wrong beside the result, on standard error: the runtime logs it.
fn note(what: impl std::fmt::Display) {
    drop(writeln!(io::stderr(), "{PROGRAM}: {what}"));
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use serde_json::{Value, json};

    use super::*;

    /// What the plugin says to `variables` and `stdin`.
    fn said(variables: &[(&str, &str)], stdin: &str) -> Value {
        let environment = Environment::of(|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| OsString::from(value))
        });
        let mut out = Vec::new();
        if let Err((error, version)) = answer(&environment, &mut stdin.as_bytes(), &mut out) {
            out.clear();
            error.write(version, &mut out).expect("a Vec takes all");
        }
        serde_json::from_slice(&out).unwrap_or_default()
    }

    fn add(stdin: &str) -> Value {
        let variables = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_NETNS", "/nonexistent/netns"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/nonexistent"),
        ];
        said(&variables, stdin)
    }

    #[test]
    fn what_cannot_be_understood_gets_the_specified_code() {
        for (stdin, code) in [
            ("", 6),
            ("{", 6),
            ("[]", 6),
            ("null", 6),
            (r#"{"cniVersion":"1.0.0","name":7}"#, 6),
            (r#"{"cniVersion":1,"name":"silk"}"#, 6),
            (r#"{"cniVersion":"1.0.0"}"#, 7),
            (r#"{"cniVersion":"1.0.0","name":""}"#, 7),
            (r#"{"cniVersion":"1.0.0","name":"a/b"}"#, 7),
            (r#"{"cniVersion":"0.2.0","name":"silk"}"#, 1),
            (r#"{"cniVersion":"2.0.0","name":"silk"}"#, 1),
            (r#"{"cniVersion":"latest","name":"silk"}"#, 1),
            (r#"{"name":"silk"}"#, 1),
            (r#"{"cniVersion":"1.0.0","name":"silk","mtu":"big"}"#, 7),
            (r#"{"cniVersion":"1.0.0","name":"silk","mtu":67}"#, 7),
            (
                r#"{"cniVersion":"1.0.0","name":"silk","daemonPort":70000}"#,
                7,
            ),
            (
                r#"{"cniVersion":"1.0.0","name":"silk","subnet":"10.255.1.0"}"#,
                7,
            ),
            (
                r#"{"cniVersion":"1.0.0","name":"silk","subnet":"fd00::/64"}"#,
                7,
            ),
            (r#"{"cniVersion":"1.0.0","name":"silk","dataDir":3}"#, 7),
            // Well-formed, and the namespace is not there.
            (r#"{"cniVersion":"1.0.0","name":"silk"}"#, 4),
        ] {
            let said = add(stdin);
            assert_eq!(said["code"], code, "{stdin}: {said}");
            assert!(said["msg"].as_str().is_some_and(|msg| !msg.is_empty()));
            assert!(said["cniVersion"].is_string());
        }
    }

    #[test]
    fn an_error_is_told_in_the_configurations_version() {
        for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            let said = add(&json!({ "cniVersion": version, "name": "silk" }).to_string());
            assert_eq!(said["cniVersion"], version);
        }
        let said = add(r#"{"cniVersion":"0.1.0","name":"silk"}"#);
        assert_eq!(said["cniVersion"], "1.1.0");
    }

    #[test]
    fn a_configuration_without_a_version_is_told_what_that_means() {
        for config in [
            json!({ "name": "silk" }),
            json!({ "name": "silk", "cniVersion": "" }),
            json!({ "name": "silk", "cniVersion": null }),
        ] {
            let said = add(&config.to_string());
            let details = said["details"].as_str().unwrap_or_default();
            assert_eq!(said["code"], 1, "{said}");
            for part in ["no `cniVersion`", "0.1.0", "1.1.0 (give"] {
                assert!(details.contains(part), "{config}: {said}");
            }
        }
        let said = add(r#"{"cniVersion":"0.1.0","name":"silk"}"#);
        let details = said["details"].as_str().unwrap_or_default();
        assert!(details.starts_with("config is `0.1.0`, plugin supports"));
    }

    #[test]
    fn variables_are_checked() {
        let config = r#"{"cniVersion":"1.1.0","name":"silk"}"#;
        for variables in [
            vec![],
            vec![("CNI_COMMAND", "JUMP")],
            vec![("CNI_COMMAND", "ADD")],
            vec![("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c1")],
            vec![
                ("CNI_COMMAND", "DEL"),
                ("CNI_CONTAINERID", "-x"),
                ("CNI_IFNAME", "eth0"),
            ],
            vec![
                ("CNI_COMMAND", "DEL"),
                ("CNI_CONTAINERID", "c1"),
                ("CNI_IFNAME", "sixteen-bytes-xx"),
            ],
            vec![
                ("CNI_COMMAND", "ADD"),
                ("CNI_CONTAINERID", "c1"),
                ("CNI_IFNAME", "eth0"),
            ],
        ] {
            let said = said(&variables, config);
            assert_eq!(said["code"], 4, "{variables:?}: {said}");
            let text = format!("{}{}", said["msg"], said["details"]);
            assert!(text.contains("CNI_"), "{text}");
        }
    }

    #[test]
    fn commands_are_those_of_the_configurations_version() {
        let with = |command: &str, version: &str| {
            let variables = [
                ("CNI_COMMAND", command),
                ("CNI_CONTAINERID", "c1"),
                ("CNI_NETNS", "/nonexistent/netns"),
                ("CNI_IFNAME", "eth0"),
            ];
            let config = json!({ "cniVersion": version, "name": "silk" });
            said(&variables, &config.to_string())["code"].clone()
        };
        for (command, too_old) in [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0")] {
            assert_eq!(with(command, too_old), 1, "{command}");
            assert_ne!(with(command, "1.1.0"), 1, "{command}");
        }
    }

    #[test]
    fn version_tells_all_and_needs_nothing() {
        let supported = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
        for (stdin, version) in [
            ("", "1.1.0"),
            (r#"{"cniVersion":"0.4.0"}"#, "0.4.0"),
            (r#"{"cniVersion":"9.9.9"}"#, "1.1.0"),
        ] {
            let said = said(&[("CNI_COMMAND", "VERSION")], stdin);
            assert_eq!(said["cniVersion"], version);
            assert_eq!(said["supportedVersions"], json!(supported));
        }
    }
}

//! `silk-vtep doctor`: what this host can and cannot do for a daemon, and the mend.
//!
//! Each probe tries the thing itself, with the daemon's own code, and leaves nothing behind: what has to be made for that is made in
//! a network namespace without a name, or goes with its descriptor. A daemon that runs is asked where its marks come from, and not
//! disturbed.

mod check;
mod device;
mod express;
mod host;
mod rights;
mod site;

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::CliError;
use super::args::Global;
use super::words::UsageError;
use crate::control::client::Client;
use crate::control::protocol::Request;
use crate::control::rows::LinkRow;
use crate::control::{Config, default_socket_path};
use crate::daemon::read_config;
use crate::netlink::Namespace;
use check::Check;

/// A daemon of nothing but defaults; the addresses are required, and are not looked at here.
const DEFAULTS: &str = "[vtep]
local = \"127.0.0.1\"
address = \"10.255.0.0\"
overlay = \"10.255.0.0/16\"
";

/// Looks at everything that the daemon of the configuration file `config` needs, or one of defaults, and prints it to `out`, one line
/// each, or with `--json` a list of `{name, state, detail, mend}`.
///
/// # Errors
/// Wrong usage; the configuration is not usable; a daemon cannot run here, or `out` is closed.
pub fn run(config: Option<&Path>, global: &Global, out: &mut dyn Write) -> Result<(), CliError> {
    let subject = Subject::new(config, global)?;
    let checks = examine(&subject);
    if global.json {
        let json = serde_json::to_string_pretty(&checks).map_err(std::io::Error::other)?;
        writeln!(out, "{json}")?;
        return verdict(&checks);
    }
    for check in &checks {
        writeln!(out, "{check}")?;
    }
    verdict(&checks)?;
    Ok(writeln!(out, "a daemon can run here")?)
}

/// The daemon that is to run.
struct Subject {
    config: Config,
    /// As many as CPUs.
    default_lanes: NonZeroUsize,
    /// Its device.
    name: String,
    socket: PathBuf,
}

impl Subject {
    fn new(path: Option<&Path>, global: &Global) -> Result<Self, CliError> {
        let defaults = Config::parse(DEFAULTS)
            .map_err(|errors| CliError::Failed(format!("the defaults are refused: {errors}")))?;
        let default_lanes = defaults.vtep.lanes;
        let Some(path) = path else {
            return Ok(Self {
                config: defaults,
                default_lanes,
                name: global.name().to_owned(),
                socket: global.socket_path(),
            });
        };
        if global.name.is_some() {
            return Err(CliError::Usage(UsageError {
                wrong: "doctor: the device's name is `name` in the configuration, not `--name`"
                    .to_owned(),
                usage: "usage: silk-vtep doctor [--config FILE] [--socket PATH] [--json]",
            }));
        }
        let mut config = read_config(path, &|_| None)?;
        // What the host can is asked, whatever the file does without.
        config.vtep.offload = defaults.vtep.offload;
        let name = config.vtep.name.clone();
        let socket = global.socket.clone();
        Ok(Self {
            config,
            default_lanes,
            socket: socket.unwrap_or_else(|| default_socket_path(&name)),
            name,
        })
    }
}

/// In the order in which one thing stands on another.
fn examine(subject: &Subject) -> Vec<Check> {
    let vtep = &subject.config.vtep;
    let scratch = Namespace::unnamed();
    let mut checks = vec![
        rights::net_admin(),
        rights::sys_admin(),
        rights::namespaces(&scratch),
        rights::open_files(vtep.lanes),
        device::tun(),
    ];
    let running = running(&subject.socket);
    let running = running.as_ref().map(|link| &link.silk_vtep);
    checks.extend(device::tap(vtep, scratch.ok().as_ref(), running));
    checks.extend(express::asked(&subject.config, running));
    checks.extend([
        device::udp_gso(),
        device::udp_gro(),
        host::socket_buffers(),
        host::cpus(subject.default_lanes),
        host::ip_forward(),
        site::name(&subject.name),
        site::udp_port(vtep.port),
        site::control_socket(&subject.socket),
        host::kernel_vxlan(),
    ]);
    checks
}

/// The device of the daemon that listens at `socket`, if one does and we may ask.
fn running(socket: &Path) -> Option<LinkRow> {
    let mut client = Client::connect_for(socket, PATIENCE).ok()?;
    client.call(&Request::Link).ok()
}

/// How long a daemon may take to answer: a sick host's may be stopped.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether a daemon can run.
fn verdict(checks: &[Check]) -> Result<(), CliError> {
    let hindrances: Vec<_> = checks.iter().filter_map(Check::hindrance).collect();
    if hindrances.is_empty() {
        return Ok(());
    }
    Err(CliError::Failed(format!(
        "cannot run here: see {}",
        hindrances.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_names_every_hindrance() {
        let checks = [
            Check::ok("cpus", "").needed(),
            Check::missing("cap-net-admin", "").needed(),
            Check::off("uso", ""),
            Check::unknown("tap", "").needed(),
        ];
        let error = verdict(&checks).expect_err("two hinder");
        assert_eq!(error.to_string(), "cannot run here: see cap-net-admin, tap");
        assert!(verdict(&checks[..1]).is_ok());
    }

    fn global(name: Option<&str>, socket: Option<&str>) -> Global {
        Global {
            socket: socket.map(PathBuf::from),
            name: name.map(str::to_owned),
            json: true,
        }
    }

    #[test]
    fn a_configuration_says_whose_device_and_socket_are_looked_at() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let text = DEFAULTS.to_owned() + "name = \"vtep7\"\nlanes = 3\noffload.tso = false\n";
        std::fs::write(file.path(), text).expect("written");
        let subject = |name, socket| Subject::new(Some(file.path()), &global(name, socket));
        let asked = subject(None, None).expect("accepted");
        assert_eq!(asked.name, "vtep7");
        assert_eq!(asked.socket, default_socket_path("vtep7"));
        assert_eq!(asked.config.vtep.lanes.get(), 3);
        assert!(asked.config.vtep.offload.tso, "the host's, not the file's");
        let asked = subject(None, Some("/tmp/x")).expect("accepted");
        assert_eq!(asked.socket, Path::new("/tmp/x"));
        let refused = subject(Some("vtep8"), None);
        assert!(matches!(refused, Err(CliError::Usage(_))));
        std::fs::write(file.path(), "[vtep]\nexpres = true\n").expect("written");
        let refused = subject(None, None).err().expect("refused");
        let refused = refused.to_string();
        assert!(refused.contains("did you mean `express`"), "{refused}");
    }

    #[test]
    fn whoever_asks_gets_every_line_once() {
        let global = global(None, None);
        let mut out = Vec::new();
        // Whether a daemon could run depends on who runs the tests.
        let _ = run(None, &global, &mut out);
        let checks: Vec<serde_json::Value> = serde_json::from_slice(&out).expect("a list");
        let mut names: Vec<_> = checks.iter().map(|check| check["name"].as_str()).collect();
        assert_eq!(names.len(), 19);
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 19);
    }
}

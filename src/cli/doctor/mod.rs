//! `silk-vtep doctor`: what this host can and cannot do for a daemon, and the mend.
//!
//! Each probe tries the thing itself, with the daemon's own code, and leaves nothing behind: what has to be made for that is made in
//! a network namespace without a name, or goes with its descriptor. A daemon that runs is asked where its marks come from, and not
//! disturbed.

mod check;
mod device;
mod host;
mod rights;
mod site;

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use super::CliError;
use super::args::Global;
use crate::control::Config;
use crate::control::client::Client;
use crate::control::config::VtepConfig;
use crate::control::protocol::Request;
use crate::control::rows::LinkRow;
use crate::netlink::Namespace;
use check::Check;

/// A daemon of nothing but defaults; the addresses are required, and are not looked at here.
const DEFAULTS: &str = "[vtep]
local = \"127.0.0.1\"
address = \"10.255.0.0\"
overlay = \"10.255.0.0/16\"
";

/// Looks at everything and prints it to `out`, one line each, or with `--json` a list of `{name, state, detail, mend}`.
///
/// # Errors
/// A daemon cannot run here, or `out` is closed.
pub fn run(global: &Global, out: &mut dyn Write) -> Result<(), CliError> {
    let vtep = Config::parse(DEFAULTS)
        .map_err(|errors| CliError::Failed(format!("the defaults are refused: {errors}")))?
        .vtep;
    let checks = examine(&vtep, global);
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

/// In the order in which one thing stands on another.
fn examine(vtep: &VtepConfig, global: &Global) -> Vec<Check> {
    let scratch = Namespace::unnamed();
    let mut checks = vec![
        rights::net_admin(),
        rights::sys_admin(),
        rights::namespaces(&scratch),
        rights::open_files(vtep.lanes),
        device::tun(),
    ];
    let running = running(&global.socket_path());
    let running = running.as_ref().map(|link| &link.silk_vtep);
    checks.extend(device::tap(vtep, scratch.ok().as_ref(), running));
    checks.extend([
        device::udp_gso(),
        device::udp_gro(),
        host::socket_buffers(),
        host::cpus(vtep.lanes),
        host::ip_forward(),
        site::name(global.name()),
        site::udp_port(vtep.port),
        site::control_socket(&global.socket_path()),
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

    #[test]
    fn whoever_asks_gets_every_line_once() {
        let global = Global {
            socket: None,
            name: None,
            json: true,
        };
        let mut out = Vec::new();
        // Whether a daemon could run depends on who runs the tests.
        let _ = run(&global, &mut out);
        let checks: Vec<serde_json::Value> = serde_json::from_slice(&out).expect("a list");
        let mut names: Vec<_> = checks.iter().map(|check| check["name"].as_str()).collect();
        assert_eq!(names.len(), 19);
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 19);
    }
}

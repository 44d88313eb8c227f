//! The `host-local` plugin of CNI's own collection, called as Silk's plugin calls it.

use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{Pool, STEP};
use crate::cni::config::Config;
use crate::cni::error::CniError;
use crate::cni::version::Version;
use crate::error::errno;

/// Its file name.
const PROGRAM: &str = "host-local";

/// Where it is.
#[derive(Debug)]
pub(super) struct HostLocal {
    program: PathBuf,
}

impl HostLocal {
    /// The first in the directories of CNI_PATH.
    pub(super) fn find(path: &[PathBuf]) -> Option<Self> {
        let is_program = |program: &PathBuf| {
            let metadata = program.metadata();
            metadata.is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
        };
        // An empty entry would be the working directory.
        let path = path.iter().filter(|directory| directory.is_absolute());
        let program = path
            .map(|directory| directory.join(PROGRAM))
            .find(is_program)?;
        Some(Self { program })
    }

    /// Has it reserve an address; `release` takes it back where its answer is of no use, or it was killed. One that says why it failed has
    /// taken back itself what it did.
    pub(super) fn add(
        &self,
        config: &Config,
        pool: &Pool,
        release: impl FnOnce() -> Result<(), CniError>,
    ) -> Result<Ipv4Addr, CniError> {
        let output = self.call("ADD", config, pool)?;
        let refused = !output.status.success() && error_of(&output.stdout).is_some();
        let address = self
            .answer(output)
            .and_then(|answer| address_of(&answer).map_err(|error| CniError::step(STEP, error)));
        address.map_err(|error| match refused {
            true => error,
            false => error.and_undone(release()),
        })
    }

    /// Has it release what it reserved.
    pub(super) fn del(&self, config: &Config, pool: &Pool) -> Result<(), CniError> {
        let output = self.call("DEL", config, pool)?;
        self.answer(output).map(drop)
    }

    /// Has it look for what it reserved.
    pub(super) fn check(&self, config: &Config, pool: &Pool) -> Result<(), CniError> {
        let output = self.call("CHECK", config, pool)?;
        self.answer(output).map(drop)
    }

    /// Runs it in our own environment, which has everything but the command.
    fn call(&self, command: &str, config: &Config, pool: &Pool) -> Result<Output, CniError> {
        let failed = |error: std::io::Error| {
            let program = self.program.display();
            CniError::step(STEP, format_args!("{program}: {}", errno(&error)))
        };
        let mut child = Command::new(&self.program)
            .env("CNI_COMMAND", command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        // One that ends without reading says more than our broken pipe.
        let written = child.stdin.take();
        let written = written.map(|mut stdin| stdin.write_all(&configuration(config, pool)));
        drop(written);
        child.wait_with_output().map_err(failed)
    }

    fn answer(&self, output: Output) -> Result<Vec<u8>, CniError> {
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said = error_of(&output.stdout);
        let said = said.unwrap_or_else(|| format!("{}: {}", self.program.display(), output.status));
        Err(CniError::step(STEP, said))
    }
}

/// What Silk gives it, in the newest version that its releases of ten years share with the runtime.
fn configuration(config: &Config, pool: &Pool) -> Vec<u8> {
    let configuration = json!({
        "cniVersion": config.version.min(Version::V1_0_0).name(),
        "name": config.name,
        "args": { "cni": { "ips": config.ips } },
        "ipam": {
            "type": PROGRAM,
            "ranges": [[{ "subnet": pool.subnet() }]],
            "routes": [],
            "dataDir": config.ipam_dir(),
        },
    });
    configuration.to_string().into_bytes()
}

fn address_of(answer: &[u8]) -> Result<Ipv4Addr, String> {
    let answer: Value = serde_json::from_slice(answer)
        .map_err(|error| format!("{PROGRAM}'s result cannot be read: {error}"))?;
    let address = answer["ips"][0]["address"].as_str().unwrap_or_default();
    match address.parse() {
        Ok(IpNet::V4(net)) => Ok(net.addr()),
        _ => Err(format!("{PROGRAM}'s result has no IPv4 address: {answer}")),
    }
}

/// `msg` and `details` of an error object.
fn error_of(answer: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let msg = answer["msg"].as_str()?;
    Some(match answer["details"].as_str() {
        None | Some("") => msg.to_owned(),
        Some(details) => format!("{msg}: {details}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_either_shape_have_an_address() {
        let expected = Ok(Ipv4Addr::new(10, 255, 1, 2));
        for result in [
            r#"{"cniVersion":"1.0.0","ips":[{"address":"10.255.1.2/24","gateway":"10.255.1.1"}],"dns":{}}"#,
            r#"{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.255.1.2/24"}]}"#,
        ] {
            assert_eq!(address_of(result.as_bytes()), expected);
        }
        for result in [
            "",
            "{}",
            r#"{"ips":[{"address":"fd00::2/64"}]}"#,
            r#"{"ips":[]}"#,
        ] {
            assert!(address_of(result.as_bytes()).is_err(), "{result}");
        }
    }

    #[test]
    fn a_relative_path_is_not_searched() {
        assert!(HostLocal::find(&[PathBuf::new(), PathBuf::from(".")]).is_none());
    }
}

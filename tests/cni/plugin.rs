//! The plugin of one cell, as a runtime has it: a program in CNI_PATH, a configuration, and directories of its own.

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::sandbox::{Sandbox, link_names};
use crate::support::{Lab, Namespace, Result, Snapshot, ensure};

/// Where Debian has the plugins of CNI's own collection.
pub(crate) const PLUGINS: &str = "/usr/lib/cni";

/// One cell's.
pub(crate) struct Plugin {
    host: Arc<Namespace>,
    directory: TempDir,
    socket: PathBuf,
    /// The network's configuration.
    pub(crate) config: Value,
    /// CNI_PATH.
    pub(crate) path: String,
    /// CNI_ARGS.
    pub(crate) args: String,
    /// More of the environment.
    pub(crate) variables: Vec<(&'static str, String)>,
}

/// What it said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Standard output, if that is JSON.
    pub(crate) json: Value,
}

impl Plugin {
    /// The directories of [`with_collection`](Self::with_collection), and ours alone: with host-local and without.
    pub(crate) fn paths(&self) -> (String, String) {
        let ours = self.path.split(':').next().unwrap_or_default();
        (self.path.clone(), ours.to_owned())
    }

    /// For the cell `index` of a cold lab, whose daemon is started here. It does not find `host-local`.
    pub(crate) fn new(lab: &mut Lab, index: usize) -> Result<Self> {
        let cell = &mut lab.cells[index];
        let host = Arc::clone(&cell.host);
        cell.daemon()?.start()?;
        // What the first container switches on stays on, for the others.
        host.run(|| Ok(fs::write("/proc/sys/net/ipv4/ip_forward", "1")?))?;
        let directory = TempDir::new()?;
        let bin = directory.path().join("bin");
        fs::create_dir(&bin)?;
        symlink(env!("CARGO_BIN_EXE_silk-vtep"), bin.join("silk-vtep-cni"))?;
        let socket = cell.daemon()?.socket();
        let config = json!({
            "cniVersion": "1.0.0", "name": "silk", "type": "silk-vtep-cni",
            "socket": socket, "dataDir": directory.path().join("data"), "datastore": directory.path().join("data/store.json"),
        });
        Ok(Self {
            host,
            socket,
            config,
            path: bin.display().to_string(),
            args: String::new(),
            variables: Vec::new(),
            directory,
        })
    }

    /// The same, with Debian's plugins in CNI_PATH.
    pub(crate) fn with_collection(lab: &mut Lab, index: usize) -> Result<Self> {
        let mut plugin = Self::new(lab, index)?;
        plugin.path = format!("{}:{PLUGINS}", plugin.path);
        Ok(plugin)
    }

    /// Sets a key of the configuration.
    pub(crate) fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.config[key] = value.into();
    }

    /// Runs `command` for `sandbox`.
    pub(crate) fn call(&self, command: &str, sandbox: &Sandbox) -> Result<Answer> {
        self.call_with(command, sandbox, &self.config.to_string())
    }

    /// The same, with `prevResult` as a runtime adds it.
    pub(crate) fn call_after(
        &self,
        command: &str,
        sandbox: &Sandbox,
        previous: &Value,
    ) -> Result<Answer> {
        let mut config = self.config.clone();
        config["prevResult"] = previous.clone();
        self.call_with(command, sandbox, &config.to_string())
    }

    /// The same, with anything on standard input.
    pub(crate) fn call_with(
        &self,
        command: &str,
        sandbox: &Sandbox,
        stdin: &str,
    ) -> Result<Answer> {
        let variables = [
            ("CNI_CONTAINERID", sandbox.id.as_str()),
            ("CNI_NETNS", &sandbox.netns),
            ("CNI_IFNAME", &sandbox.ifname),
        ];
        self.run(&self.program("silk-vtep-cni"), command, &variables, stdin)
    }

    /// Runs a command that is about no container.
    pub(crate) fn call_network(&self, command: &str) -> Result<Answer> {
        let config = self.config.to_string();
        self.run(&self.program("silk-vtep-cni"), command, &[], &config)
    }

    /// Runs any plugin of CNI_PATH.
    pub(crate) fn run(
        &self,
        program: &Path,
        command: &str,
        variables: &[(&str, &str)],
        stdin: &str,
    ) -> Result<Answer> {
        let mut process = self.host.command("env");
        // Set behind `ip netns exec`, which is not to have them.
        process.args(
            self.variables
                .iter()
                .map(|(name, value)| format!("{name}={value}")),
        );
        process.arg(program);
        process
            .env("CNI_COMMAND", command)
            .env("CNI_PATH", &self.path);
        process.envs(variables.iter().copied());
        if !self.args.is_empty() {
            process.env("CNI_ARGS", &self.args);
        }
        answer_of(process, stdin)
    }

    /// ADD, which must succeed.
    pub(crate) fn add(&self, sandbox: &Sandbox) -> Result<Value> {
        let answer = self.call("ADD", sandbox)?;
        ensure!(answer.status.success(), "ADD: {answer:?}");
        Ok(answer.json)
    }

    /// DEL, which must succeed and say nothing.
    pub(crate) fn del(&self, sandbox: &Sandbox) -> Result {
        self.call("DEL", sandbox)?.silent("DEL")
    }

    /// A program of CNI_PATH.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        let mut paths = std::env::split_paths(&self.path).map(|path| path.join(name));
        paths.find(|path| path.exists()).unwrap_or_default()
    }

    /// The names of what is reserved in the network `silk`, sorted; the lock and the last one aside.
    pub(crate) fn reserved(&self) -> Result<Vec<String>> {
        let directory = self.ipam_dir();
        if !directory.exists() {
            return Ok(Vec::new());
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.parse::<Ipv4Addr>().is_ok() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Where the network's reservations are.
    pub(crate) fn ipam_dir(&self) -> PathBuf {
        let data_dir = self.config["dataDir"].as_str().unwrap_or_default();
        let name = self.config["name"].as_str().unwrap_or_default();
        Path::new(data_dir).join("ipam").join(name)
    }

    /// The datastore.
    pub(crate) fn store(&self) -> PathBuf {
        self.config["datastore"].as_str().unwrap_or_default().into()
    }

    /// What the datastore holds; an empty object if there is none.
    pub(crate) fn stored(&self) -> Result<Value> {
        match fs::read(self.store()) {
            // As whoever was killed before it wrote anything leaves it.
            Ok(bytes) if bytes.is_empty() => Ok(json!({})),
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(_) => Ok(json!({})),
        }
    }

    /// The directory that everything of this plugin is in.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The daemon's socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Fails unless nothing of any container is anywhere: `before` is the host before the first.
    pub(crate) fn left_nothing(&self, before: &Snapshot, sandboxes: &[&Sandbox]) -> Result {
        before.same_as(&Snapshot::of(&self.host)?)?;
        self.left_no_trace(sandboxes)
    }

    /// The same but for the whole of the host, which takes longer to look at.
    pub(crate) fn left_no_trace(&self, sandboxes: &[&Sandbox]) -> Result {
        let reserved = self.reserved()?;
        ensure!(reserved.is_empty(), "reserved: {reserved:?}");
        let stored = self.stored()?;
        ensure!(stored == json!({}), "stored: {stored}");
        let links = link_names(&self.host)?;
        let ours = links.iter().find(|name| name.starts_with("s-"));
        ensure!(ours.is_none(), "on the host: {links:?}");
        for sandbox in sandboxes {
            let links = sandbox.links()?;
            ensure!(links == ["lo"], "in {}: {links:?}", sandbox.id);
        }
        Ok(())
    }
}

/// Runs a plugin to its end.
pub(crate) fn answer_of(mut process: Command, stdin: &str) -> Result<Answer> {
    let mut child = process
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // One that ends without reading says why.
    drop(
        child
            .stdin
            .take()
            .map(|mut pipe| pipe.write_all(stdin.as_bytes())),
    );
    let output = child.wait_with_output()?;
    let stdout = String::from_utf8(output.stdout)?;
    Ok(Answer {
        status: output.status,
        json: serde_json::from_str(&stdout).unwrap_or_default(),
        stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

impl Answer {
    /// Fails unless it succeeded without a word.
    pub(crate) fn silent(&self, what: &str) -> Result {
        let good = self.status.success() && self.stdout.is_empty();
        ensure!(good, "{what}: {self:?}");
        Ok(())
    }

    /// Fails unless it is an error object with this code, whose texts have `said` in them.
    pub(crate) fn refused(&self, code: u64, said: &str) -> Result {
        ensure!(!self.status.success(), "it succeeded: {self:?}");
        let object = self
            .json
            .as_object()
            .ok_or_else(|| format!("no object: {self:?}"))?;
        for key in object.keys() {
            let known = ["cniVersion", "code", "msg", "details"].contains(&key.as_str());
            ensure!(known, "key {key}: {self:?}");
        }
        ensure!(self.json["code"] == code, "not code {code}: {self:?}");
        let text = format!("{}: {}", self.text("msg"), self.text("details"));
        ensure!(text.contains(said), "no `{said}` in `{text}`");
        ensure!(!self.text("msg").is_empty(), "no msg: {self:?}");
        Ok(())
    }

    /// A text of the object.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.json[key].as_str().unwrap_or_default()
    }
}

/// The address in a result.
pub(crate) fn address_of(result: &Value) -> Result<Ipv4Addr> {
    let text = result["ips"][0]["address"].as_str().unwrap_or_default();
    let address = text
        .strip_suffix("/32")
        .ok_or_else(|| format!("address {text}"))?;
    Ok(address.parse()?)
}

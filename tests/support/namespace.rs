//! A network namespace of a random name.

use std::fmt;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{ErrorKind, Write};
use std::net::{Ipv6Addr, UdpSocket};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Error, Result, Wait, ensure, wait_until};

/// Removed on drop, after the processes that still run in it.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// A new namespace with its loopback up.
    pub(crate) fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let random = RandomState::new().hash_one(std::process::id());
        let name = format!(
            "sv-{:08x}{:x}",
            random & 0xffff_ffff,
            COUNT.fetch_add(1, Relaxed)
        );
        checked(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { name };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The name that `ip netns` knows.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// `program`, to run inside. Its process id is the program's own: `ip netns exec` replaces itself.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs a command line, words split at white space, and returns its standard output.
    pub(crate) fn exec(&self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let program = words.next().ok_or("an empty command line")?;
        checked(self.command(program).args(words))
    }

    /// Runs one iproute2 `ip` command.
    pub(crate) fn ip(&self, arguments: &str) -> Result<String> {
        checked(
            Command::new("ip")
                .args(["-n", &self.name])
                .args(arguments.split_whitespace()),
        )
    }

    /// Runs many iproute2 `ip` commands, one a line, in one process; stops at the first that fails.
    pub(crate) fn ip_batch(&self, lines: &str) -> Result {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name, "-batch", "-"]);
        feed(&mut command, lines)
    }

    /// Runs many iproute2 `bridge` commands, one a line, in one process.
    pub(crate) fn bridge_batch(&self, lines: &str) -> Result {
        let mut command = Command::new("bridge");
        command.args(["-n", &self.name, "-batch", "-"]);
        feed(&mut command, lines)
    }

    /// Runs `inside` on a thread of this namespace. Sockets opened there stay in it, whoever uses them later.
    pub(crate) fn run<T: Send>(&self, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let handle = File::open(format!("/run/netns/{}", self.name))?;
                setns(&handle, CloneFlags::CLONE_NEWNET)?;
                inside()
            });
            worker
                .join()
                .map_err(|_| "a thread inside a namespace panicked")?
        })
    }

    /// Processes that run inside.
    fn pids(&self) -> Vec<Pid> {
        let listed = checked(Command::new("ip").args(["netns", "pids", &self.name]));
        let pids = listed.unwrap_or_default();
        pids.split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .map(Pid::from_raw)
            .collect()
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Whatever fails here is told by what stays behind; a panic in a drop would hide the test's own failure.
        let _ = wait_until("its processes ended", || {
            let pids = self.pids();
            for &pid in &pids {
                let _ = kill(pid, Signal::SIGKILL);
            }
            Ok(Wait::unless(pids.is_empty(), || format!("{pids:?}")))
        });
        let _ = checked(Command::new("ip").args(["netns", "del", &self.name]));
    }
}

/// True if nobody holds the VXLAN port.
pub(crate) fn udp_port_is_free(namespace: &Namespace) -> Result<bool> {
    namespace.run(|| match UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 4789)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(false),
        Err(error) => Err(error.into()),
    })
}

/// Runs to the end and returns standard output.
fn checked(command: &mut Command) -> Result<String> {
    command.stdin(Stdio::null());
    let output = command
        .output()
        .map_err(|error| spawn_error(command, &error))?;
    succeeded(command, output)
}

fn feed(command: &mut Command, lines: &str) -> Result {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(|error| spawn_error(command, &error))?;
    // A command that stopped reading says why on standard error, which tells more than our broken pipe.
    let _ = child
        .stdin
        .take()
        .map(|mut stdin| stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output()?;
    succeeded(command, output).map_err(|error| format!("{error}\nof the batch:\n{lines}"))?;
    Ok(())
}

fn succeeded(command: &Command, output: Output) -> Result<String> {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{stdout}{stderr}",
        output.status
    );
    Ok(stdout)
}

fn spawn_error(command: &Command, error: &std::io::Error) -> Error {
    format!("{command:?}: {error}").into()
}

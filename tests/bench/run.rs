//! One run of `silk-vtep bench`, in a mount namespace whose /run is its own: what is in there is the run's, whatever else
//! this machine does.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Result, ensure};

/// How long a run may take that takes some ten seconds on an idle machine.
const BOUND: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);
const NAMESPACES: &str = "/run/netns";
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/mnt";

/// Runs `body` on a thread of its own that has an empty /run, as have the processes it starts.
pub(crate) fn with_own_run_directory(body: fn() -> Result) -> Result {
    let inside = move || -> Result {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        // Those of other runs, which would look as if they were this one's.
        for other in namespace_mounts()? {
            umount2(other.as_str(), MntFlags::MNT_DETACH)?;
        }
        mount(Some("run"), "/run", Some("tmpfs"), MsFlags::empty(), none)?;
        body()
    };
    thread::spawn(inside)
        .join()
        .map_err(|_| "the body panicked")?
}

/// A run. Ended when dropped, with all that it started.
pub(crate) struct Run {
    child: Child,
    output: tempfile::TempDir,
}

/// What came of it.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// Starts the shortest run on one wire, with `options` besides.
    pub(crate) fn start(options: &str) -> Result<Self> {
        Self::start_words(&format!(
            "bench --json --quick --rounds 1 --wire super {options}"
        ))
    }

    /// Starts `silk-vtep` with `words`.
    pub(crate) fn start_words(words: &str) -> Result<Self> {
        let output = tempfile::tempdir()?;
        let file = |name| File::create(output.path().join(name));
        let child = Command::new(env!("CARGO_BIN_EXE_silk-vtep"))
            .args(words.split_whitespace())
            .stdin(Stdio::null())
            .stdout(file("stdout")?)
            .stderr(file("stderr")?)
            .spawn()?;
        Ok(Self { child, output })
    }

    /// Waits for `text` on standard error.
    pub(crate) fn wait_until_it_says(&mut self, text: &str) -> Result {
        self.wait_until(|run| {
            if run.said("stderr").contains(text) {
                return Ok(Some(()));
            }
            let ended = run.child.try_wait()?;
            ensure!(ended.is_none(), "it ended: {}", run.said("stderr"));
            Ok(None)
        })
    }

    /// Sends `signal` to the run alone, not to what it started.
    pub(crate) fn signal(&self, signal: Signal) -> Result {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?;
        Ok(())
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> Result<Ended> {
        let status = self.wait_until(|run| Ok(run.child.try_wait()?))?;
        Ok(Ended {
            status,
            stdout: self.said("stdout"),
            stderr: self.said("stderr"),
        })
    }

    fn wait_until<T>(&mut self, mut done: impl FnMut(&mut Self) -> Result<Option<T>>) -> Result<T> {
        let deadline = Instant::now() + BOUND;
        loop {
            if let Some(done) = done(self)? {
                return Ok(done);
            }
            ensure!(
                Instant::now() < deadline,
                "waited {BOUND:?}; last it said: {}",
                self.said("stderr")
            );
            thread::sleep(POLL);
        }
    }

    fn said(&self, stream: &str) -> String {
        fs::read_to_string(self.output.path().join(stream)).unwrap_or_default()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in processes().unwrap_or_default() {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

/// No process that it started, no namespace that it made, nothing under /run.
pub(crate) fn check_nothing_stayed() -> Result {
    let processes = processes()?;
    ensure!(processes.is_empty(), "processes stayed: {processes:?}");
    let mounted = namespace_mounts()?;
    ensure!(mounted.is_empty(), "namespaces stayed: {mounted:?}");
    let mut left = names("/run")?;
    left.retain(|name| Path::new("/run").join(name) != Path::new(NAMESPACES));
    if Path::new(NAMESPACES).exists() {
        left.extend(names(NAMESPACES)?);
    }
    ensure!(left.is_empty(), "under /run stayed: {left:?}");
    Ok(())
}

/// Where namespaces are mounted below /run/netns.
fn namespace_mounts() -> Result<Vec<String>> {
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo")?;
    // The fifth field is where it is mounted (proc(5)).
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let below = places.filter(|at| at.starts_with(NAMESPACES) && *at != NAMESPACES);
    Ok(below.map(str::to_owned).collect())
}

fn names(directory: &str) -> Result<Vec<String>> {
    let name = |entry: std::io::Result<fs::DirEntry>| {
        Ok(entry?.file_name().to_string_lossy().into_owned())
    };
    fs::read_dir(directory)?.map(name).collect()
}

/// Those in this thread's mount namespace. The test's own first thread is not.
fn processes() -> Result<Vec<Pid>> {
    let here = fs::read_link(OWN_NAMESPACE)?;
    let is_inside = |entry: &fs::DirEntry| {
        // Others than processes have none; processes may end while we look.
        fs::read_link(entry.path().join("ns/mnt")).is_ok_and(|namespace| namespace == here)
    };
    Ok(fs::read_dir("/proc")?
        .filter_map(std::result::Result::ok)
        .filter(is_inside)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
        .collect())
}

//! A child process that does not outlive its owner.

use std::fs;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Result, Wait, ensure, wait_until};

/// Jiffies a second in /proc/PID/stat: USER_HZ, 100 on every architecture Linux has kept.
const USER_HZ: u64 = 100;

/// Killed and reaped on drop.
pub(crate) struct Process(Child);

impl Process {
    /// Guards `child`.
    pub(crate) fn new(child: Child) -> Self {
        Self(child)
    }

    /// Its process id, good until the process is reaped.
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Sends `signal` to this process alone.
    pub(crate) fn signal(&self, signal: Signal) -> Result {
        kill(Pid::from_raw(i32::try_from(self.pid())?), signal)?;
        Ok(())
    }

    /// Its exit status, if it has ended.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }

    /// Waits for its end, for a bounded time.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        let mut status = None;
        wait_until("the process ended", || {
            status = self.0.try_wait()?;
            Ok(Wait::unless(status.is_some(), || "it runs".into()))
        })?;
        Ok(status.ok_or("a process that ended has a status")?)
    }

    /// Memory that it occupies (VmRSS), in bytes.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(kilobytes.ok_or("no VmRSS")?.parse::<u64>()? * 1024)
    }

    /// User and system time it has used so far.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        // proc(5): field 2, the name, may hold anything but ends at the last ')'; utime and stime are fields 14 and 15.
        let after_name = stat
            .rsplit_once(") ")
            .ok_or("a stat line without a name")?
            .1;
        let fields: Vec<&str> = after_name.split(' ').collect();
        ensure!(fields.len() > 12, "a short stat line: {stat}");
        let jiffies: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(Duration::from_millis(jiffies * 1000 / USER_HZ))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

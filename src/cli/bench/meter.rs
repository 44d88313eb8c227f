//! Where the machine's CPU time went while something was measured (proc(5)).
//!
//! Three answers: how much was used at all, how much the hypervisor gave to others (steal), and how much went to
//! processes that are none of ours. What the kernel does for our packets shows as nobody's or in kernel threads, which
//! count as ours.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Instant;

use nix::unistd::{SysconfVar, sysconf};
use serde::Serialize;

use crate::error::{SetupError, errno};

/// More than this share of the machine stolen or used by others makes what was measured void.
const DISTURBED_SHARE: f64 = 0.02;
/// PF_KTHREAD (linux/sched.h) in `flags` of /proc/PID/stat.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// CPU time over a window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Usage {
    /// How long the window was.
    pub(super) seconds: f64,
    /// CPU seconds in which the machine was not idle: everybody's, kernel included.
    pub(super) busy_seconds: f64,
    /// Of the machine's CPU time, what the hypervisor gave to others.
    pub(super) steal_share: f64,
    /// Of the machine's CPU time, what other processes used.
    pub(super) foreign_share: f64,
}

impl Usage {
    /// Whether others took so much that nothing measured in this window counts.
    pub(super) fn is_disturbed(&self) -> bool {
        self.steal_share + self.foreign_share > DISTURBED_SHARE
    }
}

/// A window that has begun.
#[derive(Debug)]
pub(super) struct Meter<'a> {
    ours: &'a [u32],
    started: Instant,
    machine: Machine,
    foreign_ticks: u64,
}

impl<'a> Meter<'a> {
    /// Begins a window. `ours` are the processes that work for what is measured, besides this one.
    ///
    /// # Errors
    /// If /proc is not mounted.
    pub(super) fn start(ours: &'a [u32]) -> Result<Self, SetupError> {
        // The processes first: reading them takes a few milliseconds, which are then not in the window.
        let foreign_ticks = foreign_ticks(ours)?;
        let machine = Machine::read()?;
        Ok(Self {
            ours,
            started: Instant::now(),
            machine,
            foreign_ticks,
        })
    }

    /// Ends it.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(super) fn stop(self) -> Result<Usage, SetupError> {
        let seconds = self.started.elapsed().as_secs_f64();
        let machine = Machine::read()?;
        let foreign = foreign_ticks(self.ours)?.saturating_sub(self.foreign_ticks);
        let per_second = ticks_per_second();
        let passed = |now: u64, then: u64| now.saturating_sub(then) as f64 / per_second;
        let capacity = seconds * machine.cpus as f64;
        let idle = passed(machine.idle_ticks, self.machine.idle_ticks);
        let stolen = passed(machine.steal_ticks, self.machine.steal_ticks);
        Ok(Usage {
            seconds,
            busy_seconds: (capacity - idle - stolen).max(0.0),
            steal_share: stolen / capacity,
            foreign_share: foreign as f64 / per_second / capacity,
        })
    }
}

/// What /proc/stat says of all CPUs. The kernel measures idle time, and samples how the rest was used: so what was
/// used is what was not idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Machine {
    cpus: usize,
    idle_ticks: u64,
    steal_ticks: u64,
}

impl Machine {
    fn read() -> Result<Self, SetupError> {
        let text =
            fs::read_to_string("/proc/stat").map_err(|error| failed("/proc/stat", &error))?;
        Self::parse(&text)
            .ok_or_else(|| SetupError::new("read", "/proc/stat", "not as proc(5) has it"))
    }

    /// `cpu  user nice system idle iowait irq softirq steal ..`, then a line for each CPU.
    fn parse(text: &str) -> Option<Self> {
        let numbers = text
            .lines()
            .next()?
            .strip_prefix("cpu ")?
            .split_ascii_whitespace();
        let numbers: Vec<u64> = numbers.map_while(|word| word.parse().ok()).collect();
        let is_cpu = |line: &&str| {
            line.strip_prefix("cpu")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        Some(Self {
            cpus: text.lines().filter(is_cpu).count(),
            idle_ticks: numbers.get(3)? + numbers.get(4)?,
            steal_ticks: *numbers.get(7)?,
        })
    }
}

/// Time of all processes but ours, with that of their children they waited for: so a child that ends within the window
/// is not lost, its time goes over to its parent.
fn foreign_ticks(ours: &[u32]) -> Result<u64, SetupError> {
    let is_ours = |pid: u32| pid == std::process::id() || ours.contains(&pid);
    let ticks_of = |process: fs::DirEntry| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        if is_ours(pid) {
            return None;
        }
        // It may have ended since.
        let text = fs::read_to_string(process.path().join("stat")).ok()?;
        process_ticks(&text)
    };
    let processes = fs::read_dir("/proc").map_err(|error| failed("/proc", &error))?;
    Ok(processes.filter_map(Result::ok).filter_map(ticks_of).sum())
}

/// `utime + stime + cutime + cstime` of a line of /proc/PID/stat; `None` for a kernel thread.
fn process_ticks(text: &str) -> Option<u64> {
    // The name is in brackets and may contain any of them.
    let (_, rest) = text.rsplit_once(')')?;
    // From the third field on.
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    if number(9)? & KERNEL_THREAD != 0 {
        return None;
    }
    Some(number(14)? + number(15)? + number(16)? + number(17)?)
}

fn ticks_per_second() -> f64 {
    // USER_HZ is 100 on every architecture but a few, which answer the question.
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten();
    ticks.map_or(100.0, |ticks| ticks as f64)
}

fn failed(path: impl AsRef<Path>, error: &io::Error) -> SetupError {
    SetupError::new("read", path.as_ref().display().to_string(), errno(error))
        .mend("is /proc mounted?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_read_as_proc_has_it() {
        let text = "cpu  100 1 50 900 80 0 75 12 0 0\ncpu0 50 0 25 450 40 0 37 6 0 0\ncpu1 50 1 25 450 40 0 38 6 0 0\nintr 7\n";
        let expected = Machine {
            cpus: 2,
            idle_ticks: 980,
            steal_ticks: 12,
        };
        assert_eq!(Machine::parse(text), Some(expected));
        assert_eq!(Machine::parse("cpu 1 2 3"), None);
        assert_eq!(Machine::parse(""), None);
    }

    #[test]
    fn a_process_counts_with_its_children_and_a_kernel_thread_not_at_all() {
        let process = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 3 0 11 22 33 44 20 0 1 0";
        assert_eq!(process_ticks(process), Some(110));
        let thread = "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 5 6 0 0 20 0 1 0";
        assert_eq!(process_ticks(thread), None);
    }

    #[test]
    fn others_are_those_who_are_not_listed() {
        let all = foreign_ticks(&[]).expect("/proc is mounted");
        let everybody: Vec<u32> = fs::read_dir("/proc")
            .expect("/proc is mounted")
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        assert!(foreign_ticks(&everybody).expect("/proc is mounted") <= all);
    }

    #[test]
    fn two_per_cent_of_steal_and_others_together_are_too_much() {
        let usage = |steal_share, foreign_share| Usage {
            seconds: 1.0,
            busy_seconds: 1.0,
            steal_share,
            foreign_share,
        };
        assert!(!usage(0.01, 0.01).is_disturbed());
        assert!(usage(0.01, 0.011).is_disturbed());
        assert!(usage(0.03, 0.0).is_disturbed());
    }
}

//! The lanes' threads.

use std::fs;
use std::panic::AssertUnwindSafe;
use std::thread;
use std::time::Duration;

use crossbeam_channel::Sender;
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::events::Event;
use super::thread::Thread;
use crate::control::config::VtepConfig;
use crate::error::SetupError;
use crate::io::worker::{Direction, Rhythm, Stop, Worker};
use crate::io::{Lane, LaneError, TapQueue, UdpPort};

/// A thread for each direction of each lane; stopped and joined when dropped.
pub(super) struct Workers {
    threads: Vec<(Thread, Stop)>,
}

impl Workers {
    /// Starts every lane, thread i of all pinned to `cpus[i % len]` if there are any. `lane` makes the `Lane` of that number, once for each
    /// direction.
    pub(super) fn start(
        vtep: &VtepConfig,
        events: &Sender<Event>,
        lane: impl Fn(usize) -> Lane<TapQueue, UdpPort>,
    ) -> Result<Self, SetupError> {
        let cpus = &vtep.cpus;
        let rhythm = Rhythm {
            busy_poll: Duration::from_micros(vtep.busy_poll_us.into()),
            moderation: Duration::from_micros(vtep.moderation_us.into()),
        };
        let mut workers = Self {
            threads: Vec::new(),
        };
        for index in 0..vtep.lanes.get() {
            for (thread, direction) in (2 * index..).zip(Direction::ALL) {
                let cpu = (!cpus.is_empty()).then(|| cpus[thread % cpus.len()]);
                let name = format!("{} {index}", direction.name());
                let worker = Worker::new(lane(index), direction, rhythm)
                    .map_err(|error| SetupError::system("start", name.as_str(), &error))?;
                workers.start_one(&name, index, worker, cpu, events.clone())?;
            }
        }
        Ok(workers)
    }

    fn start_one(
        &mut self,
        name: &str,
        index: usize,
        worker: Worker,
        cpu: Option<usize>,
        events: Sender<Event>,
    ) -> Result<(), SetupError> {
        let stop = worker.stop_handle();
        let thread = Thread::spawn(name, move || {
            if let Some(cpu) = cpu {
                // It could a moment ago; without it the lane runs anywhere.
                if let Err(error) = pin(cpu) {
                    tracing::warn!("pin to CPU {cpu}: {error:?} (correct `cpus`)");
                }
            }
            let ended = std::panic::catch_unwind(AssertUnwindSafe(|| worker.run()));
            if let Err(error) = ended.unwrap_or(Err(LaneError::Panicked)) {
                // Nobody listens any more only while the daemon ends anyway.
                let _ = events.try_send(Event::LaneEnded(index, error));
            }
        })?;
        self.threads.push((thread, stop));
        Ok(())
    }

    /// All of them.
    pub(super) fn threads(&self) -> impl Iterator<Item = &Thread> {
        self.threads.iter().map(|(thread, _)| thread)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for (_, stop) in &self.threads {
            stop.stop();
        }
    }
}

/// Refuses CPUs that are not there, or not ours (cpuset), before any lane runs: tried by a thread of its own.
pub(super) fn check_cpus(cpus: &[usize]) -> Result<(), SetupError> {
    let tried = thread::scope(|scope| {
        let tried = scope.spawn(|| {
            cpus.iter()
                .try_for_each(|&cpu| pin(cpu).map_err(|e| (cpu, e)))
        });
        tried.join().unwrap_or(Ok(()))
    });
    tried.map_err(|(cpu, error)| {
        let cpus = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
        let there = format!("this host has {}: correct `cpus`", cpus.trim());
        SetupError::new(
            "pin lanes to",
            format!("CPU {cpu}"),
            format_args!("{error:?}"),
        )
        .mend(there)
    })
}

/// Binds the calling thread to a CPU.
fn pin(cpu: usize) -> Result<(), Errno> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_that_are_not_there_are_told_with_those_that_are() {
        check_cpus(&[]).expect("none is asked for");
        let allowed = nix::sched::sched_getaffinity(Pid::from_raw(0)).expect("ours");
        let ours = (0..CpuSet::count()).find(|&cpu| allowed.is_set(cpu) == Ok(true));
        let ours = ours.expect("this runs somewhere");
        check_cpus(&[ours]).expect("we run there");
        let told = check_cpus(&[ours, 1023])
            .expect_err("no host of ours")
            .to_string();
        assert!(
            told.starts_with("pin lanes to CPU 1023: EINVAL (this host has 0")
                && told.ends_with(": correct `cpus`)"),
            "{told}"
        );
        // The calling thread is where it was.
        assert_eq!(nix::sched::sched_getaffinity(Pid::from_raw(0)), Ok(allowed));
    }
}

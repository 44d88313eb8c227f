//! The lanes' threads.

use std::panic::AssertUnwindSafe;
use std::thread;
use std::time::Duration;

use crossbeam_channel::Sender;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::events::{Event, join, spawn};
use crate::control::config::VtepConfig;
use crate::error::SetupError;
use crate::io::worker::{Direction, Rhythm, Stop, Worker};
use crate::io::{Lane, LaneError, TapQueue, UdpPort};

/// A thread for each direction of each lane; stopped and joined when dropped.
pub(super) struct Workers {
    threads: Vec<(Stop, Option<thread::JoinHandle<()>>)>,
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
        let thread = spawn(name, move || {
            if let Some(cpu) = cpu {
                pin(cpu);
            }
            let ended = std::panic::catch_unwind(AssertUnwindSafe(|| worker.run()));
            if let Err(error) = ended.unwrap_or(Err(LaneError::Panicked)) {
                // Nobody listens any more only while the daemon ends anyway.
                let _ = events.try_send(Event::LaneEnded(index, error));
            }
        })?;
        self.threads.push((stop, Some(thread)));
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for (stop, _) in &self.threads {
            stop.stop();
        }
        for (_, thread) in &mut self.threads {
            join(thread.take());
        }
    }
}

/// Pinning is a wish: a CPU that is not there, or not ours, is reported and the lane runs anywhere.
fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    let pinned = set
        .set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
    if let Err(error) = pinned {
        tracing::warn!("pin to CPU {cpu}: {error:?} (correct `cpus`)");
    }
}

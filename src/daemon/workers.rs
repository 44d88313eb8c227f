//! The lanes' threads.

use std::thread;
use std::time::Duration;

use crossbeam_channel::Sender;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::events::{Event, join, spawn};
use crate::control::config::VtepConfig;
use crate::error::SetupError;
use crate::io::worker::{Stop, Worker};
use crate::io::{Lane, TapQueue, UdpPort};

/// One thread per lane; stopped and joined when dropped.
pub(super) struct Workers {
    lanes: Vec<(Stop, Option<thread::JoinHandle<()>>)>,
}

impl Workers {
    /// Starts every lane, lane i pinned to `cpus[i % len]` if there are any.
    pub(super) fn start(
        lanes: Vec<Lane<TapQueue, UdpPort>>,
        vtep: &VtepConfig,
        events: &Sender<Event>,
    ) -> Result<Self, SetupError> {
        let cpus = &vtep.cpus;
        let busy_poll = Duration::from_micros(vtep.busy_poll_us.into());
        let mut workers = Self { lanes: Vec::new() };
        for (index, lane) in lanes.into_iter().enumerate() {
            let cpu = (!cpus.is_empty()).then(|| cpus[index % cpus.len()]);
            workers.start_one(index, lane, cpu, busy_poll, events.clone())?;
        }
        Ok(workers)
    }

    fn start_one(
        &mut self,
        index: usize,
        lane: Lane<TapQueue, UdpPort>,
        cpu: Option<usize>,
        busy_poll: Duration,
        events: Sender<Event>,
    ) -> Result<(), SetupError> {
        let name = format!("lane {index}");
        let worker = Worker::new(lane, busy_poll)
            .map_err(|error| SetupError::system("start", name.as_str(), &error))?;
        let stop = worker.stop_handle();
        let thread = spawn(&name, move || {
            if let Some(cpu) = cpu {
                pin(cpu);
            }
            if let Err(error) = worker.run() {
                // Nobody listens any more only while the daemon ends anyway.
                let _ = events.send(Event::LaneEnded(index, error));
            }
        })?;
        self.lanes.push((stop, Some(thread)));
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for (stop, _) in &self.lanes {
            stop.stop();
        }
        for (_, thread) in &mut self.lanes {
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

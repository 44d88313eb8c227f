//! The lanes' threads, and whether they are there.

use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, gettid};

use super::events::{Event, join, spawn};
use crate::control::config::VtepConfig;
use crate::error::SetupError;
use crate::io::worker::{Direction, Rhythm, Stop, Worker};
use crate::io::{Lane, LaneError, TapQueue, UdpPort};

/// How often the threads are looked for. A thread ends with a word, unless the kernel ends it: a fault of its own in a system call (an
/// "oops") kills the one thread that made it, and the process goes on with a direction that nobody serves.
const ROLL_CALL_EVERY: Duration = Duration::from_secs(1);

/// A thread for each direction of each lane; stopped and joined when dropped.
pub(super) struct Workers {
    threads: Vec<WorkerThread>,
    roll_call: Instant,
}

/// One of them.
struct WorkerThread {
    name: String,
    stop: Stop,
    /// The kernel's number for it, once it runs.
    id: Arc<OnceLock<Pid>>,
    handle: thread::JoinHandle<()>,
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
            roll_call: Instant::now() + ROLL_CALL_EVERY,
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
        let id = Arc::new(OnceLock::new());
        let told = Arc::clone(&id);
        let handle = spawn(name, move || {
            let _ = told.set(gettid());
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
        self.threads.push(WorkerThread {
            name: name.to_owned(),
            stop,
            id,
            handle,
        });
        Ok(())
    }

    /// When to look for the threads next.
    pub(super) fn due(&self) -> Instant {
        self.roll_call
    }

    /// The name of a thread that the kernel has ended.
    pub(super) fn missing(&mut self, now: Instant) -> Option<&str> {
        self.roll_call = now + ROLL_CALL_EVERY;
        let mut threads = self.threads.iter();
        let missing = threads.find(|thread| thread.was_killed());
        missing.map(|thread| thread.name.as_str())
    }
}

impl WorkerThread {
    /// One that ended by itself has given back what it held, which the handle tells, before the kernel forgets it.
    fn was_killed(&self) -> bool {
        let Some(id) = self.id.get() else {
            return false;
        };
        let tasks = Path::new("/proc/self/task");
        !tasks.join(id.to_string()).exists() && !self.handle.is_finished() && tasks.exists()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for thread in &self.threads {
            thread.stop.stop();
        }
        for thread in self.threads.drain(..) {
            // One that was killed left no result behind, and a join wants one.
            if !thread.was_killed() {
                join(Some(thread.handle));
            }
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

    fn thread(body: impl FnOnce() + Send + 'static) -> WorkerThread {
        let poll = mio::Poll::new().expect("descriptors are left");
        let id = Arc::new(OnceLock::new());
        let told = Arc::clone(&id);
        let handle = spawn("tried", move || {
            let _ = told.set(gettid());
            body();
        });
        WorkerThread {
            name: "tried".to_owned(),
            stop: Stop::unheard(&poll).expect("descriptors are left"),
            id,
            handle: handle.expect("threads are left"),
        }
    }

    fn workers(thread: WorkerThread) -> Workers {
        Workers {
            threads: vec![thread],
            roll_call: Instant::now(),
        }
    }

    #[test]
    fn a_thread_that_the_kernel_ends_is_missed_and_not_waited_for() {
        let mut workers = workers(thread(|| crate::sys::thread::end_without_a_word()));
        while workers.missing(Instant::now()).is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(workers.missing(Instant::now()), Some("tried"));
        // Without a result of it a join would panic.
        drop(workers);
    }

    #[test]
    fn a_thread_that_runs_or_ended_by_itself_is_not_missed() {
        let (end, until) = std::sync::mpsc::channel::<()>();
        let mut workers = workers(thread(move || {
            let _ = until.recv();
        }));
        let task = || {
            let id = workers.threads[0].id.get().expect("it runs");
            Path::new("/proc/self/task").join(id.to_string())
        };
        while workers.threads[0].id.get().is_none() {
            thread::yield_now();
        }
        let task = task();
        assert_eq!(workers.missing(Instant::now()), None);
        drop(end);
        while task.exists() {
            assert_eq!(workers.missing(Instant::now()), None);
        }
        assert_eq!(workers.missing(Instant::now()), None);
    }

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

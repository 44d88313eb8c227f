//! A thread of the daemon, and whether it is there still.
//!
//! A thread ends with a word, unless the kernel ends it: a fault of its own in a system call (an "oops") kills the one thread that made it,
//! and the process goes on with work that nobody does.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread;

use nix::unistd::{Pid, gettid};

use crate::error::SetupError;

/// Waited for when dropped: whoever holds it has told it to end by then.
pub(super) struct Thread {
    name: String,
    /// The kernel's number for it, once it runs.
    id: Arc<OnceLock<Pid>>,
    /// `None` only while it is dropped.
    handle: Option<thread::JoinHandle<()>>,
}

impl Thread {
    /// Starts `body` in a thread of that name.
    ///
    /// # Errors
    /// No thread is left.
    pub(super) fn spawn(
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<Self, SetupError> {
        let id = Arc::new(OnceLock::new());
        let told = Arc::clone(&id);
        let handle = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _ = told.set(gettid());
            body();
        });
        let handle = handle.map_err(|error| SetupError::system("start thread", name, &error))?;
        Ok(Self {
            name: name.to_owned(),
            id,
            handle: Some(handle),
        })
    }

    /// As it was started.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the kernel ended it. One that ended by itself has given back what it held, which the handle tells, before the kernel forgets
    /// it.
    pub(super) fn was_killed(&self) -> bool {
        let (Some(id), Some(handle)) = (self.id.get(), &self.handle) else {
            return false;
        };
        let tasks = Path::new("/proc/self/task");
        !tasks.join(id.to_string()).exists() && !handle.is_finished() && tasks.exists()
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // One that was killed left no result behind, and a join wants one.
        if self.was_killed() {
            return;
        }
        if let Some(handle) = self.handle.take() {
            // One that panicked has said so on standard error.
            let _ = handle.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_that_the_kernel_ends_is_missed_and_not_waited_for() {
        let thread = Thread::spawn("tried", || crate::sys::thread::end_without_a_word());
        let thread = thread.expect("threads are left");
        while !thread.was_killed() {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(thread.name(), "tried");
        // Without a result of it a join would panic.
        drop(thread);
    }

    #[test]
    fn one_that_runs_or_ended_by_itself_is_not_missed() {
        let (end, until) = mpsc::channel::<()>();
        let thread = Thread::spawn("tried", move || {
            let _ = until.recv();
        });
        let thread = thread.expect("threads are left");
        while thread.id.get().is_none() {
            thread::yield_now();
        }
        let id = thread.id.get().expect("it runs");
        let task = Path::new("/proc/self/task").join(id.to_string());
        assert!(!thread.was_killed());
        drop(end);
        while task.exists() {
            assert!(!thread.was_killed());
        }
        assert!(!thread.was_killed());
    }
}

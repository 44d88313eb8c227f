//! A lock on a file that others lock too, waited for, but not for ever.

use std::fs::{File, TryLockError};
use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long a lock is waited for. Whoever has it holds it for milliseconds; two hundred who come at once are through in a second or two.
pub(crate) const LOCK_PATIENCE: Duration = Duration::from_secs(20);

/// Takes the exclusive flock(2) of `file`, as Go's plugins do, for as long as it is open.
///
/// # Errors
/// `TimedOut` if others hold it all the time; or the errno of flock(2).
pub(crate) fn lock_within(file: &File, patience: Duration) -> io::Result<()> {
    match file.try_lock() {
        Ok(()) => return Ok(()),
        Err(TryLockError::Error(error)) => return Err(error),
        Err(TryLockError::WouldBlock) => {}
    }
    // The kernel serves those that sleep in turn; looking again and again is unfair among many. Nothing but another thread ends such a
    // sleep: one that is given up sleeps on, and its lock goes with its duplicate of the descriptor, which has the same.
    let sleeper = file.try_clone()?;
    let (done, locked) = mpsc::channel();
    thread::Builder::new().spawn(move || drop(done.send(sleeper.lock())))?;
    match locked.recv_timeout(patience) {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_held_is_waited_for_and_given_up() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("lock");
        let held = File::create(&path).expect("the directory is ours");
        lock_within(&held, LOCK_PATIENCE).expect("nobody has it");
        let second = File::open(&path).expect("it is there");
        let refused = lock_within(&second, Duration::from_millis(5)).expect_err("it is held");
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        drop(held);
        lock_within(&second, LOCK_PATIENCE).expect("it is free again");
    }
}

//! Two cells on this host, made for a while: what `demo` and `bench` stand on.
//!
//! [`scratch::Scratch`] is what one run owns by name, [`ground::lay`] makes places there, and a [`site::Site`] is these
//! places with a daemon each. All undo themselves when dropped, so that every way out - done, failed, interrupted, panicked - is the same way.

pub(in crate::cli) mod configuration;
pub(in crate::cli) mod connection;
pub(in crate::cli) mod daemon;
pub(in crate::cli) mod ground;
pub(in crate::cli) mod interrupt;
pub(in crate::cli) mod process;
pub(in crate::cli) mod scratch;
pub(in crate::cli) mod site;

use std::thread::ScopedJoinHandle;

use crate::control::client::ClientError;
use crate::error::SetupError;

/// Why something in the lab came to nothing.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum LabError {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Ask(#[from] ClientError),
    #[error("interrupted")]
    Interrupted,
}

/// What the thread gave, or its panic.
pub(in crate::cli) fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

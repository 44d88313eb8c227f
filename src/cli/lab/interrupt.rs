//! Ctrl-C and its kin: told to the story, which then ends the way it always ends, by cleaning up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use super::LabError;
use crate::error::{SetupError, errno};

/// How late a wait may notice a signal.
const TICK: Duration = Duration::from_millis(20);

/// Whether somebody asked us to stop. Asking twice changes nothing: cleaning up takes bounded time and is not cut short.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens to SIGINT, SIGTERM, SIGHUP and SIGQUIT from now on.
    ///
    /// # Errors
    /// If a handler cannot be installed.
    pub(in crate::cli) fn on_signals() -> Result<Self, SetupError> {
        let interrupt = Self::default();
        interrupt.listen()?;
        Ok(interrupt)
    }

    /// As [`Self::on_signals`], of one that is there already.
    ///
    /// # Errors
    /// If a handler cannot be installed.
    pub(in crate::cli) fn listen(&self) -> Result<(), SetupError> {
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
            signal_hook::flag::register(signal, Arc::clone(&self.0)).map_err(|error| {
                SetupError::new("handle", format!("signal {signal}"), errno(&error))
            })?;
        }
        Ok(())
    }

    /// True once somebody asked us to stop.
    pub(in crate::cli) fn is_asked(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// # Errors
    /// [`LabError::Interrupted`] once somebody asked us to stop.
    pub(in crate::cli) fn check(&self) -> Result<(), LabError> {
        if self.is_asked() {
            Err(LabError::Interrupted)
        } else {
            Ok(())
        }
    }

    /// Asks `ready` until it has an answer, for as long as `patience`; `None` if it had none by then.
    ///
    /// # Errors
    /// As `ready` and [`Self::check`].
    pub(in crate::cli) fn wait_for<T>(
        &self,
        patience: Duration,
        mut ready: impl FnMut() -> Result<Option<T>, LabError>,
    ) -> Result<Option<T>, LabError> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(answer) = ready()? {
                return Ok(Some(answer));
            }
            self.check()?;
            if Instant::now() >= deadline {
                return Ok(None);
            }
            thread::sleep(TICK);
        }
    }
}

#[cfg(test)]
impl Interrupt {
    /// As after a signal.
    pub(in crate::cli) fn asked() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_the_first_answer() {
        let mut answers = [None, None, Some(7), Some(8)].into_iter();
        let waited =
            Interrupt::default().wait_for(Duration::from_secs(60), || Ok(answers.next().flatten()));
        assert!(matches!(waited, Ok(Some(7))));
    }

    #[test]
    fn a_wait_ends_when_patience_does() {
        let waited = Interrupt::default().wait_for(Duration::ZERO, || Ok(None::<()>));
        assert!(matches!(waited, Ok(None)));
    }

    #[test]
    fn a_wait_ends_when_interrupted() {
        let interrupt = Interrupt::asked();
        let waited = interrupt.wait_for(Duration::from_secs(60), || Ok(None::<()>));
        assert!(matches!(waited, Err(LabError::Interrupted)));
    }
}

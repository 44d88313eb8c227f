//! The other end of the control socket: asks, and waits for the answer.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::protocol::{Failure, Request, Response};
use crate::error::{SetupError, errno};

/// A connection to a daemon.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

/// Why there is no answer, or not the one hoped for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The daemon could not be reached, or went away.
    #[error(transparent)]
    Socket(#[from] SetupError),
    /// It refused.
    #[error(transparent)]
    Refused(#[from] Failure),
}

impl Client {
    /// Connects to the daemon that listens at `path`.
    ///
    /// # Errors
    /// Nobody listens there, or not for us.
    pub fn connect(path: &Path) -> Result<Self, SetupError> {
        let stream = UnixStream::connect(path).map_err(|error| {
            let refused = SetupError::new("connect to", path.display().to_string(), errno(&error));
            match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => refused.mend(
                    "is silk-vtep running? --socket PATH or --name NAME tells which one to ask",
                ),
                io::ErrorKind::PermissionDenied => {
                    refused.mend("only the user that runs silk-vtep may")
                }
                _ => refused,
            }
        })?;
        Ok(Self {
            stream: BufReader::new(stream),
            path: path.to_owned(),
        })
    }

    /// Asks, and reads the answer as a `T`: the type that [`Request`] names.
    ///
    /// # Errors
    /// The daemon refused, or the connection broke.
    pub fn call<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, ClientError> {
        let line = self
            .exchange(request)
            .map_err(|error| self.error(errno(&error)))?;
        if line.is_empty() {
            return Err(self.error("silk-vtep hung up".to_owned()).into());
        }
        let response: Response<T> = serde_json::from_slice(&line)
            .map_err(|error| self.error(format!("not the answer expected: {error}")))?;
        Ok(Result::from(response)?)
    }

    fn exchange(&mut self, request: &Request) -> io::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        // A daemon that turns us away says so without reading: its line says more than EPIPE does.
        let sent = self.stream.get_mut().write_all(&line);
        let mut answer = Vec::new();
        let received = self.stream.read_until(b'\n', &mut answer);
        if answer.is_empty() {
            sent?;
            received?;
        }
        Ok(answer)
    }

    fn error(&self, cause: String) -> SetupError {
        SetupError::new("ask", self.path.display().to_string(), cause)
    }
}

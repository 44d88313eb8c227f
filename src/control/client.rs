//! The other end of the control socket: asks, and waits for the answer.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use serde::de::DeserializeOwned;
use socket2::{Domain, SockAddr, Socket, Type};

use super::protocol::{Failure, Request, Response};
use crate::error::{SetupError, errno};
use crate::netlink::{Namespace, NamespaceId};

/// How long a daemon may say nothing. Its longest work, a change of many thousand peers, takes seconds; whoever needs longer is stopped,
/// or no daemon.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to a daemon.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
    patience: Duration,
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
    /// Connects to the daemon that listens at `path`, if one does.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), but that nobody listens is no error.
    pub fn find(path: &Path) -> Result<Option<Self>, SetupError> {
        match connect_within(path, PATIENCE) {
            Err(error) if is_absence(&error) => Ok(None),
            connected => Self::of(connected, path, PATIENCE).map(Some),
        }
    }

    /// The network namespace of the daemon, as far as `/proc` tells: of one behind another PID namespace it does not.
    #[must_use]
    pub fn daemon_namespace(&self) -> Option<NamespaceId> {
        let daemon = getsockopt(self.stream.get_ref(), PeerCredentials).ok()?;
        let path = format!("/proc/{}/ns/net", daemon.pid());
        Namespace::open(&path).ok().map(|namespace| namespace.id())
    }

    /// Connects to the daemon that listens at `path`.
    ///
    /// # Errors
    /// Nobody listens there, or not for us, or whoever does takes no connection for half a minute.
    pub fn connect(path: &Path) -> Result<Self, SetupError> {
        Self::connect_for(path, PATIENCE)
    }

    /// As [`Self::connect`], with another patience.
    pub(crate) fn connect_for(path: &Path, patience: Duration) -> Result<Self, SetupError> {
        Self::of(connect_within(path, patience), path, patience)
    }

    fn of(
        connected: io::Result<UnixStream>,
        path: &Path,
        patience: Duration,
    ) -> Result<Self, SetupError> {
        let stream = connected.map_err(|error| {
            let refused = SetupError::system("connect to", path.display().to_string(), &error);
            match error.kind() {
                _ if is_absence(&error) => refused.mend(
                    "is silk-vtep running? --socket PATH or --name NAME tells which one to ask",
                ),
                io::ErrorKind::PermissionDenied => {
                    refused.mend("only the user that runs silk-vtep may")
                }
                io::ErrorKind::WouldBlock => mute(path, "connect to", patience),
                _ => refused,
            }
        })?;
        Ok(Self {
            stream: BufReader::new(stream),
            path: path.to_owned(),
            patience,
        })
    }

    /// Asks, and reads the answer as a `T`: the type that [`Request`] names.
    ///
    /// # Errors
    /// The daemon refused or said nothing for half a minute, or the connection broke.
    pub fn call<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, ClientError> {
        let line = self.exchange(request).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => mute(&self.path, "ask", self.patience),
            _ => self.error(errno(&error)),
        })?;
        if line.is_empty() {
            return Err(self.error("silk-vtep hung up".to_owned()).into());
        }
        let response: Response<T> = serde_json::from_slice(&line)
            .map_err(|error| self.error(format!("not the answer expected: {error}")))?;
        Ok(Result::from(response)?)
    }

    /// As [`call`](Self::call), and then gives the connection away: it has become a stream.
    ///
    /// # Errors
    /// As `call`.
    pub fn stream<T: DeserializeOwned>(
        mut self,
        request: &Request,
    ) -> Result<(T, BufReader<UnixStream>), ClientError> {
        let answer = self.call(request)?;
        Ok((answer, self.stream))
    }

    fn exchange(&mut self, request: &Request) -> io::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        let sent = match self.stream.get_mut().write_all(&line) {
            // Who does not read does not answer.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            // A daemon that turns us away says so without reading: its line says more than EPIPE does.
            sent => sent,
        };
        let mut answer = Vec::new();
        let received = self.stream.read_until(b'\n', &mut answer);
        if answer.last() != Some(&b'\n') {
            sent?;
            received?;
        }
        Ok(answer)
    }

    fn error(&self, cause: String) -> SetupError {
        SetupError::new("ask", self.path.display().to_string(), cause)
    }
}

/// True if nobody listens: there is no socket, or only what a daemon left that is gone.
fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

/// Connects to the socket at `path`; its reads and writes, too, then give up with EAGAIN after `patience` in which nothing moved.
pub(super) fn connect_within(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_read_timeout(Some(patience))?;
    // While the listener's queue is full connect(2) waits as long as a send would (unix_stream_connect).
    socket.set_write_timeout(Some(patience))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(OwnedFd::from(socket).into())
}

fn mute(path: &Path, operation: &str, patience: Duration) -> SetupError {
    let cause = format!("no answer within {patience:?}");
    SetupError::new(operation, path.display().to_string(), cause)
        .mend("is it a silk-vtep that listens there, and is it stopped?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::stats::Stats;
    use crate::control::{Change, Key};

    const SHORT: Duration = Duration::from_millis(20);

    /// A listener that never accepts, with room for one connection.
    fn mute_socket() -> (tempfile::TempDir, PathBuf, Socket) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("mute.sock");
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a descriptor is free");
        let address = SockAddr::unix(&path).expect("a temporary directory's path is short");
        listener.bind(&address).expect("the directory is ours");
        listener.listen(0).expect("it is bound");
        (directory, path, listener)
    }

    fn said(path: &Path, operation: &str, error: &dyn std::fmt::Display) {
        let expected = format!(
            "{operation} {}: no answer within 20ms (is it a silk-vtep that listens there, and is it stopped?)",
            path.display()
        );
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn who_never_answers_is_given_up() {
        let (_directory, path, _listener) = mute_socket();
        let mut client = Client::connect_for(&path, SHORT).expect("its queue has room");
        let error = client
            .call::<Stats>(&Request::Stats)
            .expect_err("it is mute");
        said(&path, "ask", &error);
        // More than the socket holds.
        let many = vec![Change::Del(Key::Peer([10, 0, 0, 1].into())); 100_000];
        let request = Request::Change(many);
        let error = client
            .call::<Stats>(&request)
            .expect_err("it does not read");
        said(&path, "ask", &error);
    }

    #[test]
    fn a_daemon_that_is_not_there_is_no_error_to_who_only_looks() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("vtep.sock");
        assert!(Client::find(&path).expect("no error").is_none());
        let (control, _) = crate::control::fixtures::control(directory.path());
        let server = crate::control::Server::start(&path, control).expect("the path is free");
        let client = Client::find(&path).expect("no error").expect("it listens");
        let here = Namespace::current().expect("/proc is mounted").id();
        assert_eq!(client.daemon_namespace(), Some(here));
        drop((client, server));
        // A socket without a listener, as a daemon leaves it that was killed.
        drop(std::os::unix::net::UnixListener::bind(&path).expect("the path is free"));
        assert!(Client::find(&path).expect("no error").is_none());
    }

    #[test]
    fn half_an_answer_is_given_up_too() {
        let (_directory, path, listener) = mute_socket();
        let mut client = Client::connect_for(&path, SHORT).expect("its queue has room");
        let (accepted, _) = listener.accept().expect("it is connected");
        accepted.send(b"{\"ok\":").expect("it is connected");
        let error = client.call::<Stats>(&Request::Stats);
        said(&path, "ask", &error.expect_err("the rest never comes"));
    }

    #[test]
    fn who_never_accepts_is_given_up() {
        let (_directory, path, _listener) = mute_socket();
        let _first = Client::connect_for(&path, SHORT).expect("its queue has room for one");
        let error = Client::connect_for(&path, SHORT).expect_err("its queue is full");
        said(&path, "connect to", &error);
    }
}

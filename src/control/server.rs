//! The control socket: answers JSON lines, one thread per connection.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use socket2::Socket;

use super::Control;
use super::capture;
use super::listener::{SocketFile, listen_at};
use super::protocol::{Failure, MAX_REQUEST_BYTES, Reply, Request, Response};
use crate::error::{SetupError, errno};

/// Connections at once. Each costs a thread, and an operator's tools hold a few.
pub const MAX_CONNECTIONS: usize = 64;

/// A client that does not read its answer for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Wait after an accept that failed for want of descriptors or memory, which trying again at once does not mend.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running server. Dropped, it closes every connection, joins its threads and removes the socket.
pub struct Server {
    shared: Arc<Shared>,
    _file: SocketFile,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    listener: Socket,
    control: Arc<Control>,
    stopping: AtomicBool,
    connections: Mutex<Vec<Connection>>,
}

struct Connection {
    stream: UnixStream,
    thread: JoinHandle<()>,
}

impl Server {
    /// Listens at `path`, mode 0600, and makes its directory if there is none. A socket that nobody answers on any more is replaced.
    ///
    /// # Errors
    /// Another process answers at `path`, something else is there, or the path does not do.
    pub fn start(path: &Path, control: Arc<Control>) -> Result<Self, SetupError> {
        let (listener, file) = listen_at(path)?;
        let shared = Arc::new(Shared {
            listener,
            control,
            stopping: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        // Made before the thread, so that a failure to start it cleans up.
        let mut server = Self {
            shared: Arc::clone(&shared),
            _file: file,
            acceptor: None,
        };
        let acceptor = thread::Builder::new().name("control".to_owned());
        let acceptor = acceptor.spawn(move || shared.accept());
        let failed = |error| SetupError::system("start thread", "control", &error);
        server.acceptor = Some(acceptor.map_err(failed)?);
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
        // With the acceptor gone there will be no more of them.
        let connections = std::mem::take(&mut *self.shared.connections.lock());
        for Connection { stream, thread } in connections {
            close(&stream);
            drop(thread.join());
        }
    }
}

impl Shared {
    fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the accept, which then returns EINVAL (unix_accept).
        drop(self.listener.shutdown(std::net::Shutdown::Both));
    }

    fn accept(self: &Arc<Self>) {
        while !self.stopping.load(Ordering::SeqCst) {
            match self.listener.accept() {
                Ok((socket, _)) => self.admit(OwnedFd::from(socket).into()),
                Err(_) if self.stopping.load(Ordering::SeqCst) => return,
                Err(error) => {
                    tracing::warn!("accept control connection: {}", errno(&error));
                    thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    }

    /// Starts a thread for the connection, or turns it away.
    fn admit(self: &Arc<Self>, stream: UnixStream) {
        let mut connections = self.connections.lock();
        connections.retain(|connection| !connection.thread.is_finished());
        let failure = if connections.len() < MAX_CONNECTIONS {
            match self.spawn(&stream) {
                Ok(thread) => return connections.push(Connection { stream, thread }),
                Err(error) => {
                    Failure::new(format_args!("serve control connection: {}", errno(&error)))
                }
            }
        } else {
            Failure::busy(MAX_CONNECTIONS)
        };
        drop(connections);
        turn_away(&stream, &failure);
    }

    fn spawn(&self, stream: &UnixStream) -> io::Result<JoinHandle<()>> {
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let stream = stream.try_clone()?;
        let control = Arc::clone(&self.control);
        let serve = move || {
            if let Err(error) = serve(&control, &stream) {
                tracing::debug!("control connection: {}", errno(&error));
            }
            close(&stream);
        };
        thread::Builder::new()
            .name("control-conn".to_owned())
            .spawn(serve)
    }
}

/// Answers requests until the client hangs up.
fn serve(control: &Control, stream: &UnixStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while read_line(&mut reader, &mut line)? {
        let too_long = line.len() > MAX_REQUEST_BYTES;
        let request = if too_long {
            Err(Failure::new(format!(
                "a request has {MAX_REQUEST_BYTES} bytes at the most"
            )))
        } else {
            parse(&line)
        };
        if let Ok(Request::Capture(request)) = &request {
            return capture::serve(control, stream, request);
        }
        write_line(stream, request.and_then(|request| control.answer(&request)))?;
        if too_long {
            // What follows is the rest of it.
            return Ok(());
        }
    }
    Ok(())
}

fn parse(line: &[u8]) -> Result<Request, Failure> {
    let parsed = serde_json::from_slice(line);
    parsed.map_err(|error| Failure::new(format!("malformed request: {error}")))
}

/// Reads a line without its newline, or [`MAX_REQUEST_BYTES`] and one byte of it. False at the end.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    // A client that once sent much does not keep the memory.
    *line = Vec::new();
    let limit = MAX_REQUEST_BYTES as u64 + 1;
    let read = reader.take(limit).read_until(b'\n', line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(read > 0)
}

fn write_line(mut stream: &UnixStream, response: Result<Reply, Failure>) -> io::Result<()> {
    let mut line = serde_json::to_vec(&Response::from(response))?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Never blocks: the acceptor does this itself.
fn turn_away(stream: &UnixStream, failure: &Failure) {
    let told = stream
        .set_nonblocking(true)
        .and_then(|()| write_line(stream, Err(failure.clone())));
    if let Err(error) = told {
        tracing::debug!("turn away control connection: {}", errno(&error));
    }
}

fn close(stream: &UnixStream) {
    // It fails only if the client has gone already.
    drop(stream.shutdown(std::net::Shutdown::Both));
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use super::*;
    use crate::control::fixtures::{self, peers};
    use crate::control::listener::MAX_PATH_BYTES;
    use crate::control::protocol::{Applied, Show};
    use crate::control::rows::PeerRow;
    use crate::control::{Change, Client};
    use crate::io::capture::CAPTURES_MAX;

    struct Fixture {
        directory: tempfile::TempDir,
        server: Server,
    }

    impl Fixture {
        fn path(&self) -> PathBuf {
            self.directory.path().join("run/vtep.sock")
        }
    }

    fn start() -> Fixture {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("run/vtep.sock");
        let server = start_at(&path, directory.path()).expect("nothing is in its way");
        Fixture { directory, server }
    }

    fn start_at(path: &Path, directory: &Path) -> Result<Server, SetupError> {
        Server::start(path, fixtures::control(directory).0)
    }

    fn refusal(path: &Path, directory: &Path) -> String {
        start_at(path, directory)
            .err()
            .expect("it cannot be bound")
            .to_string()
    }

    fn exchange(stream: &mut BufReader<UnixStream>, line: &[u8]) -> String {
        stream.get_mut().write_all(line).expect("the server reads");
        let mut answer = String::new();
        stream.read_line(&mut answer).expect("the server answers");
        answer
    }

    fn connect(path: &Path) -> BufReader<UnixStream> {
        BufReader::new(UnixStream::connect(path).expect("the server listens"))
    }

    #[test]
    fn a_malformed_line_gets_an_error_and_the_connection_lives_on() {
        let fixture = start();
        let mut stream = connect(&fixture.path());
        let bad: [&[u8]; 7] = [
            b"\n",
            b"  \r\n",
            b"no json\n",
            b"{\"show\":{\"routes\":null}}\n",
            b"\xff\xfe\n",
            b"[1,2\n",
            b"{\"change\":7}\n",
        ];
        for line in bad {
            let answer = exchange(&mut stream, line);
            assert!(
                answer.starts_with("{\"error\":{\"message\":\"malformed request: "),
                "{answer}"
            );
        }
        let answer = exchange(&mut stream, b"{\"show\":{\"peer\":null}}\n");
        assert!(
            answer.starts_with("{\"ok\":[{\"subnets\":[\"10.255.43.0/24\"]"),
            "{answer}"
        );
    }

    #[test]
    fn a_last_line_without_a_newline_is_answered() {
        let fixture = start();
        let mut stream = connect(&fixture.path());
        stream
            .get_mut()
            .write_all(br#"{"route-get":"10.255.43.6"}"#)
            .expect("the server reads");
        stream
            .get_mut()
            .shutdown(std::net::Shutdown::Write)
            .expect("it is open");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .expect("the server answers");
        assert!(answer.contains("\"gateway\":\"10.255.43.0\""), "{answer}");
    }

    #[test]
    fn ten_thousand_peers_are_one_request() {
        let fixture = start();
        let mut client = Client::connect(&fixture.path()).expect("the server listens");
        let changes = peers(10_000).map(Change::Add).collect();
        let applied: Applied = client.call(&Request::Change(changes)).expect("taken");
        assert_eq!(applied.changes, 10_000);
        let rows: Vec<PeerRow> = client
            .call(&Request::Show(Show::Peer(None)))
            .expect("answered");
        assert_eq!(rows.len(), 10_001);
    }

    #[test]
    fn a_refused_change_tells_its_place() {
        let fixture = start();
        let mut stream = connect(&fixture.path());
        let answer = exchange(&mut stream, b"{\"change\":[{\"del\":{\"peer\":\"10.0.16.14\"}},{\"del\":{\"peer\":\"10.9.9.9\"}}]}\n");
        assert_eq!(
            answer,
            "{\"error\":{\"message\":\"no peer 10.9.9.9: `show` tells what there is\",\"change\":1}}\n"
        );
    }

    #[test]
    fn a_request_without_end_is_cut_short() {
        let fixture = start();
        let mut stream = connect(&fixture.path());
        let mut sender = stream.get_ref().try_clone().expect("a descriptor is free");
        let flood = thread::spawn(move || {
            let chunk = vec![b' '; 1 << 20];
            // The server hangs up before the end.
            while sender.write_all(&chunk).is_ok() {}
        });
        let mut answer = String::new();
        stream.read_line(&mut answer).expect("the server answers");
        assert!(
            answer.contains("a request has 67108864 bytes at the most"),
            "{answer}"
        );
        flood.join().expect("it ends when the server hangs up");
    }

    #[test]
    fn connections_are_bounded_and_a_place_is_free_again_when_one_ends() {
        let fixture = start();
        let mut streams: Vec<_> = (0..MAX_CONNECTIONS)
            .map(|_| connect(&fixture.path()))
            .collect();
        let mut one_more = String::new();
        connect(&fixture.path())
            .read_line(&mut one_more)
            .expect("the server answers");
        assert_eq!(
            one_more,
            "{\"error\":{\"message\":\"64 connections are open already\"}}\n"
        );
        let mut last = streams.pop().expect("64 of them");
        assert!(exchange(&mut last, b"\"stats\"\n").starts_with("{\"ok\""));
        // The place is free once the server has seen the end, which it shows by closing its own.
        last.get_mut()
            .shutdown(std::net::Shutdown::Write)
            .expect("it is open");
        assert_eq!(last.read(&mut [0]).expect("closed"), 0);
        // Its thread ends a moment after.
        let answered = (0..100_000).any(|_| {
            thread::yield_now();
            exchange_or_closed(&fixture.path()).starts_with("{\"ok\"")
        });
        assert!(answered);
    }

    fn exchange_or_closed(path: &Path) -> String {
        let mut stream = connect(path);
        // Turned away, it may be closed before we write.
        drop(stream.get_mut().write_all(b"\"stats\"\n"));
        let mut answer = String::new();
        drop(stream.read_line(&mut answer));
        answer
    }

    /// A connection that has become a capture.
    fn capture(path: &Path) -> (BufReader<UnixStream>, String) {
        let mut stream = connect(path);
        let answer = exchange(&mut stream, b"{\"capture\":{\"drops\":true}}\n");
        (stream, answer)
    }

    #[test]
    fn a_capture_is_a_stream_until_its_client_ends_it() {
        let fixture = start();
        let (mut stream, answer) = capture(&fixture.path());
        assert_eq!(
            answer,
            "{\"ok\":{\"ifname\":\"silk-vtep\",\"local\":\"10.0.32.12\",\"port\":4789,\"snap\":2048}}\n"
        );
        let sender = stream.get_mut();
        sender
            .shutdown(std::net::Shutdown::Write)
            .expect("it is open");
        let mut rest = String::new();
        stream.read_to_string(&mut rest).expect("it ends");
        let none = "{\"wanted\":0,\"missed\":0}";
        assert_eq!(
            rest,
            format!("{{\"end\":{{\"egress\":{none},\"ingress\":{none}}}}}\n")
        );
    }

    #[test]
    fn captures_are_few_and_go_with_their_clients() {
        let fixture = start();
        let path = fixture.path();
        let mut running: Vec<_> = (0..CAPTURES_MAX).map(|_| capture(&path)).collect();
        assert!(running.iter().all(|(_, said)| said.starts_with("{\"ok\"")));
        let refused = "{\"error\":{\"message\":\"capture: 4 captures run already\"}}\n";
        assert_eq!(capture(&path).1, refused);
        // Gone without a word, as by kill -9.
        running.pop();
        let started = (0..1000).any(|_| {
            thread::sleep(Duration::from_millis(10));
            capture(&path).1.starts_with("{\"ok\"")
        });
        assert!(started);
        // Those that are left do not keep the server from its end.
        drop(fixture);
    }

    #[test]
    fn the_socket_is_the_owners_alone_and_its_directory_is_made() {
        let fixture = start();
        let mode = |path: &Path| fs::metadata(path).expect("it is there").mode() & 0o7777;
        assert_eq!(mode(&fixture.path()), 0o600);
        assert!(mode(&fixture.directory.path().join("run")) & 0o700 == 0o700);
    }

    #[test]
    fn the_socket_is_gone_after_the_server_even_with_clients_open() {
        let fixture = start();
        let path = fixture.path();
        let Fixture {
            directory: _kept,
            server,
        } = fixture;
        let mut stream = connect(&path);
        assert!(exchange(&mut stream, b"\"stats\"\n").starts_with("{\"ok\""));
        drop(server);
        assert!(!path.exists());
        assert_eq!(stream.read(&mut [0]).expect("closed"), 0);
    }

    #[test]
    fn a_living_daemons_socket_is_not_taken() {
        let fixture = start();
        let error = refusal(&fixture.path(), fixture.directory.path());
        let path = fixture.path();
        let path = path.display();
        let expected =
            format!("bind control socket {path}: EADDRINUSE (another silk-vtep answers on it;");
        assert!(error.starts_with(&expected), "{error}");
        assert!(exchange(&mut connect(&fixture.path()), b"\"stats\"\n").starts_with("{\"ok\""));
    }

    #[test]
    fn a_dead_daemons_socket_is_replaced() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("vtep.sock");
        drop(UnixListener::bind(&path).expect("the directory is ours"));
        assert!(path.exists());
        let _server = start_at(&path, directory.path()).expect("nobody answers");
        assert!(exchange(&mut connect(&path), b"\"stats\"\n").starts_with("{\"ok\""));
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("vtep.sock");
        fs::write(&path, "precious").expect("the directory is ours");
        assert!(refusal(&path, directory.path()).contains("EEXIST (something else is there"));
        assert_eq!(fs::read(&path).expect("still there"), b"precious");
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_told_with_its_length() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("x".repeat(MAX_PATH_BYTES));
        let error = refusal(&path, directory.path());
        assert!(
            error.ends_with("bytes (a socket's has 107 at the most)"),
            "{error}"
        );
    }

    #[test]
    fn another_daemons_socket_is_not_removed_at_the_end() {
        let Fixture { directory, server } = start();
        let path = directory.path().join("run/vtep.sock");
        fs::rename(&path, directory.path().join("moved")).expect("the directory is ours");
        let other = UnixListener::bind(&path).expect("the directory is ours");
        drop(server);
        assert!(UnixStream::connect(&path).is_ok());
        drop(other);
    }
}

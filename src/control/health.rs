//! Silk's health check, which its CNI plugin asks for the cell's network too: `GET http://127.0.0.1:23954/`.
//!
//! ```text
//! {"overlay_subnet":"10.255.108.0/24","mtu":1410}
//! ```
//!
//! Any path and method gets the same answer, so that nothing of a request matters but where it ends. That is why no HTTP library is used:
//! one that serves without an asynchronous runtime has a thread for each connection and lets a slow client keep it, and bounds are all
//! that is needed here. One thread serves all; a visitor has so many bytes and so much time, and when there are too many the one that
//! has been there longest makes room.

mod complaints;
mod request;
mod visitor;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use serde::Serialize;

use super::Control;
use crate::error::{SetupError, errno};
use complaints::Complaints;
use ipnet::IpNet;
use visitor::{Answer, Visitor};

/// Connections at once.
const VISITORS_MAX: usize = 64;
/// How long one may take, all in all. Whoever asks is on this host.
const PATIENCE: Duration = Duration::from_secs(5);
/// Wait after an accept that failed for want of descriptors or memory, which trying again at once does not mend.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Events of one turn: those of all connections, the listener and the waker.
const EVENTS: usize = VISITORS_MAX + 2;

const LISTENER: Token = Token(0);
const STOP: Token = Token(1);
const FIRST_VISITOR: usize = 2;

/// A running server. Dropped, it closes every connection and joins its thread.
pub struct HealthServer {
    address: SocketAddr,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

/// What is told, in Silk's words.
#[derive(Serialize)]
struct Told {
    overlay_subnet: IpNet,
    mtu: u32,
}

impl HealthServer {
    /// Listens at `address`. `holder` tells, for the error, who has the port already.
    ///
    /// # Errors
    /// The address cannot be listened at, this VTEP has no network to tell of, or the thread cannot be started.
    pub fn start(
        address: SocketAddr,
        control: &Control,
        holder: impl FnOnce(u16) -> Option<String>,
    ) -> Result<Self, SetupError> {
        let failed = |cause| SetupError::new("answer health checks at", address.to_string(), cause);
        let answer = answer(control).map_err(failed)?;
        let listener = TcpListener::bind(address).map_err(|error| {
            let failed = failed(errno(&error));
            match error.kind() {
                io::ErrorKind::AddrInUse => {
                    let holder = holder(address.port()).unwrap_or_else(|| "another process".into());
                    failed.mend(format!(
                        "{holder} has the port: stop it, or choose another `health_check`"
                    ))
                }
                io::ErrorKind::AddrNotAvailable => {
                    failed.mend("no link that is up has the address (ip link set lo up?)")
                }
                _ => failed.mend("choose another `health_check`"),
            }
        })?;
        let (server, waker) =
            Serving::new(listener, answer).map_err(|error| failed(errno(&error)))?;
        let address = server.listener.local_addr().unwrap_or(address);
        let thread = thread::Builder::new().name("health".to_owned());
        let thread = thread.spawn(move || server.run());
        let thread =
            thread.map_err(|error| SetupError::system("start thread", "health", &error))?;
        Ok(Self {
            address,
            waker,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for HealthServer {
    fn drop(&mut self) {
        // If it cannot be woken it has already ended.
        drop(self.waker.wake());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// A daemon's subnet and MTU stay as they are while it runs: one answer serves for all.
fn answer(control: &Control) -> Result<Arc<Answer>, String> {
    let network = control.network().map_err(|failure| failure.message)?;
    let told = Told {
        overlay_subnet: network.overlay_subnet,
        mtu: network.mtu,
    };
    let body = serde_json::to_string(&told).map_err(|error| error.to_string())?;
    Ok(Arc::new(Answer::new(&body)))
}

/// The thread's own.
struct Serving {
    poll: Poll,
    listener: TcpListener,
    answer: Arc<Answer>,
    /// In the order in which they came.
    visitors: VecDeque<(Token, Visitor)>,
    next_token: usize,
    /// There may be more to accept, from then on.
    accept_at: Option<Instant>,
    complaints: Complaints,
}

impl Serving {
    fn new(mut listener: TcpListener, answer: Arc<Answer>) -> io::Result<(Self, Waker)> {
        let poll = Poll::new()?;
        let registry = poll.registry();
        registry.register(&mut listener, LISTENER, Interest::READABLE)?;
        let waker = Waker::new(registry, STOP)?;
        let serving = Self {
            poll,
            listener,
            answer,
            visitors: VecDeque::with_capacity(VISITORS_MAX),
            next_token: FIRST_VISITOR,
            accept_at: None,
            complaints: Complaints::default(),
        };
        Ok((serving, waker))
    }

    fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            match self.poll.poll(&mut events, self.timeout(Instant::now())) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return tracing::error!(
                        "health checks are no longer answered: {}",
                        errno(&error)
                    );
                }
                Ok(()) => {}
            }
            let now = Instant::now();
            for event in &events {
                match event.token() {
                    STOP => return,
                    LISTENER => self.accept_at = Some(now),
                    token => self.go_on(token),
                }
            }
            if self.accept_at.is_some_and(|at| at <= now) {
                self.accept(now);
            }
            self.turn_out(now);
        }
    }

    /// Ends the visits that have taken too long.
    fn turn_out(&mut self, now: Instant) {
        self.visitors.retain(|(_, visitor)| visitor.until > now);
    }

    fn timeout(&self, now: Instant) -> Option<Duration> {
        // All have the same time, so that who came first goes first.
        let first = self.visitors.front().map(|(_, visitor)| visitor.until);
        let due = first.into_iter().chain(self.accept_at).min()?;
        Some(due.saturating_duration_since(now))
    }

    /// Lets in as many as there is room for, so that those who are in have their turn before they are turned out.
    fn accept(&mut self, now: Instant) {
        for _ in 0..VISITORS_MAX {
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(stream, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.accept_at = None;
                    return;
                }
                // Of one connection: the next may be well (accept(2)).
                Err(error) if is_transient(&error) => {}
                Err(error) => {
                    self.complain("accept health check", &error, now);
                    self.accept_at = Some(now + ACCEPT_PAUSE);
                    return;
                }
            }
        }
        self.accept_at = Some(now);
    }

    fn admit(&mut self, mut stream: TcpStream, now: Instant) {
        let token = Token(self.next_token);
        self.next_token = self.next_token.wrapping_add(1).max(FIRST_VISITOR);
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = self.poll.registry().register(&mut stream, token, interest);
        if let Err(error) = registered {
            return self.complain("serve health check", &error, now);
        }
        if self.visitors.len() >= VISITORS_MAX {
            self.visitors.pop_front();
        }
        let visitor = Visitor::new(stream, Arc::clone(&self.answer), now + PATIENCE);
        self.visitors.push_back((token, visitor));
        // What came before it was registered is told by no event.
        self.go_on(token);
    }

    fn complain(&mut self, what: &str, error: &io::Error, now: Instant) {
        if let Some(line) = self.complaints.line(what, &errno(error), now) {
            tracing::warn!("{line}");
        }
    }

    fn go_on(&mut self, token: Token) {
        let Some(place) = self.visitors.iter().position(|(held, _)| *held == token) else {
            // It left earlier in this turn.
            return;
        };
        if self.visitors[place].1.go_on().is_break() {
            self.visitors.remove(place);
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
    )
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpStream};

    use super::*;
    use crate::control::fixtures;

    const BODY: &str = r#"{"overlay_subnet":"10.255.108.0/24","mtu":1410}"#;

    fn start() -> (tempfile::TempDir, HealthServer) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (control, _) = fixtures::control(directory.path());
        let server = HealthServer::start(([127, 0, 0, 1], 0).into(), &control, |_| None);
        (directory, server.expect("any port"))
    }

    fn connect(server: &HealthServer) -> TcpStream {
        let stream = TcpStream::connect(server.address()).expect("it listens");
        let patience = Some(4 * PATIENCE);
        stream.set_read_timeout(patience).expect("not zero");
        stream
    }

    fn exchange(server: &HealthServer, request: &[u8]) -> String {
        let mut stream = connect(server);
        stream.write_all(request).expect("it reads");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .expect("it answers and closes");
        answer
    }

    fn whole() -> String {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{BODY}",
            BODY.len()
        )
    }

    #[test]
    fn any_path_and_method_gets_the_network() {
        let (_directory, server) = start();
        for request in [
            "GET / HTTP/1.1\r\nHost: 127.0.0.1:23954\r\nUser-Agent: curl/8\r\nAccept: */*\r\n\r\n",
            "GET /health?x=y HTTP/1.0\r\n\r\n",
            "POST /anything HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
            "BREW * HTTP/1.1\nHost: pot\n\n",
            "\r\nDELETE http://127.0.0.1/ HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(exchange(&server, request.as_bytes()), whole(), "{request}");
        }
    }

    #[test]
    fn head_gets_the_same_without_a_body() {
        let (_directory, server) = start();
        let answer = exchange(&server, b"HEAD / HTTP/1.1\r\n\r\n");
        assert_eq!(answer, whole().strip_suffix(BODY).expect("its end"));
    }

    #[test]
    fn a_request_byte_by_byte_is_answered() {
        let (_directory, server) = start();
        let mut stream = connect(&server);
        stream.set_nodelay(true).expect("TCP has it");
        for byte in b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" {
            stream.write_all(&[*byte]).expect("it reads");
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        assert_eq!(answer, whole());
    }

    #[test]
    fn a_client_that_ends_its_side_first_is_answered() {
        let (_directory, server) = start();
        let mut stream = connect(&server);
        stream
            .write_all(b"GET / HTTP/1.1\r\n\r\n")
            .expect("it reads");
        stream.shutdown(Shutdown::Write).expect("it is open");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        assert_eq!(answer, whole());
    }

    #[test]
    fn a_body_that_nobody_reads_does_not_cost_the_answer() {
        let (_directory, server) = start();
        let mut request = b"PUT / HTTP/1.1\r\nContent-Length: 60000\r\n\r\n".to_vec();
        request.extend([b'x'; 60_000]);
        assert_eq!(exchange(&server, &request), whole());
    }

    #[test]
    fn what_is_no_http_is_told_so() {
        let (_directory, server) = start();
        for request in [
            &b"GET /\r\n\r\n"[..],
            b"\x16\x03\x01\x02\x00\n\n",
            b"PRI * HTTP/2.0\r\n\r\n",
            b"a b c d HTTP/1.1\r\n\r\n",
        ] {
            let answer = exchange(&server, request);
            assert!(
                answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
                "{answer}"
            );
        }
    }

    #[test]
    fn a_request_without_end_is_cut_short() {
        let (_directory, server) = start();
        let mut request = b"GET / HTTP/1.1\r\n".to_vec();
        request.extend([b'x'; 20_000]);
        let answer = exchange(&server, &request);
        assert!(
            answer.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"),
            "{answer}"
        );
    }

    #[test]
    fn who_says_nothing_makes_room_and_keeps_nobody_waiting() {
        let (_directory, server) = start();
        let mut mute: Vec<_> = (0..2 * VISITORS_MAX).map(|_| connect(&server)).collect();
        let ask = b"GET / HTTP/1.1\r\n\r\n";
        assert_eq!(exchange(&server, ask), whole());
        // The first was turned out, the last is in.
        assert_eq!(mute[0].read(&mut [0]).expect("closed"), 0);
        let last = mute.last_mut().expect("many");
        last.write_all(ask).expect("it is in");
        let mut answer = String::new();
        last.read_to_string(&mut answer).expect("it answers");
        assert_eq!(answer, whole());
    }

    #[test]
    fn who_takes_too_long_is_turned_out() {
        let listener = TcpListener::bind(([127, 0, 0, 1], 0).into()).expect("any port");
        let address = listener.local_addr().expect("it is bound");
        let answer = Arc::new(Answer::new(BODY));
        let (mut serving, _waker) = Serving::new(listener, answer).expect("descriptors are free");
        let mut slow = TcpStream::connect(address).expect("it listens");
        slow.write_all(b"GET / HTT").expect("it is open");
        let now = Instant::now();
        assert_eq!(serving.timeout(now), None);
        serving.accept(now);
        assert_eq!(serving.timeout(now), Some(PATIENCE));
        serving.turn_out(now + PATIENCE - Duration::from_nanos(1));
        assert_eq!(serving.visitors.len(), 1);
        serving.turn_out(now + PATIENCE);
        assert_eq!(serving.visitors.len(), 0);
    }

    #[test]
    fn who_resets_the_connection_is_forgotten() {
        let (_directory, server) = start();
        for _ in 0..10 {
            let stream = socket2::Socket::from(connect(&server));
            // Closing it is then a reset.
            stream.set_linger(Some(Duration::ZERO)).expect("TCP has it");
        }
        assert_eq!(exchange(&server, b"GET / HTTP/1.1\r\n\r\n"), whole());
    }

    #[test]
    fn a_port_that_is_taken_is_told_with_its_holder() {
        let (directory, server) = start();
        let (control, _) = fixtures::control(directory.path());
        let told = |holder: Option<&str>| {
            let holder = holder.map(str::to_owned);
            let error = HealthServer::start(server.address(), &control, |_| holder).err();
            error.expect("it is taken").to_string()
        };
        let port = server.address();
        assert_eq!(
            told(Some("process 7 (silk-daemon)")),
            format!(
                "answer health checks at {port}: EADDRINUSE (process 7 (silk-daemon) has the port: stop it, or choose another `health_check`)"
            )
        );
        assert!(told(None).contains("another process has the port"));
    }

    #[test]
    fn the_end_closes_what_is_open() {
        let (_directory, server) = start();
        let mut mute = connect(&server);
        assert_eq!(exchange(&server, b"GET / HTTP/1.1\r\n\r\n"), whole());
        let address = server.address();
        drop(server);
        assert_eq!(mute.read(&mut [0]).expect("closed"), 0);
        TcpStream::connect(address).expect_err("nobody listens");
    }
}

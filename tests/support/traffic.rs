//! Programs that run in containers: ping, a TCP transfer that compares every byte, UDP echo, a numbered UDP stream.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{BOUND, Container, End, Namespace, Noise, Result, ensure, receive_one};

/// Sends pings 10 ms apart, with more arguments to ping(8), until `count` are answered, and wants the first `count` answered.
///
/// Without `-w` ping leaves two round trips after its last request, and on a busy machine calls the late ones lost.
pub(crate) fn ping(from: &Namespace, to: impl Into<IpAddr>, count: u32, arguments: &str) -> Result {
    let to = to.into();
    let said = from.exec(&format!(
        "ping -n -c {count} -i 0.01 -w 10 {arguments} {to}"
    ))?;
    let answered: BTreeSet<u32> = said.lines().filter_map(icmp_seq).collect();
    ensure!(
        (1..=count).all(|seq| answered.contains(&seq)),
        "ping {arguments} {to}: lost some:\n{said}"
    );
    Ok(())
}

/// The number in `64 bytes from 10.255.43.6: icmp_seq=1 ttl=62 time=0.5 ms`.
fn icmp_seq(line: &str) -> Option<u32> {
    let (_, rest) = line.split_once("icmp_seq=")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// An open TCP connection.
pub(crate) struct Connection {
    client: TcpStream,
    server: TcpStream,
    seed: u64,
}

impl Connection {
    /// Connects a socket in `client` to one in `server`.
    pub(crate) fn open(client: &Container, server: &Container) -> Result<Self> {
        Self::between(client.end(), server.end(), SEED)
    }

    /// Connects the two ends. The bytes that will cross are those that `seed` names.
    pub(crate) fn between(client: End<'_>, server: End<'_>, seed: u64) -> Result<Self> {
        let address = server.address;
        let listener = server
            .namespace
            .run(|| Ok(TcpListener::bind((address, 0))?))?;
        let to = listener.local_addr()?;
        let client = client.namespace.run(|| {
            TcpStream::connect_timeout(&to, BOUND)
                .map_err(|error| format!("TCP connect to {to}: {error}").into())
        })?;
        // The handshake is over, so the listener has the connection and does not block.
        let (server, _) = listener.accept()?;
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(BOUND))?;
            stream.set_write_timeout(Some(BOUND))?;
        }
        Ok(Self {
            client,
            server,
            seed,
        })
    }

    /// Has the client send `bytes`, and nobody look for them.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result {
        Ok((&self.client).write_all(bytes)?)
    }

    /// Sends `len` bytes from client to server and compares what arrives.
    pub(crate) fn upload(&self, len: usize) -> Result {
        transfer(&self.client, &self.server, self.seed, len)
            .map_err(|error| format!("client to server: {error}").into())
    }

    /// Sends `len` bytes from server to client and compares what arrives.
    pub(crate) fn download(&self, len: usize) -> Result {
        transfer(&self.server, &self.client, self.seed, len)
            .map_err(|error| format!("server to client: {error}").into())
    }
}

/// Bytes written and compared at once.
const CHUNK_BYTES: usize = 64 << 10;
/// Names the bytes of a connection that is alone.
const SEED: u64 = 0x51_1c;

fn transfer(mut from: &TcpStream, mut to: &TcpStream, seed: u64, len: usize) -> Result {
    let chunks = || {
        (0..len)
            .step_by(CHUNK_BYTES)
            .map(|at| (at, CHUNK_BYTES.min(len - at)))
    };
    thread::scope(|scope| {
        let sender = scope.spawn(move || -> Result {
            let mut noise = Noise::new(seed);
            for (at, size) in chunks() {
                from.write_all(&noise.bytes(size))
                    .map_err(|error| format!("write at {at}: {error}"))?;
            }
            Ok(())
        });
        let mut noise = Noise::new(seed);
        let mut received = vec![0; CHUNK_BYTES];
        for (at, size) in chunks() {
            let received = &mut received[..size];
            to.read_exact(received)
                .map_err(|error| format!("read at {at}: {error}"))?;
            ensure!(
                received == noise.bytes(size),
                "other bytes arrived than were sent, at {at}"
            );
        }
        sender.join().map_err(|_| "the sender panicked")?
    })
}

/// Answers each datagram with itself until dropped.
pub(crate) struct EchoServer {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    worker: Option<JoinHandle<()>>,
}

impl EchoServer {
    /// Starts one in `container`.
    pub(crate) fn start(container: &Container) -> Result<Self> {
        let socket = container.udp()?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let address = socket.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let worker = thread::spawn(move || echo_until(&socket, &stopped));
        Ok(Self {
            address,
            stop,
            worker: Some(worker),
        })
    }
}

fn echo_until(socket: &UdpSocket, stopped: &AtomicBool) {
    let mut buffer = [0; 2048];
    while !stopped.load(Relaxed) {
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            // An answer that cannot be sent shows at the client as one that never came.
            let _ = socket.send_to(&buffer[..len], from);
        }
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let _ = self.worker.take().map(JoinHandle::join);
    }
}

/// Numbered datagrams on their way from one container to another at a bounded rate.
pub(crate) struct NumberedStream {
    sender: JoinHandle<Result>,
    receiver: JoinHandle<Result<Vec<u32>>>,
}

impl NumberedStream {
    /// Starts to send `count` datagrams, one each `interval`.
    pub(crate) fn start(
        from: &Container,
        to: &Container,
        count: u32,
        interval: Duration,
    ) -> Result<Self> {
        let (sending, receiving) = (from.udp()?, to.udp()?);
        sending.connect(receiving.local_addr()?)?;
        Ok(Self {
            receiver: thread::spawn(move || missing_of(&receiving, count)),
            sender: thread::spawn(move || send_numbers(&sending, count, interval)),
        })
    }

    /// True while there is more to send.
    pub(crate) fn is_flowing(&self) -> bool {
        !self.sender.is_finished()
    }

    /// Waits for the end and wants every number.
    pub(crate) fn finish(self) -> Result {
        self.sender.join().map_err(|_| "the sender panicked")??;
        let missing = self
            .receiver
            .join()
            .map_err(|_| "the receiver panicked")??;
        ensure!(
            missing.is_empty(),
            "{} datagrams lost: {missing:?}",
            missing.len()
        );
        Ok(())
    }
}

fn send_numbers(socket: &UdpSocket, count: u32, interval: Duration) -> Result {
    let start = Instant::now();
    for number in 0..count {
        thread::sleep((start + interval * number).saturating_duration_since(Instant::now()));
        socket.send(&number.to_be_bytes())?;
    }
    Ok(())
}

/// Receives until all numbers are there, or none comes for [`BOUND`]; returns those that did not.
fn missing_of(socket: &UdpSocket, count: u32) -> Result<Vec<u32>> {
    let mut missing: BTreeSet<u32> = (0..count).collect();
    let mut number = [0; 4];
    while !missing.is_empty() {
        match receive_one(socket, &mut number) {
            Ok(_) => missing.remove(&u32::from_be_bytes(number)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        };
    }
    Ok(missing.into_iter().collect())
}

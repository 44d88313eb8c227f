//! A TCP connection from one container to the other, both of its ends ours.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use super::ground::End;
use crate::error::{SetupError, errno};

/// For the handshake; a lost SYN is sent again after one second and three.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How late a thread may notice that it is to stop.
const SOCKET_TICK: Duration = Duration::from_millis(100);

/// Both ends of one connection, sender first; neither waits longer than a tick for anything. Sockets stay in the
/// namespace they were made in, whoever uses them.
///
/// # Errors
/// If a namespace cannot be entered, or the containers not connect.
pub(in crate::cli) fn open(
    from: End<'_>,
    to: End<'_>,
) -> Result<(TcpStream, TcpStream), SetupError> {
    let failed = |step| move |error: io::Error| failed((from, to), step, &error);
    let listener = to
        .namespace
        .run(|| TcpListener::bind(SocketAddrV4::new(to.address, 0)))?
        .map_err(failed("listen"))?;
    let address: SocketAddr = listener.local_addr().map_err(failed("listen"))?;
    let sender = from
        .namespace
        .run(|| TcpStream::connect_timeout(&address, CONNECT_PATIENCE))?
        .map_err(failed("connect"))?;
    let receiver = accept(&listener).map_err(failed("accept"))?;
    for socket in [&sender, &receiver] {
        tick(socket).map_err(failed("set timeout"))?;
    }
    Ok((sender, receiver))
}

/// What went wrong between two containers.
pub(in crate::cli) fn failed(
    (from, to): (End<'_>, End<'_>),
    step: &str,
    error: &io::Error,
) -> SetupError {
    let cause = format!("{step}: {}", errno(error));
    SetupError::new(
        "transfer",
        format!("{} -> {}", from.address, to.address),
        cause,
    )
}
fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    // SO_RCVTIMEO holds for accept(2) too.
    SockRef::from(listener).set_read_timeout(Some(CONNECT_PATIENCE))?;
    listener.accept().map(|(stream, _)| stream)
}

fn tick(socket: &TcpStream) -> io::Result<()> {
    socket.set_read_timeout(Some(SOCKET_TICK))?;
    socket.set_write_timeout(Some(SOCKET_TICK))
}

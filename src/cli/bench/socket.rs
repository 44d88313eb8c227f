//! UDP sockets of load generators.

use std::io;
use std::net::{SocketAddrV4, UdpSocket};
use std::time::Duration;

use crate::cli::lab::ground::End;
use crate::error::{SetupError, errno};
use crate::sys::udp;

/// How late a receiving thread may notice that it is to stop.
const TICK: Duration = Duration::from_millis(20);
/// Room for what arrives while the receiving thread waits for a CPU: that is not the dataplane's loss. Some 5,000
/// small ones; the default holds 300.
const RECEIVE_BUFFER_BYTES: i32 = 2 << 20;

/// A socket in `from` connected to one in `to`. Sockets stay in the namespace they were made in, whoever uses them.
///
/// # Errors
/// If a namespace cannot be entered or a socket not be made.
pub(super) fn pair(from: End<'_>, to: End<'_>) -> Result<(UdpSocket, UdpSocket), SetupError> {
    let receiver = make(to)?;
    let sender = make(from)?;
    receiver
        .local_addr()
        .and_then(|address| sender.connect(address))
        .map_err(|error| failed("connect", &error))?;
    Ok((sender, receiver))
}

/// What went wrong with a socket.
pub(super) fn failed(step: &str, error: &io::Error) -> SetupError {
    SetupError::new(
        "send and receive",
        "UDP",
        format_args!("{step}: {}", errno(error)),
    )
}

/// `None` for what says nothing about the path: the socket's tick passed, a signal came, a queue was full, or the
/// answer to an earlier datagram found its socket closed.
pub(super) fn quiet<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_passing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, Interrupted, WouldBlock};
    matches!(error.kind(), WouldBlock | Interrupted | ConnectionRefused)
        || error.raw_os_error() == Some(libc::ENOBUFS)
}

fn make(end: End<'_>) -> Result<UdpSocket, SetupError> {
    let socket = end
        .namespace
        .run(|| UdpSocket::bind(SocketAddrV4::new(end.address, 0)))?
        .map_err(|error| failed("bind", &error))?;
    socket
        .set_read_timeout(Some(TICK))
        .map_err(|error| failed("set timeout", &error))?;
    // Past net.core.rmem_max, for those who may; the others get what that allows.
    for option in [libc::SO_RCVBUF, libc::SO_RCVBUFFORCE] {
        let _ = udp::set_option(&socket, libc::SOL_SOCKET, option, RECEIVE_BUFFER_BYTES);
    }
    Ok(socket)
}

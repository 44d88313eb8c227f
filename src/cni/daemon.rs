//! What is asked of the daemon and told to it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::attachment::Attachment;
use super::config::{Config, DaemonAddress};
use super::error::CniError;
use crate::control::Client;
use crate::control::LocalContainer;
use crate::control::client::ClientError;
use crate::control::container::{Added, ContainerKey, ContainerRequest, ContainerRow, Removed};
use crate::control::protocol::{Network, Request};
use crate::error::{SetupError, errno};
use crate::io::run_max_segs;
use crate::netlink::VETH_MTU_BYTES;
use crate::netlink::container::host_name;

/// Silk's word for the first question.
const DISCOVER: &str = "discover network info";
/// Ours for what Silk's daemon is not told.
const REGISTER: &str = "register container";
/// How long a daemon that serves as many as it can is asked again: two hundred plugins at once are through in a second or two.
const BUSY_PATIENCE: Duration = Duration::from_secs(20);
/// Pause between two attempts.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// How long the HTTP answer may take in all. It is a line.
const HTTP_PATIENCE: Duration = Duration::from_secs(5);
/// What Silk answers has not a hundred bytes.
const HTTP_BYTES_MAX: u64 = 64 << 10;

/// What a container's link is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wiring {
    pub(super) mtu_bytes: u32,
    pub(super) gso_max_segs: Option<u32>,
}

impl Wiring {
    /// The daemon's, unless the configuration has another MTU.
    pub(super) fn of(config: &Config, network: &Network) -> Self {
        let mtu_bytes = config.mtu_bytes.unwrap_or(network.mtu);
        // A smaller MTU lets more segments into one send.
        let segments = |of_device| match mtu_bytes == network.mtu {
            true => of_device,
            false => run_max_segs(mtu_bytes),
        };
        Self {
            mtu_bytes,
            gso_max_segs: network.gso_max_segs.map(segments),
        }
    }
}

/// Asks for the cell's subnet and MTU.
///
/// # Errors
/// The daemon is not there, or does not answer as it should.
pub(super) fn discover(address: &DaemonAddress) -> Result<Network, CniError> {
    let network = match (address.port, &address.socket) {
        (Some(port), _) => by_http(port).map_err(|error| CniError::step(DISCOVER, error)),
        (None, Some(socket)) => {
            ask(socket, &Request::Network).map_err(|error| CniError::daemon(DISCOVER, &error))
        }
        (None, None) => Err(CniError::step(
            DISCOVER,
            "neither `socket` nor `daemonPort`",
        )),
    }?;
    if VETH_MTU_BYTES.contains(&network.mtu) {
        return Ok(network);
    }
    let details = format!("the daemon's mtu is {}: no link takes that", network.mtu);
    Err(CniError::step(DISCOVER, details))
}

/// Whether our daemon will take addresses of the configured `subnet6`. Silk's has none, and is told of none.
///
/// # Errors
/// It will not, or does not answer.
pub(super) fn check_subnet6(config: &Config, network: &Network) -> Result<(), CniError> {
    let (Some(wanted), Some(socket)) = (config.subnet6, &config.daemon.socket) else {
        return Ok(());
    };
    let of_cell = match config.daemon.port {
        None => network.overlay_subnet6,
        // Over HTTP there was no word of it.
        Some(_) => {
            let network: Network = ask(socket, &Request::Network)
                .map_err(|error| CniError::daemon(DISCOVER, &error))?;
            network.overlay_subnet6
        }
    };
    let wrong = match of_cell {
        Some(of_cell) if of_cell.contains(&wanted) => return Ok(()),
        Some(of_cell) => format!("`subnet6` {wanted} is not inside the cell's, {of_cell}"),
        None => format!(
            "`subnet6` {wanted}: the cell has no IPv6 subnet (the daemon needs an IPv6 `address`)"
        ),
    };
    Err(CniError::config(wrong))
}

/// Whether our daemon is there to be told of containers, where another question than its own was answered first.
///
/// # Errors
/// It is not, or does not answer.
pub(super) fn check_is_there(address: &DaemonAddress) -> Result<(), CniError> {
    let (Some(_), Some(socket)) = (address.port, &address.socket) else {
        return Ok(());
    };
    let answer = ask::<Network>(socket, &Request::Network);
    answer
        .map(drop)
        .map_err(|error| CniError::daemon(REGISTER, &error))
}

/// Tells our daemon that a container was wired. A daemon that is known by its port alone may be Silk's, and is told nothing; ours finds
/// such containers in the kernel.
///
/// # Errors
/// It is not there, or does not take the container.
pub(super) fn register(
    config: &Config,
    who: &Attachment,
    netns: &str,
    (address, more): (Ipv4Addr, Option<IpAddr>),
) -> Result<(), CniError> {
    let Some(socket) = &config.daemon.socket else {
        return Ok(());
    };
    for address_of_it in [Some(IpAddr::from(address)), more].into_iter().flatten() {
        let container = LocalContainer {
            id: Some(who.container_id.clone()),
            ifname: Some(who.ifname.clone()),
            address: address_of_it,
            netns: Some(netns.to_owned()),
            host_link: host_name(address),
        };
        let request = Request::Container(ContainerRequest::Add(container));
        let added: Added =
            ask(socket, &request).map_err(|error| CniError::daemon(REGISTER, &error))?;
        added.warnings.iter().for_each(super::note);
    }
    Ok(())
}

/// Tells our daemon that containers are gone, with all the addresses of each. One that cannot be told finds out at its next start.
///
/// By address and not by attachment, which another network may have as well.
pub(super) fn forget(config: &Config, addresses: &[Ipv4Addr]) {
    let Some(socket) = &config.daemon.socket else {
        return;
    };
    for &address in addresses {
        let key = ContainerKey::Address {
            address: address.into(),
        };
        let request = Request::Container(ContainerRequest::Del(key));
        match ask::<Removed>(socket, &request) {
            Ok(removed) => removed.warnings.iter().for_each(super::note),
            // It is not there: nothing to tell.
            Err(ClientError::Socket(_)) => return,
            Err(error) => super::note(error),
        }
    }
}

/// The containers our daemon knows; `None` if nobody says that there is one.
///
/// # Errors
/// It is not there, or does not answer.
pub(super) fn containers(config: &Config) -> Result<Option<Vec<ContainerRow>>, CniError> {
    let Some(socket) = &config.daemon.socket else {
        return Ok(None);
    };
    let rows = ask(socket, &Request::Container(ContainerRequest::List));
    rows.map(Some)
        .map_err(|error| CniError::daemon("list containers", &error))
}

/// One question on one connection: a daemon has few of them.
fn ask<T: DeserializeOwned>(socket: &Path, request: &Request) -> Result<T, ClientError> {
    let deadline = Instant::now() + BUSY_PATIENCE;
    loop {
        let answer = connect(socket)
            .map_err(ClientError::from)
            .and_then(|mut client| client.call(request));
        match answer {
            Err(ClientError::Refused(failure))
                if failure.is_busy() && Instant::now() < deadline =>
            {
                thread::sleep(BUSY_PAUSE);
            }
            answer => return answer,
        }
    }
}

fn connect(socket: &Path) -> Result<Client, SetupError> {
    Client::find(socket)?.ok_or_else(|| {
        // The client's own mend has options that runtimes do not give.
        SetupError::new("connect to", socket.display().to_string(), "nobody listens").mend(
            "is silk-vtep running? `socket` in the network's configuration says which one to ask",
        )
    })
}

/// What Silk's daemon, and ours at its health check, say.
#[derive(Deserialize)]
struct HealthAnswer {
    overlay_subnet: IpNet,
    mtu: u32,
}

fn by_http(port: u16) -> Result<Network, SetupError> {
    let url = format!("http://127.0.0.1:{port}/");
    let failed = |cause: String| SetupError::new("ask", &url, cause);
    let text = get(port).map_err(|error| {
        let mend = match error.kind() {
            io::ErrorKind::ConnectionRefused => "is the daemon running, and is that its port?",
            _ => "",
        };
        failed(errno(&error)).mend(mend)
    })?;
    let body = body_of(&text).map_err(failed)?;
    let answer: HealthAnswer = serde_json::from_str(body)
        .map_err(|error| failed(format!("not the answer expected: {error}")))?;
    Ok(Network {
        overlay_subnet: answer.overlay_subnet,
        overlay_subnet6: None,
        mtu: answer.mtu,
        // It does not say; with a kernel device this costs nothing that shows.
        gso_max_segs: Some(run_max_segs(answer.mtu)),
    })
}

/// One bounded request over the loopback, which is all that an HTTP library would be here for. HTTP/1.0, so that the answer ends with the
/// connection and comes in one piece.
fn get(port: u16) -> io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let deadline = Instant::now() + HTTP_PATIENCE;
    let mut stream = TcpStream::connect_timeout(&address, HTTP_PATIENCE)?;
    stream.set_write_timeout(Some(HTTP_PATIENCE))?;
    stream.write_all(format!("GET / HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
    while (answer.len() as u64) < HTTP_BYTES_MAX {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&chunk[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
            }
            Err(error) => return Err(error),
        }
    }
    String::from_utf8(answer).map_err(|_| io::Error::other("the answer is no text"))
}

/// The body of a successful answer.
fn body_of(answer: &str) -> Result<&str, String> {
    let status = answer.lines().next().unwrap_or_default();
    let mut words = status.split(' ');
    let is_http = words.next().is_some_and(|word| word.starts_with("HTTP/1."));
    if !is_http {
        return Err("not an HTTP answer".to_owned());
    }
    if words.next() != Some("200") {
        return Err(format!("it answered `{status}`"));
    }
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
    body.ok_or_else(|| "an answer that was cut off".to_owned())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Answers one request with `answer`, and gives what was asked.
    fn answered(answer: &'static str) -> (Result<Network, String>, String) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        thread::scope(|scope| {
            let server = scope.spawn(move || {
                let (mut stream, _) = listener.accept().expect("it listens");
                let mut request = [0; 1024];
                let length = stream.read(&mut request).expect("a request");
                stream.write_all(answer.as_bytes()).expect("it reads");
                String::from_utf8_lossy(&request[..length]).into_owned()
            });
            let network = by_http(port).map_err(|error| error.to_string());
            (network, server.join().expect("no panic"))
        })
    }

    #[test]
    fn silks_daemon_is_understood() {
        let (network, request) = answered(
            "HTTP/1.0 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{\"overlay_subnet\":\"10.255.30.0/24\",\"mtu\":1410}",
        );
        let network = network.expect("it is the answer");
        assert_eq!(network.overlay_subnet.to_string(), "10.255.30.0/24");
        assert_eq!((network.mtu, network.gso_max_segs), (1410, Some(45)));
        assert!(request.starts_with("GET / HTTP/1.0\r\n"), "{request}");
    }

    #[test]
    fn anything_else_is_an_error() {
        for (answer, said) in [
            ("", "not an HTTP answer"),
            ("SSH-2.0-x\r\n", "not an HTTP answer"),
            (
                "HTTP/1.1 500 Internal Server Error\r\n\r\n",
                "it answered `HTTP/1.1 500",
            ),
            ("HTTP/1.1 200 OK\r\n", "cut off"),
            ("HTTP/1.1 200 OK\r\n\r\n<html>", "not the answer expected"),
            (
                "HTTP/1.1 200 OK\r\n\r\n{\"overlay_subnet\":\"10.255.30.0/24\",\"mtu\":\"1410\"}",
                "not the answer",
            ),
            (
                "HTTP/1.1 200 OK\r\n\r\n{\"overlay_subnet\":\"10.255.30.0\",\"mtu\":1410}",
                "not the answer",
            ),
        ] {
            let error = answered(answer).0.expect_err("it is wrong");
            assert!(error.contains(said), "{answer}: {error}");
        }
    }

    #[test]
    fn nobody_there_is_told() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        let error = by_http(port).expect_err("nobody listens").to_string();
        assert!(
            error.contains("ECONNREFUSED (is the daemon running"),
            "{error}"
        );
    }
}

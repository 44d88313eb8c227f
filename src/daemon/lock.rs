//! One daemon per network namespace and name.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::error::SetupError;

/// Held while the daemon lives: a name in the abstract Unix socket namespace, which is the network namespace's own. The kernel gives it
/// back however the process ends, and no file is left to go stale.
#[derive(Debug)]
pub(super) struct Lock {
    _socket: UnixDatagram,
}

impl Lock {
    /// Takes the name `name` in the caller's network namespace.
    ///
    /// # Errors
    /// Another daemon has it.
    pub(super) fn acquire(name: &str) -> Result<Self, SetupError> {
        SocketAddr::from_abstract_name(format!("silk-vtep/{name}"))
            .and_then(|address| UnixDatagram::bind_addr(&address))
            .map(|socket| Self { _socket: socket })
            .map_err(|error| refused(name, &error))
    }
}

fn refused(name: &str, error: &io::Error) -> SetupError {
    let failed = SetupError::system("lock", name, error);
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            failed.mend("another silk-vtep of this name runs in this network namespace: stop it, or give another `name`")
        }
        _ => failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_held_until_it_is_let_go() {
        let name = format!("lock-test-{}", std::process::id());
        let held = Lock::acquire(&name).expect("free");
        let refused = Lock::acquire(&name).expect_err("held");
        assert!(
            refused
                .to_string()
                .contains("another silk-vtep of this name"),
            "{refused}"
        );
        drop(held);
        Lock::acquire(&name).expect("free again");
    }
}

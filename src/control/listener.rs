//! The control socket's place in the file system: who may have it, and its mode.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::error::{SetupError, errno};

/// `sun_path` is 108 bytes and ends with a NUL (unix(7)).
pub(super) const MAX_PATH_BYTES: usize = 107;
/// Length of the kernel's queue of connections not yet accepted.
const BACKLOG: i32 = 64;

/// Listens at `path`, mode 0600, and makes its directory if there is none. A socket that nobody answers on any more is replaced.
///
/// # Errors
/// Another process answers at `path`, something else is there, or the path does not do.
pub(super) fn listen_at(path: &Path) -> Result<Socket, SetupError> {
    let refuse = |error| refused(path, errno(&error));
    let length = path.as_os_str().len();
    if length > MAX_PATH_BYTES {
        let cause = format!("the path has {length} bytes");
        return Err(
            refused(path, cause).mend(format!("a socket's has {MAX_PATH_BYTES} at the most"))
        );
    }
    make_directory(path).map_err(refuse)?;
    clear(path)?;
    listen(path).map_err(refuse)
}

fn make_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() && !parent.exists() => {
            DirBuilder::new().recursive(true).mode(0o755).create(parent)
        }
        _ => Ok(()),
    }
}

/// Removes the socket of a daemon that is gone.
fn clear(path: &Path) -> Result<(), SetupError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused(path, errno(&error))),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(
                refused(path, "EEXIST").mend("something else is there, and it is no socket")
            );
        }
        Ok(_) => {}
    }
    let mend = match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return fs::remove_file(path).map_err(|error| refused(path, errno(&error)));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => format!(
            "a socket is there, and connecting to it fails with {}",
            errno(&error)
        ),
        Ok(_) => {
            "another silk-vtep answers on it; stop that one, or choose another path with --socket"
                .to_owned()
        }
    };
    Err(refused(path, "EADDRINUSE").mend(mend))
}

pub(super) fn refused(path: &Path, cause: impl std::fmt::Display) -> SetupError {
    SetupError::new("bind control socket", path.display().to_string(), cause)
}

fn listen(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The file gets the mode of the socket itself, less the umask (unix_bind_bsd): it is never there with another.
    let file = File::from(OwnedFd::from(socket));
    file.set_permissions(Permissions::from_mode(0o600))?;
    let socket = Socket::from(OwnedFd::from(file));
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

//! The control socket's place in the file system: who may have it, and its mode.

use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::client::connect_within;
use crate::error::{SetupError, errno};

const OPERATION: &str = "bind control socket";
/// `sun_path` is 108 bytes and ends with a NUL (unix(7)).
pub(super) const MAX_PATH_BYTES: usize = 107;
/// Length of the kernel's queue of connections not yet accepted.
const BACKLOG: i32 = 64;
/// Whoever has no room for one more connection for so long is there, and does not answer.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);

/// The socket's file. Dropped, it is removed, unless another daemon's has taken its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

/// Listens at `path`, mode 0600, and makes its directory if there is none. A socket that nobody answers on any more is replaced.
///
/// # Errors
/// Another process answers at `path`, something else is there, or the path does not do.
pub(super) fn listen_at(path: &Path) -> Result<(Socket, SocketFile), SetupError> {
    let refuse = |error| {
        let failed = SetupError::system(OPERATION, path.display().to_string(), &error);
        failed.or_mend("choose another path with --socket")
    };
    let length = path.as_os_str().len();
    if length > MAX_PATH_BYTES {
        let cause = format!("the path has {length} bytes");
        return Err(
            refused(path, cause).mend(format!("a socket's has {MAX_PATH_BYTES} at the most"))
        );
    }
    make_directory(path).map_err(refuse)?;
    clear(path)?;
    Socket::new(Domain::UNIX, Type::STREAM, None)
        .and_then(|socket| listen(socket, path))
        .map_err(refuse)
}

impl SocketFile {
    /// The file that was made at `path` this moment.
    fn made_at(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path).inspect_err(|_| drop(fs::remove_file(path)))?;
        Ok(Self {
            path: path.to_owned(),
            identity: identity(&metadata),
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let found = fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| identity(&found) == self.identity) {
            // What cannot be removed the next start replaces.
            drop(fs::remove_file(&self.path));
        }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
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
    let mend = match connect_within(path, PROBE_PATIENCE) {
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
    SetupError::new(OPERATION, path.display().to_string(), cause)
}

fn listen(socket: Socket, path: &Path) -> io::Result<(Socket, SocketFile)> {
    // The file gets the mode of the socket itself, less the umask (unix_bind_bsd): it is never there with another.
    let file = File::from(OwnedFd::from(socket));
    file.set_permissions(Permissions::from_mode(0o600))?;
    let socket = Socket::from(OwnedFd::from(file));
    socket.bind(&SockAddr::unix(path)?)?;
    let made = SocketFile::made_at(path)?;
    socket.listen(BACKLOG)?;
    Ok((socket, made))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_cannot_listen_leaves_no_file() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("vtep.sock");
        // It can be bound, but not listen (EOPNOTSUPP).
        let datagrams = Socket::new(Domain::UNIX, Type::DGRAM, None).expect("a descriptor is free");
        let error = listen(datagrams, &path).expect_err("it has no connections");
        assert_eq!(errno(&error), "EOPNOTSUPP");
        assert!(!path.exists());
    }
}

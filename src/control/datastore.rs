//! Silk's own record of its containers, `store.json`: read at a start, never written here.
//!
//! ```text
//! {"web":{"handle":"4f1c","ip":"10.255.108.184","metadata":null}}        the keys are the last part of each namespace's path
//! ```
//!
//! Its writers hold a lock (flock) on the file itself while they change it in place.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use serde::Deserialize;

use crate::error::{SetupError, errno};

/// A container of the datastore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The runtime's id of it.
    pub id: String,
    /// Its overlay address.
    pub address: IpAddr,
    /// The last part of its namespace's path, where that names one: `/proc/PID/ns/net` leaves only `net`.
    pub netns: Option<String>,
}

/// Bytes of a file that is read; ten thousand containers take about one million.
const BYTES_MAX: u64 = 16 << 20;
/// Times the lock is tried for: a second in all. Its holders write a few kilobytes.
const LOCK_ATTEMPTS: usize = 100;
/// Pause between two.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// One value; what else there is in it is its writers' own.
#[derive(Deserialize)]
struct Value {
    handle: String,
    ip: IpAddr,
}

/// The containers in the file at `path`; none if there is no file, or nothing in it.
///
/// # Errors
/// It cannot be read, is locked for a second, or is no datastore.
pub fn read(path: &Path) -> Result<Vec<Stored>, SetupError> {
    let failed = |cause: String| {
        SetupError::new("read datastore", path.display().to_string(), cause)
            .mend("starting without it; correct `datastore`, or mend the file")
    };
    let mut text = String::new();
    match open(path).and_then(|file| (&*file).take(BYTES_MAX + 1).read_to_string(&mut text)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(errno(&error))),
        Ok(_) if text.len() as u64 > BYTES_MAX => {
            return Err(failed(format!("it has more than {BYTES_MAX} bytes")));
        }
        Ok(_) => {}
    }
    parse(&text).map_err(|error| failed(error.to_string()))
}

fn open(path: &Path) -> io::Result<Flock<File>> {
    // A FIFO in its place must not block us.
    let mut options = OpenOptions::new();
    let mut file = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    for _ in 0..LOCK_ATTEMPTS {
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(locked) => return Ok(locked),
            Err((unlocked, nix::errno::Errno::EWOULDBLOCK)) => file = unlocked,
            Err((_, error)) => return Err(error.into()),
        }
        thread::sleep(LOCK_PAUSE);
    }
    Err(io::Error::from(nix::errno::Errno::EWOULDBLOCK))
}

/// An empty file and `null` are what a datastore may be before its first container.
fn parse(text: &str) -> Result<Vec<Stored>, serde_json::Error> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let values: Option<BTreeMap<String, Value>> = serde_json::from_str(text)?;
    let stored = values.into_iter().flatten().map(|(key, value)| Stored {
        id: value.handle,
        address: value.ip,
        netns: (key != "net").then_some(key),
    });
    Ok(stored.collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn reads_what_silk_writes() {
        let text = concat!(
            r#"{"net":{"handle":"b","ip":"10.255.108.3","metadata":{"app_id":"x"}},"#,
            r#""web":{"handle":"a","ip":"10.255.108.2","metadata":null}}"#,
            "\n"
        );
        let stored = |id: &str, last, netns: Option<&str>| Stored {
            id: id.to_owned(),
            address: [10, 255, 108, last].into(),
            netns: netns.map(str::to_owned),
        };
        let read = parse(text).expect("it is Silk's");
        assert_eq!(read, [stored("b", 3, None), stored("a", 2, Some("web"))]);
    }

    #[test]
    fn what_holds_nothing_is_no_error() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("store.json");
        assert_eq!(read(&path), Ok(vec![]));
        for text in ["", "\n", "null\n", "{}\n"] {
            fs::write(&path, text).expect("the directory is ours");
            assert_eq!(read(&path), Ok(vec![]), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_datastore_is_told() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("store.json");
        for text in [
            r#"{"web":{"handle":"a","#,
            "[]",
            r#"{"web":{"handle":"a","ip":"x"}}"#,
        ] {
            fs::write(&path, text).expect("the directory is ours");
            let error = read(&path).expect_err(text).to_string();
            assert!(error.starts_with("read datastore "), "{error}");
        }
        let error = read(directory.path()).expect_err("a directory").to_string();
        assert!(error.contains("EISDIR"), "{error}");
    }

    #[test]
    fn a_file_whose_writer_never_ends_is_given_up() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("store.json");
        let file = File::create(&path).expect("the directory is ours");
        let held = Flock::lock(file, FlockArg::LockExclusive).expect("nobody else has it");
        let error = read(&path).expect_err("it is locked").to_string();
        assert!(error.contains("EAGAIN"), "{error}");
        drop(held);
        assert_eq!(read(&path), Ok(vec![]));
    }
}

//! What one run calls its own on this host: a tag, a directory, namespaces named after the tag.

use std::fs::{self, DirBuilder};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::{SetupError, errno};
use crate::netlink::{NamedNamespace, Namespace};

/// On tmpfs, root's, and short enough for the path of a Unix socket (108 bytes).
const PARENT: &str = "/run";
/// Of 65,536 tags; so many in a row are taken only if something else is wrong.
const ATTEMPTS: usize = 16;

/// The directory that holds one run's tag, removed when dropped, and what was made under that tag.
#[derive(Debug)]
pub(in crate::cli) struct Scratch {
    command: &'static str,
    tag: String,
    directory: PathBuf,
    /// Kept open until the last look: an open namespace's number is not given to another.
    made: Vec<Namespace>,
}

impl Scratch {
    /// Takes a tag that no other run of `command` (`demo`, `bench`) has.
    ///
    /// # Errors
    /// Without root's right to write under /run.
    pub(in crate::cli) fn claim(command: &'static str) -> Result<Self, SetupError> {
        let mut refused = None;
        for _ in 0..ATTEMPTS {
            let tag = format!("sv-{command}-{:04x}", random());
            let directory = Path::new(PARENT).join(&tag);
            match make(&directory) {
                Ok(()) => {
                    return Ok(Self {
                        command,
                        tag,
                        directory,
                        made: Vec::new(),
                    });
                }
                Err(error) => refused = Some((directory, error)),
            }
            if refused
                .as_ref()
                .is_some_and(|(_, error)| error.kind() != io::ErrorKind::AlreadyExists)
            {
                break;
            }
        }
        let (directory, error) =
            refused.unwrap_or_else(|| (PARENT.into(), io::ErrorKind::AlreadyExists.into()));
        Err(failed("create directory", &directory, &error).mend(mend(command)))
    }

    /// What all names of this run begin with: `sv-demo-3f9a`.
    pub(in crate::cli) fn tag(&self) -> &str {
        &self.tag
    }

    /// Makes the namespace `sv-demo-3f9a-<role>`.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN.
    pub(in crate::cli) fn namespace(&mut self, role: &str) -> Result<NamedNamespace, SetupError> {
        let name = format!("{}-{role}", self.tag);
        let namespace =
            NamedNamespace::create(&name).map_err(|error| match error.cause.contains("EPERM") {
                true => error.mend(mend(self.command)),
                false => error,
            })?;
        self.made.push(Namespace::clone(&namespace));
        Ok(namespace)
    }

    /// Makes a directory of this run's, for root alone.
    ///
    /// # Errors
    /// If the file system refuses.
    pub(in crate::cli) fn directory(&self, name: &str) -> Result<PathBuf, SetupError> {
        let directory = self.directory.join(name);
        make(&directory).map_err(|error| failed("create directory", &directory, &error))?;
        Ok(directory)
    }

    /// The namespaces made that still have a name, or a process in them.
    ///
    /// # Errors
    /// If /proc cannot be read.
    pub(in crate::cli) fn left_behind(&self) -> Result<Vec<String>, SetupError> {
        let occupied = occupied().map_err(|error| failed("list", Path::new("/proc"), &error))?;
        let is_left = |namespace: &&Namespace| {
            let id = namespace.id();
            Namespace::open(namespace.label()).is_ok() || occupied.contains(&(id.device, id.inode))
        };
        Ok(self
            .made
            .iter()
            .filter(is_left)
            .map(|namespace| namespace.label().to_owned())
            .collect())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            crate::cli::warn(failed("remove directory", &self.directory, &error));
        }
    }
}

fn mend(command: &str) -> String {
    format!("needs root: sudo silk-vtep {command}")
}

fn make(directory: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(directory)
}

fn failed(operation: &str, path: &Path, error: &io::Error) -> SetupError {
    SetupError::new(operation, path.display().to_string(), errno(error))
}

/// Sixteen bits that two runs are unlikely to share: the keys of a hash map are random.
fn random() -> u64 {
    RandomState::new().build_hasher().finish() & 0xffff
}

/// The network namespaces that processes are in, by device and inode.
fn occupied() -> io::Result<Vec<(u64, u64)>> {
    let namespace_of = |process: fs::DirEntry| {
        // Others than processes have none; processes may end while we look.
        let namespace = fs::metadata(process.path().join("ns/net")).ok()?;
        Some((namespace.dev(), namespace.ino()))
    };
    Ok(fs::read_dir("/proc")?
        .filter_map(Result::ok)
        .filter_map(namespace_of)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_namespace_is_seen_to_be_occupied() {
        let here = Namespace::current().expect("/proc is mounted").id();
        let occupied = occupied().expect("/proc is mounted");
        assert!(occupied.contains(&(here.device, here.inode)));
    }
}

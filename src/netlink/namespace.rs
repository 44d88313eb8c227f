//! A network namespace, and work done inside it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};

use crate::error::{SetupError, errno, shortage};
use crate::sys;

/// Where iproute2 keeps its named namespaces.
pub(super) const NAMED_DIR: &str = "/run/netns";
/// The calling thread's own: setns(2) is per thread, so `/proc/self` would be another's.
pub(super) const OWN: &str = "/proc/thread-self/ns/net";

/// Which namespace it is: two descriptors are the same namespace if these are equal (namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NamespaceId {
    /// Device of the nsfs inode.
    pub device: u64,
    /// Its inode, as `ls -i /run/netns` and `readlink /proc/PID/ns/net` show it.
    pub inode: u64,
}

/// An open network namespace; it lives while this does, whoever else leaves it.
#[derive(Debug, Clone)]
pub struct Namespace {
    file: Arc<File>,
    id: NamespaceId,
    label: String,
}

impl Namespace {
    /// Opens a namespace by name (as `ip netns` lists it) or, with a `/` in it, by path.
    ///
    /// # Errors
    /// If there is none of that name, it may not be opened, or it is no network namespace.
    pub fn open(name_or_path: &str) -> Result<Self, SetupError> {
        let path = if name_or_path.contains('/') {
            PathBuf::from(name_or_path)
        } else {
            Path::new(NAMED_DIR).join(name_or_path)
        };
        Self::open_path(&path, name_or_path)
    }

    /// The calling thread's network namespace.
    ///
    /// # Errors
    /// If `/proc` is not mounted.
    pub fn current() -> Result<Self, SetupError> {
        Self::open_path(Path::new(OWN), "current")
    }

    /// A new namespace that nobody else sees: it has no name, and goes when this is dropped.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN, or if the kernel has no namespaces.
    pub fn unnamed() -> Result<Self, SetupError> {
        on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| {
                let mend = match errno {
                    Errno::EPERM => "needs CAP_SYS_ADMIN: run as root",
                    _ => "the kernel lacks network namespaces (CONFIG_NET_NS), or /proc/sys/user/max_net_namespaces is reached",
                };
                let cause = format!("unshare: {errno:?}");
                SetupError::new("create network namespace", "unnamed", cause).mend(mend)
            })?;
            Self::open_path(Path::new(OWN), "unnamed")
        })
    }

    /// Which namespace this is.
    #[must_use]
    pub fn id(&self) -> NamespaceId {
        self.id
    }

    /// The name or path it was opened by.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Runs `work` inside this namespace, on a thread of its own unless the caller is inside already: the caller
    /// never changes namespace, and needs CAP_SYS_ADMIN only to go elsewhere.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    ///
    /// # Panics
    /// With the panic of `work`.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, SetupError> {
        if Self::current().is_ok_and(|here| here.id == self.id) {
            return Ok(work());
        }
        on_own_thread(|| {
            setns(&*self.file, CloneFlags::CLONE_NEWNET).map_err(|errno| self.refused(errno))?;
            Ok(work())
        })
    }

    /// Reads `/proc/sys/<path>` of this namespace, without the final newline.
    ///
    /// # Errors
    /// If the namespace cannot be entered or the file not be read.
    pub fn sysctl(&self, path: &str) -> Result<String, SetupError> {
        self.run(|| read_sysctl(path))?
    }

    /// Makes `/proc/sys/<path>` of this namespace `value`; true if it was something else before. A value that is
    /// right is not written, so a read-only `/proc/sys` is no obstacle to it.
    ///
    /// # Errors
    /// As [`Self::sysctl`], or if the file cannot be written.
    pub fn set_sysctl(&self, path: &str, value: &str) -> Result<bool, SetupError> {
        self.run(|| {
            if read_sysctl(path)? == value {
                return Ok(false);
            }
            fs::write(sysctl_path(path), value).map_err(|error| {
                sysctl_failed("write sysctl", path, &error).mend(
                    "is /proc/sys mounted read-only? needs root in the host's mount namespace",
                )
            })?;
            Ok(true)
        })?
    }

    fn open_path(path: &Path, label: &str) -> Result<Self, SetupError> {
        let failed = |cause: String| SetupError::new("open network namespace", label, cause);
        let file = OpenOptions::new()
            .read(true)
            // A FIFO in the wrong place must not block us.
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(|error| {
                failed(errno(&error))
                    .mend(shortage(&error))
                    .or_mend(open_mend(&error, path))
            })?;
        match sys::namespace::is_network_namespace(file.as_fd()) {
            Ok(true) => {}
            Ok(false) => {
                return Err(failed("a namespace of another kind".to_owned()).mend(NO_NETNS));
            }
            Err(error) => return Err(failed(errno(&error)).mend(NO_NETNS)),
        }
        let metadata = file.metadata().map_err(|error| failed(errno(&error)))?;
        Ok(Self {
            id: NamespaceId {
                device: metadata.dev(),
                inode: metadata.ino(),
            },
            file: Arc::new(file),
            label: label.to_owned(),
        })
    }

    fn refused(&self, errno: Errno) -> SetupError {
        let cause = format!("setns: {errno:?}");
        SetupError::new("enter network namespace", &self.label, cause)
            .mend("needs CAP_SYS_ADMIN: run as root")
    }
}

impl PartialEq for Namespace {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Namespace {}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

const NO_NETNS: &str =
    "that is no network namespace: give a name of `ip netns list` or a path like /proc/PID/ns/net";

fn open_mend(error: &io::Error, path: &Path) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            format!(
                "{} is not there: `ip netns list` shows the names",
                path.display()
            )
        }
        io::ErrorKind::PermissionDenied => "run as root".to_owned(),
        _ => NO_NETNS.to_owned(),
    }
}

/// Runs `work` on a new thread, waits for it, and passes on its panic.
pub(super) fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn sysctl_path(path: &str) -> PathBuf {
    Path::new("/proc/sys").join(path)
}

fn read_sysctl(path: &str) -> Result<String, SetupError> {
    match fs::read_to_string(sysctl_path(path)) {
        Ok(value) => Ok(value.trim_end().to_owned()),
        Err(error) => Err(sysctl_failed("read sysctl", path, &error)
            .mend("does the kernel have it, and is /proc mounted?")),
    }
}

fn sysctl_failed(operation: &str, path: &str, error: &io::Error) -> SetupError {
    SetupError::new(operation, path, errno(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn current_is_the_threads_own_and_equals_itself() {
        let here = Namespace::current().unwrap();
        let same = Namespace::open("/proc/self/ns/net").unwrap();
        assert_eq!(here, same);
        assert_ne!(here.id().inode, 0);
    }

    #[test]
    fn running_in_the_own_namespace_needs_no_thread() {
        let caller = std::thread::current().id();
        let inside = Namespace::current()
            .unwrap()
            .run(|| std::thread::current().id());
        assert_eq!(inside, Ok(caller));
    }

    #[test]
    fn refuses_what_is_no_network_namespace() {
        for (path, cause) in [
            ("/proc/self/ns/mnt", "a namespace of another kind"),
            ("/dev/null", "ENOTTY"),
            ("/proc/self/ns", "ENOTTY"),
            ("/nonexistent/ns", "ENOENT"),
            ("no such name", "ENOENT"),
        ] {
            let error = Namespace::open(path).unwrap_err();
            assert_eq!(error.cause, cause, "{error}");
            assert!(!error.mend.is_empty(), "{error}");
        }
    }

    #[test]
    fn reads_sysctls_and_leaves_right_ones_alone() {
        let here = Namespace::current().unwrap();
        let value = here.sysctl("net/ipv4/ip_forward").unwrap();
        assert!(value == "0" || value == "1", "{value}");
        assert_eq!(here.set_sysctl("net/ipv4/ip_forward", &value), Ok(false));
        assert_eq!(here.sysctl("net/none").unwrap_err().cause, "ENOENT");
    }
}

//! A network namespace of our own with a name, as `ip netns add` makes it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::ops::Deref;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::namespace::{NAMED_DIR, Namespace, OWN, on_own_thread};
use super::socket::Netlink;
use crate::error::{SetupError, errno};

/// A namespace under `/run/netns`, visible to `ip netns exec`; its name goes when this is dropped (the namespace
/// itself when the last process has left it). Dereferences to [`Namespace`].
#[derive(Debug)]
pub struct NamedNamespace {
    path: PathBuf,
    namespace: Namespace,
}

impl NamedNamespace {
    /// Makes a namespace called `name`, with `lo` up.
    ///
    /// # Errors
    /// If the name is taken or unfit, or CAP_SYS_ADMIN is missing. Nothing is left behind then.
    pub fn create(name: &str) -> Result<Self, SetupError> {
        let failed = |cause: String| SetupError::new("create network namespace", name, cause);
        if name.is_empty() || name.contains('/') || name == "." || name == ".." {
            return Err(failed("not a file name".to_owned()).mend("use letters, digits and dashes"));
        }
        let path = Path::new(NAMED_DIR).join(name);
        share_named_dir().map_err(|(call, errno)| {
            failed(format!("{call} {NAMED_DIR}: {errno}")).mend("needs CAP_SYS_ADMIN: run as root")
        })?;
        reserve(&path).map_err(|error| {
            failed(errno(&error)).mend("taken: choose another name, or `ip netns del` it")
        })?;
        let made = unshared_at(&path)
            .map_err(|(call, errno)| {
                failed(format!("{call}: {errno:?}")).mend("needs CAP_SYS_ADMIN: run as root")
            })
            .and_then(|()| opened_with_lo_up(name));
        match made {
            Ok(namespace) => Ok(Self { path, namespace }),
            Err(error) => {
                forget(&path);
                Err(error)
            }
        }
    }

    /// Where it is bound, for those who take a path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Deref for NamedNamespace {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

impl Drop for NamedNamespace {
    fn drop(&mut self) {
        forget(&self.path);
    }
}

/// Makes `/run/netns` a shared mount, so that names made in one mount namespace show in others (iproute2's
/// `netns_add` does the same, under the same lock).
fn share_named_dir() -> Result<(), (&'static str, String)> {
    let io = |call| move |error: std::io::Error| (call, errno(&error));
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o755);
    builder.create(NAMED_DIR).map_err(io("mkdir"))?;
    let lock = File::open(NAMED_DIR).map_err(io("open"))?;
    lock.lock().map_err(io("flock"))?;
    match share() {
        // EINVAL: no mount point yet.
        Err(Errno::EINVAL) => bind(Path::new(NAMED_DIR), Path::new(NAMED_DIR), MsFlags::MS_REC)
            .and_then(|()| share())
            .map_err(|errno| ("mount", format!("{errno:?}"))),
        other => other.map_err(|errno| ("mount", format!("{errno:?}"))),
    }
}

fn share() -> nix::Result<()> {
    let flags = MsFlags::MS_SHARED | MsFlags::MS_REC;
    mount(None::<&str>, NAMED_DIR, None::<&str>, flags, None::<&str>)
}

fn bind(from: &Path, to: &Path, more: MsFlags) -> nix::Result<()> {
    mount(
        Some(from),
        to,
        None::<&str>,
        MsFlags::MS_BIND | more,
        None::<&str>,
    )
}

/// The mount point; `create_new` makes the name ours alone.
fn reserve(path: &Path) -> std::io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(path)
        .map(drop)
}

/// A new namespace on a thread that ends here, kept alive by its bind mount.
fn unshared_at(path: &Path) -> Result<(), (&'static str, Errno)> {
    on_own_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| ("unshare", errno))?;
        bind(Path::new(OWN), path, MsFlags::empty()).map_err(|errno| ("mount", errno))
    })
}

fn opened_with_lo_up(name: &str) -> Result<Namespace, SetupError> {
    let namespace = Namespace::open(name)?;
    let mut netlink = Netlink::open_in(&namespace)?;
    // `lo` is the first link of every namespace (kernel: LOOPBACK_IFINDEX).
    netlink
        .set_up(1, true)
        .map_err(|error| error.setup("bring up lo in network namespace", name))?;
    Ok(namespace)
}

/// As `ip netns del`: errors would find no one to mend them.
fn forget(path: &Path) {
    let _ = umount2(path, MntFlags::MNT_DETACH);
    let _ = fs::remove_file(path);
}

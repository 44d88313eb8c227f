//! The directory that host-local keeps reservations in, read and written as it does.
//!
//! ```text
//! <dataDir>/ipam/<network>/10.255.108.2          "<container id>\r\n<link>", without a newline at the end
//!                          last_reserved_ip.0    "10.255.108.2"
//!                          lock                  flock(2): held for each look and each change
//! ```
//!
//! A file without a link, as older versions wrote it, stands for every link of its container.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::taken::Look;
use super::{Pool, STEP};
use crate::cni::attachment::Attachment;
use crate::cni::config::Config;
use crate::cni::error::CniError;
use crate::control::file_lock::{LOCK_PATIENCE, lock_within};
use crate::error::SetupError;

/// Between id and link.
const LINE_BREAK: &str = "\r\n";
const LAST_RESERVED: &str = "last_reserved_ip.0";
const LOCK: &str = "lock";
/// What is to be a reservation, under the lock; one that is left over is written over.
const UNFINISHED: &str = ".reserving";

/// One network's directory.
#[derive(Debug)]
pub(in crate::cni) struct Reservations {
    directory: PathBuf,
}

/// Whose a reservation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cni) struct Owner {
    pub(in crate::cni) container_id: String,
    /// `None`: whichever it has.
    pub(in crate::cni) ifname: Option<String>,
}

impl Owner {
    fn of(text: &str) -> Self {
        let text = text.trim();
        let (container_id, ifname) = match text.split_once(LINE_BREAK) {
            Some((id, ifname)) => (id, Some(ifname)),
            None => (text, None),
        };
        Self {
            container_id: container_id.to_owned(),
            ifname: ifname.map(str::to_owned),
        }
    }

    /// True if it may be `who`.
    pub(in crate::cni) fn is(&self, who: &Attachment) -> bool {
        self.container_id == who.container_id
            && self
                .ifname
                .as_ref()
                .is_none_or(|ifname| *ifname == who.ifname)
    }
}

impl Reservations {
    /// Those of the configuration's network.
    pub(in crate::cni) fn of(config: &Config) -> Self {
        Self {
            directory: config.ipam_dir().join(&config.name),
        }
    }

    /// All that is reserved, and by whom; nothing if there is no directory.
    ///
    /// # Errors
    /// The directory cannot be read or locked.
    pub(in crate::cni) fn all(&self) -> Result<Vec<(IpAddr, Owner)>, CniError> {
        match self.lock() {
            Ok(_lock) => self.list().map_err(|error| self.failed("read", &error)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(self.failed("lock", &error)),
        }
    }

    /// The addresses that are reserved for `who`.
    ///
    /// # Errors
    /// As [`Self::all`].
    pub(in crate::cni) fn addresses(&self, who: &Attachment) -> Result<Vec<IpAddr>, CniError> {
        let all = self.all()?;
        let of_who = all.into_iter().filter(|(_, owner)| owner.is(who));
        Ok(of_who.map(|(address, _)| address).collect())
    }

    /// # Errors
    /// Something is reserved for `who`.
    pub(super) fn check_none(&self, who: &Attachment) -> Result<(), CniError> {
        none_of(who, &self.all()?)
    }

    /// Reserves the address that is `asked` for, or the next that is neither reserved nor `taken`.
    ///
    /// # Errors
    /// `who` has one, there is none, or the directory cannot be written. Nothing is reserved then.
    pub(super) fn reserve(
        &self,
        pool: &Pool,
        who: &Attachment,
        asked: Option<Ipv4Addr>,
        taken: Look<'_>,
    ) -> Result<Ipv4Addr, CniError> {
        fs::create_dir_all(&self.directory).map_err(|error| self.failed("create", &error))?;
        let _lock = self.lock().map_err(|error| self.failed("lock", &error))?;
        let all = self.list().map_err(|error| self.failed("read", &error))?;
        none_of(who, &all)?;
        let chosen = match asked {
            Some(asked) => available(pool, asked, &all, taken)?,
            None => pool.next_free(self.last_reserved(), &all, taken)?,
        };
        self.write(chosen, who)
            .map_err(|error| self.failed("write", &error))?;
        Ok(chosen)
    }

    /// Removes what is reserved for `who`.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub(in crate::cni) fn release(&self, who: &Attachment) -> Result<(), CniError> {
        self.release_where(|_, owner| owner.is(who))
    }

    /// Removes what `gone` says.
    ///
    /// # Errors
    /// A file cannot be removed; the others are.
    pub(in crate::cni) fn release_where(
        &self,
        gone: impl Fn(IpAddr, &Owner) -> bool,
    ) -> Result<(), CniError> {
        let _lock = match self.lock() {
            Ok(lock) => lock,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(self.failed("lock", &error)),
        };
        let all = self.list().map_err(|error| self.failed("read", &error))?;
        let mut result = Ok(());
        for (address, _) in all.iter().filter(|(address, owner)| gone(*address, owner)) {
            let removed = fs::remove_file(self.directory.join(address.to_string()));
            result = result.and(removed.map_err(|error| self.failed("remove", &error)));
        }
        result
    }

    fn lock(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        // As host-local opens it. The directory must be there.
        options.read(true).custom_flags(libc::O_CREAT).mode(0o750);
        let file = match options.open(self.directory.join(LOCK)) {
            // A read-only file system has no new lock, and no new reservation either.
            Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => {
                File::open(&self.directory)?
            }
            opened => opened?,
        };
        lock_within(&file, LOCK_PATIENCE)?;
        Ok(file)
    }

    fn list(&self) -> io::Result<Vec<(IpAddr, Owner)>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let Some(address) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // What is no text is nobody's that CNI knows, and taken all the same.
            let bytes = fs::read(self.directory.join(&name))?;
            all.push((address, Owner::of(&String::from_utf8_lossy(&bytes))));
        }
        Ok(all)
    }

    fn last_reserved(&self) -> Option<Ipv4Addr> {
        let text = fs::read_to_string(self.directory.join(LAST_RESERVED)).ok()?;
        text.parse().ok()
    }

    /// Whole or not at all, unlike host-local: a file without an id would be nobody's to give back. The lock keeps others out.
    fn write(&self, address: Ipv4Addr, who: &Attachment) -> io::Result<()> {
        let (path, unfinished) = (
            self.directory.join(address.to_string()),
            self.directory.join(UNFINISHED),
        );
        let text = format!("{}{LINE_BREAK}{}", who.container_id, who.ifname);
        let written = fs::write(&unfinished, text)
            .and_then(|()| fs::rename(&unfinished, &path))
            .and_then(|()| fs::write(self.directory.join(LAST_RESERVED), address.to_string()));
        written.inspect_err(|_| {
            for path in [&path, &unfinished] {
                drop(fs::remove_file(path));
            }
        })
    }

    fn failed(&self, verb: &str, error: &io::Error) -> CniError {
        let directory = self.directory.display().to_string();
        if error.kind() == ErrorKind::TimedOut {
            let details = format!("lock {directory}: held by others for {LOCK_PATIENCE:?}");
            return CniError::try_again(STEP, details);
        }
        let mend = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "the disk is full",
            ErrorKind::ReadOnlyFilesystem => {
                "it is on a read-only file system: choose another `dataDir`"
            }
            _ => "",
        };
        let error = SetupError::system(format!("{verb} reservations in"), directory, error);
        CniError::step(STEP, error.or_mend(mend))
    }
}

/// The one asked for, in host-local's words if it cannot be had.
fn available(
    pool: &Pool,
    asked: Ipv4Addr,
    reserved: &[(IpAddr, Owner)],
    taken: Look<'_>,
) -> Result<Ipv4Addr, CniError> {
    let refused = |details: String| Err(CniError::step(STEP, details));
    if asked == pool.gateway() {
        return refused(format!("requested ip {asked} is subnet's gateway"));
    }
    let not = format!("requested IP address {asked} is not available in range set {pool}");
    if reserved.iter().any(|(held, _)| *held == IpAddr::V4(asked)) {
        return refused(not);
    }
    match taken(asked)? {
        None => Ok(asked),
        Some(occupant) => refused(format!("{not}: {occupant} ({})", occupant.mend())),
    }
}

/// In host-local's words.
fn none_of(who: &Attachment, all: &[(IpAddr, Owner)]) -> Result<(), CniError> {
    let Some((address, _)) = all.iter().find(|(_, owner)| owner.is(who)) else {
        return Ok(());
    };
    let details = format!(
        "{address} has been allocated to {who}, duplicate allocation is not allowed (DEL it first)"
    );
    Err(CniError::step(STEP, details))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::netlink::container::Occupant;

    fn who(id: &str) -> Attachment {
        Attachment {
            network: "silk".to_owned(),
            container_id: id.to_owned(),
            ifname: "eth0".to_owned(),
        }
    }

    fn in_directory() -> (tempfile::TempDir, Reservations, Pool) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let reservations = Reservations {
            directory: directory.path().join("ipam/silk"),
        };
        let pool = Pool::new("10.1.0.0/29".parse().expect("right")).expect("it has room");
        (directory, reservations, pool)
    }

    fn reserve(reservations: &Reservations, pool: &Pool, id: &str) -> Result<u8, String> {
        let reserved = reservations.reserve(pool, &who(id), None, &mut |_| Ok(None));
        let reserved = reserved.map(|address| address.octets()[3]);
        reserved.map_err(|error| error.text())
    }

    #[test]
    fn files_are_host_locals() {
        let (_directory, reservations, pool) = in_directory();
        assert_eq!(reserve(&reservations, &pool, "c1"), Ok(2));
        let read = |name: &str| {
            fs::read_to_string(reservations.directory.join(name)).expect("it was written")
        };
        assert_eq!(read("10.1.0.2"), "c1\r\neth0");
        assert_eq!(read(LAST_RESERVED), "10.1.0.2");
        assert_eq!(read(LOCK), "");
        assert_eq!(
            fs::read_dir(&reservations.directory).expect("ours").count(),
            3
        );
    }

    #[test]
    fn addresses_go_round_until_none_is_left() {
        let (_directory, reservations, pool) = in_directory();
        for (id, last) in [("a", 2), ("b", 3), ("c", 4)] {
            assert_eq!(reserve(&reservations, &pool, id), Ok(last));
        }
        reservations.release(&who("b")).expect("it is there");
        for (id, last) in [("d", 5), ("e", 6), ("f", 3)] {
            assert_eq!(reserve(&reservations, &pool, id), Ok(last));
        }
        let error = reserve(&reservations, &pool, "g").expect_err("all are taken");
        assert!(error.ends_with("no IP addresses available in range set: 10.1.0.1-10.1.0.6"));
        let error = reserve(&reservations, &pool, "a").expect_err("it has one");
        assert!(
            error.contains("10.1.0.2 has been allocated to eth0 of container a"),
            "{error}"
        );
    }

    #[test]
    fn one_may_be_asked_for() {
        let (_directory, reservations, pool) = in_directory();
        let ask = |id: &str, last| {
            let asked = Ipv4Addr::new(10, 1, 0, last);
            let reserved = reservations.reserve(&pool, &who(id), Some(asked), &mut |_| Ok(None));
            reserved.map_err(|error| error.text())
        };
        assert_eq!(ask("a", 5), Ok(Ipv4Addr::new(10, 1, 0, 5)));
        assert!(
            ask("b", 5)
                .expect_err("taken")
                .contains("is not available in range set")
        );
        assert!(
            ask("b", 1)
                .expect_err("the gateway")
                .contains("is subnet's gateway")
        );
        assert_eq!(reserve(&reservations, &pool, "b"), Ok(6));
    }

    #[test]
    fn what_is_taken_without_a_reservation_is_passed_over() {
        let (_directory, reservations, pool) = in_directory();
        let mut taken = |address: Ipv4Addr| {
            let link = || Occupant::Container("s-hand".to_owned());
            Ok([2, 3, 5].contains(&address.octets()[3]).then(link))
        };
        let mut next = |id: &str, asked: Option<u8>| {
            let asked = asked.map(|last| Ipv4Addr::new(10, 1, 0, last));
            let reserved = reservations.reserve(&pool, &who(id), asked, &mut taken);
            let reserved = reserved.map(|address| address.octets()[3]);
            reserved.map_err(|error| error.text())
        };
        assert_eq!(next("a", None), Ok(4));
        assert_eq!(next("b", None), Ok(6));
        assert_eq!(
            next("c", None),
            Err(
                "run ipam plugin: no IP addresses available in range set: 10.1.0.1-10.1.0.6; 3 are taken without a reservation, \
                 the first 10.1.0.2: link s-hand exists: the address has a container"
                    .to_owned()
            )
        );
        assert_eq!(
            next("c", Some(3)),
            Err(
                "run ipam plugin: requested IP address 10.1.0.3 is not available in range set 10.1.0.1-10.1.0.6: link s-hand exists: \
                 the address has a container (choose another address, or remove that container first)"
                    .to_owned()
            )
        );
        let held = reservations.all().expect("readable");
        assert_eq!(held.len(), 2);
    }

    #[test]
    fn an_older_versions_file_is_of_any_link() {
        let (_directory, reservations, pool) = in_directory();
        reserve(&reservations, &pool, "c1").expect("there is room");
        fs::write(reservations.directory.join("10.1.0.4"), "old").expect("ours");
        // host-local, too, does not take it for an id and a link.
        fs::write(reservations.directory.join("10.1.0.5"), "c1\neth0").expect("ours");
        let held = |id: &str| reservations.addresses(&who(id)).expect("readable");
        assert_eq!(held("old"), [IpAddr::from([10, 1, 0, 4])]);
        assert_eq!(held("c1"), [IpAddr::from([10, 1, 0, 2])]);
        reservations.release(&who("old")).expect("it is there");
        assert!(held("old").is_empty());
        assert!(reservations.directory.join("10.1.0.5").exists());
    }

    #[test]
    fn nothing_is_nothing() {
        let (_directory, reservations, _) = in_directory();
        assert_eq!(reservations.all(), Ok(vec![]));
        assert_eq!(reservations.release(&who("a")), Ok(()));
        assert!(!reservations.directory.exists());
    }

    #[test]
    fn a_reservation_that_cannot_be_written_whole_is_taken_back() {
        let (_directory, reservations, pool) = in_directory();
        fs::create_dir_all(reservations.directory.join(LAST_RESERVED)).expect("ours");
        let error = reserve(&reservations, &pool, "a").expect_err("a directory is in the way");
        assert!(error.ends_with("silk: EISDIR"), "{error}");
        assert_eq!(reservations.all(), Ok(vec![]));
    }

    #[test]
    fn many_at_once_get_different_addresses() {
        const COUNT: usize = 64;
        let (_directory, reservations, _) = in_directory();
        let pool = Pool::new("10.1.0.0/24".parse().expect("right")).expect("it has room");
        let reserved: BTreeSet<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..COUNT)
                .map(|number| {
                    let (reservations, pool) = (&reservations, &pool);
                    scope.spawn(move || reserve(reservations, pool, &format!("c{number}")))
                })
                .collect();
            let results = threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"));
            results
                .map(|result| result.expect("there is room"))
                .collect()
        });
        assert_eq!(reserved.len(), COUNT);
    }
}

//! The containers of this cell on disk, in the file that Silk's CNI plugin keeps: `store.json`.
//!
//! ```text
//! {"web":{"handle":"c1","ip":"10.255.108.184","metadata":{"container_id":"c1","ifname":"eth0","network":"silk",
//!                                                          "netns":"/var/run/netns/web","mtu":1410}}}
//! ```
//!
//! The CNI plugin writes it, a daemon that starts reads it. Silk's plugin leaves `metadata` null and keeps what others put there; ours
//! holds what CNI knows an attachment by. Entries that are not understood are kept as they are.
//!
//! The file is locked (flock(2) on itself, as Silk does) and replaced whole, so that a reader finds the old entries or the new. One that
//! was cut off all the same gives what is whole in it, and is kept beside as `.corrupt`.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::de::{DeserializeSeed, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::file_lock::{LOCK_PATIENCE, lock_within};
use crate::error::SetupError;

/// Where containers are kept unless the CNI configuration says otherwise. They end with a reboot, and so does this.
pub const DEFAULT_DATA_DIR: &str = "/run/silk-vtep/cni";

/// The datastore of a data directory, unless the configuration names another.
#[must_use]
pub fn default_store(data_dir: &Path) -> PathBuf {
    data_dir.join("store.json")
}

/// The file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStore {
    path: PathBuf,
}

/// Why it could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Others hold the lock.
    #[error("lock {}: held by others for {LOCK_PATIENCE:?}", .0.display())]
    Busy(PathBuf),
    /// A system call failed; the file is as it was.
    #[error(transparent)]
    Failed(#[from] SetupError),
}

/// What CNI knows a container's link by, and where it is: the `metadata` of our entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_IFNAME: the link's name in the container.
    pub ifname: String,
    /// The network configuration's name.
    pub network: String,
    /// CNI_NETNS: the container's namespace, a path.
    pub netns: String,
    /// MTU of the link.
    pub mtu: u32,
    /// Its IPv6 address, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Addr>,
}

/// One container's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its place in the file: the base name of its namespace's path, or the container's id.
    pub key: String,
    /// The runtime's id of it, which Silk calls its handle.
    pub handle: Option<String>,
    /// Its address.
    pub address: Ipv4Addr,
    /// Who it is; `None` in entries of Silk's own plugin.
    pub attachment: Option<Attachment>,
}

/// All entries, as long as the file is locked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entries(Map<String, Value>);

impl ContainerStore {
    /// The file at `path`, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The entries; none if there is no file. What is broken in it is left out, and the file as it is.
    ///
    /// # Errors
    /// The file cannot be opened, read or locked.
    pub fn read(&self) -> Result<Entries, StoreError> {
        match self.lock(OpenOptions::new().read(true)) {
            Ok(file) => Ok(self.contents(file)?.1.into_entries()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Entries::default()),
            Err(error) => Err(self.failed("open", &error)),
        }
    }

    /// Changes the entries under the lock. A file that `change` leaves as it was is not written.
    ///
    /// # Errors
    /// The file cannot be opened, locked or replaced; it is as it was then.
    pub fn update<T>(&self, change: impl FnOnce(&mut Entries) -> T) -> Result<T, StoreError> {
        let file = self
            .create_directory()
            .and_then(|()| self.lock(&mut writing()))
            .map_err(|error| self.failed("open", &error))?;
        // Held until the new file is there: `file` is the lock.
        let (file, contents) = self.contents(file)?;
        let corrupt = match &contents {
            Contents::Whole(_) => None,
            Contents::CutOff { bytes, .. } => Some(bytes.clone()),
        };
        if let Some(bytes) = &corrupt {
            write(&self.beside(".corrupt"), bytes)
                .map_err(|error| self.failed("keep a copy of", &error))?;
        }
        let mut entries = contents.into_entries();
        let before = entries.clone();
        let result = change(&mut entries);
        if entries != before || corrupt.is_some() {
            self.replace(&entries)
                .map_err(|error| self.failed("write", &error))?;
        }
        drop(file);
        Ok(result)
    }

    /// Opens the file and locks it; again if another put a new one in its place while we waited.
    fn lock(&self, options: &mut OpenOptions) -> io::Result<File> {
        loop {
            let file = options.open(&self.path)?;
            lock_within(&file, LOCK_PATIENCE)?;
            let (ours, there) = (file.metadata()?, fs::metadata(&self.path));
            let identity = |of: &fs::Metadata| (of.dev(), of.ino());
            // Each turn means that somebody made progress.
            if there.is_ok_and(|there| identity(&there) == identity(&ours)) {
                return Ok(file);
            }
        }
    }

    fn contents(&self, mut file: File) -> Result<(File, Contents), StoreError> {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .map_err(|error| self.failed("read", &error))?;
        Ok((file, Contents::of(bytes)))
    }

    fn create_directory(&self) -> io::Result<()> {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() && !parent.exists() => {
                DirBuilder::new().recursive(true).mode(0o700).create(parent)
            }
            _ => Ok(()),
        }
    }

    /// Not synced: what must outlive a crash of the host are containers, and they do not.
    fn replace(&self, entries: &Entries) -> io::Result<()> {
        let temporary = self.beside(".tmp");
        let mut bytes = serde_json::to_vec(&entries.0)?;
        bytes.push(b'\n');
        let written = write(&temporary, &bytes).and_then(|()| fs::rename(&temporary, &self.path));
        // What fails leaves nothing that would fill a full disk further.
        written.inspect_err(|_| drop(fs::remove_file(&temporary)))
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(suffix);
        name.into()
    }

    fn failed(&self, verb: &str, error: &io::Error) -> StoreError {
        if error.kind() == io::ErrorKind::TimedOut {
            return StoreError::Busy(self.path.clone());
        }
        let mend = match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => "the disk is full",
            Some(libc::EROFS) => "it is on a read-only file system: choose another `datastore`",
            _ => "",
        };
        let operation = format!("{verb} datastore");
        SetupError::system(operation, self.path.display().to_string(), error)
            .or_mend(mend)
            .into()
    }
}

fn writing() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    writing().truncate(true).open(path)?.write_all(bytes)
}

impl Entries {
    /// The entries that are containers.
    pub fn containers(&self) -> impl Iterator<Item = Stored> + '_ {
        self.0
            .iter()
            .filter_map(|(key, value)| Stored::of(key, value))
    }

    /// The container that CNI knows by network, id and link.
    #[must_use]
    pub fn attached(&self, network: &str, container_id: &str, ifname: &str) -> Option<Stored> {
        self.containers().find(|stored| {
            stored.attachment.as_ref().is_some_and(|attachment| {
                attachment.network == network
                    && attachment.container_id == container_id
                    && attachment.ifname == ifname
            })
        })
    }

    /// Adds a container, under the base name of its namespace's path as Silk does, unless that says nothing (`/proc/PID/ns/net`) or is
    /// another's.
    pub fn insert(&mut self, address: Ipv4Addr, attachment: &Attachment) {
        let Attachment {
            container_id,
            ifname,
            network,
            ..
        } = attachment;
        // What it had before, if anything, is not true any more.
        if let Some(had) = self.attached(network, container_id, ifname) {
            self.remove(&had.key);
        }
        let key = self.key_for(address, attachment);
        // A struct of strings and numbers is always JSON.
        let metadata = serde_json::to_value(attachment).unwrap_or_default();
        let mut entry = Map::new();
        entry.insert("handle".to_owned(), attachment.container_id.clone().into());
        entry.insert("ip".to_owned(), address.to_string().into());
        entry.insert("metadata".to_owned(), metadata);
        self.0.insert(key, entry.into());
    }

    /// Removes the entry with this key; false if there is none.
    pub fn remove(&mut self, key: &str) -> bool {
        self.0.remove(key).is_some()
    }

    fn key_for(&self, address: Ipv4Addr, attachment: &Attachment) -> String {
        let Attachment {
            container_id,
            ifname,
            network,
            netns,
            ..
        } = attachment;
        let base = Path::new(netns)
            .file_name()
            .and_then(|name| name.to_str())
            .filter(|_| !netns.starts_with("/proc/"));
        let candidates = [
            base.map(str::to_owned),
            Some(container_id.clone()),
            Some(format!("{container_id}/{ifname}")),
        ];
        let is_free = |key: &String| match self.0.get(key) {
            None => true,
            // An entry for our own address is a leftover: the address was given to us.
            Some(value) => Stored::of(key, value).is_some_and(|had| had.address == address),
        };
        let free = candidates.into_iter().flatten().find(is_free);
        free.unwrap_or_else(|| format!("{network}/{container_id}/{ifname}"))
    }
}

impl Stored {
    fn of(key: &str, value: &Value) -> Option<Self> {
        Some(Self {
            key: key.to_owned(),
            handle: (value.get("handle"))
                .and_then(Value::as_str)
                .map(str::to_owned),
            address: value.get("ip")?.as_str()?.parse().ok()?,
            attachment: value
                .get("metadata")
                .and_then(|metadata| Attachment::deserialize(metadata).ok()),
        })
    }
}

/// What a file holds.
#[derive(Debug, PartialEq)]
enum Contents {
    Whole(Entries),
    /// Not JSON to its end, or no object: the entries before that.
    CutOff {
        bytes: Vec<u8>,
        entries: Entries,
    },
}

impl Contents {
    fn of(bytes: Vec<u8>) -> Self {
        // Silk's plugin makes the file before it has anything to write, and may have written a nil map.
        if bytes.trim_ascii().is_empty() || bytes.trim_ascii() == b"null" {
            return Self::Whole(Entries::default());
        }
        let mut entries = Map::new();
        let mut reader = serde_json::Deserializer::from_slice(&bytes);
        let parsed = Collect(&mut entries)
            .deserialize(&mut reader)
            .and_then(|()| reader.end());
        let entries = Entries(entries);
        match parsed {
            Ok(()) => Self::Whole(entries),
            Err(_) => Self::CutOff { bytes, entries },
        }
    }

    fn into_entries(self) -> Entries {
        match self {
            Self::Whole(entries) | Self::CutOff { entries, .. } => entries,
        }
    }
}

/// Collects the entries of an object one by one, so that an error leaves those before it.
struct Collect<'a>(&'a mut Map<String, Value>);

impl<'de> DeserializeSeed<'de> for Collect<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Collect<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("containers by handle")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((key, value)) = map.next_entry()? {
            self.0.insert(key, value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn attachment(id: &str, netns: &str) -> Attachment {
        Attachment {
            container_id: id.to_owned(),
            ifname: "eth0".to_owned(),
            network: "silk".to_owned(),
            netns: netns.to_owned(),
            mtu: 1410,
            ipv6: None,
        }
    }

    fn address(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 255, 108, last)
    }

    fn in_directory() -> (tempfile::TempDir, ContainerStore) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = ContainerStore::new(directory.path().join("silk/store.json"));
        (directory, store)
    }

    #[test]
    fn an_entry_is_silks_with_metadata() {
        let (_directory, store) = in_directory();
        let web = attachment("c1", "/var/run/netns/web");
        store
            .update(|entries| entries.insert(address(184), &web))
            .expect("the directory is ours");
        let text = fs::read_to_string(&store.path).expect("it was written");
        assert_eq!(
            text,
            "{\"web\":{\"handle\":\"c1\",\"ip\":\"10.255.108.184\",\"metadata\":{\"container_id\":\"c1\",\
             \"ifname\":\"eth0\",\"mtu\":1410,\"netns\":\"/var/run/netns/web\",\"network\":\"silk\"}}}\n"
        );
        let mode = |path: &Path| {
            fs::metadata(path)
                .expect("it is there")
                .permissions()
                .mode()
        };
        assert_eq!(mode(&store.path) & 0o7777, 0o600);
        assert_eq!(mode(store.path.parent().expect("silk")) & 0o7777, 0o700);
        let entries = store.read().expect("it is there");
        let found = entries.attached("silk", "c1", "eth0").expect("it is there");
        assert_eq!(found.attachment, Some(web));
        assert_eq!(entries.attached("other", "c1", "eth0"), None);
    }

    #[test]
    fn entries_of_silk_and_of_strangers_are_kept() {
        let (_directory, store) = in_directory();
        let silks = r#"{"handle":"old","ip":"10.255.108.9","metadata":null}"#;
        let strange = r#"{"what":[1,2,{"x":18446744073709551615}]}"#;
        fs::create_dir_all(store.path.parent().expect("silk")).expect("the directory is ours");
        fs::write(
            &store.path,
            format!("{{\"old\":{silks},\"odd\":{strange}}}\n"),
        )
        .expect("ours");
        store
            .update(|entries| entries.insert(address(2), &attachment("c1", "/run/netns/web")))
            .expect("the directory is ours");
        let text = fs::read_to_string(&store.path).expect("it was written");
        assert!(text.contains(&format!("\"old\":{silks}")), "{text}");
        assert!(text.contains(&format!("\"odd\":{strange}")), "{text}");
        let stored: Vec<_> = store.read().expect("it is there").containers().collect();
        let silks = stored.iter().find(|entry| entry.key == "old");
        assert_eq!(silks.map(|entry| entry.address), Some(address(9)));
        assert!(silks.is_some_and(|entry| entry.attachment.is_none()));
    }

    #[test]
    fn keys_do_not_collide() {
        let of = |network: &str, id: &str, ifname: &str| Attachment {
            network: network.to_owned(),
            ifname: ifname.to_owned(),
            ..attachment(id, "/run/netns/web")
        };
        let mut entries = Entries::default();
        let containers = [
            (attachment("c1", "/proc/12/ns/net"), "c1"),
            (attachment("c2", "/proc/34/ns/net"), "c2"),
            (attachment("c3", "/run/netns/web"), "web"),
            (attachment("c4", "/somewhere/else/web"), "c4"),
            (of("silk2", "c4", "eth0"), "c4/eth0"),
            (of("silk3", "c4", "eth0"), "silk3/c4/eth0"),
        ];
        for (last, (attachment, key)) in (2..).zip(&containers) {
            entries.insert(address(last), attachment);
            let stored = entries
                .containers()
                .find(|had| had.address == address(last));
            assert_eq!(stored.map(|stored| stored.key).as_deref(), Some(*key));
        }
        assert_eq!(entries.containers().count(), containers.len());
        // A leftover of the same namespace and address gives way.
        entries.insert(address(4), &attachment("c9", "/run/netns/web"));
        assert_eq!(entries.containers().count(), containers.len());
    }

    #[test]
    fn null_and_empty_files_hold_nothing() {
        for text in ["", "\n", "null", "null\n", "{}"] {
            let contents = Contents::of(text.as_bytes().to_vec());
            assert_eq!(contents, Contents::Whole(Entries::default()), "{text:?}");
        }
    }

    #[test]
    fn a_file_cut_off_anywhere_gives_what_is_whole_and_is_kept() {
        let (_directory, store) = in_directory();
        for (last, name) in [(2, "a"), (3, "b"), (4, "c")] {
            let attachment = attachment(name, &format!("/run/netns/{name}"));
            store
                .update(|entries| entries.insert(address(last), &attachment))
                .expect("the directory is ours");
        }
        let whole = fs::read(&store.path).expect("it was written");
        let text = String::from_utf8(whole.clone()).expect("JSON");
        // All but the newline is needed.
        for length in 1..whole.len() - 1 {
            fs::write(&store.path, &whole[..length]).expect("ours");
            let complete = text[..length].matches("\"silk\"}}").count();
            assert_eq!(store.read().expect("ours").containers().count(), complete);
            assert_eq!(fs::read(&store.path).expect("ours"), &whole[..length]);
            store
                .update(|entries| entries.insert(address(9), &attachment("d", "/run/netns/d")))
                .expect("ours");
            let entries = store.read().expect("ours");
            assert_eq!(entries.containers().count(), complete + 1, "{length}");
            let kept = fs::read(store.beside(".corrupt")).expect("it was kept");
            assert_eq!(kept, &whole[..length]);
        }
    }

    #[test]
    fn what_is_no_object_is_kept_beside() {
        for text in ["[]", "7", "\"x\"", "{}x", "{\"a\":1}{\"b\":2}"] {
            let contents = Contents::of(text.as_bytes().to_vec());
            assert!(matches!(contents, Contents::CutOff { .. }), "{text:?}");
        }
    }

    #[test]
    fn a_write_that_fails_leaves_the_file_as_it_was() {
        let (_directory, store) = in_directory();
        let add = |last, id: &str| {
            let attachment = attachment(id, &format!("/run/netns/{id}"));
            store.update(|entries| entries.insert(address(last), &attachment))
        };
        add(2, "a").expect("the directory is ours");
        let before = fs::read(&store.path).expect("it was written");
        fs::create_dir(store.beside(".tmp")).expect("the directory is ours");
        let error = add(3, "b").expect_err("a directory is in the way");
        assert!(error.to_string().ends_with("store.json: EISDIR"), "{error}");
        assert_eq!(fs::read(&store.path).expect("it is there"), before);
    }

    #[test]
    fn many_writers_lose_nothing() {
        const WRITERS: u8 = 16;
        const EACH: u8 = 8;
        let (_directory, store) = in_directory();
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let store = &store;
                scope.spawn(move || {
                    for entry in 0..EACH {
                        let number = writer * EACH + entry;
                        let attachment = attachment(&format!("c{number}"), "/proc/1/ns/net");
                        store
                            .update(|entries| entries.insert(address(number), &attachment))
                            .expect("the lock is held for milliseconds");
                    }
                });
            }
        });
        let count = store.read().expect("it is there").containers().count();
        assert_eq!(count, usize::from(WRITERS * EACH));
    }
}

//! What a restart finds again, on disk: the live entries, which were added over the socket, and this cell's containers.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::marker::PhantomData;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Entry;
use super::containers::Registered;
use crate::error::{SetupError, errno};

const VERSION: u32 = 1;

/// A file of `T`s. It is replaced whole, so that a reader finds the old ones or the new, never half.
#[derive(Clone, Debug)]
pub struct StateFile<T = Entry> {
    path: PathBuf,
    /// What `T`s are called, for errors.
    noun: &'static str,
    /// Whether it must be there after a crash of the host.
    outlives_host: bool,
    holds: PhantomData<fn(T) -> T>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents<E> {
    version: u32,
    entries: E,
}

impl StateFile {
    /// The file of live entries at `path`, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            noun: "live entries",
            outlives_host: true,
            holds: PhantomData,
        }
    }
}

impl StateFile<Registered> {
    /// The file of containers at `path`, which need not exist. It is not waited for until it is on the disk, which would take most of the
    /// time in which a container is wired: containers end with the host, whatever it ends by.
    pub fn of_containers(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            noun: "containers",
            outlives_host: false,
            holds: PhantomData,
        }
    }
}

impl<T: Serialize + DeserializeOwned> StateFile<T> {
    /// What was last saved. What cannot be read is a warning, never the end: the file is set aside as `.corrupt`, so that no save
    /// replaces it.
    pub fn load(&self) -> (Vec<T>, Option<String>) {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return (Vec::new(), None),
            Err(error) => return (Vec::new(), Some(self.set_aside(&errno(&error)))),
        };
        match parse(&bytes) {
            Ok(entries) => (entries, None),
            Err(cause) => (Vec::new(), Some(self.set_aside(&cause))),
        }
    }

    /// What would keep a save from being made, if anything would: to be told at the start and not when the first change is lost. Makes the
    /// directory, if there is none.
    ///
    /// # Errors
    /// The directory cannot be made, or not be written to.
    pub fn check(&self) -> Result<(), SetupError> {
        let temporary = self.with_suffix(".tmp");
        let checked = self
            .open_temporary(&temporary)
            .and_then(|_| fs::remove_file(&temporary));
        checked.map_err(|error| {
            self.error("keep", &errno(&error)).mend(
                "changes end with the process: give `state_dir` a directory that may be written to",
            )
        })
    }

    /// Replaces what is in it. Live entries are on the disk when it returns.
    ///
    /// # Errors
    /// The first step that failed; the old file is as it was.
    pub fn save(&self, entries: &[&T]) -> Result<(), SetupError> {
        let contents = Contents {
            version: VERSION,
            entries,
        };
        let mut json =
            serde_json::to_vec(&contents).map_err(|error| self.error("encode", &error))?;
        json.push(b'\n');
        self.replace(&json)
            .map_err(|error| self.error("write", &errno(&error)))
    }

    fn directory(&self) -> &Path {
        let parent = self.path.parent();
        let named = parent.filter(|parent| !parent.as_os_str().is_empty());
        named.unwrap_or(Path::new("."))
    }

    fn open_temporary(&self, path: &Path) -> io::Result<File> {
        fs::create_dir_all(self.directory())?;
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.with_suffix(".tmp");
        let file = self.open_temporary(&temporary)?;
        self.fill(file, bytes)
            .and_then(|()| fs::rename(&temporary, &self.path))
            // What fails leaves nothing that would fill a full disk further.
            .inspect_err(|_| drop(fs::remove_file(&temporary)))?;
        if !self.outlives_host {
            return Ok(());
        }
        // Without this a crash may undo the rename.
        File::open(self.directory())?.sync_all()
    }

    fn fill(&self, mut file: File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)?;
        match self.outlives_host {
            true => file.sync_all(),
            false => Ok(()),
        }
    }

    fn set_aside(&self, cause: &str) -> String {
        let aside = self.with_suffix(".corrupt");
        let warning = SetupError::new(
            format!("load {} from", self.noun),
            self.path.display().to_string(),
            cause,
        );
        let mend = match fs::rename(&self.path, &aside) {
            Ok(()) => format!("starting without them; the file is now {}", aside.display()),
            Err(error) => format!(
                "starting without them; it could not be set aside: {}",
                errno(&error)
            ),
        };
        warning.mend(mend).to_string()
    }

    fn with_suffix(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(suffix);
        name.into()
    }

    fn error(&self, verb: &str, cause: &dyn std::fmt::Display) -> SetupError {
        SetupError::new(
            format!("{verb} {}", self.noun),
            self.path.display().to_string(),
            cause,
        )
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<Vec<T>, String> {
    let contents: Contents<Vec<T>> =
        serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if contents.version == VERSION {
        Ok(contents.entries)
    } else {
        Err(format!(
            "version {} (accepted: {VERSION})",
            contents.version
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(last: u8) -> Entry {
        Entry::Group {
            address: [10, 255, 108, last].into(),
            id: crate::wire::GroupId(3),
        }
    }

    fn saved(entries: &[&Entry]) -> (tempfile::TempDir, StateFile) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let state = StateFile::new(directory.path().join("state/live.json"));
        state.save(entries).expect("the directory is ours");
        (directory, state)
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let (_directory, state) = saved(&[&group(1)]);
        state
            .save(&[&group(1), &group(2)])
            .expect("the directory is ours");
        assert_eq!(state.load(), (vec![group(1), group(2)], None));
    }

    #[test]
    fn a_file_that_never_was_is_no_warning() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(
            StateFile::new(directory.path().join("live.json")).load(),
            (vec![], None)
        );
    }

    #[test]
    fn a_file_cut_off_anywhere_is_set_aside_with_a_warning() {
        let (_directory, state) = saved(&[&group(1)]);
        let whole = fs::read(&state.path).expect("just written");
        // All but the newline is needed.
        for length in 0..whole.len() - 1 {
            fs::write(&state.path, &whole[..length]).expect("the directory is ours");
            let (entries, warning) = state.load();
            assert!(entries.is_empty());
            assert!(warning.expect("a warning").contains("live.json.corrupt"));
            assert!(!state.path.exists());
            assert_eq!(
                fs::read(state.with_suffix(".corrupt")).expect("set aside"),
                &whole[..length]
            );
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_set_aside() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let state = StateFile::new(directory.path().join("live.json"));
        fs::create_dir(&state.path).expect("the directory is ours");
        let warning = state.load().1.expect("a warning");
        assert!(
            warning.contains("live.json: EISDIR (starting without them"),
            "{warning}"
        );
        assert!(state.with_suffix(".corrupt").exists());
        state.save(&[]).expect("nothing is in its way");
    }

    #[test]
    fn a_file_of_another_version_is_set_aside() {
        let (_directory, state) = saved(&[]);
        fs::write(&state.path, br#"{"version":2,"entries":[]}"#).expect("the directory is ours");
        assert!(
            state
                .load()
                .1
                .expect("a warning")
                .contains("version 2 (accepted: 1)")
        );
    }

    #[test]
    fn a_save_that_fails_leaves_the_old_entries() {
        let (_directory, state) = saved(&[&group(1)]);
        fs::create_dir(state.with_suffix(".tmp")).expect("the directory is ours");
        let error = state
            .save(&[&group(2)])
            .expect_err("a directory is in the way")
            .to_string();
        assert!(error.starts_with("write live entries "), "{error}");
        assert!(error.ends_with("live.json: EISDIR"), "{error}");
        assert_eq!(state.load(), (vec![group(1)], None));
    }

    #[test]
    fn a_directory_that_cannot_be_is_told_before_anything_is_lost() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let state = StateFile::new(directory.path().join("state/live.json"));
        assert_eq!(state.check(), Ok(()));
        let left = fs::read_dir(directory.path().join("state")).expect("it was made");
        assert_eq!(left.count(), 0);
        fs::write(directory.path().join("file"), "").expect("the directory is ours");
        let state = StateFile::new(directory.path().join("file/live.json"));
        let error = state.check().expect_err("a file is no directory");
        let told = error.to_string();
        assert!(told.starts_with("keep live entries "), "{told}");
        assert!(told.contains("file/live.json: "), "{told}");
        assert!(told.contains("`state_dir`"), "{told}");
    }

    #[test]
    fn a_save_that_fails_half_way_leaves_no_temporary_file() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let state = StateFile::new(directory.path().join("live.json"));
        // The file can be written, but not take its place.
        fs::create_dir(&state.path).expect("the directory is ours");
        state.save(&[&group(1)]).expect_err("a directory is there");
        assert!(!state.with_suffix(".tmp").exists());
    }
}

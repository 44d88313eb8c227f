//! A directory with two cells' configurations, and the binary run in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// Cell A: 10.255.108.0/24 at 10.0.32.12, with the container 10.255.108.184 of group 3.
pub(crate) const A: &str = r#"
[vtep]
local = "10.0.32.12"
address = "10.255.108.0"
overlay = ["10.255.0.0/16"]
MORE
[[peer]]
subnet = "10.255.43.0/24"
underlay = "10.0.16.14"
[[group]]
address = "10.255.108.184"
id = 0x0003
"#;

/// Cell B: 10.255.43.0/24 at 10.0.16.14.
pub(crate) const B: &str = r#"
[vtep]
local = "10.0.16.14"
address = "10.255.43.0"
overlay = ["10.255.0.0/16"]
MORE
[[peer]]
subnet = "10.255.108.0/24"
underlay = "10.0.32.12"
"#;

/// A's other face, on an IPv6 underlay.
pub(crate) const A_V6: &str = r#"
[vtep]
local = "fd10::12"
address = "10.255.108.0"
overlay = ["10.255.0.0/16"]
MORE
[[peer]]
subnet = "10.255.43.0/24"
underlay = "fd10::14"
"#;

pub(crate) struct Bench {
    dir: TempDir,
    config: PathBuf,
}

impl Bench {
    /// For a cell, `more` in its `[vtep]`.
    pub(crate) fn new(cell: &str, more: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let config = dir.path().join("silk-vtep.toml");
        let bench = Self { dir, config };
        bench.put("silk-vtep.toml", cell.replace("MORE", more).as_bytes());
        bench
    }

    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).expect("written");
        path
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What is there besides the configuration.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).expect("read");
        let names = entries.map(|entry| entry.expect("read").file_name());
        let names = names.map(|name| name.into_string().expect("UTF-8"));
        let mut names: Vec<_> = names.filter(|name| name != "silk-vtep.toml").collect();
        names.sort();
        names
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_silk-vtep"));
        command.current_dir(self.dir.path());
        command.arg("replay").arg("--config").arg(&self.config);
        command
    }

    /// `silk-vtep replay --config ... WORDS`.
    pub(crate) fn run(&self, words: &[&str]) -> Run {
        Run(self.command().args(words).output().expect("it runs"))
    }

    /// The JSON lines of `capture`, `-w out.pcap`.
    pub(crate) fn verdicts(&self, from: &str, capture: &[u8]) -> Vec<Value> {
        self.put("in.pcap", capture);
        let run = self.run(&[from, "in.pcap", "-w", "out.pcap", "--json"]);
        run.ok();
        run.json()
    }

    /// The bytes of `name`.
    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("read")
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        Path::exists(&self.path(name))
    }
}

pub(crate) struct Run(pub(crate) Output);

impl Run {
    pub(crate) fn ok(&self) {
        assert!(self.0.status.success(), "{}", self.stderr());
    }

    pub(crate) fn code(&self) -> Option<i32> {
        self.0.status.code()
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).expect("UTF-8")
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).expect("UTF-8")
    }

    /// Each line of standard output.
    pub(crate) fn json(&self) -> Vec<Value> {
        let text = self.stdout();
        let lines = text.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().expect("JSON lines")
    }
}

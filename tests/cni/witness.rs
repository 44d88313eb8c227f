//! What plugin and daemon ask of the kernel, told by a library ([`witness.c`](witness.c)) that is preloaded into them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::plugin::{Plugin, address_of};
use super::preload::library;
use super::sandbox::Sandbox;
use crate::support::Kind::Silk;
use crate::support::{Case, Connection, End, Lab, Plan, Result, ensure};

/// The segments of one send at an MTU of 1450: what UDP_SEGMENT takes of them.
const SEGMENTS: usize = 44;
/// Bytes of a TCP stream, enough for many full-size frames.
const STREAM_BYTES: usize = 16 << 20;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "witness::one_netlink_socket_a_namespace_and_no_child",
            Plan::of(&[Silk])
                .cold()
                .programs(&["cc", "/usr/lib/cni/host-local"]),
            sockets_and_children,
        ),
        Case::new(
            "witness::a_full_size_frame_of_a_container_is_one_send",
            Plan::of(&[Silk, Silk]).cold().programs(&["cc"]),
            one_send,
        ),
    ]
}

/// The library and its file.
pub(crate) struct Witness {
    library: PathBuf,
    log: PathBuf,
}

impl Witness {
    pub(crate) fn new(directory: &Path) -> Result<Self> {
        Ok(Self {
            library: library(directory, "witness.c")?,
            log: directory.join("witness"),
        })
    }

    /// What the program's environment wants.
    pub(crate) fn variables(&self) -> [(&'static str, String); 2] {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("WITNESS", self.log.display().to_string()),
        ]
    }

    /// What was told since the last time, each line's words behind its first, which is `kind`.
    pub(crate) fn take(&self) -> Told {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let _ = fs::remove_file(&self.log);
        Told(text)
    }
}

/// Lines of a witness.
pub(crate) struct Told(String);

impl Told {
    /// The rest of each line that begins with `kind`.
    pub(crate) fn of(&self, kind: &str) -> Vec<&str> {
        let lines = self.0.lines().filter_map(|line| line.split_once(' '));
        let lines = lines.filter(|(first, _)| *first == kind);
        lines.map(|(_, rest)| rest).collect()
    }

    /// The same, as numbers.
    fn numbers(&self, kind: &str) -> Result<Vec<Vec<usize>>> {
        let words = |line: &str| {
            let numbers = line.split(' ').map(str::parse);
            Ok(numbers.collect::<std::result::Result<_, _>>()?)
        };
        self.of(kind).into_iter().map(words).collect()
    }
}

fn sockets_and_children(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::with_collection(lab, 0)?;
    let (both, ours) = plugin.paths();
    let witness = Witness::new(plugin.directory())?;
    plugin.variables = witness.variables().to_vec();
    let web = Sandbox::new("web")?;
    // host-local is a child, so that they are seen at all.
    for (path, children) in [(ours, false), (both, true)] {
        plugin.path = path;
        witness.take();
        plugin.add(&web)?;
        let told = witness.take();
        let mut sockets = BTreeMap::new();
        for namespace in told.of("netlink") {
            *sockets.entry(namespace.to_owned()).or_insert(0) += 1;
        }
        let expected: BTreeMap<_, _> = [&*lab.cells[0].host, &web.namespace]
            .into_iter()
            .map(|namespace| Ok((inode(namespace)?, 1)))
            .collect::<Result<_>>()?;
        ensure!(sockets == expected, "{sockets:?} and not {expected:?}");
        let seen = told.of("child");
        ensure!(seen.is_empty() != children, "children: {seen:?}");
        plugin.del(&web)?;
    }
    plugin.left_no_trace(&[&web])
}

fn inode(namespace: &crate::support::Namespace) -> Result<String> {
    use std::os::unix::fs::MetadataExt;
    let file = fs::metadata(format!("/run/netns/{namespace}"))?;
    Ok(file.ino().to_string())
}

/// How often a super-frame has so many segments, of those that the lane read and of those that it sent.
struct Counted {
    frames: BTreeMap<usize, usize>,
    sends: BTreeMap<usize, usize>,
}

impl Counted {
    fn of(told: &Told) -> Result<Self> {
        let mut counted = Self {
            frames: BTreeMap::new(),
            sends: BTreeMap::new(),
        };
        for frame in told.numbers("frame")? {
            let [bytes, header, segment] = frame[..] else {
                return Err(format!("{frame:?}").into());
            };
            let segments = (bytes - header).div_ceil(segment);
            *counted.frames.entry(segments).or_insert(0) += 1;
        }
        for send in told.numbers("send")? {
            let [bytes, segment] = send[..] else {
                return Err(format!("{send:?}").into());
            };
            *counted.sends.entry(bytes.div_ceil(segment)).or_insert(0) += 1;
        }
        Ok(counted)
    }

    fn frames_above(&self, segments: usize) -> usize {
        self.frames.range(segments + 1..).map(|(_, n)| n).sum()
    }
}

/// Limits on the container's end, in bytes and in segments, as ADD makes them; and what is saved by them.
fn one_send(lab: &mut Lab) -> Result {
    let (here, there) = (Plugin::new(lab, 0)?, Plugin::new(lab, 1)?);
    let witness = Witness::new(here.directory())?;
    let (a, b) = (Sandbox::new("a")?, Sandbox::new("b")?);
    let daemon = lab.cells[0].daemon()?;
    daemon.terminate()?;
    let variables = witness.variables();
    let words: Vec<_> = variables
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    daemon.start_under(&["env", &words[0], &words[1]])?;
    let (from, to) = (here.add(&a)?, there.add(&b)?);
    let stream = || -> Result<Counted> {
        let client = End {
            namespace: &a.namespace,
            address: address_of(&from)?.into(),
        };
        let server = End {
            namespace: &b.namespace,
            address: address_of(&to)?.into(),
        };
        witness.take();
        Connection::between(client, server, 1)?.upload(STREAM_BYTES)?;
        Counted::of(&witness.take())
    };
    let Counted { frames, sends } = &stream()?;
    let full = |counts: &BTreeMap<usize, usize>| counts.get(&SEGMENTS).copied().unwrap_or(0);
    ensure!(full(frames) > 0, "no full-size frame: {frames:?}");
    ensure!(full(frames) == full(sends), "{frames:?} in {sends:?}");
    let largest = frames.keys().max();
    ensure!(largest == Some(&SEGMENTS), "{frames:?}");
    // As the kernel has it by itself: a frame is more than one send holds.
    a.namespace
        .ip("link set eth0 gso_max_size 65536 gso_max_segs 65535")?;
    let unlimited = stream()?;
    let (frames, sends) = (&unlimited.frames, &unlimited.sends);
    ensure!(unlimited.frames_above(SEGMENTS) > 0, "{frames:?}");
    ensure!(sends.keys().max() <= Some(&SEGMENTS), "{sends:?}");
    ensure!(full(sends) > full(frames), "{frames:?} in {sends:?}");
    here.del(&a)?;
    there.del(&b)
}

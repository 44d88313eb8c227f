//! The inputs of the fuzz targets, replayed: every seed and every crash that was found. No root, no fuzzer.

use std::collections::BTreeMap;
use std::fs;
use std::panic;
use std::path::{Path, PathBuf};

#[path = "../fuzz/src/lib.rs"]
#[allow(
    unreachable_pub,
    clippy::missing_panics_doc,
    reason = "a crate of its own elsewhere"
)]
mod fuzz;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(name)
}

/// The files of a target in `corpus` or `crashes`; none if there is no such folder.
fn inputs(kind: &str, target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(folder(kind).join(target)) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.expect("the folder is ours").path());
    let mut paths: Vec<PathBuf> = paths.collect();
    paths.sort();
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).expect("the file is ours");
        (path, bytes)
    };
    paths.into_iter().map(read).collect()
}

/// How many inputs a target took, or which it did not.
fn replay(kind: &str, target: &str, body: fn(&[u8])) -> Result<usize, PathBuf> {
    let inputs = inputs(kind, target);
    for (path, bytes) in &inputs {
        panic::catch_unwind(|| body(bytes)).map_err(|_| path.clone())?;
    }
    Ok(inputs.len())
}

#[test]
fn every_target_takes_its_seeds() {
    for (target, body) in fuzz::TARGETS {
        let replayed = replay("corpus", target, body);
        assert!(
            replayed.as_ref().is_ok_and(|count| *count > 0),
            "{target}: {replayed:?}"
        );
    }
}

#[test]
fn no_crash_that_was_found_comes_back() {
    for (target, body) in fuzz::TARGETS {
        if let Err(path) = replay("crashes", target, body) {
            panic!("{} is back", path.display());
        }
    }
}

#[test]
fn every_folder_and_every_binary_is_a_targets() {
    let targets: Vec<&str> = fuzz::TARGETS.iter().map(|(name, _)| *name).collect();
    for (kind, suffix) in [("corpus", ""), ("crashes", ""), ("fuzz_targets", ".rs")] {
        let Ok(entries) = fs::read_dir(folder(kind)) else {
            continue;
        };
        for entry in entries {
            let name = entry.expect("the folder is ours").file_name();
            let name = name.to_string_lossy().into_owned();
            let target = name.strip_suffix(suffix).unwrap_or(&name);
            assert!(targets.contains(&target), "{kind}/{name}");
        }
    }
    for target in targets {
        assert!(
            folder("fuzz_targets").join(format!("{target}.rs")).exists(),
            "{target}"
        );
    }
}

/// With `SILK_VTEP_WRITE_SEEDS=1` they are written. Names without an extension are a fuzzer's and none of ours.
#[test]
fn the_seeds_are_those_that_the_program_makes() {
    let made = fuzz::seeds::seeds();
    let made: BTreeMap<_, _> = made
        .into_iter()
        .map(|seed| {
            (
                folder("corpus").join(seed.target).join(seed.name),
                seed.bytes,
            )
        })
        .collect();
    if std::env::var_os("SILK_VTEP_WRITE_SEEDS").is_some() {
        write(&made);
    }
    let targets = fuzz::TARGETS.iter();
    let kept: BTreeMap<_, _> = targets
        .flat_map(|(target, _)| inputs("corpus", target))
        .filter(|(path, _)| path.extension().is_some())
        .collect();
    let differing: Vec<_> = made
        .keys()
        .chain(kept.keys())
        .filter(|path| made.get(*path) != kept.get(*path))
        .collect();
    assert!(
        differing.is_empty(),
        "{differing:?}: SILK_VTEP_WRITE_SEEDS=1 cargo test --test corpus"
    );
    let bytes: usize = made.values().map(Vec::len).sum();
    assert!(
        made.len() < 400 && bytes < 1 << 20,
        "{} files, {bytes} bytes",
        made.len()
    );
}

fn write(seeds: &BTreeMap<PathBuf, Vec<u8>>) {
    for (path, bytes) in seeds {
        let folder = path.parent().expect("a file of a folder");
        fs::create_dir_all(folder).expect("the folder is ours");
        fs::write(path, bytes).expect("the folder is ours");
    }
}

//! Small libraries that are preloaded into the very binary that is shipped.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Result, ensure};

/// Compiles `source`, a file beside this one, into `directory`.
pub(crate) fn library(directory: &Path, source: &str) -> Result<PathBuf> {
    let library = directory.join(source).with_extension("so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/cni")
        .join(source);
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-o"]);
    let compiled = compiler.arg(&library).arg(source).arg("-ldl").output()?;
    ensure!(compiled.status.success(), "{compiled:?}");
    Ok(library)
}

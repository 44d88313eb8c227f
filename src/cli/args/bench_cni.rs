//! What may be typed after `bench cni`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

/// What else can be measured than dataplanes.
#[derive(Debug, Clone, Subcommand)]
pub enum BenchOf {
    /// Measure the CNI plugin: how long it takes to wire and to remove containers, in namespaces on this machine
    Cni(CniBenchArgs),
}

/// How to measure the plugin.
#[derive(Debug, Clone, Args)]
pub struct CniBenchArgs {
    /// Containers; a cell's /24 has 253 addresses for them
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=253))]
    pub count: u32,
    /// How many at a time, where they are not one by one
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=64))]
    pub parallel: u32,
    /// Where plugins are: with `host-local` in it, that reserves the addresses [default: the plugin itself does]
    #[arg(long, value_name = "DIR", value_parser = with_host_local)]
    pub cni_path: Option<PathBuf>,
}

/// The directory, absolute as the plugin wants it. Without `host-local` the plugin would do the work itself, and the figures be another's.
fn with_host_local(directory: &str) -> Result<PathBuf, String> {
    match Path::new(directory).join("host-local").is_file() {
        true => std::path::absolute(directory).map_err(|error| error.to_string()),
        false => Err("there is no host-local".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_host_local_and_becomes_absolute() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        // From wherever this runs: there is nothing above the root.
        let relative = format!("..{}{}", "/..".repeat(64), directory.path().display());
        with_host_local(&relative).expect_err("it is empty");
        std::fs::write(directory.path().join("host-local"), "").expect("ours");
        let path = with_host_local(&relative).expect("it is there");
        assert!(path.is_absolute() && path.join("host-local").exists());
    }
}

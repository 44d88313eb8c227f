//! What may be typed after `bench cni`.

use std::path::PathBuf;

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
    #[arg(long, value_name = "DIR")]
    pub cni_path: Option<PathBuf>,
}

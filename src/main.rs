//! The binary: parse, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use silk_vtep::cli::{self, args::CommandLine};

fn main() -> ExitCode {
    match cli::run(&CommandLine::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

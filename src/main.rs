//! The binary: parse, run, exit code.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use silk_vtep::cli::{self, args::CommandLine};
use silk_vtep::cni;

fn main() -> ExitCode {
    let program = std::env::args_os().next().unwrap_or_default();
    // A runtime gives a plugin no arguments, and knows it by its file's name.
    if Path::new(&program).file_name() == Some(cni::PROGRAM.as_ref()) {
        return match cni::run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(cni::Told) => ExitCode::FAILURE,
        };
    }
    match cli::run(&CommandLine::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

//! What may follow `silk-vtep replay`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

/// Packets to judge.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("from").required(true))]
pub struct ReplayArgs {
    /// The configuration of the daemon to stand in for
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Packets are Ethernet frames, as the TAP would give them; written are whole underlay frames
    #[arg(long, group = "from")]
    pub from_overlay: bool,
    /// Packets are underlay frames; written are the frames inside
    #[arg(long, group = "from")]
    pub from_underlay: bool,
    /// The capture, pcap or pcapng; `-` is standard input
    #[arg(value_name = "IN.pcap")]
    pub input: PathBuf,
    /// Write what would be sent or delivered, at the times of the input
    #[arg(short = 'w', long = "write", value_name = "OUT.pcap")]
    pub output: Option<PathBuf>,
    /// Refused: replay asks no daemon. Here, so that the option of all other commands is not in its help.
    #[arg(long, hide = true)]
    pub socket: Option<PathBuf>,
    /// As `socket`.
    #[arg(long, hide = true)]
    pub name: Option<String>,
}

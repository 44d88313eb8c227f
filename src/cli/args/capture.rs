//! What may follow `silk-vtep capture`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use ipnet::IpNet;

use super::underlay;
use crate::control::capture::CaptureRequest;
use crate::io::capture::SNAP_BYTES_MAX;

/// Packets to capture.
#[derive(Debug, Clone, Args)]
pub struct CaptureArgs {
    /// The pcapng file; `-` is standard output
    #[arg(short = 'w', long = "write", value_name = "FILE")]
    pub output: PathBuf,
    /// Dropped packets alone
    #[arg(long)]
    pub drops: bool,
    /// Packets to and from this underlay address
    #[arg(long, value_name = "UNDERLAY", value_parser = underlay)]
    pub peer: Option<IpAddr>,
    /// Packets from or to this inner address or prefix
    #[arg(long, value_name = "ADDRESS", value_parser = net)]
    pub address: Option<IpNet>,
    /// End after so many packets
    #[arg(short = 'c', long, value_name = "PACKETS", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Bytes to keep of each packet, 131072 at the most: more than any has [default: 2048, so that super-frames are cut off]
    #[arg(short = 's', long = "snap", value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=SNAP_BYTES_MAX as i64))]
    pub snap: Option<u32>,
}

impl CaptureArgs {
    /// What is asked of the daemon.
    #[must_use]
    pub fn request(&self) -> CaptureRequest {
        CaptureRequest {
            drops: self.drops,
            peer: self.peer,
            address: self.address,
            snap: self.snap.map(|bytes| bytes as usize),
        }
    }
}

/// An address alone is itself.
fn net(word: &str) -> Result<IpNet, &'static str> {
    let address = || word.parse::<IpAddr>().ok().map(IpNet::from);
    word.parse()
        .ok()
        .or_else(address)
        .ok_or("an address such as 10.255.43.6, or a prefix such as 10.255.43.0/24")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Command, CommandLine};

    fn parse(words: &str) -> Result<CaptureRequest, String> {
        let line = format!("silk-vtep capture {words}");
        let parsed = CommandLine::try_parse_from(line.split_whitespace());
        match parsed.map_err(|error| error.to_string())?.command {
            Command::Capture(args) => Ok(args.request()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_address_may_be_a_prefix() {
        for (word, net) in [
            ("10.255.43.6", "10.255.43.6/32"),
            ("10.255.43.0/24", "10.255.43.0/24"),
            ("fd00::1", "fd00::1/128"),
        ] {
            let request = parse(&format!("-w out --address {word}")).unwrap();
            assert_eq!(
                request.address.map(|net| net.to_string()).as_deref(),
                Some(net)
            );
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (words, expected) in [
            ("--drops", "--write <FILE>"),
            ("-w out -c 0", "'0'"),
            ("-w out -s 0", "'0'"),
            ("-w out -s 131073", "131073 is not in 1..=131072"),
            ("-w out --address web", "an address such as 10.255.43.6"),
            ("-w out --peer 10.0.16.0/24", "such as 10.0.16.14 is wanted"),
        ] {
            let said = parse(words).expect_err(words);
            assert!(said.contains(expected), "{words}: {said}");
        }
    }
}

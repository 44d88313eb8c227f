//! What may follow `silk-vtep trace`.

use std::net::IpAddr;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::{overlay, underlay};
use crate::control::trace::{Proto, TraceRequest};
use crate::wire::{MacAddr, Mark};

/// A packet to imagine.
#[derive(Debug, Clone, Args)]
pub struct TraceArgs {
    /// Inner source address
    #[arg(long, value_name = "ADDRESS", value_parser = overlay)]
    pub src: IpAddr,
    /// Inner destination address
    #[arg(long, value_name = "ADDRESS", value_parser = overlay)]
    pub dst: IpAddr,
    /// What it carries [default: icmp, an echo request]
    #[arg(long, value_name = "tcp|udp|icmp", hide_possible_values = true, value_parser = proto())]
    pub proto: Option<Proto>,
    /// Destination port of TCP or UDP
    #[arg(long, value_name = "PORT")]
    pub dport: Option<u16>,
    /// Source port of TCP or UDP, which chooses the outer source port [default: 49152]
    #[arg(long, value_name = "PORT")]
    pub sport: Option<u16>,
    /// Its group: what the host's rules mark it with, or the header of a packet that comes in
    #[arg(long, value_name = "ID", value_parser = group, conflicts_with = "mark")]
    pub group: Option<u16>,
    /// The whole mark instead, with A in bit 19 and D in bit 22
    #[arg(long, value_name = "MARK", value_parser = mark)]
    pub mark: Option<u32>,
    /// Bytes of the IP packet [default: its headers alone]
    #[arg(long, value_name = "BYTES")]
    pub len: Option<u16>,
    /// IPv4 with DF
    #[arg(long)]
    pub df: bool,
    /// Where it arrives from the underlay, instead of where the host sends it
    #[arg(long)]
    pub ingress: bool,
    /// With --ingress: the underlay address that sends it [default: the peer that has the source behind it]
    #[arg(long, value_name = "UNDERLAY", value_parser = underlay, requires = "ingress")]
    pub from: Option<IpAddr>,
    /// Destination MAC of the host's frame, with --ingress source MAC of the inner frame [default: what the tables have]
    #[arg(long, value_name = "MAC")]
    pub mac: Option<MacAddr>,
}

impl TraceArgs {
    /// What is asked of the daemon.
    #[must_use]
    pub fn request(&self) -> TraceRequest {
        TraceRequest {
            src: self.src,
            dst: self.dst,
            proto: self.proto,
            sport: self.sport,
            dport: self.dport,
            mark: self.mark.or(self.group.map(u32::from)),
            len: self.len,
            df: self.df,
            ingress: self.ingress,
            from: self.from,
            mac: self.mac,
        }
    }
}

fn proto() -> impl TypedValueParser<Value = Proto> {
    let names = PossibleValuesParser::new(Proto::ALL.map(Proto::name));
    names.try_map(|word| Proto::of_name(&word).ok_or("tcp, udp or icmp"))
}

fn number(word: &str) -> Option<u32> {
    match word.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

fn group(word: &str) -> Result<u16, &'static str> {
    let group = number(word).and_then(|number| u16::try_from(number).ok());
    group
        .filter(|group| *group != 0)
        .ok_or("a group id is 0x0001 to 0xffff")
}

fn mark(word: &str) -> Result<u32, &'static str> {
    number(word)
        .filter(|mark| Mark(*mark) != Mark::NONE)
        .ok_or("a mark is 0x1 to 0xffffffff")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Command, CommandLine};

    fn parse(words: &str) -> Result<TraceRequest, String> {
        let line = format!("silk-vtep trace --src 10.255.108.184 --dst 10.255.43.6 {words}");
        let parsed = CommandLine::try_parse_from(line.split_whitespace());
        match parsed.map_err(|error| error.to_string())?.command {
            Command::Trace(args) => Ok(args.request()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_group_is_a_mark_of_sixteen_bits() {
        for (words, mark) in [
            ("--group 3", Some(3)),
            ("--group 0xffff", Some(0xffff)),
            ("--mark 0x480003", Some(0x48_0003)),
            ("", None),
        ] {
            assert_eq!(parse(words).unwrap().mark, mark, "{words}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_can() {
        for (words, expected) in [
            ("--group 0", "a group id is 0x0001 to 0xffff"),
            ("--group 0x10000", "a group id is 0x0001 to 0xffff"),
            ("--mark 0", "a mark is 0x1 to 0xffffffff"),
            ("--group 3 --mark 3", "cannot be used with"),
            ("--from 10.0.16.14", "--ingress"),
            ("--ingress --from web", "such as 10.0.16.14 is wanted"),
            ("--proto sctp", "invalid value 'sctp'"),
            ("--dport 65536", "65536 is not in 0..=65535"),
        ] {
            let said = parse(words).expect_err(words);
            assert!(said.contains(expected), "{words}: {said}");
        }
    }
}

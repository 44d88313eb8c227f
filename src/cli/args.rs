//! What may be typed, as clap sees it. The words after a table's name are read by [`words`](super::words), as `ip` reads its own.

mod bench;
mod bench_cni;
mod capture;
mod replay;
mod trace;

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::words::UsageError;
use crate::control::config::is_link_name;
use crate::control::default_socket_path;
use crate::netlink::VETH_MTU_BYTES;

pub use bench::{BenchArgs, BenchRival, BenchSubject, BenchWire, VtepSetting};
pub use bench_cni::{BenchOf, CniBenchArgs};
pub use capture::CaptureArgs;
pub use replay::ReplayArgs;
pub use trace::TraceArgs;

/// A VXLAN-GBP tunnel endpoint in a process.
#[derive(Debug, Parser)]
#[command(name = "silk-vtep", version, arg_required_else_help = true)]
pub struct CommandLine {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command, before or after it.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Control socket of the daemon [default: `/run/silk-vtep/NAME.sock`]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Device whose daemon to ask [default: silk-vtep]
    #[arg(long, global = true, value_name = "NAME", value_parser = link_name)]
    pub name: Option<String>,
    /// Print JSON
    #[arg(short, long, global = true)]
    pub json: bool,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon in the foreground
    Run {
        /// Its configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Show two cells and two containers at work, in namespaces on this machine
    Demo,
    /// Measure this dataplane and the kernel's, in turn, in namespaces on this machine
    Bench(BenchArgs),
    /// Judge the packets of a capture as a daemon would, without one
    Replay(ReplayArgs),
    /// Say what this host can and cannot do for a daemon, and the mend
    Doctor {
        /// The configuration of the daemon [default: one of nothing but defaults]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Wire containers to this host
    #[command(subcommand)]
    Container(ContainerCommand),
    /// Be the CNI plugin: `CNI_COMMAND` and its like in the environment, the network's configuration on standard input
    Cni,
    /// Walk an imagined packet through the tables of a running daemon
    Trace(TraceArgs),
    /// Write live packets of a running daemon to a pcapng file, each with its verdict as a comment
    Capture(CaptureArgs),
    /// What is asked of a running daemon.
    #[command(flatten)]
    Table(TableCommand),
}

/// What is done with a container.
#[derive(Debug, Subcommand)]
pub enum ContainerCommand {
    /// Make its veth pair, addresses, neighbours and routes
    Add(ContainerAdd),
    /// Remove them; a container that is not there is no error
    Del(ContainerDel),
    /// Name everything that is not as `add` made it
    Check(ContainerAdd),
    /// Show those of this cell, and what their links have carried
    List,
}

/// A container to wire.
#[derive(Debug, Args)]
pub struct ContainerAdd {
    /// Its overlay address
    #[arg(long, value_name = "IPV4", value_parser = ipv4)]
    pub address: Ipv4Addr,
    /// Its network namespace: a name in /run/netns, or a path
    #[arg(long, value_name = "NAME|PATH")]
    pub netns: String,
    /// Name of its link
    #[arg(long, value_name = "NAME", default_value = "eth0")]
    pub ifname: String,
    /// MTU of both ends [default: the device's]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(veth_mtu_bytes()))]
    pub mtu: Option<u32>,
}

/// A container to remove.
#[derive(Debug, Args)]
pub struct ContainerDel {
    /// Its overlay address
    #[arg(long, value_name = "IPV4", value_parser = ipv4)]
    pub address: Ipv4Addr,
    /// Its network namespace, to remove no other's container; it need not be there any more
    #[arg(long, value_name = "NAME|PATH")]
    pub netns: Option<String>,
}

/// A command that a running daemon answers.
#[derive(Debug, Subcommand)]
pub enum TableCommand {
    /// Show the device
    #[command(after_help = super::words::LINK_USAGE)]
    Link(Words),
    /// Show, add, replace or delete routes
    #[command(after_help = super::words::ROUTE_USAGE)]
    Route(Words),
    /// Show, add, replace or delete neighbours
    #[command(after_help = super::words::NEIGH_USAGE)]
    Neigh(Words),
    /// Show, add, replace or delete forwarding entries
    #[command(after_help = super::words::FDB_USAGE)]
    Fdb(Words),
    /// Show, add, replace or delete peers: a route, a neighbour and a forwarding entry in one
    #[command(after_help = super::words::PEER_USAGE)]
    Peer(Words),
    /// Show, add, replace or delete groups
    #[command(after_help = super::words::GROUP_USAGE)]
    Group(Words),
    /// Show, add, replace or delete rules of the group policy; show whom it refused
    #[command(after_help = super::words::POLICY_USAGE)]
    Policy(Words),
    /// Show packets, bytes and drops
    Stats(Stats),
    /// Read the configuration file again
    Reload,
    /// Apply many changes at once, all or none: lines such as `peer add 10.255.43.0/24 underlay 10.0.16.14`
    Batch {
        /// The file; `-` is standard input
        file: PathBuf,
    },
}

/// Words as `ip` takes them.
#[derive(Debug, Clone, Args)]
pub struct Words {
    /// show | add | replace | del, and what follows
    #[arg(allow_negative_numbers = true)]
    pub words: Vec<String>,
}

/// Options of `stats`.
#[derive(Debug, Clone, Copy, Args)]
pub struct Stats {
    /// Again every second, with what went by in it
    #[arg(long)]
    pub watch: bool,
    /// Each lane too
    #[arg(long)]
    pub lanes: bool,
}

/// As clap wants a range.
fn veth_mtu_bytes() -> RangeInclusive<i64> {
    (*VETH_MTU_BYTES.start()).into()..=(*VETH_MTU_BYTES.end()).into()
}

fn link_name(text: &str) -> Result<String, &'static str> {
    let name = Some(text.to_owned()).filter(|name| is_link_name(name));
    name.ok_or("no name of a link: 1 to 15 printable characters without `/`, `:` and `%`")
}

fn ipv4(text: &str) -> Result<Ipv4Addr, &'static str> {
    text.parse()
        .map_err(|_| "an IPv4 address such as 10.255.108.184 is wanted")
}

fn overlay(text: &str) -> Result<IpAddr, &'static str> {
    text.parse()
        .map_err(|_| "an address such as 10.255.43.6 is wanted")
}

fn underlay(text: &str) -> Result<IpAddr, &'static str> {
    text.parse()
        .map_err(|_| "an underlay address such as 10.0.16.14 is wanted")
}

impl Global {
    /// Refuses, for a command that asks no daemon, what says which one to ask.
    ///
    /// # Errors
    /// There is such an option.
    pub fn asks_nobody(&self, usage: &'static str) -> Result<(), UsageError> {
        if self.name.is_none() && self.socket.is_none() {
            return Ok(());
        }
        let command = usage.split(' ').nth(2).unwrap_or_default();
        Err(UsageError {
            wrong: format!("{command}: it asks no daemon but its own (`--name`, `--socket`)"),
            usage,
        })
    }

    /// Refuses every option, for a command that is told everything otherwise: by `told_by`.
    ///
    /// # Errors
    /// There is one.
    pub fn none(&self, told_by: &str, usage: &'static str) -> Result<(), UsageError> {
        if self.name.is_none() && self.socket.is_none() && !self.json {
            return Ok(());
        }
        let command = usage.split(' ').nth(2).unwrap_or_default();
        Err(UsageError {
            wrong: format!("{command}: {told_by} says that (`--name`, `--socket`, `--json`)"),
            usage,
        })
    }

    /// Where the daemon to ask listens.
    #[must_use]
    pub fn socket_path(&self) -> PathBuf {
        self.socket
            .clone()
            .unwrap_or_else(|| default_socket_path(self.name()))
    }

    /// The device whose daemon to ask.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("silk-vtep")
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> CommandLine {
        CommandLine::try_parse_from(line.split(' ')).expect(line)
    }

    #[test]
    fn clap_accepts_the_definition() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_words() {
        for line in [
            "silk-vtep --socket /tmp/a -j route add 10.255.43.0/24 via 10.255.43.0",
            "silk-vtep route --socket /tmp/a add 10.255.43.0/24 via 10.255.43.0 -j",
            "silk-vtep route add 10.255.43.0/24 -j via 10.255.43.0 --socket=/tmp/a",
        ] {
            let parsed = parse(line);
            assert_eq!(parsed.global.socket_path(), PathBuf::from("/tmp/a"));
            assert!(parsed.global.json);
            let Command::Table(TableCommand::Route(Words { words })) = parsed.command else {
                panic!("{line}");
            };
            assert_eq!(words, ["add", "10.255.43.0/24", "via", "10.255.43.0"]);
        }
    }

    #[test]
    fn the_socket_follows_from_the_name() {
        let parsed = parse("silk-vtep stats --name vtep7");
        assert_eq!(
            parsed.global.socket_path(),
            PathBuf::from("/run/silk-vtep/vtep7.sock")
        );
    }

    #[test]
    fn a_name_that_no_link_can_have_is_refused() {
        for name in ["", "../../x", "sixteen-letters-"] {
            let line = ["silk-vtep", "stats", "--name", name];
            assert!(CommandLine::try_parse_from(line).is_err(), "{name}");
        }
    }

    #[test]
    fn a_negative_number_is_a_word() {
        let parsed = parse("silk-vtep group add 10.255.1.1 id -1 -j");
        assert!(parsed.global.json);
        let Command::Table(TableCommand::Group(Words { words })) = parsed.command else {
            panic!("{:?}", parsed.command);
        };
        assert_eq!(words, ["add", "10.255.1.1", "id", "-1"]);
    }

    #[test]
    fn what_asks_no_daemon_takes_no_option_that_says_which() {
        let usage = "usage: silk-vtep demo [--json]";
        let asked = |line| parse(line).global.asks_nobody(usage);
        assert!(asked("silk-vtep demo -j").is_ok());
        let told = asked("silk-vtep demo --socket /tmp/x").expect_err("refused");
        assert_eq!(
            told.wrong,
            "demo: it asks no daemon but its own (`--name`, `--socket`)"
        );
    }

    #[test]
    fn the_cni_plugin_takes_no_option() {
        let usage = "usage: silk-vtep cni < CONFIGURATION";
        let asked = |line: &str| parse(line).global.none("the configuration", usage);
        assert!(asked("silk-vtep cni").is_ok());
        for option in ["--socket /tmp/x", "--name vtep7", "-j"] {
            for line in [
                format!("silk-vtep cni {option}"),
                format!("silk-vtep {option} cni"),
            ] {
                let told = asked(&line).expect_err("refused");
                assert_eq!(
                    told.wrong,
                    "cni: the configuration says that (`--name`, `--socket`, `--json`)"
                );
            }
        }
    }

    #[test]
    fn an_mtu_is_one_that_a_veth_takes() {
        for (mtu, taken) in [
            ("67", false),
            ("68", true),
            ("65535", true),
            ("65536", false),
        ] {
            let line =
                format!("silk-vtep container add --address 10.255.1.2 --netns web --mtu {mtu}");
            let parsed = CommandLine::try_parse_from(line.split(' '));
            assert_eq!(parsed.is_ok(), taken, "{mtu}");
        }
    }

    #[test]
    fn a_batch_reads_standard_input_as_a_dash() {
        let parsed = parse("silk-vtep batch -");
        assert!(
            matches!(parsed.command, Command::Table(TableCommand::Batch { file }) if file.as_os_str() == "-")
        );
    }
}

//! The express path, for who asks for it: by the configuration, or by the daemon that runs.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;

use crate::bpf::marks;
use crate::control::Config;
use crate::control::rows::SilkVtep;
use crate::daemon::express_needs::{self, FEATURE, Segmentation, Unfit};
use crate::daemon::offload::Kernel;
use crate::error::{SetupError, errno};
use crate::io::express::ExpressOptions;
use crate::io::{Express, not_loaded};
use crate::netlink::{Netlink, underlay};
use crate::sys;
use crate::sys::bpf::ProgramType;

use super::check::Check;

/// Also what `link show` calls it among the features.
const NAME: &str = "express";
const PURPOSE: &str = "TCP leaves without passing through the daemon (express = true)";
/// Where the host cannot.
const WITHOUT: &str = "set express = false to do without";

/// `None` if nobody asks for it.
pub(super) fn asked(config: &Config, running: Option<&SilkVtep>) -> Option<Check> {
    let told = running.and_then(|running| running.features.get(NAME));
    match (config.vtep.express, told) {
        (false, None) => None,
        (false, Some(told)) => Some(by_daemon(told)),
        (true, None) => Some(here(config)),
        (true, Some(told)) => Some(here(config).also(uses(told))),
    }
}

/// All that a daemon of another configuration tells.
fn by_daemon(told: &str) -> Check {
    let detail = format!("{PURPOSE}; {}", uses(told));
    match told.split(':').next() {
        Some("on") => Check::ok(NAME, detail),
        Some("unsupported") => Check::missing(NAME, detail).mend(
            "give the configuration of that daemon with --config: then this line has the mend",
        ),
        Some(_) | None => Check::off(NAME, detail),
    }
}

fn uses(told: &str) -> String {
    format!("the daemon that runs says {told}")
}

fn here(config: &Config) -> Check {
    let local = match express_needs::local(config) {
        Ok(local) => local,
        Err(unfit) => {
            return Check::off(NAME, format!("{PURPOSE}: {}", unfit.why()))
                .mend(mend(unfit, config));
        }
    };
    match load(config, local) {
        Ok(()) if !Kernel::running().makes_tunnel_room() => {
            let cause = "this kernel takes its program, and may refuse it each packet";
            Check::unknown(NAME, format!("{PURPOSE}: {cause}"))
                .mend("Linux 5.13 or later has it; `stats` tells how much took it")
        }
        Ok(()) => beside_policy(config, over_underlay(local)),
        Err(error) => Check::missing(NAME, format!("{PURPOSE}: {}", error.cause)).mend(error.mend),
    }
}

const fn mend(unfit: Unfit, config: &Config) -> &'static str {
    match unfit {
        // Those programs are refused without.
        Unfit::Marks if !config.vtep.gbp => "set gbp = true, or express = false",
        Unfit::Underlay => "give an IPv4 address as `local`, or set express = false",
        Unfit::Marks => "set marks = \"bpf\", or express = false",
        Unfit::Df => "set df = \"unset\", or express = false",
    }
}

/// Makes the maps and loads the program as a daemon does; they go at once.
fn load(config: &Config, local: Ipv4Addr) -> Result<(), SetupError> {
    const OPERATION: &str = "try";
    let vtep = &config.vtep;
    let options = ExpressOptions {
        local,
        source_ports: Vec::new(),
        udp_checksum: vtep.udp_checksum,
        captures: Arc::default(),
    };
    let (express, _wanted) = Express::create(options).map_err(|error| {
        let cause = format!("BPF_MAP_CREATE: {}", errno(&error));
        let failed = SetupError::new(OPERATION, NAME, cause);
        match error.raw_os_error() {
            Some(libc::EPERM) => {
                failed.mend("needs CAP_BPF: run as root, or grant it to the service")
            }
            Some(libc::ENOSYS) => failed.mend("this kernel is built without BPF"),
            _ => failed.mend(WITHOUT),
        }
    })?;
    let program = marks::egress(vtep.mac, Some(express.maps()));
    sys::bpf::load(ProgramType::SchedCls, marks::EGRESS_NAME, &program)
        .map(drop)
        .map_err(|error| not_loaded(OPERATION, NAME, &error).or_mend(WITHOUT))
}

/// Packets to peers may take another device; without routes of their own they take this.
fn over_underlay(local: Ipv4Addr) -> Check {
    let link = Netlink::open().and_then(|mut netlink| underlay(&mut netlink, local.into()));
    match link {
        Ok(Some(link)) => over(&link.name, segmentation(&link.name)),
        Ok(None) => Check::unknown(NAME, format!("{PURPOSE}: no link of this host has {local}"))
            .mend("give one the address first, or correct `local`"),
        Err(error) => Check::unknown(NAME, format!("{PURPOSE}: {}", error.cause)),
    }
}

fn segmentation(link: &str) -> io::Result<Segmentation> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    Segmentation::of(&socket, link)
}

fn over(link: &str, segmentation: io::Result<Segmentation>) -> Check {
    match segmentation {
        Ok(Segmentation::On) => Check::ok(NAME, format!("{PURPOSE} over {link}")),
        Ok(Segmentation::Off) => Check::off(NAME, format!("{PURPOSE}: {FEATURE} of {link} is off"))
            .mend(format!("ethtool -K {link} {FEATURE} on")),
        Ok(Segmentation::Fixed) => {
            Check::missing(NAME, format!("{PURPOSE}: {link} cannot do {FEATURE}")).mend(WITHOUT)
        }
        Err(error) => {
            let cause = format!("look up {FEATURE} of {link}: {}", errno(&error));
            Check::unknown(NAME, format!("{PURPOSE}: {cause}"))
        }
    }
}

/// The host can; a policy comes first, in a daemon too.
fn beside_policy(config: &Config, check: Check) -> Check {
    if !config.policy.enforce || !check.is_ok() {
        return check;
    }
    Check::off(
        NAME,
        format!("{PURPOSE}: a policy is enforced, which sees every packet"),
    )
    .mend("set express = false, or end the policy with enforce = false")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &str) -> Config {
        let text = format!(
            "[vtep]\nlocal = \"192.0.2.1\"\naddress = \"10.255.108.0\"\noverlay = \"10.255.0.0/16\"\n{more}"
        );
        Config::parse(&text).unwrap_or_else(|errors| panic!("{errors}"))
    }

    fn running(features: &[(&str, &str)]) -> SilkVtep {
        let owned = |&(name, state): &(&str, &str)| (name.to_owned(), state.to_owned());
        SilkVtep {
            lanes: 1,
            addresses: Vec::new(),
            overlays: Vec::new(),
            routing: true,
            strict_source: true,
            marks: "bpf".to_owned(),
            marks_why: String::new(),
            marks_trouble: None,
            policy: "off".to_owned(),
            features: features.iter().map(owned).collect(),
        }
    }

    #[test]
    fn who_does_not_ask_is_told_nothing() {
        assert_eq!(asked(&config(""), None), None);
        let without = running(&[("tso", "on")]);
        assert_eq!(asked(&config("express = false"), Some(&without)), None);
    }

    #[test]
    fn what_the_configuration_rules_out_is_off_with_its_mend() {
        for (more, cause, mend) in [
            ("gbp = false", "marks = \"bpf\")", "(set gbp = true, or"),
            (
                "marks = \"table\"",
                "marks = \"bpf\")",
                "(set marks = \"bpf\", or",
            ),
            ("df = \"set\"", "df = \"unset\")", "(set df = \"unset\", or"),
        ] {
            let config = config(&format!("express = true\n{more}"));
            let line = asked(&config, None).expect("asked for").to_string();
            assert!(line.starts_with("off      express"), "{line}");
            assert!(line.contains(cause) && line.contains(mend), "{line}");
        }
    }

    #[test]
    fn the_device_is_named_and_how_to_switch_it_on() {
        let line = |found| over("eth7", found).to_string();
        assert!(line(Ok(Segmentation::On)).starts_with("ok       express"));
        assert!(line(Ok(Segmentation::On)).ends_with(" over eth7"));
        let off = line(Ok(Segmentation::Off));
        assert!(off.starts_with("off      express"), "{off}");
        let mend = "(ethtool -K eth7 tx-udp_tnl-segmentation on)";
        assert!(off.ends_with(mend), "{off}");
        let fixed = line(Ok(Segmentation::Fixed));
        assert!(fixed.starts_with("missing  express"), "{fixed}");
        assert!(fixed.contains("eth7") && !fixed.contains("-K"), "{fixed}");
        let gone = line(Err(io::Error::from_raw_os_error(libc::ENODEV)));
        assert!(gone.starts_with("unknown  express"), "{gone}");
        assert!(gone.ends_with("of eth7: ENODEV"), "{gone}");
    }

    #[test]
    fn a_policy_is_told_where_the_host_could() {
        let enforced = config("express = true\n[policy]\nenforce = true\n");
        let able = || Check::ok(NAME, PURPOSE);
        let line = beside_policy(&enforced, able()).to_string();
        assert!(line.starts_with("off      express"), "{line}");
        let unable = Check::missing(NAME, "");
        assert_eq!(beside_policy(&enforced, unable.clone()), unable);
        assert_eq!(beside_policy(&config("express = true"), able()), able());
    }

    #[test]
    fn a_daemon_that_runs_has_its_word() {
        for (told, state) in [
            ("on", "ok "),
            ("off: a capture runs", "off "),
            ("unsupported: the underlay is IPv6", "missing "),
        ] {
            let running = running(&[(NAME, told)]);
            let line = asked(&config(""), Some(&running)).expect("it asks");
            let line = line.to_string();
            assert!(line.starts_with(state), "{line}");
            let word = format!("; the daemon that runs says {told}");
            assert!(line.contains(&word), "{line}");
            let wanted = config("express = true\ndf = \"set\"");
            let line = asked(&wanted, Some(&running)).expect("both ask");
            let line = line.to_string();
            assert!(line.starts_with("off ") && line.contains(&word), "{line}");
        }
    }
}

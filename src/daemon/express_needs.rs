//! What the express path wants of a configuration and of a device: asked by the daemon, and by `doctor` before there is one.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;

use crate::control::Config;
use crate::sys::ethtool;
use crate::tables::{Df, MarkSource};

/// NETIF_F_GSO_UDP_TUNNEL, as `ethtool -k` names it.
pub(crate) const FEATURE: &str = "tx-udp_tnl-segmentation";

/// What of a configuration keeps it from being had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// `local` is an IPv6 address.
    Underlay,
    /// Marks come from elsewhere than from programs.
    Marks,
    /// `df` is set.
    Df,
}

impl Unfit {
    /// For a person.
    pub(crate) const fn why(self) -> &'static str {
        match self {
            Self::Underlay => "the underlay is IPv6",
            Self::Marks => "it stands beside the programs that carry marks (marks = \"bpf\")",
            Self::Df => "what a path carries changes without a word to it (df = \"unset\")",
        }
    }
}

/// The underlay address of a configuration that can have it.
///
/// # Errors
/// It cannot.
pub(crate) fn local(config: &Config) -> Result<Ipv4Addr, Unfit> {
    let IpAddr::V4(local) = config.vtep.local else {
        return Err(Unfit::Underlay);
    };
    if config.marks() != MarkSource::Packet {
        return Err(Unfit::Marks);
    }
    if config.vtep.outer.df != Df::Unset {
        return Err(Unfit::Df);
    }
    Ok(local)
}

/// How [`FEATURE`] stands on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segmentation {
    /// It takes tunnel super-frames.
    On,
    /// It does not, and would if it were told to.
    Off,
    /// It cannot.
    Fixed,
}

impl Segmentation {
    /// That of the device `link`, in the network namespace of `socket`.
    ///
    /// # Errors
    /// ENODEV: it is gone.
    pub(crate) fn of(socket: impl AsFd, link: &str) -> io::Result<Self> {
        let names = ethtool::feature_names(&socket, link)?;
        let Some(number) = names.iter().position(|name| name == FEATURE) else {
            return Ok(Self::Fixed);
        };
        if ethtool::features(&socket, link)?.get(number) == Some(&true) {
            return Ok(Self::On);
        }
        let changeable = ethtool::changeable_features(&socket, link)?;
        Ok(match changeable.get(number) {
            Some(true) => Self::Off,
            Some(false) | None => Self::Fixed,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn asked(local_and_more: &str) -> Result<Ipv4Addr, Unfit> {
        let text = format!(
            "[vtep]\naddress = \"10.255.108.0\"\noverlay = \"10.255.0.0/16\"\n{local_and_more}"
        );
        local(&Config::parse(&text).unwrap_or_else(|errors| panic!("{errors}")))
    }

    #[test]
    fn each_thing_that_keeps_it_away_is_told() {
        let v4 = "local = \"10.0.32.12\"\n";
        assert_eq!(asked(v4), Ok(Ipv4Addr::new(10, 0, 32, 12)));
        assert_eq!(asked("local = \"fd00::1\"\n"), Err(Unfit::Underlay));
        let group = "\n[[group]]\naddress = \"10.255.108.184\"\nid = 3\n";
        for (more, unfit) in [
            ("marks = \"table\"", Unfit::Marks),
            ("gbp = false", Unfit::Marks),
            (group, Unfit::Marks),
            ("df = \"set\"", Unfit::Df),
            ("df = \"inherit\"", Unfit::Df),
        ] {
            assert_eq!(asked(&format!("{v4}{more}")), Err(unfit), "{more}");
        }
        let by_programs = format!("{v4}marks = \"bpf\"\n{group}");
        assert!(asked(&by_programs).is_ok());
    }

    #[test]
    fn a_device_that_is_not_there_is_an_error() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has a free port");
        let error = Segmentation::of(&socket, "no-such-link").expect_err("no such link");
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}

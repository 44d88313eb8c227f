//! One cell for the tests of this module and of the command line.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use super::{
    Config, ContainerOptions, Control, Entry, HostLinkSource, LinkFacts, LocalContainer, MarksFact,
    Options, PeerSpec, Sending, StateFile,
};
use crate::counters::Counters;
use crate::io::MarkTags;
use crate::netlink::{HostLink, Traffic};
use crate::wire::{GroupId, MacAddr};

pub(crate) const CONFIG: &str = r#"
[vtep]
local = "10.0.32.12"
address = "10.255.108.0"
overlay = ["10.255.0.0/16", "fd00::/16"]
lanes = 2
[[peer]]
subnet = "10.255.43.0/24"
underlay = "10.0.16.14"
[[group]]
address = "10.255.108.184"
id = 3
"#;

pub(crate) fn config(text: &str) -> Config {
    Config::parse(text).unwrap_or_else(|errors| panic!("{errors}"))
}

/// A control over the files `silk-vtep.toml`, written here, and `live.json` of `directory`, with what it warned of.
pub(crate) fn control(directory: &Path) -> (Arc<Control>, Vec<String>) {
    control_of(CONFIG, directory)
}

/// The same with another configuration.
pub(crate) fn control_of(text: &str, directory: &Path) -> (Arc<Control>, Vec<String>) {
    let config_path = directory.join("silk-vtep.toml");
    if !config_path.exists() {
        std::fs::write(&config_path, text).expect("the directory is the test's own");
    }
    let options = Options {
        counters: Arc::new(Counters::new(2)),
        config_path,
        state: Some(StateFile::new(directory.join("live.json"))),
        link: Box::new(|| Ok(facts())),
        marks: config(text).marks(),
        guard: Arc::default(),
        containers: ContainerOptions {
            mtu_bytes: 1410,
            gso_max_segs: Some(45),
            state: Some(StateFile::of_containers(directory.join("containers.json"))),
            links: host_links(),
            datastore: None,
        },
        sending: sending(),
        captures: Arc::default(),
        express: None,
    };
    let (control, warnings) = Control::new(&config(text), options);
    (Arc::new(control), warnings)
}

/// A kernel with the links of two containers, 10.255.108.2 and .3, which it made as numbers 2 and 3.
fn host_links() -> HostLinkSource {
    let links = [2, 3].map(|last: u8| HostLink {
        name: format!("s-010255108{last:03}"),
        index: last.into(),
        peers: vec![[10, 255, 108, last].into()],
        mtu_bytes: 1410,
        traffic: Traffic {
            rx_packets: u64::from(last) * 10,
            ..Traffic::default()
        },
    });
    Box::new(move |name| {
        let all = links.iter();
        let wanted = all.filter(|link| name.is_none_or(|name| name == link.name));
        Ok(wanted.cloned().collect())
    })
}

/// As of a daemon whose 32 ports were all free.
pub(crate) fn sending() -> Sending {
    Sending {
        source_ports: (0..32).map(|n| 32_768 + 882 * n).collect(),
        mtu_bytes: 1410,
        mark_tags: Arc::new(MarkTags::new(true)),
    }
}

pub(crate) fn facts() -> LinkFacts {
    LinkFacts {
        ifindex: 865,
        flags: ["BROADCAST", "MULTICAST", "NOARP", "UP", "LOWER_UP"]
            .map(str::to_owned)
            .to_vec(),
        mtu_bytes: 1410,
        qdisc: "mq".to_owned(),
        operstate: "UNKNOWN".to_owned(),
        address: MacAddr::new([0xee, 0xee, 10, 255, 108, 0]),
        underlay_device: Some("eth0".to_owned()),
        source_ports: (32768, 60999),
        marks: MarksFact {
            from: "table",
            why: "the configuration has groups".to_owned(),
            trouble: None,
        },
        features: [("udp-gso".to_owned(), "on".to_owned())].into(),
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("the test wrote an address")
}

/// With the MAC that follows from the first subnet.
pub(crate) fn peer(subnet: &str, underlay: &str) -> Entry {
    let subnets = vec![subnet.parse().expect("the test wrote a subnet")];
    Entry::Peer(PeerSpec {
        mac: PeerSpec::derived_mac(&subnets).expect("the test wrote an IPv4 subnet"),
        subnets,
        underlay: ip(underlay),
    })
}

/// `count` peers with a /64 each; at the most 65,536.
pub(crate) fn peers(count: u32) -> impl Iterator<Item = Entry> {
    (0..count).map(|n| {
        let [_, _, high, low] = n.to_be_bytes();
        let subnet = format!("fd00:0:0:{n:x}::/64");
        Entry::Peer(PeerSpec {
            subnets: vec![subnet.parse().expect("n has four digits")],
            underlay: [10, 1, high, low].into(),
            mac: MacAddr::new([2, 0, 0, 0, high, low]),
        })
    })
}

pub(crate) fn route(dst: &str, via: &str) -> Entry {
    Entry::Route {
        dst: dst.parse().expect("the test wrote a prefix"),
        via: Some(ip(via)),
    }
}

pub(crate) fn fdb(mac: &str, dst: &str) -> Entry {
    Entry::Fdb {
        mac: mac.parse().expect("the test wrote a MAC"),
        dst: ip(dst),
        port: None,
        vni: None,
    }
}

pub(crate) fn group(address: &str, id: u16) -> Entry {
    Entry::Group {
        address: ip(address),
        id: GroupId(id),
    }
}

/// A container of this cell, wired by a runtime; the last byte of its address.
pub(crate) fn container(id: &str, last: u8) -> LocalContainer {
    LocalContainer {
        id: Some(id.to_owned()),
        ifname: Some("eth0".to_owned()),
        address: [10, 255, 108, last].into(),
        netns: Some(format!("/var/run/netns/{id}")),
        host_link: format!("s-010255108{last:03}"),
    }
}

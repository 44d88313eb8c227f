//! The configurations that both devices are compared in. Each is made once, and its cases run one after another.

use std::ops::Range;

/// One configuration: what the kernel's device is made with, and what ours.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) name: &'static str,
    /// Options of `ip link add ... type vxlan`.
    pub(crate) kernel: &'static str,
    /// Lines of `[vtep]`.
    pub(crate) vtep: &'static str,
    /// Lines behind `[vtep]`.
    pub(crate) tables: &'static str,
    /// An IPv6 underlay.
    pub(crate) v6: bool,
    /// What the underlay's MTU becomes once the devices are there.
    pub(crate) shrunk_mtu: Option<u32>,
    /// Where the zero MAC leads, in this order.
    pub(crate) flood: &'static [Remote],
    /// Where source ports come from.
    pub(crate) ports: Range<u16>,
    /// Neighbours that are answered for.
    pub(crate) neighbors: bool,
    /// The kernel's device has the address that ours always has.
    pub(crate) own_address: bool,
    /// Marks pass our TAP.
    pub(crate) marks: bool,
    /// Generated cases: of how many parts of the whole, for each direction.
    pub(crate) generated: [usize; 2],
}

/// One destination of the zero MAC.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Remote {
    /// The host's number on the underlay.
    pub(crate) host: u8,
    pub(crate) port: Option<u16>,
    pub(crate) vni: Option<u32>,
}

/// The ephemeral ports of a fresh network namespace (`ip_local_port_range`); the end is never used.
const EPHEMERAL: Range<u16> = 32_768..60_999;

/// A host with everything else as the device has it.
pub(crate) const fn remote(host: u8) -> Remote {
    Remote {
        host,
        port: None,
        vni: None,
    }
}

/// The device as Silk makes it.
const GBP: Setup = Setup {
    name: "gbp",
    kernel: "gbp",
    vtep: "",
    tables: "",
    v6: false,
    shrunk_mtu: None,
    flood: &[remote(2)],
    ports: EPHEMERAL,
    neighbors: false,
    own_address: false,
    marks: false,
    generated: [4, 6],
};

/// The same with other names and lines, without generated cases.
const fn like_gbp(name: &'static str, kernel: &'static str, vtep: &'static str) -> Setup {
    Setup {
        name,
        kernel,
        vtep,
        generated: [0, 0],
        ..GBP
    }
}

const fn over_v6(setup: Setup) -> Setup {
    Setup { v6: true, ..setup }
}

/// What both devices carry: what the tunnel leaves of 1500 bytes over IPv6.
pub(crate) const MTU: u32 = 1430;
/// The underlay's MTU of [`Setup::shrunk_mtu`].
pub(crate) const SHRUNK_MTU: u32 = 1400;

const fn shrunk(setup: Setup) -> Setup {
    Setup {
        shrunk_mtu: Some(SHRUNK_MTU),
        ..setup
    }
}

/// Every configuration.
pub(crate) static SETUPS: [Setup; 26] = [
    GBP,
    Setup {
        generated: [1, 2],
        ..like_gbp("plain", "", "gbp = false\nmarks = \"off\"")
    },
    // The kernel's one-packet-one-mark is ours by the sender's address.
    Setup {
        tables: "[[group]]\naddress = \"10.255.108.184\"\nid = 0x1234\n",
        ..like_gbp("groups", "gbp", "")
    },
    // It owns the frames' first bytes between daemon and tc program, so that captures are taken behind those.
    Setup {
        marks: true,
        generated: [2, 2],
        ..like_gbp("marks", "gbp", "marks = \"bpf\"")
    },
    like_gbp("ttl_7", "gbp ttl 7", "ttl = 7"),
    like_gbp("ttl_inherit", "gbp ttl inherit", "ttl = \"inherit\""),
    // ECN bits of the option are not used: the kernel takes them and we refuse them.
    like_gbp("tos_43", "gbp tos 0x43", "tos = 0x40"),
    Setup {
        generated: [1, 0],
        ..like_gbp("tos_inherit", "gbp tos inherit", "tos = \"inherit\"")
    },
    like_gbp("df_set", "gbp df set", "df = \"set\""),
    Setup {
        generated: [1, 0],
        ..like_gbp("df_inherit", "gbp df inherit", "df = \"inherit\"")
    },
    like_gbp("noudpcsum", "gbp noudpcsum", "udp_checksum = false"),
    Setup {
        ports: 40_000..40_010,
        ..like_gbp(
            "srcport",
            "gbp srcport 40000 40010",
            "srcport = [40000, 40010]",
        )
    },
    over_v6(Setup {
        generated: [2, 3],
        ..like_gbp("v6", "gbp", "")
    }),
    over_v6(like_gbp(
        "v6_ttl_inherit",
        "gbp ttl inherit",
        "ttl = \"inherit\"",
    )),
    over_v6(like_gbp(
        "v6_tos_inherit",
        "gbp tos inherit",
        "tos = \"inherit\"",
    )),
    over_v6(like_gbp("v6_tos_43", "gbp tos 0x43", "tos = 0x40")),
    over_v6(like_gbp(
        "v6_noudpcsum",
        "gbp udp6zerocsumtx udp6zerocsumrx",
        "udp_checksum = false",
    )),
    shrunk(like_gbp("shrunk", "gbp", "")),
    shrunk(like_gbp("shrunk_df_set", "gbp df set", "df = \"set\"")),
    shrunk(like_gbp(
        "shrunk_df_inherit",
        "gbp df inherit",
        "df = \"inherit\"",
    )),
    shrunk(over_v6(like_gbp("v6_shrunk", "gbp", ""))),
    Setup {
        flood: &[
            remote(2),
            Remote {
                port: Some(4790),
                ..remote(3)
            },
            Remote {
                vni: Some(7),
                ..remote(4)
            },
        ],
        generated: [1, 0],
        ..like_gbp("flood", "gbp", "")
    },
    Setup {
        flood: &[],
        ..like_gbp("silent", "gbp", "")
    },
    Setup {
        generated: [0, 1],
        ..like_gbp("strict", "gbp", "strict_source = true")
    },
    // Who is nobody's neighbour is asked for in vain: nothing is flooded.
    Setup {
        neighbors: true,
        flood: &[],
        generated: [1, 0],
        ..like_gbp("proxy", "gbp proxy", "routing = true")
    },
    Setup {
        own_address: true,
        ..like_gbp("own_address", "gbp", "routing = true")
    },
];

impl Setup {
    /// The one of this name.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        SETUPS.iter().find(|setup| setup.name == name)
    }

    /// The configuration file of our daemon.
    pub(crate) fn config(&self) -> String {
        let local = if self.v6 { "fd00::1" } else { "10.0.0.1" };
        let mut keys = vec![
            format!("local = \"{local}\""),
            "address = \"10.255.108.0\"".to_owned(),
            "overlay = [\"10.255.0.0/16\"]".to_owned(),
            "vni = 100".to_owned(),
            "lanes = 1".to_owned(),
            format!("mtu = {MTU}"),
        ];
        keys.push(self.vtep.to_owned());
        // What DIFFERENCES switches off, unless the setup is about it.
        for (key, value) in [
            ("routing", "false"),
            ("strict_source", "false"),
            ("marks", "\"table\""),
        ] {
            if !self.vtep.contains(key) {
                keys.push(format!("{key} = {value}"));
            }
        }
        format!("[vtep]\n{}\n{}", keys.join("\n"), self.tables)
    }
}

//! One VTEP with something of everything in its tables, as the naive way has it and as the core has it.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use silk_vtep::tables::{
    CounterRegistry, Df, FdbEntry, GroupEntry, Local, MarkSource, Neighbor, OuterField, Route,
    TableSpec, Tables,
};
use silk_vtep::wire::{GroupId, MacAddr, Vni};

use super::naive::Naive;

/// The VTEP under one combination of settings.
pub struct World {
    /// The naive way.
    pub naive: Naive,
    /// What the core reads.
    pub tables: Tables,
}

/// Sources are not checked.
pub const LAX: u8 = 1;
/// Nothing is routed.
pub const FDB_ONLY: u8 = 2;
/// No group policy extension.
pub const NO_GBP: u8 = 4;
/// No entry of the zero MAC.
pub const NO_FLOOD: u8 = 8;
/// Outer TOS 0x28.
pub const TOS: u8 = 16;
/// The packet brings its mark.
pub const MARKED: u8 = 32;
/// The outer header's fields are the inner one's.
pub const INHERIT: u8 = 64;
/// Outer packets have DF.
pub const DF: u8 = 128;

/// Peers whose path is narrow, and what it carries.
const LIMITS: [(&str, u32); 2] = [("10.0.16.15", 600), ("fd10::e", 100)];

/// Who may send: two peers, a stranger, a peer on IPv6.
pub const SENDERS: [&str; 4] = ["10.0.16.14", "10.0.16.15", "192.0.2.1", "fd10::e"];

static WORLDS: LazyLock<Vec<World>> = LazyLock::new(|| (0..=u8::MAX).map(World::new).collect());

/// The world of a setting.
pub fn world(setting: u8) -> &'static World {
    &WORLDS[usize::from(setting)]
}

/// One of [`SENDERS`].
pub fn sender(number: u8) -> IpAddr {
    ip(SENDERS[usize::from(number) % SENDERS.len()])
}

impl World {
    fn new(setting: u8) -> Self {
        let naive = Naive {
            local: local(setting),
            spec: spec(setting & NO_FLOOD == 0),
            limits: LIMITS.map(|(peer, limit)| (ip(peer), limit)).into(),
        };
        let local = Arc::new(naive.local.clone());
        let tables = Tables::compile(local, &naive.spec, &mut CounterRegistry::new(1));
        for &(peer, limit) in &naive.limits {
            let peer = tables.peers.lookup(peer).expect("an entry leads there");
            peer.path_mtu.set_limit(Some(limit));
        }
        Self { naive, tables }
    }
}

fn local(setting: u8) -> Local {
    let mut local = Local::silk("10.255.108.0/24".parse().expect("a prefix"));
    local.addresses.push(ip("fd00:0:0:6c::"));
    local
        .subnets
        .push("fd00:0:0:6c::/64".parse().expect("a prefix"));
    local.strict_source = setting & LAX == 0;
    local.routing = setting & FDB_ONLY == 0;
    local.gbp = setting & NO_GBP == 0;
    if setting & MARKED != 0 {
        local.marks = MarkSource::Packet;
    }
    local.outer.tos = OuterField::Fixed(if setting & TOS == 0 { 0 } else { 0x28 });
    if setting & INHERIT != 0 {
        local.outer.ttl = OuterField::Inherit;
        local.outer.df = Df::Inherit;
        if setting & TOS == 0 {
            local.outer.tos = OuterField::Inherit;
        }
    }
    if setting & DF != 0 {
        local.outer.df = Df::Set;
    }
    local
}

/// Two peers with IPv4, one of them with IPv6 too; a subnet inside another's; an on-link route; routes that end early.
fn spec(flood: bool) -> TableSpec {
    let first = MacAddr::new([0xee, 0xee, 10, 255, 43, 0]);
    let second = MacAddr::new([0xee, 0xee, 10, 255, 44, 0]);
    let over_v6 = MacAddr::new([2, 0, 0, 0, 0, 6]);
    let nowhere = MacAddr::new([2, 0, 0, 0, 0, 9]);
    let group = MacAddr::new([1, 0, 0x5e, 0, 0, 1]);
    let mut fdb = vec![
        entry(first, "10.0.16.14", None, None),
        entry(second, "10.0.16.15", Some(8472), Some(7)),
        entry(over_v6, "fd10::e", None, None),
        entry(group, "10.0.16.15", None, None),
    ];
    if flood {
        fdb.push(entry(MacAddr::ZERO, "10.0.16.14", None, None));
        fdb.push(entry(MacAddr::ZERO, "10.0.16.15", None, Some(9)));
    }
    TableSpec {
        routes: vec![
            route("10.255.43.0/24", Some("10.255.43.0")),
            route("fd00:0:0:2b::/64", Some("fd00:0:0:2b::")),
            route("10.255.44.0/24", Some("10.255.44.0")),
            route("10.255.44.128/25", Some("10.255.43.0")),
            route("10.255.45.0/24", Some("10.255.45.0")),
            route("10.255.46.0/24", Some("10.255.46.0")),
            route("10.255.47.0/24", None),
            route("fd00:0:0:2f::/64", None),
        ],
        neighbors: vec![
            neighbor("10.255.43.0", first),
            neighbor("fd00:0:0:2b::", first),
            neighbor("10.255.44.0", second),
            neighbor("10.255.46.0", nowhere),
            neighbor("10.255.47.5", second),
            neighbor("fd00:0:0:2f::5", over_v6),
        ],
        fdb,
        groups: vec![
            GroupEntry {
                address: ip("10.255.108.184"),
                id: GroupId(3),
            },
            GroupEntry {
                address: ip("fd00:0:0:6c::b8"),
                id: GroupId(0xffff),
            },
        ],
        policy: None,
    }
}

fn route(prefix: &str, via: Option<&str>) -> Route {
    Route {
        prefix: prefix.parse().expect("a prefix"),
        via: via.map(ip),
    }
}

fn neighbor(address: &str, mac: MacAddr) -> Neighbor {
    Neighbor {
        address: ip(address),
        mac,
    }
}

fn entry(mac: MacAddr, underlay: &str, port: Option<u16>, vni: Option<u32>) -> FdbEntry {
    FdbEntry {
        mac,
        underlay: ip(underlay),
        port,
        vni: vni.map(|vni| Vni::new(vni).expect("24 bits")),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

//! One of the two VTEPs, with what it was given and has not forwarded yet.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock};

use silk_vtep::control::{Change, Config, Directory, Entry, Origin, PeerSpec};
use silk_vtep::io::memory::{MemoryCell, WireDatagram};
use silk_vtep::io::{LaneOptions, MarkTags, OffloadState, Offloads};
use silk_vtep::tables::{Df, MarkSource, OuterField, Peer};
use silk_vtep::vtep::Outer;
use silk_vtep::wire::{GroupId, MacAddr, Vni};

use super::super::naive::Naive;
use super::expectation::{Expectation, Host};
use super::step::{ChangeSpec, Refusal};
use super::traffic::Ends;

// Bits of a cell's settings.
const LAX: u8 = 1;
const FDB_ONLY: u8 = 2;
const NO_GBP: u8 = 4;
const NO_OFFLOADS: u8 = 8;
const MARKED: u8 = 16;
const NO_MARKS: u8 = 32;
const INHERIT: u8 = 64;
const DF: u8 = 128;

pub(super) const MTU_BYTES: u32 = 1450;

/// The third byte of each cell's subnet.
const SUBNETS: [u8; 2] = [108, 43];
const UNDERLAYS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 32, 12), Ipv4Addr::new(10, 0, 16, 14)];

/// Of each cell under each setting that its configuration knows of.
static CONFIGS: LazyLock<Vec<Config>> = LazyLock::new(|| {
    let settings = 0..NO_OFFLOADS;
    let both = [0, 1].into_iter();
    both.flat_map(|number| settings.clone().map(move |setting| config(number, setting)))
        .collect()
});

fn config(number: usize, setting: u8) -> Config {
    let (own, peer) = (SUBNETS[number], SUBNETS[1 - number]);
    let text = format!(
        r#"
        [vtep]
        local = "{}"
        address = ["10.255.{own}.0", "fd00:0:0:{own:x}::"]
        overlay = ["10.255.0.0/16", "fd00::/16"]
        lanes = 1
        strict_source = {}
        routing = {}
        gbp = {}
        [[peer]]
        subnet = ["10.255.{peer}.0/24", "fd00:0:0:{peer:x}::/64"]
        underlay = "{}"
        [[group]]
        address = "10.255.{own}.2"
        id = 3
        "#,
        UNDERLAYS[number],
        setting & LAX == 0,
        setting & FDB_ONLY == 0,
        setting & NO_GBP == 0,
        UNDERLAYS[1 - number],
    );
    Config::parse(&text).unwrap_or_else(|errors| panic!("{errors}"))
}

/// One cell.
pub(super) struct Cell {
    pub(super) underlay: IpAddr,
    ends: Ends,
    cell: MemoryCell,
    directory: Directory,
    naive: Naive,
    /// What the host has sent.
    given: Vec<Vec<u8>>,
    /// What came from the underlay.
    arrived: Vec<WireDatagram>,
    host: Host,
    mark_tags: Arc<MarkTags>,
    /// A host was told that a packet is too big. Of the first the lane's bound says nothing.
    has_told: bool,
}

impl Cell {
    pub(super) fn new(number: usize, setting: u8) -> Self {
        let known = usize::from(NO_OFFLOADS);
        let config = &CONFIGS[number * known + usize::from(setting) % known];
        let mut directory = Directory::new(&config.vtep);
        directory.reload(config);
        let mut local = config.local();
        local.marks = match (setting & MARKED, setting & NO_MARKS) {
            (0, 0) => MarkSource::Table,
            (0, _) => MarkSource::Off,
            _ => MarkSource::Packet,
        };
        if setting & INHERIT != 0 {
            (local.outer.tos, local.outer.ttl) = (OuterField::Inherit, OuterField::Inherit);
            local.outer.df = Df::Inherit;
        }
        if setting & DF != 0 {
            local.outer.df = Df::Set;
        }
        let naive = Naive {
            local,
            spec: directory.spec(),
            limits: Vec::new(),
        };
        let offloads = setting & NO_OFFLOADS == 0;
        let mut options = LaneOptions::with_all_offloads(MTU_BYTES);
        if !offloads {
            options.offloads = Arc::new(Offloads::from_fn(|_| OffloadState::Off));
        }
        let tags = setting & MARKED != 0;
        options.mark_tags = Arc::new(MarkTags::new(tags));
        let underlay = config.vtep.local;
        let mac = |number: usize| MacAddr::overlay(Ipv4Addr::new(10, 255, SUBNETS[number], 0));
        Self {
            underlay,
            ends: Ends {
                own_mac: mac(number),
                peer_mac: mac(1 - number),
                own: SUBNETS[number],
                peer: SUBNETS[1 - number],
            },
            cell: MemoryCell::new(naive.local.clone(), &naive.spec, underlay, &options),
            directory,
            naive,
            given: Vec::new(),
            arrived: Vec::new(),
            host: Host {
                takes_super_frames: offloads,
                refuses: false,
                joins: false,
                tags,
            },
            mark_tags: options.mark_tags,
            has_told: false,
        }
    }

    /// What the path to a peer carries from now on; without `limit` as much as the device.
    pub(super) fn narrow(&mut self, peer: u8, limit: Option<u32>) {
        let tables = self.cell.tables();
        if let Some(peer) = tables.peers.lookup(underlay(peer.into())) {
            peer.path_mtu.set_limit(limit);
        }
    }

    pub(super) fn macs(&self) -> Ends {
        self.ends
    }

    pub(super) fn host_sends(&mut self, packet: Vec<u8>) {
        self.cell.tap().host_sends_packet(packet.clone().into());
        self.given.push(packet);
    }

    pub(super) fn arrive(&mut self, datagram: WireDatagram) {
        if self.host.joins && claims_more(&datagram.payload) {
            return;
        }
        self.cell.underlay().arrive(datagram.clone());
        self.arrived.push(datagram);
    }

    pub(super) fn datagram_from(&self, source: u8, tos: u8, payload: &[u8]) -> WireDatagram {
        let peer = UNDERLAYS.iter().find(|other| self.underlay != **other);
        let peer = peer.expect("there are two");
        let source: IpAddr = match source % 4 {
            0 => (*peer).into(),
            1 => [10, 0, 16, 15].into(),
            2 => [192, 0, 2, 1].into(),
            // As a socket of both families tells it.
            _ => peer.to_ipv6_mapped().into(),
        };
        WireDatagram {
            source: (source, 40_000).into(),
            destination: (self.underlay, 4789).into(),
            outer: Outer::of_tos(tos),
            payload: payload.to_vec().into(),
        }
    }

    pub(super) fn refuse(&mut self, what: Refusal) {
        match what {
            Refusal::Runs => self.cell.underlay().refuse_runs(),
            Refusal::Narrow { peer, limit } => self.narrow(peer, limit),
            Refusal::SuperFrames => {
                self.cell.tap().refuse_super_frames();
                self.host.refuses = true;
            }
            Refusal::MarkTags => {
                self.host.tags ^= true;
                self.mark_tags.set(self.host.tags);
            }
            Refusal::Joins => {
                if !self.arrived.iter().any(|one| claims_more(&one.payload)) {
                    self.cell.underlay().join_runs();
                    self.host.joins = true;
                }
            }
        }
    }

    /// Applies what the directory takes, and swaps in what it says has changed.
    pub(super) fn change(&mut self, spec: &ChangeSpec) {
        let entry = self.entry(spec);
        let change = match spec.verb % 4 {
            0 => Change::Add(entry),
            1 => Change::Replace(entry),
            2 => Change::Del(entry.key()),
            _ => Change::DelExact(entry),
        };
        let before = self.directory.spec();
        match self.directory.apply(&[change], Origin::Live) {
            Ok(changed) => {
                self.naive.spec = self.directory.spec();
                self.cell.update(&self.naive.spec, changed);
            }
            Err(_) => assert_eq!(
                format!("{before:?}"),
                format!("{:?}", self.directory.spec()),
                "a refusal changes nothing"
            ),
        }
    }

    /// Forwards everything and checks it; returns what was sent.
    pub(super) fn forward(&mut self) -> Vec<WireDatagram> {
        // Peers forget what their path carries when no table has them any more.
        let tables = self.cell.tables();
        let limit = |peer: &Arc<Peer>| Some((peer.underlay, peer.path_mtu.limit()?));
        self.naive.limits = tables.peers.iter().filter_map(limit).collect();
        drop(tables);
        let given = std::mem::take(&mut self.given);
        let mut outgoing = Expectation::new(&self.naive, self.underlay, self.host);
        given.iter().for_each(|packet| outgoing.host_sent(packet));
        let must_tell = !self.has_told;
        self.has_told |= outgoing.may_tell();
        let mut sent = outgoing.check(&mut self.cell, MemoryCell::forward_egress, must_tell);

        let arrived = std::mem::take(&mut self.arrived);
        let mut incoming = Expectation::new(&self.naive, self.underlay, self.host);
        arrived.iter().for_each(|one| incoming.arrived(one));
        sent.extend(incoming.check(&mut self.cell, MemoryCell::forward_ingress, false));
        sent
    }

    fn entry(&self, spec: &ChangeSpec) -> Entry {
        let (key, value) = (usize::from(spec.key), usize::from(spec.value));
        let subnets = [self.ends.peer, 44, 45, 46];
        let [a, b, c] = [1, 2, 3].map(|last| MacAddr::new([2, 0, 0, 0, 0, last]));
        match spec.table % 5 {
            0 => self.peer(spec, subnets[key % 4]),
            1 => {
                let [peer, other, ..] = subnets;
                let (dst, v6) = [
                    ("10.255.44.0/24".to_owned(), false),
                    (format!("10.255.{peer}.128/25"), false),
                    ("10.255.45.0/24".to_owned(), false),
                    ("0.0.0.0/0".to_owned(), false),
                    ("fd00:0:0:2d::/64".to_owned(), true),
                    ("::/0".to_owned(), true),
                ][key % 6]
                    .clone();
                let via = [None, Some((peer, 0)), Some((other, 0)), Some((45, 1))][value % 4];
                Entry::Route {
                    dst: dst.parse().expect("a prefix"),
                    via: via.map(|ends| address(v6, ends)),
                }
            }
            2 => Entry::Neigh {
                dst: [
                    address(false, (44, 0)),
                    address(false, (45, 1)),
                    address(false, (44, 7)),
                    address(true, (45, 1)),
                ][key % 4],
                lladdr: [self.ends.peer_mac, a, b, c][value % 4],
            },
            3 => {
                let all_nodes = MacAddr::new([0x33, 0x33, 0, 0, 0, 1]);
                let peer_mac = self.ends.peer_mac;
                Entry::Fdb {
                    mac: [MacAddr::ZERO, MacAddr::BROADCAST, a, b, peer_mac, all_nodes][key % 6],
                    dst: underlay(value),
                    port: (spec.more[0] % 4 == 1).then_some(8472),
                    vni: (spec.more[1] % 4 == 1).then(|| Vni::new(7).expect("24 bits")),
                }
            }
            _ => Entry::Group {
                address: address(spec.more[0] & 1 != 0, (self.ends.own, spec.key % 8)),
                id: GroupId(u16::from_le_bytes([spec.value, spec.more[1]])),
            },
        }
    }

    fn peer(&self, spec: &ChangeSpec, subnet: u8) -> Entry {
        let v4 = format!("10.255.{subnet}.0/24");
        let v6 = format!("fd00:0:0:{subnet:x}::/64");
        let mut subnets = vec![v4.parse().expect("a prefix")];
        if spec.more[0] & 1 != 0 {
            subnets.push(v6.parse().expect("a prefix"));
        }
        let derived = PeerSpec::derived_mac(&subnets).expect("there is an IPv4 subnet");
        let mac = match spec.more[1] % 4 {
            0 => derived,
            last => MacAddr::new([2, 0, 0, 0, 0, last]),
        };
        Entry::Peer(PeerSpec {
            subnets,
            underlay: underlay(spec.value.into()),
            mac,
        })
    }
}

/// Both cells' and two others'.
fn underlay(value: usize) -> IpAddr {
    let others = [Ipv4Addr::new(10, 0, 16, 15), Ipv4Addr::new(10, 0, 16, 16)];
    [UNDERLAYS[0], UNDERLAYS[1], others[0], others[1]][value % 4].into()
}

fn address(v6: bool, (subnet, last): (u8, u8)) -> IpAddr {
    if v6 {
        IpAddr::from([0xfd00, 0, 0, u16::from(subnet), 0, 0, 0, u16::from(last)])
    } else {
        IpAddr::from([10, 255, subnet, last])
    }
}

/// Whether the inner packet says that it is longer than its datagram.
///
/// A host that joins datagrams of one sender tells a joined message from one super-frame of a kernel peer by the inner lengths alone, so
/// a sender that lies about them has the datagrams behind the first taken for payload of it. It may send what it likes, so nobody is
/// wronged, but what comes of it is not what each datagram alone would have made.
fn claims_more(datagram: &[u8]) -> bool {
    let Some(frame) = datagram.get(8..) else {
        return false;
    };
    let mut at = 14;
    while frame.get(at - 2..at) == Some(&[0x81, 0x00])
        || frame.get(at - 2..at) == Some(&[0x88, 0xa8])
    {
        at += 4;
    }
    let Some(packet) = frame.get(at..) else {
        return false;
    };
    let word = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    match frame[at - 2..at] {
        [0x08, 0x00] if packet.len() >= 20 => word(2) > packet.len(),
        [0x86, 0xdd] if packet.len() >= 40 => 40 + word(4) > packet.len(),
        _ => false,
    }
}

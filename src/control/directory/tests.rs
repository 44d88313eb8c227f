//! What the directory takes and refuses, and in which words.

use super::*;
use crate::control::fixtures::{CONFIG, config, fdb, group, ip, peer, peers, route};

fn directory() -> Directory {
    let config = config(CONFIG);
    let mut directory = Directory::new(&config.vtep);
    assert_eq!(directory.reload(&config).1, []);
    directory
}

fn apply(directory: &mut Directory, change: Change) -> Result<Changed, String> {
    directory
        .apply(&[change], Origin::Live)
        .map_err(|error| error.to_string())
}

fn add(directory: &mut Directory, entry: Entry) -> Result<Changed, String> {
    apply(directory, Change::Add(entry))
}

fn replace(directory: &mut Directory, entry: Entry) -> Result<Changed, String> {
    apply(directory, Change::Replace(entry))
}

#[test]
fn what_collides_with_an_earlier_change_of_its_request_is_told_so() {
    let mut directory = directory();
    let ours = "an earlier change of this request gives it";
    for (second, told) in [
        (group("10.255.108.9", 6), "group 10.255.108.9"),
        (peer("10.255.44.0/24", "10.0.16.15"), "peer 10.0.16.15"),
        (
            route("10.255.44.0/24", "10.255.44.0"),
            "route 10.255.44.0/24",
        ),
    ] {
        let changes = [
            group("10.255.108.9", 5),
            peer("10.255.44.0/24", "10.0.16.15"),
            second,
        ];
        let refused = directory
            .apply(&changes.map(Change::Add), Origin::Live)
            .expect_err(told);
        assert_eq!(refused.index, 2);
        assert_eq!(
            refused.to_string(),
            format!("{told} exists already ({ours})")
        );
    }
    // In the next request it is whose it is.
    add(&mut directory, group("10.255.108.9", 5)).expect("free");
    assert_eq!(
        add(&mut directory, group("10.255.108.9", 6)),
        Err("group 10.255.108.9 exists already (live)".to_owned())
    );
}

const PEER_CHANGED: Changed = Changed {
    policy: false,
    routes: true,
    neighbors: true,
    fdb: true,
    groups: false,
};

#[test]
fn a_peer_brings_a_route_a_neighbor_and_a_destination() {
    let spec = directory().spec();
    let PeerSpec {
        subnets,
        underlay,
        mac,
    } = &config(CONFIG).peers[0];
    assert_eq!(
        spec.routes,
        [Route {
            prefix: subnets[0],
            via: Some(ip("10.255.43.0"))
        }]
    );
    assert_eq!(
        spec.neighbors,
        [Neighbor {
            address: ip("10.255.43.0"),
            mac: *mac
        }]
    );
    assert_eq!(
        spec.fdb,
        [FdbEntry {
            mac: *mac,
            underlay: *underlay,
            port: None,
            vni: None
        }]
    );
    assert_eq!(spec.groups, config(CONFIG).groups);
}

#[test]
fn a_subnet_with_host_bits_is_routed_via_its_address() {
    let mut directory = directory();
    assert_eq!(
        add(&mut directory, peer("10.255.123.7/24", "10.0.16.7")),
        Ok(PEER_CHANGED)
    );
    let prefix = "10.255.123.0/24".parse().expect("a prefix");
    let route = Route {
        prefix,
        via: Some(ip("10.255.123.7")),
    };
    assert!(directory.spec().routes.contains(&route));
}

#[test]
fn add_of_what_is_there_names_it_and_whose_it_is() {
    let mut directory = directory();
    for (entry, message) in [
        (
            peer("10.255.44.0/24", "10.0.16.14"),
            "peer 10.0.16.14 exists already (config)",
        ),
        (
            group("10.255.108.184", 4),
            "group 10.255.108.184 exists already (config)",
        ),
        (
            route("10.255.43.0/24", "10.255.44.0"),
            "route 10.255.43.0/24 exists already (of peer 10.0.16.14, config)",
        ),
    ] {
        assert_eq!(add(&mut directory, entry), Err(message.to_owned()));
    }
}

#[test]
fn what_follows_from_a_peer_changes_only_with_it() {
    let mut directory = directory();
    let mac = "ee:ee:0a:ff:2b:00";
    let neighbor = Entry::Neigh {
        dst: ip("10.255.43.0"),
        lladdr: "02:00:00:00:00:01".parse().expect("a MAC"),
    };
    for entry in [
        route("10.255.43.0/24", "10.255.44.0"),
        neighbor,
        fdb(mac, "10.0.16.14"),
    ] {
        let message = format!(
            "{} follows from peer 10.0.16.14; change the peer",
            entry.key()
        );
        assert_eq!(
            apply(&mut directory, Change::Del(entry.key())),
            Err(message.clone())
        );
        assert_eq!(replace(&mut directory, entry), Err(message));
    }
    let elsewhere = replace(&mut directory, fdb(mac, "10.0.16.15")).expect_err("the peer's MAC");
    assert_eq!(
        elsewhere,
        format!("fdb {mac} dst 10.0.16.14 follows from peer 10.0.16.14; change the peer")
    );
    assert_eq!(
        apply(&mut directory, Change::Del(Key::Peer(ip("10.0.16.14")))),
        Ok(PEER_CHANGED)
    );
    assert!(directory.spec().routes.is_empty() && directory.spec().fdb.is_empty());
}

#[test]
fn del_of_what_is_not_there_is_refused() {
    let absent = apply(&mut directory(), Change::Del(Key::Group(ip("10.255.1.1"))));
    assert_eq!(absent, Err("no group 10.255.1.1".to_owned()));
}

#[test]
fn a_request_is_taken_whole_or_not_at_all() {
    let mut directory = directory();
    let before = directory.clone();
    let changes = [
        Change::Add(peer("10.255.44.0/24", "10.0.16.15")),
        Change::Del(Key::Peer(ip("10.0.16.14"))),
        Change::Del(Key::Peer(ip("10.0.16.14"))),
    ];
    let error = directory
        .apply(&changes, Origin::Live)
        .expect_err("the last has nothing left to delete");
    assert_eq!(error.index, 2);
    assert!(directory.iter().eq(before.iter()));
    assert_eq!(
        directory.apply(&changes[..2], Origin::Live),
        Ok(PEER_CHANGED)
    );
}

#[test]
fn replacing_with_the_same_changes_nothing_and_keeps_the_origin() {
    let mut directory = directory();
    let same = peer("10.255.43.0/24", "10.0.16.14");
    assert_eq!(
        replace(&mut directory, same.clone()),
        Ok(Changed::default())
    );
    assert_eq!(
        directory.lookup(&same.key()).map(|held| held.owner),
        Some(Owner::Entry(Origin::Config))
    );
}

#[test]
fn replacing_a_peer_moves_all_that_follows_from_it() {
    let mut directory = directory();
    assert_eq!(
        replace(&mut directory, peer("10.255.44.0/24", "10.0.16.14")),
        Ok(PEER_CHANGED)
    );
    assert_eq!(directory.spec().routes.len(), 1);
    assert_eq!(directory.spec().neighbors[0].address, ip("10.255.44.0"));
    // The old subnet is free again.
    assert_eq!(
        add(&mut directory, peer("10.255.43.0/24", "10.0.16.15")),
        Ok(PEER_CHANGED)
    );
}

#[test]
fn replacing_a_unicast_destination_leaves_one() {
    let mut directory = directory();
    let mac = "02:00:00:00:00:01";
    assert!(add(&mut directory, fdb(mac, "10.0.16.20")).is_ok());
    let second = add(&mut directory, fdb(mac, "10.0.16.21")).expect_err("a second destination");
    assert!(
        second.ends_with("fdb 02:00:00:00:00:01 dst 10.0.16.20 exists already (live)"),
        "{second}"
    );
    assert!(replace(&mut directory, fdb(mac, "10.0.16.21")).is_ok());
    assert_eq!(directory.spec().fdb.len(), 2);
}

#[test]
fn broadcast_goes_to_as_many_as_are_named() {
    let mut directory = directory();
    for underlay in ["10.0.16.20", "10.0.16.21"] {
        assert!(add(&mut directory, fdb("00:00:00:00:00:00", underlay)).is_ok());
        assert!(replace(&mut directory, fdb("ff:ff:ff:ff:ff:ff", underlay)).is_ok());
    }
    assert_eq!(directory.spec().fdb.len(), 5);
}

#[test]
fn what_could_never_work_is_refused_with_the_reason() {
    let mut directory = directory();
    let neighbor = |dst: &str, mac: &str| Entry::Neigh {
        dst: ip(dst),
        lladdr: mac.parse().expect("a MAC"),
    };
    for (entry, reason) in [
        (
            peer("10.255.108.128/25", "10.0.16.20"),
            "overlaps this VTEP's own 10.255.108.0/24",
        ),
        // With the MAC that is ours as well.
        (
            peer("10.255.108.0/25", "10.0.16.20"),
            "overlaps this VTEP's own 10.255.108.0/24",
        ),
        (
            peer("10.254.1.0/24", "10.0.16.20"),
            "10.254.1.0/24 is inside no overlay (accepted: inside 10.255.0.0/16, fd00::/16)",
        ),
        (
            peer("10.255.1.0/24", "10.0.32.12"),
            "10.0.32.12 is this VTEP's own underlay address",
        ),
        (
            peer("10.255.1.0/24", "10.255.2.1"),
            "the tunnel would carry itself",
        ),
        (
            peer("10.255.1.0/24", "2001:db8::1"),
            "2001:db8::1 is not of the family of the local 10.0.32.12",
        ),
        (
            peer("10.255.43.128/25", "10.0.16.20"),
            "overlaps 10.255.43.0/24 of peer 10.0.16.14",
        ),
        (
            peer("10.255.32.0/19", "10.0.16.20"),
            "overlaps 10.255.43.0/24 of peer 10.0.16.14",
        ),
        (
            route("10.255.1.0/24", "fd00::1"),
            "via fd00::1 is of the other family",
        ),
        (
            route("10.255.1.1/24", "10.255.1.0"),
            "has host bits set (accepted: 10.255.1.0/24)",
        ),
        (group("10.255.108.7", 0), "id 0 means no group"),
        (
            group("10.254.108.7", 1),
            ": 10.254.108.7 is inside no overlay",
        ),
        (
            neighbor("224.0.0.1", "02:00:00:00:00:01"),
            "224.0.0.1 is multicast",
        ),
        (
            neighbor("10.255.1.0", "01:00:5e:00:00:01"),
            "01:00:5e:00:00:01 is no unicast MAC",
        ),
        (
            neighbor("10.255.1.0", "ee:ee:0a:ff:6c:00"),
            "this VTEP's own MAC",
        ),
        (fdb("ee:ee:0a:ff:6c:00", "10.0.16.20"), "this VTEP's own"),
        (
            fdb("02:00:00:00:00:01", "239.1.1.1"),
            "239.1.1.1 is multicast",
        ),
    ] {
        let error = add(&mut directory, entry.clone()).expect_err(reason);
        assert!(
            error.starts_with(&entry.key().to_string()) && error.contains(reason),
            "{error}"
        );
    }
}

#[test]
fn a_peer_with_anothers_mac_is_refused() {
    let mut directory = directory();
    let Entry::Peer(mut spec) = peer("10.255.44.0/24", "10.0.16.15") else {
        unreachable!("made as a peer")
    };
    spec.mac = MacAddr::new([0xee, 0xee, 10, 255, 43, 0]);
    let error = add(&mut directory, Entry::Peer(spec)).expect_err("the MAC is taken");
    assert_eq!(
        error,
        "peer 10.0.16.15: MAC ee:ee:0a:ff:2b:00 is that of peer 10.0.16.14"
    );
}

#[test]
fn a_reload_replaces_what_is_of_the_configuration_only() {
    let mut directory = directory();
    assert!(add(&mut directory, peer("10.255.44.0/24", "10.0.16.15")).is_ok());
    let next = config(
        &CONFIG
            .replace("10.255.43.0", "10.255.45.0")
            .replace("10.0.16.14", "10.0.16.16"),
    );
    assert_eq!(directory.reload(&next), (PEER_CHANGED, vec![]));
    let prefixes: Vec<_> = directory
        .spec()
        .routes
        .iter()
        .map(|route| route.prefix.to_string())
        .collect();
    assert_eq!(prefixes, ["10.255.44.0/24", "10.255.45.0/24"]);
    assert_eq!(directory.reload(&next), (Changed::default(), vec![]));
}

#[test]
fn a_live_entry_stands_against_the_configuration() {
    let mut directory = directory();
    assert!(replace(&mut directory, peer("10.255.44.0/24", "10.0.16.14")).is_ok());
    let (changed, refusals) = directory.reload(&config(CONFIG));
    assert_eq!(changed, Changed::default());
    let refusals: Vec<_> = refusals.iter().map(ToString::to_string).collect();
    assert_eq!(refusals, ["peer 10.0.16.14 exists already (live)"]);
    assert_eq!(directory.of_origin(Origin::Live).count(), 1);
}

/// Of another overlay, so that it fits no VTEP of these tests.
fn elsewhere() -> Entry {
    peer("10.254.44.0/24", "10.0.16.15")
}

fn live(directory: &Directory) -> Vec<Entry> {
    directory.live().cloned().collect()
}

#[test]
fn a_live_entry_that_does_not_fit_is_in_no_table_and_kept() {
    let mut directory = directory();
    let known = group("10.255.108.7", 5);
    let (changed, refusals) = directory.restore(vec![elsewhere(), known.clone()]);
    assert!(changed.groups && !changed.routes);
    let refusals: Vec<_> = refusals.iter().map(ToString::to_string).collect();
    assert_eq!(
        refusals,
        [
            "peer 10.0.16.15: 10.254.44.0/24 is inside no overlay (accepted: inside 10.255.0.0/16, fd00::/16)"
        ]
    );
    assert_eq!(live(&directory), [known, elsewhere()]);
    assert!(directory.iter().all(|held| held.entry != elsewhere()));
}

#[test]
fn a_kept_entry_goes_when_it_is_deleted_or_its_key_is_given_anew() {
    let mut directory = directory();
    directory.restore(vec![elsewhere()]);
    let other = peer("10.254.45.0/24", "10.0.16.15");
    let error = apply(&mut directory, Change::DelExact(other)).expect_err("it is not so");
    assert!(error.contains("(there is peer 10.254.44.0/24 "), "{error}");
    for delete in [
        Change::Del(elsewhere().key()),
        Change::DelExact(elsewhere()),
    ] {
        let mut directory = directory.clone();
        assert_eq!(apply(&mut directory, delete), Ok(Changed::default()));
        assert_eq!(live(&directory), []);
    }
    let given = peer("10.255.44.0/24", "10.0.16.15");
    assert_eq!(add(&mut directory, given.clone()), Ok(PEER_CHANGED));
    assert_eq!(live(&directory), [given]);
}

#[test]
fn a_derived_entry_does_not_push_a_live_one_aside() {
    let mut directory = directory();
    assert!(add(&mut directory, route("10.255.44.0/24", "10.255.43.0")).is_ok());
    let error =
        add(&mut directory, peer("10.255.44.0/24", "10.0.16.15")).expect_err("the route is taken");
    assert_eq!(
        error,
        "peer 10.0.16.15: route 10.255.44.0/24 exists already (live)"
    );
}

#[test]
fn ten_thousand_peers_are_one_change() {
    let mut directory = directory();
    let changes: Vec<_> = peers(10_000).map(Change::Add).collect();
    assert_eq!(directory.apply(&changes, Origin::Live), Ok(PEER_CHANGED));
    assert_eq!(directory.spec().routes.len(), 10_001);
    let error = directory
        .apply(&changes, Origin::Live)
        .expect_err("all are there");
    assert_eq!(error.index, 0);
}

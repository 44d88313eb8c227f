//! What a request changes, what it is told, and what outlives a restart.

use super::*;
use crate::DropReason;
use crate::control::fixtures::{self, CONFIG, group, ip, peer, peers};
use crate::tables::Destination;

fn start() -> (tempfile::TempDir, Arc<Control>) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (control, warnings) = fixtures::control(directory.path());
    assert_eq!(warnings, [""; 0]);
    (directory, control)
}

fn add(control: &Control, entry: Entry) {
    let applied = control
        .apply(&[Change::Add(entry)], Origin::Live)
        .expect("nothing is in its way");
    assert_eq!(applied.warnings, [""; 0]);
}

fn destination(tables: &Tables, address: &str) -> Option<Destination> {
    let next_hop = tables.routes.lookup(ip(address))?.next_hop(ip(address));
    tables
        .fdb
        .lookup(tables.neighbors.lookup(next_hop)?)
        .first()
        .cloned()
}

#[test]
fn a_peer_is_in_the_next_snapshot_and_not_in_the_last() {
    let (_directory, control) = start();
    let before = control.tables().load_full();
    add(&control, peer("10.255.44.0/24", "10.0.16.15"));
    assert!(destination(&before, "10.255.44.7").is_none());
    let after = destination(&control.tables().load(), "10.255.44.7").expect("routed");
    assert_eq!(after.underlay.to_string(), "10.0.16.15:4789");
}

#[test]
fn a_peer_shows_what_its_path_carries_while_that_is_less() {
    let (_directory, control) = start();
    let shown = || match control.show(&Show::Peer(None)) {
        Reply::Peers(rows) => rows[0].mtu,
        other => panic!("{other:?}"),
    };
    let tables = control.tables().load_full();
    let peer = tables.peers.lookup(ip("10.0.16.14")).expect("configured");
    assert_eq!(shown(), None);
    peer.path_mtu.set_limit(Some(1350));
    assert_eq!(shown(), Some(1350));
    peer.path_mtu.set_limit(None);
    assert_eq!(shown(), None);
}

#[test]
fn a_change_that_changes_nothing_swaps_nothing() {
    let (_directory, control) = start();
    let before = control.tables().load_full();
    let same = [Change::Replace(peer("10.255.43.0/24", "10.0.16.14"))];
    control
        .apply(&same, Origin::Live)
        .expect("it is there as it is");
    assert!(Arc::ptr_eq(&before, &control.tables().load()));
}

#[test]
fn counters_outlive_a_change_of_their_peer() {
    let (_directory, control) = start();
    let tables = control.tables().load_full();
    let told = destination(&tables, "10.255.43.7").expect("routed");
    told.peer.counters.lane(1).count_tx(1, 98);
    told.peer.counters.lane(0).count_drop(DropReason::TooBig);
    let moved = [Change::Replace(peer("10.255.45.0/24", "10.0.16.14"))];
    control
        .apply(&moved, Origin::Live)
        .expect("nothing is in its way");
    let stats = control.stats();
    let peer = &stats.peers[0];
    assert_eq!(
        (
            peer.count.tx_packets,
            peer.count.tx_bytes,
            peer.count.dropped()
        ),
        (1, 98, 1)
    );
    assert_eq!(peer.subnets, ["10.255.45.0/24".parse().expect("a prefix")]);
    assert_eq!(stats.lanes.len(), 2);
}

#[test]
fn live_entries_are_there_after_a_restart() {
    let (directory, control) = start();
    add(&control, peer("10.255.44.0/24", "10.0.16.15"));
    drop(control);
    let (control, warnings) = fixtures::control(directory.path());
    assert_eq!(warnings, [""; 0]);
    assert!(destination(&control.tables().load(), "10.255.44.7").is_some());
}

#[test]
fn a_live_entry_that_meets_another_configuration_stays_and_is_told() {
    let (directory, control) = start();
    let moved = [Change::Replace(peer("10.255.45.0/24", "10.0.16.14"))];
    control
        .apply(&moved, Origin::Live)
        .expect("nothing is in its way");
    let (control, warnings) = fixtures::control(directory.path());
    assert_eq!(
        warnings,
        ["entry of the configuration left out: peer 10.0.16.14 exists already (live)"]
    );
    assert!(destination(&control.tables().load(), "10.255.45.7").is_some());
}

#[test]
fn live_entries_left_out_at_a_start_outlive_the_next_change() {
    let (directory, control) = start();
    drop(control);
    let elsewhere = peer("10.254.44.0/24", "10.0.16.15");
    let state = StateFile::new(directory.path().join("live.json"));
    state.save(&[&elsewhere]).expect("the directory is ours");
    let (control, warnings) = fixtures::control(directory.path());
    let told = "live entry left out, kept on disk until it is deleted: peer 10.0.16.15: ";
    assert!(warnings[0].starts_with(told), "{warnings:?}");
    let group = group("10.255.108.7", 5);
    add(&control, group.clone());
    assert_eq!(state.load(), (vec![group.clone(), elsewhere.clone()], None));
    let forgotten = control.apply(&[Change::Del(elsewhere.key())], Origin::Live);
    assert_eq!(forgotten.expect("it is on disk").warnings, [""; 0]);
    assert_eq!(state.load(), (vec![group], None));
}

#[test]
fn live_entries_that_cannot_be_saved_are_a_warning() {
    let (directory, control) = start();
    std::fs::create_dir(directory.path().join("live.json.tmp")).expect("the directory is ours");
    let applied = control
        .apply(&[Change::Add(group("10.255.108.7", 5))], Origin::Live)
        .expect("taken");
    assert!(
        applied.warnings[0].starts_with("changed, but not for the next start: write live entries")
    );
    assert_eq!(
        control.tables().load().groups.lookup(ip("10.255.108.7")),
        Some(crate::wire::GroupId(5))
    );
}

#[test]
fn live_entries_that_could_not_be_saved_are_told_at_the_start() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir(directory.path().join("live.json.tmp")).expect("the directory is ours");
    let (_, warnings) = fixtures::control(directory.path());
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].starts_with("keep live entries "),
        "{warnings:?}"
    );
}

#[test]
fn a_reload_takes_the_new_peers_and_keeps_the_live_ones() {
    let (directory, control) = start();
    add(&control, peer("10.255.44.0/24", "10.0.16.15"));
    let next = CONFIG.replace("10.255.43.0", "10.255.45.0");
    std::fs::write(directory.path().join("silk-vtep.toml"), format!("\n{next}"))
        .expect("the directory is ours");
    let reloaded = control.reload().expect("a good file");
    assert_eq!(
        (reloaded.peers, reloaded.groups, reloaded.warnings),
        (1, 1, vec![])
    );
    let tables = control.tables().load();
    let routed = ["10.255.43.7", "10.255.44.7", "10.255.45.7"]
        .map(|address| destination(&tables, address).is_some());
    assert_eq!(routed, [false, true, true]);
}

#[test]
fn a_reload_of_a_bad_file_changes_nothing_and_tells_every_error() {
    let (directory, control) = start();
    let before = control.tables().load_full();
    let bad = CONFIG.replace("id = 3", "id = 0").replace("lanes", "lane");
    std::fs::write(directory.path().join("silk-vtep.toml"), bad).expect("the directory is ours");
    let message = control.reload().expect_err("two errors").message;
    assert!(
        message.contains("vtep.lane") && message.contains("group[0].id"),
        "{message}"
    );
    assert!(Arc::ptr_eq(&before, &control.tables().load()));
}

#[test]
fn a_reload_of_entries_for_another_vtep_changes_nothing() {
    let (directory, control) = start();
    let before = control.tables().load_full();
    // The file agrees with itself, but not with the device that runs.
    let moved = CONFIG.replace("10.255.", "10.254.");
    std::fs::write(directory.path().join("silk-vtep.toml"), moved).expect("the directory is ours");
    let message = control.reload().expect_err("another overlay").message;
    for told in [
        " has entries for another [vtep] than the one that is running (restart",
        "\npeer 10.0.16.14: 10.254.43.0/24 is inside no overlay",
        "\ngroup 10.254.108.184: ",
    ] {
        assert!(message.contains(told), "{message}");
    }
    assert!(Arc::ptr_eq(&before, &control.tables().load()));
    assert!(destination(&before, "10.255.43.7").is_some());
}

#[test]
fn a_reload_of_a_file_that_is_no_good_changes_nothing_and_says_why() {
    let (directory, control) = start();
    let before = control.tables().load_full();
    let path = directory.path().join("silk-vtep.toml");
    let name = path.display();
    let reload = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("the directory is ours");
        control.reload().expect_err("no good").message
    };
    let begin = "reload: nothing was changed: ";
    assert_eq!(
        reload(b"[vtep]\nname = \"\xe9\"\n"),
        format!(
            "{begin}read configuration {name}: line 2 is not UTF-8 (TOML is text in UTF-8: save it so)"
        )
    );
    let told = reload(CONFIG.replace("lanes = 2", "lane = 2").as_bytes());
    let usable = format!("{begin}configuration {name} is not usable:\nline ");
    assert!(told.starts_with(&usable), "{told}");
    assert!(told.contains("did you mean `lanes`?"), "{told}");
    assert!(Arc::ptr_eq(&before, &control.tables().load()));
}

#[test]
fn a_reload_says_that_the_device_changes_at_a_restart() {
    let (directory, control) = start();
    let next = CONFIG.replace("lanes = 2", "lanes = 1");
    std::fs::write(directory.path().join("silk-vtep.toml"), next).expect("the directory is ours");
    assert_eq!(
        control.reload().expect("a good file").warnings,
        ["[vtep] changed: restart to use it"]
    );
}

#[test]
fn route_get_tells_the_longest_match_or_why_there_is_none() {
    let (_directory, control) = start();
    add(&control, fixtures::route("10.255.0.0/16", "10.255.43.0"));
    let row = control.route_get(ip("10.255.43.6")).expect("routed");
    assert_eq!(
        (row.dst.as_str(), row.gateway),
        ("10.255.43.6", Some(ip("10.255.43.0")))
    );
    assert_eq!(
        row.matched,
        Some("10.255.43.0/24".parse().expect("a prefix"))
    );
    let own = control
        .route_get(ip("10.255.108.7"))
        .expect_err("ours")
        .message;
    assert_eq!(own, "no route to 10.255.108.7: it is this cell's own");
    assert_eq!(
        control
            .route_get(ip("fd00::1"))
            .expect_err("no route")
            .message,
        "no route to fd00::1"
    );
}

#[test]
fn what_is_refused_is_told_with_the_mend() {
    let (_directory, control) = start();
    let there = peer("10.255.43.0/24", "10.0.16.14");
    let absent = peer("10.255.45.0/24", "10.0.16.15");
    for (changes, told) in [
        (
            vec![Change::Add(there)],
            "peer 10.0.16.14 exists already (config): `replace` changes it",
        ),
        (
            vec![Change::Add(absent.clone()), Change::Add(absent.clone())],
            "peer 10.0.16.15 exists already (an earlier change of this request gives it): give it once",
        ),
        (
            vec![Change::Del(absent.key())],
            "no peer 10.0.16.15: `show` tells what there is",
        ),
    ] {
        let refused = control.apply(&changes, Origin::Live);
        assert_eq!(refused.expect_err("refused").message, told);
    }
}

#[test]
fn groups_that_nobody_looks_up_are_told_whoever_gives_them() {
    let table = "; set marks = \"table\" and restart to use it";
    let gbp = "; set gbp = true and marks = \"table\" and restart to use it";
    for (keys, told, mend) in [
        ("marks = \"bpf\"", "packets bring their own marks", table),
        ("marks = \"off\"", "no groups are sent (marks = ", table),
        ("gbp = false", "no groups are sent (gbp = false)", gbp),
    ] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let text = CONFIG.replace("lanes = 2", &format!("lanes = 2\n{keys}"));
        let (control, warnings) = fixtures::control_of(&text, directory.path());
        let added = control.apply(&[Change::Add(group("10.255.108.7", 5))], Origin::Live);
        let reloaded = control.reload().expect("a good file");
        for warnings in [
            warnings,
            added.expect("taken all the same").warnings,
            reloaded.warnings,
        ] {
            assert_eq!(warnings.len(), 1, "{warnings:?}");
            assert!(
                warnings[0].starts_with("the group table is without effect: ")
                    && warnings[0].contains(told)
                    && warnings[0].ends_with(mend),
                "{warnings:?}"
            );
        }
        let other = control.apply(
            &[Change::Add(peer("10.255.44.0/24", "10.0.16.15"))],
            Origin::Live,
        );
        assert_eq!(other.expect("taken").warnings, [""; 0]);
    }
}

#[test]
fn groups_of_nobody_here_are_taken_and_told() {
    let (_directory, control) = start();
    let add = |control: &Control, address: &str| {
        let added = control.apply(&[Change::Add(group(address, 5))], Origin::Live);
        added.expect("taken all the same").warnings
    };
    // A container that is not wired yet, and the VTEP itself.
    assert_eq!(add(&control, "10.255.108.7"), [""; 0]);
    assert_eq!(add(&control, "10.255.108.0"), [""; 0]);
    let warnings = add(&control, "10.255.43.7");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let told = "1 of the groups given are of no address of this cell, whose containers are in 10.255.108.0/24: ";
    assert!(warnings[0].starts_with(told), "{warnings:?}");
    assert!(
        control
            .tables()
            .load()
            .groups
            .lookup(ip("10.255.43.7"))
            .is_some()
    );

    let lax = CONFIG.replace("lanes = 2", "lanes = 2\nstrict_source = false");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (control, _) = fixtures::control_of(&lax, directory.path());
    assert_eq!(add(&control, "10.255.43.7"), [""; 0]);
}

fn rule(dst: &str) -> Entry {
    Entry::Policy {
        dst: dst.parse().expect("the test wrote a prefix"),
        group: crate::wire::GroupId(3),
        proto: crate::tables::policy::Proto::Tcp,
        ports: crate::tables::policy::Ports::ALL,
        action: crate::tables::policy::Action::Accept,
    }
}

#[test]
fn rules_are_enforced_as_the_file_says_and_told_if_not() {
    let (directory, control) = start();
    assert!(control.tables().load().policy.is_none());
    let added = control.apply(&[Change::Add(rule("10.255.108.7/32"))], Origin::Live);
    let warnings = added.expect("taken all the same").warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("the rules are without effect: policy is not enforced"));
    assert!(control.tables().load().policy.is_none());

    let text = format!("{CONFIG}[policy]\nenforce = true\n");
    std::fs::write(directory.path().join("silk-vtep.toml"), &text).expect("the directory is ours");
    let reloaded = control.reload().expect("a good file");
    assert_eq!((reloaded.rules, reloaded.warnings), (0, vec![]));
    assert_eq!(reloaded.policy, "default deny reject");
    let policy = control.tables().load().policy.clone().expect("enforced");
    assert_eq!(policy.rules().len(), 1, "the live rule");

    let resized = format!(
        "{text}[policy.flows]\nsize = 64\n[[policy.rule]]\ndst = \"10.255.43.6\"\ngroup = 3\nproto = \"tcp\"\n"
    );
    std::fs::write(directory.path().join("silk-vtep.toml"), resized)
        .expect("the directory is ours");
    let reloaded = control.reload().expect("a good file");
    assert_eq!(reloaded.rules, 1);
    let [flows, elsewhere] = &reloaded.warnings[..] else {
        panic!("{:?}", reloaded.warnings);
    };
    assert_eq!(flows, "[policy.flows] changed: restart to use it");
    assert!(
        elsewhere.starts_with("1 of the rules given are for no address of this cell"),
        "{elsewhere}"
    );
}

#[test]
fn a_change_of_other_tables_leaves_the_policy_as_it_is() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let text = format!("{CONFIG}[policy]\nenforce = true\n");
    let (control, warnings) = fixtures::control_of(&text, directory.path());
    assert_eq!(warnings, [""; 0]);
    let policy = || control.tables().load().policy.clone().expect("enforced");
    let before = policy();
    add(&control, peer("10.255.44.0/24", "10.0.16.15"));
    assert!(Arc::ptr_eq(&before, &policy()));
    let many: Vec<_> = (0..20_000_u32)
        .map(|n| rule(&format!("fd00::{n:x}/128")))
        .map(Change::Add)
        .collect();
    let applied = control.apply(&many, Origin::Live).expect("taken");
    assert_eq!(applied.changes, 20_000);
    assert_eq!(policy().rules().len(), 20_000);
    assert_eq!(
        before.rules().len(),
        0,
        "who has the old one goes on with it"
    );
}

#[test]
fn a_batch_of_many_peers_is_one_snapshot() {
    let (_directory, control) = start();
    let changes: Vec<_> = peers(10_000).map(Change::Add).collect();
    assert_eq!(
        control
            .apply(&changes, Origin::Live)
            .expect("taken")
            .changes,
        10_000
    );
    assert_eq!(control.tables().load().peers.iter().count(), 10_001);
}

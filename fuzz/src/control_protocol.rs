//! What a client may send to the control socket, and what `batch` may read: lines of JSON or of words.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use silk_vtep::cli::words;
use silk_vtep::control::container::{Added, ContainerRequest, ContainerRow, Removed};
use silk_vtep::control::link::MarksFact;
use silk_vtep::control::policy::{DeniedReport, PolicyRow};
use silk_vtep::control::protocol::{
    Applied, Failure, Network, Reloaded, Reply, Request, Response, Show,
};
use silk_vtep::control::rows::{FdbRow, GroupRow, LinkRow, NeighRow, PeerRow, RouteRow};
use silk_vtep::control::stats::Stats;
use silk_vtep::control::trace::Trace;
use silk_vtep::control::{
    Change, Config, ContainerOptions, Control, Entry, LinkFacts, Options, Sending,
};
use silk_vtep::counters::Counters;
use silk_vtep::netlink::{HostLink, Traffic};
use silk_vtep::tables::MarkSource;
use silk_vtep::wire::MacAddr;

const CONFIG: &str = r#"
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

static PARSED: LazyLock<Config> = LazyLock::new(|| match Config::parse(CONFIG) {
    Ok(config) => config,
    Err(errors) => panic!("{errors}"),
});

/// A request prints as JSON and parses again; its answer does too, on the client's side; a refusal changes nothing; and an entry's own
/// words add it.
pub fn target(data: &[u8]) {
    let control = control();
    for line in data.split(|byte| *byte == b'\n') {
        if let Ok(request) = serde_json::from_slice::<Request>(line) {
            assert_eq!(again(&request), request);
            answer(&control, &request);
        }
        responses(line);
        if let Ok(words) = std::str::from_utf8(line)
            && let Ok(Some((change, _))) = words::parse_batch_line(words)
        {
            assert_eq!(again(&change), change);
            words_of(&change);
            answer(&control, &Request::Change(vec![change]));
        }
    }
}

fn control() -> Control {
    let options = Options {
        counters: Arc::new(Counters::new(2)),
        // Empty: a reload finds what is missing and changes nothing.
        config_path: PathBuf::from("/dev/null"),
        state: None,
        link: Box::new(|| Ok(facts())),
        marks: MarkSource::Table,
        containers: ContainerOptions {
            mtu_bytes: 1410,
            gso_max_segs: Some(45),
            state: None,
            links: Box::new(|name| Ok(host_links(name))),
            datastore: None,
        },
        guard: Arc::default(),
        sending: Sending {
            source_ports: vec![32768, 33650],
            mtu_bytes: 1410,
            mark_tags: Arc::default(),
        },
        express: None,
        captures: Arc::default(),
    };
    Control::new(&PARSED, options).0
}

/// Two containers' links; one of them is known from the start.
fn host_links(name: Option<&str>) -> Vec<HostLink> {
    let link = |last: u8, peers| HostLink {
        index: last.into(),
        name: format!("s-010255108{last:03}"),
        mtu_bytes: 1410,
        peers,
        traffic: Traffic::default(),
    };
    let links = [link(2, vec![[10, 255, 108, 2].into()]), link(3, vec![])];
    let wanted = links
        .into_iter()
        .filter(|link| name.is_none_or(|name| name == link.name));
    wanted.collect()
}

fn facts() -> LinkFacts {
    LinkFacts {
        ifindex: 865,
        flags: vec!["UP".to_owned()],
        mtu_bytes: 1410,
        qdisc: "mq".to_owned(),
        operstate: "UNKNOWN".to_owned(),
        address: MacAddr::new([0xee, 0xee, 10, 255, 108, 0]),
        underlay_device: Some("eth0".to_owned()),
        source_ports: (32768, 60999),
        features: [("udp-gso".to_owned(), "on".to_owned())].into(),
        marks: MarksFact {
            from: "table",
            why: "the configuration has groups".to_owned(),
            trouble: None,
        },
    }
}

fn again<T: Serialize + DeserializeOwned>(value: &T) -> T {
    let json = serde_json::to_string(value).expect("no map keys, no floats");
    serde_json::from_str(&json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

fn answer(control: &Control, request: &Request) {
    let before = shown(control);
    match control.answer(request) {
        Ok(reply) => {
            check_reply(&reply);
            let changes = match request {
                Request::Change(_) => true,
                Request::Container(request) => !matches!(request, ContainerRequest::List),
                _ => false,
            };
            if !changes {
                assert_eq!(shown(control), before, "only changes change");
            }
        }
        Err(failure) => {
            assert_eq!(shown(control), before, "a refusal changes nothing");
            assert_eq!(again(&failure), failure);
            let place = failure.change;
            assert!(
                place.is_none()
                    || matches!(request, Request::Change(all) if place < Some(all.len()))
            );
        }
    }
}

/// All rows, as JSON.
fn shown(control: &Control) -> Vec<String> {
    let tables = [
        Show::Route(None),
        Show::Neigh(None),
        Show::Fdb(None),
        Show::Peer(None),
        Show::Group(None),
        Show::Policy(None),
    ];
    let tables = tables.map(|show| serde_json::to_string(&control.show(&show)).expect("rows"));
    let containers = control.containers().expect("the links are always told");
    let known = control.tables().load().containers.len();
    assert_eq!(known, containers.len(), "the packet path knows the same");
    let containers = serde_json::to_string(&containers).expect("rows");
    tables.into_iter().chain([containers]).collect()
}

/// The client's side of each reply reads what was written.
fn check_reply(reply: &Reply) {
    let json = serde_json::to_string(reply).expect("no map keys, no floats");
    let ok = match reply {
        Reply::Routes(rows) => read::<Vec<RouteRow>>(&json) == *rows,
        Reply::Neighbors(rows) => read::<Vec<NeighRow>>(&json) == *rows,
        Reply::Fdb(rows) => read::<Vec<FdbRow>>(&json) == *rows,
        Reply::Peers(rows) => read::<Vec<PeerRow>>(&json) == *rows,
        Reply::Groups(rows) => read::<Vec<GroupRow>>(&json) == *rows,
        Reply::Policy(rows) => read::<Vec<PolicyRow>>(&json) == *rows,
        Reply::Denied(report) => read::<DeniedReport>(&json) == *report,
        Reply::Route(row) => read::<RouteRow>(&json) == **row,
        Reply::Link(row) => read::<LinkRow>(&json) == **row,
        Reply::Stats(stats) => read::<Stats>(&json) == **stats,
        Reply::Applied(applied) => read::<Applied>(&json) == *applied,
        Reply::Reloaded(reloaded) => read::<Reloaded>(&json) == *reloaded,
        Reply::Network(network) => read::<Network>(&json) == *network,
        Reply::Added(added) => read::<Added>(&json) == *added,
        Reply::Removed(removed) => read::<Removed>(&json) == *removed,
        Reply::Containers(rows) => read::<Vec<ContainerRow>>(&json) == *rows,
        Reply::Trace(trace) => read::<Trace>(&json) == **trace,
    };
    assert!(ok, "{json}");
}

fn read<T: DeserializeOwned>(json: &str) -> T {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

/// What a client makes of a line that need not be of any daemon.
fn responses(line: &[u8]) {
    response::<Vec<RouteRow>>(line);
    response::<Vec<FdbRow>>(line);
    response::<Vec<PeerRow>>(line);
    response::<LinkRow>(line);
    response::<Stats>(line);
    response::<Applied>(line);
    response::<Network>(line);
    response::<Vec<ContainerRow>>(line);
}

fn response<T: PartialEq + std::fmt::Debug + Serialize + for<'de> Deserialize<'de>>(line: &[u8]) {
    if let Ok(response) = serde_json::from_slice::<Response<T>>(line) {
        assert_eq!(again(&response), response);
        let _: Result<T, Failure> = response.into();
    }
}

/// `show` prints words that `add` takes.
fn words_of(change: &Change) {
    let (Change::Add(entry) | Change::Replace(entry) | Change::DelExact(entry)) = change else {
        return;
    };
    if matches!(entry, Entry::Route { dst, .. } | Entry::Policy { dst, .. } if *dst != dst.trunc())
    {
        // No directory takes it, so none shows it.
        return;
    }
    let words = entry.to_string();
    let (table, rest) = words.split_once(' ').expect("a table and a key");
    let line = format!("{table} add {rest}");
    let (added, premises) = words::parse_batch_line(&line)
        .unwrap_or_else(|error| panic!("{line}: {error}"))
        .expect("a line with words");
    assert!(premises.is_empty());
    let expected: Entry = entry.clone();
    assert_eq!(added, Change::Add(expected), "{line}");
}

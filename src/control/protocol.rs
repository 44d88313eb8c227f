//! The language of the control socket: one JSON value a line, each request answered by one response, in order.
//!
//! ```text
//! -> {"show":{"route":"10.255.43.0/24"}}        the tables: route, neigh, fdb, peer, group, policy; null for all of one
//! <- {"ok":[{"dst":"10.255.43.0/24","gateway":"10.255.43.0","dev":"silk-vtep",...}]}
//! -> {"change":[{"add":{"peer":{"subnets":["10.255.43.0/24"],"underlay":"10.0.16.14","mac":"ee:ee:0a:ff:2b:00"}}},
//!               {"del":{"group":"10.255.108.184"}}]}
//! <- {"error":{"message":"no group 10.255.108.184","change":1}}
//!                                               beside `add` and `del`: `replace`, and `del-exact` of a whole entry
//! -> {"route-get":"10.255.43.6"}, "link", "stats", "denied", "reload"
//! -> "network"                                  what a container is wired with
//! <- {"ok":{"overlay_subnet":"10.255.108.0/24","mtu":1410,"gso_max_segs":45}}
//! -> {"container":{"add":{"id":"4f1c","ifname":"eth0","address":"10.255.108.184","netns":"/var/run/netns/web",
//!                         "host_link":"s-010255108184"}}}
//! <- {"ok":{}}
//! -> {"container":{"del":{"id":"4f1c","ifname":"eth0"}}}, {"container":{"del":{"address":"10.255.108.184"}}}
//! <- {"ok":{"removed":true}}
//! -> {"container":"list"}                       its rows
//! -> {"capture":{"drops":true}}                 the connection becomes a stream of packets: see capture
//! -> {"trace":{"src":"10.255.108.184","dst":"10.255.43.6","proto":"tcp","dport":8080}}
//! ```

use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::capture::CaptureRequest;
use super::container::{Added, ContainerRequest, ContainerRow, Removed};
use super::policy::{DeniedReport, PolicyRow};
use super::rows::{FdbRow, GroupRow, LinkRow, NeighRow, PeerRow, RouteRow};
use super::stats::Stats;
use super::trace::{Trace, TraceRequest};
use super::{Change, ChangeError, Entry};
use crate::wire::MacAddr;

/// Bytes of one request without its newline; 100,000 peers take about 15 million.
pub const MAX_REQUEST_BYTES: usize = 64 << 20;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Rows of one table.
    Show(Show),
    /// The route that a packet to this address takes: one [`RouteRow`].
    RouteGet(IpAddr),
    /// Changes, all or none, in one swap: [`Applied`].
    Change(Vec<Change>),
    /// The device: one [`LinkRow`].
    Link,
    /// The counters: [`Stats`].
    Stats,
    /// Whom policy refused, and at whom: a [`DeniedReport`].
    Denied,
    /// Reads the configuration file again: [`Reloaded`].
    Reload,
    /// What a container is wired with: [`Network`].
    Network,
    /// The registry of this cell's containers.
    Container(ContainerRequest),
    /// The walk of an imagined packet: [`Trace`].
    Trace(TraceRequest),
    /// Live packets: the connection becomes a stream of them ([`capture`](super::capture)).
    Capture(CaptureRequest),
}

/// A table, and the key of the entries wanted; without one, all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Show {
    /// [`RouteRow`]s, by prefix.
    Route(Option<IpNet>),
    /// [`NeighRow`]s, by overlay address.
    Neigh(Option<IpAddr>),
    /// [`FdbRow`]s, by MAC.
    Fdb(Option<MacAddr>),
    /// [`PeerRow`]s, by underlay address.
    Peer(Option<IpAddr>),
    /// [`GroupRow`]s, by container.
    Group(Option<IpAddr>),
    /// [`PolicyRow`]s, by destination: those whose prefix is this one, or lies in it.
    Policy(Option<IpNet>),
}

/// One line back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response<T> {
    /// What was asked for.
    Ok(T),
    /// Why not.
    Error(Failure),
}

/// A request that was refused; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// For a person.
    pub message: String,
    /// The change that was refused: its place in the request, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<usize>,
}

/// A request's changes were taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// How many.
    pub changes: usize,
    /// What went wrong beside them: live entries that could not be written to disk, entries that have no effect here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The configuration file was read again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Peers in the file.
    pub peers: usize,
    /// Groups in the file.
    pub groups: usize,
    /// Rules of the group policy in the file.
    #[serde(default)]
    pub rules: usize,
    /// How policy is enforced from now on, as in `link show`: `off`, or `default deny reject`.
    #[serde(default)]
    pub policy: String,
    /// Entries that were left out or have no effect here, and keys that take effect only at a restart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What a container of this cell is wired with. The first two are what Silk's own CNI plugin asks a daemon for, by HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The subnet that containers get their addresses of, host bits zero. A /32 is the VTEP's own address: no container has room in it.
    pub overlay_subnet: IpNet,
    /// The IPv6 subnet that containers may have addresses of beside; left out if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay_subnet6: Option<Ipv6Net>,
    /// The device's MTU in bytes, and each container's.
    pub mtu: u32,
    /// Segments of the largest super-frame that one send carries; `None`: as many as the kernel likes.
    pub gso_max_segs: Option<u32>,
}

/// What [`Response::Ok`] holds on the side that answers; on the wire the value alone, since who asked knows what to expect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Reply {
    /// Of [`Show::Route`].
    Routes(Vec<RouteRow>),
    /// Of [`Show::Neigh`].
    Neighbors(Vec<NeighRow>),
    /// Of [`Show::Fdb`].
    Fdb(Vec<FdbRow>),
    /// Of [`Show::Peer`].
    Peers(Vec<PeerRow>),
    /// Of [`Show::Group`].
    Groups(Vec<GroupRow>),
    /// Of [`Show::Policy`].
    Policy(Vec<PolicyRow>),
    /// Of [`Request::Denied`].
    Denied(DeniedReport),
    /// Of [`Request::RouteGet`].
    Route(Box<RouteRow>),
    /// Of [`Request::Link`].
    Link(Box<LinkRow>),
    /// Of [`Request::Stats`].
    Stats(Box<Stats>),
    /// Of [`Request::Change`].
    Applied(Applied),
    /// Of [`Request::Reload`].
    Reloaded(Reloaded),
    /// Of [`Request::Network`].
    Network(Network),
    /// Of [`ContainerRequest::Add`].
    Added(Added),
    /// Of [`ContainerRequest::Del`].
    Removed(Removed),
    /// Of [`ContainerRequest::List`].
    Containers(Vec<ContainerRow>),
    /// Of [`Request::Trace`].
    Trace(Box<Trace>),
}

impl Show {
    /// True for the entries asked for.
    #[must_use]
    pub fn wants(&self, entry: &Entry) -> bool {
        match (self, entry) {
            (Self::Route(key), Entry::Route { dst, .. }) => {
                key.is_none_or(|key| key.trunc() == *dst)
            }
            (Self::Neigh(key), Entry::Neigh { dst, .. }) => key.is_none_or(|key| key == *dst),
            (Self::Fdb(key), Entry::Fdb { mac, .. }) => key.is_none_or(|key| key == *mac),
            (Self::Peer(key), Entry::Peer(peer)) => key.is_none_or(|key| key == peer.underlay),
            (Self::Group(key), Entry::Group { address, .. }) => {
                key.is_none_or(|key| key == *address)
            }
            (Self::Policy(key), Entry::Policy { dst, .. }) => {
                key.is_none_or(|key| key.contains(dst))
            }
            _ => false,
        }
    }
}

/// How a server ends what it says when it has no room for a connection.
const BUSY: &str = " connections are open already";

impl Failure {
    /// No room for another connection beside `open` ones.
    #[must_use]
    pub fn busy(open: usize) -> Self {
        Self::new(format_args!("{open}{BUSY}"))
    }

    /// True if asking again later may help.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.message.ends_with(BUSY)
    }

    /// A failure of the whole request.
    pub fn new(message: impl fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            change: None,
        }
    }
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = |count: usize, one: &str| match count {
            1 => format!("1 {one}"),
            _ => format!("{count} {one}s"),
        };
        let (peers, groups) = (counted(self.peers, "peer"), counted(self.groups, "group"));
        match self.rules {
            0 => write!(f, "{peers} and {groups} in the configuration")?,
            rules => write!(
                f,
                "{peers}, {groups} and {} in the configuration",
                counted(rules, "rule")
            )?,
        }
        match self.policy.as_str() {
            // A daemon that does not tell.
            "" => Ok(()),
            policy => write!(f, "; policy {policy}"),
        }
    }
}

impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Self {
        let message = match error.refusal.mend() {
            Some(mend) => format!("{error}: {mend}"),
            None => error.to_string(),
        };
        Self {
            message,
            change: Some(error.index),
        }
    }
}

impl<T> From<Result<T, Failure>> for Response<T> {
    fn from(result: Result<T, Failure>) -> Self {
        result.map_or_else(Self::Error, Self::Ok)
    }
}

impl<T> From<Response<T>> for Result<T, Failure> {
    fn from(response: Response<T>) -> Self {
        match response {
            Response::Ok(value) => Ok(value),
            Response::Error(failure) => Err(failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::container::{ContainerKey, LocalContainer};
    use super::*;

    fn assert_same(json: &str, request: &Request) {
        assert_eq!(serde_json::from_str::<Request>(json).expect(json), *request);
        assert_eq!(serde_json::to_string(request).expect("no map keys"), json);
    }

    #[test]
    fn a_reload_tells_how_many_and_whether_policy_is_enforced() {
        let told = |peers, groups, rules, policy: &str| {
            let policy = policy.to_owned();
            let warnings = Vec::new();
            Reloaded {
                peers,
                groups,
                rules,
                policy,
                warnings,
            }
            .to_string()
        };
        assert_eq!(
            told(1, 0, 0, "off"),
            "1 peer and 0 groups in the configuration; policy off"
        );
        assert_eq!(
            told(2, 1, 1, "default deny reject"),
            "2 peers, 1 group and 1 rule in the configuration; policy default deny reject"
        );
        assert_eq!(
            told(2, 2, 2, ""),
            "2 peers, 2 groups and 2 rules in the configuration"
        );
    }

    #[test]
    fn requests_are_the_documented_lines() {
        let route = Show::Route(Some("10.255.43.0/24".parse().expect("a prefix")));
        assert_same(
            r#"{"show":{"route":"10.255.43.0/24"}}"#,
            &Request::Show(route),
        );
        assert_same(r#"{"show":{"fdb":null}}"#, &Request::Show(Show::Fdb(None)));
        assert_same(
            r#"{"route-get":"fd00::6"}"#,
            &Request::RouteGet("fd00::6".parse().expect("an address")),
        );
        assert_same(r#""stats""#, &Request::Stats);
        assert_same(r#""denied""#, &Request::Denied);
        let rules = Show::Policy(Some("10.255.108.0/24".parse().expect("a prefix")));
        assert_same(
            r#"{"show":{"policy":"10.255.108.0/24"}}"#,
            &Request::Show(rules),
        );
    }

    #[test]
    fn changes_are_the_documented_lines() {
        let json = r#"{"change":[{"add":{"peer":{"subnets":["10.255.43.0/24"],"underlay":"10.0.16.14","mac":"ee:ee:0a:ff:2b:00"}}},{"replace":{"route":{"dst":"10.255.0.0/16"}}},{"del":{"group":"10.255.108.184"}}]}"#;
        let request: Request = serde_json::from_str(json).expect(json);
        assert!(matches!(&request, Request::Change(changes) if changes.len() == 3));
        assert_same(json, &request);
    }

    #[test]
    fn rules_are_written_without_what_they_do_not_say() {
        for json in [
            r#"{"change":[{"add":{"policy":{"dst":"10.255.108.184/32","group":3,"proto":"tcp","ports":"8080-8090"}}}]}"#,
            r#"{"change":[{"add":{"policy":{"dst":"fd00::/16","group":3,"proto":"icmp","action":"deny"}}}]}"#,
            r#"{"change":[{"del":{"policy":{"dst":"10.255.108.184/32","group":3,"proto":"udp","ports":"53"}}}]}"#,
        ] {
            let request: Request = serde_json::from_str(json).expect(json);
            assert_same(json, &request);
        }
        for (ports, told) in [
            ("90-80", "is reversed"),
            ("0", "is no port"),
            ("x", "is no port"),
        ] {
            let json = format!(
                r#"{{"change":[{{"add":{{"policy":{{"dst":"10.255.108.184/32","group":3,"proto":"tcp","ports":"{ports}"}}}}}}]}}"#
            );
            let error = serde_json::from_str::<Request>(&json)
                .expect_err(&json)
                .to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn requests_about_containers_are_the_documented_lines() {
        let container = LocalContainer {
            id: Some("4f1c".to_owned()),
            ifname: Some("eth0".to_owned()),
            address: [10, 255, 108, 184].into(),
            netns: Some("/var/run/netns/web".to_owned()),
            host_link: "s-010255108184".to_owned(),
        };
        let attachment = ContainerKey::Attachment {
            id: "4f1c".to_owned(),
            ifname: "eth0".to_owned(),
        };
        let address = ContainerKey::Address {
            address: container.address,
        };
        assert_same(
            r#"{"container":{"add":{"id":"4f1c","ifname":"eth0","address":"10.255.108.184","netns":"/var/run/netns/web","host_link":"s-010255108184"}}}"#,
            &Request::Container(ContainerRequest::Add(container)),
        );
        assert_same(
            r#"{"container":{"del":{"id":"4f1c","ifname":"eth0"}}}"#,
            &Request::Container(ContainerRequest::Del(attachment)),
        );
        assert_same(
            r#"{"container":{"del":{"address":"10.255.108.184"}}}"#,
            &Request::Container(ContainerRequest::Del(address)),
        );
        assert_same(
            r#"{"container":"list"}"#,
            &Request::Container(ContainerRequest::List),
        );
        assert_same(r#""network""#, &Request::Network);
    }

    #[test]
    fn answers_about_containers_are_the_documented_lines() {
        let network = Network {
            overlay_subnet: "10.255.108.0/24".parse().expect("a prefix"),
            overlay_subnet6: None,
            mtu: 1410,
            gso_max_segs: None,
        };
        let both = Network {
            overlay_subnet6: "fd00:a:0:6c::/64".parse().ok(),
            ..network.clone()
        };
        let removed = Removed {
            removed: true,
            ..Removed::default()
        };
        for (reply, json) in [
            (
                Reply::Network(network),
                r#"{"ok":{"overlay_subnet":"10.255.108.0/24","mtu":1410,"gso_max_segs":null}}"#,
            ),
            (
                Reply::Network(both),
                r#"{"ok":{"overlay_subnet":"10.255.108.0/24","overlay_subnet6":"fd00:a:0:6c::/64","mtu":1410,"gso_max_segs":null}}"#,
            ),
            (Reply::Added(Added::default()), r#"{"ok":{}}"#),
            (Reply::Removed(removed), r#"{"ok":{"removed":true}}"#),
            (Reply::Containers(vec![]), r#"{"ok":[]}"#),
        ] {
            let line = serde_json::to_string(&Response::Ok(reply)).expect("no map keys");
            assert_eq!(line, json);
        }
    }

    #[test]
    fn a_key_that_is_misspelt_is_refused() {
        let json =
            r#"{"change":[{"add":{"route":{"dst":"10.255.0.0/16","gateway":"10.255.0.1"}}}]}"#;
        let error = serde_json::from_str::<Request>(json)
            .expect_err("gateway is no key")
            .to_string();
        assert!(
            error.contains("gateway") && error.contains("via"),
            "{error}"
        );
    }

    #[test]
    fn a_failure_carries_the_place_of_its_change() {
        let json = r#"{"error":{"message":"no group 10.255.108.184","change":1}}"#;
        let response: Response<Applied> = serde_json::from_str(json).expect(json);
        let failure = Result::from(response).expect_err("an error line");
        assert_eq!(failure.change, Some(1));
    }
}

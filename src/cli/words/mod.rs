//! The words of `route|neigh|fdb|peer|group|policy|link`, read as `ip` and `bridge` read them: a verb, a key, then pairs of a name and a value
//! in any order.
//!
//! A line that `show` prints can stand after `add`, `replace` and `del`. Of its words those that are so of every entry (`self permanent`,
//! `onlink`, `nud permanent`, and the origin of a peer or group, since what is given here is live) are taken and say nothing; those that
//! are so of the device (`dev`, `src`) are [`Premises`].

mod phrase;
mod premises;

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use self::phrase::{
    Phrase, action, address, destination, device, group_id, mac, mtu, permanent, port, prefix,
    proto, subnets, text, underlay, vni,
};
pub use self::premises::Premises;
use crate::control::protocol::{Request, Show};
use crate::control::{Change, Entry, Key, PeerSpec};
use crate::tables::policy::Ports;

/// What `link` takes.
pub const LINK_USAGE: &str = "usage: silk-vtep link [show [NAME]]";
/// What `route` takes.
pub const ROUTE_USAGE: &str = "usage: silk-vtep route [show [PREFIX]] | route get ADDRESS | route add|replace|del PREFIX [via ADDRESS] [dev NAME] [src ADDRESS] [onlink]";
/// What `neigh` takes.
pub const NEIGH_USAGE: &str = "usage: silk-vtep neigh [show [ADDRESS]] | neigh add|replace ADDRESS lladdr MAC [dev NAME] [nud permanent] | neigh del ADDRESS [lladdr MAC]";
/// What `fdb` takes.
pub const FDB_USAGE: &str = "usage: silk-vtep fdb [show [MAC]] | fdb add|append|replace|del MAC dst UNDERLAY [port PORT] [vni VNI] [dev NAME] [self] [permanent]";
/// What `peer` takes.
pub const PEER_USAGE: &str = "usage: silk-vtep peer [show [UNDERLAY]] | peer add|replace SUBNET[,SUBNET6] underlay UNDERLAY [mac MAC] | peer del UNDERLAY | peer del SUBNET[,SUBNET6] underlay UNDERLAY [mac MAC]";
/// What `group` takes.
pub const GROUP_USAGE: &str = "usage: silk-vtep group [show [ADDRESS]] | group add|replace ADDRESS id ID | group del ADDRESS [id ID]";

/// What `policy` takes.
pub const POLICY_USAGE: &str = "usage: silk-vtep policy [show [PREFIX]] | policy denied | policy add|replace DST group ID proto tcp|udp|icmp [ports A[-B]] [action accept|deny] | policy del DST group ID proto PROTO [ports A[-B]] [action ACTION]";

/// A table by the word that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// The device.
    Link,
    /// Routes.
    Route,
    /// Neighbours.
    Neigh,
    /// Forwarding entries.
    Fdb,
    /// Peers.
    Peer,
    /// Groups.
    Group,
    /// Rules of the group policy.
    Policy,
}

/// Words that say nothing we know: what is wrong, and what is accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wrong}\n{usage}")]
pub struct UsageError {
    /// What is wrong.
    pub wrong: String,
    /// What is accepted, one line.
    pub usage: &'static str,
}

/// What words ask, and what they say of the daemon's device on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence {
    /// What is asked.
    pub request: Request,
    /// What must be so.
    pub premises: Premises,
}

/// Reads the words that follow the name of `table`.
///
/// # Errors
/// What is wrong, and what is accepted.
pub fn parse<S: AsRef<str>>(table: Table, words: &[S]) -> Result<Sentence, UsageError> {
    let words = words.iter().map(AsRef::as_ref).collect();
    sentence(table, words).map_err(|wrong| UsageError {
        wrong: format!("{}: {wrong}", table.name()),
        usage: table.usage(),
    })
}

/// Reads one line of a batch, `peer add 10.255.43.0/24 underlay 10.0.16.14`. `None` for an empty line or a comment.
///
/// # Errors
/// What is wrong: only changes are accepted.
pub fn parse_batch_line(line: &str) -> Result<Option<(Change, Premises)>, UsageError> {
    let words: Vec<_> = line
        .split('#')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let Some((&name, rest)) = words.split_first() else {
        return Ok(None);
    };
    let not_accepted = |wrong| UsageError {
        wrong,
        usage: "a batch takes lines of `route|neigh|fdb|peer|group|policy add|replace|del ...` and `fdb append ...`",
    };
    let table = Table::ALL.into_iter().find(|table| table.name() == name);
    let table = table.ok_or_else(|| not_accepted(format!("`{name}` is no table")))?;
    let Sentence { request, premises } = parse(table, rest)?;
    let Request::Change(changes) = request else {
        let wrong = format!("`{}` changes nothing", words.join(" "));
        return Err(not_accepted(wrong));
    };
    Ok(changes.into_iter().next().zip(Some(premises)))
}

impl Table {
    const ALL: [Self; 7] = [
        Self::Link,
        Self::Route,
        Self::Neigh,
        Self::Fdb,
        Self::Peer,
        Self::Group,
        Self::Policy,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Route => "route",
            Self::Neigh => "neigh",
            Self::Fdb => "fdb",
            Self::Peer => "peer",
            Self::Group => "group",
            Self::Policy => "policy",
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Self::Link => LINK_USAGE,
            Self::Route => ROUTE_USAGE,
            Self::Neigh => NEIGH_USAGE,
            Self::Fdb => FDB_USAGE,
            Self::Peer => PEER_USAGE,
            Self::Group => GROUP_USAGE,
            Self::Policy => POLICY_USAGE,
        }
    }
}

fn sentence(table: Table, words: Vec<&str>) -> Result<Sentence, String> {
    let mut words = Phrase::new(words);
    let verb = words.verb().unwrap_or("show");
    let mut premises = Premises {
        device: words.option("dev", device)?,
        source: None,
    };
    let request = match (verb, table) {
        ("show" | "list" | "ls", _) => show(table, &mut words, &mut premises)?,
        ("denied", Table::Policy) => Request::Denied,
        ("get", Table::Route) => Request::RouteGet(words.key(address)?),
        ("add" | "replace" | "del" | "delete", Table::Link) => {
            return Err(format!(
                "it has only show (`{verb}` is the configuration file's)"
            ));
        }
        ("add" | "replace" | "del" | "delete", _) | ("append", Table::Fdb) => {
            premises.source = printed(table, &mut words)?;
            let change = change(verb, table, &mut words, premises.source)?;
            Request::Change(vec![change])
        }
        _ => return Err(format!("`{verb}` is no verb of it")),
    };
    words.finish()?;
    Ok(Sentence { request, premises })
}

fn show(table: Table, words: &mut Phrase<'_>, premises: &mut Premises) -> Result<Request, String> {
    Ok(Request::Show(match table {
        Table::Link => {
            if premises.device.is_none() {
                premises.device = words.optional_key(device)?;
            }
            return Ok(Request::Link);
        }
        Table::Route => Show::Route(words.optional_key(prefix)?),
        Table::Neigh => Show::Neigh(words.optional_key(address)?),
        Table::Fdb => Show::Fdb(words.optional_key(mac)?),
        Table::Peer => Show::Peer(words.optional_key(underlay)?),
        Table::Group => Show::Group(words.optional_key(address)?),
        Table::Policy => Show::Policy(words.optional_key(prefix)?),
    }))
}

/// Takes what `show` prints of an entry and what iproute2 wants said of one, but is so of every entry here; gives the `src` of a route.
fn printed(table: Table, words: &mut Phrase<'_>) -> Result<Option<IpAddr>, String> {
    match table {
        Table::Link => {}
        Table::Route => {
            words.flag(&["onlink"]);
            return words.option("src", address);
        }
        Table::Neigh => {
            words.option("nud", permanent)?;
            words.flag(&["PERMANENT", "permanent"]);
        }
        Table::Fdb => {
            words.flag(&["self"]);
            words.flag(&["permanent"]);
        }
        Table::Peer => {
            words.option("mtu", mtu)?;
            words.flag(&["config", "live", "controller"]);
        }
        Table::Group | Table::Policy => words.flag(&["config", "live", "controller"]),
    }
    Ok(None)
}

fn change(
    verb: &str,
    table: Table,
    words: &mut Phrase<'_>,
    source: Option<IpAddr>,
) -> Result<Change, String> {
    Ok(match verb {
        "replace" => Change::Replace(entry(table, words, source)?),
        "del" | "delete" => delete(table, words, source)?,
        // To append is to add one more destination of a MAC that takes many.
        _ => Change::Add(entry(table, words, source)?),
    })
}

fn entry(table: Table, words: &mut Phrase<'_>, source: Option<IpAddr>) -> Result<Entry, String> {
    Ok(match table {
        Table::Link => return Err("it has no entries".to_owned()),
        Table::Route => {
            let (dst, via) = route(words, source)?;
            Entry::Route { dst, via }
        }
        Table::Neigh => Entry::Neigh {
            dst: words.key(address)?,
            lladdr: words.required("lladdr", mac)?,
        },
        Table::Fdb => {
            let mac = words.key(mac)?;
            let port = words.option("port", port)?;
            let vni = words.option("vni", vni)?;
            let dst = words.required("dst", underlay)?;
            Entry::Fdb {
                mac,
                dst,
                port,
                vni,
            }
        }
        Table::Peer => Entry::Peer(peer(words)?),
        Table::Group => Entry::Group {
            address: words.key(address)?,
            id: words.required("id", group_id)?,
        },
        Table::Policy => {
            let dst = words.key(prefix)?;
            let ports = ports(words)?;
            let action = words.option("action", action)?.unwrap_or_default();
            let given = words.option("proto", proto)?;
            let group = words.required("group", group_id)?;
            Entry::Policy {
                dst,
                group,
                proto: given.map_or_else(|| words.required("proto", proto), Ok)?,
                ports,
                action,
            }
        }
    })
}

/// By its key whatever it holds, or, with more words than that, only if it is as they say.
fn delete(table: Table, words: &mut Phrase<'_>, source: Option<IpAddr>) -> Result<Change, String> {
    Ok(match table {
        Table::Route if !words.has("via") => Change::Del(Key::Route(route(words, source)?.0)),
        Table::Neigh if !words.has("lladdr") => Change::Del(Key::Neigh(words.key(address)?)),
        Table::Peer if !words.has("underlay") => Change::Del(Key::Peer(words.key(underlay)?)),
        Table::Group if !words.has("id") => Change::Del(Key::Group(words.key(address)?)),
        // All of an FDB entry is its key, and all of a rule but its action.
        Table::Policy if words.has("action") => Change::DelExact(entry(table, words, source)?),
        Table::Fdb | Table::Policy => Change::Del(entry(table, words, source)?.key()),
        Table::Link | Table::Route | Table::Neigh | Table::Peer | Table::Group => {
            Change::DelExact(entry(table, words, source)?)
        }
    })
}

/// Prefix and next hop. `default` is of the family of what comes with it.
fn route(
    words: &mut Phrase<'_>,
    source: Option<IpAddr>,
) -> Result<(IpNet, Option<IpAddr>), String> {
    let dst = words.key(destination)?;
    let via = words.option("via", address)?;
    let dst = dst.unwrap_or_else(|| match via.or(source) {
        Some(IpAddr::V6(_)) => Ipv6Net::default().into(),
        Some(IpAddr::V4(_)) | None => Ipv4Net::default().into(),
    });
    match source {
        Some(source) if source.is_ipv4() != dst.addr().is_ipv4() => {
            Err(format!("`src {source}` is of the other family than {dst}"))
        }
        _ => Ok((dst, via)),
    }
}

/// A range has more to say of what is wrong with it than what is accepted.
fn ports(words: &mut Phrase<'_>) -> Result<Ports, String> {
    match words.option("ports", text)? {
        None => Ok(Ports::ALL),
        Some(text) => text
            .parse()
            .map_err(|error| format!("`ports` takes a port or two with a dash: {error}")),
    }
}

fn peer(words: &mut Phrase<'_>) -> Result<PeerSpec, String> {
    let subnets = words.key(subnets)?;
    let given = words.option("mac", mac)?;
    let underlay = words.required("underlay", underlay)?;
    let mac = given.or_else(|| PeerSpec::derived_mac(&subnets));
    let mac = mac.ok_or("without an IPv4 subnet to derive it from, `mac MAC` is wanted")?;
    Ok(PeerSpec {
        subnets,
        underlay,
        mac,
    })
}

#[cfg(test)]
mod tests;

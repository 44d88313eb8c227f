//! The words of `route|neigh|fdb|peer|group|link`, read as `ip` and `bridge` read them: a verb, a key, then pairs of a name and a value
//! in any order. `dev NAME` may stand among the pairs and says nothing, since a daemon has one device.

mod phrase;

use self::phrase::{Phrase, address, device, group_id, mac, port, prefix, subnets, underlay, vni};
use crate::control::protocol::{Request, Show};
use crate::control::{Change, Entry, Key, PeerSpec};

/// What `link` takes.
pub const LINK_USAGE: &str = "usage: silk-vtep link [show]";
/// What `route` takes.
pub const ROUTE_USAGE: &str = "usage: silk-vtep route [show [PREFIX]] | route get ADDRESS | route add|replace PREFIX [via ADDRESS] | route del PREFIX";
/// What `neigh` takes.
pub const NEIGH_USAGE: &str = "usage: silk-vtep neigh [show [ADDRESS]] | neigh add|replace ADDRESS lladdr MAC | neigh del ADDRESS";
/// What `fdb` takes.
pub const FDB_USAGE: &str = "usage: silk-vtep fdb [show [MAC]] | fdb add|replace|del MAC dst UNDERLAY [port PORT] [vni VNI]";
/// What `peer` takes.
pub const PEER_USAGE: &str = "usage: silk-vtep peer [show [UNDERLAY]] | peer add|replace SUBNET[,SUBNET6] underlay UNDERLAY [mac MAC] | peer del UNDERLAY";
/// What `group` takes.
pub const GROUP_USAGE: &str =
    "usage: silk-vtep group [show [ADDRESS]] | group add|replace ADDRESS id ID | group del ADDRESS";

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

/// Reads the words that follow the name of `table`.
///
/// # Errors
/// What is wrong, and what is accepted.
pub fn parse<S: AsRef<str>>(table: Table, words: &[S]) -> Result<Request, UsageError> {
    let words = words.iter().map(AsRef::as_ref).collect();
    request(table, words).map_err(|wrong| UsageError {
        wrong: format!("{}: {wrong}", table.name()),
        usage: table.usage(),
    })
}

/// Reads one line of a batch, `peer add 10.255.43.0/24 underlay 10.0.16.14`. `None` for an empty line or a comment.
///
/// # Errors
/// What is wrong: only changes are accepted.
pub fn parse_batch_line(line: &str) -> Result<Option<Change>, UsageError> {
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
        usage: "a batch takes lines of `route|neigh|fdb|peer|group add|replace|del ...`",
    };
    let table = Table::ALL.into_iter().find(|table| table.name() == name);
    let table = table.ok_or_else(|| not_accepted(format!("`{name}` is no table")))?;
    match parse(table, rest)? {
        Request::Change(changes) => Ok(changes.into_iter().next()),
        _ => Err(not_accepted(format!(
            "`{}` changes nothing",
            words.join(" ")
        ))),
    }
}

impl Table {
    const ALL: [Self; 6] = [
        Self::Link,
        Self::Route,
        Self::Neigh,
        Self::Fdb,
        Self::Peer,
        Self::Group,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Route => "route",
            Self::Neigh => "neigh",
            Self::Fdb => "fdb",
            Self::Peer => "peer",
            Self::Group => "group",
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
        }
    }
}

fn request(table: Table, words: Vec<&str>) -> Result<Request, String> {
    let mut words = Phrase::new(words);
    let verb = words.verb().unwrap_or("show");
    words.option("dev", device)?;
    let request = match (verb, table) {
        ("show" | "list" | "ls", _) => show(table, &mut words)?,
        ("get", Table::Route) => Request::RouteGet(words.key(address)?),
        ("add" | "replace" | "del" | "delete", Table::Link) => {
            return Err(format!(
                "it has only show (`{verb}` is the configuration file's)"
            ));
        }
        ("add", _) => Request::Change(vec![Change::Add(entry(table, &mut words)?)]),
        ("replace", _) => Request::Change(vec![Change::Replace(entry(table, &mut words)?)]),
        ("del" | "delete", _) => Request::Change(vec![Change::Del(key(table, &mut words)?)]),
        _ => return Err(format!("`{verb}` is no verb of it")),
    };
    words.finish()?;
    Ok(request)
}

fn show(table: Table, words: &mut Phrase<'_>) -> Result<Request, String> {
    Ok(Request::Show(match table {
        Table::Link => return Ok(Request::Link),
        Table::Route => Show::Route(words.optional_key(prefix)?),
        Table::Neigh => Show::Neigh(words.optional_key(address)?),
        Table::Fdb => Show::Fdb(words.optional_key(mac)?),
        Table::Peer => Show::Peer(words.optional_key(underlay)?),
        Table::Group => Show::Group(words.optional_key(address)?),
    }))
}

fn entry(table: Table, words: &mut Phrase<'_>) -> Result<Entry, String> {
    Ok(match table {
        Table::Link => return Err("it has no entries".to_owned()),
        Table::Route => Entry::Route {
            dst: words.key(prefix)?,
            via: words.option("via", address)?,
        },
        Table::Neigh => Entry::Neigh {
            dst: words.key(address)?,
            lladdr: words.required("lladdr", mac)?,
        },
        Table::Fdb => Entry::Fdb {
            mac: words.key(mac)?,
            dst: words.required("dst", underlay)?,
            port: words.option("port", port)?,
            vni: words.option("vni", vni)?,
        },
        Table::Peer => Entry::Peer(peer(words)?),
        Table::Group => Entry::Group {
            address: words.key(address)?,
            id: words.required("id", group_id)?,
        },
    })
}

fn key(table: Table, words: &mut Phrase<'_>) -> Result<Key, String> {
    Ok(match table {
        Table::Link => return Err("it has no entries".to_owned()),
        Table::Route => Key::Route(words.key(prefix)?),
        Table::Neigh => Key::Neigh(words.key(address)?),
        Table::Fdb => Key::Fdb {
            mac: words.key(mac)?,
            dst: words.required("dst", underlay)?,
            port: words.option("port", port)?,
            vni: words.option("vni", vni)?,
        },
        Table::Peer => Key::Peer(words.key(underlay)?),
        Table::Group => Key::Group(words.key(address)?),
    })
}

fn peer(words: &mut Phrase<'_>) -> Result<PeerSpec, String> {
    let subnets = words.key(subnets)?;
    let underlay = words.required("underlay", underlay)?;
    let given = words.option("mac", mac)?;
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

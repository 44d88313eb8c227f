//! The network's configuration, from standard input.
//!
//! Keys are found without regard to case and unknown ones passed over, as Silk's plugin (Go's `encoding/json`) does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::{Map, Value};

use super::environment::{Command, IDENTIFIER, is_identifier};
use super::error::CniError;
use super::version::Version;
use crate::control::container_store::{DEFAULT_DATA_DIR, default_store};
use crate::control::default_socket_path;
use crate::netlink::VETH_MTU_BYTES;

/// What the host's address leaves of an IPv6 prefix that containers' IPv4 addresses are put into.
const SUBNET6_PREFIX_MAX: u8 = 96;

/// The key that GC has its list under.
const VALID_ATTACHMENTS: &str = "cni.dev/valid-attachments";

/// What the operator and the runtime want.
#[derive(Debug, Clone)]
pub(super) struct Config {
    /// `cniVersion`.
    pub(super) version: Version,
    /// `name`.
    pub(super) name: String,
    /// `mtu`; `None`: the daemon's.
    pub(super) mtu_bytes: Option<u32>,
    /// Whom to ask for subnet and MTU, and to tell of containers.
    pub(super) daemon: DaemonAddress,
    /// `subnet`: the part of the cell's that containers of this network get addresses of.
    pub(super) subnet: Option<Ipv4Net>,
    /// `subnet6`: containers have IPv6 addresses too, of this prefix.
    pub(super) subnet6: Option<Ipv6Net>,
    /// Reservations are in `ipam` of this directory.
    pub(super) data_dir: PathBuf,
    /// `datastore`.
    pub(super) store: PathBuf,
    /// Addresses asked for: `args.cni.ips` and `runtimeConfig.ips`.
    pub(super) ips: Vec<IpAddr>,
    /// `prevResult`.
    pub(super) prev_result: Option<Value>,
    /// `cni.dev/valid-attachments`, which GC alone is to understand.
    valid: Option<Value>,
}

/// Where the daemon is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DaemonAddress {
    /// `daemonPort`: Silk's HTTP, on the loopback.
    pub(super) port: Option<u16>,
    /// `socket`: our control socket. `None` beside a port: a daemon that may be Silk's. Alone, to a command that takes away: nobody knows.
    pub(super) socket: Option<PathBuf>,
}

impl Config {
    /// Reads what `command` needs of it.
    ///
    /// # Errors
    /// It is no JSON object, lacks a name, is of another version, or a key that `command` goes by has a value that it cannot have. With the
    /// version to say it in.
    pub(super) fn read(bytes: &[u8], command: Command) -> Result<Self, (CniError, Version)> {
        let newest = |error| (error, Version::NEWEST);
        let object: Map<String, Value> = serde_json::from_slice(bytes)
            .map_err(|error| newest(CniError::decoding("network configuration").because(error)))?;
        let keys = Keys(&object);
        let name = name_of(keys).map_err(newest)?;
        let version = keys
            .text("cniVersion")
            .map_err(|error| newest(CniError::decoding("cniVersion").because(error)))?;
        let version = Version::of_config(version).map_err(newest)?;
        Self::of(keys, version, name, command).map_err(|error| (CniError::config(error), version))
    }

    fn of(
        keys: Keys<'_>,
        version: Version,
        name: String,
        command: Command,
    ) -> Result<Self, String> {
        // Where the records are. Whoever looked elsewhere would find nothing, and call that done.
        let data_dir = keys.path("dataDir")?;
        let data_dir = data_dir.unwrap_or_else(|| DEFAULT_DATA_DIR.into());
        let store = keys.path("datastore")?;
        Ok(Self {
            version,
            name,
            mtu_bytes: unless_taking_away(command, keys.mtu())?,
            daemon: DaemonAddress {
                port: unless_taking_away(command, keys.port())?,
                socket: unless_taking_away(command, keys.socket())?,
            },
            subnet: unless_taking_away(command, keys.subnet())?,
            subnet6: unless_taking_away(command, keys.subnet6())?,
            store: store.unwrap_or_else(|| default_store(&data_dir)),
            data_dir,
            ips: unless_taking_away(command, keys.ips_asked_for())?,
            prev_result: keys.find("prevResult").cloned(),
            valid: keys.find(VALID_ATTACHMENTS).cloned(),
        })
    }

    /// Container ids and links of the attachments that GC keeps.
    ///
    /// # Errors
    /// They are missing, or not what the specification says: nothing is safe to remove then.
    pub(super) fn valid_attachments(&self) -> Result<Vec<(String, String)>, CniError> {
        let list = match &self.valid {
            None => Err(format!("`{VALID_ATTACHMENTS}` is missing")),
            Some(Value::Array(list)) => list.iter().map(valid_attachment).collect(),
            Some(other) => Err(format!(
                "`{VALID_ATTACHMENTS}` is {}, not a list",
                kind(other)
            )),
        };
        list.map_err(CniError::config)
    }

    /// Where reservations of this network are, as Silk has host-local keep them.
    pub(super) fn ipam_dir(&self) -> PathBuf {
        self.data_dir.join("ipam")
    }

    /// The IPv6 address of the container with `address`: the prefix, and that address in its last 32 bits. So it needs no reservation.
    pub(super) fn address_v6(&self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        let prefix = self.subnet6?.network().to_bits();
        Some(Ipv6Addr::from_bits(prefix | u128::from(address.to_bits())))
    }
}

/// What containers are made with. The specification has DEL and GC complete without it: they go by the records, and a configuration that
/// was spoilt since must not keep a container, its link and its address.
fn unless_taking_away<T: Default>(command: Command, value: Result<T, String>) -> Result<T, String> {
    match command {
        Command::Del | Command::Gc => Ok(value.unwrap_or_else(|error| {
            let command = command.name();
            super::note(format_args!(
                "network configuration: {error}: {command} passes over it, ADD will not"
            ));
            T::default()
        })),
        Command::Add | Command::Check | Command::Status | Command::Version => value,
    }
}

/// One entry of [`VALID_ATTACHMENTS`].
fn valid_attachment(value: &Value) -> Result<(String, String), String> {
    let object = value.as_object().map(Keys);
    let of = |word| object.and_then(|keys| keys.text(word).ok().flatten());
    match (of("containerID"), of("ifname")) {
        (Some(id), Some(ifname)) => Ok((id.to_owned(), ifname.to_owned())),
        _ => Err(format!(
            "`{VALID_ATTACHMENTS}` has {value}, without `containerID` or `ifname`"
        )),
    }
}

fn name_of(keys: Keys<'_>) -> Result<String, CniError> {
    let name = keys
        .text("name")
        .map_err(|error| CniError::decoding("network name").because(error))?;
    match name {
        None | Some("") => Err(CniError::config("missing network name")),
        Some(name) if is_identifier(name) => Ok(name.to_owned()),
        Some(name) => {
            let wrong = format!("invalid characters in network name `{name}` ({IDENTIFIER})");
            Err(CniError::config(wrong))
        }
    }
}

/// The keys of one object; no object has none.
#[derive(Clone, Copy)]
struct Keys<'a>(&'a Map<String, Value>);

impl<'a> Keys<'a> {
    /// A value that is not null, of the key as it is written or, failing that, in other case.
    fn find(self, key: &str) -> Option<&'a Value> {
        let exact = self.0.get(key);
        let other = || {
            let mut entries = self.0.iter();
            entries.find_map(|(have, value)| have.eq_ignore_ascii_case(key).then_some(value))
        };
        exact.or_else(other).filter(|value| !value.is_null())
    }

    fn text(self, key: &str) -> Result<Option<&'a str>, String> {
        match self.find(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(format!("`{key}` is {}, not a string", kind(other))),
        }
    }

    /// An absolute path: runtimes call plugins in directories of their own. An empty one counts as absent, as in Go.
    fn path(self, key: &str) -> Result<Option<PathBuf>, String> {
        let path = self.text(key)?.filter(|path| !path.is_empty());
        match path.map(PathBuf::from) {
            Some(path) if !path.is_absolute() => {
                let path = path.display();
                Err(format!("`{key}` is `{path}`, no absolute path"))
            }
            path => Ok(path),
        }
    }

    /// A number from 1 to `max`; 0 counts as absent, as in Go.
    fn number(self, key: &str, max: u64) -> Result<Option<u64>, String> {
        let Some(value) = self.find(key) else {
            return Ok(None);
        };
        match value.as_u64() {
            Some(number) if number <= max => Ok((number > 0).then_some(number)),
            _ => Err(format!("`{key}` is {value} (accepted: 0 to {max})")),
        }
    }

    fn object(self, key: &str) -> Result<Self, String> {
        static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
        match self.find(key) {
            None => Ok(Keys(&NONE)),
            Some(Value::Object(object)) => Ok(Keys(object)),
            Some(other) => Err(format!("`{key}` is {}, not an object", kind(other))),
        }
    }

    fn list(self, key: &str) -> Result<Option<&'a [Value]>, String> {
        match self.find(key) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(other) => Err(format!("`{key}` is {}, not a list", kind(other))),
        }
    }

    fn mtu(self) -> Result<Option<u32>, String> {
        let (min, max) = VETH_MTU_BYTES.into_inner();
        let mtu = self.number("mtu", max.into())?;
        let mtu = mtu.and_then(|mtu| u32::try_from(mtu).ok());
        match mtu {
            Some(mtu) if mtu < min => Err(format!(
                "`mtu` is {mtu} (accepted: {min} to {max}, 0 for the daemon's)"
            )),
            Some(_) | None => Ok(mtu),
        }
    }

    fn port(self) -> Result<Option<u16>, String> {
        let port = self.number("daemonPort", u16::MAX.into())?;
        Ok(port.and_then(|port| u16::try_from(port).ok()))
    }

    /// A port, be it a wrong one, says that the daemon may be Silk's: there is no default beside it.
    fn socket(self) -> Result<Option<PathBuf>, String> {
        let has_port = self.port() != Ok(None);
        let default = || (!has_port).then(|| default_socket_path("silk-vtep"));
        Ok(self.path("socket")?.or_else(default))
    }

    fn subnet(self) -> Result<Option<Ipv4Net>, String> {
        match self.net("subnet")? {
            None => Ok(None),
            Some(IpNet::V4(subnet)) => Ok(Some(subnet)),
            Some(other) => Err(format!("`subnet` is {other}, not of IPv4 (see `subnet6`)")),
        }
    }

    fn subnet6(self) -> Result<Option<Ipv6Net>, String> {
        match self.net("subnet6")? {
            None => Ok(None),
            Some(IpNet::V6(subnet)) if subnet.prefix_len() <= SUBNET6_PREFIX_MAX => {
                Ok(Some(subnet))
            }
            Some(IpNet::V6(subnet)) => Err(format!(
                "`subnet6` is {subnet} (accepted: /{SUBNET6_PREFIX_MAX} or shorter, to hold an IPv4 address)"
            )),
            Some(other) => Err(format!("`subnet6` is {other}, not of IPv6")),
        }
    }

    fn net(self, key: &str) -> Result<Option<IpNet>, String> {
        let Some(text) = self.text(key)?.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let net: IpNet = text
            .parse()
            .map_err(|_| format!("`{key}` is `{text}`, no address/prefix"))?;
        if net.trunc() == net {
            Ok(Some(net))
        } else {
            Err(format!(
                "`{key}` is {net}, with host bits (accepted: {})",
                net.trunc()
            ))
        }
    }

    fn ips_asked_for(self) -> Result<Vec<IpAddr>, String> {
        let mut ips = self.object("args")?.object("cni")?.ips("ips")?;
        ips.extend(self.object("runtimeConfig")?.ips("ips")?);
        Ok(ips)
    }

    /// Addresses, with or without a prefix length.
    fn ips(self, key: &str) -> Result<Vec<IpAddr>, String> {
        let list = self.list(key)?.unwrap_or_default();
        let address = |value: &Value| {
            let text = value.as_str();
            let parsed = text.and_then(|text| text.split('/').next()?.parse().ok());
            parsed.ok_or_else(|| format!("`{key}` has {value}, no IP address"))
        };
        list.iter().map(address).collect()
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    fn read(more: Value) -> Result<Config, String> {
        read_for(Command::Add, more)
    }

    fn read_for(command: Command, more: Value) -> Result<Config, String> {
        let mut object = json!({ "cniVersion": "1.0.0", "name": "silk", "type": "silk-vtep-cni" });
        let more = more.as_object().cloned().unwrap_or_default();
        object.as_object_mut().expect("an object").extend(more);
        Config::read(object.to_string().as_bytes(), command).map_err(|(error, _)| error.text())
    }

    #[test]
    fn silks_configuration_is_understood() {
        let config = read(json!({
            "daemonPort": 23954, "dataDir": "/var/vcap/data/host-local", "datastore": "/var/vcap/data/silk/store.json", "mtu": 0,
            "unknown": { "keys": ["are", "passed", "over"] },
        }))
        .expect("it is Silk's");
        assert_eq!(config.daemon.port, Some(23954));
        assert_eq!(config.daemon.socket, None);
        assert_eq!(config.mtu_bytes, None);
        assert_eq!(
            config.ipam_dir(),
            Path::new("/var/vcap/data/host-local/ipam")
        );
        assert_eq!(config.store, Path::new("/var/vcap/data/silk/store.json"));
    }

    #[test]
    fn everything_has_a_default() {
        let config = read(json!({})).expect("nothing more is needed");
        let socket = Some(PathBuf::from("/run/silk-vtep/silk-vtep.sock"));
        assert_eq!(config.daemon, DaemonAddress { port: None, socket });
        assert_eq!(config.store, Path::new("/run/silk-vtep/cni/store.json"));
    }

    #[test]
    fn keys_are_found_in_any_case_and_the_exact_one_first() {
        let config =
            read(json!({ "MTU": 1300, "DAEMONPORT": 1, "daemonport": 2, "daemonPort": 3 }))
                .expect("Go takes it");
        assert_eq!(config.mtu_bytes, Some(1300));
        assert_eq!(config.daemon.port, Some(3));
    }

    #[test]
    fn addresses_are_gathered_from_both_places() {
        let config = read(json!({
            "args": { "cni": { "ips": ["10.255.1.5"] } },
            "runtimeConfig": { "ips": ["10.255.1.6/24", "fd00::6"], "portMappings": [] },
        }));
        let ips: Vec<_> = config
            .expect("right")
            .ips
            .iter()
            .map(IpAddr::to_string)
            .collect();
        assert_eq!(ips, ["10.255.1.5", "10.255.1.6", "fd00::6"]);
    }

    #[test]
    fn a_list_of_attachments_is_whole_or_none() {
        let valid = |more: Value| {
            let config = read(more).expect("other commands do not mind");
            config.valid_attachments().map_err(|error| error.text())
        };
        let key = VALID_ATTACHMENTS;
        let right = valid(json!({ key: [{ "containerID": "c1", "ifname": "eth0" }] }));
        assert_eq!(right, Ok(vec![("c1".to_owned(), "eth0".to_owned())]));
        assert_eq!(valid(json!({ key: [] })), Ok(vec![]));
        for (more, said) in [
            (json!({}), "is missing"),
            (json!({ key: {} }), "not a list"),
            (
                json!({ key: [{ "ifname": "eth0" }] }),
                "without `containerID`",
            ),
        ] {
            assert!(valid(more).expect_err(said).contains(said));
        }
    }

    #[test]
    fn an_ipv6_address_ends_with_the_ipv4_one() {
        let config = read(json!({ "subnet6": "fd00:a:0:6c::/64" })).expect("right");
        let address = config.address_v6(Ipv4Addr::new(10, 255, 108, 184));
        assert_eq!(address, "fd00:a:0:6c::aff:6cb8".parse().ok());
    }

    #[test]
    fn what_takes_away_goes_by_the_records_alone() {
        for command in [Command::Del, Command::Gc] {
            let config = read_for(
                command,
                json!({
                    "mtu": "big", "subnet": 7, "subnet6": "10.0.0.0/8", "args": [], "runtimeConfig": { "ips": "x" },
                    "socket": "s", "daemonPort": -1, "dataDir": "/data", "datastore": "/data/s.json",
                }),
            )
            .expect("the records can be found");
            let daemon = DaemonAddress {
                port: None,
                socket: None,
            };
            assert_eq!(config.daemon, daemon);
            assert_eq!(config.ipam_dir(), Path::new("/data/ipam"));
            assert_eq!(config.store, Path::new("/data/s.json"));
            // Elsewhere there would be nothing to take away, and the container would stay.
            for key in ["dataDir", "datastore"] {
                let error = read_for(command, json!({ key: "data" })).expect_err(key);
                assert!(error.contains(key), "{error}");
            }
        }
    }

    #[test]
    fn a_daemon_is_told_whichever_word_for_it_is_wrong() {
        let socket = |more| read_for(Command::Del, more).map(|config| config.daemon.socket);
        let ours = PathBuf::from("/run/x.sock");
        let given = json!({ "socket": ours, "daemonPort": 70_000 });
        assert_eq!(socket(given), Ok(Some(ours)));
        assert_eq!(socket(json!({ "daemonPort": 70_000 })), Ok(None));
    }

    #[test]
    fn wrong_values_are_named() {
        for (more, said) in [
            (json!({ "mtu": -1 }), "`mtu` is -1"),
            (json!({ "mtu": 1410.5 }), "`mtu` is 1410.5"),
            (json!({ "mtu": 60 }), "`mtu` is 60 (accepted: 68 to 65535"),
            (
                json!({ "daemonPort": "23954" }),
                "`daemonPort` is \"23954\"",
            ),
            (json!({ "socket": 7 }), "`socket` is a number, not a string"),
            (
                json!({ "socket": "s" }),
                "`socket` is `s`, no absolute path",
            ),
            (
                json!({ "dataDir": "data" }),
                "`dataDir` is `data`, no absolute path",
            ),
            (
                json!({ "datastore": "./store.json" }),
                "`datastore` is `./store.json`, no absolute path",
            ),
            (
                json!({ "subnet": "10.255.1.5/24" }),
                "with host bits (accepted: 10.255.1.0/24)",
            ),
            (json!({ "subnet": "fd00::/64" }), "not of IPv4"),
            (json!({ "subnet6": "10.0.0.0/8" }), "not of IPv6"),
            (json!({ "subnet6": "fd00::/97" }), "/96 or shorter"),
            (json!({ "args": [] }), "`args` is a list, not an object"),
            (json!({ "args": { "cni": { "ips": [7] } } }), "`ips` has 7"),
            (
                json!({ "runtimeConfig": { "ips": "10.0.0.1" } }),
                "`ips` is a string, not a list",
            ),
        ] {
            let error = read(more.clone()).expect_err("it is wrong");
            assert!(error.contains(said), "{more}: {error}");
        }
    }
}

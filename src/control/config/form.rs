//! The forms a single value may have: how it is read, and what an error says is accepted.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use toml::de::DeValue;

use super::unicast::not_unicast;
use super::{Bind, MAX_LANES, Marks};
use crate::tables::policy::{Action, Ports, Proto};
use crate::tables::{Df, OuterField};
use crate::wire::{Ecn, GroupId, MacAddr, Mark, Vni};

/// One form. What `read` returns as an error says what was found.
pub(super) struct Form<T> {
    pub(super) accepted: &'static str,
    pub(super) read: fn(&DeValue<'_>) -> Result<T, String>,
}

pub(super) const NAME: Form<String> = Form {
    accepted: "an interface name of 1 to 15 printable ASCII characters but `/`, `:` and `%`, and none of `.`, `..`, `all` and `default`",
    read: name,
};

pub(super) const VNI: Form<Vni> = Form {
    accepted: "an integer from 0 to 16777215 (2^24-1)",
    read: |value| Vni::new(integer(value, 0..=u32::MAX)?).map_err(|_| found(value)),
};

pub(super) const PORT: Form<u16> = Form {
    accepted: "an integer from 1 to 65535",
    read: |value| integer(value, 1..=u16::MAX),
};

pub(super) const UNDERLAY: Form<IpAddr> = Form {
    accepted: "a unicast underlay address such as \"10.0.32.12\" or \"2001:db8::1\"",
    read: underlay,
};

pub(super) const OVERLAY_ADDRESS: Form<IpAddr> = Form {
    accepted: "a unicast overlay address such as \"10.255.108.0\", or a list of one for each family",
    read: address,
};

pub(super) const CONTAINER: Form<IpAddr> = Form {
    accepted: "a container's unicast address such as \"10.255.108.184\"",
    read: address,
};

pub(super) const OVERLAY: Form<IpNet> = Form {
    accepted: "a prefix without host bits such as \"10.255.0.0/16\", or a list of them",
    read: overlay,
};

pub(super) const SUBNET: Form<IpNet> = Form {
    accepted: "a prefix such as \"10.255.43.0/24\", or a list of one for each family",
    read: subnet,
};

pub(super) const PREFIX_LENGTH: Form<u8> = Form {
    accepted: "an integer from 1 to 32",
    read: |value| integer(value, 1..=32),
};

pub(super) const MAC: Form<MacAddr> = Form {
    accepted: "a unicast MAC address such as \"ee:ee:0a:ff:2b:00\"",
    read: mac,
};

/// 576 is what every IPv4 host takes (RFC 791); 65485 with the tunnel's 50 bytes fills the largest IPv4 packet.
pub(super) const MTU: Form<u32> = Form {
    accepted: "an integer from 576 to 65485, and no more than the underlay carries",
    read: |value| integer(value, 576..=65485),
};

pub(super) const LANES: Form<usize> = Form {
    accepted: "an integer from 0 to 256 (0: one lane for each core)",
    read: |value| integer(value, 0..=MAX_LANES),
};

pub(super) const BOOL: Form<bool> = Form {
    accepted: "true or false",
    read: |value| value.as_bool().ok_or_else(|| found(value)),
};

pub(super) const MARKS: Form<Marks> = Form {
    accepted: "\"auto\", \"bpf\", \"table\" or \"off\"",
    read: |value| match text(value)? {
        "auto" => Ok(Marks::Auto),
        "bpf" => Ok(Marks::Bpf),
        "table" => Ok(Marks::Table),
        "off" => Ok(Marks::Off),
        _ => Err(found(value)),
    },
};

pub(super) const TTL: Form<OuterField> = Form {
    accepted: "an integer from 1 to 255, or \"inherit\"",
    read: |value| outer_field(value, 1..=u8::MAX),
};

pub(super) const TOS: Form<OuterField> = Form {
    accepted: "a multiple of 4 from 0 to 252 (the two ECN bits come from the inner packet), or \"inherit\"",
    read: |value| match outer_field(value, 0..=u8::MAX)? {
        OuterField::Fixed(tos) if tos & Ecn::MASK != 0 => {
            Err(found_but(value, "it has ECN bits set"))
        }
        field => Ok(field),
    },
};

pub(super) const DF: Form<Df> = Form {
    accepted: "\"unset\", \"set\" or \"inherit\"",
    read: |value| match text(value)? {
        "unset" => Ok(Df::Unset),
        "set" => Ok(Df::Set),
        "inherit" => Ok(Df::Inherit),
        _ => Err(found(value)),
    },
};

pub(super) const SOURCE_PORTS: Form<(u16, u16)> = Form {
    accepted: "two ports [min, max], min from 1 and less than max, max to 65535 and itself never used",
    read: source_ports,
};

pub(super) const BIND: Form<Bind> = Form {
    accepted: "\"any\" or \"local\"",
    read: |value| match text(value)? {
        "any" => Ok(Bind::Any),
        "local" => Ok(Bind::Local),
        _ => Err(found(value)),
    },
};

pub(super) const STATE_DIR: Form<PathBuf> = Form {
    accepted: "the path of a directory",
    read: |value| match text(value)? {
        path if path.is_empty() || path.contains('\0') => Err(found(value)),
        path => Ok(PathBuf::from(path)),
    },
};

pub(super) const FILE: Form<PathBuf> = Form {
    accepted: "the path of a file",
    read: STATE_DIR.read,
};

/// Where to listen; port 0 would be another at every start.
pub(super) const LISTEN: Form<SocketAddr> = Form {
    accepted: "an address and a port such as \"127.0.0.1:23954\" or \"[::1]:23954\"",
    read: |value| match text(value)?.parse() {
        Ok(address) if SocketAddr::port(&address) != 0 => Ok(address),
        _ => Err(found(value)),
    },
};

pub(super) const BUSY_POLL: Form<u32> = Form {
    accepted: "microseconds, an integer from 0 (not at all) to 100000",
    read: |value| integer(value, 0..=100_000),
};

pub(super) const MODERATION: Form<u32> = Form {
    accepted: "microseconds, an integer from 0 (not at all) to 1000",
    read: |value| integer(value, 0..=1000),
};

/// 1024 CPUs is what a `cpu_set_t` holds (CPU_SETSIZE).
pub(super) const CPU: Form<usize> = Form {
    accepted: "an integer from 0 to 1023, or a list of them",
    read: |value| integer(value, 0..=1023),
};

pub(super) const GROUP_ID: Form<GroupId> = Form {
    accepted: "an integer from 1 to 65535 (0xffff)",
    read: |value| integer(value, 1..=u16::MAX).map(GroupId),
};

pub(super) const POLICY_DESTINATION: Form<IpNet> = Form {
    accepted: "an address or a prefix without host bits such as \"10.255.108.184\" or \"10.255.108.0/24\"",
    read: destination,
};

pub(super) const PROTO: Form<Proto> = Form {
    accepted: "\"tcp\", \"udp\" or \"icmp\" (which is ICMPv6 for IPv6)",
    read: |value| Proto::of_name(text(value)?).ok_or_else(|| found(value)),
};

pub(super) const PORTS: Form<Ports> = Form {
    accepted: "a port or two with a dash such as \"8080\" or \"8080-8090\", lowest first, of 1 to 65535",
    read: |value| match value.as_integer() {
        Some(_) => {
            let port = integer(value, 1..=u16::MAX)?;
            Ports::new(port, port).ok_or_else(|| found(value))
        }
        None => (text(value)?.parse()).map_err(|_| found(value)),
    },
};

pub(super) const ACTION: Form<Action> = Form {
    accepted: "\"accept\" or \"deny\"",
    read: |value| match text(value)? {
        "accept" => Ok(Action::Accept),
        "deny" => Ok(Action::Deny),
        _ => Err(found(value)),
    },
};

pub(super) const DEFAULT_ACTION: Form<Action> = Form {
    accepted: "\"deny\" or \"allow\"",
    read: |value| match text(value)? {
        "allow" => Ok(Action::Accept),
        "deny" => Ok(Action::Deny),
        _ => Err(found(value)),
    },
};

pub(super) const ROUTER_MARK: Form<Mark> = Form {
    accepted: "a mark of 32 bits such as 0xffff0000, of which a VXLAN header carries something (bits 0 to 15, 19 and 22)",
    read: |value| match integer(value, 1..=u32::MAX).map(Mark)? {
        mark if mark.carried() == Mark::NONE => Err(found_but(
            value,
            "a VXLAN header carries nothing of it: it would be everybody's without a group",
        )),
        mark => Ok(mark),
    },
};

pub(super) const LOG_RATE: Form<u32> = Form {
    accepted: "lines a second, an integer from 0 (none) to 1000",
    read: |value| integer(value, 0..=1000),
};

/// 16 million entries are a gigabyte.
pub(super) const FLOWS: Form<usize> = Form {
    accepted: "entries, an integer from 64 to 16777216",
    read: |value| integer(value, 64..=1 << 24),
};

pub(super) const TIMEOUT: Form<u32> = Form {
    accepted: "seconds, an integer from 1 to 31536000 (a year)",
    read: |value| integer(value, 1..=31_536_000),
};

/// Whether a TAP may be called so: `dev_valid_name` in the kernel, less the `%` that makes a pattern of a name, and the two names sysctl
/// keeps for itself.
#[must_use]
pub fn is_link_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%');
    let taken = matches!(name, "." | ".." | "all" | "default");
    (1..=15).contains(&name.len()) && name.bytes().all(legal) && !taken
}

fn name(value: &DeValue<'_>) -> Result<String, String> {
    match text(value)? {
        name if is_link_name(name) => Ok(name.to_owned()),
        _ => Err(found(value)),
    }
}

fn underlay(value: &DeValue<'_>) -> Result<IpAddr, String> {
    match address(value)? {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Err(found_but(
            value,
            "a link-local address needs an interface with it",
        )),
        address => Ok(address),
    }
}

fn address(value: &DeValue<'_>) -> Result<IpAddr, String> {
    let address = text(value)?.parse().map_err(|_| found(value))?;
    unicast(value, address)
}

fn subnet(value: &DeValue<'_>) -> Result<IpNet, String> {
    let net: IpNet = text(value)?.parse().map_err(|_| found(value))?;
    unicast(value, net.addr())?;
    Ok(net)
}

fn unicast(value: &DeValue<'_>, address: IpAddr) -> Result<IpAddr, String> {
    match not_unicast(address) {
        Some(what) => Err(found_but(value, &format!("this is {what}"))),
        None => Ok(address),
    }
}

fn overlay(value: &DeValue<'_>) -> Result<IpNet, String> {
    let net: IpNet = text(value)?.parse().map_err(|_| found(value))?;
    if net != net.trunc() {
        let wrong = format!("it has host bits set (without them: {})", net.trunc());
        return Err(found_but(value, &wrong));
    }
    let overlaps = |other: &&(IpNet, &str)| net.contains(&other.0) || other.0.contains(&net);
    match NEVER_OVERLAY.iter().find(overlaps) {
        Some((other, what)) => Err(found_but(value, &format!("it overlaps {other}, {what}"))),
        None => Ok(net),
    }
}

/// What no overlay may hold. Link-local is where our dummy next hop and the containers' gateway are.
const NEVER_OVERLAY: [(IpNet, &str); 7] = [
    (v4([169, 254, 0, 0], 16), "which is link-local"),
    (v4([127, 0, 0, 0], 8), "which is loopback"),
    (v4([224, 0, 0, 0], 4), "which is multicast"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "which is link-local"),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 127), "which is loopback"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "which is multicast"),
    (v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96), "which is IPv4"),
];

const fn v4(octets: [u8; 4], prefix_len: u8) -> IpNet {
    let [a, b, c, d] = octets;
    IpNet::V4(Ipv4Net::new_assert(
        std::net::Ipv4Addr::new(a, b, c, d),
        prefix_len,
    ))
}

const fn v6(segments: [u16; 8], prefix_len: u8) -> IpNet {
    let [a, b, c, d, e, f, g, h] = segments;
    IpNet::V6(Ipv6Net::new_assert(
        std::net::Ipv6Addr::new(a, b, c, d, e, f, g, h),
        prefix_len,
    ))
}

fn destination(value: &DeValue<'_>) -> Result<IpNet, String> {
    let text = text(value)?;
    if let Ok(address) = text.parse() {
        return unicast(value, address).map(IpNet::from);
    }
    let net: IpNet = text.parse().map_err(|_| found(value))?;
    if net != net.trunc() {
        let wrong = format!("it has host bits set (without them: {})", net.trunc());
        return Err(found_but(value, &wrong));
    }
    Ok(net)
}

fn mac(value: &DeValue<'_>) -> Result<MacAddr, String> {
    let mac: MacAddr = text(value)?.parse().map_err(|_| found(value))?;
    match mac {
        MacAddr::ZERO => Err(found_but(value, "this is the zero address")),
        _ if mac.is_multicast() => Err(found_but(value, "this is multicast")),
        _ => Ok(mac),
    }
}

fn source_ports(value: &DeValue<'_>) -> Result<(u16, u16), String> {
    let ports = value.as_array().ok_or_else(|| found(value))?;
    let mut numbers = ports
        .iter()
        .map(|port| integer(port.get_ref(), 1..=u16::MAX));
    match (numbers.next(), numbers.next(), numbers.next()) {
        (Some(Ok(min)), Some(Ok(max)), None) if min < max => Ok((min, max)),
        _ => Err(found(value)),
    }
}

fn outer_field(value: &DeValue<'_>, range: RangeInclusive<u8>) -> Result<OuterField, String> {
    match value.as_str() {
        Some("inherit") => Ok(OuterField::Inherit),
        _ => integer(value, range).map(OuterField::Fixed),
    }
}

fn text<'a>(value: &'a DeValue<'_>) -> Result<&'a str, String> {
    value.as_str().ok_or_else(|| found(value))
}

fn integer<T>(value: &DeValue<'_>, range: RangeInclusive<T>) -> Result<T, String>
where
    T: TryFrom<i64> + PartialOrd,
{
    value
        .as_integer()
        .and_then(|digits| i64::from_str_radix(digits.as_str(), digits.radix()).ok())
        .and_then(|number| T::try_from(number).ok())
        .filter(|number| range.contains(number))
        .ok_or_else(|| found(value))
}

fn found_but(value: &DeValue<'_>, wrong: &str) -> String {
    format!("{}, but {wrong}", found(value))
}

/// What is there, on one line and not too long.
pub(super) fn found(value: &DeValue<'_>) -> String {
    let shown = match value {
        DeValue::Array(items) => {
            let mut shown: Vec<String> = items
                .iter()
                .take(SHOWN_ITEMS)
                .map(|item| scalar(item.get_ref()))
                .collect();
            if items.len() > SHOWN_ITEMS {
                shown.push("...".to_owned());
            }
            format!("[{}]", shown.join(", "))
        }
        other => scalar(other),
    };
    format!("found {shown}")
}

/// A key as TOML would have it, on one line and not too long.
pub(super) fn quote_key(key: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if !key.is_empty() && key.bytes().all(bare) {
        cut(key)
    } else {
        quote(key)
    }
}

/// How much of a list an error shows.
const SHOWN_ITEMS: usize = 4;
/// How many characters of a text an error shows.
const SHOWN_CHARS: usize = 60;

fn scalar(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quote(text),
        DeValue::Integer(number) => cut(&number.to_string()),
        DeValue::Float(number) => cut(number.as_str()),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// A text as TOML would have it, on one line and not too long.
pub(super) fn quote(text: &str) -> String {
    format!("{:?}", cut(text))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

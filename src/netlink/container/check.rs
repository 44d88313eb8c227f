//! How far a container's wiring is from what was made.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::end::End;
use super::{ContainerLinks, ContainerSpec, source};
use crate::error::SetupError;
use crate::netlink::address::Address;
use crate::netlink::error::NetlinkError;
use crate::netlink::link::{Link, LinkKind, gso_max_bytes};
use crate::netlink::route::{Route, RouteFilter};
use crate::netlink::socket::Netlink;
use crate::wire::MacAddr;

/// Something that is not as [`add`](super::add) made it. `link` is the name of the end it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // Each variant's fields are what its text says.
pub enum Deviation {
    /// There is no such link.
    NoLink { link: String },
    /// It is no veth.
    NoVeth { link: String },
    /// The two ends belong to different pairs.
    NoPair { host: String, container: String },
    /// It is down.
    Down { link: String },
    /// It is up and has no carrier.
    NoCarrier { link: String },
    /// It asks for neighbours.
    Arp { link: String },
    /// It has another MAC.
    Mac {
        link: String,
        found: Option<MacAddr>,
        made: MacAddr,
    },
    /// It has another MTU.
    Mtu { link: String, found: u32, made: u32 },
    /// It says that it is somebody else's, or nobody's.
    Alias {
        link: String,
        found: Option<String>,
        made: String,
    },
    /// It takes super-frames of another size.
    GsoMaxSegs { link: String, found: u32, made: u32 },
    /// It takes super-frames of another size in bytes.
    GsoMaxBytes { link: String, found: u32, made: u32 },
    /// An address is missing.
    NoAddress { link: String, address: IpAddr },
    /// The other end is not known, or not for good.
    NoNeighbor {
        link: String,
        address: IpAddr,
        mac: MacAddr,
    },
    /// The other end is known by another MAC.
    NeighborMac {
        link: String,
        address: IpAddr,
        found: MacAddr,
        made: MacAddr,
    },
    /// A route is missing, or leads elsewhere.
    NoRoute { link: String, destination: IpNet },
    /// The program is missing that keeps the container to its IPv6 address.
    NoSourceProgram { link: String },
    /// A switch stands the other way.
    Sysctl {
        path: String,
        found: String,
        made: &'static str,
    },
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLink { link } => write!(f, "link {link} is missing"),
            Self::NoVeth { link } => write!(f, "link {link} is no veth"),
            Self::NoPair { host, container } => {
                write!(f, "{container} is not the other end of {host}")
            }
            Self::Down { link } => write!(f, "{link} is down"),
            Self::NoCarrier { link } => write!(f, "{link} has no carrier"),
            Self::Arp { link } => write!(f, "{link} is not NOARP"),
            Self::Mac { link, found, made } => match found {
                Some(found) => write!(f, "{link} has MAC {found}, not {made}"),
                None => write!(f, "{link} has no MAC, not {made}"),
            },
            Self::Mtu { link, found, made } => write!(f, "{link} has MTU {found}, not {made}"),
            Self::Alias { link, found, made } => match found {
                Some(found) => write!(f, "{link} has alias {found}, not {made}"),
                None => write!(f, "{link} has no alias, not {made}"),
            },
            Self::GsoMaxSegs { link, found, made } => {
                write!(f, "{link} has gso_max_segs {found}, not {made}")
            }
            Self::GsoMaxBytes { link, found, made } => {
                write!(f, "{link} has gso_max_size {found}, not {made}")
            }
            Self::NoAddress { link, address } => write!(f, "{link} lacks address {address}"),
            Self::NoNeighbor { link, address, mac } => {
                write!(f, "{link} lacks permanent neighbor {address} lladdr {mac}")
            }
            Self::NeighborMac {
                link,
                address,
                found,
                made,
            } => write!(
                f,
                "{link} has neighbor {address} lladdr {found}, not {made}"
            ),
            Self::NoRoute { link, destination } => match destination.prefix_len() {
                0 => write!(
                    f,
                    "{link} lacks the default route of {}",
                    family(destination)
                ),
                _ => write!(f, "{link} lacks route {destination}"),
            },
            Self::NoSourceProgram { link } => write!(
                f,
                "{link} lacks the program that keeps the container to its own IPv6 address"
            ),
            Self::Sysctl { path, found, made } => {
                write!(f, "{} is {found}, not {made}", path.replace('/', "."))
            }
        }
    }
}

fn family(net: &IpNet) -> &'static str {
    match net {
        IpNet::V4(_) => "IPv4",
        IpNet::V6(_) => "IPv6",
    }
}

/// Everything in the calling thread's namespace and the container's that is not as [`add`](super::add) makes it for `spec`, with the MACs
/// of `links`; the alias if `spec` has one. Empty if all is well. More of everything, as chained plugins add it, is no deviation.
///
/// # Errors
/// If the kernel does not answer.
pub fn check(spec: &ContainerSpec, links: &ContainerLinks) -> Result<Vec<Deviation>, SetupError> {
    let (host, container) = End::both(spec, links);
    let mut netlink = Netlink::open()?;
    let mut deviations = Vec::new();
    let host_link = find(&mut netlink, &host, spec, &mut deviations)?;
    let (link, inside) = spec.namespace.run(|| {
        let mut inside = Netlink::open()?;
        let mut deviations = Vec::new();
        let link = find(&mut inside, &container, spec, &mut deviations)?;
        Ok::<_, SetupError>((link, deviations))
    })??;
    deviations.extend(inside);
    if let (Some(host), Some(container)) = (&host_link, &link)
        && (host.tied_to, container.tied_to) != (Some(container.index), Some(host.index))
    {
        deviations.push(Deviation::NoPair {
            host: host.name.clone(),
            container: container.name.clone(),
        });
    }
    if let (Some(link), Some(made)) = (&link, spec.gso_max_segs) {
        deviations.extend(of_super_frames(link, made, spec.mtu_bytes));
    }
    if let (Some(link), Some(_)) = (&host_link, spec.address_v6)
        && !source::is_kept(&mut netlink, link.index, &link.name)?
    {
        deviations.push(Deviation::NoSourceProgram {
            link: link.name.clone(),
        });
    }
    for (path, made) in host.host_sysctls() {
        deviations.extend(sysctl(&netlink, path, made));
    }
    Ok(deviations)
}

/// A kernel that does not tell a limit has none that could be set.
fn of_super_frames(link: &Link, segments: u32, mtu_bytes: u32) -> Vec<Deviation> {
    let name = || link.name.clone();
    let bytes = gso_max_bytes(segments, mtu_bytes);
    let segments = match link.gso_max_segs {
        Some(found) if found != segments => Some(Deviation::GsoMaxSegs {
            link: name(),
            found,
            made: segments,
        }),
        Some(_) | None => None,
    };
    let bytes = match link.gso_max_bytes {
        Some(found) if found != bytes => Some(Deviation::GsoMaxBytes {
            link: name(),
            found,
            made: bytes,
        }),
        Some(_) | None => None,
    };
    segments.into_iter().chain(bytes).collect()
}

/// The end's link, if it is a veth; what is wrong with the end goes to `deviations`.
fn find(
    netlink: &mut Netlink,
    end: &End<'_>,
    spec: &ContainerSpec,
    deviations: &mut Vec<Deviation>,
) -> Result<Option<Link>, SetupError> {
    let failed = |error: NetlinkError| {
        error.setup_step("check container", &spec.address.to_string(), end.name)
    };
    let link = end.name.to_owned();
    let found = match netlink.link_named(end.name).map_err(failed)? {
        None => {
            deviations.push(Deviation::NoLink { link });
            return Ok(None);
        }
        Some(found) if found.kind != LinkKind::Veth => {
            deviations.push(Deviation::NoVeth { link });
            return Ok(None);
        }
        Some(found) => found,
    };
    deviations.extend(of_link(&found, end, spec));
    for of_table in [of_addresses, of_neighbors, of_routes] {
        deviations.extend(of_table(netlink, end, found.index).map_err(failed)?);
    }
    let sysctls = end.sysctls().into_iter();
    deviations.extend(sysctls.filter_map(|(path, made)| sysctl(netlink, &path, made)));
    Ok(Some(found))
}

fn of_addresses(
    netlink: &mut Netlink,
    end: &End<'_>,
    index: u32,
) -> Result<Vec<Deviation>, NetlinkError> {
    let key = |address: &Address| (address.local, address.peer, address.prefix_len);
    let have: Vec<_> = netlink.addresses(Some(index))?.iter().map(key).collect();
    let mut made = end.addresses(index);
    made.retain(|made| !have.contains(&key(made)));
    let missing = made.into_iter().map(|made| Deviation::NoAddress {
        link: end.name.to_owned(),
        address: made.local,
    });
    Ok(missing.collect())
}

fn of_neighbors(
    netlink: &mut Netlink,
    end: &End<'_>,
    index: u32,
) -> Result<Vec<Deviation>, NetlinkError> {
    let have = netlink.neighbors(Some(index))?;
    let wrong = end.neighbors(index).into_iter().filter_map(|made| {
        let known = have
            .iter()
            .find(|have| have.permanent && have.address == made.address);
        let (link, address) = (end.name.to_owned(), made.address);
        let mac = made.mac?;
        match known.and_then(|known| known.mac) {
            Some(found) if found == mac => None,
            Some(found) => Some(Deviation::NeighborMac {
                link,
                address,
                found,
                made: mac,
            }),
            None => Some(Deviation::NoNeighbor { link, address, mac }),
        }
    });
    Ok(wrong.collect())
}

/// The source address and the metric are others' to choose.
fn of_routes(
    netlink: &mut Netlink,
    end: &End<'_>,
    index: u32,
) -> Result<Vec<Deviation>, NetlinkError> {
    let filter = RouteFilter {
        interface: Some(index),
        ..RouteFilter::default()
    };
    let key = |route: &Route| (route.kind, route.destination, route.gateway);
    let have: Vec<_> = netlink.routes(filter)?.iter().map(key).collect();
    let made = end.routes(index).into_iter().chain([end.connected(index)]);
    let missing = made
        .filter(|made| !have.contains(&key(made)))
        .map(|made| Deviation::NoRoute {
            link: end.name.to_owned(),
            destination: made.destination,
        });
    Ok(missing.collect())
}

fn of_link(link: &Link, end: &End<'_>, spec: &ContainerSpec) -> Vec<Deviation> {
    let name = || link.name.clone();
    let up = link.flags.is_up();
    let wrong = [
        (!up).then(|| Deviation::Down { link: name() }),
        (up && !link.flags.is_running()).then(|| Deviation::NoCarrier { link: name() }),
        (!link.flags.is_noarp()).then(|| Deviation::Arp { link: name() }),
        (link.mac != Some(end.mac())).then(|| Deviation::Mac {
            link: name(),
            found: link.mac,
            made: end.mac(),
        }),
        (link.mtu_bytes != spec.mtu_bytes).then(|| Deviation::Mtu {
            link: name(),
            found: link.mtu_bytes,
            made: spec.mtu_bytes,
        }),
        end.alias
            .filter(|made| link.alias.as_deref() != Some(*made))
            .map(|made| Deviation::Alias {
                link: name(),
                found: link.alias.clone(),
                made: made.to_owned(),
            }),
    ];
    wrong.into_iter().flatten().collect()
}

/// A kernel without IPv6 lacks the switches that keep it off.
fn sysctl(netlink: &Netlink, path: &str, made: &'static str) -> Option<Deviation> {
    let found = match netlink.namespace().sysctl(path) {
        Ok(found) => found,
        Err(_) if path.ends_with("/disable_ipv6") && made == "1" => return None,
        Err(error) => error.cause,
    };
    (found != made).then(|| Deviation::Sysctl {
        path: path.to_owned(),
        found,
        made,
    })
}

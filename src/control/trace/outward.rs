//! From the overlay: what becomes of a packet that the host gives to the TAP.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use super::{Line, Stage, Trace, TraceRequest, View, Walk, Way, header_words};
use crate::control::Verdict;
use crate::control::protocol::Failure;
use crate::drop_reason::DropReason;
use crate::io::source_ports::pick;
use crate::tables::{Destination, MarkSource};
use crate::vtep::{self, Egress, Encap, Fate};
use crate::wire::{MacAddr, Mark};

pub(super) fn walk(view: &View<'_>, request: &TraceRequest) -> Result<Trace, Failure> {
    let local = &view.tables.local;
    check_fits(view, request)?;
    let (mark, mark_says) = host_mark(view, request)?;
    let mac = destination_mac(view, request)?;
    let frame = request.frame(mac, local.mac);
    let judged = vtep::egress(view.tables, &frame, mark);
    let mut walk = Walk::new(reason_of(&judged, &frame));
    walk.step(Stage::Packet, || {
        let says = format!("{request}, from the host to {}", view.vtep.name);
        (says, Vec::new())
    });
    let is_routed = mac == local.mac && local.routing;
    let mac = if is_routed {
        route(view, request, &mut walk)
    } else {
        Some(mac)
    };
    // A walk that has no MAC has ended.
    walk.step(Stage::Fdb, || fdb(view, mac.unwrap_or_default(), is_routed));
    walk.step(Stage::Source, || {
        (source(view, request, &judged), Vec::new())
    });
    walk.step(Stage::Group, || {
        let line = match local.marks {
            MarkSource::Table if local.gbp => view.group(request.src),
            MarkSource::Table | MarkSource::Packet | MarkSource::Off => None,
        };
        (mark_says, line.into_iter().collect())
    });
    if let Some(encap) = encap_of(&judged) {
        walk.step(Stage::Outer, || (outer(view, encap), Vec::new()));
    }
    walk.step(Stage::Mtu, || (mtu(view, request, &judged), Vec::new()));
    Ok(Trace {
        ifname: view.vtep.name.clone(),
        steps: walk.steps,
        verdict: verdict(&judged, &frame),
        way: way(view, &judged),
    })
}

/// What does not fit the device the host never gives it.
fn check_fits(view: &View<'_>, request: &TraceRequest) -> Result<(), Failure> {
    let (len, mtu) = (request.len(), view.sending.mtu_bytes);
    if len <= mtu as usize {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{len} bytes do not fit {} (mtu {mtu}): the host fragments such a packet or refuses it, and the daemon never sees it",
        view.vtep.name
    )))
}

/// The mark that the lane has read with the packet, and what is to be said of it.
fn host_mark(view: &View<'_>, request: &TraceRequest) -> Result<(Mark, String), Failure> {
    let local = &view.tables.local;
    let given = request.mark();
    let useless = |why: &str| {
        let told = format!("{why}: leave `--group` and `--mark` out");
        given.map_or(Ok(()), |_| Err(Failure::new(told)))
    };
    if !local.gbp {
        useless("no group is carried (gbp = false)")?;
        return Ok((Mark::NONE, "none is carried (gbp = false)".to_owned()));
    }
    let says = match local.marks {
        MarkSource::Table => {
            useless("the group table says who is speaking (marks = \"table\")")?;
            match view.tables.groups.lookup(request.src) {
                Some(id) => format!("group {id}, by the source address"),
                None => format!("{} has no entry: no group", request.src),
            }
        }
        MarkSource::Off => {
            useless("no group is sent (marks = \"off\")")?;
            "none is sent (marks = \"off\")".to_owned()
        }
        MarkSource::Packet if !view.sending.mark_tags.are_on() => {
            useless("marks do not cross the TAP now: its tc programs are not attached")?;
            "no group: the tc programs that carry marks are not attached".to_owned()
        }
        MarkSource::Packet => match given {
            None | Some(Mark::NONE) => "the packet has no mark: no group".to_owned(),
            Some(mark) => format!(
                "the packet's own mark {:#x}: {}",
                mark.0,
                header_words(Some(mark))
            ),
        },
    };
    Ok((given.unwrap_or(Mark::NONE), says))
}

/// Routed, the host addresses its frames to the VTEP; else it has resolved the MAC itself.
fn destination_mac(view: &View<'_>, request: &TraceRequest) -> Result<MacAddr, Failure> {
    let local = &view.tables.local;
    match request.mac {
        Some(mac) => Ok(mac),
        None if local.routing => Ok(local.mac),
        None => view.tables.neighbors.lookup(request.dst).ok_or_else(|| {
            Failure::new(format!(
                "which MAC the host has for {} only the host knows (routing = false): give it with `--mac`",
                request.dst
            ))
        }),
    }
}

/// Destination, route and neighbour: the MAC that comes of it, or none, and then the walk has ended.
fn route(view: &View<'_>, request: &TraceRequest, walk: &mut Walk) -> Option<MacAddr> {
    let tables = view.tables;
    let dst = request.dst;
    walk.step(Stage::Destination, || {
        let own = tables.local.subnets.iter();
        let own = own.copied().find(|subnet| subnet.contains(&dst));
        let says = match own {
            Some(_) if tables.containers.contains(dst) => {
                format!(
                    "{dst} is a container's of this cell: the host takes it to its link, past us"
                )
            }
            Some(subnet) => format!("{dst} is of this cell's own {subnet}: its link would have it"),
            None => format!("{dst} is {}", whose(view, dst)),
        };
        (says, Vec::new())
    });
    let route = tables.routes.lookup(dst);
    walk.step(Stage::Route, || match route {
        Some(route) => {
            let says = format!("the longest prefix that covers {dst}");
            (says, view.route(route).into_iter().collect())
        }
        None => (format!("none covers {dst}"), Vec::new()),
    });
    let next_hop = route?.next_hop(dst);
    let mac = tables.neighbors.lookup(next_hop);
    walk.step(Stage::Neigh, || match mac {
        Some(mac) => {
            let says = format!("{next_hop} is the next hop: the inner destination MAC is {mac}");
            (says, view.neigh(next_hop).into_iter().collect())
        }
        None => (
            format!("{next_hop} is the next hop, and has no entry"),
            Vec::new(),
        ),
    });
    mac
}

/// Whose a destination is that is not of this cell.
fn whose(view: &View<'_>, dst: IpAddr) -> &'static str {
    if view.tables.local.addresses.contains(&dst) {
        "this VTEP's, outside its subnet"
    } else if dst.is_multicast() {
        "a group's, of no cell (multicast)"
    } else if dst == IpAddr::from(Ipv4Addr::BROADCAST) {
        "everybody's, of no cell (broadcast)"
    } else if dst.is_unspecified() {
        "nobody's (unspecified)"
    } else {
        "of another cell"
    }
}

fn fdb(view: &View<'_>, mac: MacAddr, is_routed: bool) -> (String, Vec<Line>) {
    let how = if is_routed {
        String::new()
    } else {
        format!("a frame for {mac}, by this table alone; ")
    };
    let to = view.fdb(mac);
    if !to.is_empty() {
        return (format!("{how}where {mac} is"), to);
    }
    let floods = !is_routed && (mac.is_multicast() || !view.tables.local.routing);
    let flooded = if floods {
        view.fdb(MacAddr::ZERO)
    } else {
        Vec::new()
    };
    match flooded.as_slice() {
        [] => (format!("{how}{mac} has no entry"), flooded),
        _ => (
            format!("{how}{mac} has no entry: to every zero-MAC entry"),
            flooded,
        ),
    }
}

fn source(view: &View<'_>, request: &TraceRequest, judged: &Egress<'_>) -> String {
    let local = &view.tables.local;
    let src = request.src;
    if !local.strict_source {
        return "not checked (strict_source = false)".to_owned();
    }
    if let Egress::Drop(DropReason::SourceIsUnderlay) = judged {
        return format!("{src} is this host's underlay address");
    }
    let own = local.subnets.iter().find(|subnet| subnet.contains(&src));
    match own {
        Some(subnet) => format!("{src} is of this cell's {subnet}"),
        None if local.addresses.contains(&src) => format!("{src} is this VTEP's"),
        None => {
            format!("{src} is not of this cell; if a peer sends it, `--ingress` is what to ask")
        }
    }
}

/// How it would be sent, whether it fits or not.
fn encap_of<'j, 't>(judged: &'j Egress<'t>) -> Option<&'j Encap<'t>> {
    match judged {
        Egress::Encap(encap) | Egress::Fragment { encap, .. } => Some(encap),
        Egress::TooBig(_) | Egress::Reply(_) | Egress::Drop(_) => None,
    }
}

fn outer(view: &View<'_>, encap: &Encap<'_>) -> String {
    let from = source_port(view, encap).map_or_else(String::new, |port| format!(":{port}"));
    let outer = encap.outer;
    let mut says = String::new();
    for Destination { underlay, vni, .. } in encap.copies() {
        if !says.is_empty() {
            says.push_str("; ");
        }
        let df = u8::from(outer.df);
        // Writing to a String cannot fail.
        let _ = write!(
            says,
            "{}{from} -> {underlay} ttl {} tos {:#04x} df {df}, vni {vni} {}",
            view.vtep.local,
            outer.ttl,
            outer.tos,
            header_words(encap.mark)
        );
    }
    says
}

/// The one that this flow has.
fn source_port(view: &View<'_>, encap: &Encap<'_>) -> Option<u16> {
    let ports = &view.sending.source_ports;
    ports.get(pick(encap.flow_hash, ports.len())).copied()
}

fn mtu(view: &View<'_>, request: &TraceRequest, judged: &Egress<'_>) -> String {
    let (len, mtu) = (request.len(), view.sending.mtu_bytes);
    match judged {
        Egress::Fragment { mtu, .. } => {
            format!("{len} bytes, the path carries {mtu}: sent in fragments")
        }
        Egress::TooBig(too_big) => format!(
            "{len} bytes, and the path to {} carries {}",
            too_big.peer.underlay, too_big.mtu
        ),
        Egress::Encap(encap) => {
            let limits = encap
                .destinations
                .iter()
                .filter_map(|to| Some((to.underlay.ip(), to.peer.path_mtu.limit()?)));
            let narrow = limits.fold(String::new(), |told, (underlay, limit)| {
                format!("{told}; the path to {underlay} carries {limit}")
            });
            format!("{len} bytes of {mtu}{narrow}")
        }
        Egress::Reply(_) | Egress::Drop(_) => format!("{len} bytes of {mtu}"),
    }
}

fn reason_of(judged: &Egress<'_>, frame: &[u8]) -> Option<DropReason> {
    match judged {
        Egress::Drop(reason) => Some(*reason),
        Egress::TooBig(too_big) => Some(too_big.reason(frame)),
        Egress::Encap(_) | Egress::Fragment { .. } | Egress::Reply(_) => None,
    }
}

fn verdict(judged: &Egress<'_>, frame: &[u8]) -> Verdict {
    match judged {
        Egress::Encap(encap) | Egress::Fragment { encap, .. } => {
            let first = encap.destinations.first();
            Verdict::new(Fate::Encap)
                .vni(first.map(|to| to.vni))
                .marked(encap.mark)
        }
        Egress::TooBig(too_big) => Verdict::explained(too_big.reason(frame)),
        Egress::Reply(_) => Verdict::new(Fate::Reply),
        Egress::Drop(reason) => Verdict::explained(*reason),
    }
}

fn way(view: &View<'_>, judged: &Egress<'_>) -> Way {
    match judged {
        Egress::Encap(encap) | Egress::Fragment { encap, .. } => {
            let destinations = encap.destinations.iter();
            Way {
                underlay: destinations.map(|to| to.underlay.ip()).collect(),
                source_port: source_port(view, encap),
                ttl: Some(encap.outer.ttl),
                tos: Some(encap.outer.tos),
                df: Some(encap.outer.df),
            }
        }
        Egress::TooBig(too_big) => Way {
            underlay: vec![too_big.peer.underlay],
            ..Way::default()
        },
        Egress::Reply(_) | Egress::Drop(_) => Way::default(),
    }
}

//! From the underlay: what becomes of a packet that another host sends us.

use std::net::IpAddr;

use super::{Line, Stage, Trace, TraceRequest, View, Walk, Way, header_words};
use crate::control::Verdict;
use crate::control::protocol::Failure;
use crate::drop_reason::DropReason;
use crate::tables::MarkSource;
use crate::tables::policy::{Action, Decision};
use crate::vtep::policy::Reading;
use crate::vtep::{self, Deliver, Fate, Ingress, Received};
use crate::wire::ethernet::Frame;
use crate::wire::mark_tag::LOST_SOURCE;
use crate::wire::vxlan::Header;
use crate::wire::{MacAddr, Mark};

pub(super) fn walk(view: &View<'_>, request: &TraceRequest) -> Result<Trace, Failure> {
    let local = &view.tables.local;
    let from = sender(view, request)?;
    let mac = source_mac(view, request, from);
    let mark = request.mark().filter(|mark| *mark != Mark::NONE);
    let header = Header {
        vni: local.vni,
        mark,
    };
    let datagram = [&header.emit()[..], &request.frame(local.mac, mac)].concat();
    let received = Received {
        source: from,
        tos: 0,
    };
    let judged = vtep::ingress(view.tables, &datagram, received);
    let mut walk = Walk::new(reason_of(&judged));
    walk.step(Stage::Packet, || {
        let says = format!("{request}, from {mac} at {from} to {}", view.vtep.name);
        (says, Vec::new())
    });
    walk.step(Stage::Peer, || peer(view, from));
    walk.step(Stage::Header, || {
        let says = format!("vni {} {}", local.vni, header_words(mark));
        (says, Vec::new())
    });
    walk.step(Stage::Source, || source(view, request, mac, &judged));
    walk.step(Stage::Policy, || policy(view, &datagram));
    if let Ingress::Deliver(deliver) = &judged {
        walk.step(Stage::Delivery, || {
            (delivery(view, request, deliver), Vec::new())
        });
    }
    Ok(Trace {
        ifname: view.vtep.name.clone(),
        steps: walk.steps,
        verdict: verdict(&judged).vni(Some(local.vni)),
        way: Way {
            underlay: vec![from],
            ..Way::default()
        },
    })
}

/// Who sends it: who was named, else the VTEP that a packet to its source would go to.
fn sender(view: &View<'_>, request: &TraceRequest) -> Result<IpAddr, Failure> {
    let src = request.src;
    let destinations = || match request.mac {
        Some(mac) => view.tables.fdb.lookup(mac),
        None if view.tables.local.routing => {
            let resolved = view.tables.resolve(src);
            resolved.map_or(&[][..], |resolved| resolved.destinations)
        }
        None => &[],
    };
    let follows = || destinations().first().map(|to| to.underlay.ip());
    request.from.or_else(follows).ok_or_else(|| {
        Failure::new(format!(
            "no peer has {src} behind it: say which host sends it with `--from UNDERLAY`"
        ))
    })
}

/// The MAC that the frame is from: what was said, else the one our tables have for it, else any that the sender has.
fn source_mac(view: &View<'_>, request: &TraceRequest, from: IpAddr) -> MacAddr {
    let routed = || view.tables.resolve(request.src).ok().map(|found| found.mac);
    let any = || {
        let entries = view.fdb_to(from);
        let macs = entries.into_iter().map(|entry| entry.mac);
        macs.into_iter()
            .find(|mac| !mac.is_zero() && !mac.is_multicast())
    };
    request
        .mac
        .or_else(routed)
        .or_else(any)
        .unwrap_or(LOST_SOURCE)
}

fn peer(view: &View<'_>, from: IpAddr) -> (String, Vec<Line>) {
    if view.tables.peers.lookup(from).is_none() {
        let says = if view.tables.local.strict_source {
            format!("{from} is none")
        } else {
            format!("{from} is none, and let in (strict_source = false)")
        };
        return (says, Vec::new());
    }
    let says = format!("{from} is one");
    match view.peer(from) {
        Some(line) => (says, vec![line]),
        None => {
            let entries = view.fdb_to(from).into_iter();
            (says, entries.map(Line::Fdb).collect())
        }
    }
}

fn source(
    view: &View<'_>,
    request: &TraceRequest,
    mac: MacAddr,
    judged: &Ingress<'_>,
) -> (String, Vec<Line>) {
    let local = &view.tables.local;
    let src = request.src;
    if let Some(DropReason::OwnSourceMac) = reason_of(judged) {
        return (format!("{mac} is this VTEP's own MAC"), Vec::new());
    }
    if !local.strict_source {
        return ("not checked (strict_source = false)".to_owned(), Vec::new());
    }
    if let Some(DropReason::OwnSourceAddress) = reason_of(judged) {
        return (format!("{src} is this cell's own"), Vec::new());
    }
    if !local.routing {
        return (
            format!("by its MAC, {mac} (routing = false)"),
            view.fdb(mac),
        );
    }
    match view.tables.routes.lookup(src) {
        Some(route) => {
            let says = format!("where packets to {src} go must be where it comes from");
            (says, view.route(route).into_iter().collect())
        }
        None => (
            format!("no route covers {src}: it is behind nobody"),
            Vec::new(),
        ),
    }
}

/// What the rules say. Who began a flow that this may be part of is not asked: an imagined packet answers nothing.
fn policy(view: &View<'_>, datagram: &[u8]) -> (String, Vec<Line>) {
    let Some(policy) = &view.tables.policy else {
        let says = "none here: the host's rules decide, by mark".to_owned();
        return (says, Vec::new());
    };
    let parts = datagram.split_first_chunk();
    let parts = parts.and_then(|(header, frame)| Some((header, Frame::new_checked(frame)?)));
    let decision = parts.and_then(|(header, frame)| {
        let header = Header::parse(header, view.tables.local.gbp).ok()?;
        vtep::policy::decide(policy, &Reading::of(frame), header.mark)
    });
    let refused = "unless it is part of a flow that began here";
    let says = match decision {
        None => "not judged: it carries nothing".to_owned(),
        Some(Decision::Applied) => "let in by its A bit (honour_applied)".to_owned(),
        Some(Decision::Router) => "let in as the ingress router's (router_mark)".to_owned(),
        Some(Decision::Unreadable) => "refused: its headers cannot be read".to_owned(),
        Some(Decision::Default(Action::Accept)) => "no rule matches: let in by default".to_owned(),
        Some(Decision::Default(Action::Deny)) => {
            format!("no rule matches: refused by default, {refused}")
        }
        Some(Decision::Rule(rule)) => {
            let says = match rule.action {
                Action::Accept => "let in by a rule".to_owned(),
                Action::Deny => format!("refused by a rule, {refused}"),
            };
            return (says, view.rule(rule).into_iter().collect());
        }
    };
    (says, Vec::new())
}

fn delivery(view: &View<'_>, request: &TraceRequest, deliver: &Deliver<'_>) -> String {
    let local = &view.tables.local;
    let dst = request.dst;
    let whose = if local.in_own_subnet(dst) {
        "the host has a link for it, or answers that it is unreachable"
    } else if local.covers(dst) {
        "it is the VTEP's own address"
    } else {
        "it is not of this cell: the host's routes decide"
    };
    let mark = match local.marks {
        MarkSource::Packet if view.sending.mark_tags.are_on() => {
            let mark = deliver.mark.unwrap_or(Mark::NONE).0;
            format!(" with mark {mark:#x}")
        }
        MarkSource::Packet => " without its mark: the tc programs are not attached".to_owned(),
        MarkSource::Table | MarkSource::Off => String::new(),
    };
    format!("to the host{mark}; {dst}: {whose}")
}

fn reason_of(judged: &Ingress<'_>) -> Option<DropReason> {
    match judged {
        Ingress::Drop { reason, .. } => Some(*reason),
        Ingress::Unsolicited { .. } => Some(DropReason::PolicyDenied),
        Ingress::Deliver(_) | Ingress::Reply { .. } => None,
    }
}

fn verdict(judged: &Ingress<'_>) -> Verdict {
    match judged {
        Ingress::Deliver(deliver) => Verdict::new(Fate::Deliver).marked(deliver.mark),
        Ingress::Unsolicited { deliver, .. } => {
            Verdict::explained(DropReason::PolicyDenied).marked(deliver.mark)
        }
        Ingress::Reply { .. } => Verdict::new(Fate::Reply),
        Ingress::Drop { reason, .. } => Verdict::explained(*reason),
    }
}

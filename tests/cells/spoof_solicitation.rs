//! Neighbour solicitations in somebody else's name, put on the wire by a third host: who hears one puts its sender into its neighbour
//! table, as it does with an advertisement.

use std::net::{IpAddr, Ipv6Addr};

use etherparse::PacketBuilder;

use super::super::Case;
use super::spoof::{HEADER, STRANGER_V6, mac_of, of_no_length, outer, refused, tagged};
use crate::support::Kind::Silk;
use crate::support::{Injector, Lab, Outer, Plan, Result, Sniffer, ensure, vtep_mac};

const THEIRS: Option<&str> = Some("source-not-peers");
const OURS: Option<&str> = Some("own-source-address");
const OUR_MAC: Option<&str> = Some("own-source-mac");
/// What an IPv6 packet says is behind it.
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, plan: Plan, v6: bool| {
        Case::new(
            format!("spoof_solicitation::{name}"),
            plan.overlay_v6(),
            move |lab| third_host(lab, v6),
        )
    };
    let three = || Plan::of(&[Silk, Silk, Silk]);
    vec![
        case("a_third_host_asks_for_nobody_else", three(), false),
        case(
            "a_third_host_asks_for_nobody_else_over_v6",
            three().v6(),
            true,
        ),
    ]
}

/// What is asked by whom, and the reason for which it is not heard; `None`: it is answered.
type Question = (&'static str, Vec<u8>, Option<&'static str>);

fn third_host(lab: &mut Lab, v6: bool) -> Result {
    let [a, c] = [0, 2].map(|index| lab.cells[index].site);
    let to = mac_of(lab, 0)?;
    let wire = Injector::new(&lab.cells[2].host, "eth0")?;
    let sniffer = Sniffer::start(&lab.cells[2].host)?;
    let from = c.underlay(v6);
    let questions = questions(lab)?;
    for (what, frame, reason) in &questions {
        let datagram = [&HEADER[..], frame].concat();
        let packet = outer(to, from, a.underlay(v6), &datagram)?;
        refused(lab, what, *reason, || wire.send(&packet))?;
    }
    let honest = questions
        .iter()
        .filter(|(_, _, reason)| reason.is_none())
        .count();
    let us = a.underlay(v6);
    let answers = sniffer.outers(honest, |outer| is_answer(outer, us))?;
    let told: Vec<_> = answers.iter().map(|outer| target(&outer.inner)).collect();
    ensure!(
        told == vec![Some(a.vtep_v6()); honest],
        "answered: {told:?}, expected {honest}"
    );
    Ok(())
}

/// To the first cell from the third, which asks for the first one's address, as itself and as others.
fn questions(lab: &Lab) -> Result<Vec<Question>> {
    let [a, b, c] = [0, 1, 2].map(|index| lab.cells[index].site);
    let [a6, b6, c6] = [a, b, c].map(|site| site.vtep_v6());
    let (own, peer) = (vtep_mac(a.vtep), vtep_mac(c.vtep));
    let another = vtep_mac(b.vtep);
    let nobody = Ipv6Addr::UNSPECIFIED;
    let ask = |source, target, mac| solicitation([peer, own], source, target, mac);
    Ok(vec![
        ("the second", ask(b6, a6, Some(peer))?, THEIRS),
        ("the second, without an option", ask(b6, a6, None)?, THEIRS),
        (
            "the second, at its MAC",
            ask(b6, a6, Some(another))?,
            THEIRS,
        ),
        ("a stranger", ask(STRANGER_V6, a6, Some(peer))?, THEIRS),
        ("we ourselves", ask(a6, a6, Some(peer))?, OURS),
        (
            "somebody of our subnet",
            ask(inhabitant(a6), a6, Some(peer))?,
            OURS,
        ),
        ("the third at our MAC", ask(c6, a6, Some(own))?, OUR_MAC),
        (
            "the second, behind a tag",
            tagged(&ask(b6, a6, Some(peer))?),
            THEIRS,
        ),
        (
            "the second, in a packet of no length",
            of_no_length(&ask(b6, a6, Some(peer))?),
            THEIRS,
        ),
        (
            "the second, for its own address",
            ask(b6, b6, Some(peer))?,
            THEIRS,
        ),
        // RFC 4862 section 5.4.2: whoever asks so wants the address.
        (
            "nobody, for the second's address",
            ask(nobody, b6, None)?,
            THEIRS,
        ),
        (
            "nobody, for one of our subnet",
            ask(nobody, inhabitant(a6), None)?,
            OURS,
        ),
        ("nobody, with a MAC", ask(nobody, a6, Some(peer))?, THEIRS),
        ("nobody, for our address", ask(nobody, a6, None)?, None),
        ("the third itself", ask(c6, a6, Some(peer))?, None),
        (
            "one of its subnet",
            ask(inhabitant(c6), a6, Some(peer))?,
            None,
        ),
    ])
}

fn inhabitant(vtep: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(vtep) + 9)
}

/// To the solicited-node address, as who does not know the MAC asks.
fn solicitation(
    [from, to]: [[u8; 6]; 2],
    source: Ipv6Addr,
    target: Ipv6Addr,
    mac: Option<[u8; 6]>,
) -> Result<Vec<u8>> {
    let [.., x, y, z] = target.octets();
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z];
    let option = mac
        .map(|mac| [&[1, 1][..], &mac].concat())
        .unwrap_or_default();
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(from, to)
        .ipv6(source.octets(), group, 255)
        .icmpv6_raw(NEIGHBOR_SOLICITATION, 0, [0; 4])
        .write(&mut frame, &[&target.octets()[..], &option].concat())?;
    Ok(frame)
}

fn is_answer(outer: &Outer, us: IpAddr) -> bool {
    outer.source == us && target(&outer.inner).is_some()
}

/// Of an advertisement.
fn target(frame: &[u8]) -> Option<Ipv6Addr> {
    let message = frame.get(54..)?;
    (frame[12..14] == [0x86, 0xdd] && message[0] == NEIGHBOR_ADVERTISEMENT).then_some(())?;
    Some(Ipv6Addr::from(*message.get(8..)?.first_chunk::<16>()?))
}

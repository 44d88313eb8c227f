//! Every difference that is intended, with its reason. Some have a key of the configuration that takes them away, as it is in all setups
//! but one; in that one, and the others wherever a case shows them, what ours does instead is asserted.

use super::case::{Case, Direction};
use super::datagram::{Datagram, VNI};
use super::frames::{
    ARP, IPV4, IPV6, Inner, OTHER_PEER_MAC, OWN_ADDRESS, OWN_MAC, PEER_MAC, THERE_V6,
};
use super::packet_socket::Frame;
use super::side::Observation;
use super::sums;

/// One intended difference.
#[derive(Debug)]
pub(crate) struct Difference {
    pub(crate) name: &'static str,
    /// Why we differ.
    pub(crate) reason: &'static str,
    /// The cases that show it.
    applies: fn(&Case) -> bool,
    /// What ours must do in such a case, given what the kernel did.
    pub(crate) ours: fn(&Case, &Observation) -> Observation,
}

/// All of them. The first that applies counts.
pub(crate) static DIFFERENCES: [Difference; 12] = [
    Difference {
        name: "unknown-sender",
        reason: "a datagram of nobody we know is dropped: the kernel takes it from anybody (strict_source = false elsewhere)",
        applies: |case| is_strict(case) && !matches!(outer_source(case), Some(2..=4)),
        ours: nothing,
    },
    Difference {
        name: "inner-source",
        reason: "a peer speaks for what lies behind it alone, here by its FDB entry: the kernel does not ask (strict_source = false elsewhere)",
        applies: |case| is_strict(case) && is_impostors(case),
        ours: nothing,
    },
    Difference {
        name: "in-our-name",
        reason: "a peer says nothing in our name, in ARP and ND bodies neither: the kernel looks at the frame's MAC alone (strict_source = false elsewhere)",
        applies: |case| is_strict(case) && is_in_our_name(inner(case)),
        ours: nothing,
    },
    Difference {
        name: "mark-for-source-mac",
        reason: "a mark comes out of our TAP in place of the frame's source MAC, which nobody behind a router needs",
        applies: |case| case.setup.marks && case.direction == Direction::Receive,
        ours: |_, kernel| with_marks_for_macs(kernel),
    },
    Difference {
        name: "forged-mark",
        reason: "a source MAC that has the form of a mark is dropped: it would be taken for one, and no station has a multicast address",
        applies: |case| case.setup.marks && is_tag(source_mac(case)),
        ours: nothing,
    },
    Difference {
        name: "mark-of-own-mac-only",
        reason: "a mark goes into our TAP in place of the device's own MAC: a frame from another keeps its MAC and goes without",
        applies: |case| {
            case.setup.marks && case.stimuli[0].mark != 0 && source_mac(case) != OWN_MAC
        },
        ours: |_, kernel| without_groups(kernel),
    },
    Difference {
        name: "own-address",
        reason: "who asks for the device's own address is answered by us and not by the host, whose TAP does no ARP: the answer is the same",
        applies: |case| case.setup.own_address && is_for_own_address(inner(case)),
        ours: |_, kernel| Observation {
            overlay: Vec::new(),
            ..kernel.clone()
        },
    },
    Difference {
        name: "question-to-one",
        reason: "ARP for one peer's MAC, and neighbour solicitations for any one, go by FDB or route like other packets: the kernel's proxy answers or eats them",
        applies: |case| answers(case) && is_question_to_one(frame(case)),
        ours: forwarded,
    },
    Difference {
        name: "asker-is-many",
        reason: "nobody asks from a multicast address, to which the answer would be flooded: the kernel's proxy answers",
        applies: |case| answers(case) && asker(frame(case)).is_some_and(|asker| asker & 1 == 1),
        ours: nothing,
    },
    Difference {
        name: "solicitation-checks",
        reason: "a solicitation that RFC 4861 section 7.1.1 tells to discard is not answered: the kernel's proxy looks at its type alone",
        applies: |case| {
            answers(case) && is_solicitation(frame(case)) && !is_sound_solicitation(frame(case))
        },
        ours: nothing,
    },
    Difference {
        name: "duplicate-detection",
        reason: "an address that a host tries to take is not defended for a peer: the kernel's answer goes to the unspecified address, which nobody has",
        applies: |case| {
            answers(case) && is_solicitation(frame(case)) && frame(case)[22..38] == [0; 16]
        },
        ours: nothing,
    },
    Difference {
        name: "padding-is-no-option",
        reason: "what follows a solicitation in its frame is padding: the kernel's proxy reads it as options, of no length, and drops the question",
        applies: |case| answers(case) && is_padded_solicitation(frame(case)),
        ours: |case, _| Observation {
            overlay: vec![Frame {
                bytes: advertisement(frame(case)),
                mark: 0,
            }],
            ..Observation::default()
        },
    },
];

/// The one that a case shows.
pub(crate) fn of(case: &Case) -> Option<&'static Difference> {
    DIFFERENCES
        .iter()
        .find(|difference| !case.stimuli.is_empty() && (difference.applies)(case))
}

fn nothing(_: &Case, _: &Observation) -> Observation {
    Observation::default()
}

fn frame(case: &Case) -> &[u8] {
    &case.stimuli[0].bytes
}

fn is_strict(case: &Case) -> bool {
    case.setup.vtep.contains("strict_source = true") && case.direction == Direction::Receive
}

/// The last byte of an outer IPv4 source address in 10.0.0.0/24.
fn outer_source(case: &Case) -> Option<u8> {
    match *frame(case).get(26..30)? {
        [10, 0, 0, n] => Some(n),
        _ => None,
    }
}

/// A packet of IP or ARP from a MAC that is not at the sender by the FDB, or one of whatever kind behind three tags.
fn is_impostors(case: &Case) -> bool {
    let inner = inner(case);
    let speaks = match without_tags(inner) {
        Some((IPV4, packet)) => packet.len() >= 20,
        Some((IPV6, packet)) => packet.len() >= 40,
        Some((ARP, _)) => true,
        Some((kind, rest)) if is_vlan(kind) && rest.len() >= 4 => return true,
        Some(_) | None => false,
    };
    let home = match inner.get(6..12) {
        Some(mac) if *mac == PEER_MAC => Some(2),
        Some(mac) if *mac == OTHER_PEER_MAC => Some(3),
        _ => None,
    };
    speaks && home != outer_source(case)
}

/// From our address, or at our MAC, by the body of ARP or of a solicitation.
fn is_in_our_name(frame: &[u8]) -> bool {
    match without_tags(frame) {
        Some((IPV4, packet)) => packet.get(12..16) == Some(&OWN_ADDRESS),
        Some((ARP, packet)) => {
            let is_ethernets = packet.starts_with(&[0, 1]) || packet.starts_with(&[0, 6]);
            let is_whole = is_ethernets && packet.len() >= 28 && packet[2..6] == [8, 0, 6, 4];
            is_whole && (packet[8..14] == OWN_MAC || packet[14..18] == OWN_ADDRESS)
        }
        Some((IPV6, packet)) => {
            let [_, _, _, _, high, low, next, ..] = packet else {
                return false;
            };
            let len = usize::from(u16::from_be_bytes([*high, *low]));
            let message = packet.get(40..40 + len).unwrap_or_default();
            let is_solicitation =
                packet[0] >> 4 == 6 && *next == 58 && message.first() == Some(&135);
            is_solicitation && message.get(24..32) == Some(&[&[1, 1], &OWN_MAC[..]].concat())
        }
        Some(_) | None => false,
    }
}

/// The type behind two VLAN tags at the most, and what follows.
fn without_tags(frame: &[u8]) -> Option<(u16, &[u8])> {
    let mut kind = u16::from_be_bytes(*frame.get(12..)?.first_chunk()?);
    let mut rest = &frame[14..];
    for _ in 0..2 {
        if let (true, Some(([_, _, high, low], behind))) = (is_vlan(kind), rest.split_first_chunk())
        {
            kind = u16::from_be_bytes([*high, *low]);
            rest = behind;
        }
    }
    Some((kind, rest))
}

fn is_vlan(ethertype: u16) -> bool {
    [0x8100, 0x88a8].contains(&ethertype)
}

/// The inner frame of a packet over IPv4 without options, as much of it as the UDP length has.
fn inner(case: &Case) -> &[u8] {
    const UDP: usize = 14 + 20;
    let packet = frame(case);
    let Some(&[high, low]) = packet.get(UDP + 4..UDP + 6) else {
        return &[];
    };
    let end = UDP + usize::from(u16::from_be_bytes([high, low]));
    let inner = packet.get(UDP + 8 + 8..end.min(packet.len()));
    inner.unwrap_or_default()
}

fn is_for_own_address(frame: &[u8]) -> bool {
    frame.get(12..22) == Some(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]) && frame[38..42] == OWN_ADDRESS
}

fn source_mac(case: &Case) -> [u8; 6] {
    let mac = match case.direction {
        Direction::Transmit => frame(case).get(6..12),
        Direction::Receive => None,
    };
    mac.and_then(|mac| mac.try_into().ok()).unwrap_or_default()
}

fn is_tag(mac: [u8; 6]) -> bool {
    mac[..2] == [3, 1]
}

/// What the tc program writes where a mark stood.
const MARKED_MAC: [u8; 6] = [2, 1, 0, 0, 0, 0];

fn with_marks_for_macs(kernel: &Observation) -> Observation {
    let mut ours = kernel.clone();
    for frame in &mut ours.overlay {
        let source = [frame.bytes[6], frame.bytes[7]];
        if frame.mark != 0 || source == [3, 1] {
            frame.bytes[6..12].copy_from_slice(&MARKED_MAC);
        }
    }
    ours
}

/// The kernel's packets as they would be without a mark; none of them is a fragment.
fn without_groups(kernel: &Observation) -> Observation {
    const VXLAN: std::ops::Range<usize> = 42..46;
    let mut ours = kernel.clone();
    for packet in &mut ours.underlay {
        packet[VXLAN].copy_from_slice(&[8, 0, 0, 0]);
        // What it covered changed: fill it in as the view wants it.
        packet[40..42].fill(0);
        let sum = sums::transport(&packet[26..34], 17, &packet[34..]);
        packet[40..42].copy_from_slice(&sum.to_be_bytes());
    }
    ours
}

fn answers(case: &Case) -> bool {
    case.setup.neighbors && case.direction == Direction::Transmit
}

fn ethertype(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[12], frame[13]])
}

fn is_question_to_one(frame: &[u8]) -> bool {
    let to_peer = ethertype(frame) == ARP && frame[..6] != OWN_MAC;
    frame[0] & 1 == 0 && (to_peer || is_solicitation(frame))
}

/// The first byte of the MAC that is to be answered.
fn asker(frame: &[u8]) -> Option<u8> {
    let is_request = ethertype(frame) == ARP && frame.get(20..22) == Some(&[0, 1]);
    if is_request {
        frame.get(22).copied()
    } else if is_solicitation(frame) {
        let option = (frame.get(78..80) == Some(&[1, 1])).then(|| frame.get(80));
        option.unwrap_or(frame.get(6)).copied()
    } else {
        None
    }
}

/// As the kernel tells one (`vxlan_xmit`): type and code, behind no extension header.
fn is_solicitation(frame: &[u8]) -> bool {
    frame.len() >= 14 + 40 + 24
        && ethertype(frame) == IPV6
        && frame[20] == 58
        && frame[54..56] == [135, 0]
}

/// RFC 4861 section 7.1.1.
fn is_sound_solicitation(frame: &[u8]) -> bool {
    let len = usize::from(u16::from_be_bytes([frame[18], frame[19]]));
    let Some(message) = frame
        .get(54..54 + len)
        .filter(|message| message.len() >= 24)
    else {
        return false;
    };
    let mut options = &message[24..];
    while let [_, units, ..] = *options {
        let Some(rest) = options.get(usize::from(units) * 8..).filter(|_| units > 0) else {
            return false;
        };
        options = rest;
    }
    frame[14] >> 4 == 6
        && frame[21] == 255
        && message[8] != 0xff
        && options.is_empty()
        && sums::transport_is_valid(&frame[22..54], 58, message)
}

/// A sound one without options, for a neighbour, with two bytes of padding or more.
fn is_padded_solicitation(frame: &[u8]) -> bool {
    const WHOLE: usize = 14 + 40 + 24;
    is_solicitation(frame)
        && is_sound_solicitation(frame)
        && frame[18..20] == [0, 24]
        && frame.len() > WHOLE + 1
        && frame[62..78] == THERE_V6
}

/// The answer for our neighbour (RFC 4861 section 4.4): solicited, overriding, with its MAC.
fn advertisement(question: &[u8]) -> Vec<u8> {
    let mut message = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
    message.extend(&question[62..78]);
    message.extend([2, 1]);
    message.extend(PEER_MAC);
    let addresses = [&question[62..78], &question[22..38]].concat();
    let sum = sums::transport(&addresses, 58, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = [&question[6..12], &PEER_MAC, &question[12..14]].concat();
    // The kernel takes the upper half of the traffic class over, and no more of it.
    frame.extend([question[14], 0, 0, 0, 0, 32, 58, 255]);
    frame.extend(addresses);
    frame.extend(message);
    frame
}

/// By the FDB, where the zero MAC leads nowhere.
fn forwarded(case: &Case, _: &Observation) -> Observation {
    let frame = frame(case);
    let host = match frame.first_chunk::<6>() {
        Some(&PEER_MAC) => 2,
        Some(&OTHER_PEER_MAC) => 3,
        _ => return Observation::default(),
    };
    let header = [8, 0, 0, 0, 0, 0, VNI as u8, 0];
    let datagram = Datagram::new(case.setup.v6, header, &Inner(frame.to_vec()));
    let ecn = if ethertype(frame) == IPV6 {
        frame[15] >> 4 & 3
    } else {
        0
    };
    let outer = if ecn == 3 { 2 } else { ecn };
    Observation {
        underlay: vec![datagram.from(1).to(host).tos(outer).outbound()],
        ..Observation::default()
    }
}

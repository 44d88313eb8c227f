//! Lines of the tables whose outcome follows from what neither a capture nor a configuration tells, or from what replay says it does
//! not play.

use super::case::{Case, Direction};
use super::device::NEIGHBOR_WITHOUT_FDB;
use super::frames::{GROUP_MAC, OTHER_PEER_MAC, PEER_MAC, THERE_V6};
use super::host::{OWN, UNDERLAY_MTU};

/// One kind of them.
pub(crate) struct Unplayable {
    pub(crate) name: &'static str,
    /// Why replay cannot know.
    pub(crate) reason: &'static str,
    applies: fn(&Case) -> bool,
}

/// All of them.
pub(crate) static UNPLAYABLE: [Unplayable; 8] = [
    Unplayable {
        name: "live-fdb-entry",
        reason: "goes by an FDB entry that no configuration can hold: the zero MAC's, a group's",
        applies: |case| match case.direction {
            Direction::Transmit => goes_by_live_entry(case),
            Direction::Receive => is_from_live_destination(case),
        },
    },
    Unplayable {
        name: "live-neighbor",
        reason: "asks for a neighbor that no configuration of this setup can hold: of IPv6, or without an FDB entry",
        applies: |case| {
            let packet = frame(case);
            let is_v6 = packet.get(62..78) == Some(&THERE_V6);
            case.setup.neighbors && (is_v6 || packet.get(38..42) == Some(&NEIGHBOR_WITHOUT_FDB))
        },
    },
    Unplayable {
        name: "mark-from-tap",
        reason: "our tc program writes the mark, or takes a frame for a forged one, before the TAP has it",
        applies: |case| {
            let marked = case.stimuli.iter().any(|stimulus| stimulus.mark != 0);
            let tagged = frame(case).get(6..8) == Some(&[3, 1]);
            case.direction == Direction::Transmit && case.setup.marks && (marked || tagged)
        },
    },
    Unplayable {
        name: "mtu",
        reason: "is too large for the underlay, or would be",
        applies: |case| match case.direction {
            Direction::Transmit => case.setup.shrunk_mtu.is_some() || segment_len(case) > MTU,
            Direction::Receive => frame(case).len() > 14 + MTU,
        },
    },
    Unplayable {
        name: "another-address",
        reason: "is for an address that is neither this host's nor a peer's",
        applies: |case| {
            let hosts = case.direction == Direction::Receive;
            hosts && ends(case).is_some_and(|[_, to]| !OWN.contains(&to))
        },
    },
    Unplayable {
        name: "martian-source",
        reason: "the host's routes refuse its source, which is the host's own",
        applies: |case| {
            let of_v4 = case.direction == Direction::Receive && !case.setup.v6;
            of_v4 && ends(case).is_some_and(|[from, _]| OWN.contains(&from))
        },
    },
    Unplayable {
        name: "record-route",
        reason: "the host refuses a record route of no length: replay reads no IPv4 options",
        applies: |case| {
            let packet = frame(case);
            let has_options = packet.get(14).is_some_and(|first| first & 0x0f > 5);
            case.direction == Direction::Receive && has_options && packet.get(34) == Some(&7)
        },
    },
    Unplayable {
        name: "cut-vlan-tag",
        reason: "the host drops it behind the device, before anybody can see it (skb_vlan_untag)",
        applies: |case| {
            let inner = inner(case);
            inner.get(12..14) == Some(&[0x81, 0]) && inner.len() < 14 + 4 + 2
        },
    },
];

/// The underlay's.
const MTU: usize = UNDERLAY_MTU as usize;

/// Which of them a case is, the first that applies.
pub(crate) fn of(case: &Case) -> Option<usize> {
    UNPLAYABLE.iter().position(|kind| (kind.applies)(case))
}

fn frame(case: &Case) -> &[u8] {
    case.stimuli.first().map_or(&[], |first| &first.bytes)
}

/// To a group's entry, or to the zero MAC's, which is for everybody who has none.
fn goes_by_live_entry(case: &Case) -> bool {
    let mac = frame(case).first_chunk();
    let by_file = [PEER_MAC, OTHER_PEER_MAC];
    mac == Some(&GROUP_MAC)
        || !case.setup.flood.is_empty() && !mac.is_some_and(|mac| by_file.contains(mac))
}

/// From a host that is known as the group's destination alone.
fn is_from_live_destination(case: &Case) -> bool {
    let is_strict = case.setup.vtep.contains("strict_source = true");
    is_strict && ends(case).is_some_and(|[from, _]| from == 4)
}

/// The numbers of the hosts that a packet of the underlay is from and to.
fn ends(case: &Case) -> Option<[u8; 2]> {
    let [from, to] = if case.setup.v6 { [37, 53] } else { [29, 33] };
    let packet = frame(case);
    Some([*packet.get(from)?, *packet.get(to)?])
}

/// Of a super-frame: what each piece of it comes to on the underlay.
fn segment_len(case: &Case) -> usize {
    let Some(vnet) = case.stimuli.first().and_then(|first| first.vnet) else {
        return 0;
    };
    let word = |at: usize| usize::from(u16::from_le_bytes([vnet[at], vnet[at + 1]]));
    let outer = if case.setup.v6 { 40 } else { 20 } + 8 + 8;
    outer + word(2) + word(4)
}

/// The frame in a packet of the underlay that is no fragment and has no options.
fn inner(case: &Case) -> &[u8] {
    let start = if case.setup.v6 { 14 + 40 } else { 14 + 20 } + 8 + 8;
    match case.direction {
        Direction::Transmit => &[],
        Direction::Receive => frame(case).get(start..).unwrap_or_default(),
    }
}

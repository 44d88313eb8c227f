//! Whatever bytes arrive, the process lives, traffic goes on, and each drop is counted once.

use std::net::{Ipv4Addr, UdpSocket};

use super::super::Case;
use crate::support::Kind::Silk;
use crate::support::{
    Injector, Lab, Noise, Plan, Result, Stats, VTEP_NAME, Wait, ensure, ping, vtep_mac, wait_until,
};

/// Packets of each kind.
const PACKETS: usize = 1000;
/// Sent before their drops are waited for: a TAP queues 500 packets and loses the rest uncounted.
const BURST: usize = 100;
/// An address on the underlay that no peer has.
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 0, 99, 99);

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, body: fn(&mut Lab) -> Result| {
        Case::new(
            format!("garbage::{name}"),
            Plan::of(&[Silk, Silk]).lanes(2),
            body,
        )
    };
    vec![
        case(
            "random_datagrams_of_a_peer_are_counted",
            random_datagrams_of_a_peer,
        ),
        case(
            "random_datagrams_of_a_stranger_are_counted",
            random_datagrams_of_a_stranger,
        ),
        case(
            "random_frames_on_the_tap_are_counted",
            random_frames_on_the_tap,
        ),
        case(
            "random_packets_for_the_router_are_counted",
            random_packets_for_the_router,
        ),
        case(
            "malformed_requests_get_an_error_and_the_connection_lives",
            malformed_requests,
        ),
    ]
}

fn random_datagrams_of_a_peer(lab: &mut Lab) -> Result {
    let source = lab.cells[1].site.underlay_v4;
    let drops = send_datagrams(lab, source)?;
    ensure!(
        drops.dropped("unknown-peer") == 0,
        "a peer was taken for a stranger: {drops:?}"
    );
    Ok(())
}

fn random_datagrams_of_a_stranger(lab: &mut Lab) -> Result {
    lab.cells[1]
        .host
        .ip(&format!("addr add {STRANGER}/16 dev eth0"))?;
    let drops = send_datagrams(lab, STRANGER)?;
    let strangers = drops.dropped("unknown-peer");
    ensure!(
        strangers == PACKETS as u64,
        "{strangers} of {PACKETS} from an unknown peer: {drops:?}"
    );
    Ok(())
}

fn send_datagrams(lab: &mut Lab, source: Ipv4Addr) -> Result<Stats> {
    let to = (lab.cells[0].site.underlay_v4, 4789);
    let socket = lab.cells[1]
        .host
        .run(|| Ok(UdpSocket::bind((source, 0))?))?;
    all_are_dropped(lab, |noise| {
        let len = noise.below(200);
        socket.send_to(&noise.bytes(len), to)?;
        Ok(())
    })
}

fn random_frames_on_the_tap(lab: &mut Lab) -> Result {
    let injector = Injector::new(&lab.cells[0].host, VTEP_NAME)?;
    all_are_dropped(lab, |noise| {
        let len = 14 + noise.below(200);
        injector.send(&noise.bytes(len))
    })?;
    Ok(())
}

/// Frames for the VTEP's own MAC that say IPv4 or IPv6 and are anything.
fn random_packets_for_the_router(lab: &mut Lab) -> Result {
    let own_mac = vtep_mac(lab.cells[0].site.vtep);
    let injector = Injector::new(&lab.cells[0].host, VTEP_NAME)?;
    all_are_dropped(lab, |noise| {
        let len = 14 + noise.below(100);
        let mut frame = noise.bytes(len);
        frame[..6].copy_from_slice(&own_mac);
        let ethertype: [u8; 2] = if noise.below(2) == 0 {
            [0x08, 0x00]
        } else {
            [0x86, 0xdd]
        };
        frame[12..14].copy_from_slice(&ethertype);
        injector.send(&frame)
    })?;
    Ok(())
}

/// Sends many packets and waits until as many drops are counted; then wants the cells to work as before.
fn all_are_dropped(lab: &mut Lab, mut send_one: impl FnMut(&mut Noise) -> Result) -> Result<Stats> {
    let daemon = lab.cells[0].daemon()?;
    let before = Stats::read(daemon)?.drops()?;
    let mut noise = Noise::new(0x6a7b);
    for sent in 1..=PACKETS {
        send_one(&mut noise)?;
        if sent % BURST == 0 {
            wait_until("every packet is counted as dropped", || {
                let risen = Stats::read(daemon)?.drops()? - before;
                Ok(Wait::unless(risen >= sent as u64, || {
                    format!("{risen} of {sent}")
                }))
            })?;
        }
    }
    let (a, b) = (lab.cells[0].container()?, lab.cells[1].container()?);
    ping(&a.namespace, b.address, 20, "")?;
    let stats = Stats::read(lab.cells[0].daemon()?)?;
    let risen = stats.drops()? - before;
    ensure!(
        risen == PACKETS as u64,
        "{risen} drops counted for {PACKETS} packets: {stats:?}"
    );
    Ok(stats)
}

fn malformed_requests(lab: &mut Lab) -> Result {
    let daemon = lab.cells[0].daemon()?;
    let requests = [
        "",
        "{",
        "nonsense",
        "{\"show\":{\"nothing\":null}}",
        "\"stats\"",
    ];
    let answers = daemon.conversation(&requests)?;
    let (last, errors) = answers.split_last().ok_or("no answers")?;
    ensure!(
        errors.iter().all(|answer| answer.get("error").is_some()),
        "no errors: {errors:?}"
    );
    ensure!(
        last.get("ok").is_some(),
        "the connection did not live on: {last}"
    );
    Ok(())
}

//! `trace` says beforehand what happens then: the packet is really sent, and wire and counters say the same.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use super::super::Case;
use crate::support::Kind::Silk;
use crate::support::{
    Injector, Lab, Plan, Result, Sniffer, Stats, VTEP_NAME, Wait, ensure, vtep_mac, wait_until,
};

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, body: fn(&mut Lab) -> Result| {
        let plan = Plan::of(&[Silk, Silk]).without_offloads().group(3);
        Case::new(format!("trace::{name}"), plan, body)
    };
    vec![
        case("what_is_sent_is_what_was_traced", sent_as_traced),
        case("what_is_dropped_is_what_was_traced", dropped_as_traced),
        case("a_live_change_is_traced_at_once", live_change_is_traced),
        case("what_cannot_be_traced_is_told_with_the_mend", bad_usage),
    ]
}

fn trace(lab: &mut Lab, cell: usize, words: &str) -> Result<Value> {
    let said = lab.cells[cell]
        .daemon()?
        .ctl(&format!("trace -j {words}"))?;
    Ok(serde_json::from_str(&said)?)
}

fn sent_as_traced(lab: &mut Lab) -> Result {
    let [a, b] = [0, 1].map(|index| lab.cells[index].site);
    let (socket, sink) = (
        lab.cells[0].container()?.udp()?,
        lab.cells[1].container()?.udp()?,
    );
    let ports = [&socket, &sink].map(|socket| socket.local_addr().map(|address| address.port()));
    let [sport, dport] = ports;
    let (sport, dport) = (sport?, dport?);
    let packet = format!(
        "--src {} --dst {} --proto udp --sport {sport} --dport {dport}",
        a.container, b.container
    );
    let out = trace(lab, 0, &packet)?;
    ensure!(out["verdict"] == "encap", "{out}");
    ensure!(out["underlay"][0] == b.underlay_v4.to_string(), "{out}");
    let into = trace(lab, 1, &format!("{packet} --ingress --group 3"))?;
    ensure!(into["verdict"] == "deliver", "{into}");
    ensure!(into["underlay"][0] == a.underlay_v4.to_string(), "{into}");

    let before = [peers(lab, 0)?, peers(lab, 1)?];
    let sniffer = Sniffer::start(&lab.cells[0].host)?;
    socket.send_to(b"traced", sink.local_addr()?)?;
    sink.recv(&mut [0; 8])?;
    let ours = |outer: &crate::support::Outer| outer.inner_udp_source() == Some(sport);
    let outer = sniffer.outers(1, ours)?.remove(0);
    let seen = [
        u64::from(outer.source_port),
        outer.ttl.into(),
        outer.tos.into(),
        u64::from(outer.dont_fragment),
        u16::from_be_bytes([outer.vxlan[2], outer.vxlan[3]]).into(),
    ];
    let told = ["source_port", "ttl", "tos", "df", "group"].map(|key| {
        let flag = out[key].as_bool().map(u64::from);
        out[key].as_u64().or(flag).unwrap_or(u64::MAX)
    });
    ensure!(seen == told, "seen {seen:?}, told {told:?} by {out}");
    wait_until("both count it as traced", || {
        let now = [peers(lab, 0)?, peers(lab, 1)?];
        let expected = (before[0].0 + 1, before[1].1 + 1);
        Ok(Wait::unless((now[0].0, now[1].1) == expected, || {
            format!("{now:?}, before {before:?}")
        }))
    })
}

/// Sent to the one peer, and delivered of it.
fn peers(lab: &mut Lab, cell: usize) -> Result<(u64, u64)> {
    let peers = Stats::read(lab.cells[cell].daemon()?)?.peers()?;
    Ok((peers[0].0, peers[0].1))
}

/// Each of them is traced, and then really sent by whoever would send it.
fn dropped_as_traced(lab: &mut Lab) -> Result {
    let [a, b] = [0, 1].map(|index| lab.cells[index].site);
    let nowhere: SocketAddr = "10.255.200.1:9".parse()?;
    let from_container = |lab: &mut Lab| {
        let socket = lab.cells[0].container()?.udp()?;
        socket.send_to(b"lost", nowhere)?;
        Ok(())
    };
    let from_underlay = |lab: &mut Lab| {
        let bound = (a.underlay_v4, 0);
        let socket = lab.cells[0]
            .host
            .run(|| Ok(std::net::UdpSocket::bind(bound)?))?;
        socket.send_to(b"lost", (b.container, 9))?;
        Ok(())
    };
    // To an absent container the host itself gives nothing: its route is unreachable.
    let absent = std::net::Ipv4Addr::from(u32::from(a.vtep) + 99);
    let to_absent = |lab: &mut Lab| {
        let own = vtep_mac(a.vtep);
        let mut frame = Vec::new();
        etherparse::PacketBuilder::ethernet2(own, own)
            .ipv4(a.container.octets(), absent.octets(), 64)
            .udp(1, 9)
            .write(&mut frame, b"lost")?;
        Injector::new(&lab.cells[0].host, VTEP_NAME)?.send(&frame)
    };
    type Send<'a> = &'a dyn Fn(&mut Lab) -> Result;
    let cases: [(IpAddr, IpAddr, &str, Send<'_>); 3] = [
        (
            a.container.into(),
            nowhere.ip(),
            "no-route",
            &from_container,
        ),
        (
            a.underlay_v4.into(),
            b.container.into(),
            "source-is-underlay",
            &from_underlay,
        ),
        (
            a.container.into(),
            absent.into(),
            "absent-container",
            &to_absent,
        ),
    ];
    for (src, dst, reason, send) in cases {
        let words = format!("--src {src} --dst {dst} --proto udp --dport 9");
        let told = trace(lab, 0, &words)?;
        ensure!(
            told["verdict"] == "drop" && told["reason"] == reason,
            "{told}"
        );
        let dropped = |lab: &mut Lab| -> Result<u64> {
            Ok(Stats::read(lab.cells[0].daemon()?)?.dropped(reason))
        };
        let before = dropped(lab)?;
        send(lab)?;
        wait_until(reason, || {
            let now = dropped(lab)?;
            Ok(Wait::unless(now == before + 1, || {
                format!("{now} after {before}")
            }))
        })?;
    }
    Ok(())
}

fn live_change_is_traced(lab: &mut Lab) -> Result {
    let [a, b] = [0, 1].map(|index| lab.cells[index].site);
    let words = format!("trace --src {} --dst {}", a.container, b.container);
    let daemon = lab.cells[0].daemon()?;
    let line = format!(
        "{} dev silk-vtep dst {}",
        crate::support::mac_text(vtep_mac(b.vtep)),
        b.underlay_v4
    );
    let text = daemon.ctl(&words)?;
    ensure!(text.contains(&line), "no {line:?} in\n{text}");
    daemon.ctl(&format!("peer del {}", b.underlay_v4))?;
    let text = daemon.ctl(&words)?;
    ensure!(text.contains("verdict      drop no-route: "), "{text}");
    ensure!(!text.contains(&line), "{text}");
    Ok(())
}

fn bad_usage(lab: &mut Lab) -> Result {
    let daemon = lab.cells[0].daemon()?;
    for (words, status, expected) in [
        ("--src 10.255.108.184", 2, "--dst"),
        ("--src 10.255.108.184 --dst fd00::1", 2, "two families"),
        (
            "--src 10.255.108.184 --dst 10.255.43.6 --dport 80",
            2,
            "give `--proto tcp` or `--proto udp`",
        ),
        (
            "--src 10.255.108.184 --dst 10.255.43.6 --proto tcp",
            2,
            "give `--dport`",
        ),
        (
            "--src 10.255.108.184 --dst 10.255.43.6 --group 70000",
            2,
            "a group id is 0x0001 to 0xffff",
        ),
        (
            "--src 10.255.108.184 --dst 10.255.43.6 --group 3",
            1,
            "marks = \"table\"",
        ),
        (
            "--src 10.255.108.184 --dst 10.255.43.6 --len 9000",
            1,
            "do not fit silk-vtep",
        ),
        (
            "--src 192.0.2.1 --dst 10.255.108.184 --ingress",
            1,
            "--from UNDERLAY",
        ),
    ] {
        daemon.refuses(&format!("trace {words}"), status, expected)?;
    }
    Ok(())
}

//! `marks = "off"`: no packet goes out with a group, and what a packet comes in with is not told to the host.

use serde_json::{Value, json};

use super::super::Case;
use super::marks::{GROUP_3_HEADER, PLAIN_HEADER, iptables, is_sent, mark, programs, shown};
use crate::support::Kind::{Kernel, Silk};
use crate::support::{
    Cell, Lab, Plan, Result, Sniffer, Stats, Tunnel, VTEP_NAME, Wait, ensure, ping, receive_one,
    vtep_mac, wait_until,
};

/// Pings that come in marked.
const PINGS: u32 = 5;

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, plan: Plan, body: fn(&mut Lab) -> Result| {
        Case::new(format!("marks_off::{name}"), plan, body)
    };
    let marked = || Plan::of(&[Silk, Kernel]).iptables();
    vec![
        case(
            "no_group_goes_out_and_none_is_told_to_the_host",
            marked().marks("off").group(3),
            nobody_is_named,
        ),
        case(
            "what_a_killed_daemon_carried_marks_with_carries_none",
            marked().marks("bpf"),
            programs_left,
        ),
        case(
            "policy_is_by_the_header_all_the_same",
            Plan::of(&[Silk, Silk])
                .marks("off")
                .vtep_lines("[policy]\nenforce = true\nreject = false\n"),
            policy_is_by_the_header,
        ),
    ]
}

fn nobody_is_named(lab: &mut Lab) -> Result {
    // Neither what the host's rules say nor the group table of the file.
    mark(&lab.cells[0], "0x3")?;
    is_sent(lab, PLAIN_HEADER)?;
    comes_in_unmarked(lab)?;

    let (marks, why) = shown(lab)?;
    ensure!(
        marks == "off" && why == "the configuration says so",
        "{marks}: {why}"
    );
    let address = lab.cells[0].site.container;
    let daemon = lab.cells[0].daemon()?;
    let text = daemon.ctl("link show")?;
    ensure!(
        text.contains("    marks off: the configuration says so\n"),
        "{text}"
    );
    let doctors = daemon.ctl("doctor")?;
    let told = "; the daemon that runs uses off: the configuration says so";
    ensure!(doctors.contains(told), "{doctors}");
    // Whoever gives a group is told that it does nothing.
    let replace = json!({"change": [{"replace": {"group": {"address": address, "id": 5}}}]});
    for request in [json!("reload"), replace] {
        let answer = daemon.request(&request)?;
        let told = "the group table is without effect: no groups are sent (marks = \\\"off\\\")";
        ensure!(answer["warnings"].to_string().contains(told), "{answer}");
    }
    is_sent(lab, PLAIN_HEADER)
}

fn programs_left(lab: &mut Lab) -> Result {
    mark(&lab.cells[0], "0x3")?;
    is_sent(lab, GROUP_3_HEADER)?;
    let daemon = lab.cells[0].daemon()?;
    daemon.kill9()?;
    let config = daemon.config()?;
    daemon.write_config(&config.replace("marks = \"bpf\"", "marks = \"off\""))?;
    daemon.start()?;
    let left = programs(&lab.cells[0])?;
    ensure!(left.iter().all(Vec::is_empty), "left: {left:?}");
    is_sent(lab, PLAIN_HEADER)?;
    comes_in_unmarked(lab)
}

/// The second cell's packets have a group on the wire, and no mark on the first cell's host.
fn comes_in_unmarked(lab: &Lab) -> Result {
    let [ours, theirs] = [&lab.cells[0], &lab.cells[1]];
    mark(theirs, "0x3")?;
    for matching in ["-m mark --mark 0x0", "-m mark ! --mark 0x0"] {
        let rule = format!("-A FORWARD -i {VTEP_NAME} -p icmp {matching}");
        iptables(&ours.host, &rule)?;
    }
    let sniffer = Sniffer::start(&ours.host)?;
    let to = ours.site.container;
    ping(&theirs.container()?.namespace, to, PINGS, "")?;
    let from = theirs.site.underlay(false);
    let outers = sniffer.outers(PINGS as usize, |outer| outer.source == from)?;
    ensure!(
        outers.iter().all(|outer| outer.vxlan == GROUP_3_HEADER),
        "{outers:02x?}"
    );
    let counted = matched(ours)?;
    ensure!(
        counted.len() == 2 && counted[0] >= u64::from(PINGS) && counted[1] == 0,
        "without a mark, with one: {counted:?}"
    );
    Ok(())
}

/// How many packets each rule of the host matched.
fn matched(cell: &Cell) -> Result<Vec<u64>> {
    let listed = cell.host.exec("iptables -w -n -v -x -L FORWARD")?;
    let rows = listed.lines().filter(|line| line.contains("mark match"));
    rows.map(|row| {
        let packets = row.split_whitespace().next().unwrap_or_default();
        Ok(packets.parse()?)
    })
    .collect()
}

/// Nobody needs marks for that.
fn policy_is_by_the_header(lab: &mut Lab) -> Result {
    let tunnel = Tunnel::between(&lab.cells[0], &lab.cells[1])?;
    let [from, to] = [lab.cells[0].site, lab.cells[1].site];
    let sink = lab.cells[1].container()?.udp()?;
    let port = sink.local_addr()?.port();
    let daemon = lab.cells[1].daemon()?;
    let rule = format!("{} group 3 proto udp ports {port}", to.container);
    daemon.ctl(&format!("policy add {rule}"))?;
    let [source_mac, own_mac] = [from.vtep, to.vtep].map(vtep_mac);
    let sent: [(u16, &[u8]); 3] = [(4, b"of another"), (0, b"of no group"), (3, b"of group 3")];
    for (group, payload) in sent {
        let mut frame = Vec::new();
        etherparse::PacketBuilder::ethernet2(source_mac, own_mac)
            .ipv4(from.container.octets(), to.container.octets(), 64)
            .udp(4000, port)
            .write(&mut frame, payload)?;
        tunnel.send(group, &frame)?;
    }
    let mut received = [0; 16];
    let len = receive_one(&sink, &mut received)?;
    ensure!(&received[..len] == b"of group 3", "{:?}", &received[..len]);
    wait_until("the others were refused", || {
        let refused = Stats::read(daemon)?.dropped("policy-denied");
        Ok(Wait::unless(refused == 2, || refused.to_string()))
    })?;
    let report: Value = serde_json::from_str(&daemon.ctl("policy denied -j")?)?;
    let groups: Vec<_> = (report["rows"].as_array().into_iter().flatten())
        .map(|row| row["group"].as_u64())
        .collect();
    ensure!(groups == [Some(0), Some(4)], "{report}");
    Ok(())
}

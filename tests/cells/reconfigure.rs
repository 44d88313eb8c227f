//! Changes under load: what happens to one peer is not felt by another.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::Case;
use crate::support::Kind::Silk;
use crate::support::{
    Daemon, Lab, NumberedStream, Plan, Result, Site, ensure, mac_text, ping, vtep_mac,
};

/// Peers of the batch; each has a /26 of 172.16.0.0/12 and an underlay address in 198.18.0.0/15.
const BATCH_PEERS: u32 = 10_000;
/// The load: slow enough that a busy machine which lets nobody read the TAP for a while does not overflow its 500 packets.
const DATAGRAMS: u32 = 2_000;
const INTERVAL: Duration = Duration::from_millis(1);

pub(crate) fn cases() -> Vec<Case> {
    let plan = Plan::of(&[Silk, Silk, Silk]).more_overlays(", \"172.16.0.0/12\"");
    vec![
        Case::new(
            "reconfigure::changes_lose_nothing_of_other_flows",
            plan,
            changes_lose_nothing,
        ),
        Case::new(
            "reconfigure::a_peer_that_is_gone_is_reached_again_when_back",
            Plan::of(&[Silk, Silk]),
            a_peer_returns,
        ),
        Case::new(
            "reconfigure::reload_as_json_warns_as_reload_does",
            Plan::of(&[Silk]),
            reload_warns_with_json_too,
        ),
    ]
}

fn changes_lose_nothing(lab: &mut Lab) -> Result {
    let third = lab.cells[2].site;
    let batch: Vec<Peer> = (0..BATCH_PEERS).map(Peer::of_batch).collect();
    let stream = NumberedStream::start(
        lab.cells[0].container()?,
        lab.cells[1].container()?,
        DATAGRAMS,
        INTERVAL,
    )?;
    let daemon = lab.cells[0].daemon()?;
    let mut rounds = 0;
    while stream.is_flowing() {
        change_everything(daemon, &third, &batch)?;
        rounds += 1;
    }
    ensure!(rounds > 0, "the load was over before the first change");
    stream.finish()?;
    ping(&lab.cells[0].container()?.namespace, third.container, 3, "")
}

fn change_everything(daemon: &mut Daemon, third: &Site, batch: &[Peer]) -> Result {
    let peer = Peer::of_site(third);
    change(daemon, &[peer.del()])?;
    change(daemon, &[peer.set("add")])?;
    change(daemon, &[peer.set("replace")])?;
    change(
        daemon,
        &batch.iter().map(|peer| peer.set("add")).collect::<Vec<_>>(),
    )?;
    daemon.hang_up()?;
    change(daemon, &batch.iter().map(Peer::del).collect::<Vec<_>>())?;
    daemon.ctl("reload")?;
    Ok(())
}

fn a_peer_returns(lab: &mut Lab) -> Result {
    let peer = Peer::of_site(&lab.cells[1].site);
    let to = lab.cells[1].site.container;
    change(lab.cells[0].daemon()?, &[peer.del()])?;
    let unreached = ping(&lab.cells[0].container()?.namespace, to, 1, "-w 1");
    ensure!(unreached.is_err(), "a peer that is no more was reached");
    change(lab.cells[0].daemon()?, &[peer.set("add")])?;
    ping(&lab.cells[0].container()?.namespace, to, 3, "")
}

fn reload_warns_with_json_too(lab: &mut Lab) -> Result {
    let daemon = lab.cells[0].daemon()?;
    let config = daemon.config()?;
    daemon.write_config(&config.replace("lanes = 1", "lanes = 2"))?;
    let socket = daemon.socket();
    let reload = |options: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_silk-vtep"))
            .arg("reload")
            .arg("--socket")
            .arg(&socket)
            .args(options)
            .output()
    };
    let (text, json) = (reload(&[])?, reload(&["-j"])?);
    let warned = String::from_utf8(text.stderr)?;
    ensure!(warned.contains("[vtep] changed"), "no warning: {warned:?}");
    ensure!(
        json.stderr == warned.as_bytes(),
        "with -j: {:?}",
        String::from_utf8_lossy(&json.stderr)
    );
    let printed: Value = serde_json::from_slice(&json.stdout)?;
    ensure!(printed["peers"] == 1, "printed {printed}");
    Ok(())
}

/// One request, one swap.
fn change(daemon: &Daemon, changes: &[Value]) -> Result {
    daemon.request(&json!({ "change": changes }))?;
    Ok(())
}

struct Peer {
    vtep: Ipv4Addr,
    prefix_length: u8,
    underlay: Ipv4Addr,
}

impl Peer {
    fn of_site(site: &Site) -> Self {
        Self {
            vtep: site.vtep,
            prefix_length: 24,
            underlay: site.underlay_v4,
        }
    }

    fn of_batch(index: u32) -> Self {
        Self {
            vtep: (u32::from(Ipv4Addr::new(172, 16, 0, 0)) + (index << 6)).into(),
            prefix_length: 26,
            underlay: (u32::from(Ipv4Addr::new(198, 18, 0, 1)) + index).into(),
        }
    }

    fn set(&self, verb: &str) -> Value {
        let subnet = format!("{}/{}", self.vtep, self.prefix_length);
        let mac = mac_text(vtep_mac(self.vtep));
        json!({ verb: { "peer": { "subnets": [subnet], "underlay": self.underlay, "mac": mac } } })
    }

    fn del(&self) -> Value {
        json!({ "del": { "peer": self.underlay } })
    }
}

//! What README.md tells people to type, typed.

use std::net::{TcpListener, TcpStream};

use super::super::Case;
use crate::support::Kind::{Kernel, Silk};
use crate::support::{Connection, Container, Daemon, Lab, Plan, Result, ensure, ping};

const README: &str = include_str!("../../README.md");

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "readme::a_host_and_a_kernel_peer_set_up_as_it_says_reach_each_other",
            Plan::of(&[Silk, Kernel]).cold(),
            a_kernel_peer_is_reached,
        ),
        Case::new(
            "readme::its_rules_mark_on_one_host_and_accept_on_the_other",
            Plan::of(&[Silk, Silk]).marks("auto").iptables(),
            rules_accept_by_mark,
        ),
    ]
}

fn a_kernel_peer_is_reached(lab: &mut Lab) -> Result {
    let site = lab.cells[0].site;
    let daemon = lab.cells[0].daemon()?;
    daemon.write_config(&block("`/etc/silk-vtep.toml` on A:")?.join("\n"))?;
    daemon.start()?;
    let a = Container::by_daemon(daemon, &site)?;

    let (host, site) = (&lab.cells[1].host, lab.cells[1].site);
    for line in block("A peer may just as well be a kernel device.")? {
        let command = line.split('#').next().unwrap_or_default();
        if !command.trim().is_empty() {
            host.exec(command)?;
        }
    }
    // `container add` needs a device, and no daemon.
    let b = Container::by_daemon(&Daemon::new(host, "")?, &site)?;
    for (client, server) in [(&a, &b), (&b, &a)] {
        ping(&client.namespace, server.address, 3, "-M do -s 1422")?;
        let connection = Connection::open(client, server)?;
        connection.upload(1_000_000)?;
        connection.download(1_000_000)?;
    }
    Ok(())
}

fn rules_accept_by_mark(lab: &mut Lab) -> Result {
    let [a, b] = [&lab.cells[0], &lab.cells[1]];
    for line in block("other's VTEP is:")? {
        if line.is_empty() {
            continue;
        }
        let (command, host) = line.split_once('#').ok_or("a rule for which host?")?;
        let host = if host.trim() == "on A" { a } else { b };
        host.host.exec(command)?;
    }
    let (client, server) = (a.container()?, (b.site.container, 8080));
    let _listener = b
        .container()?
        .namespace
        .run(|| Ok(TcpListener::bind(server)?))?;
    client.namespace.run(|| Ok(TcpStream::connect(server)?))?;
    let rules = b.host.exec("iptables -w -x -n -v -L FORWARD")?;
    let accepted = rules.lines().find(|line| line.contains("mark match 0x3"));
    let packets = accepted.and_then(|line| line.split_whitespace().next());
    ensure!(
        packets.is_some_and(|packets| packets != "0"),
        "no packet had the mark:\n{rules}"
    );
    Ok(())
}

/// The lines of the first indented block after `sentence`, without the indentation.
fn block(sentence: &str) -> Result<Vec<&'static str>> {
    let (_, rest) = README
        .split_once(sentence)
        .ok_or_else(|| format!("README.md does not say {sentence:?}"))?;
    let lines = rest.lines().skip_while(|line| !line.starts_with("    "));
    let lines = lines.take_while(|line| line.is_empty() || line.starts_with("    "));
    let lines: Vec<_> = lines.map(str::trim_start).collect();
    ensure!(!lines.is_empty(), "no block after {sentence:?}");
    Ok(lines)
}

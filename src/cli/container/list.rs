//! `container list`: of a daemon, what its registry and the kernel know; without one, what the kernel does.

use std::io::Write;
use std::net::IpAddr;

use super::super::CliError;
use super::super::args::Global;
use crate::control::client::Client;
use crate::control::container::{ContainerRequest, ContainerRow, LinkCount, LocalContainer};
use crate::control::protocol::Request;
use crate::error::SetupError;
use crate::netlink::{HostLink, Netlink, container, host_links};

/// Prints a row a container.
pub(super) fn run(global: &Global, out: &mut dyn Write) -> Result<(), CliError> {
    let rows: Vec<ContainerRow> = match Client::find(&global.socket_path())? {
        Some(mut client) => client.call(&Request::Container(ContainerRequest::List))?,
        None => of_the_kernel()?,
    };
    let text = match global.json {
        true => serde_json::to_string(&rows).map_err(std::io::Error::from)? + "\n",
        false => rows.iter().map(text).collect(),
    };
    Ok(out.write_all(text.as_bytes())?)
}

/// The containers of this namespace that are wired as Silk wires them. Whose addresses they are nobody says.
fn of_the_kernel() -> Result<Vec<ContainerRow>, SetupError> {
    let links = host_links(&mut Netlink::open()?)?;
    let mut rows: Vec<_> = links.iter().flat_map(rows_of).collect();
    rows.sort_unstable_by_key(|row| row.address);
    Ok(rows)
}

/// A link that is named after one of its peers, and the others with it: those of the other family.
fn rows_of(link: &HostLink) -> impl Iterator<Item = ContainerRow> + '_ {
    let is_a_containers = link.peers.iter().any(|peer| match peer {
        IpAddr::V4(v4) => container::host_name(*v4) == link.name,
        IpAddr::V6(_) => false,
    });
    let peers = link.peers.iter().filter(move |_| is_a_containers);
    peers.map(move |&address| {
        let container = LocalContainer::behind(link, address);
        ContainerRow::new(&container, None, Some(LinkCount::from(link)))
    })
}

/// Two lines: who it is, as `ip` has its words, and what it has sent and received.
fn text(row: &ContainerRow) -> String {
    let group = row
        .group
        .map_or_else(|| "-".to_owned(), |id| id.to_string());
    let known = [
        ("netns", &row.netns),
        ("ifname", &row.ifname),
        ("id", &row.id),
    ];
    let known: String = known
        .iter()
        .filter_map(|(key, word)| Some(format!(" {key} {}", word.as_ref()?)))
        .collect();
    let start = format!("{} dev {}", row.address, row.host_link);
    match row.link {
        None => format!("{start} gone group {group}{known}\n"),
        Some(link) => format!(
            "{start} mtu {} group {group}{known}\n    sent {} packets {} bytes  received {} packets {} bytes\n",
            link.mtu, link.tx_packets, link.tx_bytes, link.rx_packets, link.rx_bytes
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Traffic;

    #[test]
    fn a_row_is_who_it_is_and_what_it_sent() {
        let mut row: ContainerRow = serde_json::from_str(
            r#"{"address":"10.255.108.184","host_link":"s-010255108184","netns":"web","ifname":"eth0","id":"4f1c","group":3,
                "mtu":1410,"tx_packets":12,"tx_bytes":1034,"rx_packets":11,"rx_bytes":936}"#,
        )
        .expect("a row");
        assert_eq!(
            text(&row),
            "10.255.108.184 dev s-010255108184 mtu 1410 group 0x0003 netns web ifname eth0 id 4f1c\n    \
             sent 12 packets 1034 bytes  received 11 packets 936 bytes\n"
        );
        (row.link, row.group, row.ifname, row.id) = (None, None, None, None);
        assert_eq!(
            text(&row),
            "10.255.108.184 dev s-010255108184 gone group - netns web\n"
        );
    }

    #[test]
    fn a_containers_link_is_named_after_its_address() {
        let link = |name: &str, peers: &[&str]| HostLink {
            index: 7,
            name: name.to_owned(),
            mtu_bytes: 1410,
            peers: peers.iter().map(|peer| peer.parse().unwrap()).collect(),
            traffic: Traffic::default(),
        };
        let addresses = |link: &HostLink| {
            let addresses = rows_of(link).map(|row| row.address.to_string());
            addresses.collect::<Vec<_>>()
        };
        let wired = link("s-010255108002", &["10.255.108.2", "fd00::2"]);
        assert_eq!(addresses(&wired), ["10.255.108.2", "fd00::2"]);
        assert_eq!(
            addresses(&link("s-010255108003", &["10.255.108.2"])),
            [""; 0]
        );
        assert_eq!(addresses(&link("veth0", &["10.1.1.1"])), [""; 0]);
    }
}

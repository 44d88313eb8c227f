//! The daemon of this network namespace, asked before a container is wired and told after. Without one the command works all the same:
//! the next start finds the container by its link. So nothing that goes wrong between us and a daemon undoes what was done.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use super::super::args::Global;
use super::super::warn;
use crate::control::client::{Client, ClientError};
use crate::control::container::{Added, ContainerKey, ContainerRequest, LocalContainer, Removed};
use crate::control::protocol::{Network, Request};
use crate::error::SetupError;
use crate::netlink::{ContainerLinks, ContainerSpec, Namespace};

/// The daemon, if one runs here.
pub(super) struct Daemon {
    path: PathBuf,
    client: Option<Client>,
}

impl Daemon {
    /// Looks for it. One that does not answer is told of, and passed over.
    pub(super) fn find(global: &Global) -> Self {
        let path = global.socket_path();
        let client = Client::find(&path).unwrap_or_else(|error| {
            untold(&path, &error);
            None
        });
        let client = client.filter(is_of_this_namespace);
        Self { path, client }
    }

    /// Whether a container may have the address.
    ///
    /// # Errors
    /// It is not of the daemon's subnet.
    pub(super) fn check(&mut self, address: Ipv4Addr) -> Result<(), SetupError> {
        match self.ask::<Network>(&Request::Network) {
            Some(network) => check_address(address, &network),
            None => Ok(()),
        }
    }

    /// A container was wired.
    pub(super) fn added(&mut self, spec: &ContainerSpec, links: &ContainerLinks) {
        let container = LocalContainer {
            id: None,
            ifname: Some(spec.ifname.clone()),
            address: spec.address.into(),
            netns: Some(spec.namespace.label().to_owned()),
            host_link: links.host_name.clone(),
        };
        let request = Request::Container(ContainerRequest::Add(container));
        if let Some(Added { warnings }) = self.ask(&request) {
            warnings.iter().for_each(warn);
        }
    }

    /// A container was removed.
    pub(super) fn removed(&mut self, address: Ipv4Addr) {
        let key = ContainerKey::Address {
            address: address.into(),
        };
        let request = Request::Container(ContainerRequest::Del(key));
        if let Some(Removed { warnings, .. }) = self.ask(&request) {
            warnings.iter().for_each(warn);
        }
    }

    fn ask<T: serde::de::DeserializeOwned>(&mut self, request: &Request) -> Option<T> {
        let answer: Result<T, ClientError> = self.client.as_mut()?.call(request);
        answer.map_err(|error| untold(&self.path, &error)).ok()
    }
}

fn untold(path: &std::path::Path, error: &dyn std::fmt::Display) {
    let path = path.display();
    warn(format_args!("the daemon at {path} was not told: {error}"));
}

fn check_address(address: Ipv4Addr, network: &Network) -> Result<(), SetupError> {
    let subnet = network.overlay_subnet;
    if subnet.prefix_len() < subnet.max_prefix_len() && subnet.contains(&IpAddr::from(address)) {
        return Ok(());
    }
    let cause = "it is not of this cell's subnet";
    let mend = match subnet.prefix_len() == subnet.max_prefix_len() {
        true => format!("{subnet} is the VTEP's own address: this cell has no room for containers"),
        false => format!("give one inside {subnet}"),
    };
    Err(SetupError::new("add container", address.to_string(), cause).mend(mend))
}

/// Daemons of other network namespaces share our file system: theirs are other containers, whatever their addresses.
fn is_of_this_namespace(client: &Client) -> bool {
    match (client.daemon_namespace(), Namespace::current()) {
        (Some(theirs), Ok(ours)) => theirs == ours.id(),
        // Not to be known: it says itself if it has no such link.
        (None, _) | (_, Err(_)) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_an_address_of_the_subnet_if_that_has_room() {
        let told = |address: [u8; 4], subnet: &str| {
            let network = Network {
                overlay_subnet: subnet.parse().expect("a prefix"),
                overlay_subnet6: None,
                mtu: 1410,
                gso_max_segs: None,
            };
            let checked = check_address(address.into(), &network);
            checked.err().map(|error| error.to_string())
        };
        assert_eq!(told([10, 255, 108, 7], "10.255.108.0/24"), None);
        for (address, subnet, mend) in [
            (
                [10, 255, 109, 7],
                "10.255.108.0/24",
                "give one inside 10.255.108.0/24",
            ),
            (
                [10, 255, 0, 7],
                "10.255.0.7/32",
                "10.255.0.7/32 is the VTEP's own address: this cell has no room for containers",
            ),
        ] {
            let address_text = Ipv4Addr::from(address).to_string();
            let expected =
                format!("add container {address_text}: it is not of this cell's subnet ({mend})");
            assert_eq!(told(address, subnet), Some(expected));
        }
    }
}

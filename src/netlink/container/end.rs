//! One end of a container's veth pair, wired; the two differ only in who is who.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{ContainerLinks, ContainerSpec, HOST_ADDRESS, HOST_ADDRESS_V6};
use crate::error::SetupError;
use crate::netlink::address::{Address, AddressScope};
use crate::netlink::error::NetlinkError;
use crate::netlink::link::{bringing_up, setting_alias, switching_arp_off};
use crate::netlink::neighbor::Neighbor;
use crate::netlink::route::Route;
use crate::netlink::socket::{Change, Netlink};
use crate::wire::MacAddr;

/// udev may write its own MAC once after creation; whoever fights on has other plans for the link.
const MAC_ATTEMPTS: usize = 10;

/// Times the operational state is looked at: two seconds in all, twice what linkwatch takes when it has much to do (`linkwatch_nextevent`).
const CARRIER_LOOKS: usize = 2000;
/// Pause between two looks.
const CARRIER_PAUSE: Duration = Duration::from_millis(1);

/// One end.
pub(super) struct End<'a> {
    operation: &'static str,
    container: Ipv4Addr,
    pub(super) name: &'a str,
    side: Side,
    /// The host's end alone has one.
    pub(super) alias: Option<&'a str>,
    local: Inhabitant,
    peer: Inhabitant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Host,
    Container,
}

/// Who is at an end.
#[derive(Clone, Copy)]
struct Inhabitant {
    mac: MacAddr,
    v4: Ipv4Addr,
    /// `None` at both ends, or at neither.
    v6: Option<Ipv6Addr>,
}

/// A change of a batch, and what to call it if it fails.
struct Step {
    name: String,
    change: Change,
}

impl<'a> End<'a> {
    /// The host's end and the container's.
    pub(super) fn both(spec: &'a ContainerSpec, links: &'a ContainerLinks) -> (Self, Self) {
        let host = Inhabitant {
            mac: links.host_mac,
            v4: HOST_ADDRESS,
            v6: spec.address_v6.map(|_| HOST_ADDRESS_V6),
        };
        let container = Inhabitant {
            mac: links.container_mac,
            v4: spec.address,
            v6: spec.address_v6,
        };
        let ends = Self {
            operation: "set up host",
            container: spec.address,
            name: &links.host_name,
            side: Side::Host,
            alias: spec.alias.as_deref(),
            local: host,
            peer: container,
        };
        let other = Self {
            operation: "set up container",
            container: spec.address,
            name: &links.container_name,
            side: Side::Container,
            alias: None,
            local: container,
            peer: host,
        };
        (ends, other)
    }

    /// Silk's order: MAC, IPv6 off, NOARP, neighbour, address, up; reverse path filter before that, to one effect. Gives the link's number.
    pub(super) fn wire(&self, netlink: &mut Netlink) -> Result<u32, SetupError> {
        let index = self.verify_mac(netlink)?;
        for (path, value) in self.sysctls() {
            match self.set_sysctl(netlink, &path, value) {
                // A kernel without IPv6 has nothing to switch off.
                Err(error) if self.local.v6.is_none() && is_missing(&path, &error) => {}
                set => set?,
            }
        }
        let steps = self.steps(index);
        let changes: Vec<_> = steps.iter().map(|step| step.change.clone()).collect();
        match netlink.change_all(&changes) {
            Ok(()) => Ok(index),
            Err((place, error)) => self.step(&steps[place].name, Err(error)),
        }
    }

    /// Lets the host forward for the container, as it does for all.
    pub(super) fn forward(&self, netlink: &Netlink) -> Result<(), SetupError> {
        for (path, value) in self.host_sysctls() {
            self.set_sysctl(netlink, path, value)?;
        }
        Ok(())
    }

    /// Switches of the link, and what they are to be.
    pub(super) fn sysctls(&self) -> Vec<(String, &'static str)> {
        let name = self.name;
        let mut sysctls = vec![(format!("net/ipv4/conf/{name}/rp_filter"), "1")];
        let v6 = |key: &str| format!("net/ipv6/conf/{name}/{key}");
        if self.local.v6.is_some() {
            sysctls.push((v6("disable_ipv6"), "0"));
            // No address but those given: IN6_ADDR_GEN_MODE_NONE, and no router is believed.
            sysctls.push((v6("addr_gen_mode"), "1"));
            sysctls.push((v6("accept_ra"), "0"));
        } else {
            sysctls.push((v6("disable_ipv6"), "1"));
        }
        sysctls
    }

    /// Switches of the whole host.
    pub(super) fn host_sysctls(&self) -> Vec<(&'static str, &'static str)> {
        let v6 = self.local.v6.map(|_| ("net/ipv6/conf/all/forwarding", "1"));
        [("net/ipv4/ip_forward", "1")]
            .into_iter()
            .chain(v6)
            .collect()
    }

    /// Its addresses.
    pub(super) fn addresses(&self, index: u32) -> Vec<Address> {
        let v4 = Address {
            interface: index,
            local: self.local.v4.into(),
            peer: Some(self.peer.v4.into()),
            prefix_len: 32,
            scope: AddressScope::Link,
            no_prefix_route: false,
            no_dad: false,
        };
        let v6 = self.local.v6.map(|local| Address {
            local: local.into(),
            peer: None,
            prefix_len: 128,
            // The kernel derives the scope of an IPv6 address from the address.
            scope: match self.side {
                Side::Host => AddressScope::Link,
                Side::Container => AddressScope::Global,
            },
            no_dad: true,
            ..v4
        });
        [Some(v4), v6].into_iter().flatten().collect()
    }

    /// Whom it knows without asking: the other end.
    pub(super) fn neighbors(&self, index: u32) -> Vec<Neighbor> {
        let v6 = self.peer.v6.map(IpAddr::from);
        let addresses = [Some(self.peer.v4.into()), v6].into_iter().flatten();
        let neighbor = |address| Neighbor::permanent(index, address, self.peer.mac);
        addresses.map(neighbor).collect()
    }

    /// Routes beside that of the point-to-point address: the container's default routes, and the host's to an IPv6 address, which has no
    /// peer to make one.
    pub(super) fn routes(&self, index: u32) -> Vec<Route> {
        let default = |destination: IpNet, source: IpAddr, gateway: IpAddr| Route {
            source: Some(source),
            ..Route::via(destination, gateway, index)
        };
        match self.side {
            Side::Host => {
                let v6 = self
                    .peer
                    .v6
                    .map(|peer| Route::connected(IpAddr::from(peer).into(), index));
                v6.into_iter().collect()
            }
            Side::Container => {
                let v4 = default(
                    Ipv4Net::default().into(),
                    self.local.v4.into(),
                    self.peer.v4.into(),
                );
                let v6 = self.local.v6.zip(self.peer.v6).map(|(local, peer)| {
                    default(Ipv6Net::default().into(), local.into(), peer.into())
                });
                [Some(v4), v6].into_iter().flatten().collect()
            }
        }
    }

    /// The kernel's route to the other end, which comes with the address.
    pub(super) fn connected(&self, index: u32) -> Route {
        Route::connected(IpAddr::from(self.peer.v4).into(), index)
    }

    /// Its MAC.
    pub(super) fn mac(&self) -> MacAddr {
        self.local.mac
    }

    /// Waits until the end sends. It came up without its peer, so that it drops all it is given until the kernel's linkwatch has seen the
    /// carrier (`dev_activate`), which also makes the operational state UP. One that takes longer works all the same, later.
    pub(super) fn await_carrier(
        &self,
        netlink: &mut Netlink,
        index: u32,
    ) -> Result<(), SetupError> {
        for _ in 0..CARRIER_LOOKS {
            let link = self.step("look up", netlink.link(index))?;
            let link = link.ok_or_else(|| self.failed(format!("{} is gone", self.name)))?;
            if link.operstate == "UP" {
                break;
            }
            std::thread::sleep(CARRIER_PAUSE);
        }
        Ok(())
    }

    /// Whose it is comes first of all; NOARP before neighbours, since it flushes them; routes after the link is up, since they need it.
    fn steps(&self, index: u32) -> Vec<Step> {
        let step = |name: String, change| Step { name, change };
        let alias = self
            .alias
            .map(|alias| step(format!("set alias {alias}"), setting_alias(index, alias)));
        let mut steps: Vec<_> = alias.into_iter().collect();
        steps.push(step("set NOARP".to_owned(), switching_arp_off(index)));
        for neighbor in self.neighbors(index) {
            let (address, mac) = (neighbor.address, self.peer.mac);
            let name = format!("add neighbor {address} lladdr {mac}");
            steps.push(step(name, neighbor.replacement()));
        }
        for address in self.addresses(index) {
            let peer = address.peer.map(|peer| format!(" peer {peer}/32"));
            let name = format!("add address {}{}", address.local, peer.unwrap_or_default());
            steps.push(step(name, address.addition()));
        }
        steps.push(step("bring up".to_owned(), bringing_up(index)));
        for route in self.routes(index) {
            let name = match route.gateway {
                Some(gateway) => format!("add default route via {gateway}"),
                None => format!("add route {}", route.destination),
            };
            steps.push(step(name, route.addition()));
        }
        steps
    }

    /// The MAC given at creation is checked, and set again a few times if something else was faster.
    fn verify_mac(&self, netlink: &mut Netlink) -> Result<u32, SetupError> {
        let mac = self.local.mac;
        for _ in 0..MAC_ATTEMPTS {
            let found = self.step("look up", netlink.link_named(self.name))?;
            let Some(link) = found else {
                return Err(self.failed(format!("{} is gone", self.name)));
            };
            if link.mac == Some(mac) {
                return Ok(link.index);
            }
            self.step(&format!("set MAC {mac}"), netlink.set_mac(link.index, mac))?;
        }
        let cause = format!("{} does not keep the MAC {mac}", self.name);
        Err(self
            .failed(cause)
            .mend("udev or systemd changes it: MACAddressPolicy=none for this link"))
    }

    fn set_sysctl(&self, netlink: &Netlink, path: &str, value: &str) -> Result<(), SetupError> {
        match netlink.namespace().set_sysctl(path, value) {
            Ok(_) => Ok(()),
            Err(error) => Err(self
                .failed(format!("{path}={value}: {}", error.cause))
                .mend(error.mend)),
        }
    }

    fn step<T>(&self, step: &str, result: Result<T, NetlinkError>) -> Result<T, SetupError> {
        let object = self.container.to_string();
        result.map_err(|error| error.setup_step(self.operation, &object, step))
    }

    fn failed(&self, cause: String) -> SetupError {
        SetupError::new(self.operation, self.container.to_string(), cause)
    }
}

/// True if `error` is of a switch of IPv6's that the kernel does not have.
fn is_missing(path: &str, error: &SetupError) -> bool {
    path.starts_with("net/ipv6/") && error.cause.ends_with("ENOENT")
}

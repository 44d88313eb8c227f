//! The registry of this cell's containers: who has which address of our subnets.
//!
//! Whoever wires a container tells it ([`LocalContainer`]). Nothing is delivered by it: the kernel's routes do that, so that a container
//! the registry does not know is reached all the same. It tells the packet path which addresses are containers
//! ([`ContainerTable`]), and the operator whose they are.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::config::VtepConfig;
use super::container::{ContainerKey, LocalContainer};
use super::container_store::Stored;
use crate::netlink::HostLink;
use crate::tables::ContainerTable;

/// Bytes of an id and of a namespace's path (PATH_MAX); a runtime's ids have 64.
const WORD_BYTES_MAX: usize = 4096;

/// All containers of this cell, by address.
#[derive(Clone, Debug)]
pub struct Containers {
    /// Our own addresses, which no container has.
    own: Vec<IpAddr>,
    subnets: Vec<IpNet>,
    held: BTreeMap<IpAddr, Registered>,
}

/// A container of the registry, as it is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registered {
    /// Who it is.
    pub container: LocalContainer,
    /// The number of the host's end: a link of that name made anew has another, and is another container's.
    pub link_index: u32,
}

/// Why the registry does not take a container.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("container {address}: {reason}")]
pub struct ContainerRefusal {
    /// The address that was offered.
    pub address: IpAddr,
    /// What is wrong.
    pub reason: String,
}

impl Containers {
    /// An empty registry of the VTEP `vtep`.
    #[must_use]
    pub fn new(vtep: &VtepConfig) -> Self {
        Self {
            own: vtep.addresses.clone(),
            subnets: vtep.subnets.clone(),
            held: BTreeMap::new(),
        }
    }

    /// Takes a container whose host's end is `link`; true if anything changed. One whose link has been made anew since is gone, and gives
    /// way.
    ///
    /// # Errors
    /// The address cannot be a container's here, or is another's.
    pub fn add(
        &mut self,
        container: LocalContainer,
        link: &HostLink,
    ) -> Result<bool, ContainerRefusal> {
        let address = container.address;
        self.check(&container)
            .map_err(|reason| ContainerRefusal { address, reason })?;
        let held = self.held.get(&address);
        let held = held.filter(|held| held.link_index == link.index);
        let offered = match held.map(|held| &held.container) {
            None => container,
            Some(held) if is_another(held, &container) => {
                let reason = format!("the address belongs to container {held}");
                return Err(ContainerRefusal { address, reason });
            }
            Some(held) => joined(container, held),
        };
        let next = Registered {
            container: offered,
            link_index: link.index,
        };
        let changed = self.held.get(&address) != Some(&next);
        self.held.insert(address, next);
        Ok(changed)
    }

    /// Whether the container with this address had another link than `link`: it went without a word.
    #[must_use]
    pub fn is_made_anew(&self, address: IpAddr, link: &HostLink) -> bool {
        let held = self.held.get(&address);
        held.is_some_and(|held| held.link_index != link.index)
    }

    /// Forgets the containers that `key` means, with the other addresses behind their links; true if there were any.
    pub fn remove(&mut self, key: &ContainerKey) -> bool {
        let meant = self.held.values().filter(|held| held.container.is(key));
        let gone: Vec<_> = meant.cloned().collect();
        let goes_with = |held: &Registered, gone: &Registered| {
            held.link_index == gone.link_index && !is_another(&held.container, &gone.container)
        };
        self.held
            .retain(|_, held| !gone.iter().any(|gone| goes_with(held, gone)));
        !gone.is_empty()
    }

    /// Every container, by address.
    pub fn iter(&self) -> impl Iterator<Item = &Registered> {
        self.held.values()
    }

    /// What the packet path knows of them.
    #[must_use]
    pub fn table(&self) -> ContainerTable {
        self.held.keys().copied().collect()
    }

    /// Finds the containers again after a restart: those that were `saved`, less the ones whose link is gone; those that only the kernel
    /// knows, by their `links`; and what Silk's datastore tells of both. Tells what had to be left out, a line each.
    pub fn restore(
        &mut self,
        saved: Vec<Registered>,
        links: &[HostLink],
        stored: &[Stored],
    ) -> Vec<String> {
        let mut told = Vec::new();
        for Registered {
            container,
            link_index,
        } in saved
        {
            let same =
                |link: &&HostLink| link.index == link_index && link.name == container.host_link;
            let Some(link) = links.iter().find(same) else {
                let (host_link, name) = (&container.host_link, &container);
                told.push(format!(
                    "container {name} is forgotten: its link {host_link} is gone"
                ));
                continue;
            };
            let added = self.add(container, link);
            told.extend(added.err().map(|refusal| left_out(&refusal)));
        }
        for link in links {
            self.adopt(link);
        }
        for stored in stored {
            let refused =
                stored_addresses(stored).filter_map(|address| self.name(address, stored).err());
            told.extend(refused.map(|refusal| left_out(&refusal)));
        }
        told
    }

    /// Takes what was `saved` without looking whether it is still there. Tells what cannot be.
    pub fn trust(&mut self, saved: Vec<Registered>) -> Vec<String> {
        let mut told = Vec::new();
        for registered in saved {
            let address = registered.container.address;
            match self.check(&registered.container) {
                Ok(()) => drop(self.held.insert(address, registered)),
                Err(reason) => told.push(left_out(&ContainerRefusal { address, reason })),
            }
        }
        told
    }

    /// Takes the containers behind `link` that nobody told us of. What is no container's address here is none of ours.
    fn adopt(&mut self, link: &HostLink) {
        for &address in &link.peers {
            if self.held.contains_key(&address) {
                continue;
            }
            // Refused: another VTEP's, in the same namespace.
            drop(self.add(LocalContainer::behind(link, address), link));
        }
    }

    /// Says who a container is that was known by its address alone.
    fn name(&mut self, address: IpAddr, stored: &Stored) -> Result<(), ContainerRefusal> {
        if !self.in_our_subnet(address) {
            // Another VTEP's.
            return Ok(());
        }
        let refused = |reason| ContainerRefusal { address, reason };
        let Some(held) = self.held.get(&address) else {
            let key = stored.key.escape_debug();
            return Err(refused(format!(
                "the datastore has it as {key}, and it has no link"
            )));
        };
        if held.container.id.is_some() {
            return Ok(());
        }
        let attachment = stored.attachment.as_ref();
        // Silk keeps the last part of the namespace's path, and of `/proc/PID/ns/net` that names none.
        let base_name = (stored.key != "net").then_some(&stored.key);
        let netns = attachment.map(|attachment| &attachment.netns).or(base_name);
        let mut named = held.clone();
        named.container.id = attachment
            .map(|attachment| attachment.container_id.clone())
            .or_else(|| stored.handle.clone());
        named.container.ifname = attachment.map(|attachment| attachment.ifname.clone());
        named.container.netns = netns.cloned();
        self.check(&named.container).map_err(refused)?;
        self.held.insert(address, named);
        Ok(())
    }

    fn check(&self, container: &LocalContainer) -> Result<(), String> {
        self.check_address(container.address)?;
        check_word("id", container.id.as_deref())?;
        check_word("ifname", container.ifname.as_deref())?;
        check_word("netns", container.netns.as_deref())
    }

    fn check_address(&self, address: IpAddr) -> Result<(), String> {
        if !self.in_our_subnet(address) {
            let subnets: Vec<_> = self.subnets.iter().map(IpNet::to_string).collect();
            return Err(format!(
                "the address is not of this cell's subnet (accepted: inside {})",
                subnets.join(" or ")
            ));
        }
        if self.own.contains(&address) {
            return Err("the address is this VTEP's own".to_owned());
        }
        Ok(())
    }

    fn in_our_subnet(&self, address: IpAddr) -> bool {
        self.subnets.iter().any(|subnet| subnet.contains(&address))
    }
}

/// True if both are known, and are not the same.
fn is_another(held: &LocalContainer, offered: &LocalContainer) -> bool {
    let differ = |a: &Option<String>, b: &Option<String>| a.is_some() && b.is_some() && a != b;
    differ(&held.id, &offered.id) || differ(&held.ifname, &offered.ifname)
}

/// `offered`, and of `held` what it does not say.
fn joined(offered: LocalContainer, held: &LocalContainer) -> LocalContainer {
    LocalContainer {
        id: offered.id.or_else(|| held.id.clone()),
        ifname: offered.ifname.or_else(|| held.ifname.clone()),
        netns: offered.netns.or_else(|| held.netns.clone()),
        ..offered
    }
}

/// It is printed to terminals, and kept.
fn check_word(key: &str, word: Option<&str>) -> Result<(), String> {
    match word {
        Some("") => Err(format!("{key} is empty")),
        Some(word) if word.len() > WORD_BYTES_MAX => {
            Err(format!("{key} is longer than {WORD_BYTES_MAX} bytes"))
        }
        Some(word) if word.contains(char::is_control) => {
            Err(format!("{key} has control characters"))
        }
        Some(_) | None => Ok(()),
    }
}

fn stored_addresses(stored: &Stored) -> impl Iterator<Item = IpAddr> + use<> {
    let attachment = stored.attachment.as_ref();
    let v6 = attachment.and_then(|attachment| attachment.ipv6);
    [stored.address.into()]
        .into_iter()
        .chain(v6.map(IpAddr::V6))
}

fn left_out(refusal: &ContainerRefusal) -> String {
    format!("left out: {refusal}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::container_store::Attachment;
    use crate::control::fixtures::{CONFIG, config, container, ip};
    use crate::netlink::Traffic;

    fn registry() -> Containers {
        Containers::new(&config(CONFIG).vtep)
    }

    fn link(last: u8, index: u32) -> HostLink {
        HostLink {
            name: format!("s-010255108{last:03}"),
            index,
            peers: vec![[10, 255, 108, last].into()],
            mtu_bytes: 1410,
            traffic: Traffic::default(),
        }
    }

    fn unknown(last: u8) -> LocalContainer {
        LocalContainer {
            id: None,
            ifname: None,
            netns: None,
            ..container("", last)
        }
    }

    fn all(registry: &Containers) -> Vec<LocalContainer> {
        let all = registry.iter().map(|held| held.container.clone());
        all.collect()
    }

    fn attachment(id: &str) -> ContainerKey {
        ContainerKey::Attachment {
            id: id.to_owned(),
            ifname: "eth0".to_owned(),
        }
    }

    #[test]
    fn a_container_is_there_until_it_is_taken_back() {
        let mut registry = registry();
        assert_eq!(registry.add(container("a", 2), &link(2, 7)), Ok(true));
        assert_eq!(registry.add(container("a", 2), &link(2, 7)), Ok(false));
        assert_eq!(registry.add(container("b", 3), &link(3, 8)), Ok(true));
        assert!(registry.remove(&attachment("a")));
        assert!(!registry.remove(&attachment("a")));
        assert_eq!(all(&registry), [container("b", 3)]);
        let address = ip("10.255.108.3");
        assert!(registry.remove(&ContainerKey::Address { address }));
        assert_eq!(all(&registry), []);
    }

    #[test]
    fn an_attachment_with_an_address_of_each_family_goes_as_one() {
        let mut registry = Containers {
            subnets: vec![
                "10.255.108.0/24".parse().unwrap(),
                "fd00::/64".parse().unwrap(),
            ],
            ..registry()
        };
        let v6 = LocalContainer {
            address: ip("fd00::2"),
            ..container("a", 2)
        };
        let address = ip("10.255.108.2");
        for key in [attachment("a"), ContainerKey::Address { address }] {
            for one in [container("a", 2), v6.clone()] {
                assert_eq!(registry.add(one, &link(2, 7)), Ok(true));
            }
            registry.add(container("b", 3), &link(3, 8)).expect("free");
            assert!(registry.remove(&key));
            assert_eq!(all(&registry), [container("b", 3)]);
        }
    }

    #[test]
    fn an_address_belongs_to_one_container() {
        let mut registry = registry();
        registry.add(container("a", 2), &link(2, 7)).expect("free");
        let eth1 = LocalContainer {
            ifname: Some("eth1".to_owned()),
            ..container("a", 2)
        };
        for other in [container("b", 2), eth1] {
            let refused = registry.add(other, &link(2, 7)).expect_err("it is a's");
            assert_eq!(
                refused.to_string(),
                "container 10.255.108.2: the address belongs to container 10.255.108.2 (a eth0)"
            );
        }
        assert_eq!(all(&registry), [container("a", 2)]);
        // The link was made anew: a went without a word.
        assert_eq!(registry.add(container("b", 2), &link(2, 9)), Ok(true));
        assert_eq!(all(&registry), [container("b", 2)]);
    }

    #[test]
    fn whoever_says_more_of_a_container_is_heard() {
        let mut registry = registry();
        registry.add(unknown(2), &link(2, 7)).expect("free");
        assert_eq!(registry.add(container("a", 2), &link(2, 7)), Ok(true));
        assert_eq!(registry.add(unknown(2), &link(2, 7)), Ok(false));
        assert_eq!(all(&registry), [container("a", 2)]);
    }

    #[test]
    fn what_cannot_be_a_container_here_is_refused_with_its_reason() {
        let long = "x".repeat(WORD_BYTES_MAX + 1);
        let with = |change: fn(&mut LocalContainer, String), word: &str| {
            let mut changed = container("a", 2);
            change(&mut changed, word.to_owned());
            changed
        };
        let address = |c: &mut LocalContainer, word: String| c.address = ip(&word);
        let id = |c: &mut LocalContainer, word: String| c.id = Some(word);
        let netns = |c: &mut LocalContainer, word: String| c.netns = Some(word);
        for (offered, reason) in [
            (
                with(address, "10.255.43.6"),
                "the address is not of this cell's subnet (accepted: inside 10.255.108.0/24)",
            ),
            (with(address, "fd00::1"), "the address is not of this cell"),
            (
                with(address, "10.255.108.0"),
                "the address is this VTEP's own",
            ),
            (with(id, ""), "id is empty"),
            (with(id, &long), "id is longer than 4096 bytes"),
            (with(netns, "a\x1b[2J"), "netns has control characters"),
        ] {
            let mut registry = registry();
            let refused = registry.add(offered, &link(2, 7)).expect_err(reason);
            assert!(refused.reason.starts_with(reason), "{refused}");
            assert_eq!(all(&registry), []);
        }
    }

    #[test]
    fn a_subnet_of_one_address_has_no_room() {
        let text = CONFIG.replace("lanes = 2", "lanes = 2\nsubnet_prefix_length = 32");
        let text = text.split("[[group]]").next().expect("the first part");
        let mut registry = Containers::new(&config(text).vtep);
        for last in [0, 2] {
            registry
                .add(container("a", last), &link(last, 7))
                .expect_err("no room");
        }
    }

    fn saved(container: LocalContainer, link_index: u32) -> Registered {
        Registered {
            container,
            link_index,
        }
    }

    #[test]
    fn a_restart_finds_containers_by_disk_kernel_and_datastore() {
        let mut registry = registry();
        let silks = |key: &str, address: [u8; 4]| Stored {
            key: key.to_owned(),
            handle: Some(format!("of {key}")),
            address: address.into(),
            attachment: None,
        };
        let attachment = Attachment {
            container_id: "d".to_owned(),
            ifname: "eth0".to_owned(),
            network: "silk".to_owned(),
            netns: "/var/run/netns/d".to_owned(),
            mtu: 1410,
            ipv6: None,
        };
        let stored = [
            silks("c", [10, 255, 108, 4]),
            Stored {
                attachment: Some(attachment),
                ..silks("elsewhere", [10, 255, 108, 5])
            },
            // Known better.
            silks("net", [10, 255, 108, 2]),
            silks("gone", [10, 255, 108, 9]),
            // Of another network on this host.
            silks("other", [10, 254, 1, 2]),
        ];
        let foreign = HostLink {
            name: "s-010254001002".to_owned(),
            peers: vec![ip("10.254.1.2")],
            ..link(2, 20)
        };
        let links = [link(2, 7), link(3, 8), link(4, 9), link(5, 11), foreign];
        let told = registry.restore(
            vec![
                saved(container("a", 2), 7),
                // Its name was given to another link since.
                saved(container("b", 3), 5),
                saved(container("x", 6), 6),
            ],
            &links,
            &stored,
        );
        let named = LocalContainer {
            id: Some("of c".to_owned()),
            netns: Some("c".to_owned()),
            ..unknown(4)
        };
        assert_eq!(
            all(&registry),
            [container("a", 2), unknown(3), named, container("d", 5)]
        );
        assert_eq!(
            told,
            [
                "container 10.255.108.3 (b eth0) is forgotten: its link s-010255108003 is gone",
                "container 10.255.108.6 (x eth0) is forgotten: its link s-010255108006 is gone",
                "left out: container 10.255.108.9: the datastore has it as gone, and it has no link",
            ]
        );
    }

    #[test]
    fn the_datastore_names_nobody_with_what_a_terminal_would_obey() {
        let mut registry = registry();
        let stored = |last, key: &str| Stored {
            key: key.to_owned(),
            handle: Some("c1".to_owned()),
            address: [10, 255, 108, last].into(),
            attachment: None,
        };
        let stored = [stored(2, "a\x1b[2J"), stored(3, "b\x1b[2J")];
        let told = registry.restore(vec![], &[link(2, 7)], &stored);
        assert_eq!(all(&registry), [unknown(2)]);
        assert_eq!(
            told,
            [
                "left out: container 10.255.108.2: netns has control characters",
                "left out: container 10.255.108.3: the datastore has it as b\\u{1b}[2J, and it has no link",
            ]
        );
    }

    #[test]
    fn a_restart_with_another_subnet_leaves_out_what_does_not_fit() {
        let text = CONFIG.replace("10.255.108.", "10.255.109.");
        let mut registry = Containers::new(&config(&text).vtep);
        let told = registry.restore(vec![saved(container("a", 2), 7)], &[link(2, 7)], &[]);
        assert_eq!(all(&registry), []);
        assert!(
            told[0].starts_with("left out: container 10.255.108.2: the address is not of this"),
            "{told:?}"
        );
    }
}

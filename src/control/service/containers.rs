//! What control does for this cell's containers: tells what they are wired with, keeps their registry, shows it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Control;
use super::Master;
use crate::control::StateFile;
use crate::control::config::VtepConfig;
use crate::control::container::{
    Added, ContainerKey, ContainerRequest, ContainerRow, HostLinkSource, LinkCount, LocalContainer,
    Removed,
};
use crate::control::container_store::{ContainerStore, Entries};
use crate::control::containers::{Containers, Registered};
use crate::control::protocol::{Failure, Network, Reply};
use crate::netlink::HostLink;
use crate::tables::MarkSource;

/// What this cell's containers are wired with, and found again by.
pub struct ContainerOptions {
    /// The device's MTU.
    pub mtu_bytes: u32,
    /// Segments of the largest super-frame that one send carries; `None`: as many as the kernel likes.
    pub gso_max_segs: Option<u32>,
    /// Where the registry is kept; `None`: a restart has the kernel alone to find containers by.
    pub state: Option<StateFile<Registered>>,
    /// Tells what the kernel knows of the host's ends.
    pub links: HostLinkSource,
    /// Silk's record of its containers, read at the start.
    pub datastore: Option<ContainerStore>,
}

impl ContainerOptions {
    /// The registry as an earlier start left it, as far as the kernel still has it, and what had to be left out.
    pub(super) fn restore(&self, vtep: &VtepConfig) -> (Containers, Vec<String>) {
        let mut containers = Containers::new(vtep);
        let (saved, damage) = (self.state.as_ref()).map_or_else(Default::default, StateFile::load);
        let mut told: Vec<_> = damage.into_iter().collect();
        let stored = self.datastore.as_ref().map(ContainerStore::read);
        let stored = match stored.transpose() {
            Ok(entries) => entries.unwrap_or_default(),
            Err(error) => {
                told.push(format!("starting without the datastore: {error}"));
                Entries::default()
            }
        };
        let stored: Vec<_> = stored.containers().collect();
        match (self.links)(None) {
            Ok(links) => told.extend(containers.restore(saved, &links, &stored)),
            Err(error) => {
                told.push(format!("containers are as they were, unseen: {error}"));
                told.extend(containers.trust(saved));
            }
        }
        (containers, told)
    }

    fn save(&self, containers: &Containers) -> Vec<String> {
        let Some(state) = &self.state else {
            return Vec::new();
        };
        let all: Vec<_> = containers.iter().collect();
        let saved = state.save(&all);
        let failed = |error| format!("changed, but not for the next start: {error}");
        saved.err().map(failed).into_iter().collect()
    }
}

impl Control {
    /// What a container of this cell is wired with. Of two subnets it is the IPv4 one, which containers have their addresses of.
    ///
    /// # Errors
    /// This VTEP has no overlay address, and so no subnet.
    pub fn network(&self) -> Result<Network, Failure> {
        let subnets = &self.vtep.subnets;
        let v4 = subnets.iter().find(|subnet| subnet.addr().is_ipv4());
        let subnet = v4.or(subnets.first());
        let none = || {
            Failure::new("this VTEP has no subnet for containers (give it an overlay `address`)")
        };
        Ok(Network {
            overlay_subnet: *subnet.ok_or_else(none)?,
            overlay_subnet6: subnets.iter().find_map(|subnet| match subnet {
                IpNet::V6(subnet) => Some(*subnet),
                IpNet::V4(_) => None,
            }),
            mtu: self.options.containers.mtu_bytes,
            gso_max_segs: self.options.containers.gso_max_segs,
        })
    }

    pub(super) fn container(&self, request: &ContainerRequest) -> Result<Reply, Failure> {
        Ok(match request {
            ContainerRequest::Add(container) => Reply::Added(self.add_container(container)?),
            ContainerRequest::Del(key) => Reply::Removed(self.remove_container(key)),
            ContainerRequest::List => Reply::Containers(self.containers()?),
        })
    }

    /// Registers a container that was wired here.
    ///
    /// # Errors
    /// The address is another's or cannot be a container's, there is no such link, or the kernel cannot be asked for it.
    pub fn add_container(&self, container: &LocalContainer) -> Result<Added, Failure> {
        let link = self.host_link(container)?;
        let address = container.address;
        let mut master = self.master.lock();
        let is_anothers_heir = master.containers.is_made_anew(address, &link);
        let changed = master.containers.add(container.clone(), &link);
        if !changed.map_err(Failure::new)? {
            return Ok(Added::default());
        }
        let warnings = self.publish_containers(&master);
        drop(master);
        if is_anothers_heir {
            self.options.guard.flows.forget(address);
        }
        Ok(Added { warnings })
    }

    /// Forgets containers, and the flows that they began.
    pub fn remove_container(&self, key: &ContainerKey) -> Removed {
        let mut master = self.master.lock();
        let mut gone = addresses(&master.containers);
        if !master.containers.remove(key) {
            return Removed::default();
        }
        let left = addresses(&master.containers);
        gone.retain(|address| !left.contains(address));
        let warnings = self.publish_containers(&master);
        drop(master);
        for address in gone {
            self.options.guard.flows.forget(address);
        }
        Removed {
            removed: true,
            warnings,
        }
    }

    /// Every registered container, by address, with what its link has carried.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn containers(&self) -> Result<Vec<ContainerRow>, Failure> {
        let links = (self.options.containers.links)(None).map_err(Failure::new)?;
        let master = self.master.lock();
        let tables = self.tables.load();
        let row = |held: &Registered| {
            let address = held.container.address;
            let link = links.iter().find(|link| link.index == held.link_index);
            let group = match self.options.marks {
                MarkSource::Table => tables.groups.lookup(address),
                // iptables' rules have it, or nobody.
                MarkSource::Packet | MarkSource::Off => None,
            };
            ContainerRow::new(&held.container, group, link.map(LinkCount::from))
        };
        Ok(master.containers.iter().map(row).collect())
    }

    fn host_link(&self, container: &LocalContainer) -> Result<HostLink, Failure> {
        let name = container.host_link.as_str();
        let found = (self.options.containers.links)(Some(name)).map_err(Failure::new)?;
        found.into_iter().next().ok_or_else(|| {
            Failure::new(format!(
                "container {container}: no link {name} in the daemon's network namespace (wire it first, and there)"
            ))
        })
    }

    /// Swaps the registry in, and keeps it for the next start. Tells what could not be.
    fn publish_containers(&self, master: &Master) -> Vec<String> {
        let containers = master.containers.table();
        let next = self.tables.load().with_containers(containers);
        self.tables.store(std::sync::Arc::new(next));
        self.options.containers.save(&master.containers)
    }
}

fn addresses(containers: &Containers) -> BTreeSet<IpAddr> {
    let held = containers.iter();
    held.map(|held| held.container.address).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::control::fixtures::{self, container};
    use crate::control::{Change, Origin};
    use crate::tables::Tables;
    use crate::wire::GroupId;

    fn start(directory: &Path) -> Arc<Control> {
        let (control, warnings) = fixtures::control(directory);
        assert_eq!(warnings, [""; 0]);
        control
    }

    /// Of whom the registry knows: address and id.
    fn known(control: &Control) -> Vec<(String, Option<String>)> {
        let rows = control.containers().expect("the links are told");
        let known = rows
            .into_iter()
            .map(|row| (row.address.to_string(), row.id));
        known.collect()
    }

    #[test]
    fn network_is_what_containers_are_wired_with() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let network = start(directory.path())
            .network()
            .expect("it has an address");
        assert_eq!(network.overlay_subnet.to_string(), "10.255.108.0/24");
        assert_eq!((network.mtu, network.gso_max_segs), (1410, Some(45)));
    }

    #[test]
    fn a_lease_of_one_address_is_a_network_too() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let text = "[vtep]\nlocal = '10.0.32.12'\naddress = '10.255.0.7'\noverlay = '10.255.0.0/16'\nsubnet_prefix_length = 32";
        let (control, warnings) = fixtures::control_of(text, directory.path());
        assert_eq!(warnings, [""; 0]);
        let network = control.network().expect("it has an address");
        assert_eq!(network.overlay_subnet.to_string(), "10.255.0.7/32");
    }

    #[test]
    fn containers_are_found_by_the_kernel_and_by_disk() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let control = start(directory.path());
        let unnamed = ["10.255.108.2", "10.255.108.3"].map(|ip| (ip.to_owned(), None));
        assert_eq!(known(&control), unnamed);
        let added = control.add_container(&container("a", 2));
        assert_eq!(added, Ok(Added::default()));
        drop(control);
        let control = start(directory.path());
        let named = ("10.255.108.2".to_owned(), Some("a".to_owned()));
        assert_eq!(known(&control), [named, unnamed[1].clone()]);
    }

    #[test]
    fn a_container_is_in_the_next_snapshot_and_gone_when_taken_back() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let control = start(directory.path());
        let address = container("a", 3).address;
        let key = ContainerKey::Address { address };
        let has = |snapshot: &Tables| snapshot.containers.contains(address);
        let before = control.tables().load_full();
        assert!(control.remove_container(&key).removed);
        let without = control.tables().load_full();
        assert!(has(&before) && !has(&without));
        assert!(!control.remove_container(&key).removed);
        assert!(Arc::ptr_eq(&without, &control.tables().load()));
        control.add_container(&container("a", 3)).expect("free");
        assert!(has(&control.tables().load()));
    }

    #[test]
    fn the_flows_of_a_container_go_with_it() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let control = start(directory.path());
        let flows = &control.options.guard.flows;
        let now = flows.moment(std::time::Instant::now());
        let begin = |n: u8| {
            let mut frame = Vec::new();
            etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
                .ipv4([10, 255, 108, n], [10, 255, 43, 6], 64)
                .udp(4000, 53)
                .write(&mut frame, b"")
                .expect("a Vec takes all");
            flows.note_frame(&frame, now);
        };
        let entries = || flows.counts(now).entries;
        control.add_container(&container("a", 2)).expect("free");
        control.add_container(&container("b", 3)).expect("free");
        begin(2);
        begin(3);
        let key = ContainerKey::Attachment {
            id: "a".to_owned(),
            ifname: "eth0".to_owned(),
        };
        assert!(control.remove_container(&key).removed);
        assert_eq!(entries(), 1);
        // One that is told of twice keeps its flows.
        control.add_container(&container("b", 3)).expect("free");
        assert_eq!(entries(), 1);
        // And one whose link was made anew is another, with no word of the first one's end.
        control.master.lock().containers = {
            let mut containers = crate::control::Containers::new(&control.vtep);
            let link = HostLink {
                index: 99,
                ..(control.host_link(&container("b", 3))).expect("it is there")
            };
            containers.add(container("b", 3), &link).expect("free");
            containers
        };
        control.add_container(&container("c", 3)).expect("free");
        assert_eq!(entries(), 0);
    }

    #[test]
    fn a_container_without_a_link_is_refused() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let control = start(directory.path());
        let refused = control
            .add_container(&container("a", 9))
            .expect_err("no link");
        assert_eq!(
            refused.message,
            "container 10.255.108.9 (a eth0): no link s-010255108009 in the daemon's network namespace (wire it first, and there)"
        );
        assert_eq!(known(&control).len(), 2);
    }

    #[test]
    fn a_row_has_the_group_of_the_table_and_the_traffic_as_the_container_sees_it() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let control = start(directory.path());
        let group = fixtures::group("10.255.108.3", 5);
        control
            .apply(&[Change::Add(group)], Origin::Live)
            .expect("free");
        let rows = control.containers().expect("the links are told");
        assert_eq!(rows[0].group, None);
        assert_eq!(rows[1].group, Some(GroupId(5)));
        let link = rows[1].link.expect("it has a link");
        assert_eq!((link.mtu, link.tx_packets, link.rx_packets), (1410, 30, 0));
    }

    #[test]
    fn what_was_saved_is_kept_while_the_kernel_cannot_be_asked() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = || StateFile::of_containers(directory.path().join("containers.json"));
        let saved = Registered {
            container: container("a", 9),
            link_index: 9,
        };
        file().save(&[&saved]).expect("the directory is ours");
        let options = ContainerOptions {
            mtu_bytes: 1410,
            gso_max_segs: None,
            state: Some(file()),
            links: Box::new(|_| Err(crate::error::SetupError::new("open", "netlink", "EMFILE"))),
            datastore: None,
        };
        let vtep = fixtures::config(fixtures::CONFIG).vtep;
        let (containers, told) = options.restore(&vtep);
        assert!(containers.iter().eq([&saved]));
        assert_eq!(
            told,
            ["containers are as they were, unseen: open netlink: EMFILE"]
        );
    }

    #[test]
    fn a_registry_that_cannot_be_saved_is_a_warning() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let control = start(directory.path());
        std::fs::create_dir(directory.path().join("containers.json.tmp")).expect("ours");
        let added = control.add_container(&container("a", 2)).expect("taken");
        let told = "changed, but not for the next start: write containers ";
        assert!(added.warnings[0].starts_with(told), "{added:?}");
    }
}

//! A container of this cell, as whoever wired it tells the daemon, and as `container list` shows it.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::error::SetupError;
use crate::netlink::HostLink;
use crate::wire::GroupId;

/// A container that was wired to this host: one address of it. As JSON: `{"id":"4f1c","ifname":"eth0","address":"10.255.108.184",
/// "netns":"/var/run/netns/web","host_link":"s-010255108184"}`. What is left out is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalContainer {
    /// The runtime's id of it (CNI_CONTAINERID).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its link in its own namespace (CNI_IFNAME).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ifname: Option<String>,
    /// Its overlay address; the key.
    pub address: IpAddr,
    /// Path of its network namespace (CNI_NETNS), or the name that `ip netns` has for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// The host's end of its link.
    pub host_link: String,
}

/// Which containers are meant: those of one attachment, as a runtime knows it, or the one with an address, whatever others it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, try_from = "ContainerKeyWords")]
pub enum ContainerKey {
    /// `{"id":"4f1c","ifname":"eth0"}`.
    Attachment {
        /// The runtime's id of the container.
        id: String,
        /// Its link in its own namespace.
        ifname: String,
    },
    /// `{"address":"10.255.108.184"}`.
    Address {
        /// The container's overlay address.
        address: IpAddr,
    },
}

/// What is asked of the registry of containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContainerRequest {
    /// A container was wired: [`Added`]. The same again changes nothing.
    Add(LocalContainer),
    /// Containers are gone, or about to: [`Removed`].
    Del(ContainerKey),
    /// All of them: [`ContainerRow`]s, by address.
    List,
}

/// The registry has the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// What went wrong beside it: the registry could not be written to disk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The registry has no such container now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// It had one before.
    pub removed: bool,
    /// What went wrong beside it: the registry could not be written to disk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One address of a container, and what its link has carried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRow {
    /// Its overlay address.
    pub address: IpAddr,
    /// The host's end of its link.
    pub host_link: String,
    /// Its network namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// Its link in its own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ifname: Option<String>,
    /// The runtime's id of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its group, where the group table says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupId>,
    /// What the kernel knows of the host's end; absent if the link is gone.
    #[serde(flatten)]
    pub link: Option<LinkCount>,
}

/// What the kernel knows of the host's end of a container's link, each way as the container sees it: what it sent is what the host's end
/// received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkCount {
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Packets that the container sent.
    pub tx_packets: u64,
    /// Their bytes, Ethernet headers included.
    pub tx_bytes: u64,
    /// Packets that were sent to the container.
    pub rx_packets: u64,
    /// Their bytes, Ethernet headers included.
    pub rx_bytes: u64,
}

/// Asks the kernel for the host's end of that name, or for all that there are, since others make and remove them.
pub type HostLinkSource =
    Box<dyn Fn(Option<&str>) -> Result<Vec<HostLink>, SetupError> + Send + Sync>;

impl ContainerRow {
    /// The row of `container`.
    #[must_use]
    pub fn new(
        container: &LocalContainer,
        group: Option<GroupId>,
        link: Option<LinkCount>,
    ) -> Self {
        Self {
            address: container.address,
            host_link: container.host_link.clone(),
            netns: container.netns.clone(),
            ifname: container.ifname.clone(),
            id: container.id.clone(),
            group,
            link,
        }
    }
}

impl LocalContainer {
    /// What `link` alone tells of the container behind it that has `address`.
    #[must_use]
    pub fn behind(link: &HostLink, address: IpAddr) -> Self {
        Self {
            id: None,
            ifname: None,
            address,
            netns: None,
            host_link: link.name.clone(),
        }
    }

    /// True for the containers that `key` means.
    #[must_use]
    pub fn is(&self, key: &ContainerKey) -> bool {
        match key {
            ContainerKey::Address { address } => self.address == *address,
            ContainerKey::Attachment { id, ifname } => {
                self.id.as_ref() == Some(id) && self.ifname.as_ref() == Some(ifname)
            }
        }
    }
}

impl From<&HostLink> for LinkCount {
    fn from(link: &HostLink) -> Self {
        Self {
            mtu: link.mtu_bytes,
            tx_packets: link.traffic.rx_packets,
            tx_bytes: link.traffic.rx_bytes,
            rx_packets: link.traffic.tx_packets,
            rx_bytes: link.traffic.tx_bytes,
        }
    }
}

/// `10.255.108.184 (4f1c eth0)`: as much as is known.
impl fmt::Display for LocalContainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        match (&self.id, &self.ifname) {
            (None, _) => Ok(()),
            (Some(id), None) => write!(f, " ({id})"),
            (Some(id), Some(ifname)) => write!(f, " ({id} {ifname})"),
        }
    }
}

/// The keys of a [`ContainerKey`], whichever it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ContainerKeyWords {
    id: Option<String>,
    ifname: Option<String>,
    address: Option<IpAddr>,
}

impl TryFrom<ContainerKeyWords> for ContainerKey {
    type Error = &'static str;

    fn try_from(words: ContainerKeyWords) -> Result<Self, Self::Error> {
        match (words.id, words.ifname, words.address) {
            (Some(id), Some(ifname), None) => Ok(Self::Attachment { id, ifname }),
            (None, None, Some(address)) => Ok(Self::Address { address }),
            _ => Err("a container is meant by `id` and `ifname`, or by `address`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container() -> LocalContainer {
        LocalContainer {
            id: Some("4f1c".to_owned()),
            ifname: Some("eth0".to_owned()),
            address: [10, 255, 108, 184].into(),
            netns: Some("/var/run/netns/web".to_owned()),
            host_link: "s-010255108184".to_owned(),
        }
    }

    #[test]
    fn a_key_is_an_attachment_or_an_address() {
        for (json, means) in [
            (r#"{"id":"4f1c","ifname":"eth0"}"#, true),
            (r#"{"id":"4f1c","ifname":"eth1"}"#, false),
            (r#"{"id":"4f1","ifname":"eth0"}"#, false),
            (r#"{"address":"10.255.108.184"}"#, true),
            (r#"{"address":"10.255.108.185"}"#, false),
        ] {
            let key: ContainerKey = serde_json::from_str(json).expect(json);
            assert_eq!(serde_json::to_string(&key).expect("no map keys"), json);
            assert_eq!(container().is(&key), means, "{json}");
        }
    }

    #[test]
    fn a_key_that_is_neither_or_both_is_refused() {
        for json in [
            "{}",
            r#"{"id":"4f1c"}"#,
            r#"{"ifname":"eth0"}"#,
            r#"{"id":"4f1c","ifname":"eth0","address":"10.255.108.184"}"#,
            r#"{"addr":"10.255.108.184"}"#,
        ] {
            serde_json::from_str::<ContainerKey>(json).expect_err(json);
        }
    }

    #[test]
    fn a_container_of_whom_nothing_is_known_is_no_attachment() {
        let unknown = LocalContainer {
            id: None,
            ifname: None,
            ..container()
        };
        let key = ContainerKey::Attachment {
            id: "4f1c".to_owned(),
            ifname: "eth0".to_owned(),
        };
        assert!(!unknown.is(&key));
        assert_eq!(unknown.to_string(), "10.255.108.184");
        assert_eq!(container().to_string(), "10.255.108.184 (4f1c eth0)");
    }
}

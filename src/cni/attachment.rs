//! Who a container's link is.

use std::fmt;

/// What the specification has plugins know a container's link by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Attachment {
    /// The network configuration's name.
    pub(super) network: String,
    /// CNI_CONTAINERID.
    pub(super) container_id: String,
    /// CNI_IFNAME.
    pub(super) ifname: String,
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            network,
            container_id,
            ifname,
        } = self;
        write!(
            f,
            "{ifname} of container {container_id} in network {network}"
        )
    }
}

//! What `link show` tells beside the configuration: asked of the kernel each time.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use super::express;
use super::marks::MarksState;
use crate::control::{LinkFacts, LinkSource};
use crate::error::SetupError;
use crate::io::{Offload, Offloads, Steering};
use crate::netlink::{self, Netlink};

/// A source of facts about the link `index`.
pub(super) fn source(
    name: String,
    index: u32,
    local: IpAddr,
    source_ports: Range<u16>,
    features: Features,
) -> LinkSource {
    Box::new(move || {
        let mut netlink = Netlink::open()?;
        let failed =
            |cause: &dyn std::fmt::Display| SetupError::new("look up link", name.as_str(), cause);
        let link = netlink.link(index).map_err(|error| failed(&error))?;
        let link = link.ok_or_else(|| failed(&"it is gone"))?;
        let underlay = netlink::underlay(&mut netlink, local)?;
        Ok(LinkFacts {
            ifindex: link.index,
            flags: link
                .flags
                .to_string()
                .split(',')
                .map(str::to_owned)
                .collect(),
            mtu_bytes: link.mtu_bytes,
            qdisc: link.qdisc,
            operstate: link.operstate,
            address: link.mac.ok_or_else(|| failed(&"it has no MAC"))?,
            underlay_device: underlay.map(|underlay| underlay.name),
            source_ports: (source_ports.start, source_ports.end),
            marks: features.marks.fact(),
            features: features.shown(),
        })
    })
}

/// What the host does for the lanes.
pub(super) struct Features {
    pub(super) offloads: Arc<Offloads>,
    pub(super) steering: Steering,
    pub(super) marks: MarksState,
    /// `None`: it is not asked for.
    pub(super) express: Option<express::State>,
}

impl Features {
    fn shown(&self) -> BTreeMap<String, String> {
        let offloads = Offload::ALL.map(|offload| {
            let state = self.offloads.state(offload);
            (offload.name(), state.name().to_owned())
        });
        let others = [
            ("offload-refusals", self.offloads.refusals().to_string()),
            ("steering", self.steering.to_string()),
        ];
        let express = self.express.iter().map(|state| ("express", state.told()));
        let all = offloads.into_iter().chain(others).chain(express);
        all.map(|(name, state)| (name.to_owned(), state)).collect()
    }
}

//! What `link show` tells beside the configuration: asked of the kernel each time.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use crate::control::{LinkFacts, LinkSource};
use crate::error::SetupError;
use crate::io::{Offload, Offloads};
use crate::netlink::{self, Netlink};

/// A source of facts about the link `index`.
pub(super) fn source(
    name: String,
    index: u32,
    local: IpAddr,
    source_ports: Range<u16>,
    offloads: Arc<Offloads>,
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
            features: features(&offloads),
        })
    })
}

fn features(offloads: &Offloads) -> BTreeMap<String, String> {
    let state = |offload: Offload| offloads.state(offload).name().to_owned();
    Offload::ALL
        .into_iter()
        .map(|offload| (offload.name().to_owned(), state(offload)))
        .chain([(
            "offload-refusals".to_owned(),
            offloads.refusals().to_string(),
        )])
        .collect()
}

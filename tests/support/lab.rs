//! A lab: an underlay with cells on it, built from a plan.

use super::{Cell, Namespace, Result, SITES, Underlay, underlay::DEFAULT_MTU};

/// What a cell's VTEP is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Our daemon.
    Silk,
    /// The kernel's vxlan device.
    Kernel,
}

/// What to build.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(super) kinds: Vec<Kind>,
    pub(super) v6: bool,
    pub(super) lanes: usize,
    pub(super) mtu: u32,
    pub(super) offloads: bool,
    pub(super) routed: bool,
    pub(super) second_router: bool,
    pub(super) cold: bool,
    pub(super) group: Option<u16>,
    pub(super) marks: &'static str,
    pub(super) iptables: bool,
    pub(super) nftables: bool,
    pub(super) tshark: bool,
    pub(super) vtep_lines: &'static str,
    pub(super) kernel_words: &'static str,
    pub(super) more_overlays: &'static str,
    pub(super) overlay_v6: bool,
}

impl Plan {
    /// One cell a kind, each with its container: one lane, IPv4 underlay of 1500 bytes with the offloads veth has by default.
    pub(crate) fn of(kinds: &[Kind]) -> Self {
        assert!(kinds.len() <= SITES.len(), "a site for each cell");
        Self {
            kinds: kinds.to_vec(),
            v6: false,
            lanes: 1,
            mtu: DEFAULT_MTU,
            offloads: true,
            routed: false,
            second_router: false,
            cold: false,
            group: None,
            marks: "table",
            iptables: false,
            nftables: false,
            tshark: false,
            vtep_lines: "",
            kernel_words: "",
            more_overlays: "",
            overlay_v6: false,
        }
    }

    /// Over an IPv6 underlay.
    pub(crate) fn v6(mut self) -> Self {
        self.v6 = true;
        self
    }

    /// Our daemons have this many lanes.
    pub(crate) fn lanes(mut self, lanes: usize) -> Self {
        self.lanes = lanes;
        self
    }

    /// The underlay carries MTU-sized packets with full checksums, as a wire does.
    pub(crate) fn without_offloads(mut self) -> Self {
        self.offloads = false;
        self
    }

    /// A router stands between the cells, each on a link of its own.
    pub(crate) fn routed(mut self) -> Self {
        self.routed = true;
        self
    }

    /// Behind that router, on the way from the first cell to all others, stands another.
    pub(crate) fn second_router(mut self) -> Self {
        self.second_router = true;
        self
    }

    /// Daemons are configured and not started, kernel VTEPs not made; no containers.
    pub(crate) fn cold(mut self) -> Self {
        self.cold = true;
        self
    }

    /// Each cell's container is of this group.
    pub(crate) fn group(mut self, id: u16) -> Self {
        self.group = Some(id);
        self
    }

    /// Where our daemons take marks from; the group table, unless said.
    pub(crate) fn marks(mut self, marks: &'static str) -> Self {
        self.marks = marks;
        self
    }

    /// The test sets rules.
    pub(crate) fn iptables(mut self) -> Self {
        self.iptables = true;
        self
    }

    /// The test sets rules of nftables.
    pub(crate) fn nftables(mut self) -> Self {
        self.nftables = true;
        self
    }

    /// True if the test needs nftables.
    pub(crate) fn needs_nftables(&self) -> bool {
        self.nftables
    }

    /// The test reads captures.
    pub(crate) fn tshark(mut self) -> Self {
        self.tshark = true;
        self
    }

    /// True if the test needs tshark.
    pub(crate) fn needs_tshark(&self) -> bool {
        self.tshark
    }

    /// True if the test needs iptables.
    pub(crate) fn needs_iptables(&self) -> bool {
        self.iptables
    }

    /// The overlay has IPv6 too: VTEPs with two addresses. Containers get IPv4 only so far, so each host speaks for its IPv6 subnet.
    pub(crate) fn overlay_v6(mut self) -> Self {
        self.overlay_v6 = true;
        self
    }

    /// More lines for `[vtep]`; a table of its own, as in `[vtep.offload]`, comes last.
    pub(crate) fn vtep_lines(mut self, lines: &'static str) -> Self {
        self.vtep_lines = lines;
        self
    }

    /// More words for `ip link add ... type vxlan`, as in `ttl inherit`.
    pub(crate) fn kernel_words(mut self, words: &'static str) -> Self {
        self.kernel_words = words;
        self
    }

    /// More overlays, as in `, "172.16.0.0/12"`.
    pub(crate) fn more_overlays(mut self, overlays: &'static str) -> Self {
        self.more_overlays = overlays;
        self
    }

    /// True if a cell needs the kernel's vxlan device.
    pub(crate) fn needs_kernel_vxlan(&self) -> bool {
        self.kinds.contains(&Kind::Kernel)
    }

    /// What is left of the underlay's MTU inside the tunnel: Ethernet, VXLAN, UDP and IP headers less.
    pub(crate) fn overlay_mtu(&self) -> u32 {
        self.mtu - if self.v6 { 70 } else { 50 }
    }
}

/// Cells that reach each other. Dropped in the order of its fields: daemons end before their namespaces go.
pub(crate) struct Lab {
    /// In the order of the plan.
    pub(crate) cells: Vec<Cell>,
    underlay: Underlay,
}

impl Lab {
    /// Builds what `plan` says.
    pub(crate) fn new(plan: &Plan) -> Result<Self> {
        let underlay = Underlay::new(plan)?;
        let cells = underlay.hosts.iter().enumerate();
        let cells = cells
            .map(|(i, host)| Cell::new(host, i, plan))
            .collect::<Result<_>>()?;
        Ok(Self { cells, underlay })
    }

    /// The router between the cells, where the plan wants one.
    pub(crate) fn router(&self) -> Result<&Namespace> {
        Ok(self
            .underlay
            .router
            .as_ref()
            .ok_or("this lab has no router")?)
    }

    /// The router behind it, where the plan wants one.
    pub(crate) fn second_router(&self) -> Result<&Namespace> {
        let second = self.underlay.second_router.as_ref();
        Ok(second.ok_or("this lab has no second router")?)
    }

    /// What a person wants to see when a test failed.
    pub(crate) fn diagnosis(&self) -> String {
        self.cells.iter().map(Cell::diagnosis).collect()
    }
}

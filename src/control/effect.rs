//! What entries are looked at for, and which of them do nothing here: whoever gives those is told.

use ipnet::IpNet;

use super::Entry;
use super::config::VtepConfig;
use crate::tables::MarkSource;
use crate::tables::policy::Regime;

/// What this daemon makes of its entries.
#[derive(Clone, Copy)]
pub(super) struct Use<'a> {
    pub(super) vtep: &'a VtepConfig,
    pub(super) marks: MarkSource,
    /// The policy that is enforced.
    pub(super) regime: Option<&'a Regime>,
}

impl Use<'_> {
    /// Told to who gives these entries, if some of them do nothing here: a line for each cause.
    pub(super) fn without_effect<'e>(
        self,
        entries: impl Iterator<Item = &'e Entry>,
    ) -> Vec<String> {
        let mut has_groups = false;
        let mut destinations = Vec::new();
        for entry in entries {
            match entry {
                Entry::Group { .. } => has_groups = true,
                Entry::Policy { dst, .. } => destinations.push(*dst),
                Entry::Route { .. } | Entry::Neigh { .. } | Entry::Fdb { .. } | Entry::Peer(_) => {}
            }
        }
        let groups = has_groups.then(|| self.groups()).flatten();
        groups
            .into_iter()
            .chain(self.rules(&destinations))
            .collect()
    }

    /// Groups that nobody looks up.
    fn groups(self) -> Option<String> {
        let table = "set marks = \"table\" and restart to use it";
        let (instead, mend) = match self.marks {
            MarkSource::Table => return None,
            MarkSource::Packet => ("packets bring their own marks (marks = \"bpf\")", table),
            MarkSource::Off if self.vtep.gbp => ("no groups are sent (marks = \"off\")", table),
            MarkSource::Off => (
                "no groups are sent (gbp = false)",
                "set gbp = true and marks = \"table\" and restart to use it",
            ),
        };
        Some(format!(
            "the group table is without effect: {instead}; {mend}"
        ))
    }

    /// Rules that nothing enforces, or that are for nobody here.
    fn rules(self, destinations: &[IpNet]) -> Vec<String> {
        if destinations.is_empty() {
            return Vec::new();
        }
        let mut told = Vec::new();
        if self.regime.is_none() {
            told.push(
            "the rules are without effect: policy is not enforced; set enforce = true in [policy] and reload to use them"
                .to_owned(),
        );
        }
        let is_elsewhere = |dst: &&IpNet| {
            let own = self.vtep.subnets.iter().copied();
            let mut own = own.chain(self.vtep.addresses.iter().copied().map(IpNet::from));
            !own.any(|own| own.contains(*dst) || dst.contains(&own))
        };
        let elsewhere = destinations.iter().filter(is_elsewhere).count();
        if elsewhere > 0 {
            let subnets: Vec<_> = self.vtep.subnets.iter().map(IpNet::to_string).collect();
            told.push(format!(
            "{elsewhere} of the rules given are for no address of this cell, whose containers are in {}: they are kept, and nothing comes here that matches",
            subnets.join(" and ")
        ));
        }
        told
    }
}

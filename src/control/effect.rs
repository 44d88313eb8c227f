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
        let mut speakers = Vec::new();
        let mut destinations = Vec::new();
        for entry in entries {
            match entry {
                Entry::Group { address, .. } => speakers.push(IpNet::from(*address)),
                Entry::Policy { dst, .. } => destinations.push(*dst),
                Entry::Route { .. } | Entry::Neigh { .. } | Entry::Fdb { .. } | Entry::Peer(_) => {}
            }
        }
        let groups = self.groups(&speakers);
        groups
            .into_iter()
            .chain(self.rules(&destinations))
            .collect()
    }

    /// Groups that nobody looks up, or of nobody here.
    fn groups(self, speakers: &[IpNet]) -> Option<String> {
        if speakers.is_empty() {
            return None;
        }
        let table = "set marks = \"table\" and restart to use it";
        let (instead, mend) = match self.marks {
            MarkSource::Table => return self.groups_elsewhere(speakers),
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

    /// Without `strict_source` anybody may send from here in any name, and has that name's group.
    fn groups_elsewhere(self, speakers: &[IpNet]) -> Option<String> {
        let elsewhere = self.count_elsewhere(speakers);
        (elsewhere > 0 && self.vtep.strict_source).then(|| {
            format!(
                "{elsewhere} of the groups given are of no address of this cell, whose containers are in {}: they are kept, and no packet \
                 leaves from there (strict_source)",
                self.subnets()
            )
        })
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
        let elsewhere = self.count_elsewhere(destinations);
        if elsewhere > 0 {
            told.push(format!(
            "{elsewhere} of the rules given are for no address of this cell, whose containers are in {}: they are kept, and nothing comes here that matches",
            self.subnets()
        ));
        }
        told
    }

    /// How many of `nets` have no address of ours in them.
    fn count_elsewhere(self, nets: &[IpNet]) -> usize {
        let is_elsewhere = |net: &&IpNet| {
            let own = self.vtep.subnets.iter().copied();
            let mut own = own.chain(self.vtep.addresses.iter().copied().map(IpNet::from));
            !own.any(|own| own.contains(*net) || net.contains(&own))
        };
        nets.iter().filter(is_elsewhere).count()
    }

    fn subnets(self) -> String {
        let subnets: Vec<_> = self.vtep.subnets.iter().map(IpNet::to_string).collect();
        subnets.join(" and ")
    }
}

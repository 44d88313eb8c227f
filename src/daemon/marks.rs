//! Where the mark of a packet comes from: decided at the start, and watched where programs carry it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::control::MarksFact;
use crate::control::config::{Config, Marks as Asked};
use crate::error::SetupError;
use crate::io::{Express, MarkTags};
use crate::netlink::{Ahead, MarkPrograms, Standing, remove_mark_programs};
use crate::tables::MarkSource;

/// Nobody tells when a program is detached: tcx has no notifications. Until it is seen, packets are sent without a group, and whoever
/// may write raw frames to the TAP (CAP_NET_RAW) can put marks on them, as SO_MARK lets them at any time. A look is two system calls.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Pause between two repairs: somebody who undoes each must not keep us busy. Marks are not carried meanwhile.
const REPAIR_EVERY: Duration = Duration::from_secs(2);
/// How many programs of others are named.
const SHOWN: usize = 4;

/// Where marks come from, and the programs that carry them.
pub(super) struct Marks {
    facts: MarksState,
    /// Whether the express path begins at the program on the way out.
    carries_express: bool,
    programs: Option<Watched>,
}

/// What `link show` tells.
#[derive(Clone)]
pub(super) struct MarksState {
    source: MarkSource,
    why: String,
    tags: Arc<MarkTags>,
    ahead: Arc<Mutex<Vec<Ahead>>>,
}

/// Programs, and when to look whether they are there.
struct Watched {
    programs: MarkPrograms,
    due: Instant,
    /// When the next repair may be.
    calm_at: Instant,
    /// What kept the last look from being a good one.
    failed: Option<SetupError>,
}

impl Marks {
    /// Attaches the programs to the TAP with number `interface` if `config` wants them, else takes away what an earlier daemon left
    /// there. The express path begins at the one on the way out, if there is one. With `marks = "auto"` the group table takes the place of
    /// what cannot be had.
    ///
    /// # Errors
    /// `marks = "bpf"` cannot be had: which step failed, and what mends it.
    pub(super) fn set_up(
        config: &Config,
        interface: u32,
        express: Option<&Arc<Express>>,
    ) -> Result<Self, SetupError> {
        let wanted = config.marks();
        let name = &config.vtep.name;
        if wanted != MarkSource::Packet {
            tidy(name, interface);
            return Ok(Self::without_programs(wanted, why(config)));
        }
        let attach = |maps| MarkPrograms::attach(interface, name, config.vtep.mac, maps, None);
        let maps = express.map(|express| express.maps());
        // A kernel before Linux 5.10 knows no bpf_redirect_neigh and refuses the program that calls it.
        let with_express = maps.and_then(|maps| {
            let attached = attach(Some(maps));
            attached.inspect_err(|error| tracing::warn!("{error}")).ok()
        });
        let carries_express = with_express.is_some();
        match with_express.map_or_else(|| attach(None), Ok) {
            Ok(programs) => Ok(Self::with_programs(programs, carries_express)),
            Err(error) if config.vtep.marks == Asked::Auto => {
                tracing::warn!("{error}; groups come from the group table instead");
                tidy(name, interface);
                Ok(Self::without_programs(MarkSource::Table, error.to_string()))
            }
            Err(error) => Err(error.or_mend("set marks = \"table\" to do without")),
        }
    }

    fn without_programs(source: MarkSource, why: String) -> Self {
        let facts = MarksState {
            source,
            why,
            tags: Arc::default(),
            ahead: Arc::default(),
        };
        Self {
            facts,
            carries_express: false,
            programs: None,
        }
    }

    fn with_programs(programs: MarkPrograms, carries_express: bool) -> Self {
        let facts = MarksState {
            source: MarkSource::Packet,
            why: format!("the packets' own, by {}", programs.hook().name()),
            tags: Arc::new(MarkTags::new(true)),
            ahead: Arc::default(),
        };
        Self {
            facts,
            carries_express,
            programs: Some(Watched {
                programs,
                // Those that were there before us may be first.
                due: Instant::now(),
                calm_at: Instant::now(),
                failed: None,
            }),
        }
    }

    /// Whether the express path begins here, as it was to.
    pub(super) fn carries_express(&self) -> bool {
        self.carries_express
    }

    /// Where marks come from.
    pub(super) fn source(&self) -> MarkSource {
        self.facts.source
    }

    /// Whether they cross the TAP, for the lanes.
    pub(super) fn tags(&self) -> &Arc<MarkTags> {
        &self.facts.tags
    }

    /// For `link show`.
    pub(super) fn state(&self) -> &MarksState {
        &self.facts
    }

    /// When to look at the programs next, if there are any.
    pub(super) fn due(&self) -> Option<Instant> {
        self.programs.as_ref().map(|watched| watched.due)
    }

    /// Looks whether the programs are there, and attaches them again if not; and whether others' run before them, which is their
    /// owners' to mend, and told. What fails is tried again at the next look.
    pub(super) fn look(&mut self, now: Instant) {
        let Some(watched) = &mut self.programs else {
            return;
        };
        watched.due = now + LOOK_EVERY;
        let programs = &mut watched.programs;
        let tags = &self.facts.tags;
        let looked = programs.standing().and_then(|standing| match standing {
            Standing::Attached { ahead } => {
                tags.set(true);
                self.facts.set_ahead(ahead);
                Ok(())
            }
            Standing::Detached => {
                tags.set(false);
                if now < watched.calm_at {
                    return Ok(());
                }
                watched.calm_at = now + REPAIR_EVERY;
                programs.attach_again()?;
                tags.set(true);
                tracing::warn!("repaired: a program that carries marks was detached");
                Ok(())
            }
        });
        match looked {
            Ok(()) => watched.failed = None,
            // Told once: looks come too often to tell each.
            Err(error) if watched.failed.as_ref() == Some(&error) => {}
            Err(error) => {
                tracing::error!("repair: {error}");
                watched.failed = Some(error);
            }
        }
    }
}

impl MarksState {
    /// As it stands now.
    pub(super) fn fact(&self) -> MarksFact {
        let from = match self.source {
            MarkSource::Packet => "bpf",
            MarkSource::Table => "table",
            MarkSource::Off => "off",
        };
        let mut why = self.why.clone();
        if self.source == MarkSource::Packet && !self.tags.are_on() {
            why.push_str("; detached by others: no group is sent until they are attached again");
        }
        let trouble = self.trouble();
        MarksFact { from, why, trouble }
    }

    fn set_ahead(&self, ahead: Vec<Ahead>) {
        let mut known = self.ahead.lock();
        if *known == ahead {
            return;
        }
        *known = ahead;
        drop(known);
        match self.trouble() {
            Some(trouble) => tracing::warn!("{trouble}"),
            None => {
                tracing::info!(
                    "nothing of others' runs before the programs that carry marks any more"
                )
            }
        }
    }

    /// What may keep marks from being carried.
    fn trouble(&self) -> Option<String> {
        let ahead = self.ahead.lock();
        let shown: Vec<_> = ahead.iter().take(SHOWN).map(Ahead::to_string).collect();
        let more = if ahead.len() > SHOWN { ", ..." } else { "" };
        (!shown.is_empty()).then(|| {
            format!(
                "others' run before the programs that carry marks: {}{more}; packets for which one ends the chain (TC_ACT_OK or TCX_PASS instead of TCX_NEXT) lose their mark",
                shown.join(", ")
            )
        })
    }
}

/// Why not the packets' own.
fn why(config: &Config) -> String {
    match config.vtep.marks {
        Asked::Auto if !config.vtep.gbp => "no groups are sent without gbp".to_owned(),
        Asked::Auto => "the configuration has groups".to_owned(),
        Asked::Bpf | Asked::Table | Asked::Off => "the configuration says so".to_owned(),
    }
}

/// Programs that cannot be removed do no harm: lanes put back what the one on the egress side writes and use none of it, and give the
/// other nothing to read.
fn tidy(name: &str, interface: u32) {
    match remove_mark_programs(interface, name) {
        Ok(true) => {
            tracing::info!("removed the programs that an earlier daemon carried marks with")
        }
        Ok(false) => {}
        Err(error) => tracing::debug!("{error}"),
    }
}

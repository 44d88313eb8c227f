//! Where the mark of a packet comes from: decided at the start, and watched where programs carry it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::control::MarksFact;
use crate::control::config::{Config, Marks as Asked};
use crate::error::SetupError;
use crate::io::MarkTags;
use crate::netlink::{MarkPrograms, remove_mark_programs};
use crate::tables::MarkSource;

/// Nobody tells when a program is detached. Until it is seen, packets are sent without a group.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Where marks come from, and the programs that carry them.
pub(super) struct Marks {
    facts: MarksState,
    programs: Option<Watched>,
}

/// What `link show` tells.
#[derive(Clone)]
pub(super) struct MarksState {
    source: MarkSource,
    why: String,
    tags: Arc<MarkTags>,
}

/// Programs, and when to look whether they are there.
struct Watched {
    programs: MarkPrograms,
    due: Instant,
}

impl Marks {
    /// Attaches the programs to the TAP with number `interface` if `config` wants them, else takes away what an earlier daemon left
    /// there. With `marks = "auto"` the group table takes the place of what cannot be had.
    ///
    /// # Errors
    /// `marks = "bpf"` cannot be had: which step failed, and what mends it.
    pub(super) fn set_up(config: &Config, interface: u32) -> Result<Self, SetupError> {
        let wanted = config.marks();
        let name = &config.vtep.name;
        if wanted != MarkSource::Packet {
            tidy(name, interface);
            return Ok(Self::without_programs(wanted, why(config)));
        }
        match MarkPrograms::attach(interface, name, config.vtep.mac, None) {
            Ok(programs) => Ok(Self::with_programs(programs)),
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
        };
        Self {
            facts,
            programs: None,
        }
    }

    fn with_programs(programs: MarkPrograms) -> Self {
        let facts = MarksState {
            source: MarkSource::Packet,
            why: format!("the packets' own, by {}", programs.hook().name()),
            tags: Arc::new(MarkTags::new(true)),
        };
        Self {
            facts,
            programs: Some(Watched {
                programs,
                due: Instant::now() + LOOK_EVERY,
            }),
        }
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

    /// Looks whether the programs are there, and attaches them again if not. What fails is tried again at the next look.
    pub(super) fn look(&mut self, now: Instant) {
        let Some(watched) = &mut self.programs else {
            return;
        };
        watched.due = now + LOOK_EVERY;
        let programs = &mut watched.programs;
        let tags = &self.facts.tags;
        let mended = programs.are_attached().and_then(|attached| {
            tags.set(attached);
            if attached {
                return Ok(());
            }
            programs.attach_again()?;
            tags.set(true);
            tracing::warn!("repaired: a program that carries marks was detached");
            Ok(())
        });
        if let Err(error) = mended {
            tracing::error!("repair: {error}");
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
        MarksFact { from, why }
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

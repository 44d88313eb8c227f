//! What this test binary takes besides libtest's arguments.

use libtest_mimic::Arguments;

use crate::support::Result;

/// How many cases are generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    /// So many, shared among the setups.
    Cases(usize),
    /// Until a difference is found or someone ends it.
    Unbounded,
}

/// Its own arguments.
#[derive(Debug)]
pub(crate) struct Options {
    /// `--generated N|unbounded`
    pub(crate) generated: Count,
    /// `--seed N`
    pub(crate) seed: u64,
    /// `--case WORD`: this case alone.
    pub(crate) case: Option<String>,
}

/// What CI runs.
const GENERATED: usize = 20_000;
/// The same in every run, so that a run can be compared with the one before. Give another to look elsewhere.
const SEED: u64 = 1;

impl Options {
    /// Splits the command line. A word of ours takes the next one as its value.
    pub(crate) fn from_args() -> Result<(Self, Arguments)> {
        let mut options = Self {
            generated: Count::Cases(GENERATED),
            seed: SEED,
            case: None,
        };
        let mut rest = Vec::new();
        let mut words = std::env::args();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} takes a value"));
            match word.as_str() {
                "--generated" => {
                    options.generated = match value()?.as_str() {
                        "unbounded" => Count::Unbounded,
                        number => Count::Cases(number.parse()?),
                    }
                }
                "--seed" => options.seed = value()?.parse()?,
                "--case" => options.case = Some(value()?),
                _ => rest.push(word),
            }
        }
        Ok((options, Arguments::from_iter(rest)))
    }
}

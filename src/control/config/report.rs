//! The errors found so far, and where in the text they are.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::{self, Display};
use std::hash::Hash;

use super::form::quote;
use super::{ConfigError, ConfigErrors};

/// Collects errors.
pub(super) struct Report {
    /// Byte offset of each line feed.
    line_feeds: Vec<usize>,
    errors: Vec<ConfigError>,
}

/// Stands for a value that could not be had; only [`Report`] makes one, once the error is on record. Whatever needs the value is skipped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reported(());

impl From<&Self> for Reported {
    fn from(reported: &Self) -> Self {
        *reported
    }
}

/// Where a value is, or should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// From 1; `None` if not even the table is in the file.
    pub(super) line: Option<usize>,
    /// As in `peer[2].underlay`.
    pub(super) key: String,
}

/// A value and where it is.
#[derive(Debug, Clone)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// What may be there once only, and who has it.
pub(super) struct Claims<'a, K, V>(HashMap<K, &'a V>);

impl Report {
    pub(super) fn new(text: &str) -> Self {
        Self {
            line_feeds: text.match_indices('\n').map(|(offset, _)| offset).collect(),
            errors: Vec::new(),
        }
    }

    /// The line, from 1, of a byte offset.
    pub(super) fn line_of(&self, offset: usize) -> usize {
        self.line_feeds.partition_point(|&feed| feed < offset) + 1
    }

    /// Records one error.
    pub(super) fn refuse(
        &mut self,
        place: &Place,
        wrong: impl Display,
        accepted: impl Display,
    ) -> Reported {
        self.errors.push(ConfigError {
            line: place.line,
            key: place.key.clone(),
            message: format!("{wrong}; accepted: {accepted}"),
        });
        Reported(())
    }

    /// Records that `text` is no TOML, in the parser's words and with what it stumbled over.
    pub(super) fn refuse_syntax(&mut self, text: &str, error: &toml::de::Error) -> Reported {
        let span = error.span();
        let mut message = error.message().replace('\n', ", ");
        let at = span.clone().and_then(|span| text.get(span));
        if let Some(at) = at.filter(|at| !at.trim().is_empty()) {
            message = format!("{message}, at {}", quote(at));
        }
        self.errors.push(ConfigError {
            line: span.map(|span| self.line_of(span.start)),
            key: String::new(),
            message,
        });
        Reported(())
    }

    /// `outcome` if there was no error, otherwise all of them.
    pub(super) fn finish<T>(mut self, outcome: Result<T, Reported>) -> Result<T, ConfigErrors> {
        match outcome {
            Ok(value) if self.errors.is_empty() => Ok(value),
            _ => {
                // Stable, so that errors of one line stay in the order they were found.
                self.errors.sort_by_key(|error| error.line);
                Err(ConfigErrors(self.errors))
            }
        }
    }
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{} (line {line})", self.key),
            None => f.write_str(&self.key),
        }
    }
}

impl<'a, K: Eq + Hash, V> Claims<'a, K, V> {
    pub(super) fn new() -> Self {
        Self(HashMap::new())
    }

    /// Takes `key` for `owner`.
    ///
    /// # Errors
    /// Who took it before.
    pub(super) fn claim(&mut self, key: K, owner: &'a V) -> Result<(), &'a V> {
        match self.0.entry(key) {
            Entry::Occupied(first) => Err(first.get()),
            Entry::Vacant(free) => {
                free.insert(owner);
                Ok(())
            }
        }
    }
}

//! Takes keys out of a TOML table, reports what is wrong with them, and in the end the keys that nobody took.

use std::borrow::Cow;
use std::fmt::Display;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::form::{Form, found, quote_key};
use super::nearest::nearest;
use super::report::{Located, Place, Report, Reported};

/// One table, while its keys are taken.
pub(super) struct Reader<'a, 'text> {
    table: &'a DeTable<'text>,
    place: Place,
    report: &'a mut Report,
    taken: Vec<&'static str>,
}

/// The values of a list that could be read.
#[derive(Debug, Clone)]
pub(super) struct List<T> {
    pub(super) items: Vec<Located<T>>,
    /// `Err` if there are more values than `items`: nothing can be said then about what the list does not hold.
    pub(super) whole: Result<(), Reported>,
}

impl<'a, 'text> Reader<'a, 'text> {
    /// The document itself.
    pub(super) fn document(table: &'a DeTable<'text>, report: &'a mut Report) -> Self {
        let place = Place {
            line: None,
            key: String::new(),
        };
        Self::new(table, place, report)
    }

    fn new(table: &'a DeTable<'text>, place: Place, report: &'a mut Report) -> Self {
        Self {
            table,
            place,
            report,
            taken: Vec::new(),
        }
    }

    /// Where errors go.
    pub(super) fn report(&mut self) -> &mut Report {
        self.report
    }

    /// Where this table is.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// A value that must be there.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        form: &Form<T>,
    ) -> Result<Located<T>, Reported> {
        self.optional(key, form)?
            .ok_or_else(|| self.missing(key, form.accepted))
    }

    /// A value that may be there.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        form: &Form<T>,
    ) -> Result<Option<Located<T>>, Reported> {
        self.take(key)
            .map(|value| self.read(self.path_of(key), value, form))
            .transpose()
    }

    /// A value that may be there and that nothing else depends on; `None` also when it is broken, since the file is refused anyway.
    pub(super) fn given<T>(&mut self, key: &'static str, form: &Form<T>) -> Option<T> {
        self.optional(key, form).ok()?.map(|located| located.value)
    }

    /// As [`Reader::given`], with a default.
    pub(super) fn or<T>(&mut self, key: &'static str, form: &Form<T>, default: T) -> T {
        self.given(key, form).unwrap_or(default)
    }

    /// One value, or a list of them; empty if there is none.
    pub(super) fn list<T>(&mut self, key: &'static str, form: &Form<T>) -> List<T> {
        let mut list = List {
            items: Vec::new(),
            whole: Ok(()),
        };
        let Some(given) = self.take(key) else {
            return list;
        };
        let path = self.path_of(key);
        let DeValue::Array(values) = given.get_ref() else {
            list.add(self.read(path, given, form));
            return list;
        };
        for (n, value) in values.iter().enumerate() {
            list.add(self.read(format!("{path}[{n}]"), value, form));
        }
        list
    }

    /// At least one value.
    pub(super) fn required_list<T>(&mut self, key: &'static str, form: &Form<T>) -> List<T> {
        let mut list = self.list(key, form);
        if list.items.is_empty() && list.whole.is_ok() {
            list.whole = Err(match self.table.get(key) {
                None => self.missing(key, form.accepted),
                Some(empty) => {
                    let place = self.place_of(self.path_of(key), empty);
                    self.report
                        .refuse(&place, found(empty.get_ref()), form.accepted)
                }
            });
        }
        list
    }

    /// At least one value and no two of one family; those that follow the first of their family are reported and left out.
    pub(super) fn list_per_family<T: Display>(
        &mut self,
        key: &'static str,
        form: &Form<T>,
        is_v6: impl Fn(&T) -> bool,
    ) -> List<T> {
        let mut list = self.required_list(key, form);
        let mut first = [None, None];
        list.items.retain(|item| {
            let first = &mut first[usize::from(is_v6(&item.value))];
            let Some(first) = first else {
                *first = Some(item.value.to_string());
                return true;
            };
            let wrong = format!("{} is of the same family as {first}", item.value);
            self.report
                .refuse(&item.place, wrong, "one for each family");
            false
        });
        list
    }

    /// The table `key`, an empty one without a line if it is missing: what it must hold is then reported key by key.
    pub(super) fn table<R>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Reader<'_, 'text>) -> R,
    ) -> Result<R, Reported> {
        let accepted = format!("a table [{key}]");
        let Some(value) = self.take(key) else {
            let place = Place {
                line: None,
                key: self.path_of(key),
            };
            return Ok(read(Reader::new(&DeTable::new(), place, self.report)));
        };
        self.sub_table(self.path_of(key), value, &accepted, read)
    }

    /// Each table of the array `key`; none if it is missing.
    pub(super) fn tables<R>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(Reader<'_, 'text>) -> R,
    ) -> Vec<R> {
        let accepted = format!("tables [[{key}]]");
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        let path = self.path_of(key);
        let DeValue::Array(values) = value.get_ref() else {
            let place = self.place_of(path, value);
            let wrong = found(value.get_ref());
            self.report.refuse(&place, wrong, accepted);
            return Vec::new();
        };
        values
            .iter()
            .enumerate()
            .filter_map(|(n, value)| {
                self.sub_table(format!("{path}[{n}]"), value, &accepted, &mut read)
                    .ok()
            })
            .collect()
    }

    /// Reports the keys that nobody took.
    pub(super) fn finish(mut self) {
        self.taken.sort_unstable();
        for key in self.table.keys() {
            if !self.taken.contains(&key.get_ref().as_ref()) {
                self.unknown(key);
            }
        }
    }

    fn unknown(&mut self, key: &Spanned<Cow<'_, str>>) {
        let place = Place {
            line: Some(self.report.line_of(key.span().start)),
            key: self.path_of(&quote_key(key.get_ref())),
        };
        let accepted = self.taken.join(", ");
        match nearest(key.get_ref(), &self.taken) {
            Some(near) => {
                let wrong = format!("unknown key, did you mean `{near}`?");
                self.report.refuse(&place, wrong, accepted)
            }
            None => self.report.refuse(&place, "unknown key", accepted),
        };
    }

    fn take(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'text>>> {
        self.taken.push(key);
        self.table.get(key)
    }

    fn read<T>(
        &mut self,
        path: String,
        value: &Spanned<DeValue<'_>>,
        form: &Form<T>,
    ) -> Result<Located<T>, Reported> {
        let place = self.place_of(path, value);
        match (form.read)(value.get_ref()) {
            Ok(value) => Ok(Located { value, place }),
            Err(wrong) => Err(self.report.refuse(&place, wrong, form.accepted)),
        }
    }

    fn sub_table<R>(
        &mut self,
        path: String,
        value: &Spanned<DeValue<'text>>,
        accepted: &str,
        read: impl FnOnce(Reader<'_, 'text>) -> R,
    ) -> Result<R, Reported> {
        let place = self.place_of(path, value);
        match value.get_ref() {
            DeValue::Table(table) => Ok(read(Reader::new(table, place, self.report))),
            other => {
                let wrong = found(other);
                Err(self.report.refuse(&place, wrong, accepted))
            }
        }
    }

    /// Reports that `key` should be there.
    pub(super) fn missing(&mut self, key: &str, accepted: &str) -> Reported {
        let place = Place {
            line: self.place.line,
            key: self.path_of(key),
        };
        self.report.refuse(&place, "missing", accepted)
    }

    fn place_of(&self, path: String, value: &Spanned<DeValue<'_>>) -> Place {
        Place {
            line: Some(self.report.line_of(value.span().start)),
            key: path,
        }
    }

    fn path_of(&self, key: &str) -> String {
        if self.place.key.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.place.key)
        }
    }
}

impl<T> List<T> {
    /// A list of which nothing is known.
    pub(super) fn broken(reported: Reported) -> Self {
        Self {
            items: Vec::new(),
            whole: Err(reported),
        }
    }

    /// The values, if all of them could be read.
    pub(super) fn values(&self) -> Result<Vec<T>, Reported>
    where
        T: Clone,
    {
        self.whole?;
        Ok(self.items.iter().map(|item| item.value.clone()).collect())
    }

    fn add(&mut self, item: Result<Located<T>, Reported>) {
        match item {
            Ok(item) => self.items.push(item),
            Err(reported) => self.whole = Err(reported),
        }
    }
}

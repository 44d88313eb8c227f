//! The rules of one destination as spans of ports that do not overlap, each with the rule that decides there.

use super::{Action, PolicyRule, Proto};
use crate::wire::GroupId;

/// Protocol and group in one number, to compare at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Class(u32);

impl Class {
    #[inline]
    pub(super) fn of(group: GroupId, proto: Proto) -> Self {
        Self((proto as u32) << 16 | u32::from(group.0))
    }
}

/// Ports `first` to `last` of a class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    class: Class,
    first: u16,
    last: u16,
    /// Among all rules.
    pub(super) rule: u32,
}

/// The span that has `port`, among those of one destination, which are sorted.
#[inline]
pub(super) fn find(spans: &[Span], class: Class, port: u16) -> Option<&Span> {
    let at = spans.partition_point(|span| (span.class, span.last) < (class, port));
    let span = spans.get(at)?;
    (span.class == class && span.first <= port).then_some(span)
}

/// Appends the spans of `rules`, sorted rules with one destination; `first_rule` is the number of the first.
pub(super) fn append(rules: &[PolicyRule], first_rule: u32, spans: &mut Vec<Span>) {
    let first_span = spans.len();
    let numbered = (first_rule..).zip(rules);
    let mut by_class: Vec<Span> = numbered.map(|(number, rule)| whole(rule, number)).collect();
    by_class.sort_by_key(|span| (span.class, span.first));
    for class in by_class.chunk_by(|a, b| a.class == b.class) {
        let is_denial =
            |span: &&Span| rules[(span.rule - first_rule) as usize].action == Action::Deny;
        let denials = apart(class.iter().filter(is_denial));
        let acceptances = apart(class.iter().filter(|span| !is_denial(span)));
        spans.extend(without(&acceptances, &denials));
        spans.extend(denials);
    }
    spans[first_span..].sort_unstable_by_key(|span| (span.class, span.last));
}

fn whole(rule: &PolicyRule, number: u32) -> Span {
    Span {
        class: Class::of(rule.group, rule.proto),
        first: rule.ports.first(),
        last: rule.ports.last(),
        rule: number,
    }
}

/// Spans in the order of their first ports, each cut where one before it reaches.
fn apart<'a>(sorted: impl Iterator<Item = &'a Span>) -> Vec<Span> {
    let mut found = Vec::new();
    // One past what the spans so far reach; past all ports in the end.
    let mut free = 0_u32;
    for span in sorted {
        if u32::from(span.last) < free {
            continue;
        }
        let first = u32::from(span.first).max(free);
        // Not more than `last`, a u16.
        found.push(Span {
            first: first as u16,
            ..*span
        });
        free = u32::from(span.last) + 1;
    }
    found
}

/// What `holes` leave of `spans`; both are apart and in order.
fn without(spans: &[Span], holes: &[Span]) -> Vec<Span> {
    let mut left = Vec::new();
    let mut holes = holes.iter().peekable();
    for span in spans {
        let mut first = u32::from(span.first);
        let last = u32::from(span.last);
        while let Some(hole) = holes.peek() {
            let (hole_first, hole_last) = (u32::from(hole.first), u32::from(hole.last));
            if hole_last < first {
                holes.next();
                continue;
            }
            if hole_first > last {
                break;
            }
            if hole_first > first {
                left.push(cut(span, first, hole_first - 1));
            }
            first = hole_last + 1;
            // One that reaches beyond this span is the next one's too.
            if hole_last > last {
                break;
            }
            holes.next();
        }
        if first <= last {
            left.push(cut(span, first, last));
        }
    }
    left
}

/// Both ends lie within `span`.
fn cut(span: &Span, first: u32, last: u32) -> Span {
    Span {
        first: first as u16,
        last: last as u16,
        ..*span
    }
}

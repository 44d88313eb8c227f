//! Which prefixes of a list overlap.

use ipnet::IpNet;

/// Where prefixes overlap: for each prefix that overlaps one before it in `prefixes`, its index and the lowest index that it overlaps,
/// in ascending order. O(n log n).
pub(super) fn overlaps(prefixes: &[IpNet]) -> Vec<(usize, usize)> {
    // Two prefixes are nested or disjoint. Sorted, each comes right after the prefixes that contain it, which form a stack.
    let mut order: Vec<(IpNet, usize)> = prefixes.iter().map(IpNet::trunc).zip(0..).collect();
    order.sort_unstable();
    let mut found = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    for (net, index) in order {
        while open.last().is_some_and(|outer| !outer.net.contains(&net)) {
            close(&mut open, &mut found);
        }
        let outside = open
            .last()
            .map_or(index, |outer| outer.outside.min(outer.index));
        open.push(Open {
            net,
            index,
            outside,
            inside: index,
        });
    }
    while !open.is_empty() {
        close(&mut open, &mut found);
    }
    found.sort_unstable();
    found
}

/// A prefix, while those inside it are walked.
struct Open {
    net: IpNet,
    index: usize,
    /// Lowest index among the prefixes that contain it; its own or higher if none is lower.
    outside: usize,
    /// Lowest index among itself and the prefixes inside it.
    inside: usize,
}

/// Ends the innermost prefix.
fn close(open: &mut Vec<Open>, found: &mut Vec<(usize, usize)>) {
    let Some(inner) = open.pop() else {
        return;
    };
    let lowest = inner.outside.min(inner.inside);
    if lowest < inner.index {
        found.push((inner.index, lowest));
    }
    if let Some(outer) = open.last_mut() {
        outer.inside = outer.inside.min(inner.inside);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one_by_one(prefixes: &[IpNet]) -> Vec<(usize, usize)> {
        let overlap = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
        (0..prefixes.len())
            .filter_map(|later| {
                (0..later)
                    .find(|&earlier| overlap(&prefixes[earlier], &prefixes[later]))
                    .map(|earlier| (later, earlier))
            })
            .collect()
    }

    /// Prefixes of a small space, so that many overlap.
    fn prefix() -> impl Strategy<Value = IpNet> {
        (any::<bool>(), 0_u8..8, 0_u8..=5).prop_map(|(v4, n, len)| {
            let text = if v4 {
                format!("10.0.0.{}/{}", n << 3, 24 + len)
            } else {
                format!("fd00::{:x}/{}", u16::from(n) << 3, 120 + len)
            };
            text.parse().expect("made as a prefix")
        })
    }

    proptest! {
        #[test]
        fn finds_what_comparing_all_pairs_finds(prefixes in prop::collection::vec(prefix(), 0..12)) {
            prop_assert_eq!(overlaps(&prefixes), one_by_one(&prefixes));
        }
    }
}

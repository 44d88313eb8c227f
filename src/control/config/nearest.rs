//! The key an operator probably meant.

/// Longer words are no misspelt key, and the distance costs the product of the lengths.
const MAX_LEN: usize = 32;

/// The candidate closest to `word`, if one letter in three or fewer differ.
pub(super) fn nearest(word: &str, candidates: &[&'static str]) -> Option<&'static str> {
    if word.len() > MAX_LEN {
        return None;
    }
    candidates
        .iter()
        .map(|&candidate| (distance(word, candidate), candidate))
        .min()
        .filter(|&(edits, candidate)| edits <= (candidate.len() / 3).max(1))
        .map(|(_, candidate)| candidate)
}

/// How many letters to insert, delete, replace or swap with their neighbour (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    // Three rows of the matrix suffice: a swap reaches back two.
    let mut before = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_insertions_deletions_replacements_and_swaps() {
        for (a, b, edits) in [
            ("mtu", "mtu", 0),
            ("", "mtu", 3),
            ("mtu", "", 3),
            ("mtus", "mtu", 1),
            ("mut", "mtu", 1),
            ("mta", "mtu", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }

    #[test]
    fn nearest_takes_the_closest_and_refuses_the_far() {
        let keys = ["mac", "mtu", "strict_source", "subnet_prefix_length"];
        assert_eq!(nearest("mut", &keys), Some("mtu"));
        assert_eq!(nearest("strict-sources", &keys), Some("strict_source"));
        assert_eq!(
            nearest("subnet_prefix_len", &keys),
            Some("subnet_prefix_length")
        );
        assert_eq!(nearest("xyz", &keys), None);
        assert_eq!(nearest(&"m".repeat(1 << 20), &keys), None);
        assert_eq!(nearest("mtu", &[]), None);
    }
}

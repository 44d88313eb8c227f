//! Which source ports there are, and which of them a flow has.

use std::ops::Range;

/// Source ports in use: enough to fill the ECMP members and receive queues of today's machines, few enough to open at once.
pub const SOURCE_PORTS: usize = 32;

/// What Linux uses where ip_local_port_range cannot be read.
pub const DEFAULT_SOURCE_PORTS: Range<u16> = 32768..60999;

/// Claims [`SOURCE_PORTS`] ports spread evenly over `range`, fewer if it is smaller; the next one where `claim` has none to give.
///
/// # Errors
/// The first of `claim`.
pub fn spread<T, E>(
    range: &Range<u16>,
    mut claim: impl FnMut(u16) -> Result<Option<T>, E>,
) -> Result<Vec<T>, E> {
    let pool = SOURCE_PORTS.min(range.len());
    let stride = (range.len() / pool.max(1)).max(1) as u16;
    let mut claimed = Vec::with_capacity(pool);
    let mut next = range.start;
    while claimed.len() < pool && range.contains(&next) {
        let after = next.saturating_add(1);
        next = match claim(next)? {
            Some(port) => {
                claimed.push(port);
                let even = stride.saturating_mul(claimed.len() as u16);
                range.start.saturating_add(even).max(after)
            }
            None => after,
        };
    }
    Ok(claimed)
}

/// Maps a hash to `0..len` by its high bits, as the kernel maps it to a port range (`udp_flow_src_port`).
#[must_use]
pub fn pick(hash: u32, len: usize) -> usize {
    ((u64::from(hash) * len as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn all_but(taken: &[u16], range: Range<u16>) -> Vec<u16> {
        let claim = |port| Ok::<_, Infallible>((!taken.contains(&port)).then_some(port));
        spread(&range, claim).expect("nothing fails")
    }

    #[test]
    fn ports_are_spread_evenly_over_the_range() {
        let ports = all_but(&[], DEFAULT_SOURCE_PORTS);
        assert_eq!(ports.len(), SOURCE_PORTS);
        assert!(ports.windows(2).all(|pair| pair[1] - pair[0] == 882));
        assert_eq!(ports[0], 32768);
    }

    #[test]
    fn a_taken_port_is_passed_over() {
        assert_eq!(all_but(&[4789], 4788..4792), [4788, 4790, 4791]);
        let ports = all_but(&[32768], DEFAULT_SOURCE_PORTS);
        assert_eq!(ports[..2], [32769, 32768 + 882]);
    }

    #[test]
    fn a_small_range_is_used_whole_and_an_empty_one_not_at_all() {
        assert_eq!(all_but(&[], 7..9), [7, 8]);
        assert!(all_but(&[], 7..7).is_empty());
        assert_eq!(all_but(&[], 65_534..65_535), [65_534]);
    }

    #[test]
    fn every_port_of_the_pool_is_reached_and_none_beyond() {
        assert_eq!(pick(0, SOURCE_PORTS), 0);
        assert_eq!(pick(u32::MAX, SOURCE_PORTS), SOURCE_PORTS - 1);
    }
}

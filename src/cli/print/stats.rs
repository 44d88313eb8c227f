//! What was counted: packets and bytes of each peer, drops with what each means.

use super::{Align, columns};
use crate::DropReason;
use crate::control::policy::FlowStats;
use crate::control::stats::{Count, ExpressStats, PeerStats, Stats};

/// Packets and bytes of each peer, then the drops of the whole device with what each means. `before` is the device a second ago: with
/// it comes a line of what went by since.
#[must_use]
pub fn stats(stats: &Stats, lanes: bool, before: Option<&Count>) -> String {
    let peers = stats
        .peers
        .iter()
        .map(|peer| count_cells(peer_name(peer), &peer.count));
    let each_lane = stats
        .lanes
        .iter()
        .enumerate()
        .map(|(i, lane)| count_cells(format!("lane {i}"), lane));
    let mut rows = vec![COUNT_HEADER.map(str::to_owned)];
    rows.extend(peers);
    if lanes {
        rows.extend(each_lane);
    }
    rows.push(count_cells(
        format!("{}, total", stats.ifname),
        &stats.total,
    ));
    rows.extend(
        before.map(|before| count_cells("last second".to_owned(), &stats.total.since(before))),
    );
    let mut text = columns(&rows, COUNT_ALIGN);
    text.push('\n');
    text.push_str(&partial_checksums(&stats.total));
    text.push_str(&stats.flows.as_ref().map_or_else(String::new, flows));
    text.push_str(&stats.express.as_ref().map_or_else(String::new, express));
    text.push_str(&drops(&stats.total));
    text
}

fn flows(flows: &FlowStats) -> String {
    format!(
        "flows {} of {}, established {}, evicted {} (established {})\n\n",
        flows.entries, flows.size, flows.established, flows.evicted, flows.evicted_established
    )
}

fn express(express: &ExpressStats) -> String {
    format!(
        "of those the kernel forwarded by our decisions: {} packets, {} bytes\n\n",
        express.tx_packets, express.tx_bytes
    )
}

/// Nothing where no kernel peer is on this machine.
fn partial_checksums(total: &Count) -> String {
    match total.partial_checksums {
        0 => String::new(),
        n => format!(
            "{n} frames came with a checksum that their sender left to a card (wrong, and the pseudo-header's sum); the host finishes it\n\n"
        ),
    }
}

const COUNT_HEADER: [&str; 7] = [
    "",
    "tx packets",
    "tx bytes",
    "rx packets",
    "rx bytes",
    "replies",
    "dropped",
];
const COUNT_ALIGN: [Align; 7] = {
    let mut align = [Align::Right; 7];
    align[0] = Align::Left;
    align
};

fn count_cells(name: String, count: &Count) -> [String; 7] {
    let dropped = count.dropped();
    let numbers = [
        count.tx_packets,
        count.tx_bytes,
        count.rx_packets,
        count.rx_bytes,
        count.replies,
        dropped,
    ];
    let [a, b, c, d, e, f] = numbers.map(|n| n.to_string());
    [name, a, b, c, d, e, f]
}

fn peer_name(peer: &PeerStats) -> String {
    let name = peer
        .subnets
        .iter()
        .fold(peer.underlay.to_string(), |name, subnet| {
            format!("{name} {subnet}")
        });
    if peer.udp_gso_refused {
        name + " (udp-gso refused)"
    } else {
        name
    }
}

fn drops(total: &Count) -> String {
    if total.drops.is_empty() {
        return "no drops\n".to_owned();
    }
    let mut reasons: Vec<_> = total.drops.iter().collect();
    // The most frequent first; the map's order, by name, breaks ties.
    reasons.sort_by_key(|&(_, &count)| std::cmp::Reverse(count));
    let row =
        |(name, count): (&String, &u64)| [format!("drop {name}"), count.to_string(), meaning(name)];
    let mut rows: Vec<_> = reasons.into_iter().map(row).collect();
    rows.push([
        "drops, total".to_owned(),
        total.dropped().to_string(),
        String::new(),
    ]);
    columns(&rows, [Align::Left, Align::Right, Align::Left])
}

/// A newer daemon may have reasons that we do not know.
fn meaning(name: &str) -> String {
    let reason = DropReason::ALL
        .into_iter()
        .find(|reason| reason.name() == name);
    reason.map_or_else(String::new, |reason| reason.meaning().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn row<T: serde::de::DeserializeOwned>(value: Value) -> T {
        from_value(value).expect("the JSON of a row")
    }

    fn counted(tx_packets: u64, drops: Value) -> Value {
        json!({"tx_packets": tx_packets, "tx_bytes": tx_packets * 98, "rx_packets": 7, "rx_bytes": 686, "replies": 0, "drops": drops})
    }

    fn stats_json() -> Value {
        let mut peer = counted(100, json!({"source-not-peers": 2}));
        peer["underlay"] = json!("10.0.16.14");
        peer["subnets"] = json!(["10.255.43.0/24"]);
        peer["udp_gso_refused"] = json!(false);
        let drops = json!({"no-route": 12, "source-not-peers": 2});
        json!({"ifname": "silk-vtep", "total": counted(100, drops.clone()), "lanes": [counted(100, drops)], "peers": [peer]})
    }

    #[test]
    fn stats_show_each_peer_and_each_drop_with_totals() {
        assert_eq!(
            stats(&row(stats_json()), true, None),
            "                           tx packets  tx bytes  rx packets  rx bytes  replies  dropped
10.0.16.14 10.255.43.0/24         100      9800           7       686        0        2
lane 0                            100      9800           7       686        0       14
silk-vtep, total                  100      9800           7       686        0       14

drop no-route          12  No route covers the destination.
drop source-not-peers   2  An inner source address that our tables do not place behind the sending peer (strict_source).
drops, total           14
"
        );
        assert!(!stats(&row(stats_json()), false, None).contains("lane 0"));
    }

    #[test]
    fn stats_that_are_watched_show_the_last_second() {
        let before = row(counted(90, json!({"no-route": 12})));
        let text = stats(&row(stats_json()), false, Some(&before));
        let line = text
            .lines()
            .find(|line| line.starts_with("last second"))
            .expect(&text);
        let numbers: Vec<_> = line.split_whitespace().skip(2).collect();
        assert_eq!(numbers, ["10", "980", "0", "0", "0", "2"]);
    }

    #[test]
    fn stats_tell_of_partial_checksums_if_there_were_any() {
        let mut counted = stats_json();
        let before = stats(&row(counted.clone()), false, None);
        assert!(!before.contains("checksum"), "{before}");
        counted["total"]["partial_checksums"] = json!(5);
        let text = stats(&row(counted), false, None);
        assert!(text.contains("\n\n5 frames came with a checksum"), "{text}");
    }

    #[test]
    fn stats_tell_what_took_the_express_path_where_there_is_one() {
        let mut counted = stats_json();
        counted["express"] = json!({"tx_packets": 60, "tx_bytes": 5000});
        let text = stats(&row(counted), false, None);
        let line = "\nof those the kernel forwarded by our decisions: 60 packets, 5000 bytes\n\n";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn stats_tell_of_flows_where_a_policy_is_enforced() {
        let mut counted = stats_json();
        counted["flows"] = json!({"size": 64, "entries": 3, "established": 2, "evicted": 1, "evicted_established": 0});
        let text = stats(&row(counted), false, None);
        assert!(
            text.contains("\nflows 3 of 64, established 2, evicted 1 (established 0)\n\n"),
            "{text}"
        );
    }

    #[test]
    fn stats_of_a_quiet_device_say_so() {
        let quiet = json!({"ifname": "silk-vtep", "total": counted(0, json!({})), "lanes": [], "peers": []});
        assert!(stats(&row(quiet), false, None).ends_with("\n\nno drops\n"));
    }
}

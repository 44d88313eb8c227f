//! What words mean, and what is said of those that mean nothing.

use super::*;

fn read(line: &str) -> Result<Option<Change>, String> {
    let read = parse_batch_line(line).map_err(|error| error.wrong)?;
    Ok(read.map(|(change, _)| change))
}

fn change(line: &str) -> String {
    let change = read(line).expect(line).expect(line);
    serde_json::to_string(&change).expect("no map keys")
}

fn sentence_of(line: &str) -> Result<Sentence, UsageError> {
    let words: Vec<_> = line.split(' ').collect();
    let table = Table::ALL
        .into_iter()
        .find(|table| table.name() == words[0]);
    parse(table.expect(line), &words[1..])
}

fn show_request(line: &str) -> Result<Request, UsageError> {
    sentence_of(line).map(|sentence| sentence.request)
}

#[test]
fn changes_read_as_they_are_typed_to_iproute2() {
    for (line, json) in [
        (
            "route add 10.255.43.0/24 via 10.255.43.0 dev silk-vtep",
            r#"{"add":{"route":{"dst":"10.255.43.0/24","via":"10.255.43.0"}}}"#,
        ),
        (
            "route replace default dev silk-vtep",
            r#"{"replace":{"route":{"dst":"0.0.0.0/0"}}}"#,
        ),
        (
            "route del 10.255.43.7",
            r#"{"del":{"route":"10.255.43.7/32"}}"#,
        ),
        (
            "neigh add 10.255.43.0 dev x lladdr EE-EE-0A-FF-2B-00",
            r#"{"add":{"neigh":{"dst":"10.255.43.0","lladdr":"ee:ee:0a:ff:2b:00"}}}"#,
        ),
        (
            "fdb add 00:00:00:00:00:00 dev x dst 10.0.16.14 vni 7 port 4790",
            r#"{"add":{"fdb":{"mac":"00:00:00:00:00:00","dst":"10.0.16.14","port":4790,"vni":7}}}"#,
        ),
        (
            "fdb del ee:ee:0a:ff:2b:00 dst 10.0.16.14",
            r#"{"del":{"fdb":{"mac":"ee:ee:0a:ff:2b:00","dst":"10.0.16.14"}}}"#,
        ),
        (
            "group add 10.255.108.184 id 0x3 # web",
            r#"{"add":{"group":{"address":"10.255.108.184","id":3}}}"#,
        ),
        (
            "policy add 10.255.108.184 group 0x3 proto tcp ports 8080-8090",
            r#"{"add":{"policy":{"dst":"10.255.108.184/32","group":3,"proto":"tcp","ports":"8080-8090"}}}"#,
        ),
        (
            "policy replace fd00::/16 ports 53 action deny proto udp group 7",
            r#"{"replace":{"policy":{"dst":"fd00::/16","group":7,"proto":"udp","ports":"53","action":"deny"}}}"#,
        ),
        (
            "policy del 10.255.108.0/24 group 3 proto icmp",
            r#"{"del":{"policy":{"dst":"10.255.108.0/24","group":3,"proto":"icmp"}}}"#,
        ),
        (
            "policy del 10.255.108.0/24 group 3 proto icmp action accept",
            r#"{"del-exact":{"policy":{"dst":"10.255.108.0/24","group":3,"proto":"icmp"}}}"#,
        ),
        ("peer del 10.0.16.14", r#"{"del":{"peer":"10.0.16.14"}}"#),
    ] {
        assert_eq!(change(line), json, "{line}");
    }
}

#[test]
fn what_show_prints_may_follow_a_verb_and_means_the_same() {
    for (printed, entry) in [
        (
            "route VERB 10.255.43.0/24 via 10.255.43.0 dev silk-vtep src 10.255.108.0 onlink",
            r#"{"route":{"dst":"10.255.43.0/24","via":"10.255.43.0"}}"#,
        ),
        (
            "route VERB default via fd00:43::1 dev silk-vtep src fd00:6c::1",
            r#"{"route":{"dst":"::/0","via":"fd00:43::1"}}"#,
        ),
        (
            "neigh VERB 10.255.43.0 dev silk-vtep lladdr ee:ee:0a:ff:2b:00 PERMANENT",
            r#"{"neigh":{"dst":"10.255.43.0","lladdr":"ee:ee:0a:ff:2b:00"}}"#,
        ),
        (
            "neigh VERB 10.255.43.0 lladdr ee:ee:0a:ff:2b:00 nud permanent dev silk-vtep",
            r#"{"neigh":{"dst":"10.255.43.0","lladdr":"ee:ee:0a:ff:2b:00"}}"#,
        ),
        (
            "peer VERB 10.255.43.0/24  underlay 10.0.16.14  mac ee:ee:0a:ff:2b:00  config  mtu 1350",
            r#"{"peer":{"subnets":["10.255.43.0/24"],"underlay":"10.0.16.14","mac":"ee:ee:0a:ff:2b:00"}}"#,
        ),
        (
            "group VERB 10.255.108.184  id 0x0003  live",
            r#"{"group":{"address":"10.255.108.184","id":3}}"#,
        ),
        (
            "policy VERB 10.255.108.184  group 0x0003  proto tcp  ports 80  action deny  config",
            r#"{"policy":{"dst":"10.255.108.184/32","group":3,"proto":"tcp","ports":"80","action":"deny"}}"#,
        ),
    ] {
        for (verb, change_of) in [("add", "add"), ("replace", "replace"), ("del", "del-exact")] {
            let line = printed.replace("VERB", verb);
            assert_eq!(
                change(&line),
                format!(r#"{{"{change_of}":{entry}}}"#),
                "{line}"
            );
        }
    }
    let fdb = "ee:ee:0a:ff:2b:00 dev silk-vtep dst 10.0.16.14 port 4790 vni 7 self permanent";
    let json = r#"{"fdb":{"mac":"ee:ee:0a:ff:2b:00","dst":"10.0.16.14","port":4790,"vni":7}}"#;
    for (verb, change_of) in [
        ("add", "add"),
        ("append", "add"),
        ("replace", "replace"),
        ("del", "del"),
    ] {
        let line = format!("fdb {verb} {fdb}");
        assert_eq!(
            change(&line),
            format!(r#"{{"{change_of}":{json}}}"#),
            "{line}"
        );
    }
    // Without a next hop there is nothing but the key.
    assert_eq!(
        change("route del default dev silk-vtep src fd00:6c::1"),
        r#"{"del":{"route":"::/0"}}"#
    );
}

#[test]
fn host_bits_of_a_peers_subnet_are_its_vteps_address() {
    assert_eq!(
        change("peer add 10.255.43.7/24 underlay 10.0.16.14"),
        r#"{"add":{"peer":{"subnets":["10.255.43.7/24"],"underlay":"10.0.16.14","mac":"ee:ee:0a:ff:2b:07"}}}"#
    );
}

#[test]
fn a_device_and_a_source_are_premises() {
    let premises = |line: &str| sentence_of(line).expect(line).premises;
    let of = |device: &str, source: &str| Premises {
        device: Some(device.to_owned()).filter(|name| !name.is_empty()),
        source: source.parse().ok(),
    };
    for (line, device, source) in [
        (
            "route add 10.255.43.0/24 dev x src 10.255.108.0",
            "x",
            "10.255.108.0",
        ),
        ("route get 10.255.43.6 dev x", "x", ""),
        ("fdb show dev x", "x", ""),
        ("link show x", "x", ""),
        ("link show dev x", "x", ""),
        ("link", "", ""),
    ] {
        assert_eq!(premises(line), of(device, source), "{line}");
    }
}

#[test]
fn the_mac_of_a_peer_follows_from_its_ipv4_subnet() {
    assert_eq!(
        change("peer add 10.255.43.0/24,fd00:43::/64 underlay 10.0.16.14"),
        r#"{"add":{"peer":{"subnets":["10.255.43.0/24","fd00:43::/64"],"underlay":"10.0.16.14","mac":"ee:ee:0a:ff:2b:00"}}}"#
    );
    let error = read("peer add fd00:43::/64 underlay 10.0.16.14").expect_err("no IPv4 subnet");
    assert!(error.contains("`mac MAC` is wanted"), "{error}");
}

#[test]
fn show_takes_a_key_or_none() {
    for (line, show) in [
        ("route", Show::Route(None)),
        ("route show dev silk-vtep", Show::Route(None)),
        (
            "neigh show 10.255.43.0",
            Show::Neigh("10.255.43.0".parse().ok()),
        ),
        (
            "fdb list ee:ee:0a:ff:2b:00",
            Show::Fdb("ee:ee:0a:ff:2b:00".parse().ok()),
        ),
        ("group ls", Show::Group(None)),
        ("policy", Show::Policy(None)),
        (
            "policy show 10.255.108.0/24",
            Show::Policy("10.255.108.0/24".parse().ok()),
        ),
    ] {
        assert_eq!(show_request(line), Ok(Request::Show(show)), "{line}");
    }
    assert_eq!(show_request("link show"), Ok(Request::Link));
    assert_eq!(show_request("policy denied"), Ok(Request::Denied));
}

#[test]
fn wrong_words_are_told_with_what_is_accepted() {
    for (line, wrong) in [
        (
            "route add",
            "route: a prefix such as 10.255.43.0/24 is wanted",
        ),
        (
            "route add 10.255.43.0/33",
            "route: `10.255.43.0/33` is not a prefix such as 10.255.43.0/24",
        ),
        (
            "route add 10.255.43.0/24 via",
            "route: `via` takes an address such as 10.255.43.0, and there is none behind it",
        ),
        (
            "route add 10.255.43.0/24 metric 100",
            "route: `metric` is one word too many",
        ),
        ("neigh add 10.255.43.0", "neigh: `lladdr` is wanted"),
        (
            "group add 10.255.1.1 id 0",
            "group: `id` takes a group id of 0x0001 to 0xffff, not `0`",
        ),
        (
            "fdb add ee:ee:0a:ff:2b:00 dst 10.0.16.14 port 0",
            "fdb: `port` takes a UDP port of 1 to 65535, not `0`",
        ),
        (
            "peer add 10.255.43.0/24 underly 10.0.16.14 mac ee:ee:0a:ff:2b:00",
            "peer: `underlay` is wanted, and `underly` is not known here",
        ),
        (
            "peer add 10.255.43.0/24 underlay",
            "peer: `underlay` takes an underlay address such as 10.0.16.14, and there is none behind it",
        ),
        (
            "fdb add ee:ee:0a:ff:2b:00 dest 10.0.16.14 port 4790",
            "fdb: `dst` is wanted, and `dest` is not known here",
        ),
        (
            "neigh show dev",
            "neigh: `dev` takes a device's name, and there is none behind it",
        ),
        (
            "peer del 10.255.43.0/24",
            "peer: `10.255.43.0/24` is not an underlay address such as 10.0.16.14",
        ),
        (
            "group add 10.255.1.1 id 0x10000",
            "group: `id` takes a group id of 0x0001 to 0xffff, not `0x10000`",
        ),
        (
            "route add 10.255.43.0/24 src fd00::1",
            "route: `src fd00::1` is of the other family than 10.255.43.0/24",
        ),
        (
            "neigh add 10.255.43.0 lladdr ee:ee:0a:ff:2b:00 nud stale",
            "neigh: `nud` takes permanent, which every neighbour is, not `stale`",
        ),
        (
            "fdb add ee:ee:0a:ff:2b:00 dst 10.0.16.14 self dynamic",
            "fdb: `dynamic` is one word too many",
        ),
        (
            "route append 10.255.43.0/24",
            "route: `append` is no verb of it",
        ),
        (
            "peer show 10.0.16.14 config",
            "peer: `config` is one word too many",
        ),
        (
            "policy add 10.255.108.184 group 3 proto tcp ports 90-80",
            "policy: `ports` takes a port or two with a dash: `90-80` is reversed (accepted: 80-90)",
        ),
        (
            "policy add 10.255.108.184 group 3 proto sctp",
            "policy: `proto` takes tcp, udp or icmp, not `sctp`",
        ),
        (
            "policy add 10.255.108.184 proto tcp",
            "policy: `group` is wanted",
        ),
        (
            "policy add 10.255.108.184 group 3 prto tcp",
            "policy: `proto` is wanted, and `prto` is not known here",
        ),
        ("policy del 10.255.108.184", "policy: `group` is wanted"),
        ("link show x y", "link: `y` is one word too many"),
        ("fdb get ee:ee:0a:ff:2b:00", "fdb: `get` is no verb of it"),
        (
            "link add",
            "link: it has only show (`add` is the configuration file's)",
        ),
    ] {
        let error = show_request(line).expect_err(line);
        assert_eq!(error.wrong, wrong);
        assert!(
            error.usage.starts_with("usage: silk-vtep "),
            "{}",
            error.usage
        );
    }
}

#[test]
fn a_batch_takes_changes_comments_and_empty_lines_only() {
    assert_eq!(read("  # nothing"), Ok(None));
    assert_eq!(read(""), Ok(None));
    assert_eq!(
        read("route show"),
        Err("`route show` changes nothing".to_owned())
    );
    assert_eq!(read("lease add"), Err("`lease` is no table".to_owned()));
}

//! What words mean, and what is said of those that mean nothing.

use super::*;

fn read(line: &str) -> Result<Option<Change>, String> {
    parse_batch_line(line).map_err(|error| error.wrong)
}

fn change(line: &str) -> String {
    let change = read(line).expect(line).expect(line);
    serde_json::to_string(&change).expect("no map keys")
}

fn show_request(line: &str) -> Result<Request, UsageError> {
    let words: Vec<_> = line.split(' ').collect();
    let table = Table::ALL
        .into_iter()
        .find(|table| table.name() == words[0]);
    parse(table.expect(line), &words[1..])
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
        ("peer del 10.0.16.14", r#"{"del":{"peer":"10.0.16.14"}}"#),
    ] {
        assert_eq!(change(line), json, "{line}");
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
    ] {
        assert_eq!(show_request(line), Ok(Request::Show(show)), "{line}");
    }
    assert_eq!(show_request("link show"), Ok(Request::Link));
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
            "route: `via` takes an address such as 10.255.43.0, not ``",
        ),
        (
            "route add 10.255.43.0/24 metric 100",
            "route: `metric` is one word too many",
        ),
        ("neigh add 10.255.43.0", "neigh: `lladdr` is wanted"),
        (
            "neigh show dev",
            "neigh: `dev` takes a device's name, not ``",
        ),
        (
            "peer del 10.255.43.0/24",
            "peer: `10.255.43.0/24` is not an underlay address such as 10.0.16.14",
        ),
        (
            "group add 10.255.1.1 id 0x10000",
            "group: `id` takes a group id of 0x0001 to 0xffff, not `0x10000`",
        ),
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
    assert_eq!(read("policy add"), Err("`policy` is no table".to_owned()));
}

//! Large files, and texts that nobody would write.

use std::fmt::Write;

use proptest::prelude::*;
use silk_vtep::control::config::Config;

use crate::{EXAMPLE, errors, parse};

/// `n` peers and as many groups, in an overlay that has room for 65,535.
fn many(n: u32) -> String {
    let mut text =
        "[vtep]\nlocal = \"192.168.0.1\"\naddress = \"10.0.0.0\"\noverlay = \"10.0.0.0/8\"\n"
            .to_owned();
    for i in 1..=n {
        let [_, _, a, b] = i.to_be_bytes();
        writeln!(
            text,
            "[[peer]]\nsubnet = \"10.{a}.{b}.0/24\"\nunderlay = \"172.16.{a}.{b}\""
        )
        .unwrap();
        writeln!(text, "[[group]]\naddress = \"10.{a}.{b}.1\"\nid = {i}").unwrap();
    }
    text
}

#[test]
fn ten_thousand_peers_and_groups_are_taken() {
    let config = parse(&many(10_000));
    assert_eq!((config.peers.len(), config.groups.len()), (10_000, 10_000));
    assert_eq!(config.peers[9_999].underlay.to_string(), "172.16.39.16");
}

#[test]
fn each_of_ten_thousand_doubled_peers_is_reported() {
    let once = many(10_000);
    let (_, entries) = once.split_once("[[peer]]").expect("a peer in the text");
    let errors = errors(&format!("{once}[[peer]]{entries}"));
    // Of each doubled pair the subnet, the underlay address and the group.
    assert_eq!(errors.len(), 30_000);
    assert_eq!(
        errors[29_999],
        "line 120003: group[19999].address: 10.39.16.1 has a group already at group[9999].address (line 60003); accepted: one group for each address"
    );
}

/// A valid file with every kind of entry, for mutations.
fn valid() -> String {
    EXAMPLE.replace("id = 0x0003", "id = 0x0003\n[[peer]]\nsubnet = [\"10.255.44.1/24\"]\nmac = \"ee:ee:00:00:00:01\"\nunderlay = \"10.0.16.15\"")
}

/// What holds of every outcome: errors come in order, have a line of the file, and are one line each.
fn hold_together(text: &str) -> Result<(), TestCaseError> {
    let Err(errors) = Config::parse(text) else {
        return Ok(());
    };
    prop_assert!(!errors.0.is_empty());
    prop_assert!(errors.0.is_sorted_by_key(|error| error.line));
    let last_line = text.matches('\n').count() + 1;
    let in_file = |line: Option<usize>| line.is_none_or(|line| (1..=last_line).contains(&line));
    let all_in_file = errors.0.iter().all(|error| in_file(error.line));
    prop_assert!(all_in_file);
    prop_assert_eq!(errors.to_string().lines().count(), errors.0.len());
    Ok(())
}

/// Texts with a meaning somewhere in the file.
fn token() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "[vtep]",
            "[[peer]]",
            "[[group]]",
            "\n",
            "=",
            "[",
            "]",
            "{",
            "}",
            ".",
            ",",
            "\"",
            "0",
            "-1",
            "65536",
            "18446744073709551616",
            "true",
            "inf",
            "1979-05-27",
            "\"::/0\"",
            "\"0.0.0.0/0\"",
            "\"ff02::1\"",
            "\"10.255.0.0/16\"",
            "\"\"",
            "[]",
            "[[]]",
            "{}",
            "local",
            "address",
            "overlay",
            "subnet",
            "underlay",
            "mac",
            "id",
            "vtep",
            "peer",
            "group",
            "\r",
            "#",
            "\u{0}",
            "\u{feff}",
        ])
        .prop_map(str::to_owned),
        ".{0,3}",
    ]
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}|(?s).{0,200}") {
        hold_together(&text)?;
    }

    #[test]
    fn arbitrary_tokens_never_panic(tokens in prop::collection::vec(token(), 0..40)) {
        hold_together(&tokens.concat())?;
    }

    #[test]
    fn mutated_files_never_panic(edits in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..12, token()), 1..4)) {
        let mut text: Vec<char> = valid().chars().collect();
        for (at, removed, inserted) in edits {
            let start = at.index(text.len() + 1);
            let end = (start + removed).min(text.len());
            text.splice(start..end, inserted.chars());
        }
        hold_together(&text.into_iter().collect::<String>())?;
    }
}

#[test]
fn the_file_that_is_mutated_is_valid() {
    assert_eq!(parse(&valid()).peers.len(), 2);
}

#[test]
fn deep_nesting_is_an_error_and_no_stack_overflow() {
    for text in [
        format!("{}a = 1", "a.".repeat(100_000)),
        format!("[{}a]", "a.".repeat(100_000)),
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}", "{a=".repeat(100_000)),
    ] {
        assert!(!errors(&text).is_empty());
    }
}

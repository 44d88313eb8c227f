//! Commands against a daemon that has one peer and one group.

use clap::Parser;
use tempfile::TempDir;

use super::*;
use crate::cli::args::{Command, CommandLine};
use crate::control::{Server, fixtures};

struct Fixture {
    directory: TempDir,
    _server: Server,
}

fn start() -> Fixture {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let control = fixtures::control(directory.path()).0;
    let server =
        Server::start(&directory.path().join("s"), control).expect("nothing is in its way");
    Fixture {
        directory,
        _server: server,
    }
}

fn try_in(directory: &Path, line: &str, out: &mut dyn Write) -> Result<(), CliError> {
    let socket = format!("--socket={}", directory.join("s").display());
    let words = ["silk-vtep"]
        .into_iter()
        .chain(line.split(' '))
        .chain([socket.as_str()]);
    let parsed = CommandLine::try_parse_from(words).expect(line);
    let Command::Table(command) = parsed.command else {
        panic!("{line}")
    };
    run(&command, &parsed.global, out)
}

impl Fixture {
    fn try_run(&self, line: &str) -> Result<String, CliError> {
        let mut out = Vec::new();
        try_in(self.directory.path(), line, &mut out)?;
        Ok(String::from_utf8(out).expect("we print text"))
    }

    fn run(&self, line: &str) -> String {
        self.try_run(line).expect(line)
    }

    /// Gives what `show` prints to each verb, and tells how many lines that were. What is given is live.
    fn give_back(&self, table: &str) -> usize {
        let printed = self.run(table);
        for verb in ["replace", "del", "add"] {
            let line = |line| format!("{table} {verb} {line}\n");
            let lines: String = printed.lines().map(line).collect();
            assert_eq!(self.batch(&lines).expect(&lines), "");
        }
        let live = |text: &str| text.replace("  config", "  live");
        assert_eq!(live(&self.run(table)), live(&printed));
        printed.lines().count()
    }

    fn batch(&self, lines: &str) -> Result<String, CliError> {
        let file = self.directory.path().join("batch");
        std::fs::write(&file, lines).expect("the directory is ours");
        self.try_run(&format!("batch {}", file.display()))
    }
}

#[test]
fn show_prints_what_an_operator_knows_from_iproute2() {
    let fixture = start();
    for (line, printed) in [
        (
            "route show 10.255.43.0/24",
            "10.255.43.0/24 via 10.255.43.0 dev silk-vtep src 10.255.108.0\n",
        ),
        (
            "route get 10.255.43.6",
            "10.255.43.6 via 10.255.43.0 dev silk-vtep src 10.255.108.0\n",
        ),
        (
            "neigh show 10.255.43.0",
            "10.255.43.0 dev silk-vtep lladdr ee:ee:0a:ff:2b:00 PERMANENT\n",
        ),
        (
            "fdb show",
            "ee:ee:0a:ff:2b:00 dev silk-vtep dst 10.0.16.14 self permanent\n",
        ),
        (
            "peer show",
            "10.255.43.0/24  underlay 10.0.16.14  mac ee:ee:0a:ff:2b:00  config\n",
        ),
        ("group show", "10.255.108.184  id 0x0003  config\n"),
        ("route show 10.255.99.0/24", ""),
        ("neigh show 10.255.99.0", ""),
    ] {
        assert_eq!(fixture.run(line), printed, "{line}");
    }
    assert!(
        fixture
            .run("link show")
            .starts_with("865: silk-vtep: <BROADCAST,MULTICAST,NOARP,UP,LOWER_UP> mtu 1410 ")
    );
}

#[test]
fn json_has_the_keys_of_iproute2() {
    let fixture = start();
    assert_eq!(
        fixture.run("-j route show"),
        "[{\"dst\":\"10.255.43.0/24\",\"gateway\":\"10.255.43.0\",\"dev\":\"silk-vtep\",\"prefsrc\":\"10.255.108.0\",\
             \"flags\":[],\"origin\":\"config\",\"peer\":\"10.0.16.14\"}]\n"
    );
    let link: serde_json::Value = serde_json::from_str(&fixture.run("link -j")).expect("JSON");
    let data = &link[0]["linkinfo"]["info_data"];
    assert_eq!(
        (&data["id"], &data["local"], &data["link"]),
        (&1.into(), &"10.0.32.12".into(), &"eth0".into())
    );
    assert_eq!(link[0]["silk_vtep"]["features"]["udp-gso"], "on");
    let stats: serde_json::Value = serde_json::from_str(&fixture.run("-j stats")).expect("JSON");
    assert_eq!(stats["peers"][0]["underlay"], "10.0.16.14");
}

#[test]
fn every_command_prints_json_when_asked_to() {
    let fixture = start();
    let file = fixture.directory.path().join("batch");
    std::fs::write(&file, "group del 10.255.108.184\n").expect("the directory is ours");
    for line in [
        "link",
        "route",
        "route get 10.255.43.6",
        "neigh",
        "fdb",
        "peer",
        "group",
        "peer add 10.255.44.0/24 underlay 10.0.16.15",
        "group replace 10.255.108.184 id 7",
        "peer del 10.0.16.15",
        "stats",
        "reload",
        &format!("batch {}", file.display()),
    ] {
        let printed = fixture.run(&format!("-j {line}"));
        let value: Result<serde_json::Value, _> = serde_json::from_str(&printed);
        assert!(
            value.is_ok() && printed.ends_with('\n'),
            "{line}: {printed}"
        );
    }
}

#[test]
fn changes_are_silent_and_take_effect() {
    let fixture = start();
    for line in [
        "peer add 10.255.44.0/24 underlay 10.0.16.15",
        "route add 10.255.45.0/24 via 10.255.44.0 dev silk-vtep",
        "group replace 10.255.108.184 id 0xffff",
        "peer del 10.0.16.14",
    ] {
        assert_eq!(fixture.run(line), "", "{line}");
    }
    assert_eq!(
        fixture.run("route"),
        "10.255.44.0/24 via 10.255.44.0 dev silk-vtep src 10.255.108.0
10.255.45.0/24 via 10.255.44.0 dev silk-vtep src 10.255.108.0\n"
    );
    assert_eq!(fixture.run("group"), "10.255.108.184  id 0xffff  live\n");
}

#[test]
fn what_show_prints_is_taken_back() {
    let fixture = start();
    for line in [
        "peer del 10.0.16.14",
        "route add 10.255.43.0/24 via 10.255.43.0",
        "route add default",
        "route add fd00:43::/64 via fd00:43::1",
        "neigh add 10.255.43.0 lladdr ee:ee:0a:ff:2b:00",
        "fdb add ee:ee:0a:ff:2b:00 dst 10.0.16.14 port 4790 vni 7",
        "fdb add 00:00:00:00:00:00 dst 10.0.16.15",
        "fdb append 00:00:00:00:00:00 dst 10.0.16.16",
    ] {
        fixture.run(line);
    }
    for (table, lines) in [("route", 3), ("neigh", 1), ("fdb", 3), ("group", 1)] {
        assert_eq!(fixture.give_back(table), lines, "{table}");
    }
    fixture.run("peer add 10.255.44.0/24,fd00:44::/64 underlay 10.0.16.17");
    assert_eq!(fixture.give_back("peer"), 1);
}

#[test]
fn a_device_or_source_that_is_not_the_daemons_is_refused() {
    let fixture = start();
    for (line, wrong) in [
        (
            "route show dev eth0",
            "find device eth0: the daemon that was asked has silk-vtep (leave the name out, or ask another daemon with --name or --socket)",
        ),
        (
            "link show eth0",
            "find device eth0: the daemon that was asked has silk-vtep (leave the name out, or ask another daemon with --name or --socket)",
        ),
        (
            "route add 10.255.45.0/24 src 10.255.45.1",
            "use src 10.255.45.1: the VTEP's address is 10.255.108.0 (leave `src` out)",
        ),
    ] {
        let error = fixture.try_run(line).expect_err(line).to_string();
        assert_eq!(error, wrong, "{line}");
    }
    assert!(
        fixture
            .run("link show silk-vtep")
            .starts_with("865: silk-vtep: ")
    );
    let error = fixture
        .batch(
            "group del 10.255.108.184\n\nneigh add 10.255.45.0 dev tap0 lladdr 02:00:00:00:00:01\n",
        )
        .expect_err("another device")
        .to_string();
    assert!(
        error.contains("batch: line 3: find device tap0: "),
        "{error}"
    );
    assert_eq!(fixture.run("group"), "10.255.108.184  id 0x0003  config\n");
}

#[test]
fn what_is_not_as_described_is_not_deleted() {
    let fixture = start();
    fixture.run("route add 10.255.45.0/24 via 10.255.43.0");
    for (line, wrong) in [
        (
            "route del 10.255.45.0/24 via 10.255.43.1",
            "no route 10.255.45.0/24 via 10.255.43.1 (there is route 10.255.45.0/24 via 10.255.43.0)",
        ),
        (
            "group del 10.255.108.184 id 4",
            "no group 10.255.108.184 id 0x0004 (there is group 10.255.108.184 id 0x0003)",
        ),
        (
            "peer del 10.255.44.0/24 underlay 10.0.16.14",
            "no peer 10.255.44.0/24 underlay 10.0.16.14 mac ee:ee:0a:ff:2c:00 (there is peer 10.255.43.0/24 underlay 10.0.16.14 mac ee:ee:0a:ff:2b:00)",
        ),
        (
            "neigh del 10.255.99.0 lladdr ee:ee:0a:ff:63:00",
            "no neigh 10.255.99.0: `show` tells what there is",
        ),
        (
            "route del 10.255.43.0/24 via 10.255.43.0",
            "route 10.255.43.0/24 follows from peer 10.0.16.14; change the peer",
        ),
    ] {
        assert_eq!(fixture.try_run(line).expect_err(line).to_string(), wrong);
    }
    fixture.run("route del 10.255.45.0/24 via 10.255.43.0");
}

#[test]
fn a_refusal_is_a_failure_with_the_daemons_words() {
    let fixture = start();
    let error = fixture
        .try_run("peer add 10.255.43.0/24 underlay 10.0.16.15")
        .expect_err("it overlaps");
    assert!(matches!(error, CliError::Failed(_)));
    assert_eq!(
        error.to_string(),
        "peer 10.0.16.15: subnet 10.255.43.0/24 overlaps 10.255.43.0/24 of peer 10.0.16.14"
    );
    let error = fixture.try_run("route get fd00::1").expect_err("no route");
    assert_eq!(error.to_string(), "no route to fd00::1");
}

#[test]
fn wrong_words_are_wrong_without_a_daemon() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let error =
        try_in(directory.path(), "link add", &mut io::sink()).expect_err("link has only show");
    assert!(matches!(error, CliError::Usage(_)));
    let error = try_in(directory.path(), "link", &mut io::sink())
        .expect_err("nobody listens")
        .to_string();
    assert!(error.contains(": ENOENT (is silk-vtep running?"), "{error}");
}

#[test]
fn a_batch_that_cannot_be_read_is_told_as_what_it_is() {
    let fixture = start();
    let directory = fixture.directory.path();
    let latin1 = directory.join("latin1");
    std::fs::write(&latin1, b"# fine\n# \xe9\n").expect("the directory is ours");
    for (file, told) in [
        (
            directory.join("none"),
            "none: ENOENT (give a file that is there",
        ),
        (directory.to_owned(), ": EISDIR (give a file that is there"),
        (latin1, "latin1: line 2: it is not UTF-8"),
    ] {
        let error = fixture.try_run(&format!("batch {}", file.display()));
        let error = error.expect_err(told).to_string();
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn a_batch_is_taken_whole_or_refused_with_the_line() {
    let fixture = start();
    let lines = "# two peers\npeer add 10.255.44.0/24 underlay 10.0.16.15\n\npeer add 10.255.45.0/24 underlay 10.0.16.15\n";
    let error = fixture
        .batch(lines)
        .expect_err("one underlay address")
        .to_string();
    assert!(
        error.ends_with(
            "batch: line 4: peer 10.0.16.15 exists already (an earlier change of this request gives it): give it once (nothing was changed)"
        ),
        "{error}"
    );
    assert_eq!(fixture.run("peer show 10.0.16.15"), "");
    let error = fixture
        .try_run("batch /dev/null/none")
        .expect_err("no file");
    assert_eq!(
        error.to_string(),
        "read batch /dev/null/none: ENOTDIR (give a file that is there and may be read, or - for standard input)"
    );
    let error = fixture
        .batch("peer add\n")
        .expect_err("no subnet")
        .to_string();
    assert!(
        error.contains("batch: line 1: peer: a subnet such as"),
        "{error}"
    );
    assert_eq!(
        fixture
            .batch(&lines.replace(
                "10.255.45.0/24 underlay 10.0.16.15",
                "10.255.45.0/24 underlay 10.0.16.16"
            ))
            .expect("taken"),
        ""
    );
    assert_eq!(fixture.run("peer show").lines().count(), 3);
}

#[test]
fn who_was_refused_where_no_policy_is_enforced_is_no_reassurance() {
    let said = start().run("policy denied");
    assert!(said.starts_with("no policy is enforced: "), "{said}");
}

#[test]
fn reload_says_what_the_file_holds() {
    assert_eq!(
        start().run("reload"),
        "1 peer and 1 group in the configuration; policy off\n"
    );
}

#[test]
fn a_closed_output_ends_a_watch_without_an_error() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let fixture = start();
    for line in ["stats --watch", "route show", "-j link"] {
        let error = try_in(fixture.directory.path(), line, &mut Closed).expect_err("nobody reads");
        assert!(matches!(error, CliError::ClosedPipe), "{line}");
    }
}

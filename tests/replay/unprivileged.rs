//! Who may do nothing else may run it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::json;

use crate::bench::{A, Bench, Run};
use crate::captures::pcap;
use crate::packets::{from_a, honest};

/// Nobody, without a capability and without a way back to one.
const SETPRIV: [&str; 8] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps=-all",
    "--bounding-set=-all",
    "--no-new-privs",
    "--",
];

/// Says so, and is the command that follows.
const WITHOUT_CAPABILITIES: [&str; 3] = [
    "sh",
    "-c",
    r#"grep -q '^CapEff:[[:space:]]*0*$' /proc/self/status || { echo "it has capabilities" >&2; exit 99; }; exec "$0" "$@""#,
];

#[test]
fn replay_takes_no_privileges() {
    let bench = Bench::new(A, "");
    bench.put("overlay.pcap", &pcap(&[from_a(0, 1)]));
    bench.put("underlay.pcap", &pcap(&[honest()]));
    // Where our own program is, others may not be let in.
    let program = bench.path("silk-vtep");
    fs::copy(env!("CARGO_BIN_EXE_silk-vtep"), &program).expect("copied");
    fs::set_permissions(bench.path("."), Permissions::from_mode(0o755)).expect("it is ours");
    for name in ["silk-vtep.toml", "overlay.pcap", "underlay.pcap"] {
        fs::set_permissions(bench.path(name), Permissions::from_mode(0o644)).expect("it is ours");
    }
    for (from, capture, verdict) in [
        ("--from-overlay", "overlay.pcap", "encap"),
        ("--from-underlay", "underlay.pcap", "deliver"),
    ] {
        let mut words = Vec::new();
        if nix::unistd::geteuid().is_root() {
            words.extend(SETPRIV);
            words.extend(WITHOUT_CAPABILITIES);
        }
        let program = program.to_str().expect("a plain name");
        let replay = ["replay", "--config", "silk-vtep.toml", from, capture, "-j"];
        words.extend([program].iter().chain(&replay));
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(bench.path("."));
        let run = Run(command.output().expect("setpriv (util-linux) is there"));
        run.ok();
        let underlay = "10.0.16.14";
        let line = json!({"n": 1, "verdict": verdict, "vni": 1, "group": 3, "mark": 3, "underlay": underlay});
        assert_eq!(run.json(), [line]);
    }
}

//! Every system call that ADD and DEL make fails in turn, and the plugin is killed at each: nothing is left, or the next DEL finds it.
//!
//! A small library ([`fail_at.c`](fail_at.c)), preloaded into the very binary that is shipped, counts calls and makes one fail.

use std::fs;
use std::path::{Path, PathBuf};

use super::plugin::Plugin;
use super::preload::library;
use super::sandbox::Sandbox;
use crate::support::Kind::Silk;
use crate::support::{Case, Lab, Plan, Result, Snapshot, ensure};

/// More calls than an ADD makes.
const CALLS_MAX: usize = 1000;
/// Fewer than an ADD makes: if there are not as many, the library does not work.
const CALLS_MIN: usize = 60;

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, body: fn(&mut Lab) -> Result| {
        let plan = Plan::of(&[Silk]).cold().programs(&["cc"]);
        Case::new(format!("faults::{name}"), plan, body)
    };
    vec![
        case("add_that_fails_anywhere_leaves_nothing", failing_anywhere),
        case(
            "add_that_is_killed_anywhere_is_undone_by_del",
            killed_anywhere,
        ),
        case("del_that_fails_anywhere_is_done_by_the_next", failing_del),
        case(
            "del_that_is_killed_anywhere_is_done_by_the_next",
            killed_del,
        ),
    ]
}

/// The library, and the file that says what it hit.
struct Faults {
    library: PathBuf,
    log: PathBuf,
}

impl Faults {
    fn new(directory: &Path) -> Result<Self> {
        Ok(Self {
            library: library(directory, "fail_at.c")?,
            log: directory.join("hit"),
        })
    }

    /// Has the plugin's call number `at` fail.
    fn arm(&self, plugin: &mut Plugin, at: usize, more: &[(&'static str, &str)]) {
        let _ = fs::remove_file(&self.log);
        plugin.variables = vec![
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAIL_AT", at.to_string()),
            ("FAIL_LOG", self.log.display().to_string()),
        ];
        let more = more
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        plugin.variables.extend(more);
    }

    /// Which call failed, if the plugin made as many.
    fn hit(&self) -> Option<String> {
        fs::read_to_string(&self.log).ok()
    }
}

/// Runs `each` for every call that `command` makes, with the name of the call that was hit.
fn at_every_call(
    plugin: &mut Plugin,
    more: &[(&'static str, &str)],
    mut each: impl FnMut(&mut Plugin, &dyn Fn(&mut Plugin), &dyn Fn() -> Option<String>) -> Result<bool>,
) -> Result<usize> {
    let faults = Faults::new(plugin.directory())?;
    for at in 1..CALLS_MAX {
        let arm = |plugin: &mut Plugin| faults.arm(plugin, at, more);
        let hit = || faults.hit();
        let go_on = each(plugin, &arm, &hit)
            .map_err(|error| format!("call {at}, {}: {error}", faults.hit().unwrap_or_default()))?;
        if !go_on {
            return Ok(at - 1);
        }
    }
    Err("it never ends".into())
}

/// Calls the armed plugin, which is killed if it makes the call that is armed, and answers well if not. Returns whether it was.
fn dies_if_hit(
    plugin: &mut Plugin,
    command: &str,
    sandbox: &Sandbox,
    hit: &dyn Fn() -> Option<String>,
) -> Result<bool> {
    let answer = plugin.call(command, sandbox)?;
    plugin.variables.clear();
    let was_hit = hit().is_some();
    ensure!(was_hit != answer.status.success(), "{answer:?}");
    Ok(was_hit)
}

fn failing_anywhere(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::new(lab, 0)?;
    let host = lab.cells[0].host.clone();
    let (web, before) = (Sandbox::new("web")?, Snapshot::of(&host)?);
    let list = serde_json::json!({ "container": "list" });
    let (mut failed, mut passed) = (0, Vec::new());
    // EIO of a socket or a file is no word of the kernel's that it did nothing.
    let calls = at_every_call(&mut plugin, &[("FAIL_ERRNO", "5")], |plugin, arm, hit| {
        arm(plugin);
        let answer = plugin.call("ADD", &web)?;
        plugin.variables.clear();
        let Some(name) = hit() else {
            ensure!(answer.status.success(), "unharmed, and {answer:?}");
            plugin.del(&web)?;
            return Ok(false);
        };
        if answer.status.success() {
            // A call that it can do without; then all is there, and goes again.
            plugin
                .call_after("CHECK", &web, &answer.json)?
                .silent("CHECK")?;
            plugin.del(&web)?;
            passed.push(name);
        } else {
            // Standard output may be what failed.
            let told = answer.json["code"].is_u64() || name == "write";
            ensure!(told, "no error object: {answer:?}");
            failed += 1;
        }
        plugin.left_no_trace(&[&web])?;
        let known = lab.cells[0].daemon()?.request(&list)?;
        ensure!(known == serde_json::json!([]), "the daemon knows {known}");
        Ok(true)
    })?;
    ensure!(calls > CALLS_MIN, "only {calls} calls");
    ensure!(
        failed > calls / 2,
        "{failed} of {calls} failed; done without {passed:?}"
    );
    before.same_as(&Snapshot::of(&host)?)
}

fn killed_anywhere(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::new(lab, 0)?;
    let host = lab.cells[0].host.clone();
    let (web, before) = (Sandbox::new("web")?, Snapshot::of(&host)?);
    let calls = at_every_call(&mut plugin, &[("FAIL_KILL", "1")], |plugin, arm, hit| {
        arm(plugin);
        let was_hit = dies_if_hit(plugin, "ADD", &web, hit)?;
        plugin.del(&web)?;
        plugin.left_no_trace(&[&web])?;
        Ok(was_hit)
    })?;
    ensure!(calls > CALLS_MIN, "only {calls} calls");
    // And it can be had again.
    plugin.add(&web)?;
    plugin.del(&web)?;
    before.same_as(&Snapshot::of(&host)?)
}

fn failing_del(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::new(lab, 0)?;
    let host = lab.cells[0].host.clone();
    let (web, before) = (Sandbox::new("web")?, Snapshot::of(&host)?);
    let calls = at_every_call(&mut plugin, &[("FAIL_ERRNO", "5")], |plugin, arm, hit| {
        plugin.add(&web)?;
        arm(plugin);
        let answer = plugin.call("DEL", &web)?;
        plugin.variables.clear();
        if answer.status.success() {
            plugin.left_no_trace(&[&web])?;
        } else {
            ensure!(answer.json["code"].is_u64(), "no error object: {answer:?}");
        }
        plugin.del(&web)?;
        plugin.left_no_trace(&[&web])?;
        Ok(hit().is_some())
    })?;
    ensure!(calls > CALLS_MIN / 3, "only {calls} calls");
    before.same_as(&Snapshot::of(&host)?)
}

fn killed_del(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::new(lab, 0)?;
    let host = lab.cells[0].host.clone();
    let (web, before) = (Sandbox::new("web")?, Snapshot::of(&host)?);
    let list = serde_json::json!({ "container": "list" });
    let calls = at_every_call(&mut plugin, &[("FAIL_KILL", "1")], |plugin, arm, hit| {
        plugin.add(&web)?;
        arm(plugin);
        let was_hit = dies_if_hit(plugin, "DEL", &web, hit)?;
        plugin.del(&web)?;
        plugin.left_no_trace(&[&web])?;
        let known = lab.cells[0].daemon()?.request(&list)?;
        ensure!(known == serde_json::json!([]), "the daemon knows {known}");
        Ok(was_hit)
    })?;
    ensure!(calls > CALLS_MIN / 3, "only {calls} calls");
    before.same_as(&Snapshot::of(&host)?)
}

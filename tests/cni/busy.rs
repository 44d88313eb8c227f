//! Locks and daemons that others keep to themselves: code 11, "try again later", and nothing half done.
//!
//! The plugin waits twenty seconds for each. A library ([`hurry.c`](hurry.c)) has its time run faster.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::Path;

use silk_vtep::control::server::MAX_CONNECTIONS;

use super::plugin::Plugin;
use super::preload::library;
use super::sandbox::Sandbox;
use super::witness::Witness;
use crate::support::Kind::Silk;
use crate::support::{Case, Lab, Plan, Result, Snapshot, ensure};

/// How much faster: twenty seconds are a fifth of one.
const HURRY: &str = "100";
const TRY_AGAIN: u64 = 11;

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, body: fn(&mut Lab) -> Result| {
        let plan = Plan::of(&[Silk]).cold().programs(&["cc"]);
        Case::new(format!("busy::{name}"), plan, body)
    };
    vec![
        case("a_datastore_that_is_locked_is_waited_for_once", datastore),
        case("reservations_that_are_locked", reservations),
        case("a_daemon_that_serves_all_it_can", daemon),
    ]
}

fn hurried(plugin: &mut Plugin) -> Result<Witness> {
    let witness = Witness::new(plugin.directory())?;
    let hurry = library(plugin.directory(), "hurry.c")?;
    let [(preload, library), log] = witness.variables();
    let both = format!("{library}:{}", hurry.display());
    plugin.variables = vec![(preload, both), log, ("HURRY", HURRY.to_owned())];
    Ok(witness)
}

fn locked(path: &Path) -> Result<File> {
    let file = File::open(path)?;
    file.lock()?;
    Ok(file)
}

fn datastore(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::new(lab, 0)?;
    let witness = hurried(&mut plugin)?;
    let host = lab.cells[0].host.clone();
    let (web, late) = (Sandbox::new("web")?, Sandbox::new("late")?);
    let before = Snapshot::of(&host)?;
    plugin.add(&web)?;
    let with_web = Snapshot::of(&host)?;
    let stored = plugin.stored()?;
    let lock = locked(&plugin.store())?;
    let waits = || {
        let told = witness.take();
        let store = plugin.store().display().to_string();
        let waits = told.of("wait").into_iter();
        waits.filter(|path| *path == store).count()
    };
    waits();
    let answer = plugin.call("ADD", &late)?;
    answer.refused(TRY_AGAIN, "held by others for 20s")?;
    ensure!(
        answer.text("msg") == "write container metadata",
        "{answer:?}"
    );
    ensure!(waits() == 1, "ADD waited more than once");
    with_web.same_as(&Snapshot::of(&host)?)?;
    ensure!(late.links()? == ["lo"], "{:?}", late.links()?);
    ensure!(
        plugin.reserved()? == ["10.255.108.2"],
        "{:?}",
        plugin.reserved()?
    );
    // DEL does what it can: the address stays reserved for the next.
    plugin
        .call("DEL", &web)?
        .refused(TRY_AGAIN, "held by others for 20s")?;
    ensure!(waits() == 1, "DEL waited more than once");
    ensure!(web.links()? == ["lo"], "{:?}", web.links()?);
    ensure!(
        plugin.reserved()? == ["10.255.108.2"],
        "{:?}",
        plugin.reserved()?
    );
    ensure!(plugin.stored()? == stored, "{}", plugin.stored()?);
    drop(lock);
    plugin.variables.clear();
    plugin.del(&web)?;
    plugin.left_nothing(&before, &[&web, &late])
}

fn reservations(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::new(lab, 0)?;
    hurried(&mut plugin)?;
    let host = lab.cells[0].host.clone();
    let web = Sandbox::new("web")?;
    let before = Snapshot::of(&host)?;
    plugin.add(&web)?;
    plugin.del(&web)?;
    let lock = locked(&plugin.ipam_dir().join("lock"))?;
    for command in ["ADD", "DEL"] {
        let answer = plugin.call(command, &web)?;
        answer.refused(TRY_AGAIN, "held by others for 20s")?;
        ensure!(answer.text("msg") == "run ipam plugin", "{answer:?}");
    }
    plugin.left_nothing(&before, &[&web])?;
    drop(lock);
    plugin.variables.clear();
    plugin.add(&web)?;
    plugin.del(&web)
}

fn daemon(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::new(lab, 0)?;
    hurried(&mut plugin)?;
    let host = lab.cells[0].host.clone();
    let (web, before) = (Sandbox::new("web")?, Snapshot::of(&host)?);
    let socket = plugin.socket().to_owned();
    let talkers: Vec<_> = (0..MAX_CONNECTIONS)
        .map(|_| UnixStream::connect(&socket))
        .collect::<std::io::Result<_>>()?;
    let answer = plugin.call("ADD", &web)?;
    answer.refused(TRY_AGAIN, "")?;
    ensure!(answer.text("msg") == "discover network info", "{answer:?}");
    plugin.left_nothing(&before, &[&web])?;
    ensure!(!fs::exists(plugin.ipam_dir())?, "something was reserved");
    drop(talkers);
    // It may take as long as it likes to see that they went.
    plugin.variables.clear();
    plugin.add(&web)?;
    plugin.del(&web)
}

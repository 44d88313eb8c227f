//! `silk-vtep container`: the veth pair of one container, wired to the caller's network namespace.

mod list;
mod tell;

use std::io::Write;
use std::net::Ipv4Addr;

use serde_json::json;

use super::CliError;
use super::args::{ContainerAdd, ContainerCommand, ContainerDel, Global};
use crate::cni::BY_HAND;
use crate::error::SetupError;
use crate::io::run_max_segs;
use crate::netlink::{ContainerLinks, ContainerSpec, Namespace, Netlink, container, existing};
use tell::Daemon;

/// Runs one of the commands.
///
/// # Errors
/// The step that failed; what it had done is undone.
pub fn run(
    command: &ContainerCommand,
    global: &Global,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    match command {
        ContainerCommand::Add(args) => add(args, global, out),
        ContainerCommand::Del(args) => del(args, global, out),
        ContainerCommand::Check(args) => check(args, global, out),
        ContainerCommand::List => list::run(global, out),
    }
}

fn add(args: &ContainerAdd, global: &Global, out: &mut dyn Write) -> Result<(), CliError> {
    let mut daemon = Daemon::find(global);
    daemon.check(args.address)?;
    let spec = spec(args, global)?;
    let links = container::add(&mut Netlink::open()?, &spec)?;
    daemon.added(&spec, &links);
    Ok(print_added(&spec, &links, global.json, out)?)
}

/// Says nothing if all is well; with `-j`, a list of nothing.
fn check(args: &ContainerAdd, global: &Global, out: &mut dyn Write) -> Result<(), CliError> {
    let spec = ContainerSpec {
        // It looks at those of the CNI plugin and of other tools as well.
        alias: None,
        ..spec(args, global)?
    };
    let links = ContainerLinks::of(spec.address, &spec.ifname);
    let deviations = container::check(&spec, &links)?;
    let deviations: Vec<_> = deviations.iter().map(ToString::to_string).collect();
    if global.json {
        writeln!(out, "{}", json!(deviations))?;
    }
    if deviations.is_empty() {
        return Ok(());
    }
    let (address, said) = (spec.address, deviations.join("; "));
    Err(CliError::Failed(format!(
        "check container {address}: {said} (`container del` and `container add` make it anew)"
    )))
}

fn spec(args: &ContainerAdd, global: &Global) -> Result<ContainerSpec, SetupError> {
    let mtu_bytes = match args.mtu {
        Some(mtu_bytes) => mtu_bytes,
        None => device_mtu_bytes(global.name())?,
    };
    Ok(ContainerSpec {
        address: args.address,
        address_v6: None,
        namespace: Namespace::open(&args.netns)?,
        ifname: args.ifname.clone(),
        mtu_bytes,
        gso_max_segs: Some(run_max_segs(mtu_bytes)),
        alias: Some(BY_HAND.to_owned()),
    })
}

/// Containers take the device's MTU, so that what they send fits the tunnel.
fn device_mtu_bytes(name: &str) -> Result<u32, SetupError> {
    let link = existing(&mut Netlink::open()?, name)?;
    link.map(|link| link.mtu_bytes).ok_or_else(|| {
        SetupError::new("look up MTU of", name, "no such link here")
            .mend("start the daemon first, or give --mtu")
    })
}

fn print_added(
    spec: &ContainerSpec,
    links: &ContainerLinks,
    as_json: bool,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    if as_json {
        let row = json!({
            "address": spec.address,
            "mtu": spec.mtu_bytes,
            "host": { "ifname": links.host_name, "address": links.host_mac },
            "container": { "ifname": links.container_name, "address": links.container_mac },
        });
        return writeln!(out, "{row}");
    }
    writeln!(
        out,
        "{}/32 dev {} lladdr {} host {} lladdr {} mtu {}",
        spec.address,
        links.container_name,
        links.container_mac,
        links.host_name,
        links.host_mac,
        spec.mtu_bytes
    )
}

/// A container that is not there is deleted already.
fn del(args: &ContainerDel, global: &Global, out: &mut dyn Write) -> Result<(), CliError> {
    let mut netlink = Netlink::open()?;
    if let Some(netns) = &args.netns {
        check_is_in(&mut netlink, args.address, netns)?;
    }
    let deleted = container::del(&mut netlink, args.address)?;
    Daemon::find(global).removed(args.address);
    if global.json {
        writeln!(
            out,
            "{}",
            json!({ "address": args.address, "deleted": deleted })
        )?;
    }
    Ok(())
}

/// Whoever names the namespace means no container of another. One that is not there any more tells nothing.
fn check_is_in(netlink: &mut Netlink, address: Ipv4Addr, netns: &str) -> Result<(), SetupError> {
    let Some(link) = container::host_end(netlink, address)? else {
        return Ok(());
    };
    let Ok(namespace) = Namespace::open(netns) else {
        return Ok(());
    };
    if container::leads_to(&link, &namespace)? {
        return Ok(());
    }
    let cause = format!("{} does not lead to namespace {netns}", link.name);
    Err(
        SetupError::new("delete container", address.to_string(), cause)
            .mend("give the namespace that the container is in, or no `--netns`"),
    )
}

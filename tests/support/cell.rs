//! A cell: a host namespace with its VTEP and a container.

use std::fmt::Write;
use std::sync::Arc;

use super::{
    Container, Daemon, End, KernelVtep, Kind, Namespace, OVERLAY, OVERLAY_V6, Plan, Result, SITES,
    Site, VTEP_NAME,
};

/// One host of a lab.
pub(crate) struct Cell {
    /// Its addresses.
    pub(crate) site: Site,
    container: Option<Container>,
    vtep: Vtep,
    /// The host's namespace.
    pub(crate) host: Arc<Namespace>,
}

enum Vtep {
    Kernel { _device: Option<KernelVtep> },
    Silk(Daemon),
}

impl Cell {
    /// The cell at `SITES[index]`, up and with a container wired unless the plan is cold.
    pub(crate) fn new(host: &Arc<Namespace>, index: usize, plan: &Plan) -> Result<Self> {
        let site = SITES[index];
        let (vtep, container) = match plan.kinds[index] {
            Kind::Kernel => kernel_cell(host, &site, plan)?,
            Kind::Silk => silk_cell(host, &site, plan)?,
        };
        Ok(Self {
            site,
            container,
            vtep,
            host: Arc::clone(host),
        })
    }

    /// The container.
    pub(crate) fn container(&self) -> Result<&Container> {
        Ok(self
            .container
            .as_ref()
            .ok_or("this lab has no containers")?)
    }

    /// Its host, speaking for its IPv6 subnet.
    pub(crate) fn end_v6(&self) -> End<'_> {
        End {
            namespace: &self.host,
            address: self.site.vtep_v6().into(),
        }
    }

    /// The daemon that is its VTEP.
    pub(crate) fn daemon(&mut self) -> Result<&mut Daemon> {
        match &mut self.vtep {
            Vtep::Silk(daemon) => Ok(daemon),
            Vtep::Kernel { .. } => Err("this cell's VTEP is the kernel's".into()),
        }
    }

    /// The MTU of its VTEP.
    pub(crate) fn mtu(&self) -> Result<u32> {
        let links: serde_json::Value =
            serde_json::from_str(&self.host.ip(&format!("-j link show {VTEP_NAME}"))?)?;
        let mtu = links[0]["mtu"].as_u64().ok_or("a link without an MTU")?;
        Ok(u32::try_from(mtu)?)
    }

    /// What a person wants to see when a test failed here.
    pub(crate) fn diagnosis(&self) -> String {
        let mut text = format!("cell {} ({}):\n", self.site.underlay_v4, self.host);
        let links = self
            .host
            .ip("addr show")
            .unwrap_or_else(|error| error.to_string());
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{links}");
        if let Vtep::Silk(daemon) = &self.vtep {
            let stats = daemon
                .ctl("stats")
                .unwrap_or_else(|error| error.to_string());
            let _ = writeln!(
                text,
                "stats:\n{stats}\nstdout:\n{}\nstderr:\n{}",
                daemon.stdout(),
                daemon.stderr()
            );
        }
        text
    }
}

fn kernel_cell(
    host: &Arc<Namespace>,
    site: &Site,
    plan: &Plan,
) -> Result<(Vtep, Option<Container>)> {
    if plan.cold {
        return Ok((Vtep::Kernel { _device: None }, None));
    }
    let peers: Vec<Site> = peers_of(site, plan).collect();
    let device = KernelVtep::start(host, site, &peers, plan)?;
    let container = Container::by_hand(host, site, plan.overlay_mtu())?;
    let vtep = Vtep::Kernel {
        _device: Some(device),
    };
    Ok((vtep, Some(container)))
}

fn silk_cell(host: &Arc<Namespace>, site: &Site, plan: &Plan) -> Result<(Vtep, Option<Container>)> {
    let mut daemon = Daemon::new(host, &config(site, plan)?)?;
    if plan.cold {
        return Ok((Vtep::Silk(daemon), None));
    }
    daemon.start()?;
    let container = Container::by_daemon(&daemon, site)?;
    Ok((Vtep::Silk(daemon), Some(container)))
}

/// The configuration file of a daemon at `site`.
fn config(site: &Site, plan: &Plan) -> Result<String> {
    let mut text = String::from("[vtep]\n");
    writeln!(text, "local = \"{}\"", site.underlay(plan.v6))?;
    if plan.overlay_v6 {
        let [v4, v6] = [site.vtep.to_string(), site.vtep_v6().to_string()];
        writeln!(text, "address = [\"{v4}\", \"{v6}\"]")?;
        writeln!(text, "overlay = [\"{OVERLAY}\", \"{OVERLAY_V6}\"]")?;
    } else {
        writeln!(text, "address = \"{}\"", site.vtep)?;
        writeln!(text, "overlay = [\"{OVERLAY}\"{}]", plan.more_overlays)?;
    }
    writeln!(text, "lanes = {}", plan.lanes)?;
    writeln!(text, "marks = \"{}\"", plan.marks)?;
    writeln!(text, "{}", plan.vtep_lines)?;
    for peer in peers_of(site, plan) {
        let underlay = peer.underlay(plan.v6);
        let mut subnets = format!("\"{}\"", peer.subnet());
        if plan.overlay_v6 {
            write!(subnets, ", \"{}\"", peer.subnet_v6())?;
        }
        writeln!(
            text,
            "[[peer]]\nsubnet = [{subnets}]\nunderlay = \"{underlay}\""
        )?;
    }
    if let Some(id) = plan.group {
        writeln!(
            text,
            "[[group]]\naddress = \"{}\"\nid = {id:#06x}",
            site.container
        )?;
    }
    Ok(text)
}

/// The sites of the other cells; a lone cell has one peer too, though nobody answers there.
fn peers_of<'a>(site: &'a Site, plan: &Plan) -> impl Iterator<Item = Site> + 'a {
    SITES
        .into_iter()
        .take(plan.kinds.len().max(2))
        .filter(move |peer| peer != site)
}

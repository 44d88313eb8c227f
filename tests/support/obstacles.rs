//! What keeps this machine from running namespace tests.

use std::fs::File;
use std::process::Command;

use super::{Namespace, Plan, Result, VTEP_NAME};

/// Found once, before the first test.
pub(crate) struct Obstacles {
    to_namespaces: Option<String>,
    to_kernel_vxlan: Option<String>,
    to_iptables: Option<String>,
    to_nftables: Option<String>,
    to_tshark: Option<String>,
}

impl Obstacles {
    /// Tries what every test needs, and what those with a kernel VTEP need.
    pub(crate) fn probe() -> Self {
        Self {
            to_namespaces: reason(
                "needs root, iproute2, ping and /dev/net/tun",
                try_namespace(),
            ),
            to_kernel_vxlan: reason("needs the kernel's vxlan device", try_kernel_vxlan()),
            to_iptables: reason("needs iptables", try_iptables()),
            to_nftables: reason("needs nftables", try_nftables()),
            to_tshark: reason("needs tshark", try_tshark()),
        }
    }

    /// What stands in the way of a plan.
    pub(crate) fn to(&self, plan: &Plan) -> Option<String> {
        let vxlan = self
            .to_kernel_vxlan
            .as_ref()
            .filter(|_| plan.needs_kernel_vxlan());
        let iptables = self.to_iptables.as_ref();
        let iptables = iptables.filter(|_| plan.needs_iptables());
        let nftables = self.to_nftables.as_ref();
        let nftables = nftables.filter(|_| plan.needs_nftables());
        let tshark = self.to_tshark.as_ref().filter(|_| plan.needs_tshark());
        let tools = iptables.or(nftables).or(tshark);
        self.to_namespaces.as_ref().or(vxlan).or(tools).cloned()
    }
}

fn reason(need: &str, tried: Result) -> Option<String> {
    tried
        .err()
        .map(|error| format!("{need}: {}", error.to_string().trim().replace('\n', "; ")))
}

fn try_namespace() -> Result {
    let namespace = Namespace::new()?;
    namespace.ip("link add veth0 type veth peer name veth1")?;
    namespace.exec("ping -V")?;
    File::open("/dev/net/tun").map_err(|error| format!("/dev/net/tun: {error}"))?;
    Ok(())
}

/// The matches and targets of the rules that tests set.
fn try_iptables() -> Result {
    let namespace = Namespace::new()?;
    for rule in [
        "-t mangle -A FORWARD -s 10.255.0.1 -j MARK --set-xmark 0x3",
        "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A FORWARD -p tcp -m mark --mark 0x3 -j REJECT --reject-with icmp-port-unreachable",
    ] {
        namespace.exec(&format!("iptables -w {rule}"))?;
    }
    Ok(())
}

/// As [`try_iptables`].
fn try_nftables() -> Result {
    let namespace = Namespace::new()?;
    for rule in [
        "add table ip probe",
        "add chain ip probe forward { type filter hook forward priority 0 ; }",
        "add rule ip probe forward ip saddr 10.255.0.1 meta mark set 0x3",
        "add rule ip probe forward ct state established,related accept",
        "add rule ip probe forward meta mark 0x3 reject with icmp type port-unreachable",
    ] {
        namespace.exec(&format!("nft {rule}"))?;
    }
    Ok(())
}

fn try_tshark() -> Result {
    Command::new("tshark").arg("--version").output()?;
    Ok(())
}

fn try_kernel_vxlan() -> Result {
    let namespace = Namespace::new()?;
    namespace.ip(&format!(
        "link add {VTEP_NAME} type vxlan id 1 local 127.0.0.1 dstport 4789 gbp"
    ))?;
    Ok(())
}

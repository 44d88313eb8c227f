//! A namespace for a test, and iproute2 in it.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::process::{Command, Output};

use libtest_mimic::Failed;
use serde_json::{Value, json};
use silk_vtep::error::SetupError;
use silk_vtep::netlink::{NamedNamespace, Netlink};

pub(crate) type Outcome = Result<(), Failed>;

pub(crate) fn random_name(role: &str) -> String {
    let random = RandomState::new().build_hasher().finish();
    format!("sv-{role}-{:08x}", random >> 32)
}

/// A namespace of the test's own.
pub(crate) struct Ns {
    pub(crate) name: String,
    pub(crate) namespace: NamedNamespace,
}

impl Ns {
    pub(crate) fn new(role: &str) -> Result<Self, SetupError> {
        let name = random_name(role);
        let namespace = NamedNamespace::create(&name)?;
        Ok(Self { name, namespace })
    }

    pub(crate) fn command(&self, options: &[&str], arguments: &str) -> Output {
        Command::new("ip")
            .args(options)
            .args(["-n", &self.name])
            .args(arguments.split_whitespace())
            .output()
            .expect("`lacking` ran ip before")
    }

    /// `ip ARGUMENTS`, which must succeed.
    pub(crate) fn ip(&self, arguments: &str) -> Outcome {
        let output = self.command(&[], arguments);
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("ip {arguments}: {output:?}").into()),
        }
    }

    /// `ip -j ARGUMENTS`: iproute2's opinion.
    pub(crate) fn ip_json(&self, arguments: &str) -> Result<Vec<Value>, Failed> {
        let output = self.command(&["-j", "-d"], arguments);
        let text = String::from_utf8(output.stdout)?;
        let list: Vec<Value> = if text.trim().is_empty() {
            Vec::new()
        } else {
            serde_json::from_str(&text)?
        };
        // `ip -j` prints an empty object for what its filter dropped.
        Ok(list
            .into_iter()
            .filter(|entry| entry != &json!({}))
            .collect())
    }

    /// `ip ARGUMENTS` as text, a line each, white space at the ends cut.
    pub(crate) fn ip_lines(&self, arguments: &str) -> Vec<String> {
        let output = self.command(&[], arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    pub(crate) fn link(&self, name: &str) -> Result<Option<Value>, Failed> {
        let links = self.ip_json("link show")?;
        Ok(links.into_iter().find(|link| link["ifname"] == name))
    }

    /// A link called `name`, up and with carrier: a veth pair that stays here. (Not every kernel has `dummy`.)
    pub(crate) fn pair(&self, name: &str) -> Outcome {
        self.ip(&format!("link add {name} type veth peer name {name}-p"))?;
        self.ip(&format!("link set {name}-p up"))?;
        self.ip(&format!("link set {name} up"))
    }

    /// The link once its carrier has settled, which the kernel's linkwatch tells itself after the change.
    pub(crate) fn settled_link(&self, name: &str) -> Result<Value, Failed> {
        for _ in 0..500 {
            let link = self.link(name)?.ok_or("no link")?;
            if link["flags"]
                .as_array()
                .is_some_and(|f| !f.contains(&json!("NO-CARRIER")))
            {
                return Ok(link);
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Err(format!("{name} has no carrier").into())
    }

    pub(crate) fn exec(&self, command: &str) -> Result<Output, Failed> {
        Ok(Command::new("ip")
            .args(["netns", "exec", &self.name])
            .args(command.split_whitespace())
            .output()?)
    }

    pub(crate) fn netlink(&self) -> Result<Netlink, SetupError> {
        Netlink::open_in(&self.namespace)
    }
}

pub(crate) fn same<T: PartialEq + std::fmt::Debug>(actual: T, expected: T, what: &str) -> Outcome {
    if actual == expected {
        return Ok(());
    }
    Err(format!("{what}:\n  actual   {actual:?}\n  expected {expected:?}").into())
}

pub(crate) fn holds(condition: bool, what: impl std::fmt::Display) -> Outcome {
    if condition {
        Ok(())
    } else {
        Err(what.to_string().into())
    }
}

/// A TAP without a reader, as a crashed daemon would leave it; gives its number.
pub(crate) fn tap(host: &Ns) -> Result<u32, Failed> {
    host.ip("tuntap add dev silk-vtep mode tap multi_queue vnet_hdr")?;
    let link = host.netlink()?.link_named("silk-vtep")?.ok_or("no TAP")?;
    Ok(link.index)
}

//! How a host looks to iproute2: to tell that a daemon left it as it was, or mended what was broken.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use serde_json::Value;

use super::{Namespace, Result, Wait, ensure, wait_until};

/// Views of one host, by the `ip` command that shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot(BTreeMap<String, Value>);

impl Snapshot {
    /// Links, addresses, routes, rules, permanent neighbours and forwarding switches.
    pub(crate) fn of(host: &Namespace) -> Result<Self> {
        let views = [
            "link show",
            "addr show",
            "-4 route show table all",
            "-6 route show table all",
            "-4 rule show",
            "-6 rule show",
            "neigh show nud permanent",
        ];
        let mut snapshot = Self::of_views(host, views)?;
        for switch in [
            "ipv4/ip_forward",
            "ipv6/conf/all/forwarding",
            "ipv4/conf/all/rp_filter",
        ] {
            let value = host.run(|| Ok(fs::read_to_string(format!("/proc/sys/net/{switch}"))?))?;
            snapshot.0.insert(switch.to_owned(), Value::String(value));
        }
        Ok(snapshot)
    }

    /// Flags, MAC, addresses, routes and neighbours of one device; fails when there is no such device.
    pub(crate) fn of_device(host: &Namespace, device: &str) -> Result<Self> {
        let views = [
            "link show dev",
            "addr show dev",
            "-4 route show table all dev",
            "neigh show nud permanent dev",
        ];
        Self::of_views(host, views.map(|view| format!("{view} {device}")))
    }

    /// Fails with the views that differ from `after`.
    pub(crate) fn same_as(&self, after: &Self) -> Result {
        let difference = self.difference(after);
        ensure!(difference.is_empty(), "it is not as it was:\n{difference}");
        Ok(())
    }

    /// Waits until `device` looks like this again.
    pub(crate) fn wait_until_again(&self, host: &Namespace, device: &str) -> Result {
        wait_until("the device is as it was", || {
            let difference = self.difference(&Self::of_device(host, device)?);
            Ok(Wait::unless(difference.is_empty(), || difference))
        })
    }

    fn of_views(
        host: &Namespace,
        views: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Self> {
        let views = views.into_iter().map(|view| {
            let view = view.as_ref();
            let text = host.ip(&format!("-j {view}"))?;
            // iproute2 prints nothing at all where there is nothing to show.
            let mut value = if text.trim().is_empty() {
                Value::Null
            } else {
                serde_json::from_str(&text)?
            };
            forget_operstate(&mut value);
            Ok((view.to_owned(), value))
        });
        Ok(Self(views.collect::<Result<_>>()?))
    }

    /// The views that differ, both ways; empty if none does.
    fn difference(&self, after: &Self) -> String {
        let mut text = String::new();
        for (view, value) in &self.0 {
            let now = after.0.get(view).unwrap_or(&Value::Null);
            if value != now {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{view}\n  before {value}\n  after  {now}");
            }
        }
        text
    }
}

/// Up or unknown: a TAP that loses its last queue and gets it back is the one, a fresh one the other, and nobody acts on it.
fn forget_operstate(links: &mut Value) {
    let links = links.as_array_mut().into_iter().flatten();
    for link in links.filter_map(Value::as_object_mut) {
        link.remove("operstate");
    }
}

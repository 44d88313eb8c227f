//! A container as a runtime makes it before it calls plugins: an id, and a namespace with nothing but `lo`.

use crate::support::{Namespace, Result};

/// What CNI_CONTAINERID, CNI_IFNAME and CNI_NETNS say.
pub(crate) struct Sandbox {
    /// CNI_CONTAINERID.
    pub(crate) id: String,
    /// CNI_IFNAME.
    pub(crate) ifname: String,
    /// CNI_NETNS.
    pub(crate) netns: String,
    /// The same, for looking inside.
    pub(crate) namespace: Namespace,
}

impl Sandbox {
    /// A sandbox called `id`.
    pub(crate) fn new(id: &str) -> Result<Self> {
        let namespace = Namespace::new()?;
        Ok(Self {
            id: id.to_owned(),
            ifname: "eth0".to_owned(),
            netns: format!("/var/run/netns/{namespace}"),
            namespace,
        })
    }

    /// The names of its links.
    pub(crate) fn links(&self) -> Result<Vec<String>> {
        link_names(&self.namespace)
    }
}

/// The names of a namespace's links.
pub(crate) fn link_names(namespace: &Namespace) -> Result<Vec<String>> {
    let links: serde_json::Value = serde_json::from_str(&namespace.ip("-j link show")?)?;
    let links = links.as_array().cloned().unwrap_or_default();
    let name = |link: &serde_json::Value| link["ifname"].as_str().unwrap_or_default().to_owned();
    Ok(links.iter().map(name).collect())
}

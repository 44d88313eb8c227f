//! What the plugin is called on: a cell with its daemon, and namespaces that wait to become containers.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::args::CniBenchArgs;
use crate::cli::lab::LabError;
use crate::cli::lab::configuration;
use crate::cli::lab::daemon::Daemon;
use crate::cli::lab::ground::{self, CellPlan, Place};
use crate::cli::lab::interrupt::Interrupt;
use crate::cli::lab::scratch::Scratch;
use crate::control::container::{ContainerRequest, ContainerRow};
use crate::control::protocol::Request;
use crate::error::SetupError;
use crate::netlink::{HostLink, NamedNamespace, Namespace, Netlink, host_links};

/// Everything is taken down when it is dropped, the daemon before its namespace.
pub(super) struct Stage {
    daemon: Daemon,
    places: [Place; 2],
    containers: Vec<Waiting>,
    /// Standard input of every call.
    pub(super) configuration: String,
    /// CNI_PATH.
    pub(super) cni_path: Option<PathBuf>,
    _scratch: Scratch,
}

/// A namespace without a network.
pub(super) struct Waiting {
    pub(super) id: String,
    pub(super) namespace: NamedNamespace,
}

impl Stage {
    pub(super) fn build(args: &CniBenchArgs, interrupt: &Interrupt) -> Result<Self, LabError> {
        let mut scratch = Scratch::claim("bench")?;
        let [a, b] = &CellPlan::BOTH;
        let places = ground::lay(&mut scratch, [a, b])?;
        let directory = scratch.directory(a.name)?;
        let configuration = configuration::text(a, b, &[]);
        let mut daemon = Daemon::start(a, &configuration, &places[0].host, directory)?;
        daemon.wait_until_ready(interrupt)?;
        let mut containers = Vec::new();
        for number in 0..args.count {
            interrupt.check()?;
            let id = format!("c{number}");
            let namespace = scratch.namespace(&id)?;
            containers.push(Waiting { id, namespace });
        }
        Ok(Self {
            configuration: plugins_configuration(&daemon.socket(), &scratch.directory("cni")?),
            cni_path: args.cni_path.clone(),
            daemon,
            places,
            containers,
            _scratch: scratch,
        })
    }

    /// The cell's namespace.
    pub(super) fn host(&self) -> &Namespace {
        &self.places[0].host
    }

    /// The container of that number.
    pub(super) fn container(&self, number: usize) -> Option<&Waiting> {
        self.containers.get(number)
    }

    /// Whether daemon and kernel have so many containers.
    ///
    /// # Errors
    /// They have others.
    pub(super) fn check_containers(&self, count: usize) -> Result<(), LabError> {
        let list = Request::Container(ContainerRequest::List);
        let registered: Vec<ContainerRow> = self.daemon.client()?.call(&list)?;
        let links = host_links(&mut Netlink::open_in(self.host())?)?;
        let wired = links.iter().filter(|link| is_a_containers(link)).count();
        if (registered.len(), wired) == (count, count) {
            return Ok(());
        }
        let cause = format!(
            "{} are registered and {wired} wired, not {count}",
            registered.len()
        );
        Err(SetupError::new("check", "containers", cause).into())
    }

    /// Stops the daemon.
    ///
    /// # Errors
    /// It did not end in order.
    pub(super) fn close(self) -> Result<(), SetupError> {
        self.daemon.stop()
    }
}

/// The cell's other veth is its underlay.
fn is_a_containers(link: &HostLink) -> bool {
    !link.peers.is_empty()
}

fn plugins_configuration(socket: &Path, data: &Path) -> String {
    json!({
        "cniVersion": "1.0.0",
        "name": "silk",
        "type": "silk-vtep-cni",
        "socket": socket,
        "dataDir": data,
    })
    .to_string()
}

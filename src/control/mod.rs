//! Everything that decides what the tables hold: configuration, the directory of live entries, the registry of containers, the
//! Unix-socket API, and Silk's health check over HTTP.
//!
//! A [`Change`] reaches [`Control`] over the socket ([`server`], [`client`]) or from a reload of the file. The [`Directory`] takes a
//! request whole or refuses it whole; what it then holds is compiled into a [`Tables`](crate::tables::Tables) and stored with one
//! pointer swap, which is all the packet path ever sees of this module.

pub mod capture;
pub mod change;
pub mod client;
pub mod config;
pub mod container;
pub mod container_store;
pub mod containers;
pub mod directory;
mod effect;
pub mod entry;
pub(crate) mod file_lock;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod health;
pub mod link;
mod listener;
pub mod policy;
pub mod protocol;
pub mod rows;
mod rules;
pub mod server;
mod service;
pub mod state;
pub mod stats;
pub mod trace;
mod verdict;

pub use change::{Change, ChangeError, Holder, Owner, Refusal};
pub use client::Client;
pub use config::Config;
pub use container::{HostLinkSource, LocalContainer};
pub use container_store::ContainerStore;
pub use containers::Containers;
pub use directory::Directory;
pub use entry::{Entry, Key, Origin, PeerSpec};
pub use health::HealthServer;
pub use link::{LinkFacts, LinkSource, MarksFact};
pub use server::Server;
pub use service::{ContainerOptions, Control, Options};
pub use state::StateFile;
pub use trace::Sending;
pub use verdict::Verdict;

use std::path::PathBuf;

/// Where the daemon of the device `name` listens unless told otherwise.
#[must_use]
pub fn default_socket_path(name: &str) -> PathBuf {
    PathBuf::from(format!("/run/silk-vtep/{name}.sock"))
}

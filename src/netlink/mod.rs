//! The kernel's side of the network: links, addresses, routes, neighbours, namespaces, and the tc programs that carry marks, over
//! rtnetlink and bpf(2).
//!
//! Synchronous, without iproute2 processes, and without packets. [`Netlink`] is one socket in one network namespace;
//! its typed operations are spread over the files by noun. Two users stand on them: [`Device`] keeps the VTEP's TAP
//! as it should be (and [`Watcher`] says when to look again), [`container`] wires one container as Silk's CNI plugin does.
//! [`MarkPrograms`] are two programs on that TAP.
//!
//! ```text
//! Namespace --open_in--> Netlink --links, addresses, routes, neighbours--> Device, container
//! Watcher (multicast groups) --Changed--> Device::configure
//! ```

mod address;
mod answer;
mod clsact;
pub mod container;
mod departed;
pub mod device;
mod error;
mod host;
mod host_link;
mod link;
mod marks;
mod mended;
mod named_namespace;
mod namespace;
mod neighbor;
mod object;
mod route;
mod socket;
mod vxlan;
mod watch;

pub use address::{Address, AddressScope};
pub use answer::Answer;
pub use container::{ContainerLinks, ContainerSpec, Deviation};
pub use departed::Departed;
pub use device::{ALIAS, Device, DeviceError, DeviceSpec};
pub use error::NetlinkError;
pub use host::{Underlay, existing, underlay, vxlan_on_port};
pub use host_link::{HostLink, Traffic, host_link, host_links};
pub use link::{Link, LinkFlags, LinkKind, Tun, TunMode, VETH_MTU_BYTES, VethEnd, Vxlan};
pub use marks::{Ahead, Hook, MarkPrograms, Runs, Standing, remove_mark_programs};
pub use mended::Mended;
pub use named_namespace::NamedNamespace;
pub use namespace::{Namespace, NamespaceId};
pub use neighbor::Neighbor;
pub use object::Object;
pub use route::{Route, RouteFilter, RouteKind};
pub use socket::Netlink;
pub use vxlan::VxlanSpec;
pub use watch::{WatchEvent, Watcher};

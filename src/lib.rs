//! A VXLAN-GBP tunnel endpoint (VTEP) that lives in a process instead of the kernel.
//!
//! `silk-vtep` owns a TAP device, keeps its own route, neighbour and forwarding tables in memory, and carries the traffic of containers
//! between hosts ("cells") in VXLAN with the group policy extension on UDP 4789, on the wire as the kernel's
//! `vxlan ... nolearning gbp` device does. The daemon, its command line and its tests are thin shells around this library.
//!
//! # Layers
//!
//! Each knows only those above it in this table.
//!
//! | module | holds | never |
//! |---|---|---|
//! | [`error`] | what a failed set-up step says: operation, object, cause, mend | is on the packet path |
//! | [`wire`] | codecs: VXLAN-GBP, virtio_net_hdr, Ethernet, IP and its fragments, ARP, neighbour discovery, "too big", checksums | allocates, does I/O |
//! | [`counters`], [`drop_reason`] | what data tells control: packets, bytes, and the one reason of every drop | locks |
//! | [`tables`] | routes, neighbours, FDB, groups, peers, local containers, group policy; [`Tables`](tables::Tables), the immutable snapshot of all | locks on look-up |
//! | [`vtep`] | the core: a frame and a `Tables` in, a verdict out | reads a clock, opens a descriptor, allocates per packet |
//! | [`offload`] | checksums that one side left for the other to finish; cutting super-frames into segments, joining segments into super-frames | does I/O |
//! | [`host`] | the kernel's part of the underlay, played: headers and checksums checked, fragments reassembled, packets built | does I/O, reads a clock |
//! | [`bpf`] | programs for the kernel's BPF machine and what is in their maps, assembled from our own source | does I/O |
//! | [`sys`] | the only `unsafe`: one thin function per system call | holds logic |
//! | [`io`] | TAP queue, UDP sockets, the [`Lane`](io::Lane) that joins them to the core, [captures](io::capture), the [express path](io::express) past the lanes, an in-memory twin of each device | decides policy |
//! | [`netlink`] | links, veth pairs, addresses, routes, neighbours, namespaces, the tc programs that carry marks and keep containers to their addresses | sees packets |
//! | [`control`] | configuration, the directory of entries, the registry of containers, the Unix-socket API, state on disk | is on the packet path |
//! | [`daemon`] | set-up, the threads, repair, what the peers' paths carry, by which device the express path reaches them, the way out | |
//! | [`cni`] | the CNI plugin: containers of a runtime, their addresses, what is on disk of them | keeps anything running |
//! | [`cli`] | arguments, iproute2-style and JSON printing, trace and captures for people, replay, doctor, demo, benchmark | |
//!
//! # One packet's walk
//!
//! A container on cell A sends to one on cell B. The host's one overlay route leads to the TAP, whose frames are addressed to the VTEP's
//! own MAC. A [`Lane`](io::Lane) reads the frame and asks [`vtep::egress`]:
//!
//! ```text
//! route      10.255.43.0/24 via 10.255.43.0      tables::RouteTable      longest prefix
//! neighbour  10.255.43.0 -> ee:ee:0a:ff:2b:00    tables::NeighborTable   the inner destination MAC to write
//! FDB        ee:ee:0a:ff:2b:00 -> 10.0.16.14     tables::Fdb             where the datagram goes
//! group      10.255.108.184 -> 0x0003            tables::GroupTable      who is speaking, unless the packet's own mark says it
//! ```
//!
//! The lane writes what the verdict says and sends one datagram, from a port that the flow's hash chose: a super-frame becomes many, cut
//! by [`offload::Segmenter`] and sent at once. On B another lane receives them, joined again by the host if it can, and asks
//! [`vtep::ingress`]: is the sender a peer, is the header one the kernel would take, do our own tables place the inner source behind
//! that sender, and does the policy, where one is enforced, let its group in? What no rule lets in may still be part of a flow that began
//! here, which the lanes' [`FlowTable`](io::flows::FlowTable) knows. Then the inner frame goes to the TAP, those of one flow as one
//! ([`offload::Coalescer`]), and B's kernel routes it to the container.
//!
//! # The calling contract
//!
//! Control to data is one `Arc<Tables>` swapped whole: a change is seen entirely or not at all, and a lane loads it once per batch. Data
//! to control is [`counters`], one set per lane, summed by the reader. Beside them stands, for each peer, what its path carries
//! ([`tables::PathMtu`]): lanes leave word there of what the host refused, control finds out and writes a bound; and who captures is
//! given copies of packets ([`io::capture`]). Nothing else crosses,
//! but what lanes leave for the [express path](io::express) where there is one: decisions on TCP flows, which a program at the TAP carries out
//! until control takes them back.
//! Lanes share nothing else they write but, where a policy is enforced, a [`Guard`](io::Guard): the flows that began here, which control
//! counts and has forgotten with their container, and who was refused. Nothing's correctness depends on which lane a packet is on.
//!
//! The core needs no root, no clock and no threads, and neither does a whole VTEP over [devices in memory](io::memory). Build a
//! [`Tables`](tables::Tables), call [`vtep::egress`] or [`vtep::ingress`] with any bytes, read the verdict. `examples/fuzz_harness.rs` is a
//! harness for any fuzzer, `examples/two_cores.rs` has two VTEPs talk over a wire that loses, doubles and reorders, `examples/embed.rs`
//! sends a packet from one cell to another. Here nobody is known yet, so a frame for the VTEP's own MAC finds no route:
//!
//! ```
//! use std::sync::Arc;
//!
//! use silk_vtep::DropReason;
//! use silk_vtep::tables::{CounterRegistry, Local, TableSpec, Tables};
//! use silk_vtep::vtep::{self, Egress};
//! use silk_vtep::wire::Mark;
//!
//! let local = Local::silk("10.255.108.0/24".parse()?);
//! let mac = local.mac;
//! let tables = Tables::compile(Arc::new(local), &TableSpec::default(), &mut CounterRegistry::new(1));
//!
//! let mut frame = [0_u8; 34];
//! frame[..6].copy_from_slice(&mac.octets());
//! frame[12..14].copy_from_slice(&[0x08, 0x00]); // IPv4
//! frame[14] = 0x45;
//! frame[26..30].copy_from_slice(&[10, 255, 108, 184]); // source
//! frame[30..34].copy_from_slice(&[10, 255, 43, 6]); // destination
//! assert!(matches!(vtep::egress(&tables, &frame, Mark::NONE), Egress::Drop(DropReason::NoRoute)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod bpf;
pub mod cli;
pub mod cni;
pub mod control;
pub mod counters;
pub mod daemon;
pub mod drop_reason;
pub mod error;
pub mod host;
pub mod io;
pub mod netlink;
pub mod offload;
pub mod sys;
pub mod tables;
pub mod vtep;
pub mod wire;

pub use drop_reason::DropReason;

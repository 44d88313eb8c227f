//! The seeds: inputs that a fuzzer would not find soon, one for each case worth having. `corpus/` holds what this makes, and a test of
//! the crate compares the two; with `SILK_VTEP_WRITE_SEEDS=1` that test writes them instead.

mod captures;
mod core;
mod kernel;
mod offload;
mod packets;
mod path;
mod sequences;
mod texts;

/// An input for a target.
pub struct Seed {
    /// The target's name.
    pub target: &'static str,
    /// The file's name.
    pub name: String,
    /// The input.
    pub bytes: Vec<u8>,
}

impl Seed {
    fn new(target: &'static str, name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            target,
            name: name.into(),
            bytes: bytes.into(),
        }
    }
}

/// All of them.
pub fn seeds() -> Vec<Seed> {
    let mut seeds = core::decap();
    seeds.extend(core::encap());
    seeds.extend(path::encap());
    seeds.extend(path::icmp());
    seeds.extend(core::arp_nd());
    seeds.extend(captures::capture());
    seeds.extend(offload::segment());
    seeds.extend(offload::coalesce());
    seeds.extend(texts::control_protocol());
    seeds.extend(texts::configuration());
    seeds.extend(kernel::netlink());
    seeds.extend(sequences::two_cores());
    seeds
}

//! The program in a userspace machine, with another library's headers as the judge.

mod encap;
mod fixture;
mod take;

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use fixture::OWN;

use super::{COUNT_LEN, DECISION_LEN, FLOW_KEY_LEN, GENERATION_LEN, Maps};
use crate::bpf::marks;
use crate::sys::bpf::{self, ProgramType};
use crate::sys::bpf_map::{Map, MapKind};

#[test]
fn the_kernel_takes_the_program_where_programs_may_be_loaded() {
    let is_denied =
        |error: &io::Error| matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS));
    let map = |kind, key_len, value_len| Map::create(kind, "express_test", key_len, value_len, 4);
    let maps = [
        map(MapKind::LruHash, FLOW_KEY_LEN, DECISION_LEN),
        map(MapKind::Array, 4, GENERATION_LEN),
        map(MapKind::PerCpuArray, 4, COUNT_LEN),
    ];
    let [Ok(flows), Ok(generation), Ok(counts)] = &maps else {
        let denied = |map: &io::Result<Map>| map.as_ref().is_err_and(is_denied);
        assert!(maps.iter().all(denied), "{maps:?}");
        return;
    };
    let [flows, generation, counts] =
        [flows, generation, counts].map(|map| map.as_fd().as_raw_fd());
    let maps = Maps {
        flows,
        generation,
        counts,
    };
    let program = marks::egress(OWN, Some(maps));
    let loaded = bpf::load(ProgramType::SchedCls, "express_test", &program);
    let refused = loaded.as_ref().err();
    assert!(
        refused.is_none_or(|refused| is_denied(&refused.error)),
        "{loaded:?}"
    );
}

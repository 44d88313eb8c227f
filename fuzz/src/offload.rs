//! The reference models of the crate's own tests.

#[path = "../../tests/offload/frames.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
pub(crate) mod frames;
#[path = "../../tests/offload/harness.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
pub(crate) mod harness;
#[path = "../../tests/offload/model.rs"]
pub(crate) mod model;

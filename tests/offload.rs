//! Properties of the offload functions: what is cut is what the kernel would cut, what is joined is what the kernel would join, and
//! whatever arrives nothing panics, nothing is lost, and order within a flow is kept.

mod offload {
    mod coalesce;
    mod frames;
    mod harness;
    mod model;
    mod round_trip;
    mod segment;
    mod strategies;
}

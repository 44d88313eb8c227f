//! Lanes over the in-memory twins: two cells, several lanes each, and a wire that carries each datagram to whichever lane it likes.

mod capture;
mod cell;
mod faults;
mod lanes;
mod marks;
mod path_mtu;
mod policy;
mod runs;

//! `silk-vtep replay` as its users run it, without root, on captures written here byte by byte.

mod bad_input;
mod bench;
mod captures;
mod overlay;
mod packets;
mod round_trip;
mod underlay;
mod unprivileged;

//! `[vtep.offload]`: what the host may do for us.

use super::OffloadConfig;
use super::form;
use super::reader::Reader;

/// Takes every key; those that are missing are on.
pub(super) fn read(mut keys: Reader<'_, '_>) -> OffloadConfig {
    let offload = OffloadConfig {
        tso: keys.or("tso", &form::BOOL, true),
        uso: keys.or("uso", &form::BOOL, true),
        tap_coalescing: keys.or("tap_coalescing", &form::BOOL, true),
        udp_gso: keys.or("udp_gso", &form::BOOL, true),
        udp_gro: keys.or("udp_gro", &form::BOOL, true),
    };
    keys.finish();
    offload
}

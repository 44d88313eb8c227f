//! `mtu`, held against the overlay's families and what the tunnel leaves of the underlay's.

use std::net::IpAddr;

use super::form;
use super::reader::Reader;
use super::report::{Located, Report};
use super::vtep::Own;

/// Outer IPv4, UDP, VXLAN and inner Ethernet headers.
const OVERHEAD_V4_BYTES: u32 = 20 + 8 + 8 + 14;
/// The same under IPv6.
const OVERHEAD_V6_BYTES: u32 = 40 + 8 + 8 + 14;
/// The least MTU of a link that carries IPv6 (RFC 8200 section 5). Below it the kernel takes IPv6 off the device.
const V6_MIN_MTU_BYTES: u32 = 1280;

/// The largest MTU of a VTEP at `local` whose underlay has one of `underlay_mtu_bytes`.
#[must_use]
pub fn carried_bytes(local: IpAddr, underlay_mtu_bytes: u32) -> u32 {
    underlay_mtu_bytes.saturating_sub(overhead_bytes(local))
}

/// Takes `mtu` and says what is wrong with it.
pub(super) fn read_mtu(keys: &mut Reader<'_, '_>, own: &Own) -> Option<Located<u32>> {
    let mtu = keys.optional("mtu", &form::MTU).ok()??;
    check_overlays(&mtu, own, keys.report());
    check_underlay(&mtu, own, keys.report());
    Some(mtu)
}

/// It must be enough for IPv6 if the overlay has it.
fn check_overlays(mtu: &Located<u32>, own: &Own, report: &mut Report) {
    let mut overlays = own.overlays.items.iter();
    let v6 = overlays.any(|overlay| overlay.value.addr().is_ipv6());
    if v6 && mtu.value < V6_MIN_MTU_BYTES {
        let wrong = format!("{} is too small for the IPv6 overlay", mtu.value);
        let accepted = format!("an integer from {V6_MIN_MTU_BYTES}");
        report.refuse(&mtu.place, wrong, accepted);
    }
}

/// It must not be more than the underlay carries, if the host tells.
fn check_underlay(mtu: &Located<u32>, own: &Own, report: &mut Report) {
    let (Ok(local), Some(underlay)) = (&own.local, &own.underlay) else {
        return;
    };
    let local = local.value;
    let carried = carried_bytes(local, underlay.mtu_bytes);
    if mtu.value > carried {
        let wrong = format!("{} is above what {} carries", mtu.value, underlay.name);
        let (whole, overhead) = (underlay.mtu_bytes, overhead_bytes(local));
        let accepted = format!("an integer to {carried} ({whole} - {overhead})");
        report.refuse(&mtu.place, wrong, accepted);
    }
}

/// Bytes of all that a VTEP at `local` puts around a packet: outer IP, UDP, VXLAN and the inner Ethernet header.
#[must_use]
pub fn overhead_bytes(local: IpAddr) -> u32 {
    match local {
        IpAddr::V4(_) => OVERHEAD_V4_BYTES,
        IpAddr::V6(_) => OVERHEAD_V6_BYTES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_underlay_smaller_than_the_headers_carries_nothing() {
        let [v4, v6] = ["10.0.0.1", "2001:db8::1"].map(|ip| ip.parse().expect("an address"));
        assert_eq!(
            (carried_bytes(v4, 1500), carried_bytes(v6, 1500)),
            (1450, 1430)
        );
        assert_eq!((carried_bytes(v4, 49), carried_bytes(v6, 69)), (0, 0));
    }
}

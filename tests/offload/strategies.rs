//! Any packet, for properties.

use proptest::collection::vec;
use proptest::prelude::*;

use super::frames::{Packet, noise};

/// Bytes without a pattern a checksum would miss.
pub(crate) fn bytes(len: usize) -> impl Strategy<Value = Vec<u8>> {
    any::<u64>().prop_map(move |seed| noise(seed, len))
}

/// Any packet with up to `payload_len_max` bytes of payload. Without `plain`, options and VLAN tags come too.
pub(crate) fn any_packet(payload_len_max: usize, plain: bool) -> impl Strategy<Value = Packet> {
    let extras = if plain { 0 } else { 2 };
    let kind: (_, _, _) = (any::<[bool; 4]>(), 0..=255_u8, any::<u16>());
    let network = (any::<[u8; 2]>(), 0..1_u32 << 20, any::<u16>());
    let transport = (any::<[u32; 2]>(), any::<u8>(), any::<u16>());
    let options = (
        vec(0..4096_u16, 0..=extras),
        vec(Just([1_u8; 4]), 0..=extras),
        vec(any::<[u8; 4]>(), 0..=10),
    );
    let payload = (0..=payload_len_max).prop_flat_map(bytes);
    (kind, network, transport, options, payload).prop_map(
        |(
            ([v6, tcp, dont_fragment, udp_checksum], host, port),
            ([tos, ttl], flow_label, id),
            ([sequence, acknowledgment], flags, window),
            (vlans, ip_options, tcp_options),
            payload,
        )| Packet {
            v6,
            tcp,
            vlans,
            host,
            port,
            tos,
            ttl,
            flow_label,
            id,
            dont_fragment,
            ip_options: ip_options.concat(),
            sequence,
            acknowledgment,
            flags,
            window,
            tcp_options: tcp_options.concat(),
            udp_checksum,
            ..Packet::new(v6, tcp, payload)
        },
    )
}

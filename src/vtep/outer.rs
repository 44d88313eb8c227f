//! What the verdict says of the outer IP header, as `vxlan_xmit_one` fills it in.

use crate::tables::{DEFAULT_TTL, Df, OuterField, OuterRules};
use crate::wire::Ecn;
use crate::wire::ip::Network;

/// The fields of the outer IP header that depend on the inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// TOS or traffic class, ECN bits included.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// The DF bit; over IPv6 it means nothing.
    pub df: bool,
}

impl Outer {
    /// With this TOS, and the rest as it is where nothing else is told: TTL 64, DF clear.
    #[must_use]
    pub const fn of_tos(tos: u8) -> Self {
        Self {
            tos,
            ttl: DEFAULT_TTL,
            df: false,
        }
    }

    /// For a frame that carries `inner`, behind VLAN tags if it `is_tagged`. One that is not IP has nothing to inherit: TOS 0, the default
    /// TTL, DF clear. Behind a tag DF alone is not seen (`vxlan_xmit_one` asks the frame's own ethertype).
    #[inline]
    pub(super) fn of(rules: &OuterRules, inner: Network<'_>, is_tagged: bool) -> Self {
        let tos = inner.tos().unwrap_or(0);
        Self {
            tos: rules.tos.fixed().unwrap_or(tos) & !Ecn::MASK | Ecn::from_tos(tos).encap() as u8,
            ttl: match rules.ttl {
                OuterField::Fixed(ttl) => ttl,
                // An inner TTL of 0 is none (`ttl ? : ip4_dst_hoplimit`).
                OuterField::Inherit => inner.ttl().filter(|&ttl| ttl != 0).unwrap_or(DEFAULT_TTL),
            },
            df: match rules.df {
                Df::Unset => false,
                Df::Set => true,
                Df::Inherit => !is_tagged && !inner.may_be_fragmented(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ip::{Ipv4, Ipv6};

    const RULES: OuterRules = OuterRules {
        ttl: OuterField::Inherit,
        tos: OuterField::Inherit,
        df: Df::Inherit,
    };

    /// An IPv4 header of this TOS, TTL and fragment word.
    fn ipv4(tos: u8, ttl: u8, fragment: u16) -> [u8; 20] {
        let mut header = [0; 20];
        header[..2].copy_from_slice(&[0x45, tos]);
        header[6..8].copy_from_slice(&fragment.to_be_bytes());
        header[8] = ttl;
        header
    }

    /// An IPv6 header of this traffic class and hop limit.
    fn ipv6(class: u8, hop_limit: u8) -> [u8; 40] {
        let mut header = [0; 40];
        header[..2].copy_from_slice(&[0x60 | class >> 4, class << 4]);
        header[7] = hop_limit;
        header
    }

    fn of_ipv4(rules: &OuterRules, header: &[u8; 20]) -> Outer {
        Outer::of(
            rules,
            Network::V4(Ipv4::new_checked(header).unwrap()),
            false,
        )
    }

    fn of_ipv6(rules: &OuterRules, header: &[u8; 40]) -> Outer {
        Outer::of(
            rules,
            Network::V6(Ipv6::new_checked(header).unwrap()),
            false,
        )
    }

    #[test]
    fn inherits_what_the_inner_packet_has() {
        let outer = of_ipv4(&RULES, &ipv4(0xb9, 7, 0x4000));
        assert_eq!((outer.tos, outer.ttl, outer.df), (0xb9, 7, true));
        let outer = of_ipv4(&RULES, &ipv4(0x28, 255, 0x2001));
        assert_eq!((outer.tos, outer.ttl, outer.df), (0x28, 255, false));
        let outer = of_ipv6(&RULES, &ipv6(0xba, 3));
        assert_eq!((outer.tos, outer.ttl, outer.df), (0xba, 3, true));
    }

    #[test]
    fn has_defaults_where_nothing_can_be_inherited() {
        let outer = Outer::of(&RULES, Network::Other, false);
        assert_eq!((outer.tos, outer.ttl, outer.df), (0, 64, false));
        assert_eq!(of_ipv4(&RULES, &ipv4(0, 0, 0)).ttl, 64);
        assert_eq!(of_ipv6(&RULES, &ipv6(0, 0)).ttl, 64);
    }

    #[test]
    fn df_is_not_inherited_from_behind_a_vlan_tag() {
        let header = ipv4(0xb9, 7, 0x4000);
        let inner = Network::V4(Ipv4::new_checked(&header).unwrap());
        let outer = Outer::of(&RULES, inner, true);
        assert_eq!((outer.tos, outer.ttl, outer.df), (0xb9, 7, false));
    }

    #[test]
    fn congestion_inside_goes_out_as_ect0_whether_tos_is_inherited_or_not() {
        for (tos, expected) in [(OuterField::Inherit, 0xba), (OuterField::Fixed(0x28), 0x2a)] {
            let rules = OuterRules { tos, ..RULES };
            assert_eq!(of_ipv4(&rules, &ipv4(0xbb, 1, 0)).tos, expected);
            assert_eq!(of_ipv6(&rules, &ipv6(0xbb, 1)).tos, expected);
        }
    }

    #[test]
    fn fixed_fields_are_the_same_in_every_packet_but_for_ecn() {
        let rules = OuterRules {
            ttl: OuterField::Fixed(9),
            tos: OuterField::Fixed(0x43),
            df: Df::Set,
        };
        let outer = Outer::of(&rules, Network::Other, false);
        assert_eq!((outer.tos, outer.ttl, outer.df), (0x40, 9, true));
        let outer = of_ipv4(&rules, &ipv4(0xb9, 64, 0));
        assert_eq!((outer.tos, outer.ttl, outer.df), (0x41, 9, true));
        let unset = OuterRules {
            df: Df::Unset,
            ..rules
        };
        assert!(!of_ipv4(&unset, &ipv4(0, 64, 0x4000)).df);
    }
}

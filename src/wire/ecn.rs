//! Explicit congestion notification through a tunnel (RFC 6040), as Linux does it (include/net/inet_ecn.h).

/// The two ECN bits of a TOS or traffic class octet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Ecn {
    /// Not ECN-capable.
    NotEct = 0,
    /// ECT(1).
    Ect1 = 1,
    /// ECT(0).
    Ect0 = 2,
    /// Congestion experienced.
    Ce = 3,
}

impl Ecn {
    /// The two bits of the octet.
    pub const MASK: u8 = 3;

    /// From the two low bits of a TOS or traffic class octet.
    #[must_use]
    pub const fn from_tos(tos: u8) -> Self {
        match tos & Self::MASK {
            0 => Self::NotEct,
            1 => Self::Ect1,
            2 => Self::Ect0,
            _ => Self::Ce,
        }
    }

    /// What the outer header carries for an inner one (`ip_tunnel_ecn_encap`): CE goes out as ECT(0).
    #[must_use]
    pub const fn encap(self) -> Self {
        match self {
            Self::Ce => Self::Ect0,
            Self::NotEct | Self::Ect0 | Self::Ect1 => self,
        }
    }

    /// The inner bits after the tunnel (`INET_ECN_decapsulate`); `None` if the packet must be dropped.
    /// Inner row by outer Not/ECT1/ECT0/CE: Not -> Not,Not,Not,drop; ECT1 -> 1,1,1,CE; ECT0 -> 0,1,0,CE; CE -> CE.
    #[must_use]
    pub const fn decap(inner: Self, outer: Self) -> Option<Self> {
        match (inner, outer) {
            (Self::NotEct, Self::Ce) => None,
            (Self::Ect0 | Self::Ect1, Self::Ce) => Some(Self::Ce),
            (Self::Ect0, Self::Ect1) => Some(Self::Ect1),
            (inner, _) => Some(inner),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Ecn::{self, Ce, Ect0, Ect1, NotEct};

    #[test]
    fn reads_the_two_low_bits_only() {
        for (tos, ecn) in [(0xfc, NotEct), (0x01, Ect1), (0xba, Ect0), (0xff, Ce)] {
            assert_eq!(Ecn::from_tos(tos), ecn, "tos {tos:#x}");
        }
    }

    #[test]
    fn congestion_goes_out_as_ect0_and_the_rest_as_it_is() {
        let outer = [NotEct, Ect1, Ect0, Ce].map(Ecn::encap);
        assert_eq!(outer, [NotEct, Ect1, Ect0, Ect0]);
    }

    #[test]
    fn decap_is_the_kernels_table() {
        let outer = [NotEct, Ect1, Ect0, Ce];
        for (inner, row) in [
            (NotEct, [Some(NotEct), Some(NotEct), Some(NotEct), None]),
            (Ect1, [Some(Ect1), Some(Ect1), Some(Ect1), Some(Ce)]),
            (Ect0, [Some(Ect0), Some(Ect1), Some(Ect0), Some(Ce)]),
            (Ce, [Some(Ce), Some(Ce), Some(Ce), Some(Ce)]),
        ] {
            let decapped = outer.map(|outer| Ecn::decap(inner, outer));
            assert_eq!(decapped, row, "inner {inner:?}");
        }
    }

    #[test]
    fn an_underlay_without_congestion_changes_nothing() {
        for inner in [NotEct, Ect1, Ect0, Ce] {
            assert_eq!(Ecn::decap(inner, inner.encap()), Some(inner));
        }
    }
}

//! How the fields of the outer IP header follow from the inner packet: the `ttl`, `tos` and `df` of a kernel vxlan device.

/// The rules of one VTEP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterRules {
    /// TTL or hop limit.
    pub ttl: OuterField,
    /// TOS or traffic class; the two ECN bits follow the inner packet's in any case.
    pub tos: OuterField,
    /// The DF bit. Over IPv6 it means nothing: no router fragments there.
    pub df: Df,
}

/// One octet of the outer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OuterField {
    /// The same in every packet.
    Fixed(u8),
    /// The inner packet's.
    Inherit,
}

/// `df`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Df {
    /// Clear: what is too large for a link is fragmented there (`VXLAN_DF_UNSET`).
    #[default]
    Unset,
    /// Set (`VXLAN_DF_SET`).
    Set,
    /// Set if the inner packet is IPv6, or IPv4 with DF; a VLAN tag in front of it clears it (`VXLAN_DF_INHERIT`).
    Inherit,
}

/// What is sent where nothing can be inherited, and by default (`ip_default_ttl`, `IPV6_DEFAULT_HOPLIMIT`).
pub const DEFAULT_TTL: u8 = 64;

impl Default for OuterRules {
    /// Those of a kernel device that was told nothing.
    fn default() -> Self {
        Self {
            ttl: OuterField::Fixed(DEFAULT_TTL),
            tos: OuterField::Fixed(0),
            df: Df::Unset,
        }
    }
}

impl OuterField {
    /// The octet, if it is fixed.
    #[must_use]
    pub const fn fixed(self) -> Option<u8> {
        match self {
            Self::Fixed(octet) => Some(octet),
            Self::Inherit => None,
        }
    }
}

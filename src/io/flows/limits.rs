//! How many flows are kept, and for how long.

/// Bounds of a [`FlowTable`](super::FlowTable). The times are those of Linux's connection tracking, less what is waited for an answer to
/// a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLimits {
    /// Entries, 64 bytes each and 8 to 16 more to find it by.
    pub size: usize,
    /// How long an established TCP flow may be silent, in seconds.
    pub tcp_s: u32,
    /// How long a SYN may be without an answer.
    pub tcp_new_s: u32,
    /// How long a TCP flow is known after a FIN or RST.
    pub tcp_closing_s: u32,
    /// How long a UDP flow that was answered may be silent; of protocols that are no TCP, UDP or ICMP too.
    pub udp_s: u32,
    /// How long a UDP packet may be without an answer.
    pub udp_new_s: u32,
    /// How long an ICMP request may be without an answer, and answers may go on.
    pub icmp_s: u32,
}

impl Default for FlowLimits {
    fn default() -> Self {
        Self {
            size: 131_072,
            tcp_s: 432_000,
            tcp_new_s: 60,
            tcp_closing_s: 120,
            udp_s: 120,
            udp_new_s: 30,
            icmp_s: 30,
        }
    }
}

//! What is measured, by name: the keys of `bench --json` and the rows of its table, in their order.

/// One figure of one dataplane on one wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Measure {
    /// Payload received, by all streams together.
    TcpRate(usize, Way),
    /// CPU time of the whole machine for it.
    TcpCpu(usize, Way),
    /// Datagrams of that payload in bytes, delivered when flooded.
    UdpSaturated(usize),
    /// The highest rate of them at which none is lost.
    UdpZeroLoss(usize),
    /// CPU time of the whole machine for them, at half the load that all dataplanes carry.
    UdpCpu(usize),
    /// UDP round trips.
    RoundTrip(Beside, Percentile),
    /// Requests that were never answered; the percentiles leave them out.
    RoundTripsLost(Beside),
}

/// Which way it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Way {
    /// From the first container to the second.
    Out,
    /// And back.
    Back,
}

/// What else is on the wire meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Beside {
    /// Nothing.
    Idle,
    /// 64-byte datagrams, half of what the weaker dataplane delivers: the same rate for both.
    HalfLoad,
    /// A TCP stream, as fast as it goes, the way of the requests.
    Tcp,
}

/// Of how many of the round trips.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Percentile {
    /// Half.
    P50,
    /// All but one in a hundred.
    P99,
    /// All but one in a thousand.
    P999,
}

/// Which of two figures one would rather have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Better {
    /// The larger.
    Higher,
    /// The smaller.
    Lower,
}

impl Measure {
    /// Stable name: `tcp-4-back-rate`.
    pub(super) fn key(self) -> String {
        match self {
            Self::TcpRate(streams, way) => format!("tcp-{streams}-{}-rate", way.key()),
            Self::TcpCpu(streams, way) => format!("tcp-{streams}-{}-cpu", way.key()),
            Self::UdpSaturated(bytes) => format!("udp-{bytes}-saturated"),
            Self::UdpZeroLoss(bytes) => format!("udp-{bytes}-zero-loss"),
            Self::UdpCpu(bytes) => format!("udp-{bytes}-cpu"),
            Self::RoundTrip(beside, percentile) => {
                format!("round-trip-{}-{}", beside.key(), percentile.key())
            }
            Self::RoundTripsLost(beside) => format!("round-trip-{}-lost", beside.key()),
        }
    }

    /// For people: `TCP, 4 streams b->a`.
    pub(super) fn label(self) -> String {
        match self {
            Self::TcpRate(streams, way) => tcp_label(streams, way),
            Self::TcpCpu(streams, way) => format!("  CPU, {}", tcp_label(streams, way)),
            Self::UdpSaturated(bytes) => format!("UDP, {bytes} bytes, saturated"),
            Self::UdpZeroLoss(bytes) => format!("UDP, {bytes} bytes, zero loss"),
            Self::UdpCpu(bytes) => format!("  CPU, UDP, {bytes} bytes, half load"),
            Self::RoundTrip(beside, percentile) => {
                format!("round trip {}, {}", beside.label(), percentile.key())
            }
            Self::RoundTripsLost(beside) => format!("round trips {}, lost", beside.label()),
        }
    }

    /// Among others of its kind: `4 b->a`.
    pub(super) fn short(self) -> String {
        match self {
            Self::TcpRate(streams, way) | Self::TcpCpu(streams, way) => {
                format!("{streams} {}", way.label())
            }
            Self::UdpSaturated(bytes) | Self::UdpZeroLoss(bytes) | Self::UdpCpu(bytes) => {
                format!("{bytes} bytes")
            }
            Self::RoundTrip(beside, percentile) => {
                format!("{} {}", beside.short(), percentile.key())
            }
            Self::RoundTripsLost(beside) => beside.short().to_owned(),
        }
    }

    /// What the figure counts.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::TcpRate(..) => "Gbit/s",
            Self::TcpCpu(..) => "CPU s/Gbit",
            Self::UdpSaturated(_) | Self::UdpZeroLoss(_) => "kpps",
            Self::UdpCpu(_) => "CPU s/Mpkt",
            Self::RoundTrip(..) => "us",
            Self::RoundTripsLost(_) => "%",
        }
    }

    /// Which is better.
    pub(super) fn better(self) -> Better {
        match self {
            Self::TcpRate(..) | Self::UdpSaturated(_) | Self::UdpZeroLoss(_) => Better::Higher,
            Self::TcpCpu(..) | Self::UdpCpu(_) | Self::RoundTrip(..) | Self::RoundTripsLost(_) => {
                Better::Lower
            }
        }
    }
}

fn tcp_label(streams: usize, way: Way) -> String {
    let s = if streams == 1 { "" } else { "s" };
    format!("TCP, {streams} stream{s} {}", way.label())
}

impl Way {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::Out, Self::Back];

    fn key(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Back => "back",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Out => "a->b",
            Self::Back => "b->a",
        }
    }
}

impl Beside {
    /// All.
    pub(super) const ALL: [Self; 3] = [Self::Idle, Self::HalfLoad, Self::Tcp];

    fn key(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::HalfLoad => "half-load",
            Self::Tcp => "beside-tcp",
        }
    }

    /// For people.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::HalfLoad => "at half load",
            Self::Tcp => "beside TCP",
        }
    }

    fn short(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::HalfLoad => "half",
            Self::Tcp => "TCP",
        }
    }
}

impl Percentile {
    /// All.
    pub(super) const ALL: [Self; 3] = [Self::P50, Self::P99, Self::P999];

    /// Between 0 and 1.
    pub(super) fn share(self) -> f64 {
        match self {
            Self::P50 => 0.5,
            Self::P99 => 0.99,
            Self::P999 => 0.999,
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
        }
    }
}

impl Better {
    /// As JSON has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Higher => "higher",
            Self::Lower => "lower",
        }
    }

    /// In the table.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Higher => "more",
            Self::Lower => "less",
        }
    }
}

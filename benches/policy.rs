//! Group policy, nanoseconds per packet: judging a peer's datagram without a policy, under 10 and under 10,000 rules, where a rule lets it
//! in (`rule`), where none does and its flow began here (`flow`), and where nothing speaks for it (`refused`); noting the flow of a
//! frame that goes out (`note`), and of one that begins where another must go for it (`note full`). 100,000 flows of 250 containers, UDP frames of 64 bytes, another flow for every packet; `again` is the
//! same flow 64 times in a row. What a run tells is the median of its batches of 64, so that a busy machine shows less. And what it takes
//! to compile the rules, and to count the flows of a full table.
//!
//! ```text
//! cargo bench --bench policy
//! ```

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use etherparse::PacketBuilder;
use silk_vtep::control::PeerSpec;
use silk_vtep::io::flows::{FlowLimits, FlowTable, Moment};
use silk_vtep::tables::policy::{Action, Ports, Proto, Regime};
use silk_vtep::tables::{
    CounterRegistry, Local, Policy, PolicyRule, PolicySpec, TableSpec, Tables,
};
use silk_vtep::vtep::policy::Reading;
use silk_vtep::vtep::{self, Ingress, Received, Subject};
use silk_vtep::wire::ethernet::Frame;
use silk_vtep::wire::{GroupId, MacAddr};

/// Packets that a lane handles between two looks at the clock or the snapshot.
const BATCH: usize = 64;
const CONTAINERS: u32 = 250;
const FLOWS: u32 = 100_000;
/// Rules for each container where there are 10,000.
const SERVICES: u32 = 40;

const OWN: Ipv4Addr = Ipv4Addr::new(10, 255, 108, 0);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 255, 43, 0);
const UNDERLAY: Ipv4Addr = Ipv4Addr::new(10, 0, 16, 14);

criterion_group!(benches, judge, note, full, count, compile);
criterion_main!(benches);

fn judge(c: &mut Criterion) {
    let mut group = c.benchmark_group("policy");
    let cases = [
        ("off", None),
        ("10 rules", Some(rules(10))),
        ("10000 rules", Some(rules(10_000))),
    ];
    for (name, rules) in cases {
        let is_off = rules.is_none();
        let tables = tables(rules);
        let flows = FlowTable::new(FlowLimits::default());
        for (kind, port, in_a_row) in [
            ("rule", 1, 1),
            ("rule again", 1, BATCH),
            ("flow", 50_000, 1),
            ("flow again", 50_000, BATCH),
            ("refused", 60_000, 1),
        ] {
            if is_off && port != 1 {
                continue;
            }
            let case = Case {
                tables: &tables,
                flows: &flows,
                is_known: port == 50_000,
                port,
                in_a_row,
            };
            if case.is_known {
                begin_all(&flows, port);
            }
            group.bench_function(format!("{name}/{kind}"), |b| {
                b.iter_custom(|packets| case.time(packets));
            });
        }
    }
}

struct Case<'a> {
    tables: &'a Tables,
    flows: &'a FlowTable,
    is_known: bool,
    port: u16,
    /// So many packets of each flow.
    in_a_row: usize,
}

impl Case<'_> {
    /// The time that a lane takes to judge so many packets.
    fn time(&self, packets: u64) -> Duration {
        let received = Received {
            source: UNDERLAY.into(),
            tos: 0,
        };
        let mut datagrams = vec![datagram(0, self.port); BATCH];
        let mut batches = Vec::new();
        let mut next = 0_usize;
        for _ in (0..packets).step_by(BATCH) {
            for datagram in &mut datagrams {
                write_flow(datagram, (next / self.in_a_row) as u32 % FLOWS, self.port);
                next += 1;
            }
            let start = Instant::now();
            let now = self.flows.moment(start);
            for datagram in &datagrams {
                self.judge(datagram, received, now);
            }
            batches.push(start.elapsed());
        }
        median(batches, packets)
    }

    fn judge(&self, datagram: &[u8], received: Received, now: Moment) {
        match vtep::ingress(self.tables, datagram, received) {
            Ingress::Deliver(deliver) => {
                black_box(deliver.mark);
            }
            Ingress::Unsolicited { deliver, subject } => {
                let flow = subject.as_ref().and_then(Subject::incoming);
                let is_admitted =
                    flow.is_some_and(|(key, step)| self.flows.admits(&key, step, now));
                assert_eq!(is_admitted, self.is_known);
                black_box(deliver.mark);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The time of so many packets, as the middle one of the batches has it.
fn median(mut batches: Vec<Duration>, packets: u64) -> Duration {
    batches.sort_unstable();
    let middle = batches[batches.len() / 2];
    middle.mul_f64(packets as f64 / BATCH as f64)
}

/// The host sent what all packets for `port` answer.
fn begin_all(flows: &FlowTable, port: u16) {
    let mut datagram = datagram(0, port);
    for n in 0..FLOWS {
        write_flow(&mut datagram, n, port);
        begin(flows, &datagram[8..]);
    }
}

/// The host sent the packet that this one answers.
fn begin(flows: &FlowTable, frame: &[u8]) {
    let Some(Reading::Packet(subject)) = Frame::new_checked(frame).map(Reading::of) else {
        panic!("a packet");
    };
    let (key, step) = subject.incoming().expect("UDP");
    flows.note(&key, step, flows.moment(Instant::now()));
}

fn note(c: &mut Criterion) {
    let flows = FlowTable::new(FlowLimits::default());
    let mut frames = vec![datagram(0, 50_000); BATCH];
    for (name, in_a_row) in [("policy/note", 1), ("policy/note again", BATCH)] {
        c.bench_function(name, |b| {
            b.iter_custom(|packets| {
                let mut batches = Vec::new();
                let mut next = 0_usize;
                for _ in (0..packets).step_by(BATCH) {
                    for frame in &mut frames {
                        write_flow(frame, (next / in_a_row) as u32 % FLOWS, 50_000);
                        next += 1;
                    }
                    batches.push(note_all(&flows, &frames));
                }
                median(batches, packets)
            });
        });
    }
}

/// Notes the flows of a batch; returns how long it took.
fn note_all(flows: &FlowTable, frames: &[Vec<u8>]) -> Duration {
    let start = Instant::now();
    let now = flows.moment(start);
    frames.iter().for_each(|frame| note_one(flows, frame, now));
    start.elapsed()
}

/// Every flow is a new one, and there is no room: the worst case, a flood that our own containers send.
fn full(c: &mut Criterion) {
    let flows = FlowTable::new(FlowLimits::default());
    let size = FlowLimits::default().size as u32;
    let mut frames = vec![datagram(0, 0); BATCH];
    let write =
        |frame: &mut [u8], n: u32| write_flow(frame, n % 10_000_000, (n / 10_000_000) as u16);
    for n in 0..2 * size {
        write(&mut frames[0], n);
        note_one(&flows, &frames[0], flows.moment(Instant::now()));
    }
    let mut next = 2 * size;
    c.bench_function("policy/note full", |b| {
        b.iter_custom(|packets| {
            let mut batches = Vec::new();
            for _ in (0..packets).step_by(BATCH) {
                for frame in &mut frames {
                    write(frame, next);
                    next += 1;
                }
                batches.push(note_all(&flows, &frames));
            }
            median(batches, packets)
        });
    });
    assert!(flows.counts(flows.moment(Instant::now())).evicted > u64::from(size));
}

/// The longest that a lane may find a flow locked is a step of it.
fn count(c: &mut Criterion) {
    let flows = FlowTable::new(FlowLimits::default());
    begin_all(&flows, 50_000);
    c.bench_function("policy/count", |b| {
        b.iter(|| flows.counts(flows.moment(Instant::now())));
    });
}

fn note_one(flows: &FlowTable, datagram: &[u8], now: Moment) {
    let subject = Frame::new_checked(&datagram[8..]).map(Reading::of);
    let Some(Reading::Packet(subject)) = subject else {
        panic!("a packet");
    };
    if let Some((key, step)) = subject.outgoing() {
        flows.note(&key, step, now);
    }
}

fn compile(c: &mut Criterion) {
    let spec = PolicySpec {
        regime: Regime::default(),
        rules: rules(10_000),
    };
    c.bench_function("policy/compile 10000 rules", |b| {
        b.iter(|| Policy::compile(black_box(&spec)));
    });
}

/// Rules for containers one after another, a port each; the first is the one that all packets for port 1 match.
fn rules(count: u32) -> Vec<PolicyRule> {
    let narrow = (0..count).map(|n| {
        let port = 2 + (n / CONTAINERS) as u16 % SERVICES as u16;
        PolicyRule {
            destination: ipnet::IpNet::from(std::net::IpAddr::from(container(OWN, n))),
            group: GroupId(3),
            proto: Proto::Udp,
            ports: Ports::new(port, port).expect("one port"),
            action: Action::Accept,
        }
    });
    // Where a container has rules of its own, a packet for port 1 finds none there and goes on to this one.
    let wide = PolicyRule {
        destination: format!("{OWN}/24").parse().expect("a prefix"),
        group: GroupId(3),
        proto: Proto::Udp,
        ports: Ports::new(1, 1).expect("one port"),
        action: Action::Accept,
    };
    narrow.chain([wide]).collect()
}

fn tables(rules: Option<Vec<PolicyRule>>) -> Tables {
    let local = Local::silk(format!("{OWN}/24").parse().expect("a prefix"));
    let peer = PeerSpec {
        subnets: vec![format!("{PEER}/24").parse().expect("a prefix")],
        underlay: UNDERLAY.into(),
        mac: MacAddr::overlay(PEER),
    };
    let spec = TableSpec {
        routes: peer.routes().collect(),
        neighbors: peer.neighbors().collect(),
        fdb: vec![peer.fdb_entry()],
        policy: rules.map(|rules| PolicySpec {
            regime: Regime::default(),
            rules,
        }),
        ..TableSpec::default()
    };
    Tables::compile(Arc::new(local), &spec, &mut CounterRegistry::new(1))
}

fn container(subnet: Ipv4Addr, n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(subnet.to_bits() + 2 + n % CONTAINERS)
}

/// Flow `n`: containers of both ends and a source port.
fn write_flow(datagram: &mut [u8], n: u32, port: u16) {
    let inner = &mut datagram[8..];
    inner[26..30].copy_from_slice(&container(PEER, n / CONTAINERS).octets());
    inner[30..34].copy_from_slice(&container(OWN, n).octets());
    inner[34..36].copy_from_slice(&(1024 + (n / CONTAINERS) as u16).to_be_bytes());
    inner[36..38].copy_from_slice(&port.to_be_bytes());
}

fn datagram(n: u32, port: u16) -> Vec<u8> {
    let mut datagram = vec![0x88, 0, 0, 3, 0, 0, 1, 0];
    PacketBuilder::ethernet2(
        MacAddr::overlay(PEER).octets(),
        MacAddr::overlay(OWN).octets(),
    )
    .ipv4([0; 4], [0; 4], 64)
    .udp(0, 0)
    .write(&mut datagram, &[0; 22])
    .expect("a Vec takes all");
    write_flow(&mut datagram, n, port);
    datagram
}

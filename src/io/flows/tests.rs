use std::net::Ipv4Addr;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::wire::ip::protocol::{ICMP, TCP, UDP};

const LIMITS: FlowLimits = FlowLimits {
    size: 64,
    tcp_s: 1000,
    tcp_new_s: 60,
    tcp_closing_s: 20,
    udp_s: 120,
    udp_new_s: 30,
    icmp_s: 10,
};

impl FlowTable {
    /// Without forgetting what is too old.
    fn counts_now(&self) -> FlowCounts {
        self.counts(Moment::at(0))
    }
}

fn table() -> FlowTable {
    FlowTable::with_keys(LIMITS, [1, 3, 5, 7, 9])
}

/// A flow of container `local`, its number in the ports.
fn flow(protocol: u8, local: u8, number: u32) -> FlowKey {
    FlowKey {
        local: Ipv4Addr::new(10, 255, 1, local).to_ipv6_mapped().to_bits(),
        remote: Ipv4Addr::new(10, 255, 2, 2).to_ipv6_mapped().to_bits(),
        ports: number,
        protocol,
    }
}

fn at(second: u32) -> Moment {
    Moment::at(second)
}

/// A TCP flow that was begun and answered.
fn establish(table: &FlowTable, key: &FlowKey, now: Moment) {
    table.note(key, Step::Begin, now);
    assert!(table.admits(key, Step::Answer, now));
}

#[test]
fn what_began_here_is_answered_and_nothing_else() {
    let table = table();
    let key = flow(TCP, 2, 1);
    assert!(!table.admits(&key, Step::Answer, at(0)));
    table.note(&key, Step::Begin, at(0));
    assert!(table.would_admit(&key, at(0)));
    assert!(table.admits(&key, Step::Answer, at(1)));
    assert!(table.admits(&key, Step::Go, at(2)));
    assert!(!table.admits(&flow(TCP, 2, 2), Step::Go, at(2)));
    assert!(!table.admits(&flow(UDP, 2, 1), Step::Go, at(2)));
    assert!(!table.admits(&flow(TCP, 3, 1), Step::Go, at(2)));
}

#[test]
fn answers_and_resets_begin_nothing_and_a_flow_under_way_is_picked_up() {
    let table = table();
    for (number, step, is_known) in [
        (1, Step::Answer, false),
        (2, Step::Abort, false),
        (3, Step::Tell, false),
        (4, Step::Go, true),
        (5, Step::Finish, true),
    ] {
        table.note(&flow(TCP, 2, number), step, at(0));
        let known = table.admits(&flow(TCP, 2, number), Step::Go, at(0));
        assert_eq!(known, is_known, "{step:?}");
    }
}

#[test]
fn each_kind_may_be_silent_for_its_time() {
    let flows = |now| {
        let table = table();
        for number in 1..=2 {
            for protocol in [TCP, UDP, ICMP] {
                table.note(&flow(protocol, 2, number), Step::Begin, at(0));
            }
        }
        for protocol in [TCP, UDP, ICMP] {
            assert!(table.admits(&flow(protocol, 2, 2), Step::Answer, at(0)));
        }
        table.note(&flow(TCP, 2, 3), Step::Begin, at(0));
        table.note(&flow(TCP, 2, 3), Step::Finish, at(0));
        table.note_fragments(&flow(44, 2, 7), at(0));
        let known = |key| table.would_admit(&key, at(now));
        let known = [
            known(flow(TCP, 2, 1)),
            known(flow(TCP, 2, 2)),
            known(flow(TCP, 2, 3)),
            known(flow(UDP, 2, 1)),
            known(flow(UDP, 2, 2)),
            known(flow(ICMP, 2, 2)),
            known(flow(44, 2, 7)),
        ];
        let counted = table.counts(at(now)).entries;
        let alive = known.iter().filter(|known| **known).count();
        // The one flow that is not asked after.
        assert_eq!(counted, alive + usize::from(known[5]), "at {now}");
        known
    };
    let all = |now| flows(now).map(u8::from);
    assert_eq!(all(10), [1, 1, 1, 1, 1, 1, 1]);
    assert_eq!(all(11), [1, 1, 1, 1, 1, 0, 1]);
    assert_eq!(all(21), [1, 1, 0, 1, 1, 0, 1]);
    assert_eq!(all(31), [1, 1, 0, 0, 1, 0, 0]);
    assert_eq!(all(61), [0, 1, 0, 0, 1, 0, 0]);
    assert_eq!(all(121), [0, 1, 0, 0, 0, 0, 0]);
    assert_eq!(all(1001), [0; 7]);
}

#[test]
fn an_error_keeps_nothing_alive_and_an_answer_does() {
    let table = table();
    let (quoted, answered) = (flow(UDP, 2, 1), flow(UDP, 2, 2));
    for key in [&quoted, &answered] {
        table.note(key, Step::Begin, at(0));
    }
    assert!(table.admits(&quoted, Step::Tell, at(30)));
    assert!(table.admits(&answered, Step::Begin, at(30)));
    assert!(!table.admits(&quoted, Step::Tell, at(31)));
    assert!(table.admits(&answered, Step::Begin, at(150)));
}

/// After `closed` by the other end: whether its packets are still let in for long.
fn outlives(closed: Step, ours: Option<Step>) -> bool {
    let table = table();
    let key = flow(TCP, 2, 1);
    establish(&table, &key, at(0));
    assert!(table.admits(&key, closed, at(1)));
    if let Some(ours) = ours {
        table.note(&key, ours, at(2));
    }
    // What it says itself prolongs nothing.
    let soon = table.admits(&key, Step::Go, at(20)) && table.admits(&key, closed, at(21));
    assert!(soon, "{closed:?} {ours:?}");
    table.admits(&key, Step::Go, at(60))
}

#[test]
fn a_reset_by_the_other_end_ends_nothing_that_our_side_goes_on_with() {
    assert!(!outlives(Step::Abort, None));
    for ours in [Step::Finish, Step::Abort, Step::Answer] {
        assert!(!outlives(Step::Abort, Some(ours)), "{ours:?}");
    }
    let table = table();
    let key = flow(TCP, 2, 1);
    establish(&table, &key, at(0));
    assert!(table.admits(&key, Step::Abort, at(1)));
    assert_eq!(table.counts(at(1)).established, 0);
    // It was forged: our side did not believe it.
    table.note(&key, Step::Go, at(2));
    assert_eq!(table.counts(at(2)).established, 1);
    assert!(table.admits(&key, Step::Go, at(900)));
}

#[test]
fn our_side_alone_closes_a_flow() {
    assert!(outlives(Step::Finish, None));
    assert!(outlives(Step::Finish, Some(Step::Go)));
    let table = table();
    let key = flow(TCP, 2, 1);
    establish(&table, &key, at(0));
    assert!(table.admits(&key, Step::Finish, at(1)));
    table.note(&key, Step::Finish, at(2));
    assert!(table.admits(&key, Step::Go, at(22)));
    assert!(!table.admits(&key, Step::Go, at(43)));
}

#[test]
fn what_our_side_has_closed_the_other_end_keeps_open_no_longer() {
    for closed in [Step::Finish, Step::Abort] {
        let table = table();
        let key = flow(TCP, 2, 1);
        establish(&table, &key, at(0));
        table.note(&key, closed, at(2));
        assert!(table.admits(&key, Step::Go, at(12)));
        assert!(table.admits(&key, Step::Go, at(22)));
        assert!(!table.admits(&key, Step::Go, at(32)), "{closed:?}");
    }
    // What it sends after our FIN is answered.
    let table = table();
    let key = flow(TCP, 2, 1);
    establish(&table, &key, at(0));
    table.note(&key, Step::Finish, at(2));
    for second in (12..100).step_by(10) {
        assert!(table.admits(&key, Step::Go, at(second)));
        table.note(&key, Step::Go, at(second));
    }
}

#[test]
fn whoever_has_the_address_next_inherits_no_replies() {
    let limits = FlowLimits {
        size: 8192,
        ..LIMITS
    };
    let table = FlowTable::new(limits);
    let address = |local| IpAddr::from([10, 255, 1, local]);
    // Before anything was noted.
    table.forget(address(2));
    // The last byte is the same, the address not.
    let namesake = |number| FlowKey {
        local: policy::bits([10, 255, 7, 2].into()),
        ..flow(TCP, 2, number)
    };
    for number in 0..1000 {
        establish(&table, &flow(TCP, 2, number), at(0));
        establish(&table, &namesake(number), at(0));
        table.note(&flow(UDP, 3, number), Step::Begin, at(0));
    }
    table.note_fragments(&flow(44, 2, 7), at(0));
    table.forget(address(2));
    assert_eq!(table.counts(at(0)).entries, 2000);
    for number in 0..1000 {
        assert!(!table.admits(&flow(TCP, 2, number), Step::Go, at(0)));
        assert!(table.admits(&namesake(number), Step::Go, at(0)));
        assert!(table.admits(&flow(UDP, 3, number), Step::Begin, at(0)));
    }
    assert!(!table.admits(&flow(44, 2, 7), Step::Go, at(0)));
    for shard in table.shards() {
        shard.lock().books();
    }
}

#[test]
fn a_flow_that_closed_may_begin_again() {
    let table = table();
    let key = flow(TCP, 2, 1);
    establish(&table, &key, at(0));
    assert!(table.admits(&key, Step::Abort, at(1)));
    assert_eq!(table.counts(at(1)).established, 0);
    table.note(&key, Step::Begin, at(2));
    assert!(table.admits(&key, Step::Answer, at(50)));
    assert_eq!(table.counts(at(50)).established, 1);
}

#[test]
fn where_it_is_full_the_oldest_goes_and_is_counted() {
    let table = table();
    for number in 0..64 {
        table.note(&flow(UDP, 2, number), Step::Begin, at(number / 8));
    }
    assert_eq!(table.counts(at(8)).evicted, 0);
    // Heard of since, so no longer the oldest.
    table.note(&flow(UDP, 2, 0), Step::Begin, at(8));
    table.note(&flow(UDP, 2, 64), Step::Begin, at(8));
    let counts = table.counts(at(8));
    assert_eq!((counts.size, counts.entries), (64, 64));
    assert_eq!((counts.evicted, counts.evicted_established), (1, 0));
    assert!(table.would_admit(&flow(UDP, 2, 0), at(8)));
    assert!(!table.would_admit(&flow(UDP, 2, 1), at(8)));
}

#[test]
fn old_entries_make_room_before_any_other() {
    let table = table();
    for number in 0..64 {
        table.note(&flow(ICMP, 2, number), Step::Begin, at(0));
    }
    for number in 0..64 {
        table.note(&flow(UDP, 2, number), Step::Begin, at(11));
    }
    let counts = table.counts(at(11));
    assert_eq!((counts.entries, counts.evicted), (64, 0));
}

#[test]
fn a_flood_of_beginnings_costs_no_established_flow() {
    let table = table();
    for number in 0..32 {
        establish(&table, &flow(TCP, 2, number), at(0));
    }
    for number in 0..200_000 {
        table.note(&flow(TCP, 3, number), Step::Begin, at(1 + number / 20_000));
    }
    let counts = table.counts(at(12));
    assert_eq!(counts.entries, 64);
    assert_eq!((counts.established, counts.evicted_established), (32, 0));
    for number in 0..32 {
        assert!(table.admits(&flow(TCP, 2, number), Step::Go, at(12)));
    }
}

#[test]
fn a_flood_pushes_out_its_own() {
    let table = table();
    // Both kinds of another container's: few against many.
    for number in 0..4 {
        table.note(&flow(UDP, 2, number), Step::Begin, at(0));
        establish(&table, &flow(TCP, 2, number), at(0));
    }
    for number in 0..10_000 {
        table.note(&flow(UDP, 3, number), Step::Begin, at(1));
    }
    for number in 0..10_000 {
        establish(&table, &flow(TCP, 3, number), at(2));
    }
    for number in 0..4 {
        assert!(table.admits(&flow(TCP, 2, number), Step::Go, at(3)));
    }
}

#[test]
fn who_fills_the_table_with_established_flows_keeps_nobody_from_beginning() {
    let table = table();
    for number in 0..200 {
        establish(&table, &flow(UDP, 3, number), at(0));
    }
    // As many at once as the share that is kept, each answered after all have begun.
    for number in 0..8 {
        table.note(&flow(TCP, 2, number), Step::Begin, at(1));
    }
    for number in 0..8 {
        assert!(table.admits(&flow(TCP, 2, number), Step::Answer, at(1)));
    }
    // Whoever goes on filling it loses its own.
    for number in 200..10_000 {
        establish(&table, &flow(UDP, 3, number), at(2));
    }
    for number in 0..8 {
        assert!(table.admits(&flow(TCP, 2, number), Step::Go, at(3)));
    }
}

#[test]
fn a_million_sources_neither_grow_the_table_nor_stop_what_is_established() {
    const SOURCES: u32 = 1_000_000;
    let table = FlowTable::new(FlowLimits::default());
    let bytes = || -> usize {
        let shards = table.shards().iter();
        shards.map(|shard| shard.lock().bytes()).sum()
    };
    let set_aside = bytes();
    for number in 0..10_000 {
        establish(&table, &flow(TCP, number as u8, number), at(0));
    }
    let from = |source: u32| FlowKey {
        remote: Ipv4Addr::from(0x0a00_0000 | source)
            .to_ipv6_mapped()
            .to_bits(),
        ..flow(TCP, 2, 80 << 16 | source & 0xffff)
    };
    // They come in, no rule lets them in or one does, and the container answers or resets: none of it is a flow that began here.
    for source in 0..SOURCES {
        let step = [Step::Answer, Step::Abort][source as usize % 2];
        table.note(&from(source), step, at(1));
    }
    assert_eq!(table.counts(at(1)).entries, 10_000);
    // And of our own more than there is room for, from every container.
    for source in 0..300_000 {
        let key = FlowKey {
            remote: from(source).remote,
            ..flow(TCP, source as u8, source)
        };
        table.note(&key, Step::Begin, at(2 + source / 30_000));
    }
    let counts = table.counts(at(12));
    assert_eq!((counts.entries, counts.size), (131_072, 131_072));
    assert_eq!(
        (counts.established, counts.evicted_established),
        (10_000, 0)
    );
    for number in 0..10_000 {
        assert!(table.admits(&flow(TCP, number as u8, number), Step::Go, at(13)));
    }
    // What the README says it takes.
    assert_eq!(bytes(), set_aside);
    assert!(set_aside <= 10_000_000, "{set_aside}");
}

#[test]
fn a_large_table_is_shared_by_shards_and_bounded_as_a_whole() {
    let limits = FlowLimits {
        size: 8192,
        ..LIMITS
    };
    let table = FlowTable::new(limits);
    for number in 0..100_000 {
        table.note(&flow(UDP, number as u8, number), Step::Begin, at(0));
    }
    let counts = table.counts(at(0));
    assert_eq!((counts.size, counts.entries), (8192, 8192));
    assert_eq!(counts.evicted, 100_000 - 8192);
}

/// What a table of unbounded size and a list of entries would say.
#[derive(Default)]
struct Model(Vec<(FlowKey, &'static str, u32)>);

impl Model {
    fn find(&mut self, key: &FlowKey, now: u32) -> Option<usize> {
        self.0.retain(|(key, state, seen)| {
            let timeout = match (key.protocol, *state) {
                (TCP, "new") => 60,
                (TCP, "closing" | "reset") => 20,
                (TCP, _) => 1000,
                (ICMP, _) => 10,
                (_, "established") => 120,
                _ => 30,
            };
            now - seen <= timeout
        });
        self.0.iter().position(|(known, ..)| known == key)
    }

    fn note(&mut self, key: &FlowKey, step: Step, now: u32) {
        match (self.find(key, now), step) {
            (None, Step::Begin) => self.0.push((*key, "new", now)),
            (None, Step::Go) => self.0.push((*key, "picked", now)),
            (None, Step::Finish) => self.0.push((*key, "closing", now)),
            (None, _) => {}
            (Some(at), step) => {
                let (_, state, seen) = &mut self.0[at];
                *seen = now;
                *state = match (*state, step) {
                    (_, Step::Finish | Step::Abort) => "closing",
                    ("closing" | "reset", Step::Begin) => "new",
                    ("reset", Step::Go) => "established",
                    (state, _) => state,
                };
            }
        }
    }

    fn admits(&mut self, key: &FlowKey, step: Step, now: u32) -> bool {
        let Some(at) = self.find(key, now) else {
            return false;
        };
        let (_, state, seen) = &mut self.0[at];
        if step != Step::Tell && !matches!(*state, "reset" | "closing") {
            *seen = now;
            *state = match step {
                Step::Abort => "reset",
                _ => "established",
            };
        }
        true
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Begin),
        3 => Just(Step::Go),
        1 => Just(Step::Answer),
        1 => Just(Step::Finish),
        1 => Just(Step::Abort),
        1 => Just(Step::Tell),
    ]
}

proptest! {
    #[test]
    fn while_there_is_room_it_is_as_a_list(
        packets in vec((any::<bool>(), 0_usize..3, 0_u8..3, 0_u32..3, step(), 0_u32..40), 0..400),
    ) {
        let table = table();
        let mut model = Model::default();
        let mut now = 0;
        for (sent, protocol, local, number, step, later) in packets {
            now += later / 3;
            let key = flow([TCP, UDP, ICMP][protocol], local, number);
            if sent {
                table.note(&key, step, at(now));
                model.note(&key, step, now);
            } else {
                prop_assert_eq!(table.admits(&key, step, at(now)), model.admits(&key, step, now));
            }
        }
        model.find(&flow(TCP, 9, 9), now);
        prop_assert_eq!(table.counts(at(now)).entries, model.0.len());
        let established = model.0.iter().filter(|(_, state, _)| *state == "established");
        prop_assert_eq!(table.counts(at(now)).established, established.count());
    }

    #[test]
    fn whatever_comes_it_is_bounded_and_its_books_are_right(
        packets in vec((any::<bool>(), 0_usize..3, 0_u8..4, 0_u32..200, step(), 0_u32..3), 0..2000),
    ) {
        let table = table();
        let mut now = 0;
        for (sent, protocol, local, number, step, later) in packets {
            now += later / 2;
            let key = flow([TCP, UDP, ICMP][protocol], local, number);
            let before = table.counts_now();
            if sent {
                table.note(&key, step, at(now));
            } else {
                let _ = table.admits(&key, step, at(now));
            }
            let after = table.counts_now();
            // An established one goes only where the others have less than their share.
            if after.evicted_established > before.evicted_established {
                prop_assert!(before.established > 56);
            }
            prop_assert!(after.entries <= 64);
        }
        prop_assert_eq!(table.shards()[0].lock().books(), table.counts_now());
    }
}

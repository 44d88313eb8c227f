//! What is printed: a line a packet, in order, and what they come to.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Write};

use super::line::{Line, Reason};
use crate::cli::print::{Align, columns};
use crate::host::{HostDrop, Settled};
use crate::vtep::Fate;

/// Lines and their sum, on their way to `out`.
pub(super) struct Report<'t, W> {
    out: W,
    json: bool,
    /// Nobody reads it any more, and that is no reason to stop.
    closed: bool,
    /// Go on when nobody reads.
    deaf: bool,
    /// From the first fragment on whose fate is open, everything that came since: bounded by
    /// [`MAX_AGE_PACKETS`](crate::host::MAX_AGE_PACKETS).
    waiting: VecDeque<Waiting<'t>>,
    counts: BTreeMap<(Fate, Option<Reason>), u64>,
    packets: u64,
}

/// A line that cannot be printed before those in front of it.
enum Waiting<'t> {
    Line(Line<'t>),
    /// A fragment whose fate is open.
    Fragment,
}

impl<'t, W: Write> Report<'t, W> {
    /// `deaf`: go on when nobody reads, for there is other work to do.
    pub(super) fn new(out: W, json: bool, deaf: bool) -> Self {
        Self {
            out,
            json,
            closed: false,
            deaf,
            waiting: VecDeque::new(),
            counts: BTreeMap::new(),
            packets: 0,
        }
    }

    /// The number of the packet that comes next.
    pub(super) fn next_packet(&self) -> u64 {
        self.packets + 1
    }

    /// The next packet's line.
    pub(super) fn put(&mut self, line: Line<'t>) -> io::Result<()> {
        self.packets += 1;
        if self.waiting.is_empty() {
            self.print(line)
        } else {
            self.waiting.push_back(Waiting::Line(line));
            Ok(())
        }
    }

    /// The next packet is a fragment whose fate is open.
    pub(super) fn wait(&mut self) {
        self.packets += 1;
        self.waiting.push_back(Waiting::Fragment);
    }

    /// The fate of some fragments.
    pub(super) fn settle(&mut self, settled: impl Iterator<Item = Settled>) -> io::Result<()> {
        for Settled { packet, fate } in settled {
            let first = self.packets + 1 - self.waiting.len() as u64;
            let place = packet.checked_sub(first).map(|at| at as usize);
            let place = place.and_then(|at| self.waiting.get_mut(at));
            if let Some(waiting) = place {
                *waiting = Waiting::Line(of_fragment(packet, fate));
            }
        }
        let is_line = |waiting: &mut Waiting<'_>| matches!(waiting, Waiting::Line(_));
        while let Some(Waiting::Line(line)) = self.waiting.pop_front_if(is_line) {
            self.print(line)?;
        }
        Ok(())
    }

    /// What all lines come to, unless it is JSON.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if !self.json {
            let text = summary(&self.counts);
            self.write(|out| write!(out, "\n{text}"))?;
        }
        self.write(W::flush)
    }

    fn print(&mut self, line: Line<'t>) -> io::Result<()> {
        let counted = (line.verdict.fate, line.verdict.reason);
        *self.counts.entry(counted).or_default() += 1;
        if self.json {
            self.write(|out| {
                serde_json::to_writer(&mut *out, &line)?;
                out.write_all(b"\n")
            })
        } else {
            self.write(|out| writeln!(out, "{line}"))
        }
    }

    fn write(&mut self, write: impl FnOnce(&mut W) -> io::Result<()>) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        match write(&mut self.out) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe && self.deaf => {
                self.closed = true;
                Ok(())
            }
            written => written,
        }
    }
}

fn of_fragment<'t>(packet: u64, fate: Result<(), HostDrop>) -> Line<'t> {
    match fate {
        Ok(()) => Line::new(packet, Fate::Fragment),
        Err(reason) => Line::drop(packet, Reason::Host(reason)),
    }
}

/// A row for each verdict, of the drops the most frequent first, and their sum.
fn summary(counts: &BTreeMap<(Fate, Option<Reason>), u64>) -> String {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by_key(|&(&(fate, _), &count)| (fate, std::cmp::Reverse(count)));
    let total: u64 = counts.iter().map(|&(_, count)| count).sum();
    let row = |(&(fate, reason), count): (&(Fate, Option<Reason>), &u64)| {
        let (name, meaning) = match reason {
            Some(reason) => {
                let name = format!("{} {}", fate.name(), reason.name());
                (name, reason.meaning().trim())
            }
            None => (fate.name().to_owned(), ""),
        };
        [name, count.to_string(), meaning.to_owned()]
    };
    let mut rows: Vec<_> = counts.into_iter().map(row).collect();
    rows.push([
        "packets, total".to_owned(),
        total.to_string(),
        String::new(),
    ]);
    columns(&rows, [Align::Left, Align::Right, Align::Left])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DropReason;

    fn settled(packet: u64, fate: Result<(), HostDrop>) -> impl Iterator<Item = Settled> {
        [Settled { packet, fate }].into_iter()
    }

    #[test]
    fn lines_keep_their_order_while_fragments_wait() {
        let mut out = Vec::new();
        let mut report = Report::new(&mut out, false, false);
        let deliver = |n| Line::new(n, Fate::Deliver);
        report.put(deliver(1)).unwrap();
        report.wait();
        report.put(deliver(3)).unwrap();
        report.wait();
        report.put(deliver(5)).unwrap();
        report.settle(settled(4, Ok(()))).unwrap();
        assert_eq!(report.counts.values().sum::<u64>(), 1, "2 still waits");
        let incomplete = Err(HostDrop::FragmentIncomplete);
        report.settle(settled(2, incomplete)).unwrap();
        let unknown = Reason::Daemon(DropReason::UnknownVni);
        report.put(Line::drop(6, unknown)).unwrap();
        report.finish().unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "1 deliver
2 drop host-fragment-incomplete
3 deliver
4 fragment
5 deliver
6 drop unknown-vni

deliver                        3
fragment                       1
drop unknown-vni               1  A VNI that is not ours.
drop host-fragment-incomplete  1  A fragment whose packet was not complete when the capture ended, or too many packets later.
packets, total                 6
"
        );
    }

    /// Takes nothing.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_ends_it_unless_there_is_other_work() {
        let line = Line::new(1, Fate::Deliver);
        assert!(Report::new(Closed, true, false).put(line.clone()).is_err());
        let mut deaf = Report::new(Closed, true, true);
        assert!(deaf.put(line).is_ok());
        assert!(deaf.finish().is_ok());
    }
}

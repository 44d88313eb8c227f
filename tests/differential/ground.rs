//! Both sides of one setup, and the comparison of what they make of a case.

use super::case::Case;
use super::difference::{self, Difference};
use super::setup::Setup;
use super::side::{Kind, Observation, Side};
use super::verdict::Drops;
use super::view::{View, hex};
use crate::support::Result;

/// The kernel's device and ours, in the same configuration on hosts of the same addresses.
pub(crate) struct Ground {
    pub(crate) setup: &'static Setup,
    kernel: Side,
    silk: Side,
}

/// What both made of a case that they agree on.
pub(crate) struct Agreed {
    /// The intended difference that the case shows.
    pub(crate) difference: Option<&'static Difference>,
    /// Nothing came of it.
    pub(crate) dropped: bool,
    /// The kernel's packets, for what is to be held between cases.
    pub(crate) kernel: View,
    /// Ours.
    pub(crate) silk: View,
    /// The same as it was seen, with what came on the device.
    pub(crate) ours: Observation,
}

impl Ground {
    /// Builds both.
    pub(crate) fn new(setup: &'static Setup) -> Result<Self> {
        Ok(Self {
            setup,
            kernel: Side::new(Kind::Kernel, setup)?,
            silk: Side::new(Kind::Silk, setup)?,
        })
    }

    /// Runs a case on both. The error is what differs and how to see it again.
    pub(crate) fn compare(&mut self, case: &Case) -> Result<std::result::Result<Agreed, String>> {
        self.kernel.stimulate(case)?;
        self.silk.stimulate(case)?;
        let kernel = self.kernel.observe(case)?;
        let silk = self.silk.observe(case)?;
        Ok(self.judge(case, kernel, silk))
    }

    /// What ours makes of a case, without the kernel.
    pub(crate) fn ours(&mut self, case: &Case) -> Result<Observation> {
        self.silk.stimulate(case)?;
        self.silk.observe(case)
    }

    /// What our daemon has dropped so far.
    pub(crate) fn drops(&self) -> Result<Drops> {
        self.silk.drops()
    }

    fn judge(
        &self,
        case: &Case,
        kernel: Observation,
        silk: Observation,
    ) -> std::result::Result<Agreed, String> {
        let difference = difference::of(case);
        let expected = difference.map_or_else(|| kernel.clone(), |d| (d.ours)(case, &kernel));
        let ports = &self.setup.ports;
        let [theirs, ours, expected_view] =
            [&kernel, &silk, &expected].map(|seen| View::of(&seen.underlay, ports));
        let mut wrong = Vec::new();
        for (whose, view) in [("the kernel's", &theirs), ("our", &ours)] {
            wrong.extend(
                view.faults
                    .iter()
                    .map(|fault| format!("of {whose}: {fault}")),
            );
        }
        if expected.refused != silk.refused {
            wrong.push(format!(
                "the kernel's device said {:?}, ours {:?}",
                kernel.refused, silk.refused
            ));
        }
        wrong.extend(first_difference(
            "underlay",
            &expected_view.packets,
            &ours.packets,
        ));
        let [expected, delivered] = [&expected, &silk].map(|seen| overlay(case, seen));
        wrong.extend(first_difference("overlay", &expected, &delivered));
        if wrong.is_empty() {
            return Ok(Agreed {
                dropped: theirs.packets.is_empty() && expected.is_empty(),
                difference,
                kernel: theirs,
                silk: ours,
                ours: silk,
            });
        }
        Err(self.report(case, difference, &wrong))
    }

    fn report(&self, case: &Case, difference: Option<&Difference>, wrong: &[String]) -> String {
        let intended = difference.map_or(String::new(), |difference| {
            format!(
                "\n  (expected with the intended difference `{}`)",
                difference.name
            )
        });
        format!(
            "{}{intended}\n  again: cargo test --test differential -- --case '{}'\n",
            wrong.join("\n"),
            case.word()
        )
    }

    /// What a person wants to see beside differences.
    pub(crate) fn diagnosis(&self) -> String {
        self.silk.diagnosis()
    }
}

/// Frames on the device; marks in front where our TAP passes them.
fn overlay(case: &Case, seen: &Observation) -> Vec<Vec<u8>> {
    let frames = seen.overlay.iter();
    let with_mark = |frame: &super::packet_socket::Frame| {
        let mark = if case.setup.marks { frame.mark } else { 0 };
        [&mark.to_be_bytes()[..], &frame.bytes].concat()
    };
    frames.map(with_mark).collect()
}

/// How many bytes a report shows.
const SHOWN_BYTES: usize = 200;

fn first_difference(place: &str, kernel: &[Vec<u8>], silk: &[Vec<u8>]) -> Option<String> {
    if kernel.len() != silk.len() {
        let [theirs, ours] = [kernel, silk].map(shown);
        let (n, m) = (kernel.len(), silk.len());
        return Some(format!(
            "{place}: {n} packets of the kernel's, {m} of ours\n  kernel {theirs}\n  ours   {ours}"
        ));
    }
    let (index, (theirs, ours)) = kernel
        .iter()
        .zip(silk)
        .enumerate()
        .find(|(_, (theirs, ours))| theirs != ours)?;
    let at = theirs.iter().zip(ours).position(|(a, b)| a != b);
    let at = at.unwrap_or(theirs.len().min(ours.len()));
    Some(format!(
        "{place}: packet {index} differs at byte {at}, of {} and {} bytes\n  kernel {}\n  ours   {}",
        theirs.len(),
        ours.len(),
        shown(std::slice::from_ref(theirs)),
        shown(std::slice::from_ref(ours)),
    ))
}

fn shown(packets: &[Vec<u8>]) -> String {
    let shown = packets.iter().map(|packet| {
        let short = hex(&packet[..packet.len().min(SHOWN_BYTES)]);
        let rest = if packet.len() > SHOWN_BYTES {
            "..."
        } else {
            ""
        };
        format!("{short}{rest}")
    });
    let shown: Vec<String> = shown.collect();
    if shown.is_empty() {
        "nothing".to_owned()
    } else {
        shown.join("\n         ")
    }
}

//! The table's lines: a name, a setup, what goes in.

use super::case::{Case, Direction, Stimulus};
use super::datagram::Datagram;
use super::frames::Inner;
use super::setup::Setup;

/// One line.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) case: Case,
    /// Outer IPv4 IDs count up by one.
    pub(crate) counts_ids: bool,
}

/// What [`transmit`] takes.
pub(crate) trait IntoStimulus {
    fn stimulus(self) -> Stimulus;
}

impl IntoStimulus for Inner {
    fn stimulus(self) -> Stimulus {
        Stimulus::of(self.0)
    }
}

/// With a mark.
impl IntoStimulus for (u32, Inner) {
    fn stimulus(self) -> Stimulus {
        Stimulus {
            mark: self.0,
            ..Stimulus::of(self.1.0)
        }
    }
}

impl IntoStimulus for Stimulus {
    fn stimulus(self) -> Stimulus {
        self
    }
}

/// A frame into the device.
pub(crate) fn transmit(setup: &str, name: impl Into<String>, frame: impl IntoStimulus) -> Row {
    Row::new(
        Direction::Transmit,
        setup,
        name.into(),
        vec![frame.stimulus()],
    )
}

/// A packet of the underlay.
pub(crate) fn receive(setup: &str, name: impl Into<String>, datagram: &Datagram) -> Row {
    receive_all(setup, name, vec![datagram.packet()])
}

/// Several packets of the underlay, such as fragments.
pub(crate) fn receive_all(setup: &str, name: impl Into<String>, packets: Vec<Vec<u8>>) -> Row {
    let stimuli = packets.into_iter().map(Stimulus::of).collect();
    Row::new(Direction::Receive, setup, name.into(), stimuli)
}

impl Row {
    fn new(direction: Direction, setup: &str, name: String, stimuli: Vec<Stimulus>) -> Self {
        let setup = Setup::named(setup).expect("the table names setups that there are");
        Self {
            name: format!("{}::{}::{name}", direction.name(), setup.name),
            case: Case {
                direction,
                setup,
                stimuli,
            },
            counts_ids: false,
        }
    }

    /// The packets of a super-frame leave with IDs that count up.
    pub(crate) fn counting_ids(mut self) -> Self {
        self.counts_ids = true;
        self
    }
}

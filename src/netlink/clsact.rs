//! Programs on a device's two sides, the way before tcx: `bpf` filters in direct action of a `clsact` qdisc (tc-bpf(8)).

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};
use nix::errno::Errno;

use super::error::{NetlinkError, unless};
use super::socket::{CREATE, Netlink};
use crate::sys::tcx::Side;

/// The qdisc that holds filters and queues nothing.
const KIND: &str = "clsact";
/// Filters for packets of every protocol (ETH_P_ALL), in network order as `tcm_info` has it.
const EVERY_PROTOCOL: u32 = 0x0003_u16.to_be() as u32;
const PRIORITY_SHIFT: u32 = 16;

/// What is on one side of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    /// `bpf`, `flower` and so on.
    pub(super) kind: String,
    /// Of a program, as whoever added it called it.
    pub(super) name: Option<String>,
    /// The program's number; a `bpf` filter of the old machine has none.
    pub(super) program: Option<u32>,
    priority: u32,
    handle: TcHandle,
}

impl Netlink {
    /// Makes room for filters on `interface`, if there is none.
    ///
    /// # Errors
    /// EINVAL or EOPNOTSUPP if the kernel has no such qdisc, ENODEV if the link is gone.
    pub(super) fn ensure_clsact(&mut self, interface: u32) -> Result<(), NetlinkError> {
        let mut message = TcMessage::with_index(interface.cast_signed());
        message.header.parent = TcHandle::CLSACT;
        message.header.handle = TcHandle {
            minor: 0,
            ..TcHandle::CLSACT
        };
        message.attributes.push(TcAttribute::Kind(KIND.to_owned()));
        let made = self.change(RouteNetlinkMessage::NewQueueDiscipline(message), CREATE);
        unless(Errno::EEXIST, made).map(drop)
    }

    /// The filters on one side, of every kind, in no order. One of another kind than `bpf` may be there more than once.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub(super) fn filters(
        &mut self,
        interface: u32,
        side: Side,
    ) -> Result<Vec<Filter>, NetlinkError> {
        let mut message = message_for(interface, side);
        // Those for packets of one protocol too.
        message.header.info = 0;
        match self.dump(&RouteNetlinkMessage::GetTrafficFilter(message)) {
            Ok(messages) => Ok(messages.into_iter().filter_map(filter_of).collect()),
            // There is no qdisc that could have any, or this kernel has no filters at all.
            Err(error) => match error.errno() {
                Some(Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(Vec::new()),
                _ => Err(error),
            },
        }
    }

    /// Has `program` run on one side, before all others or in the place of `replaced`.
    ///
    /// # Errors
    /// ENOENT if the kernel has no such filters, EINVAL if the qdisc there has no such side.
    pub(super) fn put_filter(
        &mut self,
        interface: u32,
        side: Side,
        name: &str,
        program: BorrowedFd<'_>,
        replaced: Option<&Filter>,
    ) -> Result<(), NetlinkError> {
        let mut message = match replaced {
            Some(filter) => filter.message(interface, side),
            None => message_for(interface, side),
        };
        message.attributes.push(TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(
                program.as_raw_fd().cast_unsigned(),
            )),
            TcOption::Bpf(TcFilterBpfOption::ProgName(name.to_owned())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]));
        // Without a priority the kernel takes one before all that there are (`tcf_auto_prio`).
        let flags = if replaced.is_some() {
            NLM_F_CREATE
        } else {
            CREATE
        };
        self.change(RouteNetlinkMessage::NewTrafficFilter(message), flags)
    }

    /// Takes a program away; false if it was gone.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn delete_filter(
        &mut self,
        interface: u32,
        side: Side,
        filter: &Filter,
    ) -> Result<bool, NetlinkError> {
        let message = filter.message(interface, side);
        let deleted = self.change(RouteNetlinkMessage::DelTrafficFilter(message), 0);
        unless(Errno::ENOENT, deleted)
    }
}

impl Filter {
    /// Filters run in the order of this.
    pub(super) fn priority(&self) -> u32 {
        self.priority
    }

    fn message(&self, interface: u32, side: Side) -> TcMessage {
        let mut message = message_for(interface, side);
        message.header.info |= self.priority << PRIORITY_SHIFT;
        message.header.handle = self.handle;
        message
    }
}

fn message_for(interface: u32, side: Side) -> TcMessage {
    let mut message = TcMessage::with_index(interface.cast_signed());
    message.header.parent = TcHandle {
        minor: match side {
            Side::Ingress => TcHandle::MIN_INGRESS,
            Side::Egress => TcHandle::MIN_EGRESS,
        },
        ..TcHandle::CLSACT
    };
    message.header.info = EVERY_PROTOCOL;
    message
        .attributes
        .push(TcAttribute::Kind(TcFilterBpf::KIND.to_owned()));
    message
}

/// `None`: no filter, one that is reached from others alone, or a `bpf` one that only says that there may be some.
fn filter_of(message: RouteNetlinkMessage) -> Option<Filter> {
    let RouteNetlinkMessage::NewTrafficFilter(message) = message else {
        return None;
    };
    let attributes = || message.attributes.iter();
    let kind = attributes().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.clone()),
        _ => None,
    })?;
    // Of another chain than the first none runs that one before it does not go to.
    let is_elsewhere = |attribute| matches!(attribute, &TcAttribute::Chain(chain) if chain != 0);
    // The kernel tells of an instance before it tells of its filters (`tcf_chain_dump`).
    let is_placeholder = kind == TcFilterBpf::KIND && message.header.handle == TcHandle::UNSPEC;
    if attributes().any(is_elsewhere) || is_placeholder {
        return None;
    }
    let options = attributes().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    let bpf = || {
        options
            .into_iter()
            .flatten()
            .filter_map(|option| match option {
                TcOption::Bpf(option) => Some(option),
                _ => None,
            })
    };
    let name = bpf().find_map(|option| match option {
        TcFilterBpfOption::ProgName(name) => Some(name.clone()),
        _ => None,
    });
    let program = bpf().find_map(|option| match option {
        TcFilterBpfOption::ProgId(id) => Some(*id),
        _ => None,
    });
    Some(Filter {
        kind,
        name,
        program,
        priority: message.header.info >> PRIORITY_SHIFT,
        handle: message.header.handle,
    })
}

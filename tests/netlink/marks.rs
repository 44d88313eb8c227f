//! The programs that carry marks over the TAP, on a real one: what a packet socket's mark becomes, and what becomes the mark of a
//! packet. The kernel's own answers tell the latter: with `fwmark_reflect` a ping is answered under the mark it came with.

use std::io::IoSlice;
use std::net::{Ipv4Addr, UdpSocket};
use std::thread;
use std::time::Duration;

use etherparse::{Icmpv4Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use libtest_mimic::Failed;
use silk_vtep::bpf::{Assembler, Register};
use silk_vtep::io::{Tap, TapOffloads, TapQueue};
use silk_vtep::netlink::{Ahead, Hook, MarkPrograms, Runs, Standing, remove_mark_programs};
use silk_vtep::sys::bpf::{ProgramType, load};
use silk_vtep::sys::tcx::{self, Side};
use silk_vtep::wire::ethernet::Frame;
use silk_vtep::wire::{MacAddr, Mark, mark_tag, vnet};
use socket2::SockRef;

use crate::fixture::{Ns, Outcome, holds, same};

const NAME: &str = "silk-vtep";
const OWN: MacAddr = MacAddr::new([0xee, 0xee, 10, 255, 108, 0]);
const PEER: MacAddr = MacAddr::new([0xee, 0xee, 10, 255, 43, 0]);
const OWN_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 255, 108, 0);
const PEER_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 255, 43, 0);
/// How long a packet may take that takes no time, and how long one is waited for that must not come.
const LOOKS: usize = 500;
const LOOKS_IN_VAIN: usize = 20;
const PAUSE: Duration = Duration::from_millis(10);
/// TC_ACT_SHOT.
const SHOT: i32 = 2;

/// A host with a TAP that we read, and the programs on it.
struct Host {
    ns: Ns,
    tap: TapQueue,
    index: u32,
}

impl Host {
    fn new() -> Result<Self, Failed> {
        let ns = Ns::new("marks")?;
        let tap = ns
            .namespace
            .run(|| TapQueue::open(NAME, TapOffloads::default()))??;
        for command in [
            format!("link set {NAME} address {OWN} arp off"),
            format!("address add {OWN_ADDRESS}/16 dev {NAME}"),
            format!("link set {NAME} up"),
        ] {
            ns.ip(&command)?;
        }
        ns.namespace.set_sysctl("net/ipv4/fwmark_reflect", "1")?;
        let index = ns.netlink()?.link_named(NAME)?.ok_or("no TAP")?.index;
        Ok(Self { ns, tap, index })
    }

    /// Runs `inside` where bpf(2) finds the TAP.
    fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> Result<T, Failed> {
        Ok(self.ns.namespace.run(inside)?)
    }

    fn attach(&self, hook: Option<Hook>) -> Result<MarkPrograms, Failed> {
        let attach = || MarkPrograms::attach(self.index, NAME, OWN, None, hook);
        Ok(self.run(attach)??)
    }

    fn are_attached(&self, programs: &mut MarkPrograms) -> Result<bool, Failed> {
        Ok(self.run(|| programs.standing())?? != Standing::Detached)
    }

    /// Names of the programs of tcx, in the order they run.
    fn names(&self, side: Side) -> Result<Vec<String>, Failed> {
        let names = || {
            let ids = tcx::attached(self.index, side)?;
            let name = |id| Ok(tcx::info(tcx::program(id)?)?.name);
            ids.into_iter().map(name).collect::<std::io::Result<_>>()
        };
        Ok(self.run(names)??)
    }

    /// The source MAC under which the TAP's reader sees a datagram of a socket with `mark`.
    fn sent_under(&mut self, mark: u32) -> Result<MacAddr, Failed> {
        let socket = self.run(|| UdpSocket::bind((OWN_ADDRESS, 0)))??;
        SockRef::from(&socket).set_mark(mark)?;
        socket.send_to(b"who is it?", (PEER_ADDRESS, 9))?;
        let port = socket.local_addr()?.port();
        let is_it = |frame: &[u8]| match SlicedPacket::from_ethernet(frame).ok()?.transport? {
            TransportSlice::Udp(udp) if udp.source_port() == port => {
                Some(Frame::new_checked(frame)?.source())
            }
            _ => None,
        };
        Ok(self.read(LOOKS, is_it)?.ok_or("no datagram")?)
    }

    /// The source MAC of the answer to a ping that is written to the TAP under `source`: with programs there, its mark.
    fn answered_under(&mut self, source: MacAddr, looks: usize) -> Result<Option<MacAddr>, Failed> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(source.octets(), OWN.octets())
            .ipv4(PEER_ADDRESS.octets(), OWN_ADDRESS.octets(), 64)
            .icmpv4_echo_request(7, 1)
            .write(&mut frame, b"who is it?")?;
        let header = [0; vnet::HEADER_LEN];
        self.tap
            .send(&[IoSlice::new(&header), IoSlice::new(&frame)])?;
        let is_answer = |frame: &[u8]| {
            let packet = SlicedPacket::from_ethernet(frame).ok()?;
            let (Some(NetSlice::Ipv4(_)), Some(TransportSlice::Icmpv4(icmp))) =
                (packet.net, packet.transport)
            else {
                return None;
            };
            matches!(icmp.icmp_type(), Icmpv4Type::EchoReply(_))
                .then(|| Frame::new_checked(frame).map(Frame::source))
                .flatten()
        };
        self.read(looks, is_answer)
    }

    /// Reads until `wanted` makes something of a frame.
    fn read<T>(
        &mut self,
        looks: usize,
        wanted: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, Failed> {
        let mut packet = vec![0; 70_000];
        for _ in 0..looks {
            match self.tap.recv(&mut packet) {
                Ok(len) => {
                    if let Some(found) = wanted(&packet[vnet::HEADER_LEN..len]) {
                        return Ok(Some(found));
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    thread::sleep(PAUSE);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Marks go out and come in.
    fn carries_marks(&mut self) -> Outcome {
        for mark in [3, 0x0048_abcd, 0xffff_0000, u32::MAX] {
            let tag = mark_tag::emit(Mark(mark));
            same(self.sent_under(mark)?, tag, "sent")?;
            same(self.answered_under(tag, LOOKS)?, Some(tag), "answered")?;
        }
        self.sends_unmarked()?;
        same(self.answered_under(PEER, LOOKS)?, Some(OWN), "answered")
    }

    fn sends_unmarked(&mut self) -> Outcome {
        same(self.sent_under(0)?, OWN, "sent without a mark")
    }

    /// Neither.
    fn carries_nothing(&mut self) -> Outcome {
        same(self.sent_under(3)?, OWN, "sent")?;
        let tag = mark_tag::emit(Mark(3));
        same(self.answered_under(tag, LOOKS)?, Some(OWN), "answered")
    }
}

fn carry(hook: Hook) -> Outcome {
    let mut host = Host::new()?;
    host.carries_nothing()?;
    let mut programs = host.attach(Some(hook))?;
    same(programs.hook(), hook, "hook")?;
    host.carries_marks()?;
    holds(host.are_attached(&mut programs)?, "they are attached")?;
    // As a daemon that was killed leaves them.
    drop(programs);
    host.carries_marks()?;
    let mut next = host.attach(Some(hook))?;
    host.carries_marks()?;
    holds(host.are_attached(&mut next)?, "the next daemon's are")?;
    let removed = host.run(|| remove_mark_programs(host.index, NAME))??;
    holds(removed, "there was something to remove")?;
    holds(!host.are_attached(&mut next)?, "they are gone")?;
    host.carries_nothing()?;
    let removed = host.run(|| remove_mark_programs(host.index, NAME))??;
    holds(!removed, "nothing is left to remove")?;
    host.run(|| next.attach_again())??;
    host.carries_marks()
}

pub(crate) fn tcx_programs_carry_marks_and_are_found_again() -> Outcome {
    carry(Hook::Tcx)
}

pub(crate) fn clsact_filters_carry_marks_and_are_found_again() -> Outcome {
    carry(Hook::Clsact)
}

pub(crate) fn a_program_detached_by_others_is_missed() -> Outcome {
    for (hook, side) in [
        (Hook::Tcx, Side::Ingress),
        (Hook::Tcx, Side::Egress),
        (Hook::Clsact, Side::Egress),
    ] {
        let mut host = Host::new()?;
        let mut programs = host.attach(Some(hook))?;
        match hook {
            Hook::Tcx => host.run(|| {
                let id = tcx::attached(host.index, side)?[0];
                tcx::detach(host.index, side, tcx::program(id)?)
            })??,
            Hook::Clsact => {
                let deleted = host.ns.exec(&format!("tc filter del dev {NAME} egress"))?;
                holds(deleted.status.success(), format_args!("{deleted:?}"))?;
            }
        }
        holds(!host.are_attached(&mut programs)?, "it is missed")?;
        host.run(|| programs.attach_again())??;
        holds(host.are_attached(&mut programs)?, "it is there again")?;
        host.carries_marks()?;
    }
    Ok(())
}

/// The one hook's programs would run beside the other's.
pub(crate) fn programs_on_the_other_hook_are_removed() -> Outcome {
    let mut host = Host::new()?;
    for hook in [Hook::Clsact, Hook::Tcx, Hook::Clsact] {
        let mut programs = host.attach(Some(hook))?;
        holds(host.are_attached(&mut programs)?, "attached")?;
        host.carries_marks()?;
    }
    same(host.names(Side::Egress)?, vec![], "programs of tcx")
}

/// One of others', which drops all, is behind ours: it runs, and is neither replaced nor removed.
pub(crate) fn programs_of_others_run_and_stay() -> Outcome {
    let mut host = Host::new()?;
    let mut code = Assembler::new();
    code.mov(Register::R0, SHOT);
    code.exit();
    let others = load(ProgramType::SchedCls, "others", &code.finish())?;
    host.run(|| tcx::attach(host.index, Side::Ingress, &others, None))??;
    let dropped = host.answered_under(PEER, LOOKS_IN_VAIN)?;
    same(dropped, None, "answered before")?;

    let mut programs = host.attach(None)?;
    same(programs.hook(), Hook::Tcx, "hook")?;
    let both = || vec!["silk_marks_in".to_owned(), "others".to_owned()];
    same(host.names(Side::Ingress)?, both(), "programs")?;
    let dropped = host.answered_under(PEER, LOOKS_IN_VAIN)?;
    same(dropped, None, "answered beside ours")?;
    host.run(|| programs.attach_again())??;
    let _next = host.attach(None)?;
    same(
        host.names(Side::Ingress)?,
        both(),
        "programs after the next",
    )?;
    host.run(|| remove_mark_programs(host.index, NAME))??;
    same(
        host.names(Side::Ingress)?,
        vec!["others".to_owned()],
        "left",
    )?;

    host.run(|| tcx::detach(host.index, Side::Ingress, &others))??;
    let _again = host.attach(None)?;
    host.carries_marks()
}

/// A program of others that ends the chain before ours is told, and the next daemon's is first again.
pub(crate) fn programs_of_others_before_ours_are_told() -> Outcome {
    const OK: i32 = 0;
    let mut code = Assembler::new();
    code.mov(Register::R0, OK);
    code.exit();
    let others = load(ProgramType::SchedCls, "others", &code.finish())?;
    let mut host = Host::new()?;
    let mut programs = host.attach(None)?;
    let none = || Standing::Attached { ahead: Vec::new() };
    same(host.run(|| programs.standing())??, none(), "alone")?;
    for side in Side::ALL {
        host.run(|| tcx::attach(host.index, side, &others, None))??;
        let id = tcx::info(&others)?.id;
        let ahead = vec![Ahead {
            side,
            runs: Runs::Program(id),
        }];
        let told = ahead[0].to_string();
        holds(told.contains(&format!("{id} (others) on the way")), &told)?;
        same(
            host.run(|| programs.standing())??,
            Standing::Attached { ahead },
            "behind",
        )?;
        match side {
            Side::Egress => same(host.sent_under(3)?, OWN, "sent")?,
            Side::Ingress => {
                let tag = mark_tag::emit(Mark(3));
                same(host.answered_under(tag, LOOKS)?, Some(OWN), "answered")?;
            }
        }
        programs = host.attach(None)?;
        same(host.run(|| programs.standing())??, none(), "first again")?;
        host.carries_marks()?;
        host.run(|| tcx::detach(host.index, side, &others))??;
    }
    Ok(())
}

/// The same of filters: those of a lower priority, and all of tcx.
pub(crate) fn filters_of_others_before_ours_are_told() -> Outcome {
    let mut code = Assembler::new();
    code.mov(Register::R0, -1);
    code.exit();
    let others = load(ProgramType::SchedCls, "others", &code.finish())?;
    let host = Host::new()?;
    let mut programs = host.attach(Some(Hook::Clsact))?;
    let mut ahead = || match host.run(|| programs.standing())?? {
        Standing::Attached { ahead } => Ok::<_, Failed>(ahead),
        Standing::Detached => Err("detached".into()),
    };
    same(ahead()?.len(), 0, "alone")?;
    host.run(|| tcx::attach(host.index, Side::Egress, &others, None))??;
    same(ahead()?.len(), 1, "behind one of tcx")?;
    host.run(|| tcx::detach(host.index, Side::Egress, &others))??;
    // Ours is before all that there were; those behind it are nobody's trouble, nor those of another chain.
    let add = |words: &str| {
        host.ns
            .exec(&format!("tc filter add dev {NAME} egress {words}"))
    };
    let matches = "protocol ip u32 match u32 0 0";
    for place in ["pref 60000", "pref 1 chain 7"] {
        let words = format!("{place} {matches}");
        holds(add(&words)?.status.success(), words)?;
    }
    same(ahead()?.len(), 0, "before others")?;
    let words = format!("pref 2 {matches}");
    holds(add(&words)?.status.success(), words)?;
    let told: Vec<_> = ahead()?.iter().map(ToString::to_string).collect();
    let expected = vec!["u32 filter (pref 2) on the way out".to_owned()];
    same(told, expected, "behind one that is no program")
}

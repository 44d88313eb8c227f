//! The programs that carry `skb->mark` over the VTEP's TAP ([`bpf::marks`](crate::bpf::marks)): attached, watched, replaced, removed.
//!
//! They are attached to the device, by tcx where the kernel has it and as filters of a `clsact` qdisc otherwise, and not held by a
//! descriptor of ours: a daemon that is killed leaves them on its TAP, where the next one finds them by their names and puts its own in
//! their place. Programs of others are neither replaced nor removed. Ours run before them: many end the chain.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::clsact::Filter;
use super::socket::Netlink;
use crate::bpf::express::Maps;
use crate::bpf::marks;
use crate::error::{SetupError, errno};
use crate::io::not_loaded;
use crate::sys;
use crate::sys::bpf::ProgramType;
use crate::sys::tcx::{self, Side};
use crate::wire::MacAddr;

const OPERATION: &str = "carry marks over";

/// What programs on a device hang on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// The device itself, since Linux 6.6.
    Tcx,
    /// Filters of a `clsact` qdisc.
    Clsact,
}

impl Hook {
    /// As it is shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::Tcx => Self::Clsact,
            Self::Clsact => Self::Tcx,
        }
    }
}

/// How our programs stand on their device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// One is missing: others detached it.
    Detached,
    /// Both are there, behind these of others. What one of them ends the chain for, ours do not see.
    Attached {
        /// In the order they run, those of the way in first.
        ahead: Vec<Ahead>,
    },
}

/// What of others' runs before ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// Where.
    pub side: Side,
    /// What.
    pub runs: Runs,
}

/// What runs on one side of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runs {
    /// The program with this number.
    Program(u32),
    /// A filter without a program, or one of the old BPF machine.
    Filter {
        /// `flower`, `matchall` and so on.
        kind: String,
        /// As `tc filter show` has it (`pref`).
        priority: u32,
    },
}

impl fmt::Display for Ahead {
    /// A program's name is told to who has CAP_SYS_ADMIN.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self.side {
            Side::Ingress => "in",
            Side::Egress => "out",
        };
        match &self.runs {
            Runs::Program(id) => {
                write!(f, "program {id}")?;
                if let Ok(info) = tcx::program(*id).and_then(tcx::info) {
                    write!(f, " ({})", info.name)?;
                }
            }
            Runs::Filter { kind, priority } => write!(f, "{kind} filter (pref {priority})")?,
        }
        write!(f, " on the way {way}")
    }
}

impl From<Filter> for Runs {
    fn from(filter: Filter) -> Self {
        let priority = filter.priority();
        match filter.program {
            Some(id) => Self::Program(id),
            None => Self::Filter {
                kind: filter.kind,
                priority,
            },
        }
    }
}

/// Our two programs on one device of the calling thread's network namespace, where bpf(2) looks for it: all methods are to be called
/// there. They stay on the device when this is dropped.
#[derive(Debug)]
pub struct MarkPrograms {
    device: TapSides,
    hook: Hook,
    programs: [Program; 2],
}

/// One loaded program.
#[derive(Debug)]
struct Program {
    side: Side,
    fd: OwnedFd,
    id: u32,
}

impl MarkPrograms {
    /// Loads both programs and attaches them to the TAP `name` with number `interface` and the MAC `mac`: to the best hook the kernel
    /// has, or to `hook`. With maps the [express path](crate::bpf::express) begins at the one on the way out. Those that an earlier daemon left there are replaced.
    ///
    /// # Errors
    /// Which step failed and what mends it; a program may then be there on one side, which carries nothing until a lane is told to use
    /// it.
    pub fn attach(
        interface: u32,
        name: &str,
        mac: MacAddr,
        express: Option<Maps>,
        hook: Option<Hook>,
    ) -> Result<Self, SetupError> {
        let mut device = TapSides::open(interface, name)?;
        let programs = [
            device.load(Side::Ingress, &marks::ingress())?,
            device.load(Side::Egress, &marks::egress(mac, express))?,
        ];
        let hook = hook.map_or_else(|| device.best_hook(), Ok)?;
        for program in &programs {
            device.put(program, hook)?;
        }
        // Those would run as well.
        device.remove_ours(hook.other())?;
        Ok(Self {
            device,
            hook,
            programs,
        })
    }

    /// What they hang on.
    #[must_use]
    pub fn hook(&self) -> Hook {
        self.hook
    }

    /// Whether both are attached still, and behind what.
    ///
    /// # Errors
    /// The device is gone.
    pub fn standing(&mut self) -> Result<Standing, SetupError> {
        let mut ahead = Vec::new();
        for &Program { side, id, .. } in &self.programs {
            let mut order = self.device.order(side, self.hook)?;
            let ours = Runs::Program(id);
            let Some(place) = order.iter().position(|other| *other == ours) else {
                return Ok(Standing::Detached);
            };
            order.truncate(place);
            ahead.extend(order.into_iter().map(|runs| Ahead { side, runs }));
        }
        Ok(Standing::Attached { ahead })
    }

    /// Attaches again what others detached.
    ///
    /// # Errors
    /// Which step failed and what mends it.
    pub fn attach_again(&mut self) -> Result<(), SetupError> {
        for program in &self.programs {
            self.device.put(program, self.hook)?;
        }
        Ok(())
    }
}

/// Removes what an earlier daemon left on the TAP `name` with number `interface` of the calling thread's network namespace; true if there
/// was something.
///
/// # Errors
/// Which step failed and what mends it.
pub fn remove_mark_programs(interface: u32, name: &str) -> Result<bool, SetupError> {
    let mut device = TapSides::open(interface, name)?;
    let of_tcx = device.remove_ours(Hook::Tcx)?;
    let of_clsact = device.remove_ours(Hook::Clsact)?;
    Ok(of_tcx || of_clsact)
}

/// Both sides of a TAP.
#[derive(Debug)]
struct TapSides {
    netlink: Netlink,
    interface: u32,
    name: String,
}

impl TapSides {
    fn open(interface: u32, name: &str) -> Result<Self, SetupError> {
        Ok(Self {
            netlink: Netlink::open()?,
            interface,
            name: name.to_owned(),
        })
    }

    fn load(&self, side: Side, program: &[[u8; 8]]) -> Result<Program, SetupError> {
        let fd = sys::bpf::load(ProgramType::SchedCls, program_name(side), program)
            .map_err(|error| not_loaded(OPERATION, &self.name, &error))?;
        let info = tcx::info(&fd).map_err(|error| self.failed("BPF_OBJ_GET_INFO_BY_FD", &error))?;
        Ok(Program {
            side,
            fd,
            id: info.id,
        })
    }

    fn best_hook(&self) -> Result<Hook, SetupError> {
        match tcx::attached(self.interface, Side::Egress) {
            Ok(_) => Ok(Hook::Tcx),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Hook::Clsact),
            Err(error) => Err(self.failed("BPF_PROG_QUERY", &error)),
        }
    }

    /// All that runs on one side until what is of `hook` has, in its order.
    fn order(&mut self, side: Side, hook: Hook) -> Result<Vec<Runs>, SetupError> {
        let of_tcx = match hook {
            Hook::Tcx => self.ids(side)?,
            // Those of tcx run first, where there are any.
            Hook::Clsact => tcx::attached(self.interface, side).unwrap_or_default(),
        };
        let mut order: Vec<_> = of_tcx.into_iter().map(Runs::Program).collect();
        if hook == Hook::Clsact {
            let mut filters = self.filters(side)?;
            filters.sort_by_key(Filter::priority);
            order.extend(filters.into_iter().map(Runs::from));
            // One filter may be told of in many messages.
            order.dedup();
        }
        Ok(order)
    }

    /// The numbers of all programs of tcx on one side, ours and others', in the order they run.
    fn ids(&self, side: Side) -> Result<Vec<u32>, SetupError> {
        tcx::attached(self.interface, side).map_err(|error| self.failed("BPF_PROG_QUERY", &error))
    }

    /// Attaches a program that is not there yet, in the place of what an earlier daemon left.
    fn put(&mut self, program: &Program, hook: Hook) -> Result<(), SetupError> {
        let there = self.order(program.side, hook)?;
        if there.contains(&Runs::Program(program.id)) {
            return Ok(());
        }
        match hook {
            Hook::Tcx => self.put_tcx(program),
            Hook::Clsact => self.put_filter(program),
        }
    }

    fn put_tcx(&mut self, program: &Program) -> Result<(), SetupError> {
        let side = program.side;
        let mut ours = self.ours_of_tcx(side)?;
        let first = self.ids(side)?.first().copied();
        let is_first = |left: &OwnedFd| tcx::info(left).is_ok_and(|info| Some(info.id) == first);
        if !ours.first().is_some_and(is_first) {
            // Ours is to be first, so not where others put theirs before it. No two of ours at once: the one takes the other's tags for
            // forged.
            for left in ours.drain(..) {
                self.detach_tcx(side, &left)?;
            }
        }
        let mut ours = ours.into_iter();
        let replaced = ours.next();
        let replaced = replaced.as_ref().map(AsFd::as_fd);
        tcx::attach(self.interface, side, &program.fd, replaced)
            .map_err(|error| self.failed("BPF_PROG_ATTACH", &error))?;
        ours.try_for_each(|left| self.detach_tcx(side, &left))
    }

    fn put_filter(&mut self, program: &Program) -> Result<(), SetupError> {
        let side = program.side;
        self.netlink
            .ensure_clsact(self.interface)
            .map_err(|error| error.setup_step(OPERATION, &self.name, "add clsact qdisc"))?;
        let mut ours = self.ours_of_clsact(side)?.into_iter();
        let (name, fd) = (program_name(side), program.fd.as_fd());
        let replaced = ours.next();
        self.netlink
            .put_filter(self.interface, side, name, fd, replaced.as_ref())
            .map_err(|error| error.setup_step(OPERATION, &self.name, "add bpf filter"))?;
        ours.try_for_each(|left| self.delete_filter(side, &left).map(drop))
    }

    /// Removes programs of ours; true if there were any. Where there is no such hook there are none.
    fn remove_ours(&mut self, hook: Hook) -> Result<bool, SetupError> {
        let mut found = false;
        for side in Side::ALL {
            match hook {
                Hook::Tcx => {
                    for program in self.ours_of_tcx(side)? {
                        self.detach_tcx(side, &program)?;
                        found = true;
                    }
                }
                Hook::Clsact => {
                    for filter in self.ours_of_clsact(side)? {
                        found |= self.delete_filter(side, &filter)?;
                    }
                }
            }
        }
        Ok(found)
    }

    fn ours_of_tcx(&self, side: Side) -> Result<Vec<OwnedFd>, SetupError> {
        let ids = match tcx::attached(self.interface, side) {
            Ok(ids) => ids,
            // Before Linux 6.6, or without BPF.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(self.failed("BPF_PROG_QUERY", &error)),
        };
        let mut ours = Vec::new();
        for id in ids {
            let told = tcx::program(id).and_then(|fd| Ok((tcx::info(&fd)?, fd)));
            match told {
                Ok((info, fd)) if info.name == program_name(side) => ours.push(fd),
                Ok(_) => {}
                // Gone meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(self.not_told(&error)),
            }
        }
        Ok(ours)
    }

    fn detach_tcx(&self, side: Side, program: &OwnedFd) -> Result<(), SetupError> {
        match tcx::detach(self.interface, side, program) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => {
                Err(self.failed("BPF_PROG_DETACH", &error))
            }
            _ => Ok(()),
        }
    }

    fn ours_of_clsact(&mut self, side: Side) -> Result<Vec<Filter>, SetupError> {
        let mut filters = self.filters(side)?;
        filters.retain(|filter| filter.name.as_deref() == Some(program_name(side)));
        Ok(filters)
    }

    fn filters(&mut self, side: Side) -> Result<Vec<Filter>, SetupError> {
        self.netlink
            .filters(self.interface, side)
            .map_err(|error| error.setup_step(OPERATION, &self.name, "list filters"))
    }

    fn delete_filter(&mut self, side: Side, filter: &Filter) -> Result<bool, SetupError> {
        self.netlink
            .delete_filter(self.interface, side, filter)
            .map_err(|error| error.setup_step(OPERATION, &self.name, "delete bpf filter"))
    }

    fn failed(&self, step: &str, error: &io::Error) -> SetupError {
        let failed = SetupError::new(
            OPERATION,
            self.name.as_str(),
            format_args!("{step}: {}", errno(error)),
        );
        match error.raw_os_error() {
            Some(libc::EPERM) => failed
                .mend("needs CAP_NET_ADMIN and CAP_BPF: run as root, or grant them to the service"),
            Some(libc::ENODEV) => failed.mend("the TAP may just have been deleted"),
            _ => failed,
        }
    }

    /// There are programs, and whose they are is not told to us.
    fn not_told(&self, error: &io::Error) -> SetupError {
        let failed = self.failed("BPF_PROG_GET_FD_BY_ID of a program that is there", error);
        if error.raw_os_error() != Some(libc::EPERM) {
            return failed;
        }
        failed.mend(format!(
            "it may be an earlier daemon's, which to tell needs CAP_SYS_ADMIN; ip link del {} removes it",
            self.name
        ))
    }
}

const fn program_name(side: Side) -> &'static str {
    match side {
        Side::Ingress => marks::INGRESS_NAME,
        Side::Egress => marks::EGRESS_NAME,
    }
}

//! One queue of the kernel's TAP.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::sys::uio::writev;
use nix::unistd::read;

use super::Tap;
use super::probe::takes_super_frames;
use crate::error::{SetupError, errno, shortage};
use crate::sys;
use crate::wire::vnet::GsoType;

/// One queue; a clone is a second handle of the same queue. The device itself is made with the first queue and goes with the last, unless
/// it is persistent.
#[derive(Clone)]
pub struct TapQueue {
    device: Arc<tun::Device>,
    offloads: TapOffloads,
}

/// Which super-frames the TAP gives and takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TapOffloads {
    /// TCP, and frames whose checksum is not finished.
    pub tso: bool,
    /// UDP, since Linux 6.2.
    pub uso: bool,
}

impl TapOffloads {
    fn flags(self) -> libc::c_uint {
        let tso = if self.tso {
            sys::tun::CSUM | sys::tun::TSO
        } else {
            0
        };
        let uso = if self.uso { sys::tun::USO } else { 0 };
        tso | uso
    }

    /// Down from these to none: the first step that the kernel takes. Set in any case, for a device that was there before keeps what
    /// others set.
    fn negotiate(self, fd: impl AsFd) -> io::Result<Self> {
        let without_uso = Self { uso: false, ..self };
        let ladder = [self, without_uso, Self::default()];
        let mut result = Ok(());
        for offloads in ladder {
            result = sys::tun::set_offload(&fd, offloads.flags());
            if result.is_ok() {
                return Ok(offloads);
            }
        }
        result.map(|()| Self::default())
    }
}

impl TapQueue {
    /// Opens a queue of the TAP `name`, not blocking, which is created if it is not there, with those of the offloads `wanted` that
    /// the kernel has.
    ///
    /// # Errors
    /// Which step failed, why, and what mends it.
    pub fn open(name: &str, wanted: TapOffloads) -> Result<Self, SetupError> {
        let failed = |step: &str, error: &io::Error| failed(name, step, error);
        let fd = sys::tun::open().map_err(|e| failed(sys::tun::NODE, &e))?;
        sys::tun::attach(&fd, name).map_err(|e| failed("TUNSETIFF", &e))?;
        let offloads = wanted
            .negotiate(&fd)
            .map_err(|e| failed("TUNSETOFFLOAD", &e))?;
        Self::from_fd(fd, offloads).map_err(|e| failed("set O_NONBLOCK", &e))
    }

    fn from_fd(fd: OwnedFd, offloads: TapOffloads) -> io::Result<Self> {
        let mut configuration = tun::Configuration::default();
        configuration
            .raw_fd(fd.into_raw_fd())
            .close_fd_on_drop(true);
        let device = tun::Device::new(&configuration).map_err(io::Error::other)?;
        device.set_nonblock()?;
        Ok(Self {
            device: Arc::new(device),
            offloads,
        })
    }

    /// Which super-frames it gives and takes.
    #[must_use]
    pub fn offloads(&self) -> TapOffloads {
        self.offloads
    }

    /// Whether the TAP takes super-frames of this type; asked with one that is nobody's.
    pub fn takes_super_frames(&mut self, gso_type: GsoType) -> bool {
        takes_super_frames(self, gso_type)
    }

    /// Has the kernel give no UDP super-frames any more, on any queue.
    ///
    /// # Errors
    /// The device is gone.
    pub fn without_uso(&mut self) -> io::Result<()> {
        self.offloads.uso = false;
        sys::tun::set_offload(self.as_fd(), self.offloads.flags())
    }

    /// Makes the device, called `name`, outlive this process.
    ///
    /// # Errors
    /// The device is gone.
    pub fn persist(&mut self, name: &str) -> Result<(), SetupError> {
        sys::tun::set_persist(self.as_fd(), true)
            .map_err(|error| failed(name, "TUNSETPERSIST", &error))
    }
}

fn failed(name: &str, step: &str, error: &io::Error) -> SetupError {
    SetupError::new("attach", name, format_args!("{step}: {}", errno(error))).mend(mend(error))
}

fn mend(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => "needs CAP_NET_ADMIN: run as root, or grant it to the service",
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            "no tun driver here: modprobe tun, or pass the device node into this container"
        }
        Some(libc::EACCES) => "the device node is not readable and writable for this user",
        Some(libc::EINVAL) => {
            "the name is taken by a tun device of another mode: delete it, or choose another `name`"
        }
        Some(libc::EBUSY) => {
            "the name is taken by another link, or another process holds this TAP: choose another `name`"
        }
        _ => shortage(error),
    }
}

impl Tap for TapQueue {
    fn recv(&mut self, packet: &mut [u8]) -> io::Result<usize> {
        Ok(read(self.as_fd(), packet)?)
    }

    fn send(&mut self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        writev(self.as_fd(), slices)?;
        Ok(())
    }
}

impl AsFd for TapQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        sys::tun::borrow(&self.device)
    }
}

impl AsRawFd for TapQueue {
    fn as_raw_fd(&self) -> RawFd {
        self.device.as_raw_fd()
    }
}

impl std::fmt::Debug for TapQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TapQueue({})", self.device.as_raw_fd())
    }
}

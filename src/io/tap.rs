//! One queue of the kernel's TAP.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};

use super::Tap;
use crate::error::{SetupError, errno};
use crate::sys;

/// One queue. The device itself is made with the first and goes with the last, unless it is persistent.
pub struct TapQueue {
    device: tun::Device,
}

impl TapQueue {
    /// Opens a queue of the TAP `name`, not blocking, which is created if it is not there. Offloads are off: the kernel finishes
    /// checksums and segments before we read.
    ///
    /// # Errors
    /// Which step failed, why, and what mends it.
    pub fn open(name: &str) -> Result<Self, SetupError> {
        let failed = |step: &str, error: &io::Error| {
            SetupError::new("attach", name, format_args!("{step}: {}", errno(error)))
                .mend(mend(error))
        };
        let fd = sys::tun::open().map_err(|e| failed(sys::tun::NODE, &e))?;
        sys::tun::attach(&fd, name).map_err(|e| failed("TUNSETIFF", &e))?;
        sys::tun::set_offload(&fd, 0).map_err(|e| failed("TUNSETOFFLOAD", &e))?;
        Self::from_fd(fd).map_err(|e| failed("set O_NONBLOCK", &e))
    }

    fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let mut configuration = tun::Configuration::default();
        configuration
            .raw_fd(fd.into_raw_fd())
            .close_fd_on_drop(true);
        let device = tun::Device::new(&configuration).map_err(io::Error::other)?;
        device.set_nonblock()?;
        Ok(Self { device })
    }

    /// Makes the device outlive this process.
    ///
    /// # Errors
    /// The device is gone.
    pub fn persist(&mut self) -> Result<(), SetupError> {
        self.device
            .persist()
            .map_err(|error| SetupError::new("make persistent", "the TAP", error))
    }
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
        _ => "",
    }
}

impl Tap for TapQueue {
    fn recv(&mut self, packet: &mut [u8]) -> io::Result<usize> {
        self.device.read(packet)
    }

    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        self.device.write(packet).map(|_| ())
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

//! What words say of the daemon's device beside what they ask.

use std::net::IpAddr;

use crate::control::rows::LinkRow;
use crate::error::SetupError;

/// `dev NAME` and `src ADDRESS`: a daemon has one device and one address of each family, so these choose nothing and may only be true,
/// which the daemon alone knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Premises {
    /// The device's name.
    pub device: Option<String>,
    /// The source address of a route.
    pub source: Option<IpAddr>,
}

impl Premises {
    /// True if the words said nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Holds them against the device.
    ///
    /// # Errors
    /// The first that is not so.
    pub fn check(&self, link: &LinkRow) -> Result<(), SetupError> {
        let device = self.device.as_ref();
        if let Some(device) = device.filter(|device| **device != link.ifname) {
            let cause = format!("the daemon that was asked has {}", link.ifname);
            return Err(SetupError::new("find device", device, cause)
                .mend("leave the name out, or ask another daemon with --name or --socket"));
        }
        let addresses = &link.silk_vtep.addresses;
        match self.source.filter(|source| !addresses.contains(source)) {
            Some(source) => Err(not_ours(source, addresses)),
            None => Ok(()),
        }
    }
}

fn not_ours(source: IpAddr, addresses: &[IpAddr]) -> SetupError {
    let addresses: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
    let cause = format!("the VTEP's address is {}", addresses.join(" and "));
    SetupError::new("use src", source.to_string(), cause).mend("leave `src` out")
}

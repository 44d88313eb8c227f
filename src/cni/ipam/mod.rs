//! Addresses of containers: reserved by the `host-local` plugin where CNI_PATH has it, else here, in the same files.

mod arguments;
mod host_local;
mod pool;
mod reservations;
mod taken;

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::attachment::Attachment;
use super::config::Config;
use super::environment::Environment;
use super::error::CniError;
use crate::netlink::Netlink;
use host_local::HostLocal;
pub(super) use pool::Pool;
pub(super) use reservations::{Owner, Reservations};
pub(super) use taken::Taken;

/// Addresses that host-local is asked for in one ADD. Each that is of no use costs two processes, some milliseconds; it remembers where it
/// was, so that the runtime's next attempt goes on from there.
const HOST_LOCAL_ATTEMPTS: usize = 16;

/// Silk's word for this step.
const STEP: &str = "run ipam plugin";

/// Who reserves, and for what network.
#[derive(Debug)]
pub(super) struct Ipam<'a> {
    config: &'a Config,
    environment: &'a Environment,
    /// What is reserved, by whomever.
    pub(super) reservations: Reservations,
    host_local: Option<HostLocal>,
}

impl<'a> Ipam<'a> {
    /// Looks for the plugin.
    pub(super) fn new(config: &'a Config, environment: &'a Environment) -> Self {
        Self {
            config,
            environment,
            reservations: Reservations::of(config),
            host_local: HostLocal::find(&environment.path),
        }
    }

    /// Reserves an address of `pool` for `who`, who has none yet: one that nobody visibly has, reserved or not.
    ///
    /// # Errors
    /// It has one, there is none left, the one asked for cannot be had, or the directory cannot be written. Nothing is reserved then.
    pub(super) fn add(
        &self,
        pool: &Pool,
        who: &Attachment,
        netlink: &mut Netlink,
    ) -> Result<Ipv4Addr, CniError> {
        let mut taken = Taken::new(netlink);
        if let Some(host_local) = &self.host_local {
            // It would give a second address that is asked for.
            self.reservations.check_none(who)?;
            return self.delegate(host_local, pool, who, &mut taken);
        }
        let mut asked = arguments::ip(&self.environment.args)?
            .into_iter()
            .collect::<Vec<_>>();
        asked.extend(&self.config.ips);
        let asked = one_of(pool, asked).map_err(|error| CniError::step(STEP, error))?;
        self.reservations
            .reserve(pool, who, asked, &mut |address| taken.by(address))
    }

    /// host-local knows its own files alone, and gives an address that is taken without a reservation. It is given back, and another asked
    /// for: host-local goes on behind the last that it gave. One that comes again was asked for by the runtime, or is the only one left.
    fn delegate(
        &self,
        host_local: &HostLocal,
        pool: &Pool,
        who: &Attachment,
        taken: &mut Taken<'_>,
    ) -> Result<Ipv4Addr, CniError> {
        let mut refused = Vec::new();
        let mut said = Vec::new();
        for _ in 0..HOST_LOCAL_ATTEMPTS {
            let address = host_local.add(self.config, pool, || self.reservations.release(who))?;
            let occupant = match taken.by(address) {
                Ok(None) => return Ok(address),
                Ok(Some(occupant)) => occupant,
                Err(error) => return Err(error.and_undone(self.del(who, Some(address)))),
            };
            self.del(who, Some(address))?;
            if refused.contains(&address) {
                break;
            }
            refused.push(address);
            said.push(format!("{address} ({occupant})"));
        }
        let details = format!(
            "host-local gives addresses that are taken without a reservation: {}; they were given back (remove those links, or give this \
             network a `subnet` of its own)",
            said.join(", ")
        );
        Err(CniError::step(STEP, details))
    }

    /// Gives back what is reserved for `who`, `held` if anything; nothing is no error.
    ///
    /// # Errors
    /// A reservation cannot be removed.
    pub(super) fn del(&self, who: &Attachment, held: Option<Ipv4Addr>) -> Result<(), CniError> {
        if let (Some(host_local), Some(address)) = (&self.host_local, held) {
            // It wants to know a range to give back an address, and any will do.
            if let Err(error) = host_local.del(self.config, &Pool::around(address)) {
                super::note(format_args!("host-local DEL: {}", error.text()));
            }
        }
        self.reservations.release(who)
    }

    /// # Errors
    /// Nothing is reserved for `who`.
    pub(super) fn check(&self, who: &Attachment, address: Ipv4Addr) -> Result<(), CniError> {
        let held = self.reservations.addresses(who)?;
        if !held.contains(&address.into()) {
            let details = format!("{address} is not reserved for {who}");
            return Err(CniError::step(STEP, details));
        }
        match &self.host_local {
            Some(host_local) => host_local.check(self.config, &Pool::around(address)),
            None => Ok(()),
        }
    }
}

/// The range that containers get their addresses of: the configuration's, or the cell's.
///
/// # Errors
/// It has no room for a container, or the one is not in the other.
pub(super) fn pool(overlay: IpNet, configured: Option<Ipv4Net>) -> Result<Pool, CniError> {
    let wrong = |details: String| CniError::step("generate ipam config", details);
    let IpNet::V4(overlay) = overlay else {
        return Err(wrong(format!("the cell's subnet {overlay} is not of IPv4")));
    };
    let subnet = match configured {
        Some(configured) if !overlay.contains(&configured) => {
            return Err(CniError::config(format!(
                "`subnet` {configured} is not inside the cell's, {overlay}"
            )));
        }
        Some(configured) => configured,
        None => overlay,
    };
    Pool::new(subnet).map_err(wrong)
}

/// The one address asked for; host-local, too, gives one of a range.
fn one_of(pool: &Pool, mut asked: Vec<IpAddr>) -> Result<Option<Ipv4Addr>, String> {
    asked.dedup();
    let found = asked.iter().position(|address| match address {
        IpAddr::V4(address) => pool.contains(*address),
        IpAddr::V6(_) => false,
    });
    let one = found.map(|place| asked.remove(place));
    if !asked.is_empty() {
        let rest: Vec<_> = asked.iter().map(IpAddr::to_string).collect();
        let rest = rest.join(" ");
        return Err(format!(
            "failed to allocate all requested IPs: {rest} (one of {pool} can be had)"
        ));
    }
    match one {
        Some(IpAddr::V4(address)) => Ok(Some(address)),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_of_the_range_may_be_asked_for() {
        let pool = Pool::new("10.255.1.0/24".parse().expect("right")).expect("it has room");
        let ask = |addresses: &[&str]| {
            let addresses = addresses.iter().map(|text| text.parse().expect("right"));
            one_of(&pool, addresses.collect())
        };
        assert_eq!(ask(&[]), Ok(None));
        assert_eq!(ask(&["10.255.1.9"]), Ok(Some(Ipv4Addr::new(10, 255, 1, 9))));
        assert!(ask(&["10.255.2.9"]).is_err());
        assert!(ask(&["fd00::9"]).is_err());
        let error = ask(&["10.255.1.9", "10.255.1.8"]).expect_err("two");
        assert!(error.contains("IPs: 10.255.1.8 "), "{error}");
    }

    #[test]
    fn the_range_is_of_the_cell_and_has_room() {
        let pool = |overlay: &str, configured: Option<&str>| {
            let configured = configured.map(|text| text.parse().expect("right"));
            let pool = pool(overlay.parse().expect("right"), configured);
            pool.map(|pool| pool.to_string())
                .map_err(|error| error.text())
        };
        assert_eq!(
            pool("10.255.1.0/24", None),
            Ok("10.255.1.1-10.255.1.254".to_owned())
        );
        assert_eq!(
            pool("10.255.1.0/24", Some("10.255.1.128/25")),
            Ok("10.255.1.129-10.255.1.254".to_owned())
        );
        for (overlay, configured, said) in [
            (
                "10.255.1.0/24",
                Some("10.255.2.0/25"),
                "not inside the cell's",
            ),
            ("10.255.1.7/32", None, "the cell's only address"),
            ("10.255.1.6/31", None, "too small"),
            ("10.255.1.7/24", None, "host bits"),
            ("fd00::/64", None, "not of IPv4"),
        ] {
            let error = pool(overlay, configured).expect_err(overlay);
            assert!(error.contains(said), "{error}");
        }
    }
}

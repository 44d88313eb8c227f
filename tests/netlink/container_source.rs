//! A container speaks with its own addresses alone: what the host's end of its link does, judged by who hears it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use libtest_mimic::Failed;
use silk_vtep::netlink::{ContainerLinks, ContainerSpec, Deviation, Namespace, Netlink, container};
use silk_vtep::sys::tcx::{self, Side};

use crate::fixture::{Ns, Outcome, holds, same};

const SUBNET: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x108, 0, 0, 0, 0, 0, 0);
const PORT: u16 = 9000;

/// The containers' IPv4 and IPv6 addresses end alike.
fn v4(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 255, 108, host)
}

fn v6(host: u8) -> Ipv6Addr {
    Ipv6Addr::from_bits(SUBNET.to_bits() | u128::from(host))
}

fn spec(inside: &Ns, host: u8) -> ContainerSpec {
    ContainerSpec {
        address: v4(host),
        address_v6: Some(v6(host)),
        namespace: Namespace::clone(&inside.namespace),
        ifname: "eth0".to_owned(),
        mtu_bytes: 1410,
        gso_max_segs: None,
        alias: None,
    }
}

/// Three containers of a host: one speaks to the second, in its own name and the third's.
struct Three {
    host: Ns,
    speaker: Ns,
    hearer: Ns,
    /// Whose name is borrowed.
    _third: Ns,
}

impl Three {
    fn new() -> Result<Self, Failed> {
        let three = Self {
            host: Ns::new("host")?,
            speaker: Ns::new("ctr")?,
            hearer: Ns::new("ctr")?,
            _third: Ns::new("ctr")?,
        };
        for (inside, host) in [(&three.speaker, 2), (&three.hearer, 3), (&three._third, 4)] {
            three
                .host
                .namespace
                .run(|| container::add(&mut Netlink::open()?, &spec(inside, host)))??;
        }
        three
            .speaker
            .ip(&format!("addr add {}/32 dev eth0", v4(4)))?;
        let borrowed = format!("-6 addr add {}/128 dev eth0 nodad", v6(4));
        three.speaker.ip(&borrowed)?;
        Ok(three)
    }

    /// Whom the second container hears first when the first speaks in these names, one after the other.
    fn heard(&self, to: IpAddr, names: &[IpAddr]) -> Result<IpAddr, Failed> {
        let socket = self
            .hearer
            .namespace
            .run(|| UdpSocket::bind((to, PORT)))??;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        for &name in names {
            self.speaker
                .namespace
                .run(|| UdpSocket::bind((name, 0))?.send_to(b"hello", (to, PORT)))??;
        }
        Ok(socket.recv_from(&mut [0; 16])?.1.ip())
    }

    /// What `container check` finds wrong with the first container.
    fn deviations(&self) -> Result<Vec<Deviation>, Failed> {
        let spec = spec(&self.speaker, 2);
        let links = ContainerLinks::of(spec.address, &spec.ifname);
        Ok(self
            .host
            .namespace
            .run(|| container::check(&spec, &links))??)
    }
}

pub(crate) fn a_container_speaks_with_its_own_addresses_alone() -> Outcome {
    let three = Three::new()?;
    let of_v4 = three.heard(v4(3).into(), &[v4(4).into(), v4(2).into()])?;
    same(of_v4, v4(2).into(), "who is heard over IPv4")?;
    let names = [v6(4).into(), v6(2).into()];
    let of_v6 = three.heard(v6(3).into(), &names)?;
    same(of_v6, v6(2).into(), "who is heard over IPv6")?;
    same(three.deviations()?, vec![], "deviations")?;

    // Nothing else stands in the way.
    let link = container::host_name(v4(2));
    let index = container::host_end(&mut three.host.netlink()?, v4(2))?
        .ok_or("no link")?
        .index;
    three.host.namespace.run(|| {
        for id in tcx::attached(index, Side::Ingress)? {
            tcx::detach(index, Side::Ingress, tcx::program(id)?)?;
        }
        Ok::<_, std::io::Error>(())
    })??;
    let of_v6 = three.heard(v6(3).into(), &names[..1])?;
    same(of_v6, v6(4).into(), "who is heard without the program")?;
    let missing = Deviation::NoSourceProgram { link };
    holds(
        missing.to_string().contains("lacks the program"),
        missing.to_string(),
    )?;
    same(three.deviations()?, vec![missing], "deviations")
}

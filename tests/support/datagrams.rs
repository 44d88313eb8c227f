//! UDP datagrams that tell their number, sent in bursts; what arrives is compared byte for byte.

use std::collections::BTreeMap;
use std::net::UdpSocket;

use nix::sys::socket::{setsockopt, sockopt};

use super::{End, Noise, Result, ensure, receive_one};

/// The largest payload there is.
const PAYLOAD_MAX: usize = u16::MAX as usize;

/// A flow of datagrams. No more are on their way than one burst, so that none is lost for want of room in a queue.
pub(crate) struct Datagrams {
    from: UdpSocket,
    to: UdpSocket,
    sent: u32,
}

impl Datagrams {
    /// Bytes of the number that each begins with: no datagram is shorter.
    pub(crate) const LEN_MIN: usize = 4;

    /// Sockets at both ends.
    pub(crate) fn between(from: End<'_>, to: End<'_>) -> Result<Self> {
        let (from, to) = (from.udp()?, to.udp()?);
        from.connect(to.local_addr()?)?;
        Ok(Self { from, to, sent: 0 })
    }

    /// How many were sent, and arrived, so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.into()
    }

    /// One send for each of `lens`, then waits for all of them.
    pub(crate) fn burst(&mut self, lens: impl IntoIterator<Item = usize>) -> Result {
        let datagrams: BTreeMap<_, _> = lens.into_iter().map(|len| self.next(len)).collect();
        for datagram in datagrams.values() {
            self.from.send(datagram)?;
        }
        self.receive(datagrams)
    }

    /// One send that the host cuts into `count` datagrams of `len` bytes, the last one shorter if it can be (UDP_SEGMENT); then waits for all of them.
    pub(crate) fn super_burst(&mut self, count: usize, len: usize) -> Result {
        let last = Self::LEN_MIN.max(len / 2);
        let lens = (1..count).map(|_| len).chain([last]);
        let datagrams: BTreeMap<_, _> = lens.map(|len| self.next(len)).collect();
        let all: Vec<u8> = datagrams.values().flatten().copied().collect();
        setsockopt(&self.from, sockopt::UdpGsoSegment, &i32::try_from(len)?)?;
        self.from.send(&all)?;
        setsockopt(&self.from, sockopt::UdpGsoSegment, &0)?;
        self.receive(datagrams)
    }

    /// The next number and its datagram.
    fn next(&mut self, len: usize) -> (u32, Vec<u8>) {
        assert!(len >= Self::LEN_MIN, "no room for the number");
        let number = self.sent;
        self.sent += 1;
        let mut datagram = Noise::new(number.into()).bytes(len);
        datagram[..Self::LEN_MIN].copy_from_slice(&number.to_be_bytes());
        (number, datagram)
    }

    /// Wants each of `expected` once, in any order, and nothing else.
    fn receive(&self, mut expected: BTreeMap<u32, Vec<u8>>) -> Result {
        let mut buffer = vec![0; PAYLOAD_MAX];
        while !expected.is_empty() {
            let len = receive_one(&self.to, &mut buffer).map_err(|error| {
                let lost: Vec<_> = expected.iter().map(|(n, sent)| (n, sent.len())).collect();
                format!("{error}; number and length of those lost: {lost:?}")
            })?;
            let received = &buffer[..len];
            let number = received.first_chunk().map(|n| u32::from_be_bytes(*n));
            let sent = number.and_then(|number| expected.remove(&number));
            ensure!(
                sent.is_some(),
                "datagram {number:?} of {len} bytes was not sent, or came twice"
            );
            ensure!(
                sent.as_deref() == Some(received),
                "datagram {number:?} came with other bytes than were sent"
            );
        }
        Ok(())
    }
}

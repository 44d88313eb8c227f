//! One UDP flow in bursts, with replies of the same flow in mid-burst: who overtakes whom?

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use super::{Container, Result, receive_one};

/// Datagrams on their way at the most: enough to keep every queue between the ends busy, and fewer than a TAP queue holds (500).
const WINDOW: u32 = 400;
/// Each so many datagrams the receiver replies.
const REPLY_EACH: u32 = 16;
/// How long nothing arrives until what is missing is taken for lost.
const PATIENCE: Duration = Duration::from_millis(500);

/// How one direction of the flow arrived.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Arrivals {
    /// Datagrams that arrived.
    pub(crate) count: u32,
    /// Those of them that a later one had overtaken, or that had arrived before.
    pub(crate) reordered: u32,
    highest: Option<u32>,
}

impl Arrivals {
    fn note(&mut self, number: u32) {
        self.count += 1;
        if self.highest.is_some_and(|highest| number <= highest) {
            self.reordered += 1;
        }
        self.highest = self.highest.max(Some(number));
    }

    /// The sum of two.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            reordered: self.reordered + other.reordered,
            highest: None,
        }
    }
}

/// Sends `count` numbered datagrams of a fresh flow, as fast as the window allows; the receiver's replies are numbered too.
/// Returns how the datagrams and how the replies arrived.
pub(crate) fn burst_with_replies(
    from: &Container,
    to: &Container,
    count: u32,
) -> Result<(Arrivals, Arrivals)> {
    let (sender, receiver) = (from.udp()?, to.udp()?);
    for socket in [&sender, &receiver] {
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    sender.connect(receiver.local_addr()?)?;
    receiver.connect(sender.local_addr()?)?;
    thread::scope(|scope| {
        let receiving = scope.spawn(|| receive(&receiver, count));
        let replies = send(&sender, count)?;
        let datagrams = receiving.join().map_err(|_| "the receiver panicked")??;
        Ok((datagrams, replies))
    })
}

/// Each reply has its number, and how many datagrams had arrived.
fn send(socket: &UdpSocket, count: u32) -> Result<Arrivals> {
    let (mut replies, mut arrived) = (Arrivals::default(), 0);
    for number in 0..count {
        while number - arrived >= WINDOW {
            let Some([reply, seen]) = next(socket)? else {
                // Lost, on one of the ways: what was sent is not on its way any more.
                arrived = number;
                break;
            };
            replies.note(reply);
            arrived = arrived.max(seen);
        }
        socket.send(&words([number, 0]))?;
    }
    while replies.count < count / REPLY_EACH {
        let Some([reply, _]) = next(socket)? else {
            break;
        };
        replies.note(reply);
    }
    Ok(replies)
}

fn receive(socket: &UdpSocket, count: u32) -> Result<Arrivals> {
    let mut arrivals = Arrivals::default();
    while arrivals.count < count {
        let Some([number, _]) = next(socket)? else {
            break;
        };
        arrivals.note(number);
        if arrivals.count.is_multiple_of(REPLY_EACH) {
            socket.send(&words([arrivals.count / REPLY_EACH, number + 1]))?;
        }
    }
    Ok(arrivals)
}

/// `None` when nothing has arrived for some time.
fn next(socket: &UdpSocket) -> Result<Option<[u32; 2]>> {
    let mut bytes = [0; 8];
    match receive_one(socket, &mut bytes) {
        Ok(_) => {
            let [a, b, c, d, e, f, g, h] = bytes;
            Ok(Some([[a, b, c, d], [e, f, g, h]].map(u32::from_be_bytes)))
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn words([a, b]: [u32; 2]) -> [u8; 8] {
    (u64::from(a) << 32 | u64::from(b)).to_be_bytes()
}

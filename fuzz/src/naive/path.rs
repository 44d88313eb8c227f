//! Paths that carry less than a frame, the naive way.

use std::net::{IpAddr, SocketAddr};

use silk_vtep::DropReason;
use silk_vtep::vtep::Outer;

use super::super::repair::{fold, sum};
use super::{Ip, Naive};

impl Naive {
    /// The largest packet that reaches `destination` whole, if a frame of `len` bytes must get there whole and does not.
    pub fn exceeded(&self, outer: &Outer, destination: &SocketAddr, len: usize) -> Option<u32> {
        if !outer.df && destination.is_ipv4() {
            return None;
        }
        let of_peer = |(peer, _): &&(IpAddr, u32)| *peer == destination.ip();
        let (_, limit) = self.limits.iter().find(of_peer)?;
        (len > 14 + *limit as usize).then_some(*limit)
    }
}

/// Whether routers may cut it: IPv4 without DF, behind no VLAN tag.
pub fn may_be_fragmented(frame: &[u8]) -> bool {
    matches!(Ip::parse(frame), Ok(Some(ip)) if !ip.must_be_whole)
}

/// Why a frame is dropped that does not fit: ICMP has no word for too small an MTU.
pub fn reason(frame: &[u8], limit: u32) -> DropReason {
    let least = match Ip::parse(frame) {
        Ok(Some(ip)) if ip.source.is_ipv4() => 576,
        Ok(Some(_)) => 1280,
        _ => 0,
    };
    if limit < least {
        DropReason::PathBelowMinimum
    } else {
        DropReason::PathMtu
    }
}

/// The packet of a frame cut into fragments of `mtu` bytes at the most (RFC 791 section 3.2); `None` if its header lies, or nothing fits
/// beside it.
pub fn fragments(frame: &[u8], mtu: u32) -> Option<Vec<Vec<u8>>> {
    let (ethernet, packet) = frame.split_at(14);
    let header_len = usize::from(packet[0] & 15) * 4;
    let total_len = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    let is_honest = packet[0] >> 4 == 4 && header_len >= 20 && total_len >= header_len;
    if !is_honest || packet.len() < total_len {
        return None;
    }
    let (header, payload) = packet[..total_len].split_at(header_len);
    let word = u16::from_be_bytes([header[6], header[7]]);
    let first = usize::from(word & 0x1fff) * 8;
    let each = (mtu as usize).checked_sub(header_len)? / 8 * 8;
    if each == 0 || first + payload.len() > 65_535 {
        return None;
    }
    // No payload is one fragment too.
    let starts = (0..payload.len().max(1)).step_by(each);
    let fragments = starts.map(|start| {
        let end = payload.len().min(start + each);
        let more = end < payload.len() || word & 0x2000 != 0;
        let mut header = header.to_vec();
        let word = ((first + start) / 8) as u16 | u16::from(more) << 13;
        header[2..4].copy_from_slice(&((header_len + end - start) as u16).to_be_bytes());
        header[6..8].copy_from_slice(&word.to_be_bytes());
        if start > 0 {
            leave_out_options(&mut header);
        }
        header[10..12].fill(0);
        let checksum = !fold(sum(&header));
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        [ethernet, &header, &payload[start..end]].concat()
    });
    Some(fragments.collect())
}

/// Those that are not copied become no operations.
fn leave_out_options(header: &mut [u8]) {
    let mut at = 20;
    while at < header.len() {
        let len = match header[at] {
            0 => return,
            1 => 1,
            _ if at + 1 < header.len() => usize::from(header[at + 1]),
            _ => return,
        };
        if len == 0 || at + len > header.len() {
            return;
        }
        if header[at] < 0x80 {
            header[at..at + len].fill(1);
        }
        at += len;
    }
}

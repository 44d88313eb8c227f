//! Captures for programs that read them.

use std::fs;
use std::path::Path;

use crate::support::Result;

/// The classic format (draft-ietf-opsawg-pcap), of Ethernet frames.
pub(crate) fn write_pcap(path: &Path, packets: &[Vec<u8>]) -> Result {
    const ETHERNET: u32 = 1;
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 0x4_0000, ETHERNET] {
        file.extend(u32::to_ne_bytes(word));
    }
    for (index, packet) in packets.iter().enumerate() {
        let len = u32::try_from(packet.len())?;
        for word in [u32::try_from(index)?, 0, len, len] {
            file.extend(word.to_ne_bytes());
        }
        file.extend(packet);
    }
    Ok(fs::write(path, file)?)
}

//! A link's offload features: the SIOCETHTOOL ioctl (linux/ethtool.h), on any socket of the link's network namespace.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libc::c_void;

// linux/ethtool.h
const GSTRINGS: u32 = 0x1b;
const GSSET_INFO: u32 = 0x37;
const GFEATURES: u32 = 0x3a;
const SFEATURES: u32 = 0x3b;
/// ETH_SS_FEATURES: the string set that names features.
const SET_FEATURES: u32 = 4;
/// ETH_GSTRING_LEN: one name, zero-filled.
const NAME_LEN: usize = 32;
/// More features than any kernel has (64 in Linux 6.x), and few enough to be a sane answer.
const FEATURES_MAX: usize = 1024;
const BITS: usize = u32::BITS as usize;

/// The names of all features this kernel knows, as `ethtool -k` has them in its long form: `tx-tcp-segmentation`.
/// A feature's number is its place in the list.
///
/// # Errors
/// ENODEV if there is no such link; EINVAL for a name that is none.
pub fn feature_names(socket: impl AsFd, link: &str) -> io::Result<Vec<String>> {
    let count = feature_count(&socket, link)?;
    // struct ethtool_gstrings: cmd, string_set, len, then the names.
    let mut answer = vec![0; 3 + count * (NAME_LEN / size_of::<u32>())];
    answer[..3].copy_from_slice(&[GSTRINGS, SET_FEATURES, count as u32]);
    // SAFETY: ETHTOOL_GSTRINGS writes the header and NAME_LEN bytes for each of the features, whose number the kernel
    // was built with and has just told.
    unsafe { ioctl(socket, link, &mut answer) }?;
    let bytes: Vec<u8> = answer[3..]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    let name = |bytes: &[u8]| match CStr::from_bytes_until_nul(bytes) {
        Ok(name) => name.to_string_lossy().into_owned(),
        Err(_) => String::from_utf8_lossy(bytes).into_owned(),
    };
    Ok(bytes.chunks(NAME_LEN).map(name).collect())
}

/// Whether each feature is on now, by number.
///
/// # Errors
/// As [`feature_names`].
pub fn features(socket: impl AsFd, link: &str) -> io::Result<Vec<bool>> {
    let is_active = |Block { active, .. }| active;
    feature_bits(socket, link, is_active)
}

/// Whether each feature may be switched, by number; `ethtool -k` calls the others fixed.
///
/// # Errors
/// As [`feature_names`].
pub fn changeable_features(socket: impl AsFd, link: &str) -> io::Result<Vec<bool>> {
    let is_changeable = |block: Block| block.available & !block.never_changed;
    feature_bits(socket, link, is_changeable)
}

/// struct ethtool_get_features_block, but for what was asked for: 32 features, a bit each.
struct Block {
    available: u32,
    active: u32,
    never_changed: u32,
}

/// The bit of each feature, by number, in the words that `of_block` makes.
fn feature_bits(
    socket: impl AsFd,
    link: &str,
    of_block: impl Fn(Block) -> u32,
) -> io::Result<Vec<bool>> {
    let count = feature_count(&socket, link)?;
    let blocks = count.div_ceil(BITS);
    // struct ethtool_gfeatures: cmd, size, then available, requested, active, never_changed for each block.
    let mut answer = vec![0; 2 + 4 * blocks];
    answer[..2].copy_from_slice(&[GFEATURES, blocks as u32]);
    // SAFETY: ETHTOOL_GFEATURES writes the header and at most `size` blocks of four words.
    unsafe { ioctl(socket, link, &mut answer) }?;
    let words: Vec<_> = answer[2..]
        .chunks_exact(4)
        .map(|block| {
            of_block(Block {
                available: block[0],
                active: block[2],
                never_changed: block[3],
            })
        })
        .collect();
    let bit = |number: usize| words[number / BITS] >> (number % BITS) & 1 == 1;
    Ok((0..count).map(bit).collect())
}

/// Switches features, given by number, on or off. True if the driver took all of it.
///
/// # Errors
/// As [`feature_names`]; EPERM without CAP_NET_ADMIN; EINVAL for a number that no feature has.
pub fn set_features(socket: impl AsFd, link: &str, changes: &[(usize, bool)]) -> io::Result<bool> {
    let count = feature_count(&socket, link)?;
    let blocks = count.div_ceil(BITS);
    // struct ethtool_sfeatures: cmd, size, then valid and requested for each block.
    let mut request = vec![0; 2 + 2 * blocks];
    request[..2].copy_from_slice(&[SFEATURES, blocks as u32]);
    for &(number, on) in changes {
        if number >= count {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let (block, bit) = (2 + 2 * (number / BITS), 1 << (number % BITS));
        request[block] |= bit;
        request[block + 1] |= if on { bit } else { 0 };
    }
    // SAFETY: ETHTOOL_SFEATURES reads the header and `size` blocks of two words, and writes nothing.
    let refused = unsafe { ioctl(socket, link, &mut request) }?;
    Ok(refused == 0)
}

/// How many features this kernel has names for.
fn feature_count(socket: impl AsFd, link: &str) -> io::Result<usize> {
    // struct ethtool_sset_info: cmd, reserved, a 64-bit mask of sets, then one length for each set asked for.
    let mut answer = [GSSET_INFO, 0, 0, 0, 0];
    let mask = (1_u64 << SET_FEATURES).to_ne_bytes();
    let (low, high) = mask.split_at(4);
    answer[2] = u32::from_ne_bytes([low[0], low[1], low[2], low[3]]);
    answer[3] = u32::from_ne_bytes([high[0], high[1], high[2], high[3]]);
    // SAFETY: ETHTOOL_GSSET_INFO writes the header and one word for the one set asked for.
    unsafe { ioctl(socket, link, &mut answer) }?;
    match answer[4] as usize {
        count if count <= FEATURES_MAX => Ok(count),
        _ => Err(io::Error::from_raw_os_error(libc::EPROTO)),
    }
}

/// SIOCETHTOOL with `command`, an ethtool struct as 32-bit words.
///
/// # Safety
/// `command` must be as long as what the kernel reads and writes for the command in its first word.
unsafe fn ioctl(socket: impl AsFd, link: &str, command: &mut [u32]) -> io::Result<i32> {
    if link.is_empty() || link.len() >= libc::IFNAMSIZ {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: command.as_mut_ptr().cast::<c_void>().cast(),
        },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(link.bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: the ifreq lives through the call, its name ends in a zero byte, and `command` is as the caller promises.
    let result = unsafe {
        libc::ioctl(
            socket.as_fd().as_raw_fd(),
            libc::SIOCETHTOOL as _,
            &raw mut request,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn socket() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0").expect("loopback has a free port")
    }

    #[test]
    fn every_feature_has_a_name_and_a_state() {
        let names = feature_names(socket(), "lo").expect("lo is there");
        let states = features(socket(), "lo").expect("lo is there");
        assert_eq!(names.len(), states.len());
        // Fixed on for loopback in every kernel (drivers/net/loopback.c).
        let loopback = names.iter().position(|name| name == "loopback");
        let loopback = loopback.expect("NETIF_F_LOOPBACK has a name");
        let changeable = changeable_features(socket(), "lo").expect("lo is there");
        assert!(states[loopback] && !changeable[loopback]);
        // In its hw_features.
        let tso = names.iter().position(|name| name == "tx-tcp-segmentation");
        assert!(changeable[tso.expect("NETIF_F_TSO has a name")]);
        assert_eq!(changeable.len(), names.len());
    }

    #[test]
    fn a_link_that_is_not_there_is_an_error() {
        for (link, errno) in [("no-such-link", libc::ENODEV), ("", libc::EINVAL)] {
            let error = feature_names(socket(), link).expect_err("no such link");
            assert_eq!(error.raw_os_error(), Some(errno), "{link:?}");
        }
    }

    #[test]
    fn a_number_no_feature_has_is_refused_before_the_kernel_is_asked() {
        let error = set_features(socket(), "lo", &[(FEATURES_MAX, true)]).expect_err("too large");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}

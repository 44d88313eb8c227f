//! Maps, which programs in the kernel and we both read and write: bpf(2).

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::c_int;

use super::bpf::{NAME_LEN, bpf};

// Commands (`enum bpf_cmd`).
const MAP_CREATE: c_int = 0;
const MAP_LOOKUP_ELEM: c_int = 1;
const MAP_UPDATE_ELEM: c_int = 2;

/// The CPUs the kernel has room for, in the form `0-3,5`: as many values has an entry of a per-CPU map (`num_possible_cpus`).
const POSSIBLE_CPUS: &str = "/sys/devices/system/cpu/possible";

/// To this the kernel rounds up each CPU's value.
const CPU_VALUE_ALIGN: usize = 8;

/// How a map finds its entries (`enum bpf_map_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MapKind {
    /// BPF_MAP_TYPE_ARRAY: keys are indices (`u32`), all there from the beginning, filled with zeros.
    Array = 2,
    /// BPF_MAP_TYPE_PERCPU_ARRAY: the same with one value for each possible CPU.
    PerCpuArray = 6,
    /// BPF_MAP_TYPE_LRU_HASH: any key; of a full one, what was not used for long makes room.
    LruHash = 9,
}

/// A map, and the sizes it was made with: by those the kernel reads and writes our memory.
#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    key_len: usize,
    value_len: usize,
    /// Values of one entry, if that is not one alone.
    cpus: Option<usize>,
}

/// The part of `union bpf_attr` that MAP_CREATE reads; zeros stand for all behind it.
#[repr(C)]
#[derive(Default)]
struct CreateAttributes {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; NAME_LEN],
}

/// The part that the commands of one entry read.
#[repr(C)]
#[derive(Default)]
struct ElementAttributes {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

const _: () = assert!(size_of::<CreateAttributes>() == 44 && size_of::<ElementAttributes>() == 32);

impl Map {
    /// MAP_CREATE: an empty map of keys and values of so many bytes. Closed on exec. It lives as long as the descriptor or a program
    /// that uses it. `name` is what `bpftool` shows.
    ///
    /// # Errors
    /// EPERM without CAP_BPF (or CAP_SYS_ADMIN before Linux 5.8), EINVAL if `kind` takes no such sizes or `name` is longer than 15 bytes
    /// or has others than letters, digits, `_` and `.`, ENOMEM; for a per-CPU map also what reading the number of CPUs gives.
    pub fn create(
        kind: MapKind,
        name: &str,
        key_len: usize,
        value_len: usize,
        entries: u32,
    ) -> io::Result<Self> {
        let mut attributes = CreateAttributes {
            map_type: kind as u32,
            key_size: u32::try_from(key_len).map_err(|_| invalid())?,
            value_size: u32::try_from(value_len).map_err(|_| invalid())?,
            max_entries: entries,
            ..CreateAttributes::default()
        };
        if name.len() >= NAME_LEN {
            return Err(invalid());
        }
        attributes.map_name[..name.len()].copy_from_slice(name.as_bytes());
        let cpus = match kind {
            MapKind::PerCpuArray => Some(possible_cpus()?),
            MapKind::Array | MapKind::LruHash => None,
        };
        // SAFETY: these are MAP_CREATE's attributes; there are no addresses in them.
        let fd = unsafe { bpf(MAP_CREATE, &mut attributes) }?;
        Ok(Self {
            // SAFETY: the kernel has just made the descriptor for us.
            fd: unsafe { OwnedFd::from_raw_fd(fd) },
            key_len,
            value_len,
            cpus,
        })
    }

    /// MAP_UPDATE_ELEM: `key` has `value` from now on; in a per-CPU map, on every CPU.
    ///
    /// # Errors
    /// E2BIG if there is no such index or no room; EINVAL if the lengths are not the map's; ENOMEM.
    pub fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if key.len() != self.key_len || value.len() != self.value_len {
            return Err(invalid());
        }
        let copies: Vec<u8>;
        let values = match self.cpus {
            // As a lane does for each flow: nothing is allocated.
            None => value,
            Some(cpus) => {
                let mut padded = value.to_vec();
                padded.resize(self.stride(), 0);
                copies = padded.repeat(cpus);
                &copies
            }
        };
        let mut attributes = self.element(key, values.as_ptr().expose_provenance());
        // SAFETY: these are MAP_UPDATE_ELEM's attributes; the addresses in them are of a key as long as the map's and of as many bytes as
        // the map has in an entry. Both outlive the call.
        unsafe { bpf(MAP_UPDATE_ELEM, &mut attributes) }.map(drop)
    }

    /// MAP_LOOKUP_ELEM: the value of `key`, if it has one; of a per-CPU map, the first CPU's.
    ///
    /// # Errors
    /// EINVAL if the lengths are not the map's.
    pub fn lookup<const N: usize>(&self, key: &[u8]) -> io::Result<Option<[u8; N]>> {
        let values = self.lookup_per_cpu(key)?;
        Ok(values.and_then(|values| values.first().copied()))
    }

    /// The same, with one value for each possible CPU if the map is per CPU, and one in all if not.
    ///
    /// # Errors
    /// As [`lookup`](Map::lookup).
    pub fn lookup_per_cpu<const N: usize>(&self, key: &[u8]) -> io::Result<Option<Vec<[u8; N]>>> {
        if key.len() != self.key_len || N != self.value_len {
            return Err(invalid());
        }
        let mut values = vec![0; self.entry_len()];
        let mut attributes = self.element(key, values.as_mut_ptr().expose_provenance());
        // SAFETY: these are MAP_LOOKUP_ELEM's attributes; the addresses in them are of a key as long as the map's and of as many bytes as
        // the map has in an entry. Both outlive the call.
        match unsafe { bpf(MAP_LOOKUP_ELEM, &mut attributes) } {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            looked => looked?,
        };
        let each = values.chunks_exact(self.stride());
        let each = each.map(|value| *value.first_chunk().expect("a stride is no shorter"));
        Ok(Some(each.collect()))
    }

    /// `values`: where they are.
    fn element(&self, key: &[u8], values: usize) -> ElementAttributes {
        ElementAttributes {
            map_fd: self.fd.as_raw_fd().cast_unsigned(),
            key: key.as_ptr().expose_provenance() as u64,
            value: values as u64,
            ..ElementAttributes::default()
        }
    }

    /// Bytes that the kernel reads or writes for one entry.
    fn entry_len(&self) -> usize {
        self.stride() * self.cpus.unwrap_or(1)
    }

    /// Bytes from one CPU's value to the next one's.
    fn stride(&self) -> usize {
        match self.cpus {
            Some(_) => self.value_len.next_multiple_of(CPU_VALUE_ALIGN),
            None => self.value_len,
        }
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn invalid() -> io::Error {
    io::Error::from_raw_os_error(libc::EINVAL)
}

fn possible_cpus() -> io::Result<usize> {
    let list = fs::read_to_string(POSSIBLE_CPUS)?;
    count(list.trim()).ok_or_else(|| {
        let said = format!("{POSSIBLE_CPUS}: {list:?} is no list of CPUs");
        io::Error::new(io::ErrorKind::InvalidData, said)
    })
}

/// How many are in a list like `0-3,5`.
fn count(list: &str) -> Option<usize> {
    list.split(',').try_fold(0_usize, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// None where this host lets nobody, or not us, make maps.
    fn map(kind: MapKind, key_len: usize, value_len: usize, entries: u32) -> Option<Map> {
        match Map::create(kind, "silk_test", key_len, value_len, entries) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => None,
            map => Some(map.expect("sizes that the kind takes")),
        }
    }

    #[test]
    fn a_hash_holds_what_was_put_in_last() {
        let Some(map) = map(MapKind::LruHash, 3, 5, 8) else {
            return;
        };
        assert_eq!(map.lookup::<5>(b"one").unwrap(), None);
        map.update(b"one", b"first").unwrap();
        map.update(b"two", b"other").unwrap();
        assert_eq!(map.lookup(b"one").unwrap(), Some(*b"first"));
        map.update(b"one", b"again").unwrap();
        assert_eq!(map.lookup(b"one").unwrap(), Some(*b"again"));
        assert_eq!(map.lookup(b"two").unwrap(), Some(*b"other"));
    }

    #[test]
    fn a_full_hash_makes_room() {
        let Some(map) = map(MapKind::LruHash, 4, 1, 8) else {
            return;
        };
        for key in 0..1000_u32 {
            map.update(&key.to_ne_bytes(), &[1]).unwrap();
        }
        assert_eq!(map.lookup(&999_u32.to_ne_bytes()).unwrap(), Some([1]));
    }

    #[test]
    fn an_array_is_full_of_zeros_from_the_beginning() {
        let Some(map) = map(MapKind::Array, 4, 8, 2) else {
            return;
        };
        let [first, second, third] = [0_u32, 1, 2].map(u32::to_ne_bytes);
        map.update(&second, &7_u64.to_ne_bytes()).unwrap();
        assert_eq!(map.lookup(&first).unwrap(), Some([0; 8]));
        assert_eq!(map.lookup(&second).unwrap(), Some(7_u64.to_ne_bytes()));
        assert_eq!(map.lookup::<8>(&third).unwrap(), None);
        let refused = map.update(&third, &[0; 8]).expect_err("no such index");
        assert_eq!(refused.raw_os_error(), Some(libc::E2BIG));
    }

    #[test]
    fn a_per_cpu_array_has_one_value_for_each_possible_cpu() {
        // Five bytes, so that a value and the next are not one behind the other.
        let Some(map) = map(MapKind::PerCpuArray, 4, 5, 1) else {
            return;
        };
        let key = 0_u32.to_ne_bytes();
        let cpus = possible_cpus().unwrap();
        assert_eq!(map.lookup_per_cpu(&key).unwrap(), Some(vec![[0; 5]; cpus]));
        map.update(&key, b"value").unwrap();
        let values = map.lookup_per_cpu(&key).unwrap();
        assert_eq!(values, Some(vec![*b"value"; cpus]));
        assert_eq!(map.lookup(&key).unwrap(), Some(*b"value"));
    }

    #[test]
    fn lengths_that_are_not_the_maps_never_reach_the_kernel() {
        let Some(map) = map(MapKind::LruHash, 4, 8, 1) else {
            return;
        };
        let refusals = [
            map.update(&[0; 3], &[0; 8]),
            map.update(&[0; 4], &[0; 7]),
            map.lookup::<8>(&[0; 5]).map(drop),
            map.lookup::<7>(&[0; 4]).map(drop),
        ];
        for refusal in refusals {
            let errno = refusal.expect_err("wrong length").raw_os_error();
            assert_eq!(errno, Some(libc::EINVAL));
        }
    }

    #[test]
    fn a_name_too_long_is_refused_before_the_kernel_is_asked() {
        let refused = Map::create(MapKind::Array, "a_name_of_sixteen", 4, 8, 1);
        let errno = refused.expect_err("too long").raw_os_error();
        assert_eq!(errno, Some(libc::EINVAL));
    }

    #[test]
    fn lists_of_cpus_are_counted() {
        for (list, cpus) in [
            ("0", Some(1)),
            ("0-3", Some(4)),
            ("0-3,5,8-9", Some(7)),
            ("", None),
            ("3-0", None),
            ("0-", None),
            ("all", None),
        ] {
            assert_eq!(count(list), cpus, "{list:?}");
        }
    }
}

//! Values by address, each family in a map with keys of its own width: what neighbours, groups and peers have in common.

use std::net::IpAddr;

use rustc_hash::FxHashMap;

use super::Address;

/// A map from addresses to `V`. Only operators choose its keys, so its hash need not resist an attacker.
#[derive(Debug)]
pub(super) struct AddressMap<V> {
    v4: FxHashMap<u32, V>,
    v6: FxHashMap<u128, V>,
}

impl<V> Default for AddressMap<V> {
    fn default() -> Self {
        Self {
            v4: FxHashMap::default(),
            v6: FxHashMap::default(),
        }
    }
}

impl<V> AddressMap<V> {
    #[inline]
    pub(super) fn lookup(&self, address: impl Address) -> Option<&V> {
        address.by_family(|bits| self.v4.get(&bits), |bits| self.v6.get(&bits))
    }

    /// The value of `address`, made by `value` if there is none.
    pub(super) fn or_insert_with(&mut self, address: IpAddr, value: impl FnOnce() -> V) -> &mut V {
        match address {
            IpAddr::V4(address) => self.v4.entry(address.to_bits()).or_insert_with(value),
            IpAddr::V6(address) => self.v6.entry(address.to_bits()).or_insert_with(value),
        }
    }

    /// Removes the values that `keep` refuses.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(IpAddr, &V) -> bool) {
        self.v4
            .retain(|&bits, value| keep(IpAddr::V4(bits.into()), value));
        self.v6
            .retain(|&bits, value| keep(IpAddr::V6(bits.into()), value));
    }

    pub(super) fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }
}

/// Of two values for one address the later wins.
impl<V> FromIterator<(IpAddr, V)> for AddressMap<V> {
    fn from_iter<I: IntoIterator<Item = (IpAddr, V)>>(pairs: I) -> Self {
        let mut map = Self::default();
        for (address, value) in pairs {
            match address {
                IpAddr::V4(address) => map.v4.insert(address.to_bits(), value),
                IpAddr::V6(address) => map.v6.insert(address.to_bits(), value),
            };
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Few enough that they repeat, and the same numbers in both families.
    fn address() -> impl Strategy<Value = IpAddr> {
        (any::<bool>(), 0_u32..16).prop_map(|(v4, n)| match v4 {
            true => IpAddr::V4(n.into()),
            false => IpAddr::V6(u128::from(n).into()),
        })
    }

    proptest! {
        #[test]
        fn answers_as_a_map_of_whole_addresses(pairs in vec((address(), any::<u8>()), 0..40)) {
            let mut map: AddressMap<u8> = pairs.iter().copied().collect();
            let mut model: HashMap<IpAddr, u8> = pairs.iter().copied().collect();
            prop_assert_eq!(map.len(), model.len());
            for n in 0..16 {
                for address in [IpAddr::V4(n.into()), IpAddr::V6(u128::from(n).into())] {
                    prop_assert_eq!(map.lookup(address), model.get(&address));
                }
            }
            map.retain(|address, &value| address.is_ipv4() && value % 2 == 0);
            model.retain(|address, value| address.is_ipv4() && *value % 2 == 0);
            prop_assert_eq!(map.len(), model.len());
            prop_assert!(model.iter().all(|(address, value)| map.lookup(*address) == Some(value)));
        }
    }

    #[test]
    fn makes_a_value_only_where_there_is_none() {
        let mut map = AddressMap::default();
        let address = "fd00::1".parse().unwrap();
        assert_eq!(*map.or_insert_with(address, || 1), 1);
        assert_eq!(*map.or_insert_with(address, || 2), 1);
    }
}

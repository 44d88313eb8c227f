//! The words of one command, taken one after another, and what a single word may be.

use std::collections::VecDeque;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use crate::tables::policy::{Action, Proto};
use crate::wire::{GroupId, MacAddr, Vni};

/// The words that are left. A reader of one word tells, as its error, what it would accept.
pub(super) struct Phrase<'a>(VecDeque<&'a str>);

impl<'a> Phrase<'a> {
    pub(super) fn new(words: Vec<&'a str>) -> Self {
        Self(words.into())
    }

    /// The first word.
    pub(super) fn verb(&mut self) -> Option<&'a str> {
        self.0.pop_front()
    }

    pub(super) fn key<T>(
        &mut self,
        read: fn(&'a str) -> Result<T, &'static str>,
    ) -> Result<T, String> {
        // The reader says what is wanted where there is nothing to read, too.
        let word = self.0.pop_front().unwrap_or_default();
        read(word).map_err(|accepted| match word {
            "" => format!("{accepted} is wanted"),
            _ => format!("`{word}` is not {accepted}"),
        })
    }

    pub(super) fn optional_key<T>(
        &mut self,
        read: fn(&'a str) -> Result<T, &'static str>,
    ) -> Result<Option<T>, String> {
        if self.0.is_empty() {
            Ok(None)
        } else {
            self.key(read).map(Some)
        }
    }

    /// The value after the word `name`, wherever that stands.
    pub(super) fn option<T>(
        &mut self,
        name: &str,
        read: fn(&'a str) -> Result<T, &'static str>,
    ) -> Result<Option<T>, String> {
        let Some(at) = self.0.iter().position(|&word| word == name) else {
            return Ok(None);
        };
        self.0.remove(at);
        // The reader says what is wanted where there is nothing to read, too.
        let word = self.0.remove(at).unwrap_or_default();
        read(word).map(Some).map_err(|accepted| match word {
            "" => format!("`{name}` takes {accepted}, and there is none behind it"),
            _ => format!("`{name}` takes {accepted}, not `{word}`"),
        })
    }

    /// As [`Self::option`], to be asked for after all options: what is left then is no word that is known here.
    pub(super) fn required<T>(
        &mut self,
        name: &str,
        read: fn(&'a str) -> Result<T, &'static str>,
    ) -> Result<T, String> {
        let value = self.option(name, read)?;
        value.ok_or_else(|| match self.0.front() {
            Some(word) => format!("`{name}` is wanted, and `{word}` is not known here"),
            None => format!("`{name}` is wanted"),
        })
    }

    /// True if the word `name` is still there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains(&name)
    }

    /// Takes one of `names`, if one is there.
    pub(super) fn flag(&mut self, names: &[&str]) {
        if let Some(at) = self.0.iter().position(|word| names.contains(word)) {
            self.0.remove(at);
        }
    }

    pub(super) fn finish(self) -> Result<(), String> {
        match self.0.front() {
            Some(&"") => Err("an empty word is one too many".to_owned()),
            Some(word) => Err(format!("`{word}` is one word too many")),
            None => Ok(()),
        }
    }
}

pub(super) fn device(word: &str) -> Result<String, &'static str> {
    Some(word.to_owned())
        .filter(|word| !word.is_empty())
        .ok_or("a device's name")
}

/// The one state that neighbours have.
pub(super) fn permanent(word: &str) -> Result<(), &'static str> {
    match word {
        "permanent" => Ok(()),
        _ => Err("permanent, which every neighbour is"),
    }
}

/// A peer's key, not to be taken for its subnet.
pub(super) fn underlay(word: &str) -> Result<IpAddr, &'static str> {
    word.parse()
        .map_err(|_| "an underlay address such as 10.0.16.14")
}

pub(super) fn address(word: &str) -> Result<IpAddr, &'static str> {
    word.parse().map_err(|_| "an address such as 10.255.43.0")
}

/// As `ip` reads it: `default`, and an address alone for itself.
pub(super) fn prefix(word: &str) -> Result<IpNet, &'static str> {
    let default = || Ipv4Net::default().into();
    destination(word).map(|prefix| prefix.unwrap_or_else(default))
}

/// As [`prefix`], where other words tell the family of `default`, which is `None`.
pub(super) fn destination(word: &str) -> Result<Option<IpNet>, &'static str> {
    match word {
        "default" => Ok(None),
        _ => net(word).map(Some).ok_or("a prefix such as 10.255.43.0/24"),
    }
}

pub(super) fn subnets(word: &str) -> Result<Vec<IpNet>, &'static str> {
    let subnets = word.split(',').map(net).collect::<Option<Vec<_>>>();
    subnets.ok_or("a subnet such as 10.255.43.0/24, or one of each family with a comma between")
}

fn net(word: &str) -> Option<IpNet> {
    word.parse()
        .ok()
        .or_else(|| word.parse::<IpAddr>().ok().map(IpNet::from))
}

pub(super) fn mac(word: &str) -> Result<MacAddr, &'static str> {
    word.parse().map_err(|_| "a MAC such as ee:ee:0a:ff:2b:00")
}

pub(super) fn port(word: &str) -> Result<u16, &'static str> {
    let port = word.parse().ok().filter(|&port| port > 0);
    port.ok_or("a UDP port of 1 to 65535")
}

pub(super) fn mtu(word: &str) -> Result<u32, &'static str> {
    word.parse().map_err(|_| "an MTU in bytes")
}

pub(super) fn vni(word: &str) -> Result<Vni, &'static str> {
    let number = word.parse().map_err(|_| "a VNI of 0 to 16777215")?;
    Vni::new(number).map_err(|_| "a VNI of 0 to 16777215")
}

pub(super) fn group_id(word: &str) -> Result<GroupId, &'static str> {
    let number = match word.strip_prefix("0x") {
        Some(digits) => u16::from_str_radix(digits, 16),
        None => word.parse(),
    };
    let number = number.ok().filter(|&number| number > 0);
    number.map(GroupId).ok_or("a group id of 0x0001 to 0xffff")
}

pub(super) fn proto(word: &str) -> Result<Proto, &'static str> {
    Proto::of_name(word).ok_or("tcp, udp or icmp")
}

pub(super) fn action(word: &str) -> Result<Action, &'static str> {
    match word {
        "accept" => Ok(Action::Accept),
        "deny" => Ok(Action::Deny),
        _ => Err("accept or deny"),
    }
}

/// A word to be read later.
pub(super) fn text(word: &str) -> Result<&str, &'static str> {
    Ok(word)
}

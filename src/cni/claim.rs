//! Whose a container's link is, as the link itself says it: the alias of the host's end, which the kernel keeps as long as the link.
//!
//! ```text
//! silk-vtep cni silk/4f1c/eth0     network, container id and link: this plugin's
//! silk-vtep container              `silk-vtep container add`'s
//! ```
//!
//! It outlives every file and the daemon. Links of silk-cni and of iproute2 say nothing, and nor does one whose names are too long together: whose
//! those are the disk alone knows.

use super::attachment::Attachment;
use crate::netlink::container::ALIAS_BYTES_MAX;

/// What `silk-vtep container add` says of its links.
pub const BY_HAND: &str = "silk-vtep container";

const PREFIX: &str = "silk-vtep cni ";
/// In none of the three words.
const BETWEEN: char = '/';

/// What a link says of whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// Of the attachment in question.
    Ours,
    /// Of another, or wired by hand.
    Anothers,
    /// Nothing.
    Unsaid,
}

/// The alias of the host's end of `who`'s link; `None` if it would be too long.
pub(super) fn alias_of(who: &Attachment) -> Option<String> {
    let Attachment {
        network,
        container_id,
        ifname,
    } = who;
    let alias = format!("{PREFIX}{network}{BETWEEN}{container_id}{BETWEEN}{ifname}");
    Some(alias).filter(|alias| alias.len() <= ALIAS_BYTES_MAX)
}

/// Whose link has `alias`, if it is one of ours.
pub(super) fn said_by(alias: &str) -> Option<Attachment> {
    let words: Vec<_> = alias.strip_prefix(PREFIX)?.split(BETWEEN).collect();
    match words[..] {
        [network, container_id, ifname] => Some(Attachment {
            network: network.to_owned(),
            container_id: container_id.to_owned(),
            ifname: ifname.to_owned(),
        }),
        _ => None,
    }
}

impl Claim {
    /// What `alias` says about `who`. An empty link name, as of an older host-local's reservation, stands for every link.
    pub(super) fn of(alias: Option<&str>, who: &Attachment) -> Self {
        let alias = alias.unwrap_or_default();
        if alias != BY_HAND && !alias.starts_with(PREFIX) {
            return Self::Unsaid;
        }
        match said_by(alias) {
            Some(said)
                if said.network == who.network
                    && said.container_id == who.container_id
                    && (said.ifname == who.ifname || who.ifname.is_empty()) =>
            {
                Self::Ours
            }
            Some(_) | None => Self::Anothers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(id: &str, ifname: &str) -> Attachment {
        Attachment {
            network: "silk".to_owned(),
            container_id: id.to_owned(),
            ifname: ifname.to_owned(),
        }
    }

    #[test]
    fn a_link_says_whose_it_is() {
        let web = who("web", "eth0");
        let alias = alias_of(&web).expect("it is short");
        assert_eq!(alias, "silk-vtep cni silk/web/eth0");
        assert_eq!(said_by(&alias), Some(web.clone()));
        let other = Attachment {
            network: "other".to_owned(),
            ..web.clone()
        };
        for (who, claim) in [
            (&web, Claim::Ours),
            (&who("web", ""), Claim::Ours),
            (&who("web", "eth1"), Claim::Anothers),
            (&who("we", "eth0"), Claim::Anothers),
            (&other, Claim::Anothers),
        ] {
            assert_eq!(Claim::of(Some(&alias), who), claim, "{who}");
        }
    }

    #[test]
    fn what_is_none_of_our_words_says_nothing() {
        let web = who("web", "eth0");
        for (alias, claim) in [
            (None, Claim::Unsaid),
            (Some(""), Claim::Unsaid),
            (Some("uplink of the web server"), Claim::Unsaid),
            (Some(BY_HAND), Claim::Anothers),
            (Some("silk-vtep cni web"), Claim::Anothers),
        ] {
            assert_eq!(Claim::of(alias, &web), claim, "{alias:?}");
            assert_eq!(alias.and_then(said_by), None, "{alias:?}");
        }
    }

    #[test]
    fn names_too_long_for_an_alias_are_not_cut() {
        let fits = ALIAS_BYTES_MAX - "silk-vtep cni silk//eth0".len();
        assert!(alias_of(&who(&"x".repeat(fits), "eth0")).is_some());
        assert_eq!(alias_of(&who(&"x".repeat(fits + 1), "eth0")), None);
    }
}

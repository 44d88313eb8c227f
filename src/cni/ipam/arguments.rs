//! CNI_ARGS as host-local reads it: `IgnoreUnknown=1;IP=10.255.1.9`.

use std::net::IpAddr;

use crate::cni::error::CniError;

/// The address asked for.
///
/// # Errors
/// What is no pair, or no address; and any other key, unless they are to be ignored.
pub(super) fn ip(arguments: &str) -> Result<Option<IpAddr>, CniError> {
    let wrong = |what: String| CniError::environment(format!("invalid CNI_ARGS: {what}"));
    let (mut address, mut ignore, mut unknown) = (None, false, None);
    for pair in arguments.split(';').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("IP", text)) => match text.parse() {
                Ok(parsed) => address = Some(parsed),
                Err(_) => return Err(wrong(format!("IP=`{text}` is no IP address"))),
            },
            Some(("IgnoreUnknown", value)) => {
                ignore = ["1", "t", "T", "true", "TRUE", "True"].contains(&value)
            }
            Some((key, _)) => unknown = Some(key),
            None => return Err(wrong(format!("`{pair}` is no KEY=VALUE"))),
        }
    }
    match unknown.filter(|_| !ignore) {
        Some(key) => Err(wrong(format!(
            "unknown key {key} (accepted: IP; others with IgnoreUnknown=1)"
        ))),
        None => Ok(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_among_what_is_ignored() {
        let asked = Some([10, 255, 1, 9].into());
        for (arguments, address) in [
            ("", None),
            ("IP=10.255.1.9", asked),
            ("IgnoreUnknown=1;K8S_POD_NAME=web;IP=10.255.1.9", asked),
            ("K8S_POD_NAME=web;IgnoreUnknown=true", None),
        ] {
            assert_eq!(ip(arguments), Ok(address), "{arguments}");
        }
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for arguments in ["IP", "IP=", "IP=web", "FOO=1", "IgnoreUnknown=0;FOO=1"] {
            assert!(ip(arguments).is_err(), "{arguments}");
        }
    }
}

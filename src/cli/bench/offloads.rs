//! A link's offloads, switched and looked at again: what `ethtool -K` does.

use std::net::UdpSocket;

use crate::error::{SetupError, errno};
use crate::netlink::Namespace;
use crate::sys::ethtool;

/// Switches the features of `link` in `namespace` on or off, by the names of `ethtool -k` in its long form.
///
/// # Errors
/// If the kernel lacks one of them or does not switch it.
pub(super) fn set(
    namespace: &Namespace,
    link: &str,
    features: &[(&str, bool)],
) -> Result<(), SetupError> {
    let operation = format!("set offloads of {link} in");
    let failed = |cause: String| SetupError::new(&operation, namespace.label(), cause);
    namespace.run(|| switch(link, features))?.map_err(failed)
}

/// In the calling thread's namespace.
fn switch(link: &str, features: &[(&str, bool)]) -> Result<(), String> {
    let named = |call: &str, error: &std::io::Error| format!("{call}: {}", errno(error));
    // Any socket will do: what counts is its namespace.
    let socket = UdpSocket::bind("127.0.0.1:0").map_err(|error| named("socket", &error))?;
    let names =
        ethtool::feature_names(&socket, link).map_err(|error| named("ETHTOOL_GSTRINGS", &error))?;
    let number = |&(wanted, on): &(&str, bool)| {
        let number = names.iter().position(|name| name == wanted);
        number
            .map(|number| (number, on))
            .ok_or_else(|| format!("this kernel has no `{wanted}`"))
    };
    let changes = features.iter().map(number).collect::<Result<Vec<_>, _>>()?;
    ethtool::set_features(&socket, link, &changes)
        .map_err(|error| named("ETHTOOL_SFEATURES", &error))?;
    // The driver may want otherwise: look.
    let now =
        ethtool::features(&socket, link).map_err(|error| named("ETHTOOL_GFEATURES", &error))?;
    match changes
        .iter()
        .find(|(number, on)| now.get(*number) != Some(on))
    {
        None => Ok(()),
        Some((number, on)) => Err(format!(
            "`{}` is not {}",
            names[*number],
            if *on { "on" } else { "off" }
        )),
    }
}

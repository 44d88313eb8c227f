//! The configuration file.

use std::net::IpAddr;
use std::sync::Arc;

use silk_vtep::control::{Config, Directory, Origin};
use silk_vtep::tables::{CounterRegistry, Tables};

/// Errors come in the order of their lines, each on one line, and name lines that exist. What is accepted the directory takes whole,
/// and every peer of it is where the file says.
pub fn target(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match Config::parse(text) {
        Ok(config) => check_config(text, &config),
        Err(errors) => {
            assert!(!errors.0.is_empty());
            assert!(errors.0.is_sorted_by_key(|error| error.line));
            let lines = text.matches('\n').count() + 1;
            for error in &errors.0 {
                assert!(error.line.is_none_or(|line| (1..=lines).contains(&line)));
                assert!(!error.message.is_empty());
                assert_eq!(error.to_string().lines().count(), 1, "{error}");
            }
        }
    }
}

fn check_config(text: &str, config: &Config) {
    assert_eq!(Config::parse(text).as_ref(), Ok(config));
    let mut directory = Directory::new(&config.vtep);
    assert_eq!(directory.misfits(config), []);
    let (_, refused) = directory.reload(config);
    assert_eq!(refused, []);
    let given = directory.of_origin(Origin::Config).count();
    assert_eq!(given, config.peers.len() + config.groups.len());
    let spec = directory.spec();
    let tables = Tables::compile(
        Arc::new(config.local()),
        &spec,
        &mut CounterRegistry::new(1),
    );
    for peer in &config.peers {
        for subnet in &peer.subnets {
            let resolved = tables
                .resolve(subnet.addr())
                .expect("a peer has all three entries");
            let to: Vec<IpAddr> = resolved
                .destinations
                .iter()
                .map(|to| to.underlay.ip())
                .collect();
            assert_eq!((resolved.mac, &to[..]), (peer.mac, &[peer.underlay][..]));
        }
    }
    for group in &config.groups {
        assert_eq!(tables.groups.lookup(group.address), Some(group.id));
    }
}

//! Configurations, and lines for the control socket.

use super::Seed;

const README: &str = r#"[vtep]
local = "10.0.32.12"                # this host on the underlay
address = "10.255.108.0"            # this VTEP on the overlay; its containers are in the same /24
overlay = ["10.255.0.0/16"]

[[peer]]
subnet = "10.255.43.0/24"           # B's containers
underlay = "10.0.16.14"             # B

[[group]]                           # optional: who is speaking, carried in every packet of this container
address = "10.255.108.184"
id = 0x0003
"#;

const EVERY_KEY: &str = r#"[vtep]
name = "silk-vtep"
vni = 1
port = 4789
local = "10.0.32.12"
address = ["10.255.108.0", "fd00:0:0:6c::"]
overlay = ["10.255.0.0/16", "fd00::/16"]
subnet_prefix_length = 24
mac = "ee:ee:0a:ff:6c:00"
mtu = 1410
gbp = true
lanes = 1
strict_source = true
marks = "table"
udp_checksum = true
ttl = 64
tos = 0
df = "unset"
srcport = [32768, 60999]
routing = true
silk_routes = false
bind = "any"
persist = false
state_dir = "/var/lib/silk-vtep"
datastore = "/var/vcap/data/silk/store.json"
health_check = "127.0.0.1:23954"
busy_poll_us = 0
cpus = [0, 1]
[vtep.offload]
tso = true
uso = true
tap_coalescing = true
udp_gso = true
udp_gro = true
[[peer]]
subnet = ["10.255.44.1/24", "fd00:0:0:2c::/64"]
mac = "ee:ee:00:00:00:01"
underlay = "10.0.16.15"
"#;

const UNDERLAY_V6: &str = r#"vtep = { local = "fd10::c", address = "fd00:0:0:6c::1", overlay = "fd00::/16", mac = "02:00:00:00:00:01" }
peer = [{ subnet = "fd00:0:0:2b::1/64", underlay = "fd10::e", mac = "02:00:00:00:00:02" }]
"#;

pub(super) fn configuration() -> Vec<Seed> {
    let doubled = format!(
        "{README}{}",
        &README[README.find("[[peer]]").unwrap_or(0)..]
    );
    [
        ("readme", README),
        ("every-key", EVERY_KEY),
        ("underlay-v6", UNDERLAY_V6),
        ("empty", ""),
        ("doubled", &doubled),
        ("unknown-key", "[vtep]\nlocl = \"10.0.32.12\"\n"),
        ("wrong-types", "[vtep]\nlocal = 1\naddress = true\noverlay = 1979-05-27\nvni = 1.5\n[peer]\n"),
        ("out-of-range", "[vtep]\nvni = 16777216\nport = 65536\nlanes = -1\nttl = 0\n"),
        ("no-toml", "[vtep\nlocal = \"10.0.32.12"),
        ("crlf-and-bom", "\u{feff}[vtep]\r\nlocal = \"10.0.32.12\"\r\n"),
        ("nested", "[vtep]\naddress = [[[[]]]]\noverlay = {a={b={}}}\n"),
        ("overlaps", "[vtep]\nlocal = \"10.255.1.1\"\naddress = \"10.255.108.0\"\noverlay = \"10.255.0.0/16\"\n[[peer]]\nsubnet = \"10.255.108.0/25\"\nunderlay = \"10.255.1.1\"\n"),
    ]
    .map(|(name, text)| Seed::new("configuration", format!("{name}.toml"), text))
    .into()
}

pub(super) fn control_protocol() -> Vec<Seed> {
    [
        ("show-route", r#"{"show":{"route":"10.255.43.0/24"}}"#),
        ("show-all", "{\"show\":{\"route\":null}}\n{\"show\":{\"neigh\":null}}\n{\"show\":{\"fdb\":null}}\n{\"show\":{\"peer\":null}}\n{\"show\":{\"group\":null}}"),
        ("route-get", "{\"route-get\":\"10.255.43.6\"}\n{\"route-get\":\"fd00::6\"}\n{\"route-get\":\"10.255.108.1\"}"),
        ("words", "\"link\"\n\"stats\"\n\"reload\""),
        ("containers", "\"network\"\n{\"container\":{\"add\":{\"id\":\"4f1c\",\"ifname\":\"eth0\",\"address\":\"10.255.108.3\",\"netns\":\"/var/run/netns/web\",\"host_link\":\"s-010255108003\"}}}\n{\"container\":\"list\"}\n{\"container\":{\"del\":{\"id\":\"4f1c\",\"ifname\":\"eth0\"}}}"),
        ("container-refused", "{\"container\":{\"add\":{\"id\":\"a\",\"address\":\"10.255.108.2\",\"host_link\":\"s-010255108002\"}}}\n{\"container\":{\"add\":{\"id\":\"b\",\"address\":\"10.255.108.2\",\"host_link\":\"s-010255108002\"}}}\n{\"container\":{\"del\":{\"address\":\"10.255.108.2\"}}}"),
        ("add-peer", r#"{"change":[{"add":{"peer":{"subnets":["10.255.44.0/24"],"underlay":"10.0.16.15","mac":"ee:ee:0a:ff:2c:00"}}}]}"#),
        ("replace-all", r#"{"change":[{"replace":{"route":{"dst":"10.255.0.0/16","via":"10.255.43.0"}}},{"replace":{"neigh":{"dst":"10.255.44.0","lladdr":"02:00:00:00:00:01"}}},{"replace":{"fdb":{"mac":"02:00:00:00:00:01","dst":"10.0.16.15","port":8472,"vni":7}}},{"replace":{"group":{"address":"10.255.108.9","id":65535}}}]}"#),
        ("delete", "{\"change\":[{\"del\":{\"group\":\"10.255.108.184\"}},{\"del\":{\"peer\":\"10.0.16.14\"}}]}\n{\"change\":[{\"del\":{\"route\":\"10.255.43.0/24\"}}]}"),
        ("delete-exact", r#"{"change":[{"del-exact":{"group":{"address":"10.255.108.184","id":3}}}]}"#),
        ("second-refused", r#"{"change":[{"add":{"group":{"address":"10.255.108.7","id":1}}},{"del":{"group":"10.255.108.8"}}]}"#),
        ("derived", r#"{"change":[{"replace":{"neigh":{"dst":"10.255.43.0","lladdr":"02:00:00:00:00:01"}}}]}"#),
        ("flood", r#"{"change":[{"add":{"fdb":{"mac":"00:00:00:00:00:00","dst":"10.0.16.14"}}},{"add":{"fdb":{"mac":"00:00:00:00:00:00","dst":"10.0.16.15"}}}]}"#),
        ("misspelt", r#"{"change":[{"add":{"route":{"dst":"10.255.0.0/16","gateway":"10.255.0.1"}}}]}"#),
        ("response", r#"{"error":{"message":"no group 10.255.108.184","change":1}}"#),
        ("rows", r#"{"ok":[{"dst":"10.255.43.0/24","gateway":"10.255.43.0","dev":"silk-vtep","flags":[],"origin":"config","peer":"10.0.16.14"}]}"#),
        ("batch-peer", "peer add 10.255.44.0/24,fd00:0:0:2c::/64 underlay 10.0.16.15 mac 02:00:00:00:00:01\npeer del 10.0.16.15 # gone"),
        ("batch-route", "route add 10.255.44.0/24 via 10.255.43.0 onlink\nroute replace default via 10.255.43.0 dev silk-vtep src 10.255.108.0\nroute del 10.255.44.0/24"),
        ("batch-fdb", "fdb append 00:00:00:00:00:00 dst 10.0.16.14 port 8472 vni 7 self permanent\nfdb del 00:00:00:00:00:00 dst 10.0.16.14 port 8472 vni 7"),
        ("batch-neigh", "neigh replace 10.255.44.0 lladdr eeee.0aff.2c00 nud permanent\nneigh add fd00::1 lladdr 02-00-00-00-00-01"),
        ("batch-group", "group replace 10.255.108.184 id 0x0004\ngroup add fd00::b8 id 7\n\n# nothing"),
    ]
    .map(|(name, text)| Seed::new("control_protocol", format!("{name}.txt"), text))
    .into()
}

//! What the rules say, for configurations of every kind; whether nft and systemd understand them is asked end to end
//! (tests/tests/firewall.rs).

use std::io::Error;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 11));
const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11));

fn arguments() -> Arguments {
    Arguments {
        config: "custodian.toml".into(),
        ntp: Vec::new(),
        no_ntp: false,
        dns: Vec::new(),
        no_dns: false,
        dhcp: false,
        also: Vec::new(),
        systemd: false,
        output: None,
    }
}

fn peers(text: &str) -> Result<Peers, ConfigError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("custodian.toml");
    fs::write(&path, text).expect("written");
    let file = ConfigFile::read(&path)?;
    Peers::of(&file, &file.parse()?)
}

fn whole() -> Vec<peers::Peer> {
    let text = r#"
        id = "custodian-1"
        anything = "the custodian's"
        [broker]
        url = "amqps://mq.example:5671/holdfast"
        [metrics]
        pushgateway = "https://[2001:db8::11]:9091"
        [clusters.prod.nodes]
        vault-1 = { url = "https://vault-1.example:8200", tls = "direct" }
        vault-2 = { url = "https://198.51.100.7" }
    "#;
    let mut all = peers(text).expect("a configuration");
    all.also(&["mirror.example:443".parse().expect("a service")]);
    all.time(&["ntp.example".parse().expect("a host")]);
    assert!(all.has_names());
    let ask = |host: &str| match host {
        // The same one twice, as resolvers answer for each kind of socket.
        "vault-1.example" => Ok(vec![V6, V4, V4]),
        _ => Ok(vec![V4]),
    };
    all.look_up(&ask).expect("all have addresses")
}

fn head() -> Head<'static> {
    Head { custodian: "custodian-1".to_owned(), config: Path::new("/etc/a\nb.toml"), at: "now".to_owned() }
}

#[test]
fn each_peer_gets_its_own_rule_and_nobody_else_one() {
    let text = nftables::text(&head(), &whole(), &[V4], false);
    let accepted: Vec<_> = text.lines().filter(|line| line.contains(" daddr ")).map(str::trim).collect();
    let expected = [
        r#"ip daddr { 192.0.2.11 } tcp dport 443 accept comment "by --also: mirror.example""#,
        r#"ip daddr { 192.0.2.11 } tcp dport 5671 accept comment "the broker: mq.example""#,
        r#"ip daddr { 192.0.2.11 } meta l4proto { 6, 17 } th dport 53 accept comment "a name server""#,
        r#"ip daddr { 192.0.2.11 } tcp dport 8200 accept comment "vault-1 of prod: vault-1.example""#,
        r#"ip daddr { 192.0.2.11 } udp dport 123 accept comment "a time server: ntp.example""#,
        r#"ip daddr { 198.51.100.7 } tcp dport 8200 accept comment "vault-2 of prod: 198.51.100.7""#,
        r#"ip6 daddr { 2001:db8::11 } tcp dport 8200 accept comment "vault-1 of prod: vault-1.example""#,
        r#"ip6 daddr { 2001:db8::11 } tcp dport 9091 accept comment "the Pushgateway: 2001:db8::11""#,
    ];
    assert_eq!(accepted.len(), expected.len(), "{text}");
    for rule in expected {
        assert!(accepted.contains(&rule), "{rule} is not in {text}");
    }
    assert_eq!(text.matches("policy drop;").count(), 3, "inbound, forward, outbound: {text}");
    assert!(text.contains("#   vault-1.example  192.0.2.11  2001:db8::11\n"), "{text}");
    assert!(text.contains("from /etc/ab.toml at now"), "a path ends no comment: {text}");
    assert!(!text.contains("DHCP") && nftables::text(&head(), &[], &[], true).contains("udp dport 68"));
}

#[test]
fn the_drop_in_has_what_the_custodian_itself_reaches() {
    let names = NameServers { local: vec![IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53))], remote: vec![V4] };
    let text = drop_in::text(&head(), &whole(), &names);
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    let expected = [
        "[Service]",
        "IPAddressDeny=any",
        "IPAddressAllow=192.0.2.11",
        "IPAddressAllow=198.51.100.7",
        "IPAddressAllow=2001:db8::11",
        "IPAddressAllow=127.0.0.53",
    ];
    assert_eq!(lines, expected, "{text}");
    assert!(!text.contains("ntp.example") && !text.contains("mirror.example"), "the host's own: {text}");
}

#[test]
fn a_name_without_an_address_is_no_rule_but_an_error() {
    let text = "id = \"c\"\n[clusters.prod.nodes]\nvault-1 = { url = \"https://vault-1.example\" }\n";
    let unknown = peers(text).expect("a configuration").look_up(&|_| Err(Error::other("NXDOMAIN")));
    assert!(unknown.expect_err("unknown").to_string().contains("vault-1.example (vault-1 of prod)"));
    let empty = peers(text).expect("a configuration").look_up(&|_| Ok(Vec::new()));
    assert!(matches!(empty, Err(PeersError::None { .. })));
    let refused = peers(&text.replace("https://", "http://")).expect_err("no TLS");
    assert_eq!(refused.line, Some(3), "{refused}");
}

#[test]
fn whom_names_are_asked_of_is_read_where_the_system_says_it() {
    let plain =
        |path: &str| (path == RESOLV_CONF).then(|| "search x\nnameserver 192.0.2.11\n#nameserver ::1\n".to_owned());
    let found = arguments().name_servers(plain);
    assert_eq!(found, NameServers { local: vec![], remote: vec![V4] });
    let stub = |path: &str| {
        let text = if path == RESOLV_CONF { "nameserver 127.0.0.53" } else { "nameserver 2001:db8::11%eth0\n" };
        Some(text.to_owned())
    };
    let local = vec![IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53))];
    assert_eq!(arguments().name_servers(stub), NameServers { local: local.clone(), remote: vec![V6] });
    let told = Arguments { dns: vec![V4], ..arguments() };
    assert_eq!(told.name_servers(stub), NameServers { local, remote: vec![V4] });
    let none = Arguments { no_dns: true, ..arguments() };
    assert_eq!(none.name_servers(stub), NameServers::default());
}

#[test]
fn it_is_asked_where_the_time_comes_from() {
    assert!(matches!(arguments().rules(), Err(FirewallError::NoTime)));
}

#[test]
fn hosts_and_services_are_what_they_say() {
    for good in ["ntp.example", "192.0.2.1", "2001:db8::1", "a_b-c.d"] {
        assert!(good.parse::<Host>().is_ok(), "{good}");
    }
    for bad in ["", "-x", "a b", "ntp.example:123", "a\nb", "a;drop"] {
        assert!(bad.parse::<Host>().is_err(), "{bad:?}");
    }
    for good in ["mirror.example:443", "[2001:db8::1]:80"] {
        assert!(good.parse::<Service>().is_ok(), "{good}");
    }
    for bad in ["mirror.example", "mirror.example:0", "2001:db8::1:80", "x:65536", "[x", ":80"] {
        assert!(bad.parse::<Service>().is_err(), "{bad:?}");
    }
}

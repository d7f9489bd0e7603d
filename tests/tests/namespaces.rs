//! A custodian's host seen from outside: three hosts on one network, each in namespaces of its own. On the first the Vault, the broker and
//! the rest of a lab; on the second, a machine with its own systemd, the packaged custodian behind the rules that
//! `holdfast-setup firewall` printed for it; on the third an attacker.
//!
//! What lives here: that nothing on the custodian's host can be reached, that it opens a crashed node all the same, and that
//! whoever stands in the servers' place gets nothing. What does not: impostors of every kind, who need no network (impostors.rs).

#![expect(clippy::print_stdout, reason = "what a test measured is read where it ran")]

use std::fs;
use std::process::Command;

use holdfast_tests::hosts::{Host, plug};
use holdfast_tests::impostor::{Front, Impostor, answer, sealed};
use holdfast_tests::lab::Lab;
use holdfast_tests::machine::Machine;
use holdfast_tests::packages::{build, install, property};
use holdfast_tests::programs::{Said, tool};
use holdfast_tests::shares::{Needles, of_lab};
use holdfast_tests::tls::Authority;
use holdfast_tests::wait::until;

/// The servers' address, and the custodian's.
const SERVERS: &str = "10.79.0.2";
const CUSTODIAN: &str = "10.79.0.3";

/// The bridge on the servers' host.
const WIRE: &str = "wire";

/// Whether packets that cross a bridge are shown to the host's own rules.
const BRIDGED: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// Two custodians, who need each other: nothing opens without the one behind the rules.
const LAB: [&str; 6] = ["--nodes", "1", "--custodians", "2", "--threshold", "2"];

/// How often the custodian comes to whoever is in the node's place before it counts as having been tried.
const VISITS: usize = 4;

/// Set where this file's test is run on the servers' host.
const INSIDE: &str = "HOLDFAST_TEST_SERVERS_HOST";

#[test]
fn nothing_of_a_custodians_host_is_reached_and_it_opens_a_crashed_node() {
    // The lab's servers are on the loopback of their host, and so this test is run there: on a network of its own.
    let output = Command::new("unshare")
        .arg("--net")
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", "on_the_servers_host", "--ignored", "--nocapture"])
        .env(INSIDE, "yes")
        .output();
    let said = Said::from(output.expect("unshare is there")).well();
    assert!(said.out.contains("1 passed"), "{said:?}");
    println!("{}", said.out.lines().filter(|line| line.starts_with("        ")).collect::<Vec<_>>().join("\n"));
}

#[test]
#[ignore = "run by the test above, on a network of its own"]
fn on_the_servers_host() {
    assert!(std::env::var_os(INSIDE).is_some(), "run by the test above: it changes its own network");
    tool("ip", &["link", "set", "lo", "up"]);
    let packages = build("0.1.0-1", &["--only", "holdfast-custodian"]);
    let mut lab = Lab::up(&LAB);
    let (machine, attacker) = (Machine::boot(), Host::new());
    join(&lab, &machine, &attacker);

    install(&machine, &packages, "holdfast-custodian");
    move_custodian(&mut lab, &machine);
    before_the_rules_a_scan_finds_what_is_there(&machine, &attacker);
    close(&machine);
    a_scan_finds_nothing(&machine, &attacker);
    it_opens_a_crashed_node(&mut lab, &machine);
    whoever_is_in_the_servers_place_gets_nothing(&mut lab, &machine, &attacker);
}

/// The port of a URL.
fn port(url: &str) -> u16 {
    let authority = url.split("://").nth(1).and_then(|rest| rest.split('/').next());
    authority.and_then(|authority| authority.rsplit(':').next()?.parse().ok()).expect("a port")
}

/// Lays the cables. What comes to the servers' address is for their loopback.
fn join(lab: &Lab, machine: &Machine, attacker: &Host) {
    tool("ip", &["link", "add", WIRE, "type", "bridge"]);
    // Where the kernel can filter what crosses a bridge, it would take the others' packets for this host's own.
    if fs::exists(BRIDGED).is_ok_and(|there| there) {
        fs::write(BRIDGED, "0").expect("one's own network");
    }
    tool("ip", &["link", "set", WIRE, "up"]);
    tool("ip", &["addr", "add", &format!("{SERVERS}/24"), "dev", WIRE]);
    plug(WIRE, "custodian", machine.pid());
    plug(WIRE, "attacker", attacker.pid());
    machine.sh(&format!("ip addr add {CUSTODIAN}/24 dev eth0; ip link set eth0 up")).well();
    attacker.sh("ip addr add 10.79.0.4/24 dev eth0; ip link set eth0 up").well();
    serve(lab);
}

/// Lets the servers be reached at their address.
fn serve(lab: &Lab) {
    let broker = port(&lab.file.broker.as_ref().expect("a broker").url);
    let servers = [(port(lab.url("vault-1")), port(lab.url("vault-1"))), (broker, broker)];
    tool("sh", &["-euc", &to_loopback(&servers)]);
}

/// Lines of a shell by which a host takes connections to the servers' address at its loopback: from the first port to the second.
fn to_loopback(ports: &[(u16, u16)]) -> String {
    let mut script = "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet
        nft add table ip servers
        nft 'add chain ip servers inbound { type nat hook prerouting priority dstnat; }'
        nft flush chain ip servers inbound\n"
        .to_owned();
    for (from, to) in ports {
        script +=
            &format!("nft add rule ip servers inbound ip daddr {SERVERS} tcp dport {from} dnat to 127.0.0.1:{to}\n");
    }
    script
}

/// Ends the lab's first custodian, and starts it again on the machine: the same keys, share and memory.
fn move_custodian(lab: &mut Lab, machine: &Machine) {
    lab.settle();
    lab.kill("custodian-1");
    let started = lab.heartbeat("custodian-1")["started_at"].clone();
    let home = lab.path(&lab.custodian("custodian-1").config).parent().expect("its folder").to_owned();
    for (from, to) in
        [(home.clone(), "/etc/holdfast"), (lab.path(&lab.custodian("custodian-1").state_dir), "/var/lib/holdfast")]
    {
        for entry in fs::read_dir(from).expect("a folder").flatten().filter(|entry| entry.path().is_file()) {
            fs::copy(entry.path(), machine.path(to).join(entry.file_name())).expect("copied, with its rights");
        }
    }
    // By the names in the servers' certificates.
    let script = format!(
        "echo '{SERVERS} vault-1 broker' >>/etc/hosts
        cd /etc/holdfast
        sed -i -e 's|^state_dir.*|state_dir = \"/var/lib/holdfast\"|' -e 's|https://127.0.0.1|https://vault-1|' \
            -e 's|amqps://127.0.0.1|amqps://broker|' custodian.toml
        chown -R holdfast: /etc/holdfast /var/lib/holdfast
        systemctl start holdfast-custodian"
    );
    machine.sh(&script).well();
    until("it is heard from its new host", || {
        let now = lab.heartbeat("custodian-1")["started_at"].clone();
        now.is_string() && now != started
    });
}

/// A listener that somebody forgot on the host: what an attacker hopes for.
const FORGOTTEN: &str = "2222";

fn before_the_rules_a_scan_finds_what_is_there(machine: &Machine, attacker: &Host) {
    let listen = format!("systemd-run --unit=forgotten systemd-socket-activate --accept --listen={FORGOTTEN} /bin/cat");
    machine.sh(&listen).well();
    let scan = || attacker.sh(&format!("nmap -n -Pn -sS -p {FORGOTTEN},{} {CUSTODIAN}", 22)).well().out;
    until("the scanner finds the forgotten listener", || scan().contains("2222/tcp open"));
    let found = scan();
    assert!(found.contains("22/tcp   closed"), "a host without rules answers that a port is closed: {found}");
    assert!(answers_a_ping(attacker), "and a ping");
}

fn answers_a_ping(attacker: &Host) -> bool {
    let scan = format!("nmap -n -sn -PE --disable-arp-ping --max-retries 1 {CUSTODIAN}");
    attacker.sh(&scan).well().out.contains("(1 host up)")
}

/// As docs/INSTALL.md has it.
fn close(machine: &Machine) {
    let script = "holdfast-setup firewall --no-ntp --no-dns --output /etc/holdfast-firewall.nft
        nft -c -f /etc/holdfast-firewall.nft
        systemctl restart holdfast-firewall
        mkdir -p /etc/systemd/system/holdfast-custodian.service.d
        holdfast-setup firewall --systemd --no-dns --output /etc/systemd/system/holdfast-custodian.service.d/addresses.conf
        systemctl daemon-reload
        systemctl restart holdfast-custodian";
    machine.sh(script).well();
    let rules = machine.run(&["nft", "list", "ruleset"]).well().out;
    assert!(rules.contains(&format!("ip daddr {SERVERS}")), "{rules}");
    assert_eq!(property(machine, "IPAddressAllow"), format!("{SERVERS}/32"));
}

fn a_scan_finds_nothing(machine: &Machine, attacker: &Host) {
    let scan = format!("nmap -n -Pn -sS -p- -T5 --max-retries 1 --min-rate 20000 --reason {CUSTODIAN}");
    let found = attacker.sh(&scan).well().out;
    assert!(found.contains("65535 filtered tcp ports (no-response)"), "{found}");
    // An answer of any kind would be a port that is closed or open.
    let scan = format!("nmap -n -Pn -sU --top-ports 100 -T5 --max-retries 1 --min-rate 1000 --reason {CUSTODIAN}");
    let found = attacker.sh(&scan).well().out;
    assert!(found.contains("100 open|filtered udp ports (no-response)"), "{found}");
    assert!(!answers_a_ping(attacker), "it answers a ping");
    // That the forgotten one was there all the while:
    let listening = machine.run(&["ss", "-lntuHp"]).well().out;
    assert!(listening.contains(FORGOTTEN) && !listening.contains("holdfast"), "{listening}");
    // And the other way: the host itself reaches nobody but the servers.
    let to_attacker = "timeout 3 bash -c 'exec 3<>/dev/tcp/10.79.0.4/443'";
    assert_ne!(machine.sh(to_attacker).code, Some(0));
    let said = machine.sh(to_attacker).err;
    assert!(!said.contains("refused"), "a packet got out: {said}");
    println!("        65,535 TCP ports and 100 UDP ports: no answer");
}

fn it_opens_a_crashed_node(lab: &mut Lab, machine: &Machine) {
    provable(lab);
    let took = lab.crash("vault-1").expect("it is opened by both");
    println!("        a crashed node was open {took:?} after its first answer");
    let audit = fs::read_to_string(machine.path("/var/lib/holdfast/audit.jsonl")).expect("the audit log");
    assert!(audit.contains("\"submitted\"") || audit.contains("release"), "{audit}");
}

/// Waits until the custodian on the machine says that it could prove a restart.
fn provable(lab: &Lab) {
    until("it could prove a restart", || {
        let node = lab.heartbeat("custodian-1")["nodes"]["vault-1"].clone();
        node["seen"] == "open" && node["restart_provable"] == true && node["ready"] == true
    });
}

/// The attacker takes the servers' address, while the node waits for two shares. Once with a certificate of its own; once with one of the
/// very CA that the custodian trusts, whose key it has stolen.
fn whoever_is_in_the_servers_place_gets_nothing(lab: &mut Lab, machine: &Machine, attacker: &Host) {
    provable(lab);
    let needles = Needles::of(&[of_lab(lab, "custodian-1")]);
    let at = port(lab.url("vault-1"));
    let strangers = [
        Authority::new("somebody's own CA").issue(&["vault-1"]).server(),
        Authority::of_lab(lab).issue(&["vault-1"]).server(),
    ];
    // Whoever takes an address says so to everybody on the wire.
    attacker
        .sh("echo 1 >/proc/sys/net/ipv4/conf/all/arp_notify; echo 1 >/proc/sys/net/ipv4/conf/eth0/arp_notify")
        .well();
    fs::write("/proc/sys/net/ipv4/conf/all/arp_notify", "1").expect("one's own network");
    fs::write(format!("/proc/sys/net/ipv4/conf/{WIRE}/arp_notify"), "1").expect("one's own network");
    // The node is away while the address changes hands, so that no connection of before reaches it.
    lab.kill("vault-1");
    tool("nft", &["flush", "chain", "ip", "servers", "inbound"]);
    tool("ip", &["addr", "del", &format!("{SERVERS}/24"), "dev", WIRE]);
    for (number, server) in strangers.into_iter().enumerate() {
        let impostor = attacker.inside(move || Impostor::start(Front::Tls(server), |_| answer(&sealed(2, 2))));
        attacker.sh(&to_loopback(&[(at, impostor.address.port())])).well();
        if number == 0 {
            attacker
                .sh(&format!("ip addr add {SERVERS}/24 dev eth0; ip link set eth0 down; ip link set eth0 up"))
                .well();
        }
        until("the custodian comes to the attacker again and again", || impostor.record().connections >= VISITS);
        let record = impostor.record();
        assert_eq!((needles.find(&record.raw), needles.find(&record.decrypted)), (None, None), "stranger {number}");
        assert!(record.requests.is_empty(), "it was asked something: {:?}", record.requests);
        if number == 0 {
            lab.start("vault-1");
            until("the node waits for two shares", || lab.is_sealed("vault-1"));
        }
    }
    assert!(lab.is_sealed("vault-1"), "one share does not open it");
    let log = machine.run(&["journalctl", "--output=cat", "--unit=holdfast-custodian"]).well().out;
    assert!(log.contains("somebody answers at the node's address who is not the node"), "{log}");

    // The same custodian, once the servers are back at their address, does what it would not do for the attacker.
    attacker.sh(&format!("ip addr del {SERVERS}/24 dev eth0")).well();
    tool("ip", &["addr", "add", &format!("{SERVERS}/24"), "dev", WIRE]);
    serve(lab);
    // Its tickets may have gone to the attacker, and then it cannot tell why the node is sealed.
    lab.approve("vault-1");
    until("the node is open", || lab.is_open("vault-1"));
    println!("        in the servers' place: nothing was released");
}

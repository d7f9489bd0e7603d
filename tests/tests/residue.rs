//! What root finds of a share in the memory of a custodian that has just had it in clear: nothing, not eight bytes of it, head or
//! tail, however it is spelled. After a start, after releases that opened a node, that failed and that came to nothing, after a reload, a drill
//! and a check.

#![expect(clippy::print_stdout, reason = "what a test measured is read where it ran")]

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use holdfast_tests::lab::Lab;
use holdfast_tests::memory;
use holdfast_tests::processes::Signal;
use holdfast_tests::programs::program;
use holdfast_tests::shares::{Needles, of_lab};
use holdfast_tests::wait::{until, until_some};

/// The least that a custodian has in memory, in bytes: whoever read less has not read it.
const MEMORY_MIN: u64 = 4 * 1024 * 1024;

/// How much of a key in Bech32 counts as found, in characters.
const TEXT_RUN: usize = 12;

/// The lab's numbers.
const THRESHOLD: u8 = 3;

#[test]
fn nothing_of_a_share_stays_in_memory() {
    let mut lab = Lab::up(&[]);
    let needles: BTreeMap<_, _> = lab.custodians().into_iter().map(|id| (id.clone(), needles(&lab, &id))).collect();
    finds_what_is_there(&lab);
    lab.scenario("after the start", |lab| clean(lab, &needles));
    lab.scenario("after releases", |lab| after_releases(lab, &needles));
    lab.scenario("after a release that failed", |lab| after_a_failure(lab, &needles));
    lab.scenario("after a reload", |lab| after_a_reload(lab, &needles));
    lab.scenario("after a drill", |lab| after_a_drill(lab, &needles));
    lab.scenario("in a check", |lab| in_a_check(lab, &needles));
}

/// What must not be found: the share, and the identity that opens its file, which is read for each release and each try, and no longer kept.
fn needles(lab: &Lab, custodian: &str) -> Needles {
    let share = of_lab(lab, custodian);
    let file = lab.path(&lab.custodian(custodian).config).with_file_name("identity.txt");
    let text = fs::read_to_string(file).expect("its identity");
    let spelled = text.lines().find_map(|line| line.strip_prefix("AGE-SECRET-KEY-1")).expect("a private key");
    let key = unspell(spelled);
    let mut needles = Needles::of_secrets([share.as_slice(), &key]);
    needles.add_runs(spelled.as_bytes(), TEXT_RUN);
    needles.add_runs(spelled.to_lowercase().as_bytes(), TEXT_RUN);
    needles
}

/// The bytes of a key in Bech32: five bits a character, and six characters of checksum.
fn unspell(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L";
    let digits = text[..text.len() - 6].bytes();
    let bits = digits.flat_map(|digit| {
        let value = ALPHABET.iter().position(|known| *known == digit).expect("Bech32");
        (0..5).rev().map(move |bit| value >> bit & 1 == 1)
    });
    let bits: Vec<_> = bits.collect();
    bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |all, bit| all << 1 | u8::from(*bit))).collect()
}

/// Looks through the memory of every custodian.
fn clean(lab: &Lab, needles: &BTreeMap<String, Needles>) {
    nothing_in(lab, needles.iter());
}

/// Looks through the memory of these custodians.
fn nothing_in<'a>(lab: &Lab, those: impl Iterator<Item = (&'a String, &'a Needles)>) {
    let (mut found, mut looked_at) = (Vec::new(), 0);
    for (custodian, needles) in those {
        let searched = memory::search(lab.pid(custodian), needles);
        assert!(searched.bytes > MEMORY_MIN && searched.writable > 3, "{custodian}'s was not read: {searched:?}");
        found.extend(searched.found.into_iter().map(|place| (custodian.clone(), place)));
        looked_at += searched.bytes;
    }
    assert!(found.is_empty(), "a secret in memory: {found:#?}");
    println!("        {} MiB of memory without a secret", looked_at >> 20);
}

/// Whoever finds nothing has to show that there was something to be found: the same eyes see what a custodian keeps for good, its own
/// name, and a share in a process that has one.
fn finds_what_is_there(lab: &Lab) {
    let custodian = "custodian-1";
    let mut name = Needles::of(&[]);
    name.add_runs(custodian.as_bytes(), custodian.len());
    assert!(!memory::search(lab.pid(custodian), &name).found.is_empty(), "its own name is not in its memory");

    let share = of_lab(lab, custodian);
    let needles = Needles::of(&[share]);
    let digits = std::hint::black_box(hex::encode(share));
    let mine = memory::search(std::process::id(), &needles);
    assert!(!mine.found.is_empty(), "{} digits are in the memory of this test", digits.len());
}

/// Crashes, an approved opening after a seal: whoever released a share is looked at right after.
fn after_releases(lab: &mut Lab, needles: &BTreeMap<String, Needles>) {
    let releases = |lab: &Lab, custodian: &str| lab.audited(custodian, "release").len();
    let open = |lab: &mut Lab, how: &dyn Fn(&mut Lab)| {
        let before: BTreeMap<_, _> = needles.keys().map(|id| (id, releases(lab, id))).collect();
        how(lab);
        let released: Vec<_> = needles.iter().filter(|(id, _)| releases(lab, id) > before[id]).collect();
        assert!(released.len() >= usize::from(THRESHOLD), "only {} released a share", released.len());
        nothing_in(lab, released.into_iter());
    };
    for node in lab.nodes() {
        open(lab, &|lab| {
            lab.crash(&node).expect("open");
        });
    }
    open(lab, &|lab| {
        lab.seal("vault-1");
        lab.approve("vault-1");
        until("the approval opens it", || lab.is_open("vault-1"));
    });
}

/// Two shares in a node that opens with three, then a stranger's wrong one: the set fails, and is dropped.
fn after_a_failure(lab: &mut Lab, needles: &BTreeMap<String, Needles>) {
    let (node, away) = ("vault-2", ["custodian-3", "custodian-4", "custodian-5"]);
    for custodian in away {
        lab.signal(custodian, Signal::STOP);
    }
    lab.restart(node);
    let url = lab.url(node).to_owned();
    let waiting = until_some("two shares are in the node", || {
        lab.eyes.look(&url).filter(|status| status.sealed && status.progress == THRESHOLD - 1)
    });
    clean(lab, needles);
    assert!(lab.eyes.submit(&url, &hex::encode([7; 33])).is_none(), "a wrong share made a set: {waiting:?}");
    until("they submit again", || lab.eyes.look(&url).is_some_and(|status| status.progress == THRESHOLD - 1));
    clean(lab, needles);
    for custodian in away {
        lab.signal(custodian, Signal::CONT);
    }
    until("it is open", || lab.is_open(node));
    clean(lab, needles);
}

/// SIGHUP has every share tried again.
fn after_a_reload(lab: &mut Lab, needles: &BTreeMap<String, Needles>) {
    for custodian in lab.custodians() {
        let log = lab.path(&lab.custodian(&custodian).process.log);
        let reloads = || fs::read_to_string(&log).unwrap_or_default().matches("were read again").count();
        let before = reloads();
        lab.signal(&custodian, Signal::HUP);
        until(&format!("{custodian} reads everything again"), || reloads() > before);
    }
    clean(lab, needles);
}

fn after_a_drill(lab: &mut Lab, needles: &BTreeMap<String, Needles>) {
    lab.holdfast(&["drill", "run", "--node", "vault-3", "--json"]).well();
    clean(lab, needles);
}

/// A check takes the share out, and then waits for a node that hangs.
fn in_a_check(lab: &mut Lab, needles: &BTreeMap<String, Needles>) {
    let custodian = "custodian-2";
    let hung = lab.nodes();
    hung.iter().for_each(|node| lab.signal(node, Signal::STOP));
    let output = lab.dir().join("check.out");
    let config = lab.path(&lab.custodian(custodian).config);
    let mut check = Command::new(program("holdfast-custodian"));
    check.args(["check", "--config"]).arg(config).stdin(Stdio::null()).stderr(Stdio::null());
    let mut check = check.stdout(fs::File::create(&output).expect("a file")).spawn().expect("it starts");
    let said = || fs::read_to_string(&output).unwrap_or_default();
    until("it has tried the share", || said().contains("decrypts and matches its digest"));
    until("it waits for the nodes", || said().contains("compared with the others' by holdfast doctor"));
    let searched = memory::search(check.id(), &needles[custodian]);
    let running = check.try_wait().expect("it can be asked").is_none();
    hung.iter().for_each(|node| lab.signal(node, Signal::CONT));
    check.wait().expect("it ends");
    assert!(running && searched.bytes > MEMORY_MIN, "it was not looked at while it ran: {searched:?}\n{}", said());
    assert!(searched.found.is_empty(), "a share in memory: {:#?}", searched.found);
}

//! Ceremonies that are cut off: killed before any of their system calls, or with the network gone at the worst moment. Whatever
//! happens, every share is there in the end, or the program says that they are lost and how to start over.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::refusals::Table;
use crate::world::{Done, Vault, holdfast, program, text, unbase64, until};

/// More runs than any system call needs: beyond that, a loop does not end.
const RUNS_MAX: usize = 200;

/// SIGKILL, by which strace too ends where the program did.
const KILL: i32 = 9;

/// What a person reads whose shares are lost.
const LOST: &str = "THE SHARES ARE LOST";

/// A table with a real Vault on it that keeps nothing, and a holder beside the two custodians.
struct Stage {
    table: Table,
    vault: Vault,
}

/// How an interrupted ceremony ended after all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nothing had been begun.
    Anew,
    /// It went on.
    Resumed,
    /// The shares were lost, and the Vault wiped.
    StartedOver,
}

impl Stage {
    fn set() -> Self {
        let table = Table::lay();
        let vault = Vault::in_memory(&table.path("vault"));
        for host in &table.hosts {
            table.gpg.run(&["--import", text(&host.file("transport.key"))]);
        }
        Self { table, vault }
    }

    /// The command line of the ceremony, whose files go there, and whose Vault is at that address.
    fn arguments(&self, output: &Path, url: &str) -> Vec<String> {
        let mut init = self.table.arguments();
        (init.vault, init.ca) = (url.to_owned(), text(&self.vault.ca).to_owned());
        init.output = text(output).to_owned();
        init.more.push(format!("--holder={}", self.table.path("alice.asc").display()));
        init.args()
    }

    fn initialized(&self) -> bool {
        self.vault.get("sys/seal-status", None)["initialized"] == true
    }

    /// Does what the program says until the ceremony is complete, and checks that everything is there.
    fn recover(&mut self, output: &Path) -> End {
        let first = run(&self.arguments(output, &self.vault.url));
        let end = if first.code == 0 {
            End::Anew
        } else {
            first.refused(1, &format!("holdfast init --resume {}", output.display()));
            self.resume(output)
        };
        self.check(output);
        end
    }

    fn resume(&mut self, output: &Path) -> End {
        let resumed = resume(output);
        if resumed.code == 0 {
            return End::Resumed;
        }
        resumed.refused(1, LOST);
        assert!(self.initialized(), "lost is what was never made");
        assert!(!output.join("init-response.json").exists(), "lost is what is on the disk");
        resume(output).refused(1, LOST);
        self.vault.wipe();
        let again = resume(output);
        assert_eq!(again.code, 0, "{}", again.err);
        End::StartedOver
    }

    /// Every share is there, each its owner's, and any two of them open the Vault; and nothing is left lying about.
    fn check(&self, output: &Path) {
        let left: Vec<_> = files(output).into_iter().filter(|file| text(file).ends_with(".next")).collect();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(read(&output.join("ceremony.json"))["step"], "done");
        let manifest = read(&output.join("prod.manifest.json"));
        let packets = ["custodian-1", "custodian-2"].map(|id| {
            let packet = read(&output.join(format!("packets/{id}.packet.json")));
            assert_eq!(packet["cluster"], manifest["id"]);
            unbase64(packet["openpgp_message"].as_str().expect("a message"))
        });
        let [first, second] = packets.map(|packet| self.decrypt(&packet));
        let alice = self.decrypt(&fs::read(output.join("holders/alice.share.asc")).expect("there"));
        assert!(fs::metadata(output.join("holders/alice.sheet.html")).expect("there").len() > 1000);
        let token = self.decrypt(&fs::read(output.join("root-token.pgp")).expect("there"));
        assert!(token.starts_with("s."), "a root token");
        assert!(first != second && first != alice && second != alice);
        for share in [&second, &alice] {
            self.vault.unseal(share);
        }
        assert_eq!(self.vault.get("sys/seal-status", None)["sealed"], false, "the shares are this Vault's");
        let again = resume(output).json();
        assert_eq!(again["result"], "already");
    }

    fn decrypt(&self, message: &[u8]) -> String {
        String::from_utf8(self.table.gpg.decrypt(message)).expect("text")
    }
}

fn run(arguments: &[String]) -> Done {
    holdfast(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

fn resume(output: &Path) -> Done {
    holdfast(&["init", "--resume", text(output), "--json"])
}

/// Runs `holdfast` and kills it before its `count`-th call of `call`. How it ended: its tracer ends as it did.
fn killed_before(call: &str, count: usize, arguments: &[String]) -> ExitStatus {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    command.args(["-e", &format!("inject={call}:signal=KILL:when={count}")]);
    let status = command.arg(program("holdfast")).args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    status.stderr(Stdio::null()).status().expect("strace is installed")
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).expect("JSON")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Kills a ceremony before each call of this kind, and with `twice` also what resumes it; then recovers it. How each ended.
fn kill_at_each(call: &str, twice: bool) -> Vec<End> {
    let mut stage = Stage::set();
    let mut ends = Vec::new();
    for count in 1..RUNS_MAX {
        let output = stage.table.path(&format!("out-{count}"));
        let arguments = stage.arguments(&output, &stage.vault.url);
        let ended = killed_before(call, count, &arguments);
        if ended.success() {
            stage.check(&output);
            return ends;
        }
        assert_eq!(ended.signal(), Some(KILL), "{call}: strace may not trace, or does not know the call: {ended}");
        let resuming = ["init", "--resume", text(&output)].map(str::to_owned);
        if twice && output.join("ceremony.json").exists() {
            // The one who resumes is unlucky too, as far as that call goes.
            let _ = killed_before(call, 1 + count % 3, &resuming);
        }
        ends.push(stage.recover(&output));
        stage.vault.wipe();
    }
    panic!("{RUNS_MAX} runs, and none of them came to its end");
}

#[test]
fn killed_before_anything_that_reaches_the_disk_it_loses_no_share_in_silence() {
    let ends = kill_at_each("fsync", true);
    assert!(ends.len() > 20, "{ends:?}");
    assert!(ends.contains(&End::Anew) && ends.contains(&End::Resumed), "{ends:?}");
}

#[test]
fn killed_before_any_name_is_given_or_taken_it_loses_no_share_in_silence() {
    // The journal is the first that is replaced, and a ceremony has three of its states; every other file is linked.
    // Not every architecture has each of these calls: that is what the question marks say.
    for (call, at_least) in [
        ("?rename,renameat,renameat2", 3),
        ("linkat", 8),
        ("?unlink,unlinkat", 12),
        ("?mkdir,mkdirat", 3),
        ("fchmod", 10),
    ] {
        let ends = kill_at_each(call, false);
        assert!(ends.len() >= at_least, "{call}: {ends:?}");
        if call == "linkat" {
            // All that was written had reached the disk: the answer was there, if not yet under its name.
            assert!(ends.iter().all(|end| *end == End::Resumed), "{ends:?}");
        }
    }
}

#[test]
fn killed_before_any_byte_goes_out_or_comes_in_it_says_whether_the_shares_are_lost() {
    let sent = kill_at_each("writev", false);
    assert!(sent.contains(&End::Anew) && sent.contains(&End::Resumed), "{sent:?}");
    let received = kill_at_each("recvfrom", false);
    assert!(received.contains(&End::StartedOver), "once the request was out and the answer was not in: {received:?}");
}

#[test]
fn killed_before_any_write_it_loses_no_share_in_silence() {
    let ends = kill_at_each("write", false);
    assert!(ends.contains(&End::Resumed), "{ends:?}");
}

/// What happens to one connection on its way to the Vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It passes.
    Passes,
    /// It ends before a byte of it has passed.
    Refused,
    /// What the client says passes, and nothing that the Vault says after its handshake.
    Unanswered,
}

/// A network between a client and the Vault, which cuts what it is told to. It sees ciphertext, as any network does.
struct Network {
    url: String,
    fates: Arc<Mutex<Vec<Fate>>>,
    then: Arc<Mutex<Fate>>,
    held: Arc<Mutex<Vec<TcpStream>>>,
    holding: Arc<AtomicUsize>,
}

impl Network {
    /// The first connections get these fates, and all later ones pass.
    fn new(vault: &str, fates: &[Fate]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("https://{}", listener.local_addr().expect("bound"));
        let vault = vault.strip_prefix("https://").expect("an address").to_owned();
        let network = Self {
            url,
            fates: Arc::new(Mutex::new(fates.iter().rev().copied().collect())),
            then: Arc::new(Mutex::new(Fate::Passes)),
            held: Arc::default(),
            holding: Arc::default(),
        };
        let (fates, then) = (Arc::clone(&network.fates), Arc::clone(&network.then));
        let (held, holding) = (Arc::clone(&network.held), Arc::clone(&network.holding));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let fate = fates.lock().expect("unpoisoned").pop();
                let fate = fate.unwrap_or_else(|| *then.lock().expect("unpoisoned"));
                if fate == Fate::Refused {
                    continue;
                }
                let server = TcpStream::connect(&vault).expect("the Vault runs");
                if fate == Fate::Unanswered {
                    held.lock().expect("unpoisoned").extend([&client, &server].map(|s| s.try_clone().expect("cloned")));
                }
                carry(client, server, fate, Arc::clone(&holding));
            }
        });
        network
    }

    /// All connections from now on.
    fn set(&self, fate: Fate) {
        *self.then.lock().expect("unpoisoned") = fate;
    }

    /// Ends the connections that are held.
    fn cut(&self) {
        for stream in self.held.lock().expect("unpoisoned").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Carries both directions, each in a thread of its own.
fn carry(client: TcpStream, server: TcpStream, fate: Fate, holding: Arc<AtomicUsize>) {
    let (greeted, shaken) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let ends = (client.try_clone().expect("cloned"), server.try_clone().expect("cloned"));
    let (greeted_back, shaken_back) = (Arc::clone(&greeted), Arc::clone(&shaken));
    std::thread::spawn(move || {
        pass(client, server, |_| {
            // What the client says once the server has said something ends the handshake: the request follows.
            shaken.fetch_or(greeted.load(Ordering::SeqCst), Ordering::SeqCst);
            true
        });
    });
    std::thread::spawn(move || {
        pass(ends.1, ends.0, |bytes| {
            greeted_back.store(true, Ordering::SeqCst);
            let hold = fate == Fate::Unanswered && shaken_back.load(Ordering::SeqCst);
            holding.fetch_add(if hold { bytes } else { 0 }, Ordering::SeqCst);
            !hold
        });
    });
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut may: impl FnMut(usize) -> bool) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if may(count) && to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// The connections that a ceremony makes before the one that initialises: how it stands, and what time it is there.
const QUESTIONS: [Fate; 2] = [Fate::Passes; 2];

fn spawn(arguments: &[String]) -> Child {
    let mut command = Command::new(program("holdfast"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs")
}

#[test]
fn cut_off_before_the_request_it_goes_on_as_if_nothing_had_been() {
    let stage = Stage::set();
    let output = stage.table.path("out");
    let network = Network::new(&stage.vault.url, &[&QUESTIONS[..], &[Fate::Refused]].concat());
    let done = run(&stage.arguments(&output, &network.url));
    done.refused(1, &format!("the Vault was not initialised: {}/v1/sys/init did not answer", network.url));
    assert!(done.err.contains(&format!("holdfast init --resume {}", output.display())), "{}", done.err);
    assert!(!stage.initialized());
    assert_eq!(resume(&output).json()["result"], "resumed");
    stage.check(&output);
}

/// Runs `holdfast`, whose calls of this kind, as far as strace is told to look, fail as on a disk that is full.
fn on_a_full_disk(call: &str, strace: &[&str], arguments: &[String]) -> Done {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]).args(strace);
    Done::of(command.arg(program("holdfast")).args(arguments), b"")
}

#[test]
fn a_disk_without_room_for_the_answer_is_found_before_the_vault_is_asked() {
    let stage = Stage::set();
    let output = stage.table.path("out");
    let arguments = stage.arguments(&output, &stage.vault.url);
    // What is tried first is written beside its name.
    let trial = output.join("..trial.next");
    let full = ["-P", text(&trial), "-e", "inject=write:error=ENOSPC"];
    on_a_full_disk("write", &full, &arguments).refused(1, "cannot be used for the output: ");
    assert!(!stage.initialized());
    assert_eq!(resume(&output).json()["result"], "resumed");
    stage.check(&output);
    assert!(!files(&output).iter().any(|file| text(file).contains("trial")), "what was tried is gone");
}

#[test]
fn an_answer_that_the_disk_does_not_take_is_printed_and_from_there_the_ceremony_goes_on() {
    let stage = Stage::set();
    let output = stage.table.path("out");
    // The first file that gets its name by a link is the answer.
    let full = ["-e", "inject=linkat:error=ENOSPC:when=1"];
    let done = on_a_full_disk("linkat", &full, &stage.arguments(&output, &stage.vault.url));
    done.refused(1, "could not be kept: it was printed above instead");
    assert!(!output.join("init-response.json").exists() && stage.initialized());
    let answer: Value = serde_json::from_str(&done.out).expect("the answer, and nothing else");
    assert_eq!(answer["keys"].as_array().map(Vec::len), Some(3));
    // Whatever a crash may have left beside its name is not needed.
    for left in files(&output).iter().filter(|file| text(file).ends_with(".next")) {
        fs::remove_file(left).expect("removed");
    }
    fs::write(output.join("init-response.json"), &done.out).expect("written");
    assert_eq!(resume(&output).json()["result"], "resumed");
    stage.check(&output);
}

#[test]
fn no_slip_of_the_hand_ends_it_between_request_and_answer() {
    let stage = Stage::set();
    let output = stage.table.path("out");
    let network = Network::new(&stage.vault.url, &[&QUESTIONS[..], &[Fate::Unanswered]].concat());
    let program = spawn(&stage.arguments(&output, &network.url));
    until("the Vault is initialised, and its answer is held", || {
        network.holding.load(Ordering::SeqCst) > 1000 && stage.initialized()
    });
    for signal in ["-INT", "-TERM", "-HUP"] {
        let id = program.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().expect("it runs").success());
    }
    network.cut();
    let output = program.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains(LOST), "{}: {said}", output.status);
}

#[test]
fn cut_off_between_request_and_answer_it_says_that_the_shares_are_lost_and_starts_over() {
    let mut stage = Stage::set();
    let output = stage.table.path("out");
    let network = Network::new(&stage.vault.url, &[&QUESTIONS[..], &[Fate::Unanswered]].concat());
    let program = spawn(&stage.arguments(&output, &network.url));
    until("the Vault is initialised, and its answer is held", || {
        network.holding.load(Ordering::SeqCst) > 1000 && stage.initialized()
    });
    network.cut();
    let done = program.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(1), "{said}");
    for words in [LOST, "nothing is in it yet", "remove their storage", "holdfast init --resume"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(stage.resume(&output), End::StartedOver);
    stage.check(&output);
}

#[test]
fn killed_between_request_and_answer_with_nobody_to_ask_it_does_not_guess() {
    let mut stage = Stage::set();
    let output = stage.table.path("out");
    let network = Network::new(&stage.vault.url, &[&QUESTIONS[..], &[Fate::Unanswered]].concat());
    let mut program = spawn(&stage.arguments(&output, &network.url));
    until("the Vault is initialised", || network.holding.load(Ordering::SeqCst) > 1000 && stage.initialized());

    // Somebody who is impatient tries to go on beside it.
    resume(&output).refused(1, "another holdfast is at work in it");
    program.kill().expect("killed");
    program.wait().expect("it ended");
    network.cut();

    network.set(Fate::Refused);
    let unknown = resume(&output);
    unknown.refused(1, "it does not say whether it is initialised");
    assert!(!unknown.err.contains(LOST), "{}", unknown.err);
    network.set(Fate::Passes);
    // Shares that somebody enters are shares that somebody has.
    stage.vault.unseal(&"11".repeat(33));
    resume(&output)
        .refused(1, "somebody is entering shares. Somebody has its shares: find out who, and remove nothing");
    stage.vault.wipe();
    let mut other = stage.table.arguments();
    (other.vault, other.ca) = (stage.vault.url.clone(), text(&stage.vault.ca).to_owned());
    other.output = text(&stage.table.path("other")).to_owned();
    assert_eq!(run(&other.args()).code, 0);
    resume(&output).refused(1, "any 2 of 2 shares open it, and here 2 of 3 were asked for. Somebody has its shares");
    stage.vault.wipe();
    assert_eq!(stage.resume(&output), End::Resumed);
    stage.check(&output);
}

#[test]
fn what_is_no_interrupted_ceremony_is_not_resumed() {
    let stage = Stage::set();
    let dir = stage.table.path("dir");
    resume(&dir).refused(1, "cannot be used");
    fs::create_dir(&dir).expect("made");
    resume(&dir).refused(1, "no ceremony was begun in");
    fs::write(dir.join("ceremony.json"), "{}").expect("written");
    resume(&dir).refused(78, "ceremony.json is damaged: missing field");
    holdfast(&["init", "--resume", text(&dir), "--yes"]).refused(2, "cannot be used with");
    holdfast(&["init"]).refused(2, "--cluster");

    // An answer that is there and is damaged is kept, and nothing is claimed of it.
    let output = stage.table.path("out");
    assert_eq!(run(&stage.arguments(&output, &stage.vault.url)).code, 0);
    let journal = fs::read_to_string(output.join("ceremony.json")).expect("there");
    fs::write(output.join("ceremony.json"), journal.replace("\"done\"", "\"asked\"")).expect("written");
    let packet = output.join("packets/custodian-1.packet.json");
    fs::write(&packet, "another").expect("written");
    let done = resume(&output);
    done.refused(1, "custodian-1.packet.json exists already and is not overwritten");
    assert!(done.err.contains("THE VAULT IS INITIALISED, and all shares are, encrypted, in "), "{}", done.err);
    fs::remove_file(&packet).expect("removed");
    fs::write(output.join("init-response.json"), "half").expect("written");
    resume(&output).refused(1, "is not what was asked for");
    fs::remove_file(output.join("init-response.json")).expect("removed");
    fs::write(output.join("ceremony.json"), &journal).expect("written");
    let done = resume(&output).json();
    assert_eq!((&done["result"], done["gone"].as_array().map(Vec::len)), (&"already".into(), Some(2)));
}

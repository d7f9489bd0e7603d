//! Keys that people hold: files, files behind a passphrase, and keys in the real `ssh-agent`. No token is at hand: in its place
//! stands a small agent of the test's own, which signs as PROTOCOL.u2f says a token does, touched or not, and lies where asked to.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ed25519_dalek::Signer;
use holdfast_core::envelope::Envelope;
use holdfast_core::sshsig::{PublicKey, SignatureError};
use holdfast_core::time::Timestamp;
use holdfast_core::trust::{AllowedSigners, Namespace};
use holdfast_edge::keys::{AgentError, KeyError, OperatorKey, PassphraseError, Sign as _, SignError, SigningKey};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

/// The real `ssh-agent`, ended with the value.
struct Agent {
    process: Child,
    socket: PathBuf,
}

impl Agent {
    fn start(dir: &Path) -> Self {
        let socket = dir.join("agent.socket");
        let mut agent = Command::new("ssh-agent");
        agent.arg("-D").arg("-a").arg(&socket).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = agent.spawn().expect("ssh-agent is installed (Debian: openssh-client)");
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < deadline, "ssh-agent does not listen");
            std::thread::yield_now();
        }
        Self { process, socket }
    }

    /// `ssh-add` with these arguments; `secret` is what it is told when it asks.
    fn add(&self, args: &[&str], secret: &str) {
        let ask = self.socket.with_file_name("askpass");
        std::fs::write(&ask, format!("#!/bin/sh\necho '{secret}'\n")).expect("written");
        run("chmod", &["700", &ask.to_string_lossy()]);
        let mut add = Command::new("ssh-add");
        add.args(args).env("SSH_AUTH_SOCK", &self.socket).env("SSH_ASKPASS", &ask).env("SSH_ASKPASS_REQUIRE", "force");
        let output = add.stdin(Stdio::null()).output().expect("ssh-add");
        assert!(output.status.success(), "{output:?}");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Ended already, or ends now.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn run(program: &str, args: &[&str]) -> Output {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().expect(program);
    assert!(output.status.success(), "{output:?}");
    output
}

fn keygen(path: &Path, passphrase: &str) {
    run("ssh-keygen", &["-q", "-t", "ed25519", "-N", passphrase, "-C", "alice", "-f", &path.to_string_lossy()]);
}

/// Whether what the key seals is what alice's key counts for, by the trust root that lists it.
fn seals(key: &OperatorKey) -> Result<(), SignError> {
    let line = format!("alice namespaces=\"holdfast.approval\" {}\n", key.public_key());
    let signers = AllowedSigners::parse(line).expect("a sound line");
    let envelope = Envelope::parse(&key.seal(Namespace::Approval, b"{\"v\":1}")?).expect("an envelope");
    assert_eq!(envelope.body(), b"{\"v\":1}");
    let alice = "alice".parse().expect("a name");
    assert_eq!(envelope.verify(&signers, &alice, Namespace::Approval, Timestamp::default()), Ok(()));
    Ok(())
}

fn agent_error(result: Result<(), SignError>) -> AgentError {
    match result {
        Err(SignError::Agent(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_agent_signs_with_the_key_that_it_holds_and_says_why_where_it_does_not() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("id");
    keygen(&path, "");
    let agent = Agent::start(dir.path());
    let key = OperatorKey::load(&path.with_extension("pub"), Some(agent.socket.clone())).expect("a public half");
    assert!(matches!(key, OperatorKey::Agent(_)));

    assert!(matches!(agent_error(seals(&key)), AgentError::Empty));
    keygen(&dir.path().join("another"), "");
    agent.add(&["-q", &dir.path().join("another").to_string_lossy()], "");
    assert!(matches!(agent_error(seals(&key)), AgentError::NotLoaded { held: 1, .. }));
    agent.add(&["-q", &path.to_string_lossy()], "");
    seals(&key).expect("it is loaded");
    // With the private file gone: the agent's is the one that signs.
    std::fs::remove_file(&path).expect("removed");
    seals(&key).expect("it is still loaded");

    agent.add(&["-q", "-x"], "locked");
    let locked = agent_error(seals(&key));
    assert!(matches!(locked, AgentError::Empty) && locked.to_string().contains("ssh-add -X"), "{locked}");
    agent.add(&["-q", "-X"], "locked");
    seals(&key).expect("it is unlocked");

    let socket = agent.socket.clone();
    drop(agent);
    let gone = agent_error(seals(&key));
    assert!(matches!(gone, AgentError::Unreachable { .. }) && gone.to_string().contains("SSH_AUTH_SOCK"), "{gone}");
    assert!(gone.to_string().contains(&*socket.to_string_lossy()), "{gone}");
    let none = OperatorKey::load(&path.with_extension("pub"), None).expect("a public half");
    assert!(agent_error(seals(&none)).to_string().contains("SSH_AUTH_SOCK is not set"));
}

#[test]
fn a_key_that_must_be_confirmed_is_refused_when_nobody_confirms() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("id");
    keygen(&path, "");
    let agent = Agent::start(dir.path());
    // The agent that runs has nothing to ask with, and so it declines.
    agent.add(&["-q", "-c", &path.to_string_lossy()], "");
    let key = OperatorKey::load(&path.with_extension("pub"), Some(agent.socket.clone())).expect("a public half");
    assert!(matches!(agent_error(seals(&key)), AgentError::Refused(_)));
}

#[test]
fn what_key_names_is_looked_into() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("id");
    keygen(&path, "correct horse");
    let key = OperatorKey::load(&path, None).expect("its public half is in the clear");
    let OperatorKey::Locked(locked) = &key else { panic!("{key:?}") };
    assert!(locked.open_with(b"wrong").is_none() && locked.open_with(b"").is_none());
    let open = locked.open_with(b"correct horse").expect("its passphrase");
    assert_eq!(open.public_key(), key.public_key());
    // Nobody is at a terminal here.
    let nobody = seals(&key).expect_err("nobody types");
    assert!(matches!(nobody, SignError::Passphrase(PassphraseError::Nobody(_))), "{nobody}");

    run("ssh-keygen", &["-q", "-p", "-P", "correct horse", "-N", "", "-f", &path.to_string_lossy()]);
    let key = OperatorKey::load(&path, None).expect("without a passphrase");
    assert!(matches!(key, OperatorKey::File(_)));
    seals(&key).expect("a file signs");
    run("chmod", &["644", &path.to_string_lossy()]);
    assert!(OperatorKey::load(&path, None).expect_err("all may read it").to_string().contains("chmod 600"));

    let write = |text: &str| {
        std::fs::write(dir.path().join("wrong"), text).expect("written");
        OperatorKey::load(&dir.path().join("wrong"), None).expect_err("no key")
    };
    for text in ["", "hello", "ssh-rsa AAAA", "ssh-ed25519 AAAA"] {
        assert!(matches!(write(text), KeyError::Operator { .. }), "{text:?}");
    }
    let missing = OperatorKey::load(&dir.path().join("nothing"), None).expect_err("missing");
    assert!(matches!(missing, KeyError::File(_)));
    run("ssh-keygen", &["-q", "-t", "ecdsa", "-N", "", "-f", &dir.path().join("ecdsa").to_string_lossy()]);
    assert!(matches!(OperatorKey::load(&dir.path().join("ecdsa"), None), Err(KeyError::Type { .. })));
}

/// A token made of software.
#[derive(Clone, Copy)]
enum Token {
    Ed25519,
    P256,
}

fn strings(parts: &[&[u8]]) -> Vec<u8> {
    parts.iter().flat_map(|part| [&(part.len() as u32).to_be_bytes()[..], part].concat()).collect()
}

impl Token {
    const fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "sk-ssh-ed25519@openssh.com",
            Self::P256 => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }

    fn blob(self) -> Vec<u8> {
        let name = self.name().as_bytes();
        match self {
            Self::Ed25519 => strings(&[name, ed25519().verifying_key().as_bytes(), b"ssh:"]),
            Self::P256 => {
                let point = p256().verifying_key().to_encoded_point(false);
                strings(&[name, b"nistp256", point.as_bytes(), b"ssh:"])
            }
        }
    }

    fn proof(self, flags: u8, message: &[u8]) -> Vec<u8> {
        let mut data = Sha256::digest(b"ssh:").to_vec();
        data.extend([flags, 0, 0, 0, 9]);
        data.extend(Sha256::digest(message));
        let inner = match self {
            Self::Ed25519 => ed25519().sign(&data).to_bytes().to_vec(),
            Self::P256 => {
                let signature: p256::ecdsa::Signature = p256().sign(&data);
                let (r, s) = signature.split_bytes();
                strings(&[&mpint(&r), &mpint(&s)])
            }
        };
        let mut proof = strings(&[self.name().as_bytes(), &inner]);
        proof.extend([flags, 0, 0, 0, 9]);
        proof
    }
}

fn ed25519() -> ed25519_dalek::SigningKey {
    ed25519_dalek::SigningKey::from_bytes(&[3; 32])
}

fn p256() -> p256::ecdsa::SigningKey {
    p256::ecdsa::SigningKey::from_slice(&[3; 32]).expect("a scalar")
}

fn mpint(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(0);
    [if bytes[start] >= 0x80 { &[0][..] } else { &[] }, &bytes[start..]].concat()
}

/// What the test's own agent answers, given what it is asked: a whole answer, without its length.
type Answer = Box<dyn Fn(&[u8]) -> Vec<u8> + Send>;

/// Serves one connection after another.
fn lying_agent(dir: &Path, answer: Answer) -> PathBuf {
    let socket = dir.join("lying.socket");
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).expect("a socket");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut length = [0; 4];
            while stream.read_exact(&mut length).is_ok() {
                let mut request = vec![0; u32::from_be_bytes(length) as usize];
                stream.read_exact(&mut request).expect("the whole question");
                // Whoever does not like the answer goes away.
                let _ = stream.write_all(&answer(&request));
            }
        }
    });
    socket
}

fn framed(answer: &[u8]) -> Vec<u8> {
    strings(&[answer])
}

/// An agent with a token, that is touched or not: what it lists, and what it signs.
fn with_token(token: Token, flags: u8) -> Answer {
    Box::new(move |request| match request[0] {
        11 => framed(&[&[12, 0, 0, 0, 1][..], &strings(&[&token.blob(), b"a token"])].concat()),
        13 => {
            let key = strings(&[&token.blob()]);
            let rest = request[1..].strip_prefix(key.as_slice()).expect("the token's key is asked for");
            let (length, rest) = rest.split_at(4);
            let length = u32::from_be_bytes(length.try_into().expect("four")) as usize;
            assert_eq!(rest[length..], [0; 4], "no flags");
            framed(&[&[14][..], &strings(&[&token.proof(flags, &rest[..length])])].concat())
        }
        other => panic!("nobody asks an agent for {other} here"),
    })
}

fn public_file(dir: &Path, blob: &[u8]) -> PathBuf {
    let path = dir.join("token.pub");
    let public = PublicKey::from_blob(blob).expect("a sound key");
    std::fs::write(&path, format!("{public} a token\n")).expect("written");
    path
}

#[test]
fn a_touched_token_signs_and_an_untouched_ones_signature_goes_nowhere() {
    let dir = TempDir::new().expect("a directory");
    for token in [Token::Ed25519, Token::P256] {
        let path = public_file(dir.path(), &token.blob());
        let socket = lying_agent(dir.path(), with_token(token, 1));
        seals(&OperatorKey::load(&path, Some(socket)).expect("a token's public half")).expect("touched");
        let socket = lying_agent(dir.path(), with_token(token, 5));
        seals(&OperatorKey::load(&path, Some(socket)).expect("a token's public half")).expect("touched, and a PIN");
        for untouched in [0, 4] {
            let socket = lying_agent(dir.path(), with_token(token, untouched));
            let refused = agent_error(seals(&OperatorKey::load(&path, Some(socket)).expect("a public half")));
            assert!(matches!(refused, AgentError::Worthless(SignatureError::NoPresence)), "{refused}");
        }
    }
}

/// What it is, the answer to a request to sign, and the error that it is.
type Nonsense = (&'static str, Vec<u8>, fn(&AgentError) -> bool);

#[test]
fn an_agent_that_lies_or_talks_nonsense_gets_nothing_sent() {
    let dir = TempDir::new().expect("a directory");
    let key = SigningKey::generate().expect("random numbers");
    let blob = key.public_key().as_blob().to_vec();
    let path = public_file(dir.path(), &blob);
    let listed = framed(&[&[12, 0, 0, 0, 1][..], &strings(&[&blob, b"alice"])].concat());
    let signed = |with: &ed25519_dalek::SigningKey, over: &[u8]| {
        framed(&[&[14][..], &strings(&[&strings(&[b"ssh-ed25519", &with.sign(over).to_bytes()])])].concat())
    };
    let cases: Vec<Nonsense> = vec![
        ("another's signature", signed(&ed25519(), b"?"), |e| matches!(e, AgentError::Worthless(_))),
        (
            "a signature of another type",
            framed(&[&[14][..], &strings(&[&strings(&[b"ssh-rsa", &[1; 64]])])].concat()),
            |e| matches!(e, AgentError::Worthless(_)),
        ),
        ("no", framed(&[5]), |e| matches!(e, AgentError::Refused(_))),
        ("another answer", framed(&[6]), |e| matches!(e, AgentError::Protocol(_))),
        ("an empty answer", vec![0; 4], |e| matches!(e, AgentError::Protocol(_))),
        ("a boast", vec![0xff; 4], |e| matches!(e, AgentError::Protocol(_))),
        ("half a signature", framed(&[14, 0, 0, 1, 0, 7]), |e| matches!(e, AgentError::Protocol(_))),
        ("more than a signature", framed(&[14, 0, 0, 0, 1, 7, 7]), |e| matches!(e, AgentError::Protocol(_))),
    ];
    for (what, answer, expected) in cases {
        let listed = listed.clone();
        let answers = move |request: &[u8]| if request[0] == 11 { listed.clone() } else { answer.clone() };
        let socket = lying_agent(dir.path(), Box::new(answers));
        let error = agent_error(seals(&OperatorKey::load(&path, Some(socket)).expect("a public half")));
        assert!(expected(&error), "{what}: {error}");
    }
    for list in [&[12, 0xff, 0xff, 0xff, 0xff][..], &[12, 0], &[14], &[12, 0, 0, 0, 1, 0, 0, 0, 9, 1]] {
        let list = framed(list);
        let socket = lying_agent(dir.path(), Box::new(move |_| list.clone()));
        let error = agent_error(seals(&OperatorKey::load(&path, Some(socket)).expect("a public half")));
        assert!(matches!(error, AgentError::Protocol(_)), "{error}");
    }
    let no_socket = Some(dir.path().join("x".repeat(200)));
    let error = agent_error(seals(&OperatorKey::load(&path, no_socket).expect("a public half")));
    assert!(matches!(error, AgentError::Unreachable { .. }), "{error}");
}

#[test]
fn a_tokens_own_file_is_taken_for_the_key_in_the_agent() {
    let dir = TempDir::new().expect("a directory");
    let public =
        ssh_key::PublicKey::from_openssh(&PublicKey::from_blob(&Token::Ed25519.blob()).expect("sound").to_openssh());
    let public = public.expect("sound");
    let handle =
        ssh_key::private::SkEd25519::new(public.key_data().sk_ed25519().expect("its type").clone(), 1, [7; 64]);
    let data = ssh_key::private::KeypairData::SkEd25519(handle.expect("a handle"));
    let file = ssh_key::PrivateKey::new(data, "a token").and_then(|key| key.to_openssh(ssh_key::LineEnding::LF));
    let path = dir.path().join("id_ed25519_sk");
    std::fs::write(&path, file.expect("encoded")).expect("written");
    run("chmod", &["600", &path.to_string_lossy()]);
    // It is the form in which OpenSSH keeps them.
    let shown = run("ssh-keygen", &["-y", "-f", &path.to_string_lossy()]).stdout;
    assert!(String::from_utf8_lossy(&shown).starts_with(&public.to_openssh().expect("text")));

    let socket = lying_agent(dir.path(), with_token(Token::Ed25519, 1));
    let key = OperatorKey::load(&path, Some(socket)).expect("a token's file");
    assert!(matches!(key, OperatorKey::Agent(_)));
    seals(&key).expect("the agent has the token");
}

//! Something that stands where a Vault should, and answers as no Vault does: written from the API's description.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use crate::holders::fingerprint;
use crate::refusals::{Made, Table};
use crate::world::{base64, text};

/// What is sent back: a status line's end, headers, a body, and how much of the body.
struct Reply {
    status: &'static str,
    headers: String,
    body: Vec<u8>,
    sent: usize,
}

impl Reply {
    fn new(status: &'static str, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self { status, headers: String::new(), sent: body.len(), body }
    }

    fn json(status: &'static str, body: &Value) -> Self {
        Self::new(status, body.to_string())
    }
}

/// The usual answers of a Vault that is not initialised, or is.
fn usual(path: &str, initialized: bool) -> Reply {
    match path {
        "/v1/sys/seal-status" => {
            let (t, n) = if initialized { (2, 2) } else { (0, 0) };
            let status = json!({
                "type": "shamir", "initialized": initialized, "sealed": true, "t": t, "n": n, "progress": 0, "nonce": "",
            });
            Reply::json("200 OK", &status)
        }
        "/v1/sys/health" => Reply::json("501 Not Implemented", &json!({ "server_time_utc": 4_000_000_000_i64 })),
        _ => Reply::json("404 Not Found", &json!({ "errors": [] })),
    }
}

/// Starts it, with the certificate in `dir`: its address. It ends with the test's process.
fn start(dir: &Path, answer: impl Fn(&str) -> Reply + Send + 'static) -> String {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let chain = CertificateDer::from_pem_file(dir.join("tls.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(dir.join("tls.key")).expect("a key");
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![chain], key).expect("they match");
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("https://{}", listener.local_addr().expect("bound"));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let tls = ServerConnection::new(Arc::clone(&config)).expect("a configuration");
            // Whoever breaks off is the one who is tested.
            let _ = serve(StreamOwned::new(tls, stream), &answer);
        }
    });
    url
}

fn serve(mut stream: StreamOwned<ServerConnection, TcpStream>, answer: &impl Fn(&str) -> Reply) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().expect("a number"));
    stream.read_exact(&mut vec![0; length])?;
    let reply = answer(head.split(' ').nth(1).expect("a path"));
    write!(stream, "HTTP/1.1 {}\r\n{}content-length: {}\r\n\r\n", reply.status, reply.headers, reply.body.len())?;
    stream.write_all(&reply.body[..reply.sent])?;
    stream.conn.send_close_notify();
    stream.flush()
}

/// A Vault that answers the initialisation so, and says afterwards whether it is initialised.
fn vault(dir: &Path, initialized: bool, answer: impl Fn() -> Reply + Send + 'static) -> String {
    let asked = AtomicBool::new(false);
    start(dir, move |path| {
        if path == "/v1/sys/init" {
            asked.store(true, Ordering::SeqCst);
            return answer();
        }
        usual(path, initialized && asked.load(Ordering::SeqCst))
    })
}

#[test]
fn what_gives_no_vaults_answer_is_not_initialised() {
    let table = Table::lay();
    let refused = |words: &str, answer: fn(&str) -> Reply| {
        let url = start(table.dir.path(), answer);
        table.init(|init| init.vault = url).refused(1, words);
        assert!(!table.path("out").exists(), "nothing was begun");
    };
    refused("is a Vault's API at this address?", |_| Reply::new("200 OK", "<html>hello</html>"));
    refused("is a Vault's API at this address?", |_| Reply::new("200 OK", ""));
    refused("with more than", |_| Reply::new("200 OK", vec![b' '; 10 << 20]));
    refused("answered 403", |_| Reply::json("403 Forbidden", &json!({ "errors": ["permission denied"] })));
    refused("answered 302", |path| {
        let mut reply = Reply::new("302 Found", "");
        reply.headers = format!("location: https://127.0.0.1:1{path}\r\n");
        reply
    });
    refused("did not answer", |path| {
        let mut reply = usual(path, false);
        reply.sent /= 2;
        reply
    });
    refused("is initialised already", |path| usual(path, true));
    refused("OpenPGP key is younger than that", |path| match path {
        "/v1/sys/health" => Reply::json("501 Not Implemented", &json!({ "server_time_utc": 1_000_000_000 })),
        _ => usual(path, false),
    });
}

#[test]
fn an_initialisation_that_fails_says_what_state_it_left() {
    let table = Table::lay();
    let mut outputs = 0;
    let mut refused = |initialized, words: &str, answer: fn() -> Reply| {
        outputs += 1;
        let url = vault(table.dir.path(), initialized, answer);
        let output = table.path(&format!("out-{outputs}"));
        let done = table.init(|init| {
            init.vault = url;
            init.output = text(&output).to_owned();
        });
        done.refused(1, words);
        assert!(!output.join("prod.manifest.json").exists(), "no manifest of shares that nobody got");
        output
    };
    let bad_key = || Reply::json("400 Bad Request", &json!({ "errors": ["error parsing PGP key"] }));
    refused(false, "the Vault was not initialised: ", bad_key);
    refused(true, "error parsing PGP key; ", bad_key);
    refused(true, "is initialised now, with shares that nobody got", || {
        let mut reply = Reply::new("200 OK", vec![b'x'; 1000]);
        reply.sent = 10;
        reply
    });

    // Whatever it answers with success is kept before it is looked at.
    let mut kept = |words: &str, answer: fn() -> Reply| {
        let output = refused(true, words, answer);
        assert_eq!(fs::read(output.join("init-response.json")).expect("kept"), answer().body);
    };
    kept("it is not an init answer", || Reply::new("200 OK", "<html>"));
    kept("it has 1 shares, and 2 were asked for", || {
        Reply::json("200 OK", &json!({ "keys": ["00"], "root_token": "" }))
    });
    // It took no notice of the keys: these shares are in the clear.
    kept("no share in it is encrypted to custodian-1 alone", || {
        Reply::json("200 OK", &json!({ "keys": ["11".repeat(33), "22".repeat(33)], "root_token": "s.clear" }))
    });
}

#[test]
fn each_share_goes_to_whom_it_is_encrypted_to_in_whatever_order_they_come() {
    let table = Table::lay();
    let messages: Vec<_> =
        table.hosts.iter().rev().map(|host| hex::encode(table.encrypt_to(host, &[b'1'; 66]))).collect();
    let alice = table.gpg_encrypt("=alice", b"s.token");
    let answer = json!({ "keys": messages, "root_token": base64(&alice), "keys_base64": [], "new_field": 1 });
    let url = vault(table.dir.path(), true, move || Reply::json("200 OK", &answer));
    let done = table.init(|init| init.vault = url);
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.out.contains("FINGERPRINT NOT COMPARED"), "--yes is said to have skipped something: {}", done.out);
    let manifest = table.path("out/prod.manifest.json");
    for host in &table.hosts {
        let packet = table.path(&format!("out/packets/{}.packet.json", host.id));
        assert_eq!(host.install(&packet, &manifest).json()["custodian"], host.id);
    }

    // Both for one of them: the other has none, and nobody is given what is not his.
    let message = hex::encode(table.encrypt_to(&table.hosts[0], &[b'1'; 66]));
    let answer = json!({ "keys": [message, message], "root_token": base64(&alice) });
    let url = vault(table.dir.path(), true, move || Reply::json("200 OK", &answer));
    let done = table.init(|init| {
        init.vault = url;
        init.output = text(&table.path("out-2")).to_owned();
    });
    done.refused(1, "no share in it is encrypted to custodian-2 alone");
}

#[test]
fn an_answer_that_the_disk_does_not_take_is_shown_and_can_be_put_back() {
    let table = Table::lay();
    let messages: Vec<_> = table.hosts.iter().map(|host| hex::encode(table.encrypt_to(host, &[b'1'; 66]))).collect();
    let answer = json!({ "keys": messages, "root_token": base64(&table.gpg_encrypt("=alice", b"s.token")) });
    let output = table.path("out");
    // In the way of the answer, since the moment at which it was asked for.
    let obstacle = output.join(".init-response.json.next");
    let (reply, laid) = (answer.clone(), obstacle.clone());
    let url = vault(table.dir.path(), true, move || {
        fs::create_dir(&laid).expect("made");
        Reply::json("200 OK", &reply)
    });
    let done = table.init(|init| init.vault = url);
    done.refused(1, "could not be kept: it was printed above instead, all of it encrypted");
    assert_eq!(done.out.trim_end(), answer.to_string());

    fs::remove_dir(&obstacle).expect("removed");
    fs::write(output.join("init-response.json"), done.out).expect("written");
    let resumed = crate::world::holdfast(&["init", "--resume", text(&output), "--json"]).json();
    assert_eq!(resumed["result"], "resumed");
    assert!(output.join("prod.manifest.json").is_file());
}

/// What HashiCorp Vault answers while a rotation waits: flat, below another path, and 403 for a path that it does not have.
fn hashicorps(asked: Arc<Mutex<Vec<String>>>, rekey: Value) -> impl Fn(&str) -> Reply + Send + 'static {
    move |path| {
        asked.lock().expect("no test panicked in it").push(path.to_owned());
        match path {
            "/v1/sys/rekey/init" if rekey.is_object() => Reply::json("200 OK", &rekey),
            "/v1/sys/rekey/verify" => {
                Reply::json("200 OK", &json!({ "nonce": "v-1", "started": true, "t": 2, "n": 2, "progress": 1 }))
            }
            _ => Reply::json("403 Forbidden", &json!({ "errors": ["permission denied"] })),
        }
    }
}

#[test]
fn a_new_share_is_given_in_hashicorps_form_too_and_to_a_pinned_key_alone() {
    let table = Table::lay();
    let (host, made) = (&table.hosts[0], Made::new(&table.hosts, &table.gpg));
    let [packet, manifest, token] = ["packet.json", "manifest.json", "token"].map(|name| table.path(name));
    fs::write(&packet, made.packets[0].to_string()).expect("written");
    fs::write(&manifest, made.manifest.to_string()).expect("written");
    fs::write(&token, "hvs.token").expect("written");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("its own file");
    host.install(&packet, &manifest).json();

    let asked = Arc::new(Mutex::new(Vec::new()));
    let key = fingerprint(&table.gpg, "=custodian-1 (Holdfast transport key)");
    let waits = |nonce: &str| {
        json!({
            "nonce": "r-1", "started": true, "t": 2, "n": 2, "progress": 0, "required": 2, "backup": false,
            "pgp_fingerprints": [key, "ab".repeat(20)], "verification_required": true, "verification_nonce": nonce,
        })
    };
    let verify = |rekey: Value, more: &[&str]| {
        asked.lock().expect("no test panicked in it").clear();
        let url = start(table.dir.path(), hashicorps(Arc::clone(&asked), rekey));
        let (ca, files) = (table.path("ca.pem"), ["--token-file", text(&token), "--manifest", text(&manifest)]);
        let args = ["--vault", &url, "--ca-cert", text(&ca), "--nonce", "v-1"];
        (host.setup("verify", &[&args[..], &files, more].concat()), asked.lock().expect("as above").clone())
    };

    let (done, _) = verify(waits("v-1"), &[]);
    assert!(done.err.contains("NO PIN"), "{}", done.err);
    let report = done.json();
    assert_eq!(
        [&report["result"], &report["progress"], &report["required"], &report["pinned"]],
        [&json!("counted"), &json!(1), &json!(2), &json!(false)]
    );
    // Neither path is for this token: the first refusal is the one that tells.
    verify(Value::Null, &[]).0.refused(1, "/v1/sys/rotate/root/init answered 403 Forbidden: permission denied");
    let (done, _) = verify(waits("v-2\u{1b}[2J\u{202e}"), &[]);
    done.refused(1, "the verification's nonce is v-2");
    assert!(!done.err.contains(['\u{1b}', '\u{202e}']), "{:?}", done.err);

    verify(waits("v-1"), &["--spki-sha256", "abc"]).0.refused(2, "is not an SPKI pin");
    let (done, asked) = verify(waits("v-1"), &["--spki-sha256", &"00".repeat(32)]);
    done.refused(1, "its key is none of those in spki_sha256");
    assert!(asked.is_empty(), "no token was sent: {asked:?}");
    let (_, seen) = done.err.split_once("it has the pin ").expect("said");
    let seen = seen.split('.').next().expect("a pin");
    let (done, _) = verify(waits("v-1"), &["--spki-sha256", &"00".repeat(32), "--spki-sha256", seen]);
    assert!(!done.err.contains("NO PIN"), "{}", done.err);
    assert_eq!(done.json()["pinned"], true);
}

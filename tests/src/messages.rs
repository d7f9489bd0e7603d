//! Messages, written from docs/PROTOCOL.md and signed by OpenSSH: what anybody with a key, or with none, could send.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A body that is still to be signed. Its fields are as wrong as a test wants them.
#[derive(Debug, Clone)]
pub struct Draft {
    /// `v`.
    pub version: u32,
    /// `kind`.
    pub kind: String,
    /// `id`.
    pub id: String,
    /// `cluster`.
    pub cluster: String,
    /// `from`.
    pub from: String,
    /// `issued_at`.
    pub issued_at: Timestamp,
    /// `expires_at`, if it is to have one.
    pub expires_at: Option<Timestamp>,
    /// `content`.
    pub content: Value,
}

impl Draft {
    /// An approval that is as it should be: issued now, good for ten minutes.
    pub fn approval(cluster: &str, from: &str, node: &str) -> Self {
        let now = Timestamp::now();
        Self {
            version: 1,
            kind: "approval".to_owned(),
            id: random_id(),
            cluster: cluster.to_owned(),
            from: from.to_owned(),
            issued_at: now,
            expires_at: Some(now + Duration::from_secs(600)),
            content: json!({ "node": node }),
        }
    }

    /// A message of another kind that is as it should be: issued now, without an end.
    pub fn message(kind: &str, cluster: &str, from: &str, content: Value) -> Self {
        let draft = Self::approval(cluster, from, "");
        Self { kind: kind.to_owned(), expires_at: None, content, ..draft }
    }

    /// The bytes to be signed.
    pub fn body(&self) -> Vec<u8> {
        let mut body = json!({
            "v": self.version, "kind": self.kind, "id": self.id, "cluster": self.cluster, "from": self.from,
            "issued_at": rfc3339(self.issued_at), "content": self.content,
        });
        if let Some(at) = self.expires_at {
            body["expires_at"] = rfc3339(at).into();
        }
        body.to_string().into_bytes()
    }

    /// The envelope, signed in the namespace that belongs to its kind; that of an approval, for a kind that is none.
    pub fn signed(&self, key: &Path) -> Vec<u8> {
        let namespace = match self.kind.as_str() {
            "event" => "holdfast.event",
            "hold" | "release" | "distrust" | "trust" | "drill" => "holdfast.order",
            "due" | "intent" | "drill-report" => "holdfast.intent",
            "heartbeat" | "sighting" | "receipt" | "refusal" | "acknowledgement" | "want" | "relay" => {
                "holdfast.report"
            }
            _ => "holdfast.approval",
        };
        seal(&self.body(), namespace, key)
    }

    /// The routing key under which it belongs.
    pub fn routing_key(&self) -> String {
        format!("{}.{}.{}", self.cluster, self.from, self.kind)
    }
}

/// An envelope around these bytes, signed by `ssh-keygen` with this key in this namespace.
pub fn seal(body: &[u8], namespace: &str, key: &Path) -> Vec<u8> {
    envelope(body, &signature(body, namespace, key))
}

/// An envelope around these bytes with this signature.
pub fn envelope(body: &[u8], signature: &str) -> Vec<u8> {
    json!({ "body": BASE64_STANDARD.encode(body), "signature": signature }).to_string().into_bytes()
}

/// An armoured signature by `ssh-keygen`.
pub fn signature(body: &[u8], namespace: &str, key: &Path) -> String {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-Y", "sign", "-n", namespace, "-f"]).arg(key);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("ssh-keygen");
    child.stdin.take().expect("a pipe").write_all(body).expect("written");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("armour")
}

/// A new key of nobody's, in `folder`.
pub fn strangers_key(folder: &Path) -> PathBuf {
    let key = folder.join("stranger.key");
    if !key.exists() {
        let file = key.to_string_lossy();
        crate::programs::tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "nobody", "-f", &file]);
    }
    key
}

/// The id in a cluster's manifest.
pub fn cluster_id(manifest: &Path) -> String {
    let manifest: Value = serde_json::from_slice(&std::fs::read(manifest).expect("a manifest")).expect("JSON");
    manifest["id"].as_str().expect("a manifest names its cluster's id").to_owned()
}

/// What base64 stands for.
pub fn unbase64(text: &str) -> Vec<u8> {
    BASE64_STANDARD.decode(text).expect("base64")
}

/// SHA-256, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// An id that nobody used before.
pub fn random_id() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("random numbers");
    hex::encode(bytes)
}

/// RFC 3339 in UTC with milliseconds.
pub fn rfc3339(at: Timestamp) -> String {
    format!("{at:.3}")
}

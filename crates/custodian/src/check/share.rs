//! A share: whether it is the one that was installed, and what lies beside it that should not.

use std::fs;
use std::path::{Path, PathBuf};

use holdfast_core::ceremony::{PACKET_MAX, Packet, TRANSPORT_KEY_FILE};
use holdfast_core::id::ClusterId;
use holdfast_edge::checkup::{Finding, secret_file};
use holdfast_edge::files::{CREDENTIALS, FileError, read_bounded};
use holdfast_edge::keys::IdentityError;
use holdfast_edge::store::StoreError;

use super::host;
use crate::config::{ClusterFiles, Config};

/// The most files of a folder that are looked at.
const FILES_MAX: usize = 1_000;

/// Looks at one cluster's share.
pub(super) fn examine(config: &Config, id: ClusterId, files: &ClusterFiles) -> Vec<Finding> {
    let mut findings = Vec::new();
    let identity = files.store.identity_path();
    let kept_by_systemd = identity.starts_with(CREDENTIALS);
    if !kept_by_systemd && let Some(owner) = host::owner(config) {
        findings.push(secret_file("key-file", "the age identity", identity, owner));
    }
    if kept_by_systemd {
        findings.push(Finding::ok("identity", format!("the age identity comes from systemd: {}", identity.display())));
    } else {
        let shown = identity.display();
        let what =
            format!("the age identity is a plain file, {shown}: a thief of this disk has the share and what opens it");
        let remedy = "give it as a systemd credential, sealed to this machine (systemd-creds encrypt, LoadCredentialEncrypted=), \
                      and name its path below /run/credentials in identity";
        findings.push(Finding::warning("identity", what, remedy));
    }
    findings.push(share(config, id, files));
    findings.extend(leftovers(files.store.share_path()));
    findings
}

fn share(config: &Config, id: ClusterId, files: &ClusterFiles) -> Finding {
    let settings = &config.settings.clusters[&id];
    let (generation, shares, threshold) = (settings.generation, settings.shares, settings.threshold);
    match files.store.unlock(id, generation, &config.id) {
        Ok(sound) => Finding::ok(
            "share",
            format!(
                "share {} decrypts and matches its digest: generation {generation}, as in the manifest; {threshold} of {shares} \
                 open a node",
                sound.share().x()
            ),
        ),
        Err(error) => Finding::failed("share", error.to_string(), share_remedy(&error, files)),
    }
}

fn share_remedy(error: &StoreError, files: &ClusterFiles) -> String {
    let (share, identity) = (files.store.share_path().display(), files.store.identity_path().display());
    match error {
        StoreError::NotInstalled(_) | StoreError::Interrupted { .. } => {
            "holdfast-setup install --packet PACKET --manifest MANIFEST --dir FOLDER".to_owned()
        }
        StoreError::Elsewhere { .. } => {
            "name the share and the manifest that belong together in the configuration".to_owned()
        }
        StoreError::Identity(IdentityError::File(FileError::Permissions { .. })) => {
            format!("find out who may have read it, then: chmod 600 {identity}")
        }
        StoreError::Identity(_) => format!("restore {identity} from this host's backup, mode 0600"),
        _ => format!(
            "restore {share}, its record and {identity} from this host's backup; without one, this share is lost"
        ),
    }
}

/// What a ceremony may have left beside the share, and that gives it away.
fn leftovers(share: &Path) -> Vec<Finding> {
    const CHECK: &str = "leftover";
    let folder = folder_of(share);
    let key = share.with_file_name(TRANSPORT_KEY_FILE);
    let has_key = fs::exists(&key).unwrap_or(false);
    let packets = packets(folder);
    let shred = |paths: &[PathBuf]| {
        let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        format!("once the share is sound: shred -u {}", names.join(" "))
    };
    let mut findings = Vec::new();
    if has_key && !packets.is_empty() {
        let what = format!(
            "{} and a packet lie beside the share: the two together are the share in another form",
            key.display()
        );
        findings.push(Finding::failed(CHECK, what, shred(&[packets, vec![key]].concat())));
    } else if has_key {
        let what = format!("{} is still there: with a copy of the packet it gives the share", key.display());
        findings.push(Finding::warning(CHECK, what, shred(&[key])));
    } else if !packets.is_empty() {
        let what = "a packet is still there: with a copy of transport.key it gives the share";
        findings.push(Finding::warning(CHECK, what, shred(&packets)));
    } else {
        findings.push(Finding::ok(CHECK, format!("no transport key and no packet are left in {}", folder.display())));
    }
    findings
}

/// The packets in a folder, whatever they are called.
fn packets(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(FILES_MAX);
    let json = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "json"));
    json.filter(|path| read_bounded(path, PACKET_MAX).is_ok_and(|bytes| Packet::parse(&bytes).is_ok())).collect()
}

/// The folder that a path lies in; a relative path's may be the empty one, which is this one.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

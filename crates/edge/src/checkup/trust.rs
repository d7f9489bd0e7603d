//! The trust root against those whose word is to count: the manifest's custodians, and the people that are named.

use holdfast_core::ceremony::Manifest;
use holdfast_core::id::Principal;
use holdfast_core::time::Timestamp;
use holdfast_core::trust::{AllowedSigners, Namespace};

use super::finding::Finding;

/// Whether the trust root knows each custodian of the manifest by the key that was enrolled: else its reports are refused.
pub fn custodians_listed(manifest: &Manifest, trust: &AllowedSigners, now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in manifest.custodians() {
        if let Err(why) = trust.authorise(&member.id, Namespace::Report, &member.signing_key, now) {
            let what = format!("allowed_signers and the manifest do not agree on {}: {why}", member.id);
            let line = format!("{} namespaces=\"{}\" {}", member.id, Namespace::Report, member.signing_key);
            findings.push(Finding::failed(
                "trust",
                what,
                format!("have this line in allowed_signers, everywhere: {line}"),
            ));
        }
    }
    if findings.is_empty() {
        let count = manifest.custodians().len();
        findings
            .push(Finding::ok("trust", format!("allowed_signers knows all {count} custodians by their enrolled keys")));
    }
    findings
}

/// Whether the trust root knows each of these people, or programs, in a role now. `needed` of them have to be there for what
/// the policy asks for.
pub fn people_listed<'a>(
    role: &str,
    names: impl IntoIterator<Item = &'a Principal>,
    namespace: Namespace,
    needed: usize,
    trust: &AllowedSigners,
    now: Timestamp,
) -> Option<Finding> {
    let counts = |name: &Principal| {
        trust
            .signers()
            .filter(|s| s.principal() == name)
            .any(|s| trust.authorise(name, namespace, s.key(), now).is_ok())
    };
    let (known, unknown): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| counts(name));
    let list = |names: &[&Principal]| names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    let remedy =
        format!("add a line with namespaces=\"{namespace}\" to allowed_signers, everywhere; or take the name out");
    if known.len() < needed {
        let what = format!(
            "the policy asks for {needed} {role}s, and allowed_signers knows {} whose word counts now{}",
            known.len(),
            if unknown.is_empty() { String::new() } else { format!(", not {}", list(&unknown)) }
        );
        return Some(Finding::failed("people", what, remedy));
    }
    if !unknown.is_empty() {
        let what = format!("allowed_signers has no key that counts now of this {role}: {}", list(&unknown));
        return Some(Finding::warning("people", what, remedy));
    }
    (!known.is_empty()).then(|| Finding::ok("people", format!("allowed_signers knows each {role}: {}", list(&known))))
}

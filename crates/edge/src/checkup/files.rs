//! Secrets on the disk: who may use them, and whose they are.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::finding::Finding;

/// The permission bits of everybody but the owner.
const OTHERS: u32 = 0o077;

/// How a file stands that only the user `owner`, by number, is to use. `what` is how a person calls it.
pub fn secret_file(check: &'static str, what: &str, path: &Path, owner: u32) -> Finding {
    let shown = path.display();
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) => {
            let what = format!("{what}: {shown} cannot be looked at: {error}");
            return Finding::failed(check, what, "restore it, or mend its path in the configuration");
        }
    };
    let mode = meta.mode() & 0o7777;
    if mode & OTHERS != 0 {
        let what = format!("{what}: others than its owner may use {shown} (mode {mode:04o})");
        return Finding::failed(check, what, format!("chmod 600 {shown}"));
    }
    if meta.uid() != owner {
        let what = format!("{what}: {shown} belongs to user {}, and user {owner} is the one who needs it", meta.uid());
        return Finding::failed(check, what, format!("chown {owner} {shown}"));
    }
    Finding::ok(check, format!("{what}: {shown} is its owner's alone (mode {mode:04o})"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::checkup::Grade;

    #[test]
    fn modes_and_owners_are_told_with_what_mends_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        fs::write(&path, "secret").expect("written");
        let me = fs::metadata(&path).expect("there").uid();
        let chmod = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its own");
        for (mode, grade) in [(0o600, Grade::Ok), (0o400, Grade::Ok), (0o640, Grade::Failed), (0o604, Grade::Failed)] {
            chmod(mode);
            assert_eq!(secret_file("x", "the key", &path, me).grade, grade, "{mode:o}");
        }
        let told = secret_file("x", "the key", &path, me).remedy.expect("there is something to do");
        assert_eq!(told, format!("chmod 600 {}", path.display()));
        chmod(0o600);
        let told = secret_file("x", "the key", &path, me + 1).remedy.expect("there is something to do");
        assert_eq!(told, format!("chown {} {}", me + 1, path.display()));
        assert_eq!(secret_file("x", "the key", &folder.path().join("none"), me).grade, Grade::Failed);
    }
}

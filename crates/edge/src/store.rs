//! The share at rest: an age file, and beside it the salted digest by which its custodian knows it again.
//!
//! The share's file is a standard age file whose content is the share in hexadecimal, so that `age -d` reads it. The record
//! (`FILE.record`) is public, and its presence is what makes an installation complete: the share's file is brought to the
//! disk first, whole, and the record after it. So a crash leaves one of these, and the next `install` of the same share
//! goes on from each:
//!
//! | share | record | what it means | the next `install` of the same share | `unlock` |
//! |---|---|---|---|---|
//! | no | no | nothing has happened | writes both | [`StoreError::NotInstalled`] |
//! | yes | no | the crash came between | compares, writes the record | [`StoreError::Interrupted`] |
//! | yes | yes | installed | compares, changes nothing | the share |
//! | no | yes | somebody removed the share's file | compares, writes the share's file | [`StoreError::NotInstalled`] |
//!
//! A rotation makes a new **generation** of shares, and a node that slept through it still needs the old one once. So the
//! older pair is kept beside the new: `prod.share.age` of generation 1 becomes `prod.share.1.age`, with its record. Each step
//! leaves what the next `install` of the same new share understands, and no step leaves less than one whole pair:
//!
//! | step | `prod.share.age` | its record | `prod.share.1.age` and its record |
//! |---|---|---|---|
//! | before | old | old | no |
//! | second names | old | old | old |
//! | the record's first name goes | old | no | old |
//! | the new share takes the old one's place | new | no | old |
//! | the new record | new | new | old |
//!
//! Whoever asks for the old generation is given it at every one of these steps, wherever it lies: the shares of a rotation
//! become valid when the Vault has verified them, which is after they were installed, and until then the old ones open it.
//!
//! Nothing here overwrites or removes the only copy of a share but [`ShareStore::retire`]. Whatever does not fit is refused, and
//! people move it away.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use holdfast_core::id::{ClusterId, Principal};
use holdfast_core::share::{SHARE_LEN, Share, ShareError, ShareRecord};
use zeroize::Zeroizing;

use crate::files::{self, Action, FileError, PUBLIC_MODE, SECRET_MODE};
use crate::keys::{AgeIdentity, IdentityError, OpenError};
use crate::residue;

/// The largest share file that is read, in bytes: an armoured one for one recipient has 500, others may add stanzas.
pub const SHARE_FILE_MAX: usize = 16 * 1024;

/// The largest record that is read, in bytes: one with the longest name has 400.
pub const RECORD_FILE_MAX: usize = 4 * 1024;

/// The most that may be in a share's file: the hexadecimal text, and the line feed that a hand-made one may end with.
const PLAINTEXT_MAX: usize = SHARE_LEN * 2 + 2;

/// The lock "integrity": a share that came out of its age file and matched the digest recorded when it was installed.
pub struct SoundShare {
    cluster: ClusterId,
    share: Share,
}

impl SoundShare {
    /// The cluster that the share belongs to.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The share.
    pub fn share(&self) -> &Share {
        &self.share
    }

    /// For tests of whoever sends it.
    #[cfg(test)]
    pub(crate) fn for_test(cluster: ClusterId, share: Share) -> Self {
        Self { cluster, share }
    }
}

/// Where one custodian's share of one cluster lies, and the identity that opens it.
#[derive(Debug, Clone)]
pub struct ShareStore {
    share: PathBuf,
    record: PathBuf,
    identity: PathBuf,
}

/// What an installation found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Installed {
    /// Nothing was there, and now the share is.
    New,
    /// Something was there, and the rest was written: an installation that was cut off, or a removed file.
    Completed,
    /// The very same share was there already.
    Already,
    /// A share of this older generation was there. It is kept, and the new one stands in its place.
    Renewed(u32),
}

/// Why a share could not be installed or taken out. Messages never quote a share.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The identity is not one.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// There is no share.
    #[error("{} does not exist: there is no share here yet; holdfast-setup install puts one there", .0.display())]
    NotInstalled(PathBuf),
    /// There is a share and no record of it.
    #[error("{} is there and {} is not: an installation was cut off; run the same holdfast-setup install again", .share.display(), .record.display())]
    Interrupted {
        /// The share's file.
        share: PathBuf,
        /// The record that is missing.
        record: PathBuf,
    },
    /// The record is damaged, or of another version.
    #[error("{} is not a share's record: {why}; restore it, or move it and the share's file away and install again", .path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The record is of another place than the configuration says.
    #[error("{} is about {what} {found}, and {expected} was expected: check which share belongs here", .path.display())]
    Elsewhere {
        /// The record.
        path: PathBuf,
        /// Cluster, generation or custodian.
        what: &'static str,
        /// What the record says.
        found: String,
        /// What the configuration says.
        expected: String,
    },
    /// The share's file does not open with this identity.
    #[error("{} does not open with {}: {why}; restore the one that is damaged", .share.display(), .identity.display())]
    Locked {
        /// The share's file.
        share: PathBuf,
        /// The identity.
        identity: PathBuf,
        /// What is wrong.
        why: OpenError,
    },
    /// What came out is not a share.
    #[error("{} opens, but what is in it is no share: {why}; move it away and install the packet again", .share.display())]
    NotAShare {
        /// The share's file.
        share: PathBuf,
        /// What is wrong with it.
        why: ShareError,
    },
    /// What came out is another share than was installed.
    #[error("{} holds another share than was installed: somebody exchanged it; move it away and install the packet again", .0.display())]
    Mismatch(PathBuf),
    /// A different share is there already.
    #[error("{} already holds a different share, and a custodian never holds two of one cluster: nothing was changed; if that one is no longer needed, move it and its record away first", .0.display())]
    Different(PathBuf),
    /// A younger generation is there already.
    #[error("{} holds a share of generation {installed}, and this one is of generation {given}, which a later rotation replaced: nothing was changed; take the packet and manifest of the last ceremony", .share.display())]
    Older {
        /// The share's file.
        share: PathBuf,
        /// Which generation is there.
        installed: u32,
        /// Which was to be installed.
        given: u32,
    },
    /// The older share, which is to be kept, is not there.
    #[error("{} is there and {} is not: restore that share of generation {generation}, which a node may still need; or, if it is lost, move the record away; then install again", .record.display(), .share.display())]
    Gone {
        /// The share's file.
        share: PathBuf,
        /// Its record.
        record: PathBuf,
        /// Its generation.
        generation: u32,
    },
    /// The share could not be encrypted.
    #[error("the share could not be encrypted: {0}")]
    Encrypt(String),
    /// The system gave no random numbers.
    #[error("the system gave no random numbers: {0}")]
    Random(getrandom::Error),
}

impl ShareStore {
    /// The store of the share in `share`, with its record beside it, for whoever holds `identity`. Touches nothing yet.
    pub fn open(share: &Path, identity: &Path) -> Self {
        let mut record = OsString::from(share.as_os_str());
        record.push(".record");
        Self { share: share.to_owned(), record: record.into(), identity: identity.to_owned() }
    }

    /// The share's file.
    pub fn share_path(&self) -> &Path {
        &self.share
    }

    /// The record's file.
    pub fn record_path(&self) -> &Path {
        &self.record
    }

    /// Where the share of an older generation is kept: `prod.share.1.age` for `prod.share.age`.
    pub fn of_generation(&self, generation: u32) -> Self {
        let mut name = self.share.file_stem().unwrap_or_default().to_owned();
        name.push(format!(".{generation}"));
        if let Some(extension) = self.share.extension() {
            name.push(".");
            name.push(extension);
        }
        Self::open(&self.share.with_file_name(name), &self.identity)
    }

    /// The older generations that are kept, oldest first: those whose share or record is there.
    pub fn kept(&self) -> Result<Vec<u32>, StoreError> {
        let folder = self.share.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let unreadable = |source| FileError::System { path: folder.to_owned(), action: Action::Read, source };
        let (stem, extension) =
            (self.share.file_stem().unwrap_or_default(), self.share.extension().unwrap_or_default());
        let mut kept = BTreeSet::new();
        for entry in fs::read_dir(folder).map_err(unreadable)? {
            let name = PathBuf::from(entry.map_err(unreadable)?.file_name());
            let name = if name.extension() == Some("record".as_ref()) { name.with_extension("") } else { name };
            let base = if extension.is_empty() { name.clone() } else { name.with_extension("") };
            if (extension.is_empty() || name.extension() == Some(extension)) && base.file_stem() == Some(stem) {
                kept.extend(base.extension().and_then(|number| number.to_str()?.parse::<u32>().ok()));
            }
        }
        Ok(kept.into_iter().collect())
    }

    /// Removes the share of an older generation and its record. Whether nothing needs it any more, whoever calls knows.
    pub fn retire(&self, generation: u32) -> Result<(), StoreError> {
        let kept = self.of_generation(generation);
        files::erase(&kept.share)?;
        files::remove(&kept.record)?;
        Ok(())
    }

    /// The identity's file.
    pub fn identity_path(&self) -> &Path {
        &self.identity
    }

    /// Puts a share to rest, encrypted to the identity's recipient, and makes sure that it comes out again. Does nothing if
    /// the very same one is there; keeps one of an older generation; refuses if another is there.
    pub fn install(
        &self,
        share: &Share,
        cluster: ClusterId,
        generation: u32,
        custodian: &Principal,
    ) -> Result<Installed, StoreError> {
        let identity = AgeIdentity::load(&self.identity)?;
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(StoreError::Random)?;
        let fresh = ShareRecord::new(share, cluster, generation, custodian.clone(), salt);
        let renewed = self.keep_older(&fresh)?;
        let recorded = self.read_record()?;
        if let Some(record) = &recorded {
            self.check_place(record, cluster, generation, custodian)?;
            if !record.matches(share) {
                return Err(StoreError::Different(self.share.clone()));
            }
        }
        let stored = self.read_share(&identity)?;
        let (had_share, had_record) = (stored.is_some(), recorded.is_some());
        match stored.filter(|stored| !fresh.matches(stored)) {
            None if had_share => {}
            None => self.write_share(&identity, share, files::create)?,
            // The only thing that may be overwritten is what is there under another name too.
            Some(stored) if !had_record && self.is_kept(&stored, &fresh)? => {
                self.write_share(&identity, share, files::replace)?;
            }
            Some(_) => return Err(StoreError::Different(self.share.clone())),
        }
        if !had_record {
            self.write_record(&fresh)?;
        }
        self.unlock_in_place(cluster, generation, custodian)?;
        if let Some(older) = renewed {
            return Ok(Installed::Renewed(older));
        }
        Ok(match (had_share, had_record) {
            (false, false) => Installed::New,
            (true, true) => Installed::Already,
            _ => Installed::Completed,
        })
    }

    /// Takes the share of that generation out: the lock "integrity". It may have given its place to a younger one.
    pub fn unlock(&self, cluster: ClusterId, generation: u32, custodian: &Principal) -> Result<SoundShare, StoreError> {
        residue::leaving_none(|| self.take_out(cluster, generation, custodian))
    }

    fn take_out(&self, cluster: ClusterId, generation: u32, custodian: &Principal) -> Result<SoundShare, StoreError> {
        let kept = self.of_generation(generation);
        match self.read_record()? {
            Some(record) if record.generation <= generation => {}
            // A record that is kept is complete, whatever the one in the first place is: it got its name before that lost it.
            _ if kept.read_record()?.is_some() => return kept.unlock_in_place(cluster, generation, custodian),
            _ => {}
        }
        self.unlock_in_place(cluster, generation, custodian)
    }

    /// Takes the share out that lies under this name.
    fn unlock_in_place(
        &self,
        cluster: ClusterId,
        generation: u32,
        custodian: &Principal,
    ) -> Result<SoundShare, StoreError> {
        let identity = AgeIdentity::load(&self.identity)?;
        let record = self.read_record()?;
        let Some(share) = self.read_share(&identity)? else {
            return Err(StoreError::NotInstalled(self.share.clone()));
        };
        let Some(record) = record else {
            return Err(StoreError::Interrupted { share: self.share.clone(), record: self.record.clone() });
        };
        self.check_place(&record, cluster, generation, custodian)?;
        if !record.matches(&share) {
            return Err(StoreError::Mismatch(self.share.clone()));
        }
        Ok(SoundShare { cluster, share })
    }

    /// Gives the share of an older generation that is in the place of the `fresh` one, and its record, second names, and then
    /// takes the record's first name away. Says which generation that was.
    fn keep_older(&self, fresh: &ShareRecord) -> Result<Option<u32>, StoreError> {
        let of_another = |record: &ShareRecord| {
            (record.cluster, &record.custodian) == (fresh.cluster, &fresh.custodian)
                && record.generation != fresh.generation
        };
        let Some(record) = self.read_record()?.filter(of_another) else { return Ok(None) };
        let (share, generation) = (self.share.clone(), record.generation);
        if generation > fresh.generation {
            return Err(StoreError::Older { share, installed: generation, given: fresh.generation });
        }
        match self.unlock_in_place(fresh.cluster, generation, &fresh.custodian) {
            Err(StoreError::NotInstalled(_)) => {
                return Err(StoreError::Gone { share, record: self.record.clone(), generation });
            }
            sound => drop(sound?),
        }
        let kept = self.of_generation(generation);
        files::keep(&self.share, &kept.share, SHARE_FILE_MAX)?;
        files::keep(&self.record, &kept.record, RECORD_FILE_MAX)?;
        kept.unlock_in_place(fresh.cluster, generation, &fresh.custodian)?;
        files::remove(&self.record)?;
        Ok(Some(generation))
    }

    /// Whether a share is one of an older generation, kept under another name: then its place can be taken.
    fn is_kept(&self, share: &Share, fresh: &ShareRecord) -> Result<bool, StoreError> {
        for generation in self.kept()?.into_iter().filter(|generation| *generation < fresh.generation) {
            let kept = self.of_generation(generation);
            let matches = kept.read_record()?.is_some_and(|record| record.matches(share));
            if matches && kept.unlock_in_place(fresh.cluster, generation, &fresh.custodian).is_ok() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn read_record(&self) -> Result<Option<ShareRecord>, StoreError> {
        let Some(file) = present(files::read_bounded(&self.record, RECORD_FILE_MAX))? else {
            return Ok(None);
        };
        let refused = |why: String| StoreError::Record { path: self.record.clone(), why };
        if file.trim_ascii_start().first() != Some(&b'{') {
            return Err(refused("expected a JSON object".to_owned()));
        }
        let record: ShareRecord = serde_json::from_slice(&file).map_err(|error| refused(error.to_string()))?;
        if record.v != 1 {
            return Err(refused(format!("it is of version {}, and this program knows only version 1", record.v)));
        }
        Ok(Some(record))
    }

    fn read_share(&self, identity: &AgeIdentity) -> Result<Option<Share>, StoreError> {
        let Some(file) = present(files::read_bounded(&self.share, SHARE_FILE_MAX))? else {
            return Ok(None);
        };
        let text = identity.decrypt(&file, PLAINTEXT_MAX).map_err(|why| StoreError::Locked {
            share: self.share.clone(),
            identity: self.identity.clone(),
            why,
        })?;
        let share = Share::from_hex(text.trim_ascii_end());
        share.map(Some).map_err(|why| StoreError::NotAShare { share: self.share.clone(), why })
    }

    fn check_place(
        &self,
        record: &ShareRecord,
        cluster: ClusterId,
        generation: u32,
        custodian: &Principal,
    ) -> Result<(), StoreError> {
        let compared = [
            ("cluster", record.cluster.to_string(), cluster.to_string()),
            ("generation", record.generation.to_string(), generation.to_string()),
            ("custodian", record.custodian.to_string(), custodian.to_string()),
        ];
        for (what, found, expected) in compared {
            if found != expected {
                return Err(StoreError::Elsewhere { path: self.record.clone(), what, found, expected });
            }
        }
        Ok(())
    }

    fn write_share(
        &self,
        identity: &AgeIdentity,
        share: &Share,
        write: impl FnOnce(&Path, &[u8], u32) -> Result<(), FileError>,
    ) -> Result<(), StoreError> {
        let mut text = Zeroizing::new([0; SHARE_LEN * 2]);
        hex::encode_to_slice(share.expose(), text.as_mut_slice()).expect("two digits for each byte");
        let file =
            identity.recipient().encrypt(text.as_slice()).map_err(|error| StoreError::Encrypt(error.to_string()))?;
        Ok(write(&self.share, &file, SECRET_MODE)?)
    }

    fn write_record(&self, record: &ShareRecord) -> Result<(), StoreError> {
        let mut file = serde_json::to_vec_pretty(record).expect("strings and numbers always become JSON");
        file.push(b'\n');
        Ok(files::create(&self.record, &file, PUBLIC_MODE)?)
    }
}

/// A file that may be missing.
fn present(read: Result<Vec<u8>, FileError>) -> Result<Option<Vec<u8>>, FileError> {
    match read {
        Err(FileError::Missing { .. }) => Ok(None),
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use holdfast_core::time::Timestamp;
    use tempfile::TempDir;

    use super::*;

    struct Place {
        dir: TempDir,
        store: ShareStore,
    }

    fn place() -> Place {
        let dir = tempfile::tempdir().expect("a directory");
        let identity = dir.path().join("identity.txt");
        AgeIdentity::generate().save(&identity, Timestamp::default()).expect("saved");
        let store = ShareStore::open(&dir.path().join("prod.share.age"), &identity);
        Place { dir, store }
    }

    fn share(fill: u8) -> Share {
        Share::from_bytes(&[fill; SHARE_LEN]).expect("well formed")
    }

    fn cluster() -> ClusterId {
        ClusterId::from_bytes([7; 16])
    }

    fn custodian() -> Principal {
        "custodian-1".parse().expect("a name")
    }

    impl Place {
        fn install(&self, fill: u8) -> Result<Installed, StoreError> {
            self.store.install(&share(fill), cluster(), 1, &custodian())
        }

        fn unlock(&self) -> Result<SoundShare, StoreError> {
            self.store.unlock(cluster(), 1, &custodian())
        }
    }

    #[test]
    fn a_share_comes_out_as_it_was_installed() {
        let place = place();
        assert!(matches!(place.unlock(), Err(StoreError::NotInstalled(_))));
        assert_eq!(place.install(9).expect("installed"), Installed::New);
        let sound = place.unlock().expect("sound");
        assert_eq!((sound.cluster(), sound.share().x()), (cluster(), 9));
        assert_eq!(place.install(9).expect("the same again"), Installed::Already);
        let names: Vec<_> = fs::read_dir(place.dir.path()).expect("listed").flatten().map(|e| e.file_name()).collect();
        assert_eq!(names.len(), 3, "nothing is left over: {names:?}");
        let mode = fs::metadata(place.store.share_path()).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_second_share_is_refused_and_changes_nothing() {
        let place = place();
        place.install(9).expect("installed");
        let before = fs::read(place.store.share_path()).expect("there");
        assert!(matches!(place.install(8), Err(StoreError::Different(_))));
        assert_eq!(fs::read(place.store.share_path()).expect("there"), before);
        place.unlock().expect("still sound");
    }

    #[test]
    fn an_older_generation_is_kept_until_it_is_retired() {
        let place = place();
        let generation = |number| place.store.install(&share(number), cluster(), number.into(), &custodian());
        assert_eq!(generation(1).expect("installed"), Installed::New);
        assert_eq!(generation(2).expect("installed"), Installed::Renewed(1));
        assert_eq!(generation(2).expect("the same again"), Installed::Already);
        assert!(matches!(generation(1), Err(StoreError::Older { installed: 2, given: 1, .. })));
        assert_eq!(generation(4).expect("one was never installed here"), Installed::Renewed(2));
        assert_eq!(place.store.kept().expect("listed"), [1, 2]);
        assert_eq!(place.store.of_generation(1).share_path(), place.dir.path().join("prod.share.1.age"));
        for (number, store) in
            [(1, place.store.of_generation(1)), (2, place.store.of_generation(2)), (4, place.store.clone())]
        {
            let sound = store.unlock(cluster(), number.into(), &custodian()).expect("sound");
            assert_eq!(sound.share().x(), number);
        }
        place.store.retire(1).expect("removed");
        place.store.retire(1).expect("nothing to remove");
        let gone = place.store.unlock(cluster(), 1, &custodian());
        assert!(matches!(gone, Err(StoreError::Elsewhere { what: "generation", .. })), "neither it nor the new one");
        assert_eq!(place.store.kept().expect("listed"), [2]);
    }

    /// `kill -9` between any two steps: what the table at this file's head shows.
    #[test]
    fn a_renewal_that_was_cut_off_is_completed_and_the_older_share_is_there_throughout() {
        for steps in 0..=5 {
            let place = place();
            place.install(1).expect("installed");
            let (main, kept) = (place.store.clone(), place.store.of_generation(1));
            let old_record = fs::read(main.record_path()).expect("there");
            if steps > 0 {
                fs::hard_link(main.share_path(), kept.share_path()).expect("linked");
            }
            if steps > 1 {
                fs::hard_link(main.record_path(), kept.record_path()).expect("linked");
            }
            if steps > 2 {
                fs::remove_file(main.record_path()).expect("removed");
            }
            if steps > 3 {
                let identity = AgeIdentity::load(&place.dir.path().join("identity.txt")).expect("ours");
                main.write_share(&identity, &share(2), files::replace).expect("replaced");
            }
            if steps > 4 {
                fs::write(place.dir.path().join(".prod.share.age.record.next"), "half").expect("written");
            }
            // The custodian that runs is still asked for the old one.
            let asked = main.unlock(cluster(), 1, &custodian()).expect("sound throughout");
            assert_eq!(asked.share().x(), 1, "after {steps} steps");
            // Whoever comes with a third share meanwhile is refused, and so is the old one where its place is taken.
            let third = main.install(&share(3), cluster(), 1, &custodian());
            assert!(matches!(third, Err(StoreError::Different(_))), "after {steps} steps");
            let done = main.install(&share(2), cluster(), 2, &custodian()).expect("completed");
            let expected = if steps > 2 { Installed::Completed } else { Installed::Renewed(1) };
            assert_eq!(done, expected, "after {steps} steps");
            assert_eq!(main.unlock(cluster(), 2, &custodian()).expect("sound").share().x(), 2);
            assert_eq!(kept.unlock(cluster(), 1, &custodian()).expect("sound").share().x(), 1);
            assert_eq!(main.unlock(cluster(), 1, &custodian()).expect("sound").share().x(), 1);
            assert_eq!(fs::read(kept.record_path()).expect("there"), old_record);
        }
    }

    #[test]
    fn an_older_generation_that_cannot_be_kept_is_not_replaced() {
        let renew = |place: &Place| place.store.install(&share(2), cluster(), 2, &custodian());
        let missing = place();
        missing.install(1).expect("installed");
        fs::remove_file(missing.store.share_path()).expect("removed");
        assert!(matches!(renew(&missing), Err(StoreError::Gone { generation: 1, .. })));

        let taken = place();
        taken.install(1).expect("installed");
        fs::write(taken.store.of_generation(1).share_path(), "something else").expect("written");
        assert!(matches!(renew(&taken), Err(StoreError::File(FileError::Exists { .. }))));
        taken.unlock().expect("still sound");
    }

    #[test]
    fn an_installation_that_was_cut_off_is_understood_and_completed() {
        let place = place();
        place.install(9).expect("installed");
        fs::remove_file(place.store.record_path()).expect("removed");
        assert!(matches!(place.unlock(), Err(StoreError::Interrupted { .. })));
        assert!(matches!(place.install(8), Err(StoreError::Different(_))));
        assert_eq!(place.install(9).expect("completed"), Installed::Completed);

        fs::remove_file(place.store.share_path()).expect("removed");
        assert!(matches!(place.unlock(), Err(StoreError::NotInstalled(_))));
        assert!(matches!(place.install(8), Err(StoreError::Different(_))));
        assert_eq!(place.install(9).expect("completed"), Installed::Completed);

        // The crash came while a file was being prepared beside its place.
        fs::write(place.dir.path().join(".prod.share.age.next"), "half").expect("written");
        fs::remove_file(place.store.share_path()).expect("removed");
        fs::remove_file(place.store.record_path()).expect("removed");
        assert_eq!(place.install(9).expect("installed"), Installed::New);
        place.unlock().expect("sound");
    }

    #[test]
    fn a_share_that_is_not_the_one_recorded_is_bad() {
        let place = place();
        place.install(9).expect("installed");
        let identity = AgeIdentity::load(&place.dir.path().join("identity.txt")).expect("ours");
        let put = |content: &[u8]| {
            let file = identity.recipient().encrypt(content).expect("encrypted");
            fs::write(place.store.share_path(), file).expect("written");
        };
        put(hex::encode([8; SHARE_LEN]).as_bytes());
        assert!(matches!(place.unlock(), Err(StoreError::Mismatch(_))));
        put(b"not a share");
        assert!(matches!(place.unlock(), Err(StoreError::NotAShare { .. })));
        put(&[b'0'; 100_000]);
        assert!(matches!(place.unlock(), Err(StoreError::File(_) | StoreError::Locked { .. })));
        put(format!("{}\n", hex::encode([9; SHARE_LEN])).as_bytes());
        place.unlock().expect("the line feed of a hand-made one");
    }

    #[test]
    fn every_file_can_be_wrong() {
        let place = place();
        place.install(9).expect("installed");
        let (share, record) = (place.store.share_path().to_owned(), place.store.record_path().to_owned());
        let identity = place.dir.path().join("identity.txt");
        let (good_share, good_record) = (fs::read(&share).expect("there"), fs::read_to_string(&record).expect("there"));

        for bad in [&b""[..], b"garbage", &good_share[..good_share.len() / 2]] {
            fs::write(&share, bad).expect("written");
            assert!(matches!(place.unlock(), Err(StoreError::Locked { why: OpenError::Damaged, .. })));
            assert!(matches!(place.install(9), Err(StoreError::Locked { .. })), "not overwritten");
        }
        fs::write(&share, &good_share).expect("written");

        for (from, to) in [
            ("\"v\": 1", "\"v\": 2"),
            ("\"salt\"", "\"salz\""),
            ("\"x\": 9", "\"x\": 9, \"y\": 1"),
            ("\"x\": 9,", ""),
            ("{", "["),
        ] {
            let bad = good_record.replacen(from, to, 1);
            assert_ne!(bad, good_record);
            fs::write(&record, bad).expect("written");
            assert!(matches!(place.unlock(), Err(StoreError::Record { .. })), "{to}");
        }
        fs::write(&record, "").expect("written");
        assert!(matches!(place.unlock(), Err(StoreError::Record { .. })));
        for (from, to) in
            [("070707", "080808"), ("\"generation\": 1", "\"generation\": 2"), ("custodian-1", "custodian-2")]
        {
            fs::write(&record, good_record.replacen(from, to, 1)).expect("written");
            assert!(matches!(place.unlock(), Err(StoreError::Elsewhere { .. })), "{to}");
        }
        fs::write(&record, good_record.replacen("\"x\": 9", "\"x\": 8", 1)).expect("written");
        assert!(matches!(place.unlock(), Err(StoreError::Mismatch(_))));
        fs::write(&record, &good_record).expect("written");
        place.unlock().expect("all as it was");

        fs::set_permissions(&identity, fs::Permissions::from_mode(0o640)).expect("the mode set");
        let readable = place.unlock().err().expect("others may read it").to_string();
        assert!(readable.contains("chmod 600"), "{readable}");
        fs::remove_file(&identity).expect("removed");
        AgeIdentity::generate().save(&identity, Timestamp::default()).expect("saved");
        assert!(matches!(place.unlock(), Err(StoreError::Locked { why: OpenError::NotOurs, .. })));
        fs::remove_file(&identity).expect("removed");
        assert!(matches!(place.unlock(), Err(StoreError::Identity(IdentityError::File(FileError::Missing { .. })))));
    }
}

//! Files, read and written so that a crash, a stranger or a slip of the hand does the least harm.
//!
//! What lives here: bounded reads, secrets that only their owner may read, replacement in one step. What does not: what any
//! file means. Everything here blocks for as long as the disk does; files are small, and none is touched in a hot path.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// The permissions of a secret: its owner reads and writes it, and nobody else does anything.
pub const SECRET_MODE: u32 = 0o600;

/// The permissions of a file that others may read.
pub const PUBLIC_MODE: u32 = 0o644;

/// The permission bits of everybody but the owner.
const OTHERS: u32 = 0o077;

/// Where systemd puts what it decrypts for a service: in memory, for that service's user alone.
pub const CREDENTIALS: &str = "/run/credentials";

/// The bit of a credential that is none of a group's: root owns it, the service's user may read it by an access list, and the kernel
/// shows the mask of one as the group's rights.
const ACCESS_LIST: u32 = 0o040;

/// Why a file could not be read or written. Each message names the file and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is no such file.
    #[error("{} does not exist: check the path", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file is there already, and is not overwritten.
    #[error("{} exists already and is not overwritten: move it away first if it is no longer needed", .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The directory that the file would go into is not there.
    #[error("{} cannot be written, because its directory does not exist: create it first", .path.display())]
    NoDirectory {
        /// The file.
        path: PathBuf,
    },
    /// The system does not let this user do that.
    #[error("{} may not be {} by this user: check the owner and mode of the file and its directory", .path.display(), .action.done())]
    Denied {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: Action,
    },
    /// A directory, a pipe, a device or a socket.
    #[error("{} is not a regular file: check the path", .path.display())]
    NotRegular {
        /// What is no file.
        path: PathBuf,
    },
    /// A name for another file, where the file itself was to be erased.
    #[error("{} is a symbolic link, and what it leads to was not erased: erase that by hand, then remove the link", .path.display())]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// Group or others have some right to a secret.
    #[error("{} is a secret that others than its owner may use (mode {mode:04o}): chmod 600 {}", .path.display(), .path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is larger than anything that belongs there.
    #[error("{} is larger than {max} bytes, the most that is read there: check that it is the right file", .path.display())]
    Oversized {
        /// The file.
        path: PathBuf,
        /// The limit.
        max: usize,
    },
    /// The system refused or failed.
    #[error("{} cannot be {}: {source}", .path.display(), .action.done())]
    System {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: Action,
        /// What the system said.
        source: io::Error,
    },
}

/// What was tried with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// To read it.
    Read,
    /// To write it and bring it to the disk.
    Write,
    /// To remove it.
    Remove,
}

impl Action {
    const fn done(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "written",
            Self::Remove => "removed",
        }
    }
}

impl FileError {
    /// The file that it is about.
    pub fn path(&self) -> &Path {
        match self {
            Self::Missing { path }
            | Self::Exists { path }
            | Self::NoDirectory { path }
            | Self::Denied { path, .. }
            | Self::NotRegular { path }
            | Self::Link { path }
            | Self::Permissions { path, .. }
            | Self::Oversized { path, .. }
            | Self::System { path, .. } => path,
        }
    }

    fn system(path: &Path, action: Action, source: io::Error) -> Self {
        let path = path.to_owned();
        match (source.kind(), action) {
            (io::ErrorKind::NotFound, Action::Read) => Self::Missing { path },
            (io::ErrorKind::NotFound, Action::Write) => Self::NoDirectory { path },
            (io::ErrorKind::AlreadyExists, _) => Self::Exists { path },
            (io::ErrorKind::PermissionDenied, _) => Self::Denied { path, action },
            _ => Self::System { path, action, source },
        }
    }
}

/// Reads a regular file of at most `max` bytes.
pub fn read_bounded(path: &Path, max: usize) -> Result<Vec<u8>, FileError> {
    // Not a secret: handed over, not wiped.
    Ok(std::mem::take(&mut *read_file(path, max)?))
}

/// Reads a regular file of at most `max` bytes that nobody but its owner has any right to. What was read is wiped when
/// dropped, and no other copy of it was made.
pub fn read_secret(path: &Path, max: usize) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let (file, mode) = open(path)?;
    if mode & forbidden(path) != 0 {
        return Err(FileError::Permissions { path: path.to_owned(), mode });
    }
    read(path, file, max)
}

/// The permission bits that a secret may not have.
fn forbidden(path: &Path) -> u32 {
    if path.starts_with(CREDENTIALS) { OTHERS & !ACCESS_LIST } else { OTHERS }
}

/// Writes a new file that only its owner may read: see [`create`].
pub fn create_secret(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    create(path, bytes, SECRET_MODE)
}

/// Writes a new file and brings it to the disk. Never overwrites; after a crash the file is there whole or not at all. One
/// writer at a time, as with [`replace`].
pub fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    // A link, unlike a rename, fails where there is a file already.
    prepare(path, bytes, mode, |next| fs::hard_link(next, path).and_then(|()| fs::remove_file(next)))
}

/// Sees to it that a file is there with exactly these bytes, and on the disk: after a crash in [`create`] it goes on, and clears
/// away what that left. A file with other bytes is not overwritten.
pub fn ensure(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    match read_bounded(path, bytes.len()) {
        Err(FileError::Missing { .. }) => return create(path, bytes, mode),
        Err(FileError::Oversized { .. }) => return Err(FileError::Exists { path: path.to_owned() }),
        Err(error) => return Err(error),
        Ok(found) if found != bytes => return Err(FileError::Exists { path: path.to_owned() }),
        Ok(_) => {}
    }
    let failed = |error| FileError::system(path, Action::Write, error);
    if let Some(next) = beside(path) {
        match fs::remove_file(next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    // The name may be younger than the last time that its directory was brought to the disk.
    sync_directory(path).map_err(failed)
}

/// What a crash in [`create`] left beside `path` before the file was there: the whole content or a part of it, which only the
/// content itself can tell.
pub fn left_beside(path: &Path, max: usize) -> Result<Option<Vec<u8>>, FileError> {
    let next = beside(path).ok_or_else(|| FileError::NotRegular { path: path.to_owned() })?;
    match read_bounded(&next, max) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(FileError::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Goes on with a [`create`] that a crash cut off when all of the content was there: gives it its name.
pub fn complete(path: &Path) -> Result<(), FileError> {
    let failed = |error| FileError::system(path, Action::Write, error);
    let next = beside(path).ok_or_else(|| FileError::NotRegular { path: path.to_owned() })?;
    File::open(&next).and_then(|file| file.sync_all()).map_err(failed)?;
    fs::hard_link(&next, path).and_then(|()| sync_directory(path)).map_err(failed)?;
    fs::remove_file(&next).map_err(failed)
}

/// Sees to it that a directory for its owner alone is there, those above it too, and that their names are on the disk.
pub fn ensure_directory(path: &Path) -> Result<(), FileError> {
    let failed = |error| FileError::system(path, Action::Write, error);
    let missing: Vec<_> =
        path.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    // A crash may have come between the name and the disk: the directory's own name is brought there in any case.
    missing.into_iter().chain([path]).try_for_each(sync_directory).map_err(failed)
}

/// Puts `bytes` in the place of `path` in one step: whoever reads it, now or after a crash, finds the old content or the
/// new, whole. A symbolic link is replaced, not followed. One writer at a time: the new content is first written beside
/// it, under a name that a crash leaves behind and the next call clears away.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    prepare(path, bytes, mode, |next| fs::rename(next, path))
}

/// Gives a file a second name, and brings that to the disk. Does nothing where the very same content has that name already;
/// never overwrites another's.
pub fn keep(path: &Path, kept: &Path, max: usize) -> Result<(), FileError> {
    match fs::hard_link(path, kept) {
        Err(error)
            if error.kind() == io::ErrorKind::AlreadyExists && *read_file(path, max)? == *read_file(kept, max)? => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(FileError::Missing { path: path.to_owned() });
        }
        done => done.map_err(|error| FileError::system(kept, Action::Write, error))?,
    }
    sync_directory(kept).map_err(|error| FileError::system(kept, Action::Write, error))
}

/// Removes a file, and brings that to the disk. Says whether it was there.
pub fn remove(path: &Path) -> Result<bool, FileError> {
    let failed = |error| FileError::system(path, Action::Remove, error);
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        done => done.map_err(failed)?,
    }
    sync_directory(path).map_err(failed)?;
    Ok(true)
}

/// Removes a file that no longer has to be known, after its content was overwritten and that brought to the disk. What a
/// journal, a snapshot or a flash memory's spare blocks still have of it, no program can reach. Refuses a symbolic link: its target
/// is perhaps somebody else's, and without it nothing would be erased. Says whether it was there.
pub fn erase(path: &Path) -> Result<bool, FileError> {
    let failed = |error| FileError::system(path, Action::Remove, error);
    let overwritten = match OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path)
    {
        Ok(file) => overwrite(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(FileError::Link { path: path.to_owned() });
        }
        Err(error) => Err(error),
    };
    overwritten.map_err(failed)?;
    remove(path)
}

fn overwrite(mut file: File) -> io::Result<()> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    io::copy(&mut io::repeat(0).take(metadata.len()), &mut file)?;
    file.sync_all()
}

/// Writes a file beside `path`, whole and on the disk, and lets `place` bring it there.
fn prepare(path: &Path, bytes: &[u8], mode: u32, place: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), FileError> {
    let failed = |error| FileError::system(path, Action::Write, error);
    let next = beside(path).ok_or_else(|| FileError::NotRegular { path: path.to_owned() })?;
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let written = create_new(&next).and_then(|file| write(file, bytes, mode)).and_then(|()| place(&next));
    written.map_err(|error| {
        let _ = fs::remove_file(&next);
        failed(error)
    })?;
    sync_directory(path).map_err(failed)
}

fn read_file(path: &Path, max: usize) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let (file, _) = open(path)?;
    read(path, file, max)
}

/// Opens without waiting for the other end of a pipe, and looks at what was opened, not at what the path says by then.
fn open(path: &Path) -> Result<(File, u32), FileError> {
    let failed = |error| FileError::system(path, Action::Read, error);
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(FileError::NotRegular { path: path.to_owned() });
    }
    Ok((file, metadata.permissions().mode() & 0o7777))
}

/// Reads into a buffer that never grows, because growing leaves a copy behind.
fn read(path: &Path, mut file: File, max: usize) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let failed = |error| FileError::system(path, Action::Read, error);
    let len = usize::try_from(file.metadata().map_err(failed)?.len()).unwrap_or(usize::MAX);
    if len > max {
        return Err(FileError::Oversized { path: path.to_owned(), max });
    }
    // One more, to see that it did not grow meanwhile. Files of /proc say that they have no length.
    let mut bytes = Zeroizing::new(vec![0; if len == 0 { max } else { len } + 1]);
    let mut filled = 0;
    loop {
        match file.read(&mut bytes[filled..]) {
            Ok(0) if filled < bytes.len() => break,
            Ok(0) if filled > max => return Err(FileError::Oversized { path: path.to_owned(), max }),
            Ok(0) => return Err(failed(io::Error::other("it grew while it was being read: try again"))),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(SECRET_MODE).open(path)
}

/// Writes everything and brings it to the disk. The mode is set on the file itself, so that no umask changes it.
fn write(mut file: File, bytes: &[u8], mode: u32) -> io::Result<()> {
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A name is on the disk only when its directory is.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

/// Where the next content of `path` is prepared: `.NAME.next`, in the same directory.
fn beside(path: &Path) -> Option<PathBuf> {
    let mut name = OsString::from(".");
    name.push(path.file_name()?);
    name.push(".next");
    Some(path.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    fn directory() -> TempDir {
        TempDir::new().expect("a directory")
    }

    fn put(path: &Path, bytes: &[u8], mode: u32) {
        fs::write(path, bytes).expect("a file of this test");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a file of this test");
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("a file of this test").permissions().mode() & 0o7777
    }

    fn names(directory: &Path) -> Vec<OsString> {
        let entries = fs::read_dir(directory).expect("a directory of this test");
        entries.map(|entry| entry.expect("an entry").file_name()).collect()
    }

    #[test]
    fn a_secret_is_read_only_if_nobody_else_has_any_right_to_it() {
        let dir = directory();
        let path = dir.path().join("secret");
        for allowed in [0o600, 0o400] {
            put(&path, b"secret", allowed);
            assert_eq!(read_secret(&path, 100).expect("its owner's alone").as_slice(), b"secret");
            fs::remove_file(&path).expect("a file of this test");
        }
        for refused in [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o666] {
            put(&path, b"secret", refused);
            let error = read_secret(&path, 100).expect_err("others have a right to it");
            assert!(matches!(error, FileError::Permissions { mode, .. } if mode == refused), "{refused:o}");
            assert!(error.to_string().ends_with(&format!("chmod 600 {}", path.display())), "{error}");
            assert!(read_bounded(&path, 100).is_ok());
        }
        // A link is followed, and what it leads to is what counts.
        let link = dir.path().join("link");
        symlink(&path, &link).expect("a link of this test");
        assert!(matches!(read_secret(&link, 100), Err(FileError::Permissions { .. })));
        put(&path, b"secret", 0o600);
        assert!(read_secret(&link, 100).is_ok());
    }

    #[test]
    fn what_is_missing_too_large_or_no_file_is_refused_by_name() {
        let dir = directory();
        let path = dir.path().join("file");
        assert!(matches!(read_secret(&path, 100), Err(FileError::Missing { .. })));
        assert!(matches!(read_bounded(dir.path(), 100), Err(FileError::NotRegular { .. })));
        put(&path, &[7; 100], 0o600);
        assert_eq!(read_secret(&path, 100).expect("just fits").len(), 100);
        let error = read_secret(&path, 99).expect_err("too large");
        assert!(matches!(error, FileError::Oversized { max: 99, .. }), "{error}");
        assert_eq!(error.path(), path);
        put(&path, b"", 0o600);
        assert!(read_bounded(&path, 100).expect("empty").is_empty());
        // These say that they have no length, and have one.
        assert!(matches!(read_bounded(Path::new("/proc/cpuinfo"), 4), Err(FileError::Oversized { .. })));
        assert!(!read_bounded(Path::new("/proc/sys/kernel/random/boot_id"), 100).expect("an id").is_empty());
        assert!(matches!(read_bounded(Path::new("/dev/zero"), 100), Err(FileError::NotRegular { .. })));
    }

    #[test]
    fn a_pipe_that_nobody_writes_does_not_hold_up_anything() {
        let dir = directory();
        let path = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo is installed");
        assert!(made.success());
        assert!(matches!(read_secret(&path, 100), Err(FileError::NotRegular { .. })));
    }

    #[test]
    fn a_secret_is_created_once_and_for_its_owner_alone() {
        let dir = directory();
        let path = dir.path().join("secret");
        create_secret(&path, b"first").expect("a new file");
        assert_eq!(mode(&path), 0o600);
        assert!(matches!(create_secret(&path, b"second"), Err(FileError::Exists { .. })));
        assert_eq!(read_secret(&path, 100).expect("as it was").as_slice(), b"first");
        let nowhere = dir.path().join("nowhere/secret");
        assert!(matches!(create_secret(&nowhere, b""), Err(FileError::NoDirectory { .. })));
        // A link that leads nowhere is not written through.
        let link = dir.path().join("link");
        symlink(dir.path().join("target"), &link).expect("a link of this test");
        assert!(matches!(create_secret(&link, b"x"), Err(FileError::Exists { .. })));
        assert!(!dir.path().join("target").exists());
    }

    #[test]
    fn what_a_crash_left_half_created_is_completed_and_nothing_else_is_touched() {
        let dir = directory();
        let path = dir.path().join("packet");
        ensure(&path, b"packet", SECRET_MODE).expect("a new file");
        // Killed between the link and the removal of the other name.
        fs::hard_link(&path, dir.path().join(".packet.next")).expect("a link of this test");
        ensure(&path, b"packet", SECRET_MODE).expect("there already");
        assert_eq!(names(dir.path()), ["packet"]);
        for other in [&b"pack"[..], b"packets", b"Packet"] {
            assert!(matches!(ensure(&path, other, SECRET_MODE), Err(FileError::Exists { .. })), "{other:?}");
        }
        assert_eq!(read_secret(&path, 100).expect("as it was").as_slice(), b"packet");

        // Killed before the link: what was written is found, and gets its name without being written again.
        assert_eq!(left_beside(&path, 100).expect("nothing"), None);
        fs::rename(&path, dir.path().join(".packet.next")).expect("a file of this test");
        assert_eq!(left_beside(&path, 100).expect("there"), Some(b"packet".to_vec()));
        complete(&path).expect("completed");
        assert_eq!((names(dir.path()).len(), read_secret(&path, 100).expect("there").as_slice()), (1, &b"packet"[..]));
        assert!(matches!(complete(&path), Err(FileError::NoDirectory { .. })));
        assert!(matches!(ensure(dir.path(), b"", SECRET_MODE), Err(FileError::NotRegular { .. })));
    }

    #[test]
    fn a_directory_is_made_with_those_above_it_and_is_its_owners_alone() {
        let dir = directory();
        let path = dir.path().join("a/b/c");
        for _ in 0..2 {
            ensure_directory(&path).expect("made, or there already");
            assert_eq!(mode(&path), 0o700);
        }
        put(&dir.path().join("file"), b"", 0o600);
        assert!(ensure_directory(&dir.path().join("file")).is_err());
        assert!(ensure_directory(&dir.path().join("file/below")).is_err());
    }

    #[test]
    fn a_replacement_is_whole_and_leaves_nothing_beside_it() {
        let dir = directory();
        let path = dir.path().join("state");
        replace(&path, b"old", PUBLIC_MODE).expect("a new file");
        assert_eq!(mode(&path), 0o644);
        // What a crash in the middle of an earlier replacement left behind, a link included, is cleared away.
        put(&dir.path().join(".state.next"), b"half", 0o600);
        replace(&path, b"new", SECRET_MODE).expect("over the old");
        assert_eq!((read_secret(&path, 100).expect("new").as_slice(), mode(&path)), (&b"new"[..], 0o600));
        symlink(dir.path().join("elsewhere"), dir.path().join(".state.next")).expect("a link of this test");
        replace(&path, b"newer", SECRET_MODE).expect("over the old");
        assert_eq!(names(dir.path()), ["state"]);

        // A directory in its place: nothing is lost, and nothing is left.
        let taken = dir.path().join("taken");
        fs::create_dir(&taken).expect("a directory of this test");
        assert!(replace(&taken, b"x", SECRET_MODE).is_err());
        assert_eq!(names(dir.path()).len(), 2);
        assert!(matches!(replace(Path::new("/"), b"x", SECRET_MODE), Err(FileError::NotRegular { .. })));
    }

    #[test]
    fn what_is_erased_is_the_file_and_never_a_link_alone() {
        let dir = directory();
        let (path, link) = (dir.path().join("key"), dir.path().join("link"));
        put(&path, b"secret", 0o600);
        symlink(&path, &link).expect("a link of this test");
        assert!(matches!(erase(&link), Err(FileError::Link { .. })));
        assert_eq!(read_secret(&link, 100).expect("nothing was touched").as_slice(), b"secret");
        assert!(matches!(erase(&path), Ok(true)));
        assert!(matches!(erase(&path), Ok(false)));
        assert!(erase(dir.path()).is_err());
    }

    #[test]
    fn readers_see_the_old_or_the_new_and_nothing_between() {
        let dir = directory();
        let path = dir.path().join("state");
        let (old, new) = ([b'o'; 9000], [b'n'; 20_000]);
        replace(&path, &old, SECRET_MODE).expect("a new file");
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for round in 0..50 {
                    let next: &[u8] = if round % 2 == 0 { &new } else { &old };
                    replace(&path, next, SECRET_MODE).expect("over the old");
                }
            });
            while !writer.is_finished() {
                let seen = read_secret(&path, 100_000).expect("always there");
                assert!(*seen == old || *seen == new, "{} bytes", seen.len());
            }
        });
    }

    #[test]
    fn what_systemd_gives_by_an_access_list_is_a_secret_all_the_same() {
        let credential = Path::new("/run/credentials/holdfast-custodian.service/holdfast-identity");
        assert_eq!((0o440 & forbidden(credential), 0o400 & forbidden(credential)), (0, 0));
        assert_ne!(0o444 & forbidden(credential), 0);
        assert_ne!(0o440 & forbidden(Path::new("/run/credentials-of-mine/identity.txt")), 0);
    }
}

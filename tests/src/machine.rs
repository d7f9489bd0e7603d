//! A machine of the test's own: a bare Debian whose systemd runs as PID 1, in namespaces of its own, with a network of its own. It ends
//! with the value.
//!
//! The system is the one that tests/run made in `.tools/debian`; what a machine changes lies over it, and goes with it. Not a
//! machine of its own: the kernel, and what the kernel does not know by namespaces, such as memory limits where the host keeps them
//! in an older kind of control groups.

#![expect(clippy::print_stderr, reason = "a test that failed shows why")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::programs::{Said, tool};
use crate::wait::{until, until_some};

/// Gives the machine its files and its devices, and becomes its PID 1. `$1` is the system, `$2` a folder for what is changed.
const BEGIN: &str = r#"
set -eu
base=$1 own=$2
mount --make-rprivate /
mkdir "$own/upper" "$own/work" "$own/root"
root=$own/root
mount -t overlay overlay -o "lowerdir=$base,upperdir=$own/upper,workdir=$own/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    mknod -m 666 "$root/dev/$device" c $(stat -c '%Hr %Lr' "/dev/$device")
done
mkdir "$root/dev/pts" "$root/dev/shm" "$root/old"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
# Not chroot: in one, nobody gets a user namespace.
cd "$root"
pivot_root . old
umount -l /old
rmdir /old
# systemd gives services their credentials by a mount that they get to see.
mount --make-rshared /
exec env -i container=holdfast PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=multi-user.target --show-status=no
"#;

/// A machine that runs.
#[derive(Debug)]
pub struct Machine {
    started: Child,
    pid: u32,
    group: PathBuf,
    folder: TempDir,
}

impl Machine {
    /// Starts one, and waits until its systemd has nothing more to start. It has no network but its own loopback.
    pub fn boot() -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test makes a machine in namespaces, and that takes root");
        let folder = tempfile::tempdir().expect("a folder");
        let group = control_groups().join(format!("holdfast-test-{}", std::process::id()));
        fs::create_dir_all(&group).expect("a control group");
        let log = fs::File::create(folder.path().join("console")).expect("a log");
        // Into a group of its own first, which is all that its systemd sees.
        let script = "echo $$ >\"$1/cgroup.procs\"; shift; exec \"$@\"";
        let started = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(&group)
            .args(["unshare", "--mount", "--pid", "--fork", "--uts", "--ipc", "--net", "--cgroup", "--kill-child"])
            .args(["bash", "-c", BEGIN, "bash"])
            .args([&base(), folder.path()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("unshare is there");
        let children = format!("/proc/{0}/task/{0}/children", started.id());
        let pid = until_some("the machine's first process", || {
            fs::read_to_string(&children).ok()?.split_whitespace().next()?.parse().ok()
        });
        let machine = Self { started, pid, group, folder };
        until("the machine has started", || {
            let console = || fs::read_to_string(machine.folder.path().join("console")).unwrap_or_default();
            assert!(crate::processes::runs(machine.pid), "the machine ended: {}", console());
            let said = machine.run(&["systemctl", "is-system-running"]).out;
            ["running", "degraded"].contains(&said.trim())
        });
        machine
    }

    /// Runs a command on it.
    pub fn run(&self, command: &[&str]) -> Said {
        let pid = self.pid.to_string();
        let output = Command::new("nsenter")
            .args(["--target", &pid, "--all", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"])
            .args(command)
            .stdin(Stdio::null())
            .output();
        output.expect("nsenter is there").into()
    }

    /// Runs some lines of a shell on it, and stops at the first that fails.
    pub fn sh(&self, script: &str) -> Said {
        self.run(&["sh", "-euc", script])
    }

    /// A file of its, as seen from here.
    pub fn path(&self, path: &str) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join("root").join(path.trim_start_matches('/'))
    }

    /// Its first process, by which its namespaces are known.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Every file on it that is not the kernel's, and none below these.
    pub fn files(&self, but: &[&str]) -> Vec<String> {
        let listed = self.sh("find / -xdev -type f -o -type d -o -type l").well().out;
        let kept = listed.lines().filter(|path| !but.iter().any(|but| path.starts_with(but)));
        let mut kept: Vec<_> = kept.map(str::to_owned).collect();
        kept.sort();
        kept
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- the end of the machine's journal:\n{}",
                self.run(&["journalctl", "--lines=30", "--no-hostname"]).out
            );
        }
        // What remains of a machine whose PID 1 is killed, the kernel kills.
        let _ = self.started.kill();
        let _ = self.started.wait();
        if std::thread::panicking() {
            // Others may still be ending in it: an empty folder is left.
            remove(&self.group);
        } else {
            until("the machine's control groups are empty", || remove(&self.group));
        }
    }
}

/// Removes a control group and those in it. They are folders without files of their own.
fn remove(group: &Path) -> bool {
    for inner in fs::read_dir(group).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        remove(&inner.path());
    }
    fs::remove_dir(group).is_ok() || !group.exists()
}

/// The bare system.
fn base() -> PathBuf {
    let here = std::env::current_dir().expect("a folder");
    let made = here.ancestors().map(|folder| folder.join(".tools/debian")).find(|path| path.is_dir());
    made.expect(".tools/debian is there: tests/run makes it, as root, with debootstrap")
}

/// Where control groups of the current kind are.
fn control_groups() -> PathBuf {
    let found = tool("findmnt", &["--noheadings", "--output", "TARGET", "--types", "cgroup2"]).out;
    PathBuf::from(found.lines().next().expect("control groups are mounted").trim())
}

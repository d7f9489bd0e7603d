//! The real `ssh-agent`, with an operator's key in it.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::programs::Said;
use crate::wait::until;

/// An agent of the test's own, ended with the value.
#[derive(Debug)]
pub struct Agent {
    process: Child,
    /// Where it listens.
    pub socket: PathBuf,
}

impl Agent {
    /// Starts one that listens at `socket`, and for which nobody answers when it asks: `ssh-add -c`.
    pub fn at(socket: PathBuf) -> Self {
        let mut agent = Command::new("ssh-agent");
        agent.arg("-D").arg("-a").arg(&socket).env("SSH_ASKPASS", "/bin/false").env("DISPLAY", ":none");
        agent.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = agent.spawn().expect("ssh-agent is installed (Debian: openssh-client)");
        until("the agent listens", || UnixStream::connect(&socket).is_ok());
        Self { process, socket }
    }

    /// Gives it a key, by `ssh-add` with these options.
    pub fn add(&self, key: &Path, options: &[&str]) {
        let added =
            Command::new("ssh-add").arg("-q").args(options).arg(key).env("SSH_AUTH_SOCK", &self.socket).output();
        Said::from(added.expect("ssh-add")).well();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Ended already, or ends now.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

//! Hosts on a network of the test's own: namespaces with an address each, joined by a bridge.
//!
//! What lives here: cables and addresses. What does not: a host with a system of its own, which is a machine.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::programs::{Said, tool};
use crate::wait::until;

/// A host that is a network and nothing more. It ends with the value.
#[derive(Debug)]
pub struct Host {
    keeper: Child,
}

impl Host {
    /// One without any cable.
    pub fn new() -> Self {
        // It reads until this process ends.
        let mut command = Command::new("unshare");
        let keeper = command.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        let host = Self { keeper: keeper.expect("unshare is there") };
        let own = std::fs::read_link("/proc/self/ns/net").expect("one's own network");
        until("the host has a network of its own", || {
            std::fs::read_link(format!("/proc/{}/ns/net", host.pid())).is_ok_and(|network| network != own)
        });
        host.sh("ip link set lo up").well();
        host
    }

    /// The process by which its network is known.
    pub fn pid(&self) -> u32 {
        self.keeper.id()
    }

    /// Runs some lines of a shell on its network, and stops at the first that fails.
    pub fn sh(&self, script: &str) -> Said {
        let pid = self.pid().to_string();
        let output = Command::new("nsenter").args(["--target", &pid, "--net", "sh", "-euc", script]).output();
        output.expect("nsenter is there").into()
    }

    /// Does something in this process that opens sockets on the host's network.
    pub fn inside<T: Send + 'static>(&self, action: impl FnOnce() -> T + Send + 'static) -> T {
        let network = File::open(format!("/proc/{}/ns/net", self.pid())).expect("the host runs");
        // A thread of its own, which stays there and ends.
        let there = std::thread::spawn(move || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may");
            action()
        });
        there.join().expect("it did not panic")
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Ended already, or ends now.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// Lays a cable from the bridge `wire` on this process's own network to the host whose process this is: there it is `eth0`.
pub fn plug(wire: &str, port: &str, pid: u32) {
    tool("ip", &["link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", &pid.to_string()]);
    tool("ip", &["link", "set", port, "master", wire, "up"]);
}

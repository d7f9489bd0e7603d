//! Processes of a lab that somebody else started again, with the argv that lab.json gives for that.
//!
//! They are recognised by that argv, which names files in the lab's own folder, and not by a pid.

use std::fs;

use super::file::{LabFile, Process};
use super::journal::Entry;
use super::layout::Layout;
use super::process::Identity;
use super::rabbitmq;

/// Processes that somebody else started the way lab.json says: not `up`'s, so not `down`'s to end unasked.
pub(crate) fn find(layout: &Layout) -> Vec<Entry> {
    let Ok(bytes) = fs::read(layout.lab_json()) else { return Vec::new() };
    let Ok(lab) = serde_json::from_slice::<LabFile>(&bytes) else { return Vec::new() };
    let known: Vec<(&str, &Process)> = lab
        .vault
        .iter()
        .map(|node| (node.name.as_str(), &node.process))
        .chain(lab.custodians.iter().map(|custodian| (custodian.id.as_str(), &custodian.process)))
        .chain(lab.sentinels.iter().map(|sentinel| (sentinel.id.as_str(), &sentinel.process)))
        .chain(lab.broker.iter().flat_map(|b| [(rabbitmq::NAME, &b.process), (rabbitmq::EPMD, &b.epmd)]))
        .collect();
    let running = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let pids = running.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let found = pids.filter_map(|pid| {
        // Which process it is comes first: what is read of it afterwards is then that one's, or nobody's.
        let process = Identity::of(pid)?;
        let (name, _) = known.iter().find(|(_, process)| is_started_from(pid, process))?;
        Some(Entry { name: (*name).to_owned(), process })
    });
    found.collect()
}

/// Whether this pid has a process of the lab's argv or, where that has replaced itself by Erlang, of its environment.
fn is_started_from(pid: u32, process: &Process) -> bool {
    let words = |file: &str| {
        let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        bytes.split(|&byte| byte == 0).map(<[u8]>::to_vec).filter(|word| !word.is_empty()).collect::<Vec<_>>()
    };
    if words("cmdline").iter().eq(process.start.iter().map(String::as_bytes)) {
        return true;
    }
    // Erlang's own helpers inherit the environment, and end with it.
    let erlang = fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("beam.smp"));
    erlang && !process.env.is_empty() && {
        let there = words("environ");
        process.env.iter().all(|(key, value)| there.contains(&format!("{key}={value}").into_bytes()))
    }
}

//! What the figures were taken on: the machine, and the versions of the programs.

use std::fs;
use std::path::Path;

use jiff::Zoned;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::lab::Lab;
use crate::programs::{run, tool};

/// A machine.
#[derive(Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Its processors, as the kernel names them.
    pub cpu: String,
    /// How many threads run at once.
    pub cores: usize,
    /// Its memory.
    pub memory_mib: u64,
    /// The kernel's version.
    pub kernel: String,
    /// How many processes ran or waited to, in the minute before: on a quiet machine well below one.
    pub load_before: f64,
}

/// The versions of the programs that were measured.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Versions {
    /// The programs of this project.
    pub holdfast: String,
    /// The nodes.
    pub openbao: String,
    /// The broker.
    pub rabbitmq: String,
}

/// When, on what and with what figures were taken, in a line.
pub fn circumstances(date: &str, machine: &Machine, versions: &Versions) -> String {
    let Machine { cpu, cores, memory_mib, kernel, load_before } = machine;
    let Versions { holdfast, openbao, rabbitmq } = versions;
    format!(
        "{date}, {cores} × {cpu}, {} GiB, Linux {kernel}, load {load_before} before the run; \
         Holdfast {holdfast}, OpenBao {openbao}, RabbitMQ {rabbitmq}",
        memory_mib / 1024
    )
}

/// This day.
pub fn today() -> String {
    Zoned::now().with_time_zone(TimeZone::UTC).date().to_string()
}

/// This machine, now.
pub fn this() -> Machine {
    let cpuinfo = read("/proc/cpuinfo");
    let cpu = value(&cpuinfo, "model name").or_else(|| value(&cpuinfo, "CPU part")).unwrap_or("unknown");
    let memory = value(&read("/proc/meminfo"), "MemTotal").and_then(|kib| kib.split(' ').next()?.parse::<u64>().ok());
    Machine {
        cpu: cpu.to_owned(),
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        memory_mib: memory.unwrap_or_default() / 1024,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        load_before: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default(),
    }
}

/// The versions of what a lab with a broker runs.
pub fn versions(lab: &Lab) -> Versions {
    let second = |said: String| said.split_whitespace().nth(1).unwrap_or_default().trim_start_matches('v').to_owned();
    let broker = lab.file.broker.as_ref().map(|broker| lab.path(&broker.process.log));
    Versions {
        holdfast: second(run("holdfast", &["--version"]).well().out),
        openbao: second(tool(&lab.file.vault[0].process.start[0], &["version"]).out),
        rabbitmq: broker.and_then(|log| rabbitmq(&log)).unwrap_or_default(),
    }
}

/// RabbitMQ says it when it starts: `Starting RabbitMQ 3.10.8 on Erlang 25…`.
fn rabbitmq(log: &Path) -> Option<String> {
    let log = fs::read_to_string(log).ok()?;
    Some(
        log.split("RabbitMQ ")
            .skip(1)
            .find(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))?
            .split_whitespace()
            .next()?
            .to_owned(),
    )
}

fn read(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

/// What stands behind `key:` in a file of the kernel's.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.split(':').next().is_some_and(|name| name.trim() == key))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

//! `holdfast-setup`: what a person does by hand on a custodian's host. This file is its table of contents.
//!
//! What lives here: making the host's keys, putting its share to rest and proving it in a rotation, carrying messages to its
//! custodian, and the rules that close the host. What does not: anything that runs for longer than the person waits; that is the custodian, which links none of the
//! OpenPGP code that this needs.

mod deliver;
mod duty_token;
mod enroll;
mod firewall;
mod host;
mod import;
mod install;
mod manifest;
mod openpgp;
mod output;
mod retire;
mod verify;

use std::alloc::System;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use zeroizing_alloc::ZeroAlloc;

/// A share passes through this process, and the libraries that decrypt and encrypt it leave copies in what they free.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

/// Prepares a custodian's host: makes its keys, installs its share, delivers messages by hand.
///
/// The order of a ceremony: `holdfast-setup enroll` on each custodian's host, `holdfast init` on an operator's machine with all
/// the enrollments, `holdfast-setup install` on each host with its packet. For a Vault that exists it is `holdfast adopt`, and the
/// rotation that it walks through has two steps more here: `verify` proves the new share to the Vault, `retire` removes the old
/// one at last. Where nobody may rotate, `import` takes a share that is typed in. `seal-token` gives a custodian that conducts drills
/// the token that seals, `canary-token` the one with which it reads something through the node. `firewall` prints the rules that close the
/// host to everybody. Run all but that one as the user that the custodian runs
/// as: what it writes belongs to that user alone.
#[derive(Parser)]
#[command(name = "holdfast-setup", version, propagate_version = true, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage, 78 a file that was given is refused as it is.";

#[derive(Subcommand)]
enum Command {
    Enroll(enroll::Arguments),
    Install(install::Arguments),
    Import(import::Arguments),
    Verify(verify::Arguments),
    Retire(retire::Arguments),
    SealToken(duty_token::SealArguments),
    CanaryToken(duty_token::CanaryArguments),
    Deliver(deliver::Arguments),
    Firewall(firewall::Arguments),
}

fn main() -> ExitCode {
    // No core file, and no debugger of this user's: a share passes through. Where the kernel refuses, it is as it was.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    match Cli::parse().command {
        Command::Enroll(arguments) => enroll::run(&arguments),
        Command::Install(arguments) => install::run(&arguments),
        Command::Import(arguments) => import::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Retire(arguments) => retire::run(&arguments),
        Command::SealToken(arguments) => duty_token::run_seal(&arguments),
        Command::CanaryToken(arguments) => duty_token::run_canary(&arguments),
        Command::Deliver(arguments) => deliver::run(&arguments),
        Command::Firewall(arguments) => firewall::run(&arguments),
    }
}

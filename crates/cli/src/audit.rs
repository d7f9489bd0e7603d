//! `holdfast audit verify`: whether the files of a custodian's audit log are what was once written into them, on whatever machine
//! they were carried to.
//!
//! What lives here: the words of the answer, and whom to ask what the log was like. What does not: the chain
//! (`holdfast_edge::audit`). A log that was cut off or written anew has a whole chain; only who was told of it before knows.

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Context as _;
use clap::Subcommand;
use holdfast_core::id::{ClusterName, Principal};
use holdfast_core::message::plain_text;
use holdfast_core::status::{AuditMisfit, CustodianStatus};
use holdfast_core::time::Timestamp;
use holdfast_edge::audit::{self, Broken, Position, Summary, Why};
use serde::Serialize;

use crate::operator::Operator;
use crate::output::report;
use crate::status::{CONFIG, fetch};

/// The most files that are taken: 16 GiB of a log.
const FILES_MAX: usize = 1_000;

/// Commands about custodians' audit logs.
#[derive(Subcommand)]
pub(crate) enum Command {
    Verify(Arguments),
}

/// Check that an audit log is what was once written into it, and name the first entry that is not
///
/// Takes the files of one custodian's log, in any order, or the folder that they are in. The chain of digests shows what was changed or taken out
/// in the middle. A log whose end was cut off, or that was written anew as a whole, is known by a word from before: --head, noted
/// down by somebody, or what the custodian last signed in a heartbeat, as the sentinel tells it (--custodian).
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  holdfast audit verify audit.*.jsonl audit.jsonl\n  \
                        holdfast audit verify --config operator.toml --custodian custodian-2 carried/\n\n\
                        Exit codes: 0 it is whole, 1 it is not, 2 wrong usage, 78 the configuration is refused.")]
pub(crate) struct Arguments {
    /// The log's files, or the folder that they are in
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// An entry that must be in it, and its digest
    #[arg(long, value_name = "SEQ:SHA256")]
    head: Vec<Head>,
    /// Whose log it is: compare it with what this custodian last signed, as the sentinel tells
    #[arg(long)]
    custodian: Option<Principal>,
    /// The operator's configuration, which names the sentinel
    #[arg(long, default_value = CONFIG, requires = "custodian")]
    config: PathBuf,
    /// The cluster, where the configuration has several
    #[arg(long, requires = "custodian")]
    cluster: Option<ClusterName>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// An entry and its digest, as somebody noted them down.
#[derive(Clone)]
struct Head(Position);

impl FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "an entry's number, a colon, and 64 hexadecimal digits are expected".to_owned();
        let (seq, digest) = text.split_once(':').ok_or_else(form)?;
        let mut head = [0; 32];
        hex::decode_to_slice(digest, &mut head).map_err(|_| form())?;
        let seq = seq.parse().ok().filter(|seq| *seq > 0).ok_or_else(form)?;
        Ok(Self(Position { seq, head }))
    }
}

/// Does what was asked for.
pub(crate) fn run(Command::Verify(arguments): &Command) -> anyhow::Result<ExitCode> {
    let files = audit::in_order(gather(&arguments.files)?);
    let mut words: Vec<_> = arguments.head.iter().map(|Head(known)| Word::new("--head".to_owned(), *known)).collect();
    if let Some(custodian) = &arguments.custodian {
        words.extend(ask(arguments, custodian)?);
    }
    let answer = Answer::new(files, words);
    report(arguments.json, &answer);
    Ok(if answer.whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The files that were named, and those in folders that were named.
fn gather(named: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in named {
        if !path.is_dir() {
            std::fs::metadata(path).with_context(|| format!("{} cannot be looked at", path.display()))?;
            files.push(path.clone());
            continue;
        }
        let found = audit::files(path)?;
        anyhow::ensure!(!found.is_empty(), "{} has no audit.jsonl and no audit.N.jsonl in it", path.display());
        files.extend(found);
    }
    anyhow::ensure!(files.len() <= FILES_MAX, "{} files, and at most {FILES_MAX} are taken", files.len());
    Ok(files)
}

/// What the custodian said of its log, as the sentinel tells.
fn ask(arguments: &Arguments, custodian: &Principal) -> anyhow::Result<Vec<Word>> {
    let operator = Operator::load(&arguments.config)?;
    let (name, cluster) = operator.cluster(arguments.cluster.as_ref())?;
    let config = arguments.config.display();
    let url = cluster.sentinel.as_ref().with_context(|| {
        format!(
            "{config}: [clusters.{name}] names no sentinel, which alone could tell; without it, leave --custodian out"
        )
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(fetch(url))?;
    let known = status.clusters.values().find(|known| known.id == cluster.manifest.id());
    let known = known.with_context(|| format!("the sentinel at {url} does not watch cluster {name}"))?;
    let there = || known.custodians.keys().map(Principal::as_str).collect::<Vec<_>>().join(", ");
    let known = known.custodians.get(custodian);
    let known = known.with_context(|| format!("cluster {name} has no {custodian}; it has {}", there()))?;
    let words = said(custodian, known)?;
    anyhow::ensure!(
        !words.is_empty(),
        "the sentinel at {url} never heard {custodian}: leave --custodian out, or give --head"
    );
    Ok(words)
}

/// The positions that a custodian has told: the last one, and the one that something later did not fit.
fn said(custodian: &Principal, known: &CustodianStatus) -> anyhow::Result<Vec<Word>> {
    let mut said = Vec::new();
    if let Some(audit) = &known.audit {
        said.extend(audit.doubt.as_ref().and_then(|doubt| match &doubt.what {
            AuditMisfit::Shorter { told, told_head, .. } => Some((*told, told_head, format!("before {}", doubt.at))),
            AuditMisfit::Otherwise { entry, told_head } => Some((*entry, told_head, format!("before {}", doubt.at))),
            AuditMisfit::Broken { .. } => None,
        }));
        said.push((audit.seq, &audit.head, format!("at {}", audit.issued_at)));
    }
    let mut words = Vec::new();
    for (seq, head, when) in said.into_iter().filter(|(seq, ..)| *seq > 0) {
        let mut digest = [0; 32];
        hex::decode_to_slice(head, &mut digest).with_context(|| {
            format!("{custodian} is said to have signed {:?}, which is no digest", plain_text(head))
        })?;
        words.push(Word::new(format!("{custodian} {when}, as the sentinel tells"), Position { seq, head: digest }));
    }
    Ok(words)
}

/// Somebody's word of where the log stood.
#[derive(Serialize)]
struct Word {
    /// Whose it is.
    who: String,
    #[serde(skip)]
    known: Position,
    entry: u64,
    head: String,
    /// Whether the log fits it; none if it is about files that are not here, or the log is broken anyway.
    fits: Option<bool>,
}

impl Word {
    fn new(who: String, known: Position) -> Self {
        Self { who, known, entry: known.seq, head: known.head_hex(), fits: None }
    }
}

/// What was found.
#[derive(Serialize)]
struct Answer {
    whole: bool,
    files: Vec<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<Log>,
    #[serde(skip_serializing_if = "Option::is_none")]
    broken: Option<Break>,
    words: Vec<Word>,
}

/// A log whose chain is whole.
#[derive(Serialize)]
struct Log {
    begins: u64,
    /// What was before it: the last entry that is not here, and its digest, as `--head` takes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    follows: Option<String>,
    ends: u64,
    head: String,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    /// The bytes of a last line without its end.
    torn: u64,
}

/// The first entry that is not what it was.
#[derive(Serialize)]
struct Break {
    file: PathBuf,
    line: u64,
    entry: u64,
    what: String,
    means: &'static str,
    remedy: &'static str,
}

impl Answer {
    fn new(files: Vec<PathBuf>, mut words: Vec<Word>) -> Self {
        let mut broken = None;
        let mut log = None;
        match audit::verify(&files, &[]) {
            Ok(whole) => {
                for word in &mut words {
                    // Of the entry before the first one, that one tells.
                    let checked = (word.known.seq + 1 >= whole.begins).then(|| audit::verify(&files, &[word.known]));
                    word.fits = checked.as_ref().map(Result::is_ok);
                    broken = broken.or(checked.and_then(Result::err));
                }
                log = Some(Log::from(whole));
            }
            // With what is known of later entries it may be clearer which one was changed.
            Err(unclear) if unclear.why == Why::ChangedOrNext => {
                let known: Vec<_> = words.iter().map(|word| word.known).collect();
                broken = audit::verify(&files, &known).err().or(Some(unclear));
            }
            Err(clear) => broken = Some(clear),
        }
        Self { whole: broken.is_none(), files, log, broken: broken.map(Break::from), words }
    }
}

impl From<Summary> for Log {
    fn from(Summary { begins, follows, position, first, last, torn }: Summary) -> Self {
        let follows = (begins > 1).then(|| format!("{}:{}", follows.seq, follows.head_hex()));
        Self { begins, follows, ends: position.seq, head: position.head_hex(), first, last, torn }
    }
}

impl From<Broken> for Break {
    fn from(Broken { file, line, entry, why }: Broken) -> Self {
        let (means, remedy) = explain(&why);
        Self { file, line, entry, what: plain_text(&why.to_string()), means, remedy }
    }
}

/// What it means, and what to do.
fn explain(why: &Why) -> (&'static str, &'static str) {
    const EVIDENCE: &str = "keep these files as they are, as evidence; find out who was on the custodian's host since the entry before, and \
                            compare with the other custodians' logs and the sentinel's incidents";
    match why {
        Why::Gone | Why::Unread(_) => {
            ("nothing can be said of what is in it", "copy the file again, and see that you may read it")
        }
        Why::Form(_) => {
            ("this line was damaged, by somebody or by a disk, or the file is not a custodian's audit log", EVIDENCE)
        }
        Why::Number(_) => (
            "entries were taken out or put in here, or a file between these is missing, or one is given twice",
            "see that all files of the log are given, each once: audit.N.jsonl ends with entry N. If they are, keep them as evidence, and \
             find out who was on the custodian's host",
        ),
        Why::Changed | Why::ChangedOrNext => {
            ("somebody wrote into the log afterwards, or its disk is failing; the entries before it stand", EVIDENCE)
        }
        Why::Otherwise => (
            "the chain of these files is whole in itself, and is not the one of which the custodian told: somebody wrote it anew, \
             at least from there on, or these are the files of another custodian",
            EVIDENCE,
        ),
        Why::Missing => (
            "more had been written than is here",
            "if these files were copied before that was said, copy them again; if not, the end was cut off: keep them as evidence, and \
             find out who was on the custodian's host",
        ),
        Why::Headless => (
            "a file of the log begins with entry 1, or with one that tells after which it goes on: somebody cut lines off its front, or it is \
             a part of a file",
            EVIDENCE,
        ),
        Why::Torn => ("a file that is followed by another one never ends like this: it was cut", EVIDENCE),
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Break { file, line, entry, what, means, remedy }) = &self.broken {
            let file = plain_text(&file.display().to_string());
            writeln!(f, "✗ The audit log is not what was written: {file}, line {line} (entry {entry}): {what}.")?;
            writeln!(f, "  It means: {means}.")?;
            write!(f, "  Do this: {remedy}.")?;
        }
        if let Some(log) = &self.log {
            let files = match self.files.len() {
                1 => "1 file".to_owned(),
                many => format!("{many} files"),
            };
            let whole = if self.whole { "✓ The audit log is whole" } else { "\n  The chain in itself is whole" };
            write!(f, "{whole}: {log}, in {files}.")?;
            if let Some(follows) = &log.follows {
                let before = log.begins - 1;
                write!(
                    f,
                    "\n! Entries 1 to {before} are not in these files: carried away, or removed by somebody. Nothing is said of them; the files \
                     that they are in, verify with --head {follows}"
                )?;
            }
            if log.torn > 0 {
                let torn = log.torn;
                write!(f, "\n  Behind it {torn} bytes of a line that was being written, or that a crash cut off.")?;
            }
            write!(f, "\n  Its end, to note down: {}:{}", log.ends, log.head)?;
        }
        for word in &self.words {
            let Word { who, entry, head, fits, .. } = word;
            let what = format!("entry {entry} with the digest {head} ({who})");
            match fits {
                Some(true) => write!(f, "\n✓ It has {what}.")?,
                Some(false) => write!(f, "\n✗ It does not have {what}.")?,
                None if self.log.is_some() => write!(f, "\n! {what} is not in these files: give the older ones too.")?,
                None => {}
            }
        }
        if self.words.is_empty() && self.whole {
            write!(
                f,
                "\n! Whether its end was cut off, or all of it written anew, only --head or --custodian can tell."
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.last) {
            (Some(first), Some(last)) => write!(f, "entries {} to {}, {first} to {last}", self.begins, self.ends),
            _ => f.write_str("no entry"),
        }
    }
}

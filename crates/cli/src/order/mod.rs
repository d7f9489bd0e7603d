//! What operators order, as they type it: one file for each command. Here is what all of them share: whom it is about, how it is
//! signed, and how it goes out, to the broker or into files.

pub(crate) mod distrust;
pub(crate) mod hold;
pub(crate) mod release;
pub(crate) mod seal;
mod send;
pub(crate) mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use holdfast_core::id::{ClusterName, MessageId, Principal};
use holdfast_core::message::{Content, Effect, plain_text};
use holdfast_core::time::Timestamp;
use holdfast_core::topology::routing_key;
use holdfast_edge::outgoing::seal_message;
use holdfast_edge::{clock, files};
use serde::Serialize;
use tokio::time::Instant;

use crate::operator::{Named, OperatedCluster, Operator};
pub(crate) use send::{Answer, Post, Sent, send};

/// Where an order goes: what every such command is asked for.
#[derive(clap::Args)]
pub(crate) struct Road {
    /// The operator's configuration
    #[arg(long, default_value = "operator.toml")]
    pub(crate) config: PathBuf,
    /// The cluster; not needed where the configuration has only one
    #[arg(long)]
    pub(crate) cluster: Option<ClusterName>,
    /// Write to this file instead of sending, or into this folder, a file for each message; `holdfast-setup deliver` takes them to
    /// a custodian
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// For how many seconds custodians' answers are waited for
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub(crate) wait: u64,
    /// Print what was done as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A signed message, ready to go out.
#[derive(Clone)]
pub(crate) struct Signed {
    pub(crate) id: MessageId,
    /// What it is, in its file's name.
    pub(crate) name: String,
    pub(crate) envelope: Vec<u8>,
    pub(crate) routing_key: String,
}

/// What became of one message, for `--json`.
#[derive(Serialize)]
pub(crate) struct Done<T: Serialize> {
    pub(crate) id: MessageId,
    pub(crate) kind: &'static str,
    pub(crate) cluster: ClusterName,
    #[serde(flatten)]
    pub(crate) what: T,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<PathBuf>,
    /// What custodians answered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) answers: Vec<Answer>,
    /// The custodians that have not answered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) unanswered: Vec<Principal>,
}

impl Road {
    pub(crate) fn load(&self) -> anyhow::Result<Operator> {
        Ok(Operator::load(&self.config)?)
    }

    /// Says something to a person; nothing where a program listens.
    pub(crate) fn say(&self, line: &str) {
        if !self.json {
            // A closed stdout is no reason to stop half-way through.
            let _ = writeln!(std::io::stdout(), "{line}");
        }
    }

    pub(crate) fn print<T: Serialize>(&self, done: &T) -> anyhow::Result<()> {
        if self.json {
            serde_json::to_writer(std::io::stdout(), done)?;
            writeln!(std::io::stdout())?;
        }
        Ok(())
    }

    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_secs(self.wait)
    }

    /// The broker, or what to do without one.
    pub(crate) fn broker<'a>(&self, operator: &'a Operator) -> anyhow::Result<&'a holdfast_edge::config::BrokerConfig> {
        operator.broker.as_ref().with_context(|| {
            format!(
                "{} names no [broker]: add one, or write to files with --output and take them to the custodians with \
                 holdfast-setup deliver",
                self.config.display()
            )
        })
    }

    /// Writes the messages, where `--output` says so: to one file, or each into the folder. Gives the files.
    pub(crate) fn write(&self, output: &Path, signed: &[Signed]) -> anyhow::Result<Vec<PathBuf>> {
        let one_file = output.extension().is_some_and(|extension| extension == "json");
        anyhow::ensure!(
            !one_file || signed.len() == 1,
            "{} is one file, and there are {} messages: name a folder",
            output.display(),
            signed.len()
        );
        if !one_file {
            std::fs::create_dir_all(output).with_context(|| format!("{} cannot be made", output.display()))?;
        }
        let mut written = Vec::new();
        for message in signed {
            let file =
                if one_file { output.to_owned() } else { output.join(format!("{}-{}.json", message.name, message.id)) };
            files::create(&file, &message.envelope, 0o644)?;
            self.say(&format!("{} {} written to {}", message.name, message.id, file.display()));
            written.push(file);
        }
        self.say("take each to every custodian, and there: holdfast-setup deliver --config /etc/holdfast/custodian.toml FILE");
        Ok(written)
    }

    /// Says who has not answered to all of these, and what may be the reason.
    pub(crate) fn say_unanswered(&self, sent: &Sent, ids: &[MessageId]) {
        let unanswered: BTreeSet<_> = ids.iter().flat_map(|id| sent.unanswered(*id)).collect();
        for custodian in unanswered {
            self.say(&format!(
                "  {custodian}: no answer: it is down or cut off, or refuses it (`rejected` in its heartbeat)"
            ));
        }
        if let Some(why) = &sent.unread {
            let why = plain_text(why);
            self.say(&format!("answers cannot be read: {why}; import what `holdfast broker definitions` prints"));
        }
        if let Some(why) = &sent.disbelieved {
            let why = plain_text(why);
            self.say(&format!(
                "an answer was not believed here: {why}; are this machine's clock and allowed_signers right?"
            ));
        }
    }

    /// Signs one order, and writes or sends it. `tell` puts a custodian's answer into words; the whole answer is for `end`, which
    /// says what follows, and whether the command has done what it was to do.
    pub(crate) fn order<T: Serialize>(
        &self,
        operator: &Operator,
        named: Named<'_>,
        content: Content,
        what: T,
        tell: impl Fn(&Answer) -> String,
        end: impl Fn(&Sent, MessageId) -> (String, bool),
    ) -> anyhow::Result<ExitCode> {
        let (done, outcome) = self.give(operator, named, vec![(content, what)], tell, end)?;
        done.first().map_or(Ok(()), |done| self.print(done))?;
        outcome
    }

    /// The same with several orders, which go out together.
    pub(crate) fn order_all<T: Serialize>(
        &self,
        operator: &Operator,
        named: Named<'_>,
        orders: Vec<(Content, T)>,
        tell: impl Fn(&Answer) -> String,
        end: impl Fn(&Sent, MessageId) -> (String, bool),
    ) -> anyhow::Result<ExitCode> {
        let (done, outcome) = self.give(operator, named, orders, tell, end)?;
        self.print(&done)?;
        outcome
    }

    /// Gives what became of each order, and how the command ends.
    fn give<T: Serialize>(
        &self,
        operator: &Operator,
        (name, cluster): Named<'_>,
        orders: Vec<(Content, T)>,
        tell: impl Fn(&Answer) -> String,
        end: impl Fn(&Sent, MessageId) -> (String, bool),
    ) -> anyhow::Result<(Vec<Done<T>>, anyhow::Result<ExitCode>)> {
        let (signed, mut done) = sign_all(operator, (name, cluster), orders)?;
        if let Some(output) = &self.output {
            for (done, file) in done.iter_mut().zip(self.write(output, &signed)?) {
                done.file = Some(file);
            }
            return Ok((done, Ok(ExitCode::SUCCESS)));
        }
        let broker = self.broker(operator)?;
        for Done { id, kind, .. } in &done {
            self.say(&format!("{kind} {id} of cluster {name}, signed by {}", operator.principal));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let one = signed.len() == 1;
        let heard = |answer: &Answer| {
            if one {
                self.say(&format!("  {}: {}", answer.custodian, tell(answer)));
            }
        };
        let sent = runtime.block_on(send(broker, operator, cluster, &signed, self.deadline(), heard));
        if !one {
            self.say_answers(&sent, &signed, &tell);
        }
        self.say_unanswered(&sent, &signed.iter().map(|message| message.id).collect::<Vec<_>>());
        for done in &mut done {
            (done.answers, done.unanswered) = (sent.answers(done.id).cloned().collect(), sent.unanswered(done.id));
        }
        if let Some(trouble) = &sent.trouble {
            let all = done.iter().map(|done| format!("{} {}", done.kind, done.id)).collect::<Vec<_>>().join(", ");
            let trouble = anyhow::anyhow!("{all} was perhaps not delivered, nobody has answered: {trouble}");
            return Ok((done, Err(trouble)));
        }
        let well = self.say_ends(done.iter().map(|done| end(&sent, done.id)).collect());
        Ok((done, Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })))
    }

    /// Says what follows, once where it is the same for all of them, and whether all went well.
    fn say_ends(&self, ends: Vec<(String, bool)>) -> bool {
        let mut words: Vec<_> = ends.iter().map(|(word, _)| word).collect();
        words.dedup();
        words.into_iter().for_each(|word| self.say(word));
        ends.iter().all(|(_, well)| *well)
    }

    /// Says of each message which custodians answered what.
    fn say_answers(&self, sent: &Sent, signed: &[Signed], tell: impl Fn(&Answer) -> String) {
        for message in signed {
            let mut said: BTreeMap<String, Vec<&str>> = BTreeMap::new();
            for answer in sent.answers(message.id) {
                said.entry(tell(answer)).or_default().push(answer.custodian.as_str());
            }
            for (words, custodians) in said {
                self.say(&format!("  {}: {}: {words}", message.id, custodians.join(", ")));
            }
        }
    }
}

/// Signs orders about a cluster, now; with each, what is told of it, of which the answers are still to come.
fn sign_all<T: Serialize>(
    operator: &Operator,
    (name, cluster): Named<'_>,
    orders: Vec<(Content, T)>,
) -> anyhow::Result<(Vec<Signed>, Vec<Done<T>>)> {
    let (mut signed, mut done) = (Vec::new(), Vec::new());
    for (content, what) in orders {
        let kind = content.kind().as_str();
        let message = sign(operator, cluster, content, None, kind.to_owned())?;
        let (id, cluster) = (message.id, name.clone());
        let (answers, unanswered) = (Vec::new(), Vec::new());
        done.push(Done { id, kind, cluster, what, expires_at: None, file: None, answers, unanswered });
        signed.push(message);
    }
    Ok((signed, done))
}

/// Signs a message about a cluster, now.
pub(crate) fn sign(
    operator: &Operator,
    cluster: &OperatedCluster,
    content: Content,
    life: Option<Duration>,
    name: String,
) -> anyhow::Result<Signed> {
    let (kind, of, issued_at) = (content.kind(), cluster.manifest.id(), clock::wall());
    let expires_at = life.map(|life| issued_at.after(life));
    let (id, envelope) = seal_message(&operator.key, &operator.principal, of, content, issued_at, expires_at)?;
    let routing_key = routing_key(of, &operator.principal, kind.as_str());
    Ok(Signed { id, name, envelope, routing_key })
}

/// What a custodian made of something that takes several operators, in words.
pub(crate) fn in_words(effect: &Effect, done: &str) -> String {
    match effect {
        Effect::InForce {} => done.to_owned(),
        Effect::Waiting { have, need } => format!("has heard {have} of {need} operators"),
        Effect::Inapplicable { why } => format!("cannot: {}", plain_text(why)),
    }
}

/// What follows from the answers to something that takes several operators, and whether it went well: somebody took it.
pub(crate) fn outcome(
    sent: &Sent,
    id: MessageId,
    cluster: &OperatedCluster,
    done: &str,
    again: &str,
) -> (String, bool) {
    let answers: Vec<_> = sent.answers(id).map(|answer| &answer.effect).collect();
    let in_force = answers.iter().filter(|effect| matches!(effect, Effect::InForce {})).count();
    let most = answers.iter().filter_map(|effect| match effect {
        Effect::Waiting { have, need } => Some((*have, *need)),
        _ => None,
    });
    let all = sent.custodians();
    // One of them may lie: it is done when the others are too few to matter.
    let enough = all - in_force < usize::from(cluster.manifest.threshold());
    match most.max() {
        _ if enough => (format!("{done} at {in_force} of {all} custodians"), true),
        Some((have, need)) => {
            let more = need.saturating_sub(have);
            let who =
                if more == 1 { "one more operator types".to_owned() } else { format!("{more} more operators type") };
            (format!("{who}, within 15 minutes: {again}"), true)
        }
        None if answers.is_empty() => ("no custodian has answered".to_owned(), false),
        None if in_force > 0 => {
            (format!("{done} at {in_force} of {all} custodians only: see who has not answered"), false)
        }
        None => ("no custodian can do that".to_owned(), false),
    }
}

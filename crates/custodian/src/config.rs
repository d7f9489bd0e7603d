//! The custodian's configuration: `custodian.toml` and the files that it names, loaded and checked before anything starts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::ceremony::Manifest;
use holdfast_core::custodian::{ClusterSettings, NodeSettings, Settings};
use holdfast_core::drill::{CanaryPath, Choice, Conducting, DrillWindow, PEOPLE_MAX};
use holdfast_core::id::{ClusterId, ClusterName, NodeName, Principal, Site};
use holdfast_core::policy::{Policy, Rule};
use holdfast_core::trust::Namespace;
use holdfast_edge::config::{BrokerConfig, BrokerSection, ConfigError, ConfigFile, NodeSection, Spanned};
use holdfast_edge::keys::SigningKey;
use holdfast_edge::store::ShareStore;
use holdfast_edge::vault::NodeIdentity;
use holdfast_edge::vault::duty::Duty;
use serde::Deserialize;

use crate::metrics::{MetricsConfig, MetricsSection};
use crate::sandbox::Sandbox;
use crate::schedule::{Schedule, time_zone};

/// What is done without `poll_interval`.
const POLL_DEFAULT: Duration = Duration::from_secs(1);

/// Polls faster than this cost more than they find; the broker brings the news.
const POLL_MIN: Duration = Duration::from_millis(100);

/// Polls slower than this are no safety net.
const POLL_MAX: Duration = Duration::from_secs(60);

/// What is done without `broker.grace`.
const GRACE_DEFAULT: Duration = Duration::from_secs(120);

/// The most operators of one cluster, and so the most approvals that a policy can ask for.
const OPERATORS_MAX: usize = 64;

/// A custodian's configuration, loaded.
pub(crate) struct Config {
    /// Its own name.
    pub(crate) id: Principal,
    /// The folder of its state, its audit log and its inbox.
    pub(crate) state_dir: PathBuf,
    /// The key with which it signs its reports.
    pub(crate) signing_key: SigningKey,
    /// Whether the sandbox has to be in force.
    pub(crate) sandbox: SandboxMode,
    /// The broker, if there is one.
    pub(crate) broker: Option<BrokerConfig>,
    /// Where the custodian's own metrics go, if anywhere.
    pub(crate) metrics: Option<MetricsConfig>,
    /// What the edge needs to know of each cluster.
    pub(crate) clusters: BTreeMap<ClusterId, ClusterFiles>,
    /// The clusters whose drills it conducts.
    pub(crate) conductors: BTreeMap<ClusterId, ConductorFiles>,
    /// The files that nobody but the custodian may read, and what each is; the signing key first.
    pub(crate) secrets: Vec<(&'static str, PathBuf)>,
    /// What the core needs to know.
    pub(crate) settings: Settings,
    /// The folders of all files that are read again on SIGHUP.
    folders: BTreeSet<PathBuf>,
}

/// A cluster's files and nodes.
pub(crate) struct ClusterFiles {
    /// The manifest.
    pub(crate) manifest: Manifest,
    /// The share.
    pub(crate) store: ShareStore,
    /// The nodes.
    pub(crate) nodes: BTreeMap<NodeName, Arc<NodeIdentity>>,
}

/// What the edge needs to conduct a cluster's drills.
pub(crate) struct ConductorFiles {
    /// Its tokens, each encrypted with age, and what each is for: that which seals first.
    pub(crate) tokens: Vec<(Duty, PathBuf)>,
    /// The identity that opens them: the one of the cluster's share.
    pub(crate) identity: PathBuf,
    /// When drills are held by themselves, if they are.
    pub(crate) schedule: Option<Schedule>,
}

/// `sandbox = "…"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SandboxMode {
    /// In force, or no start.
    #[default]
    Enforce,
    /// None: the custodian says in every heartbeat that it has none, and is never ready.
    Off,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    id: Spanned<Principal>,
    site: Option<Site>,
    state_dir: Spanned<PathBuf>,
    signing_key: Spanned<PathBuf>,
    allowed_signers: Spanned<PathBuf>,
    #[serde(default)]
    sandbox: SandboxMode,
    broker: Option<BrokerSection>,
    metrics: Option<MetricsSection>,
    clusters: Spanned<BTreeMap<Spanned<ClusterName>, ClusterSection>>,
    #[serde(default)]
    conductor: BTreeMap<Spanned<ClusterName>, ConductorSection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConductorSection {
    token_file: Spanned<PathBuf>,
    schedule: Option<Spanned<String>>,
    timezone: Option<Spanned<String>>,
    jitter: Option<Spanned<String>>,
    #[serde(default)]
    blackout: Vec<String>,
    node: Option<Spanned<String>>,
    min_unsealed: Option<Spanned<usize>>,
    objective: Option<Spanned<String>>,
    people_objective: Option<Spanned<String>>,
    canary: Option<Spanned<CanaryPath>>,
    canary_token_file: Option<Spanned<PathBuf>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterSection {
    manifest: Spanned<PathBuf>,
    share: Spanned<PathBuf>,
    identity: Spanned<PathBuf>,
    ca_cert: Spanned<PathBuf>,
    poll_interval: Option<Spanned<String>>,
    operators: Spanned<Vec<Principal>>,
    #[serde(default)]
    restrictors: BTreeSet<Spanned<Principal>>,
    #[serde(default)]
    sentinels: BTreeSet<Principal>,
    #[serde(default)]
    conductors: BTreeSet<Principal>,
    nodes: Spanned<BTreeMap<Spanned<NodeName>, NodeSection>>,
    #[serde(default)]
    policy: PolicySection,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicySection {
    restart: Option<Rule>,
    outage: Option<Rule>,
    outage_window: Option<Spanned<String>>,
    in_place: Option<Rule>,
    unknown: Option<Rule>,
    approvals: Option<Spanned<u8>>,
    in_place_approvals: Option<Spanned<u8>>,
    release_approvals: Option<Spanned<u8>>,
    unseals_per_hour: Option<u32>,
    drill_windows: Option<Vec<Spanned<String>>>,
}

impl Config {
    /// Reads the configuration at `path` and every file that it names. The share is not tried here.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let source = ConfigFile::read(path)?;
        let file: File = source.parse()?;
        let signing_key = source.signing_key(&file.signing_key)?;
        let allowed_signers = source.allowed_signers(&file.allowed_signers)?;
        source.check_listed(&signing_key, &file.id, Namespace::Report, &allowed_signers)?;
        source.check_clusters(&file.clusters)?;

        let mut folders = BTreeSet::new();
        let mut note = |path: &Path| folders.extend(path.parent().map(Path::to_owned));
        note(path);
        note(&source.resolve(&file.signing_key));
        note(&source.resolve(&file.allowed_signers));
        let broker = file.broker.as_ref().map(|section| {
            note(&source.resolve(&section.password_file));
            note(&source.resolve(&section.ca_cert));
            source.broker(section, file.id.get_ref())
        });
        let broker = broker.transpose()?;
        let mut secrets = vec![("the signing key", source.resolve(&file.signing_key))];
        let password = file.broker.as_ref().map(|section| source.resolve(&section.password_file));
        secrets.extend(password.map(|path| ("the broker's password", path)));

        if let Some(section) = &file.metrics {
            [&section.ca_cert, &section.password_file]
                .into_iter()
                .flatten()
                .for_each(|path| note(&source.resolve(path)));
            let password = section.password_file.as_ref().map(|path| source.resolve(path));
            secrets.extend(password.map(|path| ("the Pushgateway's password", path)));
        }

        let (mut clusters, mut settings) = (BTreeMap::new(), BTreeMap::new());
        let mut ids = Vec::new();
        for (name, section) in file.clusters.get_ref() {
            for path in [&section.manifest, &section.share, &section.identity, &section.ca_cert] {
                note(&source.resolve(path));
            }
            let loaded = Cluster::load(&source, &file.id, &signing_key, name.get_ref(), section)?;
            ids.push((name, loaded.id));
            clusters.insert(loaded.id, loaded.files);
            settings.insert(loaded.id, loaded.settings);
        }
        source.check_distinct(ids)?;
        let mut conductors = BTreeMap::new();
        for (name, section) in &file.conductor {
            for file in [Some(&section.token_file), section.canary_token_file.as_ref()].into_iter().flatten() {
                note(&source.resolve(file));
            }
            let cluster = settings.iter_mut().find(|(_, cluster)| cluster.name == *name.get_ref());
            let Some((cluster, settings)) = cluster else {
                return Err(source.refuse(
                    name,
                    format!("there is no [clusters.{}] whose drills could be conducted", name.get_ref()),
                ));
            };
            let identity = file.clusters.get_ref().get(name).map(|section| source.resolve(&section.identity));
            let (conducting, files) =
                section.load(&source, (&file.id, *cluster, settings), name, identity.unwrap_or_default())?;
            settings.conducting = Some(conducting);
            secrets.extend(files.tokens.iter().map(|(_, file)| ("a conductor's token", file.clone())));
            conductors.insert(*cluster, files);
        }

        let id = file.id.into_inner();
        let state_dir = source.resolve(&file.state_dir);
        let metrics = file.metrics.as_ref().map(|section| {
            let kept = folders.iter().chain([&state_dir]).cloned().collect();
            section.load(&source, &id, &kept)
        });
        let metrics = metrics.transpose()?;
        let broker_grace = broker.as_ref().map(|broker| broker.grace.unwrap_or(GRACE_DEFAULT));
        let settings = Settings {
            id: id.clone(),
            site: file.site,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            sandbox: BTreeSet::new(),
            broker_grace,
            allowed_signers,
            clusters: settings,
        };
        let sandbox = file.sandbox;
        Ok(Self {
            id,
            state_dir,
            signing_key,
            sandbox,
            broker,
            metrics,
            clusters,
            conductors,
            secrets,
            settings,
            folders,
        })
    }

    /// What the process has to be able to touch.
    pub(crate) fn sandbox(&self) -> Sandbox {
        let nodes = self.clusters.values().flat_map(|cluster| cluster.nodes.values());
        let ports = nodes.map(|node| node.port()).chain(self.broker.as_ref().map(|broker| broker.url.port()));
        let ports = ports.chain(self.metrics.iter().filter_map(|metrics| Some(metrics.pushgateway.as_ref()?.port())));
        let textfile = self.metrics.as_ref().and_then(MetricsConfig::folder);
        Sandbox {
            // A relative path's folder may be the empty path: this one.
            read: self.folders.iter().map(|f| if f.as_os_str().is_empty() { ".".into() } else { f.clone() }).collect(),
            write: vec![self.state_dir.clone()],
            replace: textfile.map(Path::to_owned).into_iter().collect(),
            connect_ports: ports.collect::<BTreeSet<_>>().into_iter().collect(),
        }
    }
}

struct Cluster {
    id: ClusterId,
    files: ClusterFiles,
    settings: ClusterSettings,
}

impl Cluster {
    fn load(
        source: &ConfigFile,
        me: &Spanned<Principal>,
        signing_key: &SigningKey,
        name: &ClusterName,
        section: &ClusterSection,
    ) -> Result<Self, ConfigError> {
        let manifest = source.manifest(&section.manifest)?;
        let Some(member) = manifest.member(me.get_ref()) else {
            let who = me.get_ref();
            return Err(source.refuse(
                &section.manifest,
                format!("the manifest knows no custodian {who}: check id, or take the manifest of the cluster that it serves"),
            ));
        };
        if member.signing_key != *signing_key.public_key() {
            return Err(source.refuse(
                &section.manifest,
                format!(
                    "the manifest has another signing key for {}: this key was not the one that was enrolled",
                    me.get_ref()
                ),
            ));
        }
        let ca_pem = source.ca_cert(&section.ca_cert)?;
        let nodes = source.nodes(manifest.id(), &ca_pem, &section.nodes)?;
        let poll = section.poll_interval.as_ref().map(|text| source.duration(text, POLL_MIN..=POLL_MAX));
        let operators: BTreeSet<_> = section.operators.get_ref().iter().cloned().collect();
        if operators.is_empty() || operators.len() > OPERATORS_MAX {
            let what =
                format!("between 1 and {OPERATORS_MAX} operators have to be named: without one nobody can approve");
            return Err(source.refuse(&section.operators, what));
        }
        let settings = ClusterSettings {
            name: name.clone(),
            generation: manifest.generation(),
            shares: manifest.shares(),
            threshold: manifest.threshold(),
            custodians: manifest.custodians().iter().map(|member| member.id.clone()).collect(),
            policy: section.policy.load(source, &section.operators)?,
            operators,
            restrictors: section.restrictors(source)?,
            sentinels: section.sentinels.clone(),
            conductors: section.conductors.clone(),
            conducting: None,
            poll: poll.transpose()?.unwrap_or(POLL_DEFAULT),
            nodes: nodes.iter().map(|(name, node)| (name.clone(), NodeSettings { direct: node.direct })).collect(),
        };
        let store = ShareStore::open(&source.resolve(&section.share), &source.resolve(&section.identity));
        let nodes = nodes.into_iter().map(|(name, node)| (name, node.identity)).collect();
        Ok(Self { id: manifest.id(), files: ClusterFiles { manifest, store, nodes }, settings })
    }
}

impl ClusterSection {
    /// Those who may only hold. One of them who is an operator too could release what it held.
    fn restrictors(&self, source: &ConfigFile) -> Result<BTreeSet<Principal>, ConfigError> {
        if let Some(both) = self.restrictors.iter().find(|name| self.operators.get_ref().contains(name.get_ref())) {
            let what = format!(
                "{} is an operator too, and so may release what it holds: give the restrictor a name and a key of its own",
                both.get_ref()
            );
            return Err(source.refuse(both, what));
        }
        Ok(self.restrictors.iter().map(|name| name.get_ref().clone()).collect())
    }
}

impl ConductorSection {
    fn load(
        &self,
        source: &ConfigFile,
        (me, cluster, settings): (&Spanned<Principal>, ClusterId, &ClusterSettings),
        name: &Spanned<ClusterName>,
        identity: PathBuf,
    ) -> Result<(Conducting, ConductorFiles), ConfigError> {
        if !settings.conductors.contains(me.get_ref()) {
            let what = format!(
                "{} is not among conductors of [clusters.{}]: nobody would believe its intents",
                me.get_ref(),
                name.get_ref()
            );
            return Err(source.refuse(name, what));
        }
        let node = match self.node.as_ref().map(|node| (node, node.get_ref().as_str())) {
            None | Some((_, "rotate")) => Choice::Rotate,
            Some((_, "active")) => Choice::Active,
            Some((node, text)) => {
                let known = text.parse().ok().filter(|name| settings.nodes.contains_key(name));
                Choice::Node(
                    known.ok_or_else(|| source.refuse(node, "node is \"rotate\", \"active\" or the name of a node"))?,
                )
            }
        };
        let all = settings.nodes.len();
        let min_unsealed = self.min_unsealed.as_ref().map_or(all.saturating_sub(1), |n| *n.get_ref());
        if let Some(given) = self.min_unsealed.as_ref().filter(|given| *given.get_ref() >= all) {
            let what = format!("min_unsealed is {min_unsealed} of {all} nodes: no node could ever be sealed");
            return Err(source.refuse(given, what));
        }
        let objective = self.objective.as_ref().map(|text| source.duration(text, OBJECTIVE_MIN..=OBJECTIVE_MAX));
        let people = self.people_objective.as_ref().map(|text| source.duration(text, OBJECTIVE_MIN..=PEOPLE_MAX));
        let jitter = self.jitter.as_ref().map(|text| source.duration(text, Duration::ZERO..=JITTER_MAX));
        let (objective, jitter) =
            (objective.transpose()?.unwrap_or(OBJECTIVE_DEFAULT), jitter.transpose()?.unwrap_or_default());
        let zone = self.timezone.as_ref().map_or("UTC", |zone| zone.get_ref().as_str());
        let schedule = self.schedule.as_ref().map(|pattern| {
            Schedule::parse(cluster, pattern.get_ref(), zone, jitter, &self.blackout)
                .map_err(|error| source.refuse(pattern, error.to_string()))
        });
        let people_objective = people.transpose()?.unwrap_or(PEOPLE_OBJECTIVE_DEFAULT);
        let mut tokens = vec![(Duty::Seal, source.resolve(&self.token_file))];
        let canary = self.canary(source)?;
        tokens.extend(canary.clone().map(|(path, file)| (Duty::ReadCanary(path), file)));
        let files = ConductorFiles { tokens, identity, schedule: schedule.transpose()? };
        let canary = canary.map(|(path, _)| path);
        Ok((Conducting { node, min_unsealed, objective, people_objective, canary }, files))
    }

    /// What is read in a drill, and the file of the token that may: both, or neither.
    fn canary(&self, source: &ConfigFile) -> Result<Option<(CanaryPath, PathBuf)>, ConfigError> {
        match (&self.canary, &self.canary_token_file) {
            (Some(path), Some(file)) => Ok(Some((path.get_ref().clone(), source.resolve(file)))),
            (None, None) => Ok(None),
            (Some(path), None) => {
                let what = "the canary is read with a token of its own: name its canary_token_file, and put one there with \
                            holdfast-setup canary-token";
                Err(source.refuse(path, what))
            }
            (None, Some(file)) => Err(source.refuse(file, "there is no canary that this token could read: name it")),
        }
    }
}

/// What is done without `objective`.
const OBJECTIVE_DEFAULT: Duration = Duration::from_secs(30);

/// What is done without `people_objective`: somebody on call who was asleep.
const PEOPLE_OBJECTIVE_DEFAULT: Duration = Duration::from_secs(15 * 60);

/// An objective below the time of one look says nothing.
const OBJECTIVE_MIN: Duration = Duration::from_millis(10);

/// The longest objective: while an intent holds.
const OBJECTIVE_MAX: Duration = Duration::from_secs(15 * 60);

/// The longest jitter: custodians take an intent as long after its time.
const JITTER_MAX: Duration = Duration::from_secs(10 * 60);

impl PolicySection {
    fn load(&self, source: &ConfigFile, operators: &Spanned<Vec<Principal>>) -> Result<Policy, ConfigError> {
        let default = Policy::default();
        let quorum = |given: &Option<Spanned<u8>>, name: &str, default: u8| {
            let wanted = given.as_ref().map_or(default, |n| *n.get_ref());
            if (1..=operators.get_ref().len()).contains(&usize::from(wanted)) {
                return Ok(wanted);
            }
            let what = format!(
                "{name} is {wanted}, and has to be between 1 and the number of operators, {}",
                operators.get_ref().len()
            );
            Err(given.as_ref().map_or_else(|| source.refuse(operators, &what), |n| source.refuse(n, &what)))
        };
        let drill_window = |text: &Spanned<String>| {
            DrillWindow::parse(text.get_ref(), time_zone).map_err(|error| source.refuse(text, error.to_string()))
        };
        let window = self.outage_window.as_ref().map(|text| source.duration(text, Duration::ZERO..=WINDOW_MAX));
        Ok(Policy {
            restart: self.restart.unwrap_or(default.restart),
            outage: self.outage.unwrap_or(default.outage),
            outage_window: window.transpose()?.unwrap_or(default.outage_window),
            in_place: self.in_place.unwrap_or(default.in_place),
            unknown: self.unknown.unwrap_or(default.unknown),
            approvals: quorum(&self.approvals, "approvals", default.approvals)?,
            in_place_approvals: quorum(&self.in_place_approvals, "in_place_approvals", default.in_place_approvals)?,
            release_approvals: quorum(&self.release_approvals, "release_approvals", default.release_approvals)?,
            unseals_per_hour: self.unseals_per_hour.unwrap_or(default.unseals_per_hour),
            drill_windows: self.drill_windows.iter().flatten().map(drill_window).collect::<Result<_, _>>()?,
        })
    }
}

/// The longest outage window: after a month nobody remembers what was open.
const WINDOW_MAX: Duration = Duration::from_secs(31 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::INTERVAL_DEFAULT;

    /// docs/INSTALL.md shows each default in a line that is commented out: with all of them in force nothing changes.
    #[test]
    fn the_defaults_that_the_page_shows_are_the_defaults() {
        let page = include_str!("../../../docs/INSTALL.md");
        // What stands before " = " in a line that shows a default is a key, and in prose it is not one word.
        let shown = |line: &&str| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
        let line = |line| format!("{}\n", str::strip_prefix(line, "# ").filter(shown).unwrap_or(line));
        let in_force = |first: &str| {
            let (_, example) = page.split_once(&format!("```toml\n{first}")).expect("the example");
            let (example, _) = example.split_once("```").expect("its end");
            format!("{first}{}", example.lines().map(line).collect::<String>())
        };
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("custodian.toml");
        let both = in_force("id = \"custodian-1\"") + &in_force("[conductor.prod]") + &in_force("[metrics]");
        std::fs::write(&path, both).expect("written");

        let source = ConfigFile::read(&path).expect("read");
        let file: File = source.parse().expect("the example");
        assert_eq!(file.sandbox, SandboxMode::default());
        let grace = file.broker.and_then(|broker| broker.grace).expect("shown");
        assert_eq!(source.duration(&grace, Duration::ZERO..=Duration::MAX), Ok(GRACE_DEFAULT));
        let interval = file.metrics.and_then(|metrics| metrics.interval).expect("shown");
        assert_eq!(source.duration(&interval, Duration::ZERO..=Duration::MAX), Ok(INTERVAL_DEFAULT));
        let section = file.clusters.get_ref().values().next().expect("a cluster");
        let poll = section.poll_interval.as_ref().expect("shown");
        assert_eq!(source.duration(poll, POLL_MIN..=POLL_MAX), Ok(POLL_DEFAULT));
        assert!(section.conductors.is_empty() && section.restrictors.is_empty());
        let PolicySection { restart, outage, outage_window, in_place, unknown, .. } = &section.policy;
        let PolicySection { approvals, in_place_approvals, release_approvals, .. } = &section.policy;
        let rules = [restart, outage, in_place, unknown].map(Option::is_some);
        let counts = [approvals, in_place_approvals, release_approvals].map(Option::is_some);
        assert!(rules == [true; 4] && counts == [true; 3] && outage_window.is_some(), "each is shown");
        assert!(section.policy.unseals_per_hour.is_some() && section.policy.drill_windows.is_some(), "each is shown");
        assert_eq!(section.policy.load(&source, &section.operators), Ok(Policy::default()));

        let conductor = file.conductor.values().next().expect("a conductor");
        let text = |value: &Option<Spanned<String>>| value.as_ref().expect("shown").get_ref().clone();
        let duration = |value: &Option<Spanned<String>>| {
            source.duration(value.as_ref().expect("shown"), Duration::ZERO..=Duration::MAX)
        };
        assert_eq!((text(&conductor.node), text(&conductor.timezone)), ("rotate".to_owned(), "UTC".to_owned()));
        assert_eq!(duration(&conductor.objective), Ok(OBJECTIVE_DEFAULT));
        assert_eq!(duration(&conductor.jitter), Ok(Duration::ZERO));
        assert!(conductor.blackout.is_empty() && conductor.schedule.is_some());
        let all_but_one = section.nodes.get_ref().len() - 1;
        assert_eq!(conductor.min_unsealed.as_ref().map(|n| *n.get_ref()), Some(all_but_one));
    }
}

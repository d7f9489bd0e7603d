//! `[metrics]` in `custodian.toml`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_core::id::Principal;
use holdfast_edge::config::{ConfigError, ConfigFile, Spanned};
use holdfast_edge::pushgateway::Pushgateway;
use serde::Deserialize;

use super::MetricsConfig;

/// What is done without `interval`.
pub(crate) const INTERVAL_DEFAULT: Duration = Duration::from_secs(15);

/// More often than that nobody scrapes.
pub(crate) const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Less often, and an alert would come late.
pub(crate) const INTERVAL_MAX: Duration = Duration::from_secs(600);

/// node_exporter reads files with this end alone.
const TEXTFILE_END: &str = "prom";

/// `[metrics]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MetricsSection {
    pub(crate) textfile: Option<Spanned<PathBuf>>,
    pub(crate) pushgateway: Option<Spanned<String>>,
    pub(crate) ca_cert: Option<Spanned<PathBuf>>,
    pub(crate) username: Option<Spanned<String>>,
    pub(crate) password_file: Option<Spanned<PathBuf>>,
    pub(crate) interval: Option<Spanned<String>>,
}

impl MetricsSection {
    /// Loads what it names. `kept` are the folders of everything that the custodian reads and remembers.
    pub(crate) fn load(
        &self,
        source: &ConfigFile,
        me: &Principal,
        kept: &BTreeSet<PathBuf>,
    ) -> Result<MetricsConfig, ConfigError> {
        let interval = self.interval.as_ref().map(|text| source.duration(text, INTERVAL_MIN..=INTERVAL_MAX));
        let textfile = self.textfile.as_ref().map(|path| textfile(source, path, kept)).transpose()?;
        let pushgateway = self.pushgateway(source, me)?;
        if textfile.is_none() && pushgateway.is_none() {
            let what = "[metrics] says neither textfile nor pushgateway: name one of them, or take the section out";
            return Err(source.refuse_whole(what));
        }
        Ok(MetricsConfig { textfile, pushgateway, interval: interval.transpose()?.unwrap_or(INTERVAL_DEFAULT) })
    }

    fn pushgateway(&self, source: &ConfigFile, me: &Principal) -> Result<Option<Pushgateway>, ConfigError> {
        let Some(url) = &self.pushgateway else {
            let alone = "is for a Pushgateway: name that with pushgateway, or take this out";
            let of_it = [
                self.ca_cert.as_ref().map(|at| source.refuse(at, format!("ca_cert {alone}"))),
                self.username.as_ref().map(|at| source.refuse(at, format!("username {alone}"))),
                self.password_file.as_ref().map(|at| source.refuse(at, format!("password_file {alone}"))),
            ];
            return of_it.into_iter().flatten().next().map_or(Ok(None), Err);
        };
        let Some(ca_cert) = &self.ca_cert else {
            return Err(source.refuse(url, "a Pushgateway proves who it is: name its CA with ca_cert"));
        };
        let ca_pem = source.ca_cert(ca_cert)?;
        let both = "username and password_file belong together: name both, or neither";
        let login = match (&self.username, &self.password_file) {
            (Some(username), Some(file)) => Some((username.get_ref().as_str(), source.password(file)?)),
            (None, None) => None,
            (Some(username), None) => return Err(source.refuse(username, both)),
            (None, Some(file)) => return Err(source.refuse(file, both)),
        };
        let login = login.as_ref().map(|(username, password)| (*username, password));
        Pushgateway::new(url.get_ref(), &ca_pem, login, me).map(Some).map_err(|error| source.refuse(url, error))
    }
}

/// The file, in a folder of its own: the sandbox lets the custodian replace what is in that folder, and below it.
fn textfile(source: &ConfigFile, path: &Spanned<PathBuf>, kept: &BTreeSet<PathBuf>) -> Result<PathBuf, ConfigError> {
    let file = source.resolve(path);
    if file.extension().is_none_or(|end| end != TEXTFILE_END) {
        return Err(
            source.refuse(path, format!("node_exporter reads files alone that end in .{TEXTFILE_END}: name it so"))
        );
    }
    let folder = real(folder_of(&file));
    // Whoever gets into the process could replace what the next start believes, or what it remembers.
    if let Some(kept) = kept.iter().find(|kept| real(kept).starts_with(&folder)) {
        let what = format!(
            "the folder of this file, {}, has {} in it or is the same, and the custodian may replace whatever lies beside its \
             metrics: give them a folder of their own",
            folder.display(),
            kept.display()
        );
        return Err(source.refuse(path, what));
    }
    Ok(file)
}

/// The folder that a file lies in; a relative path's may be the empty one, which is this one.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The folder itself, without links. One that is not there is what it is called.
fn real(folder: &Path) -> PathBuf {
    folder.canonicalize().unwrap_or_else(|_| folder.to_owned())
}

#[cfg(test)]
mod tests;

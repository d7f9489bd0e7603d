//! A finding: what was looked at, how it stands, and what to do.

use serde::Serialize;

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grade {
    /// As it should be.
    Ok,
    /// It works, and somebody should know or mend it.
    Warning,
    /// It would not work on the night when it is needed.
    Failed,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: a word that stays the same between versions, for programs.
    pub check: &'static str,
    /// How it stands.
    pub grade: Grade,
    /// What was seen, for people. Never a secret.
    pub what: String,
    /// What to do about it, where there is something to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    /// All is well.
    pub fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, grade: Grade::Ok, what: what.into(), remedy: None }
    }

    /// It works; and yet.
    pub fn warning(check: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, grade: Grade::Warning, what: what.into(), remedy: Some(remedy.into()) }
    }

    /// It would not work.
    pub fn failed(check: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, grade: Grade::Failed, what: what.into(), remedy: Some(remedy.into()) }
    }
}

//! Placeholder until the trust branch lands.

/// What a signature is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Namespace {
    /// Sentinels' events.
    Event,
    /// Operators' orders.
    Order,
    /// Operators' approvals.
    Approval,
    /// Conductors' intents.
    Intent,
    /// Custodians' reports.
    Report,
}

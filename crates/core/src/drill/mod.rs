//! Sealing exercises: when they may be, and how a conductor holds one.
//!
//! What an intent permits a custodian is not here: that is the release rule's (`custodian`).

mod canary;
mod conductor;
mod preflight;
mod window;

pub use canary::{CanaryPath, CanaryPathError, Fingerprint};
pub use conductor::{
    Choice, Conducting, Conductor, Demand, Memory, NodeView, Observed, Ordered, PEOPLE_MAX, SealOrder, Task, View,
};
pub use preflight::{Survey, Surveyed};
pub use window::{DrillWindow, WindowError};

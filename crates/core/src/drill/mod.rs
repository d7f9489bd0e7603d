//! Sealing exercises: when they may be, and how a conductor holds one.
//!
//! What an intent permits a custodian is not here: that is the release rule's (`custodian`).

mod conductor;
mod window;

pub use conductor::{
    Choice, Conducting, Conductor, Demand, Memory, NodeView, Observed, Ordered, SealOrder, Task, View,
};
pub use window::{DrillWindow, WindowError};

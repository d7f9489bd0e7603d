//! What can be wrong before the first crash, looked for on a quiet afternoon, and told with what to do about it.
//!
//! What lives here: a finding, the sheet that findings are shown on, and what custodian and operator look at alike: files,
//! certificates, nodes, the broker, the trust root. What does not: what only one of them can see, which is that program's.
//! A check-up changes nothing, and never comes near the release of a share.

mod broker;
mod certificate;
mod files;
mod finding;
mod node;
mod sheet;
mod trust;

pub use broker::{BrokerPatient, examine_broker};
pub use certificate::certificate_end;
pub use files::secret_file;
pub use finding::{Finding, Grade};
pub use node::{NodePatient, examine_nodes};
pub use sheet::{Sheet, wrap};
pub use trust::{custodians_listed, people_listed};

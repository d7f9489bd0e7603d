//! A browser without a window, driven by the WebDriver protocol: what a person at the page would see.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::tls;
use crate::wait::{PATIENCE, until_some};

/// Where Debian puts them. Ubuntu has them as snaps alone, elsewhere.
const BROWSER: &str = "/usr/bin/chromium";
const DRIVER: &str = "/usr/bin/chromedriver";

/// One page in a browser of its own, which ends with the value.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    session: String,
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
    // What the browser writes, and nobody's before.
    profile: TempDir,
}

impl Browser {
    /// Starts one.
    pub fn start() -> Self {
        for program in [BROWSER, DRIVER] {
            let there = std::path::Path::new(program).exists();
            assert!(there, "{program} is missing: tests/run installs it, from Debian's chromium and chromium-driver");
        }
        let mut command = Command::new(DRIVER);
        // The system finds a free port, and the driver says which.
        command.args(["--port=0", "--log-level=WARNING"]).stdin(Stdio::null());
        let mut driver = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("chromedriver");
        let lines = BufReader::new(driver.stdout.take().expect("piped")).lines();
        let port = lines.map_while(Result::ok).find_map(|line| {
            let (_, port) = line.rsplit_once("on port ")?;
            // 0 is what it was asked for, which it says as well.
            port.trim_end_matches('.').parse::<u16>().ok().filter(|port| *port != 0)
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let client = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls::suspicious_client());
        let client = client.timeout(PATIENCE).build().expect("a client");
        let session = format!("http://127.0.0.1:{}/session", port.expect("chromedriver names its port"));
        let profile = tempfile::tempdir().expect("a folder");
        let mut browser = Self { driver, session, runtime, client, profile };
        let id = browser.open_session();
        browser.session = format!("{}/{id}", browser.session);
        browser
    }

    fn open_session(&self) -> String {
        let args = [
            "--headless",
            // Tests may run as root, in a container; the page is ours.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &format!("--user-data-dir={}", self.profile.path().display()),
        ];
        let options = json!({"binary": BROWSER, "args": args});
        let wanted =
            json!({"browserName": "chrome", "goog:loggingPrefs": {"browser": "ALL"}, "goog:chromeOptions": options});
        let opened = self.command(Method::POST, "", &json!({"capabilities": {"alwaysMatch": wanted}}));
        opened["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {opened}")).to_owned()
    }

    /// Loads a page.
    pub fn go(&self, url: &str) {
        self.command(Method::POST, "/url", &json!({ "url": url }));
    }

    /// What the tab says.
    pub fn title(&self) -> String {
        self.command(Method::GET, "/title", &Value::Null).as_str().unwrap_or_default().to_owned()
    }

    /// Runs a script in the page, and returns what it returns.
    pub fn script(&self, script: &str) -> Value {
        self.command(Method::POST, "/execute/sync", &json!({"script": script, "args": []}))
    }

    /// The text that a person sees at this selector; empty where there is none.
    pub fn text(&self, selector: &str) -> String {
        let found = self.script(&format!("return document.querySelector({})?.innerText ?? ''", json!(selector)));
        found.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the text at this selector has this in it, without loading the page again.
    #[track_caller]
    pub fn until_text(&self, selector: &str, part: &str) -> String {
        until_some(&format!("{part:?} at {selector}"), || Some(self.text(selector)).filter(|text| text.contains(part)))
    }

    /// A command of the browser's own debugging protocol.
    pub fn debug(&self, command: &str, parameters: &Value) -> Value {
        self.command(Method::POST, "/goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    /// What the page looks like, as PNG.
    pub fn picture(&self) -> Vec<u8> {
        let shot = self.command(Method::GET, "/screenshot", &Value::Null);
        BASE64_STANDARD.decode(shot.as_str().unwrap_or_default()).expect("base64")
    }

    /// What the console has to say since it was last asked: errors, and violations of the page's policy.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.command(Method::POST, "/se/log", &json!({"type": "browser"}));
        let entries = log.as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    #[track_caller]
    fn command(&self, method: Method, path: &str, body: &Value) -> Value {
        let mut request = self.client.request(method.clone(), format!("{}{path}", self.session));
        if method == Method::POST {
            request = request.json(body);
        }
        let answer: Value = self.runtime.block_on(async {
            let answer = request.send().await.expect("chromedriver answers");
            answer.json().await.expect("JSON")
        });
        let value = &answer["value"];
        assert!(value["error"].is_null(), "{path}: {value}");
        value.clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ended already, or ends with its driver.
        let _ = self.runtime.block_on(async { self.client.delete(&self.session).send().await });
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

//! The packaged dashboard: whether its file is sound, what its queries find in a real Prometheus, and a picture of it for people.
//!
//! The picture is drawn by a page of our own (picture.html): Grafana is not in Debian. It shows what each panel would say, and not
//! how Grafana sets it. It is left in the folder for tests' files below `target`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use holdfast_tests::browser::Browser;
use holdfast_tests::programs::repository;
use holdfast_tests::prometheus::Prometheus;
use serde_json::{Value, json};

const FILE: &str = "deploy/grafana/holdfast.json";

/// What Grafana fills in, and what it is here, where a sample is taken each second.
const FILLED_IN: [(&str, &str); 3] = [("$cluster", "lab"), ("$__rate_interval", "5s"), ("$__range", "180s")];

/// How many seconds a picture shows, and one dot in it.
const SHOWN: f64 = 180.0;
const STEP: f64 = 2.0;

/// How wide the picture is, and how high a row of Grafana's grid, in pixels.
const WIDTH: u64 = 1600;
const ROW: u64 = 36;

/// How many columns Grafana's grid has.
const COLUMNS: u64 = 24;

/// What there must be something of.
pub(crate) enum Expect {
    /// By each query, but for drills, of which there are none.
    InTrouble,
    /// The same, without what only trouble brings.
    Sound,
}

impl Expect {
    fn may_be_empty(&self, title: &str) -> bool {
        let drills = ["Last drill that succeeded", "The last one took", "Next drill in", "Drills in this range"];
        let trouble = ["Alerts that fire", "What people decide", "Messages refused"];
        drills.contains(&title) || matches!(self, Self::Sound) && trouble.contains(&title)
    }
}

/// Asks every query of the dashboard, and draws what it says.
pub(crate) fn look(prometheus: &Prometheus, name: &str, expect: &Expect) {
    let dashboard = read();
    let clusters = &dashboard["templating"]["list"][1];
    let told = "holdfast_quorum_threshold{job=\"holdfast-sentinel\"}";
    assert_eq!(clusters["definition"], format!("label_values({told}, cluster)"));
    assert_eq!(clusters["query"]["query"], clusters["definition"]);
    assert_eq!(prometheus.label_values(told, "cluster"), ["lab"]);

    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_secs_f64();
    let (mut answers, mut wrong) = (Vec::new(), Vec::new());
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().expect("a title");
        let mut series = Vec::new();
        for target in panel["targets"].as_array().expect("targets") {
            let expression = FILLED_IN
                .iter()
                .fold(target["expr"].as_str().expect("a query").to_owned(), |text, (from, to)| text.replace(from, to));
            let answer = match target["instant"].as_bool() {
                Some(true) => prometheus.query(&expression),
                _ => prometheus.query_range(&expression, now - SHOWN, now, STEP),
            };
            let found = answer.unwrap_or_else(|e| {
                wrong.push(format!("{title}: {expression}: {e}"));
                Vec::new()
            });
            if found.is_empty() && !expect.may_be_empty(title) {
                wrong.push(format!("{title}: nothing is found by {expression}"));
            }
            series.push(found);
        }
        answers.push(series);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    draw(name, &dashboard, &json!({"answers": answers, "start": now - SHOWN, "end": now, "step": STEP}));
}

#[test]
fn its_file_is_what_grafana_imports() {
    let dashboard = read();
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let variables: BTreeSet<_> = variables.iter().filter_map(|variable| variable["name"].as_str()).collect();
    assert_eq!(variables, BTreeSet::from(["cluster", "datasource"]));
    assert!(dashboard["id"].is_null() && dashboard["uid"] == "holdfast" && dashboard["schemaVersion"].is_u64());

    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().expect("a title");
        let says = |part: &str| panel[part].as_str().is_some_and(|text| !text.is_empty());
        assert!(says("title") && says("description"), "{title}");
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title}: its id is taken");
        let known = ["stat", "table", "timeseries", "state-timeline", "heatmap", "bargauge"];
        assert!(known.iter().any(|kind| panel["type"] == *kind), "{title} is a {}", panel["type"]);
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().expect("a place"));
        assert!(x + w <= COLUMNS, "{title} is beside the grid");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{title} lies over another");
        }
        assert!(panel["fieldConfig"]["defaults"]["noValue"].is_string(), "{title}: what it says when there is nothing");
        let mut references = BTreeSet::new();
        for target in panel["targets"].as_array().expect("targets") {
            assert!(references.insert(target["refId"].as_str().expect("a reference")), "{title}");
            for source in [&panel["datasource"], &target["datasource"]] {
                assert_eq!(*source, json!({"type": "prometheus", "uid": "${datasource}"}), "{title}");
            }
            let query = target["expr"].as_str().expect("a query");
            let left = FILLED_IN.iter().fold(query.to_owned(), |text, (variable, _)| text.replace(variable, ""));
            assert!(!left.contains('$'), "{title}: {query}");
            // Two sentinels tell of the same.
            assert!(["max", "min", "sum", "round"].iter().any(|word| query.contains(word)), "{title}: {query}");
        }
    }
    let area = taken.len() as u64;
    let height = taken.iter().map(|(_, y)| y + 1).max().unwrap_or_default();
    assert_eq!(area, COLUMNS * height, "there are holes between the panels");
}

fn read() -> Value {
    let text = fs::read_to_string(repository().join(FILE)).expect("there");
    serde_json::from_str(&text).expect("JSON")
}

fn panels(dashboard: &Value) -> &Vec<Value> {
    dashboard["panels"].as_array().expect("panels")
}

/// Leaves a picture, and the page that it is of.
fn draw(name: &str, dashboard: &Value, found: &Value) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard");
    fs::create_dir_all(&folder).expect("a folder");
    let data = json!({"dashboard": dashboard, "found": found, "row": ROW}).to_string().replace("</", "<\\/");
    let page = folder.join(format!("{name}.html"));
    fs::write(&page, include_str!("picture.html").replace("\"DATA\"", &data)).expect("written");

    let rows = panels(dashboard).iter().map(|panel| &panel["gridPos"]);
    let rows = rows.filter_map(|place| Some(place["y"].as_u64()? + place["h"].as_u64()?)).max().expect("a row");
    let browser = Browser::start();
    let screen = json!({"width": WIDTH, "height": (rows + 2) * ROW, "deviceScaleFactor": 1, "mobile": false});
    browser.debug("Emulation.setDeviceMetricsOverride", &screen);
    browser.go(&format!("file://{}", page.display()));
    assert_eq!(browser.complaints(), [""; 0], "what the browser has to complain of");
    let drawn = browser.script("return document.querySelectorAll('section').length");
    assert_eq!(drawn, panels(dashboard).len(), "panels that are drawn");
    fs::write(folder.join(format!("{name}.png")), browser.picture()).expect("written");
}

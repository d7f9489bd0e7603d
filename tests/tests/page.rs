//! The sentinel's page in a real browser, before a real lab: it answers, follows what happens without being loaded again, keeps
//! what others wrote as text, and says so unmistakably when nobody is there behind it.
//!
//! What it looked like is left in the folder for tests' files below `target`, to be looked at by people.

use std::fs;
use std::path::Path;

use holdfast_tests::broker::Client;
use holdfast_tests::browser::Browser;
use holdfast_tests::lab::Lab;
use holdfast_tests::messages::{self, Draft};
use holdfast_tests::processes::Signal;
use holdfast_tests::programs;
use holdfast_tests::wait::until;
use jiff::Timestamp;
use serde_json::{Value, json};

const VERDICT: &str = "#verdict-lab";

/// Screens, in pixels: a phone, a laptop, a wall.
const SCREENS: [(&str, u32, u32); 3] = [("phone", 390, 844), ("laptop", 1280, 800), ("wall", 1920, 1080)];

/// What somebody might write who is not our friend; at most as long as a receiver reads.
const HOSTILE: &str = "\"><script>window.planted = 1</script><img src=x onerror='window.planted = 2'>\u{202e}gnilaes";

/// The same as a reason, which an operator's command would not sign if it did not show all that it is.
const HOSTILE_REASON: &str = "\"><script>window.planted = 3</script>";

#[test]
fn the_page_tells_what_is_so_while_it_is_so() {
    let mut lab = Lab::up(&[]);
    let browser = Browser::start();
    browser.go(&lab.file.sentinel.url);
    browser.until_text(VERDICT, "Yes: 5 ready, 3 needed");
    browser.script("window.loaded = 'once'");

    follows_a_crash(&mut lab, &browser);
    follows_a_seal(&lab, &browser);
    follows_a_hold(&lab, &browser);
    follows_a_drill(&lab, &browser);
    fits_each_screen(&browser, "");
    assert_eq!(browser.script("return window.loaded"), "once", "it was loaded again");
    assert_eq!(browser.complaints(), [""; 0], "what the browser has to complain of");

    says_when_nobody_answers(&mut lab, &browser);
    says_so_even_without_its_script(&browser);
    wakes(&mut lab, &browser);
    lets_nothing_be_written_into_it(&browser);
}

fn follows_a_crash(lab: &mut Lab, browser: &Browser) {
    lab.kill("vault-2");
    browser.until_text(VERDICT, "vault-2 does not answer");
    until("the tab says that somebody should look", || browser.title() == "Yes, but look: lab – Holdfast");
    picture(browser, "crashed");
    lab.start("vault-2");
    browser.until_text(VERDICT, "last proven today");
    until("the tab says that all is well", || browser.title() == "Yes: lab – Holdfast");
    // One that was in the set, and the page says when that was. The server tells each how it stands after its share: those who
    // came closely one after the other may all have found it open, and of them nobody knows which completed the set.
    until("a share of the set is proven", || proven(browser, "vault-2") >= 1);
    let timeline = browser.script("return document.querySelector('.incident .timeline').textContent");
    let timeline = timeline.as_str().expect("text");
    for part in ["sees it sealed", "counted, ", "the node is open", "sees it open"] {
        assert!(timeline.contains(part), "{part}: {timeline}");
    }
    let metrics = lab.read_sentinel("/metrics").expect("metrics");
    let lines = metrics.lines().filter(|line| line.starts_with("holdfast_custodian_share_proven_timestamp_seconds{"));
    assert!(lines.count() >= 1, "{metrics}");
    lab.settle();
}

/// How many custodians' shares the page calls proven by the opening of this node.
fn proven(browser: &Browser, node: &str) -> usize {
    let custodians = browser.text("#cluster-lab .custodians");
    custodians.lines().filter(|line| line.starts_with("share proven today") && line.ends_with(node)).count()
}

fn follows_a_seal(lab: &Lab, browser: &Browser) {
    let unfolded = "#cluster-lab .incident:not([open])";
    let unfold =
        format!("const it = document.querySelector('{unfolded}'); it.querySelector('summary').click(); return it.id");
    let id = browser.script(&unfold);
    lab.seal("vault-1");
    browser.until_text(VERDICT, "No: vault-1 was sealed on purpose and waits for approvals, 0 of 1");
    assert_eq!(browser.text(&format!("{VERDICT} pre")), "holdfast approve --cluster lab --node vault-1");
    assert_eq!(browser.title(), "No: lab – Holdfast");
    assert_eq!(browser.script(&format!("return document.getElementById({id}).open")), true, "it was folded again");

    let admin = Client::admin(lab);
    let refusal = hostile_refusal(lab);
    let folder = lab.path(&lab.file.custodians[0].config).parent().expect("a folder").to_owned();
    let signed = messages::seal(&refusal.body(), "holdfast.report", &folder.join("signing.key"));
    admin.publish("holdfast.reports", &refusal.routing_key(), &signed);
    let shown = browser.until_text("#cluster-lab", "<script>window.planted = 1</script>");
    assert!(shown.contains("onerror='window.planted = 2'") && !shown.contains('\u{202e}'), "{shown}");
    let harmless = "return [document.scripts.length, document.querySelectorAll('main script, img[src=x]').length, \
                    window.planted ?? 0]";
    assert_eq!(browser.script(harmless), json!([1, 0, 0]));
    picture(browser, "sealed");

    lab.approve("vault-1");
    browser.until_text(VERDICT, "Yes: 5 ready, 3 needed");
    lab.settle();
}

/// A node that is open would stay shut: the answer, the node, the hold with what ends it, and the metric say so.
fn follows_a_hold(lab: &Lab, browser: &Browser) {
    lab.holdfast(&["hold", "--node", "vault-3", "--reason", HOSTILE_REASON]).well();
    browser.until_text(VERDICT, "No: vault-3 is held since today");
    let command = browser.text(&format!("{VERDICT} pre"));
    assert!(command.starts_with("holdfast release --cluster lab --hold "), "{command}");
    let shown = browser.until_text("#cluster-lab .holds", "obeyed by 5 of 5");
    assert!(shown.contains(HOSTILE_REASON) && shown.contains("nobody has released it so far"), "{shown}");
    browser.until_text("#cluster-lab .nodes", "held: would stay shut");
    let metrics = lab.read_sentinel("/metrics").expect("metrics");
    let counted = "holdfast_holds{cluster=\"lab\",node=\"vault-3\"} 1";
    assert!(metrics.lines().any(|line| line == counted), "{metrics}");
    picture(browser, "held");

    let id = command.rsplit(' ').next().expect("an id");
    lab.holdfast(&["release", "--hold", id]).well();
    browser.until_text("#cluster-lab .holds", "released so far by alice");
    let bob = lab.dir().join("operators/bob.toml").to_string_lossy().into_owned();
    programs::run("holdfast", &["release", "--hold", id, "--config", &bob]).well();
    browser.until_text(VERDICT, "Yes: 5 ready, 3 needed");
    let gone = "return document.querySelectorAll('#cluster-lab .holds').length";
    until("the section is gone with its hold", || browser.script(gone) == 0);
}

/// A drill is told while it runs and when it is over, apart from emergencies; its report is a page of its own, and evidence.
fn follows_a_drill(lab: &Lab, browser: &Browser) {
    assert!(browser.text("#cluster-lab").contains("no conductor tells of one"), "none is planned");
    for node in ["vault-2", "vault-3"] {
        lab.holdfast(&["drill", "run", "--node", node]).well();
        lab.settle();
    }
    browser.until_text("#cluster-lab .drills", "passed: open after");
    let drilled = "return document.querySelectorAll('#cluster-lab .incident summary').length > 1
                       && document.querySelector('#cluster-lab .incident summary').textContent.includes('drill, in-place')";
    until("the incident is called a drill", || browser.script(drilled) == true);
    assert_eq!(browser.script("return document.querySelectorAll('svg.trend rect').length"), 2, "one bar for each");
    let metrics = lab.read_sentinel("/metrics").expect("metrics");
    for line in [
        "holdfast_drill_runs_total{cluster=\"lab\",result=\"passed\"} 2",
        "holdfast_drill_last_success_timestamp_seconds{",
    ] {
        assert!(metrics.lines().any(|known| known.starts_with(line)), "{line} in {metrics}");
    }
    picture(browser, "drilled");

    let listed = lab.holdfast(&["drill", "list", "--json"]).well();
    let listed: Value = serde_json::from_str(&listed.out).expect("JSON");
    let first = listed["drills"][1]["report"]["drill"].as_str().expect("an id");
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (page, saved) = (file("drill.html"), file("drill.json"));
    let told = lab.holdfast(&["drill", "report", first, "--html", &page, "--save", &saved]).well();
    assert!(told.out.starts_with("Drill of lab on vault-2: passed\n"), "{}", told.out);
    is_evidence(lab, &saved);
    is_a_page(browser, &page);
    browser.go(&lab.file.sentinel.url);
    browser.until_text(VERDICT, "Yes: 5 ready, 3 needed");
    browser.script("window.loaded = 'once'");
}

/// What was saved is verified by OpenSSH and, offline, by the program; and not where the trust root knows of no conductor, or a
/// digit was changed.
fn is_evidence(lab: &Lab, saved: &str) {
    let signers = lab.path(&lab.file.allowed_signers);
    let verify = "ssh-keygen -Y verify -f \"$0\" -I custodian-1 -n holdfast.intent -s \"$1.sig\" < \"$1\"";
    let said = programs::tool("sh", &["-c", verify, &signers.to_string_lossy(), saved]);
    assert!(said.out.starts_with("Good \"holdfast.intent\" signature for custodian-1"), "{}", said.out);

    let envelope = format!("{saved}.envelope");
    let offline = ["drill", "report", "--offline", &envelope];
    assert!(lab.holdfast(&offline).well().out.contains("Verified: custodian-1 signed this report"));
    let (operator, signed) = (lab.path(&lab.file.operator_config), fs::read_to_string(&signers).expect("there"));
    let stranger = operator.with_file_name("other_signers");
    fs::write(&stranger, signed.replace(",holdfast.intent", "")).expect("written");
    let config = fs::read_to_string(&operator).expect("there").replace("\"allowed_signers\"", "\"other_signers\"");
    assert!(config.contains("other_signers"), "{config}");
    let strangers = operator.with_file_name("other.toml");
    fs::write(&strangers, config).expect("written");
    for asked in [&offline[..], &["drill", "report"], &["drill", "list"]] {
        let mut line = asked.to_vec();
        let strangers = strangers.to_string_lossy();
        line.extend(["--config", &strangers]);
        let said = programs::run("holdfast", &line);
        assert!(said.code == Some(1) && said.out.is_empty(), "{asked:?}: {}{}", said.out, said.err);
        assert!(said.err.contains("custodian-1") && said.err.contains("holdfast.intent"), "{}", said.err);
    }
    let forged = fs::read_to_string(&envelope).expect("there").replacen("eyJ2Ijox", "eyJ2Ijoy", 1);
    fs::write(&envelope, forged).expect("written");
    assert_eq!(lab.holdfast(&offline).code, Some(1));
}

/// The report's page needs nobody, and fits each screen.
fn is_a_page(browser: &Browser, page: &str) {
    browser.go(&format!("file://{page}"));
    browser.until_text("h1", "Drill of lab on vault-2: passed");
    let drawn = "return [document.querySelectorAll('svg.timeline rect.sealed').length > 0,
                         document.querySelectorAll('svg.trend rect').length, document.scripts.length]";
    assert_eq!(browser.script(drawn), json!([true, 2, 0]));
    fits_each_screen(browser, "report-");
}

/// A refusal as a custodian signs it, which says what nobody should.
fn hostile_refusal(lab: &Lab) -> Draft {
    Draft {
        version: 1,
        kind: "refusal".to_owned(),
        id: messages::random_id(),
        cluster: messages::cluster_id(&lab.path(&lab.file.manifest)),
        from: lab.file.custodians[0].id.clone(),
        issued_at: Timestamp::now(),
        expires_at: None,
        content: json!({"node": "vault-1", "incident": messages::random_id(), "lock": "record", "why": HOSTILE}),
    }
}

fn fits_each_screen(browser: &Browser, what: &str) {
    for (name, width, height) in SCREENS {
        let screen = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": name == "phone"});
        browser.debug("Emulation.setDeviceMetricsOverride", &screen);
        for scheme in ["light", "dark"] {
            let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
            browser.debug("Emulation.setEmulatedMedia", &json!({ "features": features }));
            let wider = browser.script("return document.documentElement.scrollWidth > window.innerWidth");
            assert_eq!(wider, false, "the page is wider than the {name}'s screen");
            picture(browser, &format!("{what}{name}-{scheme}"));
        }
    }
    browser.debug("Emulation.clearDeviceMetricsOverride", &json!({}));
}

/// The sentinel hangs, and is gone; then it is there again, and knows what it knew.
fn says_when_nobody_answers(lab: &mut Lab, browser: &Browser) {
    lab.signal("sentinel", Signal::STOP);
    is_marked_as_not_live(browser);
    browser.until_text("#stale", "No answer from the sentinel since 2");
    assert_eq!(browser.title(), "Not live – Holdfast");
    picture(browser, "gone");
    lab.signal("sentinel", Signal::CONT);
    is_live(browser);

    let known = proven(browser, "");
    assert!(known >= 1, "{}", browser.text("#cluster-lab"));
    lab.kill("sentinel");
    is_marked_as_not_live(browser);
    lab.start("sentinel");
    is_live(browser);
    browser.until_text(VERDICT, "Yes: 5 ready, 3 needed; last proven today");
    assert!(proven(browser, "") >= known, "what was proven is forgotten: {}", browser.text("#cluster-lab"));
    assert_eq!(browser.script("return window.loaded"), "once", "it was loaded again");
}

/// Whatever becomes of the script: the page calls itself not live.
fn says_so_even_without_its_script(browser: &Browser) {
    browser.script("XMLHttpRequest.prototype.send = () => {}; for (let i = 0; i < 100000; i++) clearInterval(i)");
    is_marked_as_not_live(browser);
    assert_eq!(browser.script("return document.body.classList.contains('stale')"), false, "the script said it");
    browser.script("location.reload()");
    is_live(browser);
}

/// A tab that was asleep while something happened.
fn wakes(lab: &mut Lab, browser: &Browser) {
    browser.until_text(VERDICT, "Yes: 5 ready, 3 needed");
    browser.debug("Page.setWebLifecycleState", &json!({"state": "frozen"}));
    lab.kill("vault-3");
    until("the sentinel misses the node", || lab.status()["nodes"]["vault-3"]["seen"] == "lost");
    browser.debug("Page.setWebLifecycleState", &json!({"state": "active"}));
    browser.until_text(VERDICT, "vault-3 does not answer");
    lab.start("vault-3");
    browser.until_text(VERDICT, "Yes: 5 ready, 3 needed");
    lab.settle();
}

fn lets_nothing_be_written_into_it(browser: &Browser) {
    for attempt in [
        "document.body.innerHTML = '<p>new</p>'",
        "document.body.insertAdjacentHTML('beforeend', '<p>new</p>')",
        "document.write('<p>new</p>')",
        "document.createElement('script').textContent = 'window.planted = 3'",
    ] {
        let tried = format!("try {{ {attempt}; return 'taken' }} catch (error) {{ return error.name }}");
        assert_ne!(browser.script(&tried), "taken", "{attempt}");
    }
    let framed = browser.script(
        "const frame = document.createElement('iframe'); frame.src = '/'; document.body.append(frame); return 'asked'",
    );
    assert_eq!(framed, "asked");
    until("the browser complains of the frame", || {
        browser.complaints().iter().any(|line| line.contains("Content Security Policy") && line.contains("frame"))
    });
}

fn is_marked_as_not_live(browser: &Browser) {
    let marked = "const [banner, main] = [document.getElementById('stale'), document.getElementById('state')];
                  return getComputedStyle(banner).visibility === 'visible' && banner.clientHeight > 20
                      && getComputedStyle(main).filter.includes('grayscale')";
    until("the page says that it is not live", || browser.script(marked) == true);
}

fn is_live(browser: &Browser) {
    let live = "const banner = document.getElementById('stale');
                return document.readyState === 'complete' && getComputedStyle(banner).visibility === 'hidden'
                    && document.getElementById('live').textContent.startsWith('last answer')";
    until("the page is live", || browser.script(live) == true);
}

fn picture(browser: &Browser, name: &str) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(format!("{name}.png")), browser.picture()).expect("written");
}

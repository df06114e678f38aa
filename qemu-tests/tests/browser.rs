//! Tests that set a node up, form a VM and read its serial line with a browser alone.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use dyad_rig::artifacts::{Artifacts, CountingGuest};
use dyad_rig::browser::{Browser, Text};
use dyad_rig::harness::{MachineFixture, Test, run_tests};
use dyad_rig::pair::Pair;
use dyad_rig::scenarios::{BOOT_DEADLINE, GUEST_DEADLINE};
use dyad_rig::seed::PASSWORD;
use dyad_rig::wait::{self, Poll};

/// Longest time until an emulated node shows an expected page or element.
const PAGE_DEADLINE: Duration = Duration::from_secs(60);
/// Longest setup of an emulated node: it formats disks and restarts to prove its watchdog.
const SETUP_DEADLINE: Duration = Duration::from_secs(300);
/// Most questions that the wizard may ask: nine, and the management port, since these nodes have several ports.
const PROMISED_QUESTION_COUNT: usize = 10;
/// Number of questions after which the test gives up, so that a wizard without an end fails it.
const QUESTION_LIMIT: usize = 20;

const TESTS: [Test<BrowserFixture>; 4] = [
    ("web_wizard_sets_up_first_node", web_wizard_sets_up_first_node),
    ("web_login_and_pairing_code", web_login_and_pairing_code),
    ("web_creates_a_volume_and_a_vm", web_creates_a_volume_and_a_vm),
    ("web_shows_the_serial_line", web_shows_the_serial_line),
];

/// A browser, and the pair whose node A it shows.
struct BrowserFixture {
    browser: Browser,
    pair: Pair,
}

impl MachineFixture for BrowserFixture {
    fn record_outcome(&mut self, test: &str, failed: bool) {
        self.pair.record_outcome(test, failed);
    }
}

fn main() -> ExitCode {
    run_tests(&TESTS, || {
        let mut pair = Pair::for_setup(Artifacts::beside_this_program()?, "browser")?;
        pair.a.power_on()?;
        let client = pair.a.client();
        client.get_after_boot("the node", BOOT_DEADLINE, "setup")?;
        let browser = Browser::open(pair.records(), pair.sockets())?;
        Ok(BrowserFixture { browser, pair })
    })
}

/// Answers every question of the wizard, one of them wrongly first, until the status page appears.
fn web_wizard_sets_up_first_node(fixture: &mut BrowserFixture) -> Result<()> {
    fixture.browser.go(&fixture.pair.a.address())?;
    fixture.browser.wait_for("input[name=question]", PAGE_DEADLINE)?;
    let mut asked = Vec::new();
    while asked.len() < QUESTION_LIMIT {
        let Ok(key) = fixture.browser.value("input[name=question]") else { break };
        fixture.browser.picture(&format!("question-{key}"))?;
        answer_question(&fixture.browser, &key).with_context(|| format!("The question {key} cannot be answered"))?;
        asked.push(key.clone());
        fixture.next_page(&key)?;
    }
    println!("    asked: {}", asked.join(", "));
    ensure!(asked.len() <= PROMISED_QUESTION_COUNT, "The wizard asks {} questions.", asked.len());
    fixture.browser.picture("summary")?;
    fixture.browser.press("button[value=begin]")?;
    fixture.browser.wait_for("#sentence", PAGE_DEADLINE)?;
    fixture.browser.picture("progress")?;
    fixture.wait_for_status_page()?;
    fixture.browser.picture("status-without-login")?;
    Ok(())
}

/// A wrong password is refused; after the login the page shows the whole status and opens a pairing code.
fn web_login_and_pairing_code(fixture: &mut BrowserFixture) -> Result<()> {
    let address = fixture.pair.a.address();
    let browser = &mut fixture.browser;
    browser.go(&format!("{address}/login"))?;
    browser.fill("input[name=password]", Text("not the password"))?;
    browser.press("form button")?;
    wait::until("a sentence about the password", PAGE_DEADLINE, || {
        let shown = browser.text("#refusal")?;
        Ok(if shown.is_empty() { Poll::NotYet("nothing".into()) } else { Poll::Ready(shown) })
    })?;
    browser.fill("input[name=password]", Text(PASSWORD))?;
    browser.press("form button")?;
    browser.wait_for_text("h1", Text("Not protected"), PAGE_DEADLINE)?;
    browser.wait_for("button[data-post='/api/v1/pairing-code']", PAGE_DEADLINE)?;
    browser.picture("status")?;
    browser.press("button[data-post='/api/v1/pairing-code']")?;
    browser.wait_for(".code", PAGE_DEADLINE)?;
    let code = browser.text(".code")?;
    ensure!(code.len() == 6 && code.chars().all(|c| c.is_ascii_digit()), "The pairing code is {code:?}.");
    browser.picture("pairing-code")?;
    Ok(())
}

/// Creates a volume, uploads its content from a file, and creates a VM on it.
fn web_creates_a_volume_and_a_vm(fixture: &mut BrowserFixture) -> Result<()> {
    let address = fixture.pair.a.address();
    let image = fixture.pair.artifacts().guest(CountingGuest::Bare);
    let size = std::fs::metadata(&image)?.len() >> 20;
    let browser = &mut fixture.browser;
    browser.go(&format!("{address}/volumes"))?;
    let create = "form[data-json='/api/v1/volumes']";
    browser.fill(&format!("{create} input[name=name]"), Text("web"))?;
    browser.fill(&format!("{create} input[name=size]"), Text(&size.to_string()))?;
    browser.press(&format!("{create} button"))?;
    let upload = "form[data-upload='/api/v1/volumes/web/content']";
    browser.wait_for(upload, PAGE_DEADLINE)?;
    browser.fill(&format!("{upload} input[type=file]"), Text(&image.to_string_lossy()))?;
    browser.press(&format!("{upload} button"))?;
    // The page is loaded again after the last byte is durable; the file field is empty then.
    wait::until("the upload to end", SETUP_DEADLINE, || {
        Ok(match browser.value(&format!("{upload} input[type=file]")) {
            Ok(chosen) if chosen.is_empty() => Poll::Ready(()),
            other => Poll::NotYet(format!("{other:?} {}", browser.page_text().unwrap_or_default())),
        })
    })?;
    // An upload with a wrong checksum changes nothing: the VM below boots from the first image.
    browser.fill(&format!("{upload} input[type=file]"), Text(&image.to_string_lossy()))?;
    browser.fill(&format!("{upload} input[name=sha256]"), Text(&"0".repeat(64)))?;
    browser.press(&format!("{upload} button"))?;
    let corrupt = "its SHA-256 is not the expected one: the volume holds what it held before.";
    browser.wait_for_text("#refusal", Text(corrupt), SETUP_DEADLINE)?;
    browser.picture("volumes")?;
    browser.go(&format!("{address}/vms"))?;
    let create = "form[data-json='/api/v1/vms']";
    browser.fill(&format!("{create} input[name=name]"), Text("web"))?;
    browser.fill(&format!("{create} input[name=memory_mib]"), Text("128"))?;
    browser.choose(&format!("{create} select[name=firmware]"), Text("BIOS"))?;
    browser.choose(&format!("{create} select[name=disks]"), Text("web"))?;
    browser.press(&format!("{create} button"))?;
    browser.wait_for_text("[data-vm=web]", Text("running"), GUEST_DEADLINE)?;
    browser.picture("vms")?;
    Ok(())
}

/// The page shows the guest's serial line: new lines appear, and earlier lines stay.
fn web_shows_the_serial_line(fixture: &mut BrowserFixture) -> Result<()> {
    fixture.browser.go(&format!("{}/vms/web/console", fixture.pair.a.address()))?;
    wait::until("several counts of the guest", GUEST_DEADLINE, || {
        let text = fixture.browser.text("#screen")?;
        let counts = text.lines().filter(|line| line.starts_with("ack ")).count();
        Ok(if counts > 2 { Poll::Ready(()) } else { Poll::NotYet(text) })
    })?;
    fixture.browser.picture("console")?;
    Ok(())
}

impl BrowserFixture {
    /// Waits until the page shows another question than `key`, or the summary.
    fn next_page(&self, key: &str) -> Result<()> {
        wait::until(&format!("the page after {key}"), PAGE_DEADLINE, || {
            if self.browser.has("button[value=begin]")? {
                return Ok(Poll::Ready(()));
            }
            Ok(match self.browser.value("input[name=question]") {
                Ok(now) if now != key => Poll::Ready(()),
                _ => Poll::NotYet(self.browser.page_text().unwrap_or_default()),
            })
        })
    }

    /// Waits for the status page after a setup. The page updates itself; if it was loading while the node restarted, it
    /// is loaded again here.
    fn wait_for_status_page(&self) -> Result<()> {
        wait::until("the status page", SETUP_DEADLINE, || {
            if let Ok(error) = self.browser.text("#error") {
                bail!("Setup failed: {error}");
            }
            let text = self.browser.page_text().unwrap_or_default();
            if text.contains("Not protected") {
                return Ok(Poll::Ready(()));
            }
            if !text.contains("Setting up") {
                // The node may still be restarting.
                let _ = self.browser.go(&self.pair.a.address());
            }
            Ok(Poll::NotYet(text))
        })
    }
}

/// Answers the question `key`, which the page shows.
fn answer_question(browser: &Browser, key: &str) -> Result<()> {
    match key {
        "role" => browser.press("input[value=first]")?,
        "erase" => {
            let wanted = browser.text("#confirmation")?;
            browser.fill("input[name=answer]", Text("yes"))?;
            browser.press("button[value=next]")?;
            browser.wait_for("#error", PAGE_DEADLINE)?;
            let error = browser.text("#error")?;
            ensure!(error.contains(&wanted), "The refusal does not say what to type: {error}");
            browser.fill("input[name=answer]", Text(&wanted))?;
        }
        "pair" => browser.fill("input[name=answer]", Text("office"))?,
        "node" => browser.fill("input[name=answer]", Text("left"))?,
        "password" => browser.fill("input[name=answer]", Text(PASSWORD))?,
        "witness" => browser.fill("input[name=answer]", Text("later"))?,
        // The suggested answer is kept: the blank disks, the first port, DHCP, all links.
        _ => {}
    }
    browser.press("button[value=next]")
}

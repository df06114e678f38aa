//! A node is set up and runs a VM with a browser alone.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use dyad_rig::artifacts::Artifacts;
use dyad_rig::browser::{Browser, Text};
use dyad_rig::harness::{Fixture, Test, run_tests};
use dyad_rig::pair::Pair;
use dyad_rig::scenarios::{BOOT_DEADLINE, GUEST_DEADLINE};
use dyad_rig::seed::PASSWORD;
use dyad_rig::wait::{self, Look};

/// A page of an emulated node.
const PAGE_DEADLINE: Duration = Duration::from_secs(60);
/// Setup formats disks and restarts the node once to prove its watchdog.
const SETUP_DEADLINE: Duration = Duration::from_secs(300);
/// Most questions: nine, and the port, since these nodes have several.
const PROMISED_QUESTIONS: usize = 10;
/// Limit of questions, so that a wizard that never ends fails the test.
const MANY_QUESTIONS: usize = 20;

const TESTS: [Test<Desk>; 4] = [
    ("web_wizard_sets_up_first_node", web_wizard_sets_up_first_node),
    ("web_login_and_pairing_code", web_login_and_pairing_code),
    ("web_creates_a_volume_and_a_vm", web_creates_a_volume_and_a_vm),
    ("web_shows_the_serial_line", web_shows_the_serial_line),
];

/// A browser and the node it shows.
struct Desk {
    browser: Browser,
    pair: Pair,
}

impl Fixture for Desk {
    fn record(&mut self, test: &str, failed: bool) {
        self.pair.record(test, failed);
    }
}

fn main() -> ExitCode {
    run_tests(&TESTS, || {
        let mut pair = Pair::new(Artifacts::beside_this_program()?, "browser")?;
        pair.a.power_on()?;
        let client = pair.a.client();
        client.get_after_boot("the node", BOOT_DEADLINE, "setup")?;
        let browser = Browser::open(pair.records(), pair.sockets())?;
        Ok(Desk { browser, pair })
    })
}

/// Every question of the wizard, one wrong answer included, up to the status page.
fn web_wizard_sets_up_first_node(desk: &mut Desk) -> Result<()> {
    desk.browser.go(&desk.pair.a.address())?;
    desk.browser.wait_for("input[name=question]", PAGE_DEADLINE)?;
    let mut asked = Vec::new();
    while asked.len() < MANY_QUESTIONS {
        let Ok(key) = desk.browser.value("input[name=question]") else { break };
        desk.browser.picture(&format!("question-{key}"))?;
        answer(&desk.browser, &key).with_context(|| format!("The question {key} cannot be answered"))?;
        asked.push(key.clone());
        desk.next_page(&key)?;
    }
    println!("    asked: {}", asked.join(", "));
    ensure!(asked.len() <= PROMISED_QUESTIONS, "The wizard asks {} questions.", asked.len());
    desk.browser.picture("summary")?;
    desk.browser.press("button[value=begin]")?;
    desk.browser.wait_for("#sentence", PAGE_DEADLINE)?;
    desk.browser.picture("progress")?;
    desk.wait_for_status_page()?;
    desk.browser.picture("status-without-login")?;
    Ok(())
}

/// Log in, read the whole status, open the pairing code.
fn web_login_and_pairing_code(desk: &mut Desk) -> Result<()> {
    let address = desk.pair.a.address();
    let browser = &mut desk.browser;
    browser.go(&format!("{address}/login"))?;
    browser.fill("input[name=password]", Text("not the password"))?;
    browser.press("form button")?;
    wait::until("a sentence about the password", PAGE_DEADLINE, || {
        let shown = browser.text("#refusal")?;
        Ok(if shown.is_empty() { Look::NotYet("nothing".into()) } else { Look::Ready(shown) })
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

/// A volume, its content from a file, and a VM on it.
fn web_creates_a_volume_and_a_vm(desk: &mut Desk) -> Result<()> {
    let address = desk.pair.a.address();
    let image = desk.pair.artifacts().guest();
    let size = std::fs::metadata(&image)?.len() >> 20;
    let browser = &mut desk.browser;
    browser.go(&format!("{address}/volumes"))?;
    let create = "form[data-json='/api/v1/volumes']";
    browser.fill(&format!("{create} input[name=name]"), Text("web"))?;
    browser.fill(&format!("{create} input[name=size]"), Text(&size.to_string()))?;
    browser.press(&format!("{create} button"))?;
    let upload = "form[data-upload='/api/v1/volumes/web/content']";
    browser.wait_for(upload, PAGE_DEADLINE)?;
    browser.fill(&format!("{upload} input[type=file]"), Text(&image.to_string_lossy()))?;
    browser.press(&format!("{upload} button"))?;
    // The page is loaded again when the last byte is durable; the file field is then empty.
    wait::until("the upload to end", SETUP_DEADLINE, || {
        Ok(match browser.value(&format!("{upload} input[type=file]")) {
            Ok(chosen) if chosen.is_empty() => Look::Ready(()),
            other => Look::NotYet(format!("{other:?} {}", browser.page_text().unwrap_or_default())),
        })
    })?;
    // An image with another checksum changes nothing: the VM below boots from the image before.
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

/// The guest's serial line in the browser: the guest counts, and earlier lines stay.
fn web_shows_the_serial_line(desk: &mut Desk) -> Result<()> {
    desk.browser.go(&format!("{}/vms/web/console", desk.pair.a.address()))?;
    wait::until("several counts of the guest", GUEST_DEADLINE, || {
        let text = desk.browser.text("#screen")?;
        let counts = text.lines().filter(|line| line.starts_with("ack ")).count();
        Ok(if counts > 2 { Look::Ready(()) } else { Look::NotYet(text) })
    })?;
    desk.browser.picture("console")?;
    Ok(())
}

impl Desk {
    /// Waits until the page after the question `key` is there.
    fn next_page(&self, key: &str) -> Result<()> {
        wait::until(&format!("the page after {key}"), PAGE_DEADLINE, || {
            if self.browser.has("button[value=begin]")? {
                return Ok(Look::Ready(()));
            }
            Ok(match self.browser.value("input[name=question]") {
                Ok(now) if now != key => Look::Ready(()),
                _ => Look::NotYet(self.browser.page_text().unwrap_or_default()),
            })
        })
    }

    /// The page updates itself, unless it was loading while the node restarted: then a person loads it again.
    fn wait_for_status_page(&self) -> Result<()> {
        wait::until("the status page", SETUP_DEADLINE, || {
            if let Ok(error) = self.browser.text("#error") {
                bail!("Setup failed: {error}");
            }
            let text = self.browser.page_text().unwrap_or_default();
            if text.contains("Not protected") {
                return Ok(Look::Ready(()));
            }
            if !text.contains("Setting up") {
                // The node may still be away.
                let _ = self.browser.go(&self.pair.a.address());
            }
            Ok(Look::NotYet(text))
        })
    }
}

/// Answers the question shown now.
fn answer(browser: &Browser, key: &str) -> Result<()> {
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
        // The suggested answer is right: the blank disks, the first port, DHCP, all cables.
        _ => {}
    }
    browser.press("button[value=next]")
}

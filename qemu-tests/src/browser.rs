//! A person at the web pages: Debian's Chromium, driven through chromedriver (the W3C WebDriver protocol).

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use ureq::Agent;

use crate::child::{Program, Running};
use crate::wait::{self, Look};

/// Chromium starts slowly on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// A page that is being loaded anew is there again.
const PRESS_DEADLINE: Duration = Duration::from_secs(30);
/// The key under which the protocol names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// One browser window.
#[derive(Debug)]
pub struct Browser {
    agent: Agent,
    session: String,
    pictures: PathBuf,
    taken: u32,
    // Dropped last: its browser goes with it.
    _driver: Running,
}

/// One element of the page shown now.
#[derive(Debug, Clone)]
pub struct Element(String);

impl Browser {
    /// Opens a window of 1280×900. Pictures and logs go below `records`, the browser's profile below `scratch`.
    ///
    /// # Errors
    /// The browser does not start.
    pub fn open(records: &Path, scratch: &Path) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut program = Program::new("chromedriver");
        program.arg(format!("--port={port}"));
        let driver = program.start(&records.join("chromedriver.log"))?;
        let agent = Agent::config_builder()
            .timeout_global(Some(START_DEADLINE))
            .http_status_as_error(false)
            .build()
            .new_agent();
        let server = format!("http://127.0.0.1:{port}");
        let profile = scratch.join("chromium");
        let options = json!({"capabilities": {"alwaysMatch": {
            // Each node has a certificate of its own making.
            "acceptInsecureCerts": true,
            "goog:chromeOptions": {"args": [
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--window-size=1280,900",
                format!("--user-data-dir={}", profile.display()),
            ]},
        }}});
        wait::until_ok("chromedriver", START_DEADLINE, || ask(agent.get(format!("{server}/status")).call()))?;
        let answer = ask(agent.post(format!("{server}/session")).send(options.to_string()))?;
        let id = answer["sessionId"].as_str().with_context(|| format!("No browser session: {answer}"))?;
        let session = format!("{server}/session/{id}");
        Ok(Self { agent, session, pictures: records.to_owned(), taken: 0, _driver: driver })
    }

    /// Goes to an address.
    ///
    /// # Errors
    /// The page does not load.
    pub fn go(&self, address: &str) -> Result<()> {
        self.post("url", &json!({"url": address})).map(drop)
    }

    /// The address shown now.
    ///
    /// # Errors
    /// The browser is gone.
    pub fn address(&self) -> Result<String> {
        Ok(self.get("url")?.as_str().unwrap_or_default().to_owned())
    }

    /// The first element that this CSS selector finds now.
    ///
    /// # Errors
    /// There is none.
    pub fn find(&self, selector: &str) -> Result<Element> {
        self.find_all(selector)?.into_iter().next().with_context(|| format!("The page has no {selector}"))
    }

    /// All elements that this CSS selector finds now.
    ///
    /// # Errors
    /// The browser is gone.
    pub fn find_all(&self, selector: &str) -> Result<Vec<Element>> {
        let found = self.post("elements", &json!({"using": "css selector", "value": selector}))?;
        let ids = found.as_array().into_iter().flatten().filter_map(|element| element[ELEMENT].as_str());
        Ok(ids.map(|id| Element(id.to_owned())).collect())
    }

    /// Waits for an element.
    ///
    /// # Errors
    /// It does not appear within `deadline`; the error holds what the page says instead.
    pub fn wait_for(&self, selector: &str, deadline: Duration) -> Result<Element> {
        wait::until(&format!("{selector} on the page"), deadline, || {
            Ok(match self.find(selector) {
                Ok(element) => Look::Ready(element),
                Err(_) => Look::NotYet(self.page_text().unwrap_or_else(|error| format!("{error:#}"))),
            })
        })
    }

    /// Waits until the text of an element contains `text`; looks again from the start each time, since the page may
    /// have been loaded anew.
    ///
    /// # Errors
    /// It does not within `deadline`; the error holds what the page says instead.
    pub fn wait_for_text(&self, selector: &str, text: &str, deadline: Duration) -> Result<String> {
        wait::until(&format!("{text:?} in {selector}"), deadline, || {
            let seen = self.find(selector).and_then(|element| self.text(&element));
            Ok(match seen {
                Ok(seen) if seen.contains(text) => Look::Ready(seen),
                _ => Look::NotYet(self.page_text().unwrap_or_else(|error| format!("{error:#}"))),
            })
        })
    }

    /// The visible text of an element.
    ///
    /// # Errors
    /// It is gone.
    pub fn text(&self, element: &Element) -> Result<String> {
        Ok(self.get(&format!("element/{}/text", element.0))?.as_str().unwrap_or_default().to_owned())
    }

    /// A property of an element, such as `value` or `checked`.
    ///
    /// # Errors
    /// It is gone.
    pub fn property(&self, element: &Element, name: &str) -> Result<Value> {
        self.get(&format!("element/{}/property/{name}", element.0))
    }

    /// Clicks an element as a person would; it must be visible.
    ///
    /// # Errors
    /// It is gone, hidden or covered.
    pub fn click(&self, element: &Element) -> Result<()> {
        self.post(&format!("element/{}/click", element.0), &json!({})).map(drop)
    }

    /// Empties a field and types into it; for a file field, `text` is the path of the file.
    ///
    /// # Errors
    /// It is gone or takes no text.
    pub fn fill(&self, element: &Element, text: &str) -> Result<()> {
        if self.property(element, "type")? != "file" {
            self.post(&format!("element/{}/clear", element.0), &json!({}))?;
        }
        self.post(&format!("element/{}/value", element.0), &json!({"text": text})).map(drop)
    }

    /// Fills the field of this name on the page.
    ///
    /// # Errors
    /// As [`Browser::fill`].
    pub fn fill_field(&self, selector: &str, text: &str) -> Result<()> {
        self.fill(&self.find(selector)?, text).with_context(|| format!("{selector} takes no text"))
    }

    /// Presses the button of this selector. A page that follows the node may be loaded anew between looking and pressing:
    /// a person would press again.
    ///
    /// # Errors
    /// As [`Browser::click`].
    pub fn press(&self, selector: &str) -> Result<()> {
        wait::until(&format!("{selector} to be pressed"), PRESS_DEADLINE, || {
            match self.find(selector).and_then(|button| self.click(&button)) {
                Ok(()) => Ok(Look::Ready(())),
                Err(error) if format!("{error:#}").contains("stale element") => Ok(Look::NotYet(format!("{error:#}"))),
                Err(error) => Err(error.context(format!("{selector} cannot be pressed"))),
            }
        })
    }

    /// Everything the page says.
    ///
    /// # Errors
    /// The browser is gone.
    pub fn page_text(&self) -> Result<String> {
        self.text(&self.find("body")?)
    }

    /// Saves a picture of the page as `NN-name.png` among the records.
    ///
    /// # Errors
    /// The browser gives none.
    pub fn picture(&mut self, name: &str) -> Result<PathBuf> {
        let answer = self.get("screenshot")?;
        let bytes = decode_base64(answer.as_str().unwrap_or_default())?;
        self.taken += 1;
        let file = self.pictures.join(format!("{:02}-{name}.png", self.taken));
        fs::write(&file, bytes).with_context(|| format!("Cannot write {}.", file.display()))?;
        Ok(file)
    }

    fn get(&self, what: &str) -> Result<Value> {
        ask(self.agent.get(format!("{}/{what}", self.session)).call())
    }

    fn post(&self, what: &str, body: &Value) -> Result<Value> {
        ask(self.agent.post(format!("{}/{what}", self.session)).send(body.to_string()))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // chromedriver ends its browser when the session ends; without it the browser would outlive us.
        let _ = self.agent.delete(&self.session).call();
    }
}

fn ask(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value> {
    let mut answer = answer.context("The browser's driver does not answer.")?;
    let text = answer.body_mut().with_config().limit(64 << 20).read_to_string()?;
    let mut body: Value = serde_json::from_str(&text).with_context(|| format!("The driver said {text:?}."))?;
    let value = body["value"].take();
    if answer.status().is_success() {
        return Ok(value);
    }
    bail!("{}", value["message"].as_str().unwrap_or("The driver refused.").lines().next().unwrap_or_default())
}

/// Standard base64, as the protocol sends pictures.
fn decode_base64(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut have) = (0_u32, 0);
    for letter in text.bytes().filter(|letter| *letter != b'=') {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            other => bail!("The picture holds the byte {other}."),
        };
        bits = (bits << 6) | u32::from(value);
        have += 6;
        if have >= 8 {
            have -= 8;
            bytes.push((bits >> have) as u8);
        }
    }
    ensure!(!bytes.is_empty(), "The picture is empty.");
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_decoded() {
        assert_eq!(decode_base64("aGVsbG8=").unwrap(), b"hello");
        assert_eq!(decode_base64("+/8A").unwrap(), [0xfb, 0xff, 0x00]);
        assert!(decode_base64("a*b").is_err());
    }
}

//! A client of the web pages: Debian's Chromium, driven through chromedriver (the W3C WebDriver protocol).

use std::fmt;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use ureq::Agent;

use crate::child::{Program, RunningProgram};
use crate::wait::{self, Poll};

/// Longest start of chromedriver, and the timeout of each of its commands, the start of Chromium among them; both are
/// slow on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// Longest time for which an action is repeated because the page replaced the element ("stale element").
const STALE_ELEMENT_DEADLINE: Duration = Duration::from_secs(30);
/// The key under which the protocol names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Path of one element of the page below the session's address, such as `element/ID`.
struct Element(String);

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that the page shows, or that is typed into it. A type of its own, so that it is not confused with a selector.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a>(pub &'a str);

/// One session of chromedriver with one browser window.
#[derive(Debug)]
pub struct Browser {
    agent: Agent,
    session: String,
    pictures: PathBuf,
    pictures_taken: u32,
    // Declared last, so that it is dropped last: dropping it kills chromedriver.
    _driver: RunningProgram,
}

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
            // Each node has a self-signed certificate.
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
        wait::until_ok("chromedriver", START_DEADLINE, || parse_answer(agent.get(format!("{server}/status")).call()))?;
        let answer = parse_answer(agent.post(format!("{server}/session")).send(options.to_string()))?;
        let id = answer["sessionId"].as_str().with_context(|| format!("No browser session: {answer}"))?;
        let session = format!("{server}/session/{id}");
        Ok(Self { agent, session, pictures: records.to_owned(), pictures_taken: 0, _driver: driver })
    }

    /// Opens the page at `address`.
    ///
    /// # Errors
    /// The page does not load.
    pub fn go(&self, address: &str) -> Result<()> {
        self.post("url", &json!({"url": address})).map(drop)
    }

    /// Whether the page has an element that this CSS selector finds.
    ///
    /// # Errors
    /// The browser is gone.
    pub fn has(&self, selector: &str) -> Result<bool> {
        Ok(!self.find_all(None, selector)?.is_empty())
    }

    /// Waits until the page has an element that this CSS selector finds.
    ///
    /// # Errors
    /// The element does not appear within `deadline`; the error holds the text of the page.
    pub fn wait_for(&self, selector: &str, deadline: Duration) -> Result<()> {
        wait::until(&format!("{selector} on the page"), deadline, || {
            Ok(if self.has(selector)? { Poll::Ready(()) } else { self.not_yet() })
        })
    }

    /// Waits until the text of an element contains `text`.
    ///
    /// # Errors
    /// The text does not appear within `deadline`; the error holds the text of the page.
    pub fn wait_for_text(&self, selector: &str, Text(text): Text<'_>, deadline: Duration) -> Result<()> {
        wait::until(&format!("{text:?} in {selector}"), deadline, || {
            Ok(match self.text(selector) {
                Ok(seen) if seen.contains(text) => Poll::Ready(()),
                _ => self.not_yet(),
            })
        })
    }

    /// The visible text of an element.
    ///
    /// # Errors
    /// The page has no such element.
    pub fn text(&self, selector: &str) -> Result<String> {
        self.on_element(selector, |element| {
            Ok(self.get(&format!("{element}/text"))?.as_str().unwrap_or_default().to_owned())
        })
    }

    /// The value of a field.
    ///
    /// # Errors
    /// The page has no such element.
    pub fn value(&self, selector: &str) -> Result<String> {
        self.on_element(selector, |element| self.property(element, "value"))
    }

    /// Clicks the first element that the selector finds; it must be visible.
    ///
    /// # Errors
    /// The button is gone, hidden or covered.
    pub fn press(&self, selector: &str) -> Result<()> {
        self.on_element(selector, |element| self.click(element))
            .with_context(|| format!("{selector} cannot be pressed"))
    }

    /// Empties a field and types into it; for a file field, `text` is the path of the file.
    ///
    /// # Errors
    /// The field is gone or takes no text.
    pub fn fill(&self, selector: &str, Text(text): Text<'_>) -> Result<()> {
        let typed = self.on_element(selector, |element| {
            if self.property(element, "type")? != "file" {
                self.post(&format!("{element}/clear"), &json!({}))?;
            }
            self.post(&format!("{element}/value"), &json!({"text": text})).map(drop)
        });
        typed.with_context(|| format!("{selector} takes no text"))
    }

    /// Chooses the entry with this text in a selection.
    ///
    /// # Errors
    /// The selection has no such entry.
    pub fn choose(&self, selector: &str, Text(text): Text<'_>) -> Result<()> {
        self.on_element(selector, |element| {
            for option in self.find_all(Some(element), "option")? {
                if self.property(&option, "text")? == text {
                    return self.click(&option);
                }
            }
            bail!("{selector} does not offer {text}.")
        })
    }

    /// The visible text of the page.
    ///
    /// # Errors
    /// The browser is gone.
    pub fn page_text(&self) -> Result<String> {
        self.text("body")
    }

    /// Saves a picture of the page as `NN-name.png` among the records.
    ///
    /// # Errors
    /// The browser makes no picture.
    pub fn picture(&mut self, name: &str) -> Result<PathBuf> {
        let answer = self.get("screenshot")?;
        let bytes = decode_base64(answer.as_str().unwrap_or_default())?;
        self.pictures_taken += 1;
        let file = self.pictures.join(format!("{:02}-{name}.png", self.pictures_taken));
        fs::write(&file, bytes).with_context(|| format!("Cannot write {}.", file.display()))?;
        Ok(file)
    }

    /// Acts on the first element that this CSS selector finds. Pages update themselves, so the element may be replaced
    /// before the action; the action is then repeated on the new element.
    fn on_element<T>(&self, selector: &str, act: impl Fn(&Element) -> Result<T>) -> Result<T> {
        wait::until(&format!("{selector} to stay"), STALE_ELEMENT_DEADLINE, || {
            let found = self.find_all(None, selector)?;
            match act(found.first().with_context(|| format!("The page has no {selector}"))?) {
                Ok(done) => Ok(Poll::Ready(done)),
                Err(error) if format!("{error:#}").contains("stale element") => Ok(Poll::NotYet(format!("{error:#}"))),
                Err(error) => Err(error),
            }
        })
    }

    /// The elements found below `parent`, or on the whole page.
    fn find_all(&self, parent: Option<&Element>, selector: &str) -> Result<Vec<Element>> {
        let place = parent.map_or("elements".to_owned(), |parent| format!("{parent}/elements"));
        let found = self.post(&place, &json!({"using": "css selector", "value": selector}))?;
        let ids = found.as_array().into_iter().flatten().filter_map(|element| element[ELEMENT].as_str());
        Ok(ids.map(|id| Element(format!("element/{id}"))).collect())
    }

    fn property(&self, element: &Element, name: &str) -> Result<String> {
        Ok(self.get(&format!("{element}/property/{name}"))?.as_str().unwrap_or_default().to_owned())
    }

    fn click(&self, element: &Element) -> Result<()> {
        self.post(&format!("{element}/click"), &json!({})).map(drop)
    }

    fn not_yet<T>(&self) -> Poll<T> {
        Poll::NotYet(self.page_text().unwrap_or_else(|error| format!("{error:#}")))
    }

    fn get(&self, what: &str) -> Result<Value> {
        parse_answer(self.agent.get(format!("{}/{what}", self.session)).call())
    }

    fn post(&self, what: &str, body: &Value) -> Result<Value> {
        parse_answer(self.agent.post(format!("{}/{what}", self.session)).send(body.to_string()))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // chromedriver ends its browser when the session ends; without this call the browser would outlive the test.
        let _ = self.agent.delete(&self.session).call();
    }
}

fn parse_answer(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value> {
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

//! Tests that set both nodes up at their serial lines.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dyad_rig::artifacts::Artifacts;
use dyad_rig::harness::{Test, run_tests};
use dyad_rig::node::NodeName;
use dyad_rig::pair::Pair;
use dyad_rig::scenarios::BOOT_DEADLINE;
use dyad_rig::seed::PASSWORD;
use dyad_rig::serial::SerialLine;
use dyad_rig::wait::{self, Poll};

/// Longest time until an emulated node prints the next question or an expected text.
const QUESTION_DEADLINE: Duration = Duration::from_secs(60);
/// Longest setup of an emulated node: it formats disks and restarts to prove its watchdog.
const SETUP_DEADLINE: Duration = Duration::from_secs(300);
/// Number of questions after which the test gives up, so that a wizard without an end fails it.
const QUESTION_LIMIT: usize = 20;

const TESTS: [Test<Pair>; 4] = [
    ("serial_wizard_sets_up_first_node", serial_wizard_sets_up_first_node),
    ("serial_status_names_what_is_missing", serial_status_names_what_is_missing),
    ("serial_shows_the_pairing_code", serial_shows_the_pairing_code),
    ("serial_wizard_joins_second_node", serial_wizard_joins_second_node),
];

fn main() -> ExitCode {
    run_tests(&TESTS, || {
        let mut pair = Pair::for_setup(Artifacts::beside_this_program()?, "serial")?;
        pair.a.power_on()?;
        Ok(pair)
    })
}

/// Answers every question of the first node, one of them wrongly first, until the status screen appears.
fn serial_wizard_sets_up_first_node(pair: &mut Pair) -> Result<()> {
    pair.a.serial().wait_for_text("Welcome to Dyad", 0, BOOT_DEADLINE)?;
    answer_wizard(pair.a.serial(), |title| match title {
        "First node or second" => "1",
        "Name of the pair" => "office",
        "Name of this node" => "left",
        "Administrator password" => PASSWORD,
        "Witness" => "later",
        // An empty line takes the suggested answer.
        _ => "",
    })?;
    let log = pair.a.serial().text_since(0);
    // The wizard shows the address of the same questions in the browser.
    ensure!(log.contains("\n  https://10."), "The wizard did not say where its pages are.");
    ensure!(!log.contains(PASSWORD), "The password was echoed.");
    pair.a.serial().wait_for_screen("NOT PROTECTED", SETUP_DEADLINE)?;
    Ok(())
}

/// The status screen names the pair, the node, the in-sync set, and what is missing for protection.
fn serial_status_names_what_is_missing(pair: &mut Pair) -> Result<()> {
    // While the node restarts and opens its pool, the screen shows another text.
    let screen = wait::until("the screen to say what is missing", SETUP_DEADLINE, || {
        let screen = pair.a.serial().screen();
        let flat = screen.split_whitespace().collect::<Vec<_>>().join(" ");
        // No other node exists: the sentence "the other node holds newer data" would be wrong even for a moment.
        ensure!(!flat.contains("holds newer data"), "The screen tells of data elsewhere:\n{screen}");
        let parts = ["office", "left", "In sync", "the second node has not joined"];
        Ok(match parts.into_iter().find(|part| !flat.contains(part)) {
            None => Poll::Ready(screen),
            Some(part) => Poll::NotYet(format!("{part:?} is missing in\n{screen}")),
        })
    })?;
    println!("{screen}");
    ensure!(screen.is_ascii(), "The screen is not plain ASCII.");
    Ok(())
}

/// The key `p` opens a pairing code and shows it.
fn serial_shows_the_pairing_code(pair: &mut Pair) -> Result<()> {
    pair.a.serial().send("p")?;
    wait::until_ok("the pairing code", QUESTION_DEADLINE, || shown_code(pair)).map(drop)
}

/// The second node is set up at its own line with the code that the first node shows.
fn serial_wizard_joins_second_node(pair: &mut Pair) -> Result<()> {
    pair.b.power_on()?;
    pair.b.serial().wait_for_text("Welcome to Dyad", 0, BOOT_DEADLINE)?;
    // The screen shows the code while it is valid; `p` would open a new code.
    let code = wait::until_ok("the pairing code", QUESTION_DEADLINE, || shown_code(pair))?;
    answer_wizard(pair.b.serial(), |title| match title {
        "First node or second" => "2",
        "Pairing code" => &code,
        "Name of this node" => "right",
        _ => "",
    })?;
    let screen = pair.b.serial().wait_for_screen("(node B)", SETUP_DEADLINE)?;
    ensure!(screen.contains("right"), "The screen does not name the node:\n{screen}");
    wait::until("both nodes to be in sync", SETUP_DEADLINE, || {
        let members = |name: NodeName| pair.status(name).map(|status| status.members());
        Ok(match (members(NodeName::A), members(NodeName::B)) {
            (Ok(a), Ok(b)) if a == "AB" && b == "AB" => Poll::Ready(()),
            other => Poll::NotYet(format!("{other:?}")),
        })
    })
}

/// Answers all questions of the wizard with `answer`, by their title, and confirms the summary. The confirmation of
/// what is erased is typed wrongly first.
fn answer_wizard<'a>(line: &SerialLine, answer: impl Fn(&str) -> &'a str) -> Result<()> {
    let mut position = 0;
    let mut refused = false;
    for _ in 0..QUESTION_LIMIT {
        let (title, text) = next_question(line, position)?;
        position = line.position();
        match title.as_str() {
            "Summary" => {
                line.send("yes\r")?;
                return Ok(());
            }
            "Confirm what is erased" if !refused => {
                line.send("yes\r")?;
                let refusal = "\n! Nothing was erased: to confirm, type exactly \"";
                line.wait_for_text(refusal, position, QUESTION_DEADLINE).context("A wrong confirmation was taken")?;
                refused = true;
            }
            "Confirm what is erased" => {
                let wanted = text.lines().find_map(|line| line.trim().strip_prefix("Type: "));
                line.send(&format!("{}\r", wanted.context("It is not said what to type")?))?;
            }
            "Administrator password" => {
                let password = answer(&title);
                line.send(&format!("{password}\r"))?;
                line.wait_for_text("again> ", position, QUESTION_DEADLINE)?;
                position = line.position();
                line.send(&format!("{password}\r"))?;
            }
            other => line.send(&format!("{}\r", answer(other)))?,
        }
    }
    anyhow::bail!("The wizard asked more than {QUESTION_LIMIT} questions.")
}

/// Waits for a question after position `since`, complete with its prompt; returns its title and its text.
fn next_question(line: &SerialLine, since: usize) -> Result<(String, String)> {
    wait::until("the next question", QUESTION_DEADLINE, || {
        let text = line.text_since(since);
        let asked = text.rfind("\n* ").map(|at| text[at + 3..].to_owned());
        let prompt = ["> ", "] ", "(yes/no) "].iter().any(|prompt| text.ends_with(prompt));
        Ok(match asked {
            Some(asked) if prompt => {
                let title = asked.lines().next().unwrap_or_default().trim().to_owned();
                Poll::Ready((title, asked))
            }
            _ => Poll::NotYet(text),
        })
    })
}

/// The pairing code on the screen of node A.
fn shown_code(pair: &Pair) -> Result<String> {
    let screen = pair.a.serial().screen();
    let after = screen.split_once("Pairing code: ").map_or("", |(_, after)| after);
    let code: String = after.chars().take_while(char::is_ascii_digit).collect();
    ensure!(code.len() == 6, "No code on the screen:\n{screen}");
    Ok(code)
}

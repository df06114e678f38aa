//! Both nodes are set up at their serial lines, as with a cable and a terminal program.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dyad_rig::artifacts::Artifacts;
use dyad_rig::harness::{Test, run_tests};
use dyad_rig::node::Name;
use dyad_rig::pair::Pair;
use dyad_rig::scenarios::BOOT_DEADLINE;
use dyad_rig::seed::PASSWORD;
use dyad_rig::serial::SerialLine;
use dyad_rig::wait::{self, Look};

/// One question on an emulated line.
const QUESTION_DEADLINE: Duration = Duration::from_secs(60);
/// Setup formats disks and restarts the node once to prove its watchdog.
const SETUP_DEADLINE: Duration = Duration::from_secs(300);
/// Limit of questions, so that a wizard that never ends fails the test.
const MANY_QUESTIONS: usize = 20;

const TESTS: [Test<Pair>; 4] = [
    ("serial_wizard", serial_wizard),
    ("serial_status_tells_the_truth", serial_status_tells_the_truth),
    ("serial_shows_the_pairing_code", serial_shows_the_pairing_code),
    ("serial_wizard_joins", serial_wizard_joins),
];

fn main() -> ExitCode {
    run_tests(&TESTS, || {
        let mut pair = Pair::new(Artifacts::beside_this_program()?, "serial")?;
        pair.a.power_on()?;
        Ok(pair)
    })
}

/// Every question of the first node, with one wrong answer, up to the status screen.
fn serial_wizard(pair: &mut Pair) -> Result<()> {
    pair.a.serial().wait_for_text("Welcome to Dyad", 0, BOOT_DEADLINE)?;
    converse(pair.a.serial(), |title| match title {
        "First node or second" => "1",
        "Name of the pair" => "office",
        "Name of this node" => "left",
        "Administrator password" => PASSWORD,
        "Witness" => "later",
        // The suggested answer is right.
        _ => "",
    })?;
    let log = pair.a.serial().text_since(0);
    // The address of the pages, for a person who prefers the browser.
    ensure!(log.contains("\n  https://10."), "The wizard did not say where its pages are.");
    ensure!(!log.contains(PASSWORD), "The password was echoed.");
    pair.a.serial().wait_for_screen("NOT PROTECTED", SETUP_DEADLINE)?;
    Ok(())
}

/// The screen says in one sentence what is missing.
fn serial_status_tells_the_truth(pair: &mut Pair) -> Result<()> {
    // Until the node has restarted and opened its pool, the screen tells that.
    let screen = wait::until("the screen to say what is missing", SETUP_DEADLINE, || {
        let screen = pair.a.serial().screen();
        let flat = screen.split_whitespace().collect::<Vec<_>>().join(" ");
        // No other node exists: the sentence "the other node holds newer data" would be wrong even for a moment.
        ensure!(!flat.contains("holds newer data"), "The screen tells of data elsewhere:\n{screen}");
        let parts = ["office", "left", "In sync", "the second node has not joined"];
        Ok(match parts.into_iter().find(|part| !flat.contains(part)) {
            None => Look::Ready(screen),
            Some(part) => Look::NotYet(format!("{part:?} is missing in\n{screen}")),
        })
    })?;
    println!("{screen}");
    ensure!(screen.is_ascii(), "The screen is not plain ASCII.");
    Ok(())
}

/// One key shows the code.
fn serial_shows_the_pairing_code(pair: &mut Pair) -> Result<()> {
    pair.a.serial().send("p")?;
    wait::until_ok("the pairing code", QUESTION_DEADLINE, || code(pair)).map(drop)
}

/// The second node is set up at its own line with the code that the first node shows.
fn serial_wizard_joins(pair: &mut Pair) -> Result<()> {
    pair.b.power_on()?;
    pair.b.serial().wait_for_text("Welcome to Dyad", 0, BOOT_DEADLINE)?;
    // The screen shows the code while it is valid; `p` would open a new code.
    let code = wait::until_ok("the pairing code", QUESTION_DEADLINE, || code(pair))?;
    converse(pair.b.serial(), |title| match title {
        "First node or second" => "2",
        "Pairing code" => &code,
        "Name of this node" => "right",
        _ => "",
    })?;
    let screen = pair.b.serial().wait_for_screen("(node B)", SETUP_DEADLINE)?;
    ensure!(screen.contains("right"), "The screen does not name the node:\n{screen}");
    wait::until("both nodes to be in sync", SETUP_DEADLINE, || {
        let members = |name: Name| pair.status(name).map(|status| status.members());
        Ok(match (members(Name::A), members(Name::B)) {
            (Ok(a), Ok(b)) if a == "AB" && b == "AB" => Look::Ready(()),
            other => Look::NotYet(format!("{other:?}")),
        })
    })
}

/// Answers question after question, then the summary. The confirmation is first answered wrongly.
fn converse<'a>(line: &SerialLine, answer: impl Fn(&str) -> &'a str) -> Result<()> {
    let mut position = 0;
    let mut refused = false;
    for _ in 0..MANY_QUESTIONS {
        let (title, text) = question(line, position)?;
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
    anyhow::bail!("The wizard asked more than {MANY_QUESTIONS} questions.")
}

/// Waits for the next question after `since`, complete with its prompt; returns its title and its text.
fn question(line: &SerialLine, since: usize) -> Result<(String, String)> {
    wait::until("the next question", QUESTION_DEADLINE, || {
        let text = line.text_since(since);
        let asked = text.rfind("\n* ").map(|at| text[at + 3..].to_owned());
        let prompt = ["> ", "] ", "(yes/no) "].iter().any(|prompt| text.ends_with(prompt));
        Ok(match asked {
            Some(asked) if prompt => {
                let title = asked.lines().next().unwrap_or_default().trim().to_owned();
                Look::Ready((title, asked))
            }
            _ => Look::NotYet(text),
        })
    })
}

/// The code on the first node's screen.
fn code(pair: &Pair) -> Result<String> {
    let screen = pair.a.serial().screen();
    let after = screen.split_once("Pairing code: ").map_or("", |(_, after)| after);
    let code: String = after.chars().take_while(char::is_ascii_digit).collect();
    ensure!(code.len() == 6, "No code on the screen:\n{screen}");
    Ok(code)
}

//! The wizard on a terminal: prints each question, reads the answer as a line and checks it with `dyad-wizard`.

use crate::client::{Client, ClientError};
use crate::erase;
use crate::line::{self, Prompt};
use crate::status::addresses;
use crate::terminal::{Terminal, write};
use dyad_api::{SetupPhase, StepState, surroundings};
use dyad_control::{Reply, Request, chain};
use dyad_wizard::{Answers, DiskContent, ERASE_WORD, Kind, Link, Question, QuestionId, Surroundings, next, suggestion};
use std::time::Duration;

/// Interval at which the wizard checks whether setup was begun by a seed file or a web page.
const SETUP_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Limit of the wait for an address from a DHCP server before the first question.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval at which the wizard checks whether this node has an address.
const ADDRESS_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The wizard, with the clients that it uses.
pub struct Wizard {
    /// Client of `dyad-node`, which sets the node up.
    pub node: Client,
    /// Client of `dyad-core`, which finds disks and offers and erases disks.
    pub core: dyad_control::Client,
}

impl Wizard {
    /// Asks all questions and sets the node up. Returns when the node is no longer blank, also if a seed file or a web page
    /// began the setup, or when `dyad-node` does not answer. Returns `None` if the terminal is closed.
    pub async fn run(&self, terminal: &mut Terminal) -> Option<()> {
        print_line("");
        print_line("Welcome to Dyad. This node is not set up yet.");
        print_line("Answer a few questions. Enter alone accepts the answer in brackets; ? repeats the question.");
        // An address that arrives later is shown before the next question.
        let _ = tokio::time::timeout(ADDRESS_TIMEOUT, wait_for_address()).await;
        let mut known = Vec::new();
        let mut answers = Answers::new();
        // The error of a setup, or of a seed file, that was shown last: each is shown once.
        let mut shown_error = None;
        loop {
            if !self.needs_setup(&mut shown_error).await {
                return Some(());
            }
            let found = addresses();
            if found != known {
                print_urls(&found);
                known = found;
            }
            let surroundings = self.surroundings().await;
            let Some(question) = next(&answers, &surroundings) else {
                match self.confirm(terminal, &answers, &mut shown_error).await? {
                    true => return Some(()),
                    false => {
                        answers = Answers::new();
                        continue;
                    }
                }
            };
            tokio::select! {
                asked = self.ask(terminal, question, &mut answers, &surroundings) => asked?,
                () = self.setup_changed(&shown_error) => print_line(""),
            }
        }
    }

    /// Whether the node still needs setup; `false` also if `dyad-node` does not answer. Prints the error of a failed setup
    /// unless it is the one in `shown_error`.
    async fn needs_setup(&self, shown_error: &mut Option<String>) -> bool {
        let Ok(setup) = self.node.setup().await else { return false };
        let error = setup.task.and_then(|task| task.error).map(|error| error.error);
        if let Some(error) = error.filter(|error| shown_error.as_ref() != Some(error)) {
            print_line(&format!("! {error}"));
            *shown_error = Some(error);
        }
        setup.phase == SetupPhase::Blank
    }

    /// Waits until a setup has begun from a seed file or a web page, or until such a setup has failed.
    async fn setup_changed(&self, shown_error: &Option<String>) {
        loop {
            tokio::time::sleep(SETUP_POLL_INTERVAL).await;
            // While `dyad-node` restarts, its socket does not answer.
            let Ok(setup) = self.node.setup().await else { continue };
            let error = setup.task.and_then(|task| task.error).map(|error| error.error);
            if setup.phase != SetupPhase::Blank || (error.is_some() && error != *shown_error) {
                return;
            }
        }
    }

    async fn surroundings(&self) -> Surroundings {
        let disks = match self.core.ask(&Request::Disks).await {
            Ok(Reply::Disks { disks }) => surroundings::disks(disks),
            _ => Vec::new(),
        };
        let offers = match self.core.ask(&Request::Offers).await {
            Ok(Reply::Offers { offers }) => surroundings::offers(&offers),
            _ => Vec::new(),
        };
        let setup = self.node.setup().await.ok();
        let (ports, links) = setup.map(|setup| (setup.ports, setup.links)).unwrap_or_default();
        let links = links.into_iter().map(|link| Link { name: link.name, up: link.up }).collect();
        Surroundings { disks, ports, links, offers }
    }

    /// Prints one question, reads the answer and stores it in `answers` if it is accepted. Returns `None` if the terminal is
    /// closed.
    async fn ask(
        &self,
        terminal: &mut Terminal,
        question: &Question,
        answers: &mut Answers,
        surroundings: &Surroundings,
    ) -> Option<()> {
        print_line("");
        print_line(&format!("* {}", question.title));
        for text in wrap(question.help) {
            print_line(&format!("  {text}"));
        }
        let choices = choices(question, surroundings);
        for (number, (_, label)) in choices.iter().enumerate() {
            print_line(&format!("  {}) {label}", number + 1));
        }
        if let Some(confirmation) = (question.id == QuestionId::Erase).then(|| answers.confirmation()).flatten() {
            print_line(&format!("  Type: {confirmation}"));
        }
        let of_pair = |disk: &dyad_wizard::Disk| matches!(disk.content, DiskContent::Pool { .. });
        if question.kind == Kind::Disks && surroundings.disks.iter().any(of_pair) {
            print_line(&format!(
                "  To erase a disk of another pair, type {ERASE_WORD} and its name, such as: {ERASE_WORD} vdb"
            ));
        }
        let secret = question.kind == Kind::Secret;
        let default = suggestion(question.id, answers, surroundings).unwrap_or_default();
        let typed = line::read(terminal, Prompt { text: "> ", default: &default, secret }).await?;
        if typed == "?" || question.kind == Kind::Disks && erase::disk(&self.core, &typed).await {
            return Some(());
        }
        if secret && line::read(terminal, Prompt { secret, ..Prompt::new("again> ") }).await? != typed {
            print_line("! The two entries differ; type them again.");
            return Some(());
        }
        if let Err(problem) = answers.set(question.id, &numbers_to_values(&typed, &choices, question), surroundings) {
            print_line(&format!("! {problem}"));
        }
        Some(())
    }

    /// Prints the summary, reads the confirmation and begins setup. Returns `Some(false)` if the questions shall be asked
    /// again, `None` if the terminal is closed.
    async fn confirm(
        &self,
        terminal: &mut Terminal,
        answers: &Answers,
        shown_error: &mut Option<String>,
    ) -> Option<bool> {
        print_line("");
        print_line("* Summary");
        for (title, value) in answers.summary() {
            print_line(&format!("  {title:<26} {value}"));
        }
        print_line("  The disks above are erased now.");
        let typed = line::read(terminal, Prompt::new("Set up this node? (yes/no) ")).await?;
        if typed != "yes" {
            print_line("Nothing was changed. The questions are asked again.");
            return Some(false);
        }
        match self.node.begin(answers).await {
            Ok(_) => self.print_progress(shown_error).await,
            Err(ClientError::Refused(refusal)) => {
                print_line(&format!("! {}", refusal.error));
                Some(false)
            }
            Err(e) => {
                print_line(&format!("! {}.", chain(&e)));
                Some(false)
            }
        }
    }

    /// Prints each step as it begins, until setup has ended or `dyad-node` does not answer. Returns `Some(false)` if setup
    /// failed.
    async fn print_progress(&self, shown_error: &mut Option<String>) -> Option<bool> {
        let mut shown = 0;
        loop {
            let Ok(setup) = self.node.setup().await else { return Some(true) };
            let Some(task) = setup.task else { return Some(true) };
            let begun = task.steps.iter().take_while(|step| step.state != StepState::Waiting);
            for step in begun.skip(shown) {
                print_line(&format!("  ... {}", step.text));
                shown += 1;
            }
            if let Some(error) = task.error {
                print_line(&format!("! {}", error.error));
                *shown_error = Some(error.error);
                return Some(false);
            }
            if task.finished {
                print_line("This node is set up.");
                return Some(true);
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
}

async fn wait_for_address() {
    while addresses().is_empty() {
        tokio::time::sleep(ADDRESS_POLL_INTERVAL).await;
    }
}

/// Prints the URLs at which a browser shows the same wizard.
fn print_urls(addresses: &[String]) {
    if !addresses.is_empty() {
        print_line("A browser shows the same questions at");
    }
    for address in addresses {
        print_line(&format!("  https://{address}/"));
    }
}

fn print_line(text: &str) {
    write(&format!("{text}\r\n"));
}

/// Value and label of each answer that can be chosen by its number.
fn choices(question: &Question, surroundings: &Surroundings) -> Vec<(String, String)> {
    match question.kind {
        Kind::Choice(choices) => choices.iter().map(|c| (c.value.to_owned(), c.label.to_owned())).collect(),
        Kind::Port => surroundings.ports.iter().map(|p| (p.clone(), p.clone())).collect(),
        Kind::Links => {
            let cable = |up: bool| if up { "cable connected" } else { "no cable" };
            surroundings.links.iter().map(|l| (l.name.clone(), format!("{}  {}", l.name, cable(l.up)))).collect()
        }
        Kind::Offer => {
            let label = |o: &dyad_wizard::Offer| format!("{}  (first node {})", o.pair, o.node);
            surroundings.offers.iter().map(|o| (o.pair_id.clone(), label(o))).collect()
        }
        Kind::Disks => surroundings.disks.iter().map(|d| (d.path.clone(), disk_label(d))).collect(),
        Kind::Text | Kind::Secret => Vec::new(),
    }
}

/// The line of a disk in the list of choices.
fn disk_label(disk: &dyad_wizard::Disk) -> String {
    let content = match &disk.content {
        DiskContent::Blank => "blank".to_owned(),
        DiskContent::Foreign(what) => what.clone(),
        DiskContent::Pool { pair, node, .. } => format!("belongs to node {node} of the pair {pair}"),
    };
    format!("{}  {} MiB  {}  {content}", disk.path, disk.bytes >> 20, disk.model)
}

/// Replaces each number by the value of the choice with that number. Other words stay as typed.
fn numbers_to_values(typed: &str, choices: &[(String, String)], question: &Question) -> String {
    if choices.is_empty() || matches!(question.kind, Kind::Text | Kind::Secret) {
        return typed.to_owned();
    }
    let word = |word: &str| {
        let entry = word.parse::<usize>().ok().and_then(|n| choices.get(n.checked_sub(1)?));
        entry.map_or_else(|| word.to_owned(), |(value, _)| value.clone())
    };
    typed.split([' ', ',']).filter(|w| !w.is_empty()).map(word).collect::<Vec<_>>().join(" ")
}

/// Breaks a text into lines of at most 76 characters.
fn wrap(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always one");
        if !line.is_empty() && line.len() + word.len() + 1 > 76 {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use dyad_wizard::question;

    #[test]
    fn numbers_become_values_and_other_words_stay() {
        let choices = vec![("/dev/vdb".to_owned(), String::new()), ("/dev/vdc".to_owned(), String::new())];
        let disks = question(QuestionId::Disks);
        assert_eq!(numbers_to_values("1, 2", &choices, disks), "/dev/vdb /dev/vdc");
        assert_eq!(numbers_to_values("/dev/vdc", &choices, disks), "/dev/vdc");
        assert_eq!(numbers_to_values("3", &choices, disks), "3");
        assert_eq!(numbers_to_values("1", &[], question(QuestionId::Pair)), "1");
    }

    #[test]
    fn each_help_text_fits_into_76_columns() {
        for question in dyad_wizard::QUESTIONS {
            assert!(wrap(question.help).iter().all(|line| line.len() <= 76 && line.is_ascii()), "{}", question.key);
        }
    }
}

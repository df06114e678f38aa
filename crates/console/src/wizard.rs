//! The wizard as a conversation of lines: prints each question, reads the answer and checks it with `dyad-wizard`.

use crate::client::{Client, ClientError};
use crate::erase;
use crate::line::{self, Prompt};
use crate::status::addresses;
use crate::terminal::{Terminal, write};
use dyad_api::{SetupPhase, StepState, surroundings};
use dyad_control::{Reply, Request, chain};
use dyad_wizard::{Answers, DiskContent, ERASE_WORD, Kind, Link, Question, QuestionId, Surroundings, next, suggestion};
use std::time::Duration;

/// How often the wizard checks whether setup was begun elsewhere.
const SETUP_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How long the first question waits for an address from a DHCP server.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the wizard checks for an address.
const ADDRESS_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The sockets that the wizard uses.
pub struct Wizard {
    pub node: Client,
    pub core: dyad_control::Client,
}

impl Wizard {
    /// Asks all questions and sets the node up. Returns when the node is set up, here or elsewhere. `None`: the
    /// terminal is closed.
    pub async fn run(&self, terminal: &mut Terminal) -> Option<()> {
        say("");
        say("Welcome to Dyad. This node is not set up yet.");
        say("Answer a few questions; Enter takes the answer in brackets, a single ? asks again.");
        // An address that arrives later is shown before the next question.
        let _ = tokio::time::timeout(ADDRESS_TIMEOUT, wait_for_address()).await;
        let mut known = Vec::new();
        let mut answers = Answers::new();
        // The last error shown, of a seed file or of a setup begun elsewhere: each is shown once.
        let mut told = None;
        loop {
            if !self.blank(&mut told).await {
                return Some(());
            }
            let found = addresses();
            if found != known {
                say_urls(&found);
                known = found;
            }
            let surroundings = self.surroundings().await;
            let Some(question) = next(&answers, &surroundings) else {
                match self.confirm(terminal, &answers, &mut told).await? {
                    true => return Some(()),
                    false => {
                        answers = Answers::new();
                        continue;
                    }
                }
            };
            tokio::select! {
                asked = self.ask(terminal, question, &mut answers, &surroundings) => asked?,
                () = self.setup_changed(&told) => say(""),
            }
        }
    }

    /// Whether the node still needs setup. Shows the error of a failed setup unless `told` is the same error.
    async fn blank(&self, told: &mut Option<String>) -> bool {
        let Ok(setup) = self.node.setup().await else { return false };
        let error = setup.task.and_then(|task| task.error).map(|error| error.error);
        if let Some(error) = error.filter(|error| told.as_ref() != Some(error)) {
            say(&format!("! {error}"));
            *told = Some(error);
        }
        setup.phase == SetupPhase::Blank
    }

    /// Waits until a setup was begun from a seed file or a web page, or until such a setup failed.
    async fn setup_changed(&self, told: &Option<String>) {
        loop {
            tokio::time::sleep(SETUP_POLL_INTERVAL).await;
            // While `dyad-node` restarts, its socket does not answer.
            let Ok(setup) = self.node.setup().await else { continue };
            let error = setup.task.and_then(|task| task.error).map(|error| error.error);
            if setup.phase != SetupPhase::Blank || (error.is_some() && error != *told) {
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

    async fn ask(
        &self,
        terminal: &mut Terminal,
        question: &Question,
        answers: &mut Answers,
        surroundings: &Surroundings,
    ) -> Option<()> {
        say("");
        say(&format!("* {}", question.title));
        for text in wrap(question.help) {
            say(&format!("  {text}"));
        }
        let choices = choices(question, surroundings);
        for (number, (_, label)) in choices.iter().enumerate() {
            say(&format!("  {}) {label}", number + 1));
        }
        if let Some(confirmation) = (question.id == QuestionId::Erase).then(|| answers.confirmation()).flatten() {
            say(&format!("  Type: {confirmation}"));
        }
        let of_pair = |disk: &dyad_wizard::Disk| matches!(disk.content, DiskContent::Pool { .. });
        if question.kind == Kind::Disks && surroundings.disks.iter().any(of_pair) {
            say(&format!(
                "  To erase a disk of another pair, type {ERASE_WORD} and its name, such as: {ERASE_WORD} vdb"
            ));
        }
        let secret = question.kind == Kind::Secret;
        let offered = suggestion(question.id, answers, surroundings).unwrap_or_default();
        let typed = line::read(terminal, Prompt { text: "> ", offered: &offered, secret }).await?;
        if typed == "?" || question.kind == Kind::Disks && erase::disk(&self.core, &typed).await {
            return Some(());
        }
        if secret && line::read(terminal, Prompt { secret, ..Prompt::new("again> ") }).await? != typed {
            say("! The two entries differ; type them again.");
            return Some(());
        }
        if let Err(problem) = answers.set(question.id, &by_number(&typed, &choices, question), surroundings) {
            say(&format!("! {problem}"));
        }
        Some(())
    }

    /// Shows the summary and begins setup. `Some(false)`: the questions start again.
    async fn confirm(&self, terminal: &mut Terminal, answers: &Answers, told: &mut Option<String>) -> Option<bool> {
        say("");
        say("* Summary");
        for (title, value) in answers.summary() {
            say(&format!("  {title:<26} {value}"));
        }
        say("  The disks above are erased now.");
        let typed = line::read(terminal, Prompt::new("Set up this node? (yes/no) ")).await?;
        if typed != "yes" {
            say("Nothing was changed. The questions start again.");
            return Some(false);
        }
        match self.node.begin(answers).await {
            Ok(_) => self.follow(told).await,
            Err(ClientError::Refused(refusal)) => {
                say(&format!("! {}", refusal.error));
                Some(false)
            }
            Err(e) => {
                say(&format!("! {}.", chain(&e)));
                Some(false)
            }
        }
    }

    /// Prints each step as it begins, until setup ends.
    async fn follow(&self, told: &mut Option<String>) -> Option<bool> {
        let mut shown = 0;
        loop {
            let Ok(setup) = self.node.setup().await else { return Some(true) };
            let Some(task) = setup.task else { return Some(true) };
            let begun = task.steps.iter().take_while(|step| step.state != StepState::Waiting);
            for step in begun.skip(shown) {
                say(&format!("  ... {}", step.text));
                shown += 1;
            }
            if let Some(error) = task.error {
                say(&format!("! {}", error.error));
                *told = Some(error.error);
                return Some(false);
            }
            if task.finished {
                say("This node is set up.");
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

/// Prints the URLs at which a browser shows the same questions.
fn say_urls(addresses: &[String]) {
    if !addresses.is_empty() {
        say("In a browser, the same questions are at");
    }
    for address in addresses {
        say(&format!("  https://{address}/"));
    }
}

fn say(text: &str) {
    write(&format!("{text}\r\n"));
}

/// The values and labels that can be chosen by number.
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
        Kind::Disks => surroundings.disks.iter().map(|d| (d.path.clone(), disk(d))).collect(),
        Kind::Text | Kind::Secret => Vec::new(),
    }
}

fn disk(disk: &dyad_wizard::Disk) -> String {
    let content = match &disk.content {
        DiskContent::Blank => "blank".to_owned(),
        DiskContent::Foreign(what) => what.clone(),
        DiskContent::Pool { pair, node, .. } => format!("belongs to node {node} of the pair {pair}"),
    };
    format!("{}  {} MiB  {}  {content}", disk.path, disk.bytes >> 20, disk.model)
}

/// Replaces numbers by the values of the listed choices; other words stay as typed.
fn by_number(typed: &str, choices: &[(String, String)], question: &Question) -> String {
    if choices.is_empty() || matches!(question.kind, Kind::Text | Kind::Secret) {
        return typed.to_owned();
    }
    let word = |word: &str| {
        let entry = word.parse::<usize>().ok().and_then(|n| choices.get(n.checked_sub(1)?));
        entry.map_or_else(|| word.to_owned(), |(value, _)| value.clone())
    };
    typed.split([' ', ',']).filter(|w| !w.is_empty()).map(word).collect::<Vec<_>>().join(" ")
}

/// Lines of at most 76 characters.
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
    fn numbers_choose_and_texts_stay() {
        let choices = vec![("/dev/vdb".to_owned(), String::new()), ("/dev/vdc".to_owned(), String::new())];
        let disks = question(QuestionId::Disks);
        assert_eq!(by_number("1, 2", &choices, disks), "/dev/vdb /dev/vdc");
        assert_eq!(by_number("/dev/vdc", &choices, disks), "/dev/vdc");
        assert_eq!(by_number("3", &choices, disks), "3");
        assert_eq!(by_number("1", &[], question(QuestionId::Pair)), "1");
    }

    #[test]
    fn help_fits_the_line() {
        for question in dyad_wizard::QUESTIONS {
            assert!(wrap(question.help).iter().all(|line| line.len() <= 76 && line.is_ascii()), "{}", question.key);
        }
    }
}

//! Rule: inside a crate no files depend on each other in a circle, so each file can be read and tested before the files
//! that use it.
//!
//! A file depends on another if its code outside of tests names something that the other defines. Paths are followed
//! through re-exports to the file of the definition. A `mod` line and a re-export alone are no dependency, so a parent
//! that only declares and re-exports its children is part of no circle.
//!
//! "No circle" is a statement about names, not about calls. Not seen: a method that is called through a value, also
//! through `self`; so the files of one type whose `impl` blocks stand in several files may call each other in a circle
//! (`core::state`). Not seen either: names that macros build, and traits that are used without being imported.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::lexer::{Kind, Token};
use super::sources::{Module, crate_folders, files, group_end, module_of, read, split};

/// Crates that have circles, each with the reason. A crate in this list that has none fails the test.
const ALLOWED: &[(&str, &str)] = &[
    ("mirror", "one state machine whose `impl` blocks stand in one file for each concern"),
    ("sim", "the world and its parts schedule each other: one program for tests"),
];

/// Keywords that stand before the name of an item.
const ITEMS: [&str; 9] = ["struct", "enum", "union", "trait", "fn", "const", "static", "type", "mod"];
/// Most steps of resolving a path: re-exports that lead to each other would never end.
const MAX_REEXPORTS: usize = 16;

/// A name that a `use` brings into a file. `name` is `*` for a glob.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Import {
    name: String,
    path: Vec<String>,
    /// The `use` is `pub`, or restricted such as `pub(crate)`.
    reexport: bool,
}

/// Names that one file defines, imports and uses.
#[derive(Debug, Default)]
struct File {
    /// Names of items defined at the top level of the file, inline modules among them.
    items: BTreeSet<String>,
    imports: Vec<Import>,
    /// Paths of two or more segments in the code, `use` left out.
    paths: Vec<Vec<String>>,
    /// All identifiers in the code, `use` left out.
    words: BTreeSet<String>,
}

/// One crate: its files by module. Binaries beside a library are modules named after their file.
#[derive(Debug, Default)]
struct Crate {
    files: BTreeMap<Module, File>,
}

/// For each file the files that it depends on, and for each of those the names that it uses from there.
type DependencyGraph = BTreeMap<Module, BTreeMap<Module, BTreeSet<String>>>;

impl Crate {
    /// Parses files, each given as its path below `src` and its text.
    fn new<'a>(sources: impl IntoIterator<Item = (String, &'a str)>) -> Self {
        let mut files = BTreeMap::new();
        let mut test_modules = BTreeSet::new();
        for (path, text) in sources {
            let module = module_of(&path);
            let code = split(text);
            for name in &code.test_modules {
                test_modules.insert([module.clone(), vec![(*name).to_owned()]].concat());
            }
            files.insert(module.clone(), parse_file(&code.shipped));
        }
        files.retain(|module, _| !test_modules.iter().any(|tests| module.starts_with(tests)));
        Self { files }
    }

    /// The files that define the item to which `path`, seen from `module`, leads. Empty if it leads to another crate or
    /// to a module.
    fn resolve(&self, module: &Module, path: &[String], steps: usize) -> BTreeSet<Module> {
        let Some((first, rest)) = path.split_first() else { return BTreeSet::new() };
        if steps == 0 {
            return BTreeSet::new();
        }
        match first.as_str() {
            "crate" => self.descend(&Vec::new(), rest, steps),
            "self" => self.descend(module, rest, steps),
            "super" => match module.split_last() {
                Some((_, parent)) => self.resolve_from_parent(parent, rest, steps),
                None => BTreeSet::new(),
            },
            _ => {
                let Some(file) = self.files.get(module) else { return BTreeSet::new() };
                if self.files.contains_key(&child_module(module, first)) || file.items.contains(first) {
                    return self.descend(module, path, steps);
                }
                match file.imports.iter().find(|import| import.name == *first) {
                    // `use tokio;` gives the path `tokio` the name `tokio`: it is another crate, and resolving it would
                    // not end.
                    Some(import) if import.path.first() != Some(first) || import.path.len() > 1 => {
                        self.resolve(module, &[&import.path[..], rest].concat(), steps - 1)
                    }
                    _ => BTreeSet::new(),
                }
            }
        }
    }

    fn resolve_from_parent(&self, parent: &[String], rest: &[String], steps: usize) -> BTreeSet<Module> {
        if rest.first().is_some_and(|next| next == "super") {
            return self.resolve(&parent.to_vec(), rest, steps);
        }
        self.descend(&parent.to_vec(), rest, steps)
    }

    /// Follows `path` down from `module`. A path that ends at a module gives no file: longer paths name the items that
    /// are used from it.
    fn descend(&self, module: &Module, path: &[String], steps: usize) -> BTreeSet<Module> {
        let Some((first, rest)) = path.split_first() else { return BTreeSet::new() };
        let Some(file) = self.files.get(module) else { return BTreeSet::new() };
        if first == "*" {
            return BTreeSet::new();
        }
        if file.items.contains(first) {
            return BTreeSet::from([module.clone()]);
        }
        let below = child_module(module, first);
        if self.files.contains_key(&below) {
            return self.descend(&below, rest, steps);
        }
        if let Some(import) = file.imports.iter().find(|import| import.name == *first) {
            return self.resolve(module, &[&import.path[..], rest].concat(), steps.saturating_sub(1));
        }
        let globs = file.imports.iter().filter(|import| import.name == "*");
        let behind = globs.flat_map(|import| {
            let mut path = import.path.clone();
            path.pop();
            self.resolve(module, &[&path[..], std::slice::from_ref(first), rest].concat(), steps.saturating_sub(1))
        });
        let behind: BTreeSet<_> = behind.collect();
        // A name that is not found, for example because a macro made it, is the module's own.
        if behind.is_empty() { BTreeSet::from([module.clone()]) } else { behind }
    }

    /// The files that define those names of a glob import of `path` that `file` uses.
    fn glob_targets(&self, module: &Module, file: &File, path: &[String]) -> BTreeSet<Module> {
        let Some(target) = self.module_at(module, &path[..path.len() - 1]) else { return BTreeSet::new() };
        let Some(behind) = self.files.get(&target) else { return BTreeSet::new() };
        let known = |name: &String| {
            behind.items.contains(name) || behind.imports.iter().any(|import| import.name == *name && name != "*")
        };
        let words =
            file.words.iter().filter(|word| !file.items.contains(*word) && known(word)).map(|word| vec![word.clone()]);
        let paths = file.paths.iter().filter(|path| self.files.contains_key(&child_module(&target, &path[0]))).cloned();
        words.chain(paths).flat_map(|path| self.descend(&target, &path, MAX_REEXPORTS)).collect()
    }

    /// The module that a path of modules leads to.
    fn module_at(&self, from: &Module, path: &[String]) -> Option<Module> {
        let mut at = from.clone();
        for (place, name) in path.iter().enumerate() {
            match name.as_str() {
                "crate" if place == 0 => at.clear(),
                "self" => {}
                "super" => drop(at.pop()?),
                _ => at = child_module(&at, name),
            }
        }
        self.files.contains_key(&at).then_some(at)
    }

    /// The dependencies of all files of the crate.
    fn dependency_graph(&self) -> DependencyGraph {
        let mut arrows = DependencyGraph::new();
        for (module, file) in &self.files {
            let imports = file.imports.iter().filter(|import| {
                // A trait may be imported for its methods alone, so a private import always counts.
                !import.reexport || file.words.contains(&import.name)
            });
            let paths = imports.map(|import| &import.path).chain(&file.paths);
            for path in paths {
                let glob = path.last().is_some_and(|last| last == "*");
                let targets = if glob {
                    self.glob_targets(module, file, path)
                } else {
                    self.resolve(module, path, MAX_REEXPORTS)
                };
                for target in targets {
                    if target != *module {
                        let names = arrows.entry(module.clone()).or_default().entry(target).or_default();
                        names.insert(path.last().cloned().unwrap_or_default());
                    }
                }
            }
        }
        arrows
    }
}

fn child_module(module: &Module, name: &str) -> Module {
    [module.clone(), vec![name.to_owned()]].concat()
}

/// Collects the names of one file from its tokens.
fn parse_file(tokens: &[Token<'_>]) -> File {
    let mut file = File::default();
    let mut depth = 0usize;
    let mut at = 0;
    while at < tokens.len() {
        let token = tokens[at];
        match token.text {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth = depth.saturating_sub(1),
            "use" if token.kind == Kind::Identifier => {
                let reexport = at > 0 && (tokens[at - 1].text == "pub" || tokens[at - 1].is(')'));
                at = import(tokens, at + 1, &mut Vec::new(), reexport, &mut file.imports);
                continue;
            }
            _ => {}
        }
        if token.kind != Kind::Identifier {
            at += 1;
            continue;
        }
        if depth == 0
            && let Some(name) = item_name(tokens, at)
        {
            file.items.insert(name.to_owned());
        }
        if token.text == "mod" && tokens.get(at + 2).is_some_and(|end| end.is(';')) {
            at += 3;
            continue;
        }
        let mut path = vec![token.text.to_owned()];
        while is_path_separator(tokens, at + 1) && tokens.get(at + 3).is_some_and(|t| t.kind == Kind::Identifier) {
            at += 3;
            path.push(tokens[at].text.to_owned());
        }
        file.words.extend(path.iter().cloned());
        if path.len() > 1 {
            file.paths.push(path);
        }
        at += 1;
    }
    file
}

/// The name of the item whose keyword stands at `at`; a module counts only if its body stands here.
fn item_name<'a>(tokens: &[Token<'a>], at: usize) -> Option<&'a str> {
    let name = tokens.get(at + 1).filter(|next| next.kind == Kind::Identifier)?;
    if tokens[at].text == "macro_rules" {
        return None;
    }
    if !ITEMS.contains(&tokens[at].text) || ITEMS.contains(&name.text) {
        return None;
    }
    if tokens[at].text == "mod" && tokens.get(at + 2).is_some_and(|end| end.is(';')) {
        return None;
    }
    Some(name.text)
}

fn is_path_separator(tokens: &[Token<'_>], at: usize) -> bool {
    tokens.get(at).is_some_and(|token| token.is(':')) && tokens.get(at + 1).is_some_and(|token| token.is(':'))
}

/// Reads one tree of a `use`, up to `,`, `}` or `;`. Returns the index behind the tree, or behind the semicolon if one
/// follows.
fn import(
    tokens: &[Token<'_>],
    mut at: usize,
    prefix: &mut Vec<String>,
    reexport: bool,
    to: &mut Vec<Import>,
) -> usize {
    let start = prefix.len();
    let mut name = None;
    let mut braces = false;
    while at < tokens.len() {
        let token = tokens[at];
        match token.text {
            ";" | "," | "}" => break,
            "{" => {
                braces = true;
                let end = group_end(tokens, at) - 1;
                at += 1;
                while at < end {
                    at = import(tokens, at, prefix, reexport, to);
                    at += usize::from(at < end);
                }
            }
            "as" => {
                name = tokens.get(at + 1).map(|alias| alias.text.to_owned());
                at += 1;
            }
            ":" => {}
            text => prefix.push(text.to_owned()),
        }
        at += 1;
    }
    if !braces && prefix.len() > start {
        let mut path = prefix.clone();
        // `use a::{self}` is `use a`.
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let name = name.unwrap_or_else(|| path.last().cloned().unwrap_or_default());
        to.push(Import { name, path, reexport });
    }
    prefix.truncate(start);
    at + usize::from(tokens.get(at).is_some_and(|token| token.is(';')))
}

/// Groups of two or more files that all depend on each other, directly or not; each group is sorted.
fn circles(arrows: &DependencyGraph) -> Vec<Vec<Module>> {
    let reach = |from: &Module| {
        let mut seen = BTreeSet::new();
        let mut open = vec![from];
        while let Some(module) = open.pop() {
            for next in arrows.get(module).into_iter().flat_map(BTreeMap::keys) {
                if seen.insert(next) {
                    open.push(next);
                }
            }
        }
        seen
    };
    let reached: BTreeMap<_, _> = arrows.keys().map(|module| (module, reach(module))).collect();
    let mut found: Vec<Vec<Module>> = Vec::new();
    for (module, ahead) in &reached {
        if !ahead.contains(module) || found.iter().any(|circle| circle.contains(module)) {
            continue;
        }
        let tied = ahead.iter().filter(|other| reached.get(**other).is_some_and(|back| back.contains(module)));
        found.push(tied.map(|other| (*other).clone()).collect());
    }
    found
}

/// The circles of a crate as text, one line for each dependency inside a circle.
fn describe(arrows: &DependencyGraph) -> Vec<String> {
    let shown = |module: &Module| if module.is_empty() { "crate".to_owned() } else { module.join("::") };
    let mut lines = Vec::new();
    for (number, circle) in circles(arrows).iter().enumerate() {
        for from in circle {
            for (to, names) in arrows[from].iter().filter(|(to, _)| circle.contains(to)) {
                let names: Vec<_> = names.iter().map(String::as_str).collect();
                lines.push(format!("circle {}: {} -> {}: {}", number + 1, shown(from), shown(to), names.join(", ")));
            }
        }
    }
    lines
}

fn read_crate(folder: &Path) -> Crate {
    let src = folder.join("src");
    let texts: Vec<_> = files(&src, "rs").into_iter().map(|path| (read(&path), path)).collect();
    Crate::new(texts.iter().map(|(text, path)| {
        let below = path.strip_prefix(&src).expect("it was found there").display().to_string();
        // The library and the program of one crate are two roots; other files name the library.
        let program = below == "main.rs" && src.join("lib.rs").exists();
        (if program { "main.rs/mod.rs".to_owned() } else { below }, text.as_str())
    }))
}

#[test]
fn modules_of_a_crate_form_no_circle() {
    let mut failures = Vec::new();
    for (name, folder) in crate_folders() {
        let found = describe(&read_crate(&folder).dependency_graph());
        let allowed = ALLOWED.iter().any(|(allowed, _)| *allowed == name);
        if allowed && found.is_empty() {
            failures.push(format!("{name} has no circle any more: take it off the list ALLOWED"));
        } else if !allowed {
            failures.extend(found.into_iter().map(|line| format!("{name}: {line}")));
        }
    }
    assert!(failures.is_empty(), "move what ties the files into a file of its own:\n{}", failures.join("\n"));
}

fn circles_of(sources: &[(&str, &str)]) -> Vec<String> {
    describe(&Crate::new(sources.iter().map(|(path, text)| ((*path).to_owned(), *text))).dependency_graph())
}

#[test]
fn a_circle_is_found_through_a_re_export() {
    let found = circles_of(&[
        ("lib.rs", "mod disk; mod store; pub use disk::{Disk, MAX as LIMIT}; pub use store::Store;"),
        ("disk.rs", "use crate::Store; pub struct Disk(Store); pub const MAX: u64 = 1;"),
        ("store.rs", "pub struct Store; fn full(n: u64) -> bool { n > crate::LIMIT }"),
    ]);
    assert_eq!(found, ["circle 1: disk -> store: Store", "circle 1: store -> disk: LIMIT"]);
}

#[test]
fn a_circle_is_found_through_super_and_imported_modules() {
    let found = circles_of(&[
        ("main.rs", "mod a;"),
        ("a/mod.rs", "mod b; mod c; use b::B; pub struct A(B);"),
        ("a/b.rs", "use super::{c::{self, C}}; pub struct B(C); pub fn b() { c::run() }"),
        ("a/c.rs", "use super::A; pub struct C; pub fn run() { let _: Option<A> = None; }"),
    ]);
    let expected = ["circle 1: a -> a::b: B", "circle 1: a::b -> a::c: C, run", "circle 1: a::c -> a: A"];
    assert_eq!(found, expected);
}

#[test]
fn a_circle_is_found_through_a_glob() {
    let found = circles_of(&[
        ("a/mod.rs", "mod b; use b::B; pub struct A(B);"),
        ("a/b.rs", "use super::*; pub struct B; fn f(_: A) {}"),
    ]);
    assert_eq!(found, ["circle 1: a -> a::b: B", "circle 1: a::b -> a: *"]);
}

#[test]
fn re_exports_comments_tests_and_unused_globs_form_no_circle() {
    let found = circles_of(&[
        // A parent that declares and re-exports, the use of a name through it, and a comment.
        ("lib.rs", "mod a; mod b; mod c; pub use a::A; pub use b::*; pub(crate) use c::C;"),
        ("a.rs", "// crate::b::B\nuse crate::C; pub struct A(C);"),
        ("b.rs", "use crate::{A, c}; use std::fmt; pub struct B(A, c::C); /* crate::B */"),
        // Tests may name anything.
        ("c.rs", "pub struct C; #[cfg(test)] mod tests { use crate::{A, B}; } #[cfg(test)] mod more;"),
        ("c/more.rs", "use crate::A; use super::C;"),
        // The names behind a glob that are used are those that the parent imports, not those that it defines.
        ("d/mod.rs", "use crate::a::A; mod e; use e::E; pub struct D(A, E);"),
        ("d/e.rs", "use super::*; pub struct E(A);"),
    ]);
    assert_eq!(found, Vec::<String>::new());
}

//! Finds the files of the repository, and splits off the code that only tests compile.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::lexer::{Kind, Token, tokens};

/// Names of folders that are not searched.
const SKIPPED_FOLDERS: [&str; 3] = ["target", ".git", "node_modules"];
/// Keywords of items that end with a semicolon even if a brace group comes first.
const SEMICOLON_ITEMS: [&str; 6] = ["use", "const", "static", "type", "let", "extern"];
/// Keywords at which an item or one of its modifiers begins. Anything else is a field, a variant or an expression.
const ITEM_KEYWORDS: [&str; 17] = [
    "use",
    "const",
    "static",
    "type",
    "let",
    "extern",
    "pub",
    "fn",
    "struct",
    "enum",
    "union",
    "trait",
    "impl",
    "mod",
    "unsafe",
    "async",
    "macro_rules",
];

/// Root folder of the checkout that this program was built from.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("xtask lies in the repository")
}

/// Short name of a crate from its folder. `qemu-tests` is the crate `dyad-rig`; each other folder is named as its crate.
pub fn short_name(name: &str) -> &str {
    let name = name.strip_prefix("crates/").unwrap_or(name);
    if name == "qemu-tests" { "rig" } else { name }
}

/// Short name and folder of each crate of the workspace.
pub fn crate_folders() -> BTreeMap<String, PathBuf> {
    let crates = fs::read_dir(repository().join("crates")).expect("crates/ can be read");
    let folders = crates.map(|entry| entry.expect("crates/ can be read").path());
    let folders = folders.chain([repository().join("qemu-tests")]);
    folders
        .map(|folder| (short_name(&folder.file_name().expect("it has a name").to_string_lossy()).to_owned(), folder))
        .collect()
}

/// All files below `folder` with this extension, sorted.
pub fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let entry = entry.expect("a folder of the repository can be read");
        let path = entry.path();
        if entry.file_type().expect("a file has a type").is_dir() {
            if !SKIPPED_FOLDERS.iter().any(|skipped| entry.file_name() == *skipped) {
                found.extend(files(&path, extension));
            }
        } else if path.extension().is_some_and(|end| end == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The text of a file of the repository.
pub fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A path relative to the repository, as messages show it.
pub fn shown(path: &Path) -> String {
    path.strip_prefix(repository()).unwrap_or(path).display().to_string()
}

/// Path of a module in its crate, such as `["state", "votes"]`; the crate's root is empty.
pub type Module = Vec<String>;

/// `lib.rs` and `main.rs` → the root, `state/mod.rs` → `state`, `state/votes.rs` → `state::votes`.
pub fn module_of(path: &str) -> Module {
    let mut module: Module = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|last| last == "mod") || module == ["lib"] || module == ["main"] {
        module.pop();
    }
    module
}

/// The code of one file without the parts that only tests compile.
pub struct Code<'a> {
    /// Tokens that are compiled outside of tests, without comments.
    pub shipped: Vec<Token<'a>>,
    /// Names of the files that are modules of tests only: `#[cfg(test)] mod NAME;`.
    pub test_modules: Vec<&'a str>,
}

/// Splits the code of a file. Left out are items under `#[cfg(test)]`, `#[cfg(all(test, …))]`, `#[test]` or
/// `#[cfg(doc)]`, and a whole file under `#![cfg(test)]`.
pub fn split(text: &str) -> Code<'_> {
    let all: Vec<_> = tokens(text).into_iter().filter(|token| token.kind != Kind::Comment).collect();
    let mut code = Code { shipped: Vec::new(), test_modules: Vec::new() };
    let mut at = 0;
    while at < all.len() {
        let inner = all[at].is('#') && all.get(at + 1).is_some_and(|next| next.is('!'));
        let open = at + 1 + usize::from(inner);
        if !(all[at].is('#') && all.get(open).is_some_and(|next| next.is('['))) {
            code.shipped.push(all[at]);
            at += 1;
            continue;
        }
        let end = group_end(&all, open);
        let left_out = is_not_shipped(&all[open + 1..end - 1]);
        if left_out && inner {
            return Code { shipped: Vec::new(), test_modules: code.test_modules };
        }
        if left_out {
            let item_end = item_end(&all, end);
            if let Some(name) = declared_module(&all[end..item_end]) {
                code.test_modules.push(name);
            }
            at = item_end;
        } else {
            at = end;
        }
    }
    code
}

/// Whether an attribute, given without its brackets, restricts its item to tests or to documentation.
fn is_not_shipped(attribute: &[Token<'_>]) -> bool {
    let words: Vec<_> = attribute.iter().map(|token| token.text).collect();
    words[..] == ["test"]
        || words.starts_with(&["cfg", "(", "test", ")"])
        || words.starts_with(&["cfg", "(", "doc", ")"])
        || { words.starts_with(&["cfg", "(", "all", "(", "test", ","]) }
}

/// The name in `mod NAME;`, with or without visibility.
fn declared_module<'a>(item: &[Token<'a>]) -> Option<&'a str> {
    match item {
        [.., keyword, name, end] if keyword.text == "mod" && end.is(';') => Some(name.text),
        _ => None,
    }
}

/// Index behind the bracket that closes the one at `open`.
pub fn group_end(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// Index behind the item, field, variant, arm or statement that begins at `start`; further attributes belong to it.
fn item_end(tokens: &[Token<'_>], start: usize) -> usize {
    let mut at = start;
    while tokens.get(at).is_some_and(|token| token.is('#')) {
        at = group_end(tokens, at + 1);
    }
    let first = tokens.get(at).map_or("", |token| token.text);
    let is_item = ITEM_KEYWORDS.contains(&first);
    // Behind `pub` or `pub(crate)` stands the keyword that decides.
    let mut keyword = at;
    if first == "pub" {
        keyword += 1;
        if tokens.get(keyword).is_some_and(|token| token.is('(')) {
            keyword = group_end(tokens, keyword);
        }
    }
    let second = tokens.get(keyword + 1).map_or("", |token| token.text);
    let named = tokens.get(keyword).map_or("", |token| token.text);
    let function = matches!(second, "fn" | "unsafe" | "extern");
    let to_semicolon = SEMICOLON_ITEMS.contains(&named) && !(matches!(named, "const" | "extern") && function);
    while at < tokens.len() {
        match tokens[at].text {
            "{" => {
                at = group_end(tokens, at);
                if !to_semicolon {
                    return at;
                }
            }
            "(" | "[" => at = group_end(tokens, at),
            ";" => return at + 1,
            "," if !is_item => return at + 1,
            ")" | "]" | "}" => return at,
            _ => at += 1,
        }
    }
    at
}

#[test]
fn code_of_tests_is_left_out() {
    let text = "
        use a::b; // a comment
        #[cfg(test)] use c::{d, e};
        #[derive(Debug)] struct S { #[cfg(test)] hidden: Vec<u8>, shown: u8 }
        #[cfg(not(test))] fn kept() {}
        #[cfg(any(test, feature = \"x\"))] fn kept_too() {}
        #[cfg(all(test, unix))] #[allow(unused)] pub(crate) const fn gone() {}
        #[cfg(test)] pub const GONE: [u8; 1] = { [1] };
        #[cfg(doc)] use crate::Gone;
        #[cfg(test)] mod tests;
        #[cfg(test)] mod inline { fn f() {} }
        fn last() {}
    ";
    let code = split(text);
    let words: Vec<_> = code.shipped.iter().map(|token| token.text).collect();
    let expected = "use a :: b ; struct S { shown : u8 } fn kept ( ) { } fn kept_too ( ) { } fn last ( ) { }";
    assert_eq!(words.join(" ").replace(": :", "::"), expected);
    assert_eq!(code.test_modules, ["tests"]);
    assert!(split("#![cfg(test)] fn gone() {}").shipped.is_empty());
}

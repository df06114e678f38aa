//! Rule: no function has two adjacent parameters of one primitive type, because arguments that are swapped by mistake
//! would compile. In code that runs on a node, a path counts as a primitive type: a swap would write, mount or delete
//! the wrong file.
//!
//! A number that names something is a type of its own, numbers that belong together are a struct or a range; so are
//! paths. An alias (`type Nanos = u64`) is the type that it stands for. Code that only tests compile is left out, as
//! are closures and pointers to functions.

use std::collections::{BTreeMap, BTreeSet};

use super::lexer::{Kind, Token, tokens};
use super::sources::{crate_folders, files, group_end, module_of, read, shown, split};

/// Types of which two adjacent parameters are refused. A reference, `Option`, slice, array and `Vec` of one of them
/// counts as that type.
const PRIMITIVE_TYPES: [&str; 19] = [
    "u8",
    "u16",
    "u32",
    "u64",
    "u128",
    "usize",
    "i8",
    "i16",
    "i32",
    "i64",
    "i128",
    "isize",
    "f32",
    "f64",
    "bool",
    "char",
    "str",
    "String",
    "impl Into<String>",
];

/// Types of paths; two adjacent parameters of them are refused too in code that runs on a node.
const PATH_TYPES: [&str; 5] = ["Path", "PathBuf", "std::path::Path", "std::path::PathBuf", "impl AsRef<Path>"];

/// Folders of the crates in which adjacent paths are allowed: tools and tests. A swap there fails a build or a test.
const DEVELOPMENT_CRATES: [&str; 3] = ["crates/xtask/", "crates/process-tests/", "qemu-tests/"];

/// Functions that may have such parameters, by file and name, each with the reason.
const ALLOWED: &[(&str, &str, &str)] = &[
    ("crates/atomic-file/src/file_system.rs", "rename", "as `std::fs::rename`"),
    ("crates/atomic-file/src/lib.rs", "rename", "as `std::fs::rename`"),
    ("crates/blockdev/src/vhost_user/dirty_log.rs", "mark_dirty", "of vm-memory's trait Bitmap"),
    ("crates/blockdev/src/vhost_user/handler.rs", "set_vring_num", "of vhost's trait for back-ends"),
    ("crates/blockdev/src/vhost_user/handler.rs", "set_vring_addr", "of vhost's trait for back-ends"),
    ("crates/blockdev/src/vhost_user/handler.rs", "set_vring_base", "of vhost's trait for back-ends"),
    ("crates/blockdev/src/vhost_user/handler.rs", "get_config", "of vhost's trait for back-ends"),
    ("crates/desired/src/slots.rs", "choose", "symmetrical: the slots have equal rights"),
    ("crates/update/src/esp.rs", "compare", "an order, as `Ord::cmp`"),
];

/// A function that breaks the rule, and its line.
#[derive(Debug, PartialEq, Eq)]
struct AdjacentPair<'a> {
    line: usize,
    function: &'a str,
    /// The first pair of adjacent parameters of one type.
    parameters: [String; 2],
}

/// Treatment of paths by the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PathRule {
    /// Two adjacent paths are refused.
    Refused,
    Allowed,
}

/// A parameter: its pattern and its type, as text without lifetimes.
struct Parameter {
    pattern: String,
    kind: String,
}

/// The functions in `tokens` that break the rule. `aliases` maps an alias to the primitive type that it stands for.
fn adjacent_pairs<'a>(
    tokens: &[Token<'a>],
    aliases: &BTreeMap<&str, String>,
    paths: PathRule,
) -> Vec<AdjacentPair<'a>> {
    let mut found = Vec::new();
    for (at, window) in tokens.windows(2).enumerate() {
        let [keyword, name] = window else { continue };
        if keyword.kind != Kind::Identifier || keyword.text != "fn" || name.kind != Kind::Identifier {
            continue;
        }
        let parameters = parameters(tokens, at + 2);
        let same = parameters.windows(2).find(|pair| {
            let kinds = pair.iter().map(|parameter| resolved(&parameter.kind, aliases)).collect::<Vec<_>>();
            kinds[0] == kinds[1] && is_refused_type(&kinds[0], paths)
        });
        if let Some(pair) = same {
            let parameters = [&pair[0], &pair[1]].map(|it| format!("{}: {}", it.pattern, it.kind));
            found.push(AdjacentPair { line: name.line, function: name.text, parameters });
        }
    }
    found
}

/// The parameters of the function whose generics or parenthesis begin at `start`. `self` without a type has an empty
/// type.
fn parameters(tokens: &[Token<'_>], start: usize) -> Vec<Parameter> {
    let mut open = start;
    if tokens[open].is('<') {
        open = angle_end(tokens, open);
    }
    let end = group_end(tokens, open);
    let mut found = Vec::new();
    for parameter in at_top_level(&tokens[open + 1..end - 1], ',') {
        let mut parts = at_top_level(skip_attributes(parameter), ':').into_iter();
        match (parts.next(), parts.next()) {
            (Some(pattern), Some(kind)) => found.push(Parameter { pattern: text(pattern), kind: text(kind) }),
            (Some(receiver), None) => found.push(Parameter { pattern: text(receiver), kind: String::new() }),
            _ => {}
        }
    }
    found
}

/// Cuts at each single `separator` outside of brackets; `::` is no separator, and only the first `:` is one.
fn at_top_level<'t, 'a>(tokens: &'t [Token<'a>], separator: char) -> Vec<&'t [Token<'a>]> {
    let (mut parts, mut begin, mut at) = (Vec::new(), 0, 0);
    while at < tokens.len() {
        let token = tokens[at];
        if token.is('(') || token.is('[') || token.is('{') {
            at = group_end(tokens, at);
        } else if token.is('<') {
            at = angle_end(tokens, at);
        } else if token.is(':') && tokens.get(at + 1).is_some_and(|next| next.is(':')) {
            at += 2;
        } else if token.is(separator) {
            parts.push(&tokens[begin..at]);
            at += 1;
            begin = at;
            if separator == ':' {
                break;
            }
        } else {
            at += 1;
        }
    }
    if begin < tokens.len() {
        parts.push(&tokens[begin..]);
    }
    parts
}

/// Index behind the `>` that closes the `<` at `open`. The `>` of `->` closes none.
fn angle_end(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        if token.is('<') {
            depth += 1;
        } else if token.is('>') && !tokens[at - 1].is('-') {
            depth -= 1;
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

fn skip_attributes<'t, 'a>(tokens: &'t [Token<'a>]) -> &'t [Token<'a>] {
    match tokens.first() {
        Some(first) if first.is('#') => skip_attributes(&tokens[group_end(tokens, 1)..]),
        _ => tokens,
    }
}

/// The text of a pattern or type, with a space between two words. Of lifetimes only `'static` is kept: a text of another
/// lifetime cannot take its place.
fn text(tokens: &[Token<'_>]) -> String {
    let mut text = String::new();
    let mut after_word = false;
    for token in tokens.iter().filter(|token| token.kind != Kind::Lifetime || token.text == "'static") {
        let word = matches!(token.kind, Kind::Identifier | Kind::Lifetime);
        if after_word && word {
            text.push(' ');
        }
        text.push_str(token.text);
        after_word = word;
    }
    text
}

/// The type that an alias stands for, or the type itself.
fn resolved(kind: &str, aliases: &BTreeMap<&str, String>) -> String {
    let last = kind.rsplit("::").next().unwrap_or(kind);
    aliases.get(last).cloned().unwrap_or_else(|| kind.to_owned())
}

fn is_primitive(kind: &str) -> bool {
    is_refused_type(kind, PathRule::Allowed)
}

/// Whether two adjacent parameters of this type are refused.
fn is_refused_type(kind: &str, paths: PathRule) -> bool {
    let kind = kind.trim_start_matches('&');
    let kind = kind.strip_prefix("'static ").unwrap_or(kind);
    let inner = kind.strip_prefix("mut").filter(|rest| rest.starts_with([' ', '[', '&'])).unwrap_or(kind).trim();
    let element = ["Option<", "Vec<"].iter().find_map(|generic| inner.strip_prefix(generic)?.strip_suffix('>'));
    let element = element.or_else(|| inner.strip_prefix('[')?.strip_suffix(']')?.split(';').next());
    PRIMITIVE_TYPES.contains(&inner)
        || paths == PathRule::Refused && PATH_TYPES.contains(&inner)
        || element.is_some_and(|element| is_refused_type(element, paths))
}

/// Adds the aliases of primitive types among `tokens`: `type NAME = TYPE;`.
fn collect_aliases<'a>(tokens: &[Token<'a>], aliases: &mut BTreeMap<&'a str, String>) {
    for window in tokens.windows(5) {
        let [keyword, name, equals, kind, end] = window else { continue };
        if keyword.text == "type" && equals.is('=') && end.is(';') && is_primitive(kind.text) {
            aliases.insert(name.text, kind.text.to_owned());
        }
    }
}

#[test]
fn arguments_of_one_type_are_told_apart() {
    let mut texts = Vec::new();
    for folder in crate_folders().values() {
        let source = folder.join("src");
        for path in files(&source, "rs") {
            let below = path.strip_prefix(&source).expect("it was found there").display().to_string();
            texts.push((folder.clone(), module_of(&below), shown(&path), read(&path)));
        }
    }
    let mut test_modules = BTreeSet::new();
    let mut aliases = BTreeMap::new();
    let mut sources = Vec::new();
    for (folder, module, path, text) in &texts {
        let code = split(text);
        collect_aliases(&code.shipped, &mut aliases);
        for name in &code.test_modules {
            test_modules.insert((folder, [module.clone(), vec![(*name).to_owned()]].concat()));
        }
        sources.push((folder, module, path, code));
    }
    let mut failures = Vec::new();
    let mut unused: BTreeSet<_> = ALLOWED.iter().map(|(path, function, _)| (*path, *function)).collect();
    for (folder, module, path, code) in &sources {
        if test_modules.iter().any(|(of, tests)| of == folder && module.starts_with(tests)) {
            continue;
        }
        let development = DEVELOPMENT_CRATES.iter().any(|folder| path.starts_with(folder));
        let rule = if development { PathRule::Allowed } else { PathRule::Refused };
        for AdjacentPair { line, function, parameters: [first, second] } in
            adjacent_pairs(&code.shipped, &aliases, rule)
        {
            if ALLOWED.iter().any(|(file, name, _)| file == path && *name == function) {
                unused.remove(&(path.as_str(), function));
            } else {
                failures.push(format!("{path}:{line}: {function}({first}, {second})"));
            }
        }
    }
    failures.extend(unused.iter().map(|(path, function)| format!("{path}: {function} is not needed in ALLOWED")));
    assert!(failures.is_empty(), "give one of the two a type of its own:\n{}", failures.join("\n"));
}

#[test]
fn adjacent_parameters_of_one_primitive_type_are_found() {
    let text = "
        type Nanos = u64;
        fn numbers(from: u64, to: u64) {} fn mixed(x: u32, from: &'a str, to: &str) {}
        fn options(a: Option<&str>, b: Option<&str>) {} fn bytes(&self, mut key: &[u8], value: &'a [u8]) {}
        fn arrays(#[cfg(unix)] a: [u8; 16], b: [u8; 16]) {} fn texts(a: impl Into<String>, b: impl Into<String>) {}
        fn alias(length: time::Nanos, times: u64) {} fn generic<F: Fn(u8, u8) -> u8>(f: F, a: u8, b: u8) {}
        fn lifetimes(what: &'static str, given: &str) {} fn apart(from: u64, name: &str, to: u64) {} fn typed(from: Start, to: End, a: &str, b: String) {}
        fn called(run: impl Fn(u64, u64) -> u64, at: u64) {} struct S { f: fn(u8, u8) }
        fn kinds(a: &mut [u8], b: &[u8], pair: (u64, u64), map: Map<u64, u64>, c: [Run; 2], d: [Run; 2]) {}
    ";
    let tokens = tokens(text);
    let mut aliases = BTreeMap::new();
    collect_aliases(&tokens, &mut aliases);
    let found: Vec<_> =
        adjacent_pairs(&tokens, &aliases, PathRule::Allowed).into_iter().map(|found| found.function).collect();
    assert_eq!(found, ["numbers", "mixed", "options", "bytes", "arrays", "texts", "alias", "generic"]);
}

#[test]
fn adjacent_paths_are_found_in_code_of_a_node() {
    let text = "
        fn links(from: &Path, to: &'a Path) {} fn owned(a: PathBuf, b: std::path::PathBuf, c: std::path::PathBuf) {}
        fn options(a: Option<&Path>, b: Option<&Path>) {} fn lists(a: &[PathBuf], b: &[PathBuf]) {}
        fn apart(from: &Path, times: u64, to: &Path) {} fn typed(disk: &Path, paths: &NodePaths) {}
    ";
    let tokens = tokens(text);
    let found = |rule| -> Vec<_> {
        adjacent_pairs(&tokens, &BTreeMap::new(), rule).into_iter().map(|found| found.function).collect()
    };
    assert_eq!(found(PathRule::Refused), ["links", "owned", "options", "lists"]);
    assert_eq!(found(PathRule::Allowed), Vec::<&str>::new());
}

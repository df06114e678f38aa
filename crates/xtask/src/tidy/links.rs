//! Rule: each relative link in a Markdown file of the repository leads to an existing file or folder.

use std::path::Path;

use super::sources::{files, read, repository};

/// Line and path of each relative link in a Markdown text. Code, absolute addresses and links within the page (`#part`)
/// are left out, and so is the part of the page behind a path.
fn relative_links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut is_code = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
            continue;
        }
        if is_code {
            continue;
        }
        // Every second part stands between backquotes; the space keeps the parts apart.
        let prose = line.split('`').step_by(2).collect::<Vec<_>>().join(" ");
        let inline = prose.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
        // `[name]: path`, a definition on a line of its own.
        let definition = prose.strip_prefix('[').and_then(|rest| rest.split_once("]: ")).map(|(_, path)| path.trim());
        for link in inline.chain(definition) {
            let path = link.split('#').next().unwrap_or_default();
            if !path.is_empty() && !path.contains(':') {
                found.push((number + 1, path.to_owned()));
            }
        }
    }
    found
}

#[test]
fn links_of_documents_lead_to_files() {
    let mut failures = Vec::new();
    for path in files(repository(), "md") {
        let folder = path.parent().unwrap_or(Path::new(""));
        for (line, link) in relative_links(&read(&path)) {
            if !folder.join(&link).exists() {
                let below = path.strip_prefix(repository()).expect("it was found there");
                failures.push(format!("{}:{line}: {link}", below.display()));
            }
        }
    }
    assert!(failures.is_empty(), "no file is there:\n{}", failures.join("\n"));
}

#[test]
fn relative_links_are_found() {
    let text = "
[a](a.md), [b](../b.md#part) and [here](#part); [out](https://example.org/c.md).
`[code](d.md)` [`e`](e/) ![picture](f.svg \"title\")
```
[g](g.md)
```
[h]: h.md
";
    let found = relative_links(text);
    let expected = [(2, "a.md"), (2, "../b.md"), (3, "e/"), (3, "f.svg"), (7, "h.md")];
    assert_eq!(found, expected.map(|(line, path)| (line, path.to_owned())));
}

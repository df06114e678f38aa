//! Rules of the repository that neither the compiler nor clippy checks. Each rule is a test.
//!
//! * `code_map`: `ARCHITECTURE.md` and the manifests state the same dependencies between crates, and all point down in
//!   its list.
//! * `circles`: inside a crate no modules depend on each other in a circle.
//! * `dependencies`: third-party crates meet `deny.toml`.
//! * `words`: no banned word in an identifier, and no vague subject in comments, strings and documents.
//! * `doc_comments`: a documentation comment has at least three words and does not only repeat name, type and container.
//! * `drivers`: only the daemon and the simulator drive the mirror and tell quorum of membership.
//! * `links`: each relative link of a Markdown file leads to an existing file.
//! * `errors`: a library uses no `anyhow`, and the errors of its `pub` functions are no texts.
//! * `durations`: the name of a duration constant says what the duration is for.
//! * `parameters`: no function outside of tests has two adjacent parameters of one primitive type.
//!
//! Source text is read by `lexer`, which knows tokens and comments but no syntax; `sources` finds files and leaves out
//! the code that exists in tests only.

mod circles;
mod code_map;
mod dependencies;
mod doc_comments;
mod drivers;
mod durations;
mod errors;
mod lexer;
mod links;
mod parameters;
mod sources;
mod words;

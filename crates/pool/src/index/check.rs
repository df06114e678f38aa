//! Checks the structure of an LMDB file before LMDB maps it.
//!
//! LMDB does not validate its pages: a flipped bit in an offset can make it read outside the map, and a flipped bit in
//! the list of free pages can make the next commit overwrite pages in use. This check reads the file without LMDB and
//! accepts it only if every page of both trees carries its own number, has ascending keys within its
//! bounds, is used once, and is not in the free list. The format is that of LMDB 0.9 (data version 1,
//! 64-bit, 4 KiB pages); `docs/formats.md` lists the parts that the check relies on.

use super::error::IndexError;
use crate::codec::Reader;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of a page.
const PAGE: usize = 4096;
/// Bytes of the header of a page.
const HEADER: usize = 16;
/// Bytes of a node in front of its key (LMDB's NODESIZE).
const NODE: usize = 8;
/// Flag of an inner page of a tree (P_BRANCH).
const BRANCH: u16 = 1;
/// Flag of a leaf page of a tree (P_LEAF).
const LEAF: u16 = 2;
/// Flag of the first page of a value that does not fit into a leaf page (P_OVERFLOW).
const OVERFLOW: u16 = 4;
/// Flag of the two pages that describe the environment (P_META).
const META: u16 = 8;
/// Flag of a node whose data lies in overflow pages (F_BIGDATA).
const BIG_DATA: u16 = 1;
/// Flag of the tree of free pages, whose keys are numbers (MDB_INTEGERKEY).
const INTEGER_KEYS: u16 = 8;
/// Largest depth of a tree (LMDB's CURSOR_STACK).
const DEPTH_MAX: u16 = 32;
/// Root of an empty tree (P_INVALID).
const NO_PAGE: u64 = u64::MAX;

/// A tree's description: in the meta page, or as the check counts it.
#[derive(Clone, Copy, Default)]
struct Tree {
    depth: u16,
    /// Number of inner pages.
    branches: u64,
    /// Number of leaf pages.
    leaves: u64,
    /// Number of overflow pages.
    overflows: u64,
    entries: u64,
    /// Number of the root page, or [`NO_PAGE`].
    root: u64,
}

/// A meta page. The file has two of them; the page with the higher transaction counts.
struct Meta {
    /// Bytes of address space for the file.
    map_size: u64,
    page_size: u32,
    /// The tree that lists free pages.
    free: Tree,
    /// The tree with the records.
    main: Tree,
    /// Highest number of a page in use.
    last_page: u64,
    /// Number of the transaction that wrote this page.
    txn: u64,
}

/// Checks the file at `path`; the error names the first violation.
pub(crate) fn file(path: &Path) -> Result<(), IndexError> {
    let refused = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => IndexError::Damaged("its file is missing".into()),
        _ => IndexError::Io(e.to_string()),
    };
    let file = File::open(path).map_err(refused)?;
    let len = file.metadata().map_err(refused)?.len();
    let mut check = Check { file, pages: len / PAGE as u64, used: Vec::new(), last_page: 1, free: Vec::new() };
    let (a, b) = (check.meta(0)?, check.meta(1)?);
    let meta = if a.txn >= b.txn { a } else { b };
    if meta.page_size as usize != PAGE || meta.last_page >= meta.map_size / PAGE as u64 || meta.map_size > 1 << 46 {
        return damaged("its meta page makes no sense");
    }
    check.last_page = meta.last_page;
    check.used = vec![0; (meta.last_page / 64 + 1) as usize];
    check.tree(&meta.free, true)?;
    check.tree(&meta.main, false)?;
    for page in std::mem::take(&mut check.free) {
        check.claim(page)?;
    }
    Ok(())
}

fn damaged<T>(what: &str) -> Result<T, IndexError> {
    Err(IndexError::Damaged(what.into()))
}

/// The state of a check.
struct Check {
    file: File,
    /// Number of whole pages in the file.
    pages: u64,
    /// Highest page number that is valid: that of the meta page in use.
    last_page: u64,
    /// One bit per page, set if the page was seen in a tree or in the free list.
    used: Vec<u64>,
    /// Page numbers from the list of free pages.
    free: Vec<u64>,
}

/// A page that is still to be checked.
struct Visit {
    page: u64,
    /// Level in the tree; the root has 1.
    depth: u16,
    /// Lower bound of the keys, inclusive; `None` at the left edge of the tree.
    low: Option<Vec<u8>>,
    /// Upper bound of the keys, exclusive; `None` at the right edge of the tree.
    high: Option<Vec<u8>>,
}

impl Check {
    /// Reads a page and checks that it carries its own number.
    fn page(&self, number: u64) -> Result<Vec<u8>, IndexError> {
        if number >= self.pages {
            return damaged("its file is cut short");
        }
        let mut page = vec![0; PAGE];
        self.file.read_exact_at(&mut page, number * PAGE as u64).map_err(|e| IndexError::Io(e.to_string()))?;
        if u64_at(&page, 0) != number {
            return damaged("a page does not carry its own number");
        }
        Ok(page)
    }

    fn meta(&self, number: u64) -> Result<Meta, IndexError> {
        let page = self.page(number)?;
        let parse = || {
            let mut r = Reader(&page[HEADER..]);
            let (magic, version) = (r.u32()?, r.u32()?);
            if flags(&page) & META == 0 || magic != 0xBEEF_C0DE || version != 1 {
                return None;
            }
            r.u64()?;
            let map_size = r.u64()?;
            let (page_size, free) = tree(&mut r, INTEGER_KEYS)?;
            let (_, main) = tree(&mut r, 0)?;
            Some(Meta { map_size, page_size, free, main, last_page: r.u64()?, txn: r.u64()? })
        };
        parse().ok_or_else(|| IndexError::Damaged("its meta page is bad".into()))
    }

    /// Marks a page as used; an error if it is used already.
    fn claim(&mut self, page: u64) -> Result<(), IndexError> {
        if page < 2 || page > self.last_page {
            return damaged("a page number is out of range");
        }
        let (word, bit) = ((page / 64) as usize, 1u64 << (page % 64));
        if self.used[word] & bit != 0 {
            return damaged("a page is used twice");
        }
        self.used[word] |= bit;
        Ok(())
    }

    /// Checks all pages of a tree and compares their numbers with `expected`. If the tree is the free list, its page
    /// numbers are added to `self.free`.
    fn tree(&mut self, expected: &Tree, free_list: bool) -> Result<(), IndexError> {
        let mut seen = Tree { depth: expected.depth, root: expected.root, ..Tree::default() };
        let mut stack = Vec::new();
        if expected.root != NO_PAGE {
            if expected.depth == 0 || expected.depth > DEPTH_MAX {
                return damaged("a tree has an impossible depth");
            }
            stack.push(Visit { page: expected.root, depth: 1, low: None, high: None });
        }
        while let Some(visit) = stack.pop() {
            self.claim(visit.page)?;
            let page = self.page(visit.page)?;
            let nodes = nodes(&page)?;
            if visit.depth < expected.depth {
                if flags(&page) != BRANCH || nodes.len() < 2 {
                    return damaged("an inner page has wrong flags or fewer than two children");
                }
                seen.branches += 1;
                // The first key of an inner page is empty and stands for the lower bound of the page.
                let keys: Vec<Option<Vec<u8>>> = nodes
                    .iter()
                    .enumerate()
                    .map(|(i, n)| if i == 0 { visit.low.clone() } else { Some(n.key.to_vec()) })
                    .collect();
                check_key_order(&keys, &visit, free_list)?;
                for (i, node) in nodes.iter().enumerate() {
                    let high = keys.get(i + 1).cloned().unwrap_or_else(|| visit.high.clone());
                    stack.push(Visit { page: node.child(), depth: visit.depth + 1, low: keys[i].clone(), high });
                }
            } else {
                if flags(&page) != LEAF {
                    return damaged("a leaf page has wrong flags");
                }
                seen.leaves += 1;
                seen.entries += nodes.len() as u64;
                let keys: Vec<_> = nodes.iter().map(|n| Some(n.key.to_vec())).collect();
                check_key_order(&keys, &visit, free_list)?;
                for node in &nodes {
                    let data = self.data(&page, node, &mut seen)?;
                    if free_list {
                        self.free_pages(node, &data)?;
                    }
                }
            }
        }
        let same = seen.branches == expected.branches
            && seen.leaves == expected.leaves
            && seen.overflows == expected.overflows
            && seen.entries == expected.entries;
        if same { Ok(()) } else { damaged("a tree has other pages than were committed") }
    }

    /// The data of a leaf node. Checks that it lies within its page or its overflow pages, and claims the latter.
    fn data(&mut self, page: &[u8], node: &Node, seen: &mut Tree) -> Result<Vec<u8>, IndexError> {
        let size = node.size();
        let start = node.at + NODE + node.key.len();
        if node.flags == 0 {
            return match page.get(start..start + size) {
                Some(data) => Ok(data.to_vec()),
                None => damaged("a record leaves its page"),
            };
        }
        if node.flags != BIG_DATA || start + 8 > PAGE {
            return damaged("a record has unknown flags");
        }
        let first = u64_at(page, start);
        let count = (HEADER + size).div_ceil(PAGE) as u64;
        for number in first..first.saturating_add(count) {
            self.claim(number)?;
        }
        let head = self.page(first)?;
        let stated = u32::from_le_bytes([head[12], head[13], head[14], head[15]]);
        if flags(&head) != OVERFLOW || u64::from(stated) != count || first + count > self.pages {
            return damaged("an overflow page has wrong flags or a wrong length");
        }
        seen.overflows += count;
        let mut data = vec![0; size];
        let at = first * PAGE as u64 + HEADER as u64;
        self.file.read_exact_at(&mut data, at).map_err(|e| IndexError::Io(e.to_string()))?;
        Ok(data)
    }

    /// A record of the free list: a count and that many page numbers, descending.
    fn free_pages(&mut self, node: &Node<'_>, data: &[u8]) -> Result<(), IndexError> {
        let numbers: Vec<u64> = data.chunks_exact(8).map(|c| u64_at(c, 0)).collect();
        let count = numbers.first().copied().unwrap_or(0);
        if node.key.len() != 8 || numbers.is_empty() || count >= numbers.len() as u64 {
            return damaged("the free list is bad");
        }
        let pages = &numbers[1..=count as usize];
        if pages.windows(2).any(|pair| pair[0] <= pair[1]) {
            return damaged("the free list is not in order");
        }
        self.free.extend_from_slice(pages);
        Ok(())
    }
}

/// An entry of a page: a key with a child page (inner page) or with data (leaf page).
struct Node<'a> {
    /// Offset in the page.
    at: usize,
    /// Bits 0 to 15 of the data's size or of the child's page number.
    low: u16,
    /// Bits 16 to 31 of the same.
    high: u16,
    /// Flags in a leaf page; bits 32 to 47 of the child's page number in an inner page.
    flags: u16,
    key: &'a [u8],
}

impl Node<'_> {
    /// Bytes of the data of a node in a leaf page.
    fn size(&self) -> usize {
        usize::from(self.low) | usize::from(self.high) << 16
    }

    /// Page number of the child of a node in an inner page.
    fn child(&self) -> u64 {
        u64::from(self.low) | u64::from(self.high) << 16 | u64::from(self.flags) << 32
    }
}

/// The nodes of a page, checked to lie within the page.
fn nodes(page: &[u8]) -> Result<Vec<Node<'_>>, IndexError> {
    let (lower, upper) = (usize::from(u16_at(page, 12)), usize::from(u16_at(page, 14)));
    if lower < HEADER || lower > upper || upper > PAGE || lower % 2 != 0 {
        return damaged("a page's bounds make no sense");
    }
    let mut nodes = Vec::new();
    for pointer in (HEADER..lower).step_by(2) {
        let at = usize::from(u16_at(page, pointer));
        if at < upper || at + NODE > PAGE {
            return damaged("a record lies outside its page");
        }
        let key_len = usize::from(u16_at(page, at + 6));
        let Some(key) = page.get(at + NODE..at + NODE + key_len) else {
            return damaged("a key leaves its page");
        };
        nodes.push(Node { at, low: u16_at(page, at), high: u16_at(page, at + 2), flags: u16_at(page, at + 4), key });
    }
    Ok(nodes)
}

/// Checks that the keys ascend and lie within the bounds of the page. With `numbers`, keys of 8 bytes are compared as
/// numbers.
fn check_key_order(keys: &[Option<Vec<u8>>], visit: &Visit, numbers: bool) -> Result<(), IndexError> {
    let before = |a: &[u8], b: &[u8]| {
        if numbers && a.len() == 8 && b.len() == 8 { u64_at(a, 0) < u64_at(b, 0) } else { a < b }
    };
    let ascending = keys.windows(2).all(|pair| match (&pair[0], &pair[1]) {
        (Some(a), Some(b)) => before(a, b),
        (None, Some(_)) => true,
        (_, None) => false,
    });
    let above = match (keys.first(), &visit.low) {
        (Some(Some(first)), Some(low)) => !before(first, low),
        _ => true,
    };
    let below = match (keys.last(), &visit.high) {
        (Some(Some(last)), Some(high)) => before(last, high),
        _ => true,
    };
    if ascending && above && below { Ok(()) } else { damaged("its keys are not in order") }
}

/// Reads the description of a tree, and the field in front of it, which holds the page size in the first description.
/// `None` if the tree's flags are not `expected`.
fn tree(r: &mut Reader, expected: u16) -> Option<(u32, Tree)> {
    let (pad, flags, depth) = (r.u32()?, r.u16()?, r.u16()?);
    let [branches, leaves, overflows, entries, root] = [r.u64()?, r.u64()?, r.u64()?, r.u64()?, r.u64()?];
    (flags == expected).then_some((pad, Tree { depth, branches, leaves, overflows, entries, root }))
}

fn flags(page: &[u8]) -> u16 {
    u16_at(page, 10)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

//! Citations: comment lines `//= docs/rfc/rfc9293.md#MUST-1` in Rust sources. One directly above a `#[test]` is the
//! test's; any other is the implementation's, which is the item that it stands above or in. Sources below a directory
//! `tests` implement nothing, so that there it has to be a test's.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::LEDGERS;

const MARK: &str = "//= ";
/// Words that begin an item, after its visibility.
const ITEMS: [&str; 10] =
    ["fn ", "const fn ", "const ", "static ", "struct ", "enum ", "trait ", "mod ", "type ", "macro_rules! "];

/// One citation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Citation {
    /// The ledger's name: `rfc9293`.
    pub ledger: String,
    /// The requirement's id.
    pub id: String,
    /// The source, below the top of the workspace.
    pub file: String,
    /// The line, from 1 on.
    pub line: usize,
    /// The function, constant or type that it stands above or in; empty: the file.
    pub item: String,
    /// Whether it is a test's.
    pub is_test: bool,
}

/// Every citation of a tree, in the order of files and lines.
///
/// # Errors
/// Names the place of one that is not as it has to be.
pub fn read(top: &Path) -> Result<Vec<Citation>> {
    let mut citations = Vec::new();
    walk(top, top, &mut citations)?;
    Ok(citations)
}

/// The citations of one requirement: by the implementation, and by tests.
pub fn of<'c>(citations: &'c [Citation], ledger: &str, id: &str) -> (Vec<&'c Citation>, Vec<&'c Citation>) {
    let of_it = citations.iter().filter(|citation| citation.ledger == ledger && citation.id == id);
    let (tested, implemented) = of_it.partition(|citation| citation.is_test);
    (implemented, tested)
}

fn walk(top: &Path, directory: &Path, citations: &mut Vec<Citation>) -> Result<()> {
    let listed = fs::read_dir(directory).with_context(|| format!("can't list {}", directory.display()))?;
    let mut paths: Vec<_> = listed.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            walk(top, &path, citations)?;
        } else if path.is_file() && name.ends_with(".rs") {
            let text = fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
            let file = path.strip_prefix(top).unwrap_or(&path).display().to_string();
            citations.extend(parse(&file, &text)?);
        }
    }
    Ok(())
}

fn parse(file: &str, text: &str) -> Result<Vec<Citation>> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut citations = Vec::new();
    for (at, cited) in lines.iter().enumerate().filter_map(|(at, line)| Some((at, line.strip_prefix(MARK)?))) {
        let line = at + 1;
        let Some((ledger, id)) = target(cited) else {
            bail!("{file}:{line}: `{cited}` is no citation: write `{MARK}{LEDGERS}/rfcN.md#ID`");
        };
        let is_test = is_above_test(&lines[line..]);
        let in_tests = Path::new(file).parent().is_some_and(|parent| parent.iter().any(|part| part == "tests"));
        ensure!(is_test || !in_tests, "{file}:{line}: in tests a citation stands directly above `#[test]`");
        let item = if is_test { item_below(&lines[line..]) } else { item_of(&lines, at) };
        let (ledger, id, file) = (ledger.to_owned(), id.to_owned(), file.to_owned());
        citations.push(Citation { ledger, id, file, line, item: item.unwrap_or_default().to_owned(), is_test });
    }
    Ok(citations)
}

/// `docs/rfc/rfc9293.md#MUST-1` is `rfc9293` and `MUST-1`.
fn target(cited: &str) -> Option<(&str, &str)> {
    let (ledger, id) = cited.strip_prefix(LEDGERS)?.strip_prefix('/')?.split_once(".md#")?;
    (!ledger.is_empty() && !id.is_empty() && !id.contains(char::is_whitespace)).then_some((ledger, id))
}

/// Whether only comments and attributes are left before a `#[test]`.
fn is_above_test(below: &[&str]) -> bool {
    below.iter().take_while(|line| line.starts_with("//") || line.starts_with("#[")).any(|line| *line == "#[test]")
}

/// The item that begins after comments and attributes, if the next line of code begins one.
fn item_below<'l>(below: &[&'l str]) -> Option<&'l str> {
    item(below.iter().find(|line| !line.starts_with("//") && !line.starts_with("#["))?)
}

/// The item that line `at` stands above, else the one that it stands in.
fn item_of<'l>(lines: &[&'l str], at: usize) -> Option<&'l str> {
    item_below(&lines[at..]).or_else(|| lines[..at].iter().rev().find_map(|line| item(line)))
}

/// The name of the item that a line begins.
fn item(line: &str) -> Option<&str> {
    let line = line.strip_prefix("pub").map_or(line, |rest| match rest.strip_prefix('(') {
        Some(rest) => rest.split_once(") ").map_or(rest, |(_, rest)| rest),
        None => rest.trim_start(),
    });
    let rest = ITEMS.iter().find_map(|word| line.strip_prefix(word))?;
    rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cited(file: &str, text: &str) -> Vec<(String, bool)> {
        parse(file, text).unwrap().into_iter().map(|citation| (citation.item, citation.is_test)).collect()
    }

    #[test]
    fn an_implementation_is_the_item_below_or_around() {
        let above = ["//= docs/rfc/rfc9.md#A", "/// Doc.", "#[inline]", "pub(crate) const fn above() {", "    work();"];
        let within = ["    //= docs/rfc/rfc9.md#B", "    more();", "}"];
        let limit = ["//= docs/rfc/rfc9.md#C", "const LIMIT: u32 = 1;"];
        let text = [&above[..], &within, &limit].concat().join("\n");
        let items = ["above", "above", "LIMIT"].map(|item| (item.to_owned(), false));
        assert_eq!(cited("x/src/lib.rs", &text), items);
    }

    #[test]
    fn a_test_is_what_directly_follows() {
        let text =
            "/// Doc.\n//= docs/rfc/rfc9.md#A\n//= docs/rfc/rfc9.md#B\n#[cfg(unix)]\n#[test]\nfn a_sentence() {}\n";
        assert_eq!(cited("x/tests/it.rs", text), vec![("a_sentence".to_owned(), true); 2]);
        assert_eq!(cited("x/src/lib.rs", &format!("mod tests {{\n{text}}}")), vec![("a_sentence".to_owned(), true); 2]);
    }

    #[test]
    fn helpers_of_tests_implement_nothing() {
        let error = parse("x/tests/common/mod.rs", "\n//= docs/rfc/rfc9.md#A\nfn helper() {}\n").unwrap_err();
        assert_eq!(error.to_string(), "x/tests/common/mod.rs:2: in tests a citation stands directly above `#[test]`");
    }

    #[test]
    fn what_only_looks_like_a_citation_is_refused_with_its_place() {
        for bad in
            ["rfc9293 MUST-1", "docs/rfc/rfc9293.md", "docs/rfc/rfc9293.md#", "docs/rfc/.md#A", "docs/rfc/a.md#A and B"]
        {
            let error = parse("x/src/lib.rs", &format!("{MARK}{bad}\n")).unwrap_err().to_string();
            assert!(
                error.starts_with("x/src/lib.rs:1: ") && error.contains("write `//= docs/rfc/rfcN.md#ID`"),
                "{error}"
            );
        }
    }

    #[test]
    fn quoted_lines_are_no_citations() {
        assert_eq!(cited("x/src/lib.rs", "let text = \"//= docs/rfc/rfc9.md#A\";\n/// //= docs/rfc/rfc9.md#A\n"), []);
    }
}

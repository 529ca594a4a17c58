//! The ledgers: one Markdown file per RFC, one section per requirement.
//!
//! ```text
//! # RFC 9293: Transmission Control Protocol
//! ## MUST-65
//! MUST NOT, section 3.2. The MSS option is on SYNs only.
//!
//! Exception: why we do not, where there is a reason.
//! ```

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::LEDGERS;
use super::citation::Citation;

/// The words a requirement's section may begin with, strongest first. `RULE`: the RFC describes it without a key word.
pub const LEVELS: [&str; 7] = ["MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "RULE", "RECOMMENDED", "MAY"];

const EXCEPTION: &str = "Exception:";

/// One RFC's requirements.
#[derive(Debug)]
pub struct Ledger {
    /// The file's name without its extension: `rfc9293`.
    pub name: String,
    /// `RFC 9293: Transmission Control Protocol`.
    pub title: String,
    /// In the file's order.
    pub requirements: Vec<Requirement>,
}

/// A section of a ledger.
#[derive(Debug)]
pub struct Requirement {
    /// What citations name it by.
    pub id: String,
    /// One of [`LEVELS`].
    pub level: &'static str,
    /// Where the RFC says it.
    pub section: String,
    /// Why we do not do it, or not all of it.
    pub exception: Option<String>,
}

/// Reads every ledger of a tree, by number.
///
/// # Errors
/// Names the file and the section that is not as it has to be.
pub fn read(top: &Path) -> Result<Vec<Ledger>> {
    let directory = top.join(LEDGERS);
    let mut ledgers = Vec::new();
    for file in fs::read_dir(&directory).with_context(|| format!("can't list {}", directory.display()))? {
        let path = file?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("rfc") && path.extension().is_some_and(|extension| extension == "md") {
            let text = fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
            ledgers.push(parse(&name, &text).with_context(|| format!("{LEDGERS}/{name}.md"))?);
        }
    }
    ledgers.sort_by_key(|ledger| (ledger.name.len(), ledger.name.clone()));
    Ok(ledgers)
}

/// Every requirement with the ledger that it is in.
pub fn all(ledgers: &[Ledger]) -> impl Iterator<Item = (&Ledger, &Requirement)> {
    ledgers.iter().flat_map(|ledger| ledger.requirements.iter().map(move |requirement| (ledger, requirement)))
}

/// Refuses citations of what no ledger has.
///
/// # Errors
/// Names the first, and where it is.
pub fn ensure_cited_exist(ledgers: &[Ledger], citations: &[Citation]) -> Result<()> {
    for citation in citations {
        let exists = all(ledgers).any(|(ledger, known)| ledger.name == citation.ledger && known.id == citation.id);
        let Citation { file, line, ledger, id, .. } = citation;
        ensure!(exists, "{file}:{line} cites {LEDGERS}/{ledger}.md#{id}, which does not exist");
    }
    Ok(())
}

fn parse(name: &str, text: &str) -> Result<Ledger> {
    let mut sections = text.split("\n## ");
    let title = sections.next().and_then(|head| head.lines().next()).unwrap_or_default();
    let title = title.strip_prefix("# ").unwrap_or_default().to_owned();
    let number = name.trim_start_matches("rfc");
    ensure!(title.starts_with(&format!("RFC {number}: ")), "the first line has to be `# RFC {number}: TITLE`");
    let mut requirements: Vec<Requirement> = Vec::new();
    for section in sections {
        let requirement = requirement(section)?;
        ensure!(requirements.iter().all(|known| known.id != requirement.id), "{} occurs twice", requirement.id);
        requirements.push(requirement);
    }
    ensure!(!requirements.is_empty(), "there is no section `## ID`");
    Ok(Ledger { name: name.to_owned(), title, requirements })
}

fn requirement(section: &str) -> Result<Requirement> {
    let (id, body) = section.split_once('\n').unwrap_or((section, ""));
    let spelling = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    ensure!(!id.is_empty() && id.chars().all(spelling), "`{id}` is no id: letters, digits, `-`, `.` and `_`");
    let Some((level, rest)) = body.trim_start().split_once(", section ") else {
        bail!("{id}: has to begin with `LEVEL, section N. What it asks for.`");
    };
    let known = LEVELS.into_iter().find(|known| *known == level);
    let level = known.with_context(|| format!("{id}: `{level}` is none of {}", LEVELS.join(", ")))?;
    let (section, meaning) = rest.split_once(". ").unwrap_or_default();
    ensure!(!section.is_empty() && !section.contains(char::is_whitespace), "{id}: which section of the RFC?");
    ensure!(!meaning.trim().is_empty(), "{id}: what does it ask for?");
    let exception = exception(id, body)?;
    Ok(Requirement { id: id.to_owned(), level, section: section.to_owned(), exception })
}

fn exception(id: &str, body: &str) -> Result<Option<String>> {
    let Some(paragraph) = body.split("\n\n").find_map(|paragraph| paragraph.trim().strip_prefix(EXCEPTION)) else {
        ensure!(!body.contains(EXCEPTION), "{id}: an exception is a paragraph of its own");
        return Ok(None);
    };
    let reason = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(!reason.is_empty(), "{id}: an exception needs its reason");
    Ok(Some(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(section: &str) -> String {
        format!("{:#}", parse("rfc9", &format!("# RFC 9: T\n\n## {section}\n")).unwrap_err())
    }

    #[test]
    fn a_section_tells_level_place_and_exception() {
        let text =
            "# RFC 9: T\n\nWords.\n\n## 3.2-a_b\n\nSHOULD NOT, section 3.2. First.\nMore.\n\nException: Not\nhere.\n";
        let ledger = parse("rfc9", text).unwrap();
        let [requirement] = ledger.requirements.as_slice() else { panic!("{ledger:?}") };
        assert_eq!(
            (requirement.id.as_str(), requirement.level, requirement.section.as_str()),
            ("3.2-a_b", "SHOULD NOT", "3.2")
        );
        assert_eq!(requirement.exception.as_deref(), Some("Not here."));
    }

    #[test]
    fn what_is_missing_from_a_section_is_named() {
        assert!(complaint("A B\nMUST, section 1. T.").contains("no id"));
        assert!(complaint("A\nIt must.").contains("LEVEL, section N"));
        assert!(complaint("A\nWANT, section 1. T.").contains("`WANT` is none of MUST,"));
        assert!(complaint("A\nMUST, section . T.").contains("which section"));
        assert!(complaint("A\nMUST, section 1. ").contains("what does it ask for"));
        assert!(complaint("A\nMUST, section 1. T.\n\nException:").contains("needs its reason"));
        assert!(complaint("A\nMUST, section 1. T. Exception: no.").contains("paragraph of its own"));
    }

    #[test]
    fn a_ledger_is_named_after_its_rfc() {
        assert!(parse("rfc9", "# RFC 8: T\n\n## A\nMUST, section 1. T.\n").is_err());
        assert!(parse("rfc9", "# RFC 9: T\n").is_err(), "no requirement at all");
    }
}

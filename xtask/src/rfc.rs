//! `cargo xtask rfc`: every requirement of the ledgers in `docs/rfc` is implemented and tested, or excepted with a
//! reason. It prints how many are, writes who does it to `docs/CONFORMANCE.md`, and fails on a gap. What it leaves
//! out: whether a citation is true; that is for whoever reads the code beside it.

mod citation;
mod ledger;
mod report;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};

use citation::Citation;
use ledger::Ledger;

use crate::process::workspace;

/// Where the ledgers are, below the top of the workspace.
const LEDGERS: &str = "docs/rfc";
/// What is written.
const CONFORMANCE: &str = "docs/CONFORMANCE.md";

/// Prints the table, writes the report or, with `check`, only compares it, and fails on a gap.
pub fn run(check: bool) -> Result<ExitCode> {
    trace(&workspace(), check)?;
    Ok(ExitCode::SUCCESS)
}

/// The same for a tree anywhere.
fn trace(top: &Path, check: bool) -> Result<()> {
    let ledgers = ledger::read(top)?;
    let citations = citation::read(top)?;
    ledger::ensure_cited_exist(&ledgers, &citations)?;
    println!("{}", report::summary(&ledgers, &citations));
    let gaps = gaps(&ledgers, &citations);
    if !gaps.is_empty() {
        bail!("{} requirements have a gap:\n  {}", gaps.len(), gaps.join("\n  "));
    }
    keep(&top.join(CONFORMANCE), &report::conformance(&ledgers, &citations), check)
}

/// The requirements that are neither excepted nor both implemented and tested, and what they lack.
fn gaps(ledgers: &[Ledger], citations: &[Citation]) -> Vec<String> {
    let mut gaps = Vec::new();
    for (ledger, requirement) in ledger::all(ledgers) {
        let (implemented, tested) = citation::of(citations, &ledger.name, &requirement.id);
        let lacks = match (implemented.is_empty(), tested.is_empty()) {
            _ if requirement.exception.is_some() => continue,
            (false, false) => continue,
            (true, true) => "neither implemented nor tested",
            (true, false) => "tested, but no code cites it",
            (false, true) => "implemented, but no test cites it",
        };
        gaps.push(format!("{LEDGERS}/{}.md#{}: {lacks}", ledger.name, requirement.id));
    }
    gaps
}

/// Makes a file hold `text`; with `check` it has to already.
fn keep(file: &Path, text: &str, check: bool) -> Result<()> {
    if fs::read_to_string(file).is_ok_and(|held| held == text) {
        return Ok(());
    }
    ensure!(!check, "{} is out of date: run `cargo xtask rfc` and commit it", file.display());
    fs::write(file, text).with_context(|| format!("can't write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEDGER: &str = "# RFC 9999: Things\n\nWords.\n\n## MUST-1\nMUST, section 3.1. It does.\n\n\
                          ## MAY-2\nMAY, section 4. It could.\n\nException: It does not.\n";
    const CODE: &str = "//= docs/rfc/rfc9999.md#MUST-1\nfn does() {}\n";
    const TEST: &str = "//= docs/rfc/rfc9999.md#MUST-1\n#[test]\nfn it_does() {}\n";

    /// A tree of one ledger and some sources of a crate.
    fn tree(ledger: &str, sources: &[(&str, &str)]) -> tempfile::TempDir {
        let top = tempfile::tempdir().unwrap();
        let files = sources.iter().map(|(name, text)| (format!("a-crate/{name}"), *text));
        for (name, text) in files.chain([(format!("{LEDGERS}/rfc9999.md"), ledger)]) {
            let file = top.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        top
    }

    fn complaint(ledger: &str, sources: &[(&str, &str)]) -> String {
        format!("{:#}", trace(tree(ledger, sources).path(), false).unwrap_err())
    }

    #[test]
    fn what_is_implemented_and_tested_or_excepted_passes_and_is_reported() {
        let top = tree(LEDGER, &[("src/lib.rs", CODE), ("tests/it.rs", TEST)]);
        trace(top.path(), false).unwrap();
        let written = fs::read_to_string(top.path().join(CONFORMANCE)).unwrap();
        assert!(
            written.contains("| MUST-1 | MUST | 3.1 | `a-crate/src/lib.rs`: does | `a-crate/tests/it.rs`: it_does |")
        );
        assert!(written.contains("| MAY-2 | MAY | 4 | | | excepted: It does not. |"), "{written}");
        trace(top.path(), true).unwrap();
    }

    #[test]
    fn a_report_that_is_out_of_date_is_refused_only_when_asked() {
        let top = tree(LEDGER, &[("src/lib.rs", CODE), ("tests/it.rs", TEST)]);
        fs::write(top.path().join(CONFORMANCE), "of yesterday").unwrap();
        let error = trace(top.path(), true).unwrap_err();
        assert!(error.to_string().contains("run `cargo xtask rfc`"), "{error}");
        trace(top.path(), false).unwrap();
        trace(top.path(), true).unwrap();
    }

    #[test]
    fn each_kind_of_gap_is_named() {
        let gap = |sources: &[(&str, &str)]| complaint(LEDGER, sources);
        assert!(gap(&[]).contains("docs/rfc/rfc9999.md#MUST-1: neither implemented nor tested"));
        assert!(gap(&[("src/lib.rs", CODE)]).contains("MUST-1: implemented, but no test cites it"));
        assert!(gap(&[("tests/it.rs", TEST)]).contains("MUST-1: tested, but no code cites it"));
    }

    #[test]
    fn a_citation_of_nothing_is_refused_with_its_place() {
        let dangling = CODE.replace("#MUST-1", "#MUST-7");
        let error = complaint(LEDGER, &[("src/lib.rs", &dangling), ("tests/it.rs", TEST)]);
        assert!(error.contains("a-crate/src/lib.rs:1") && error.contains("#MUST-7"), "{error}");
        let other = CODE.replace("rfc9999", "rfc1");
        assert!(complaint(LEDGER, &[("src/lib.rs", &other)]).contains("docs/rfc/rfc1.md#MUST-1"));
    }

    #[test]
    fn an_id_that_occurs_twice_is_refused() {
        let twice = format!("{LEDGER}\n## MUST-1\nMUST, section 5. Again.\n");
        assert!(complaint(&twice, &[]).contains("MUST-1 occurs twice"));
    }

    #[test]
    fn builds_and_other_peoples_sources_are_not_read() {
        let bad = "//= nonsense\n";
        let sources = [("src/lib.rs", CODE), ("tests/it.rs", TEST), ("target/a.rs", bad), (".git/a.rs", bad)];
        trace(tree(LEDGER, &sources).path(), false).unwrap();
    }
}

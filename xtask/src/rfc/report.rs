//! What `cargo xtask rfc` says: a table of figures for the terminal and the report, and every requirement with the
//! code and the tests that cite it. No line numbers: the report changes only when what it says does.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::citation::{self, Citation};
use super::ledger::{LEVELS, Ledger, Requirement};

const INTRODUCTION: &str = "\
# Conformance

Written by `cargo xtask rfc` from the ledgers in [rfc/](rfc/) and from the citations in code and tests; do not edit it.
A requirement is implemented where code cites it, and tested where a test does that fails without it; an exception has
its reason, and may be one to a part only. [CONTRIBUTING.md](../CONTRIBUTING.md) tells how to cite.

";

/// How many requirements of one level are what.
#[derive(Default)]
struct Figures {
    all: usize,
    implemented: usize,
    tested: usize,
    excepted: usize,
    missing: usize,
}

/// The table of figures, a line per RFC and level, and what is excepted.
pub fn summary(ledgers: &[Ledger], citations: &[Citation]) -> String {
    let mut table = String::from("| RFC | level | all | implemented | tested | excepted | missing |\n");
    table += "|---|---|--:|--:|--:|--:|--:|\n";
    for ledger in ledgers {
        for level in LEVELS {
            let Figures { all, implemented, tested, excepted, missing } = figures(ledger, level, citations);
            if all > 0 {
                let rfc = ledger.name.trim_start_matches("rfc");
                let _infallible =
                    writeln!(table, "| {rfc} | {level} | {all} | {implemented} | {tested} | {excepted} | {missing} |");
            }
        }
    }
    table + "\nExcepted, in whole or in part:" + &excepted(ledgers) + ".\n"
}

/// The ids of all exceptions, RFC by RFC.
fn excepted(ledgers: &[Ledger]) -> String {
    let ids = |ledger: &Ledger| {
        let excepted = ledger.requirements.iter().filter(|requirement| requirement.exception.is_some());
        excepted.map(|requirement| format!(" {}", requirement.id)).collect::<String>()
    };
    let named = ledgers.iter().map(|ledger| (ledger, ids(ledger))).filter(|(_, ids)| !ids.is_empty());
    named.map(|(ledger, ids)| format!(" {}{ids}", ledger.name)).collect::<Vec<_>>().join(";")
}

/// The whole report.
pub fn conformance(ledgers: &[Ledger], citations: &[Citation]) -> String {
    let mut text = format!("{INTRODUCTION}{}", summary(ledgers, citations));
    for ledger in ledgers {
        text += &format!("\n## [{}](rfc/{}.md)\n\n", ledger.title, ledger.name);
        text += "| id | level | section | implemented by | tested by | exception |\n|---|---|---|---|---|---|\n";
        for requirement in &ledger.requirements {
            text += &row(ledger, requirement, citations);
        }
    }
    text
}

fn figures(ledger: &Ledger, level: &str, citations: &[Citation]) -> Figures {
    let mut figures = Figures::default();
    for requirement in ledger.requirements.iter().filter(|requirement| requirement.level == level) {
        let (implemented, tested) = citation::of(citations, &ledger.name, &requirement.id);
        let (implemented, tested) = (!implemented.is_empty(), !tested.is_empty());
        let excepted = requirement.exception.is_some();
        figures.all += 1;
        figures.implemented += usize::from(implemented);
        figures.tested += usize::from(tested);
        figures.excepted += usize::from(excepted);
        figures.missing += usize::from(!(excepted || implemented && tested));
    }
    figures
}

fn row(ledger: &Ledger, requirement: &Requirement, citations: &[Citation]) -> String {
    let (implemented, tested) = citation::of(citations, &ledger.name, &requirement.id);
    let partly = if implemented.is_empty() { "excepted" } else { "in part" };
    let exception = requirement.exception.as_ref().map(|reason| format!("{partly}: {}", reason.replace('|', "\\|")));
    let Requirement { id, level, section, .. } = requirement;
    let cells = [places(&implemented), places(&tested), exception.unwrap_or_default()];
    let cells = cells.map(|cell| if cell.is_empty() { " ".into() } else { format!(" {cell} ") });
    format!("| {id} | {level} | {section} |{}|\n", cells.join("|"))
}

/// Files with the items in them, each once.
fn places(citations: &[&Citation]) -> String {
    let files: BTreeSet<&str> = citations.iter().map(|citation| citation.file.as_str()).collect();
    let place = |file: &str| {
        let here = citations.iter().filter(|citation| citation.file == file && !citation.item.is_empty());
        let items: BTreeSet<&str> = here.map(|citation| citation.item.as_str()).collect();
        let items = items.into_iter().collect::<Vec<_>>().join(", ");
        if items.is_empty() { format!("`{file}`") } else { format!("`{file}`: {items}") }
    };
    files.into_iter().map(place).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn citation(id: &str, item: &str, is_test: bool) -> Citation {
        let (file, line) = (if is_test { "t.rs" } else { "c.rs" }, 1);
        Citation { ledger: "rfc9".into(), id: id.into(), file: file.into(), line, item: item.into(), is_test }
    }

    fn requirement(id: &str, level: &'static str, exception: Option<&str>) -> Requirement {
        Requirement { id: id.into(), level, section: "1".into(), exception: exception.map(str::to_owned) }
    }

    #[test]
    fn figures_are_counted_per_level_and_an_exception_is_no_gap() {
        let requirements =
            vec![requirement("A", "MUST", None), requirement("B", "MUST", Some("no")), requirement("C", "MAY", None)];
        let ledgers = [Ledger { name: "rfc9".into(), title: "RFC 9: T".into(), requirements }];
        let citations = [citation("A", "a", false), citation("A", "b", true), citation("C", "c", false)];
        let table = summary(&ledgers, &citations);
        assert!(table.ends_with("Excepted, in whole or in part: rfc9 B.\n"), "{table}");
        assert!(table.contains("| 9 | MUST | 2 | 1 | 1 | 1 | 0 |\n| 9 | MAY | 1 | 1 | 0 | 0 | 1 |\n"), "{table}");
    }

    #[test]
    fn places_are_sorted_and_each_named_once() {
        let cited =
            [citation("A", "b", false), citation("A", "a", true), citation("A", "a", false), citation("A", "b", false)];
        assert_eq!(places(&cited.iter().collect::<Vec<_>>()), "`c.rs`: a, b; `t.rs`: a");
    }

    #[test]
    fn an_exception_to_something_implemented_is_one_in_part() {
        let ledger = Ledger { name: "rfc9".into(), title: "RFC 9: T".into(), requirements: Vec::new() };
        let row = row(&ledger, &requirement("A", "MUST", Some("this | that")), &[citation("A", "a", false)]);
        assert_eq!(row, "| A | MUST | 1 | `c.rs`: a | | in part: this \\| that |\n");
    }
}

//! `docs/states.md` is true: its figure and its matrix are what `State::next` does (RFC 9293 section 3.3.2), and the
//! functions and tests that it names exist.

use tcp_common::{Cause, State};

const DOCUMENT: &str = include_str!("../../docs/states.md");

const CAUSES: [Cause; 11] = [
    Cause::PassiveOpen,
    Cause::ActiveOpen,
    Cause::Syn,
    Cause::SynAck,
    Cause::SynAcked,
    Cause::Fin,
    Cause::FinAcked,
    Cause::Close,
    Cause::Reset,
    Cause::Abort,
    Cause::Expired,
];

/// The block of the document that is fenced as `language`; there is one of each.
fn block(language: &str) -> &'static str {
    let (_, rest) = DOCUMENT.split_once(&format!("```{language}\n")).expect("the block begins");
    rest.split_once("```").expect("the block ends").0
}

#[test]
fn the_matrix_of_the_document_is_what_the_code_does() {
    let (documented, actual) = (block("text"), matrix());
    let differences: Vec<String> = documented
        .lines()
        .zip(actual.lines())
        .filter(|(documented, actual)| documented != actual)
        .map(|(documented, actual)| format!("- {documented}\n+ {actual}\n"))
        .collect();
    assert!(
        documented == actual,
        "docs/states.md (-) and State::next (+) differ; if the code is right, the block is to be:\n{actual}\n{}",
        differences.concat()
    );
}

/// A row per state, a column per cause; a dot where nothing changes.
fn matrix() -> String {
    let header = CAUSES.iter().map(|cause| format!("{cause:?}"));
    let mut rows = vec![std::iter::once(String::new()).chain(header).collect::<Vec<_>>()];
    for state in State::ALL {
        let cells = CAUSES.iter().map(|&cause| match state.next(cause) {
            next if next == state => ".".to_owned(),
            next => next.name().to_owned(),
        });
        rows.push(std::iter::once(state.name().to_owned()).chain(cells).collect());
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..=CAUSES.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join(" ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// The arrows of the figure.
fn arrows() -> Vec<(State, Cause, State)> {
    let state = |name: &str| State::ALL.into_iter().find(|state| state.name() == name).expect("a state's name");
    let cause = |name: &str| CAUSES.into_iter().find(|cause| format!("{cause:?}") == name).expect("a cause's name");
    let arrow = |line: &str| {
        let (from, rest) = line.trim().split_once(" --> ")?;
        let (to, label) = rest.split_once(" : ")?;
        Some((state(from), cause(label.split(' ').next()?), state(to)))
    };
    block("mermaid").lines().filter_map(arrow).collect()
}

#[test]
fn every_arrow_of_the_figure_is_taken_and_none_is_missing() {
    let drawn = arrows();
    for &(from, cause, to) in &drawn {
        assert_eq!(from.next(cause), to, "{from:?} on {cause:?}");
    }
    for from in State::ALL {
        for cause in CAUSES {
            let to = from.next(cause);
            let ends_from_everywhere = matches!(cause, Cause::Reset | Cause::Abort | Cause::Expired);
            let shown = drawn.contains(&(from, cause, to));
            assert!(to == from || ends_from_everywhere || shown, "{from:?} on {cause:?} to {to:?} is not drawn");
        }
    }
}

#[test]
fn what_is_not_drawn_ends_every_state_with_the_exceptions_that_the_document_names() {
    for state in State::ALL {
        assert_eq!(state.next(Cause::Abort), State::CLOSED, "{state:?}");
        assert_eq!(state.next(Cause::Expired), State::CLOSED, "{state:?}");
        let stays = matches!(state, State::LISTEN | State::TIME_WAIT);
        assert_eq!(state.next(Cause::Reset), if stays { state } else { State::CLOSED }, "{state:?}");
    }
}

#[test]
fn every_function_and_test_that_the_document_names_exists() {
    let named: Vec<(&str, &str)> = DOCUMENT.split('`').filter_map(|word| word.split_once(".rs::")).collect();
    assert!(named.len() > 40, "the table names code and tests");
    for (file, function) in named {
        let read = |folder: &str| {
            std::fs::read_to_string(format!("{}/{folder}/{file}.rs", env!("CARGO_MANIFEST_DIR"))).unwrap_or_default()
        };
        let declared = |source: &str| source.contains(&format!("fn {function}("));
        let generic = |source: &str| source.contains(&format!("fn {function}<"));
        let found = [read("src"), read("tests")].iter().any(|source| declared(source) || generic(source));
        assert!(found, "docs/states.md names {file}.rs::{function}, which does not exist");
    }
}

#[test]
fn a_state_may_send_until_our_fin_is_asked_for_and_receive_until_the_peers_arrived() {
    for state in State::ALL {
        let closing_makes_a_difference = state.next(Cause::Close) != state && state != State::LISTEN;
        assert_eq!(state.may_send(), closing_makes_a_difference, "{state:?}");
        // In SYN_SENT and behind the handshake's last ACK a FIN comes with or after what establishes.
        let fin_makes_a_difference = state.next(Cause::Fin) != state || state == State::SYN_SENT;
        assert_eq!(state.may_receive(), fin_makes_a_difference, "{state:?}");
    }
}

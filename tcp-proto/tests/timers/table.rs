//! `docs/timers.md` is true to the tests: every row names one with our default and one with the textbook's value, of
//! the row's own module, and both exist.

const TABLE: &str = include_str!("../../../docs/timers.md");

/// The rows' modules, in the order of the rows.
const MODULES: [(&str, &str); 9] = [
    ("establish", include_str!("establish.rs")),
    ("retransmit", include_str!("retransmit.rs")),
    ("delayed_ack", include_str!("delayed_ack.rs")),
    ("persist", include_str!("persist.rs")),
    ("keepalive", include_str!("keepalive.rs")),
    ("fin_wait_2", include_str!("fin_wait_2.rs")),
    ("time_wait", include_str!("time_wait.rs")),
    ("user_timeout", include_str!("user_timeout.rs")),
    ("rtt", include_str!("rtt.rs")),
];

#[test]
fn every_row_of_the_table_names_two_tests_that_exist() {
    let rows: Vec<&str> = TABLE.lines().filter(|line| line.starts_with("| **")).collect();
    assert_eq!(rows.len(), MODULES.len());
    for (row, (module, source)) in rows.into_iter().zip(MODULES) {
        let tests: Vec<&str> = row.split('`').filter(|word| word.contains("::")).collect();
        assert_eq!(tests.len(), 2, "{module}");
        for test in tests {
            let name = test.strip_prefix(module).and_then(|rest| rest.strip_prefix("::"));
            let name = name.unwrap_or_else(|| panic!("{test} is in the row of {module}"));
            assert!(source.contains(&format!("#[test]\nfn {name}()")), "{test} does not exist");
        }
    }
}

//! What `xtcp conns` and `xtcp stats` print for people.

use std::fmt::Write as _;

use serde_json::Value;
use xtcp::control::Row;

/// Headings of the connection table; the columns are those of [`cells`].
const HEADINGS: [&str; 12] =
    ["STATE", "LOCAL", "REMOTE", "AGE", "RTT", "RTO", "CWND", "UNACKED", "IN", "OUT", "RETRANS", "TIMERS"];
/// Columns from this one on are numbers, aligned to the right, up to the last.
const FIRST_NUMBER: usize = 3;

/// The connection table.
pub fn connections(rows: &[Row]) -> String {
    let cells: Vec<[String; 12]> = rows.iter().map(cells).collect();
    let mut table = String::new();
    let headings = HEADINGS.map(str::to_owned);
    let lines: Vec<&[String; 12]> = std::iter::once(&headings).chain(&cells).collect();
    let widths: [usize; 12] =
        std::array::from_fn(|column| lines.iter().map(|line| line[column].len()).max().unwrap_or(0));
    for line in lines {
        let padded: Vec<String> = line.iter().zip(widths).enumerate().map(pad).collect();
        table.push_str(padded.join("  ").trim_end());
        table.push('\n');
    }
    table
}

fn pad((column, (cell, width)): (usize, (&String, usize))) -> String {
    let is_number = (FIRST_NUMBER..HEADINGS.len() - 1).contains(&column);
    if is_number { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
}

fn cells(row: &Row) -> [String; 12] {
    let listener = row.state == "LISTEN";
    let figure = |text: String| if listener { "-".to_owned() } else { text };
    let timers: Vec<String> = row.timers.iter().map(|(name, left)| format!("{name} {}", millis(*left))).collect();
    [
        row.state.clone(),
        row.local.clone(),
        row.remote.clone(),
        millis(row.age_ms),
        row.srtt_us.map_or("-".to_owned(), micros),
        figure(millis(row.rto_ms)),
        figure(row.cwnd.to_string()),
        figure(row.snd_nxt.wrapping_sub(row.snd_una).to_string()),
        figure(row.bytes_in.to_string()),
        figure(row.bytes_out.to_string()),
        figure(row.retransmits.to_string()),
        row.service.clone().unwrap_or_else(|| timers.join(", ")),
    ]
}

fn millis(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms}ms"),
        1000..60_000 => format!("{}.{}s", ms / 1000, ms % 1000 / 100),
        60_000..3_600_000 => format!("{}m{:02}s", ms / 60_000, ms / 1000 % 60),
        _ => format!("{}h{:02}m", ms / 3_600_000, ms / 60_000 % 60),
    }
}

fn micros(us: u64) -> String {
    if us < 10_000 { format!("{us}us") } else { millis(us / 1000) }
}

/// Figures: one line each, by group.
pub fn stats(stats: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, "", stats);
    text
}

/// Writes the leaves of `value`, each with its path.
fn write_value(text: &mut String, path: &str, value: &Value) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, field)| write_value(text, &below(key), field)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| write_value(text, &format!("{path}[{index}]"), item));
        }
        Value::String(word) => drop(writeln!(text, "{path:<40} {word}")),
        other => drop(writeln!(text, "{path:<40} {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short_and_keep_their_unit() {
        assert_eq!(millis(0), "0ms");
        assert_eq!(millis(1_250), "1.2s");
        assert_eq!(millis(61_000), "1m01s");
        assert_eq!(millis(7_260_000), "2h01m");
        assert_eq!((micros(850), micros(12_000)), ("850us".to_owned(), "12ms".to_owned()));
    }

    #[test]
    fn a_listener_shows_its_service_instead_of_figures() {
        let row: Row = serde_json::from_value(serde_json::json!({
            "local": "[::]:80", "remote": "[::]:0", "state": "LISTEN", "age_ms": 5, "state_age_ms": 5, "timers": {},
            "mss": 0, "srtt_us": null, "rto_ms": 0, "cwnd": 0, "ssthresh": null, "snd_una": 0, "snd_nxt": 0,
            "rcv_nxt": 0, "snd_wnd": 0, "rcv_wnd": 0, "bytes_in": 0, "bytes_out": 0, "retransmits": 0,
            "service": "http", "congestion": null, "queue": null,
        }))
        .unwrap();
        let table = connections(&[row]);
        let columns: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(columns, ["LISTEN", "[::]:80", "[::]:0", "5ms", "-", "-", "-", "-", "-", "-", "-", "http"]);
    }

    #[test]
    fn figures_are_printed_with_their_whole_path() {
        let text =
            stats(&serde_json::json!({ "drops": { "null": 3 }, "rings": [{ "queue": 0 }], "interface": "veth0" }));
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines, [["drops.null", "3"], ["interface", "veth0"], ["rings[0].queue", "0"]]);
    }
}

//! Turns an error of the TOML reader into one line that names the place, the key and, for an unknown
//! key, the one that was probably meant.

/// Similarity (0 to 1) from which a known key is suggested for an unknown one.
const SUGGESTION_THRESHOLD: f64 = 0.7;

/// `NAME:LINE:COLUMN: what is wrong` for an error in `text`, which was read from `name`.
pub fn explain(name: &str, text: &str, error: &toml::de::Error) -> String {
    let message = describe(error.message());
    let Some(span) = error.span() else { return format!("{name}: {message}") };
    let (line, column) = position(text, span.start);
    match key_before(text, span.start) {
        Some(key) => format!("{name}:{line}:{column}: `{key}`: {message}"),
        None => format!("{name}:{line}:{column}: {message}"),
    }
}

/// One line, in the words of a configuration file rather than serde's.
fn describe(message: &str) -> String {
    let one_line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some(rest) = one_line.strip_prefix("unknown field ") {
        return unknown_key(rest);
    }
    one_line.replace("missing field", "missing key")
}

/// `rest` is "`name`, expected one of `a`, `b`".
fn unknown_key(rest: &str) -> String {
    let mut names = rest.split('`').skip(1).step_by(2);
    let unknown = names.next().unwrap_or_default();
    let known: Vec<&str> = names.collect();
    let similar = known
        .iter()
        .map(|key| (strsim::jaro_winkler(unknown, key), key))
        .filter(|(similarity, _)| *similarity >= SUGGESTION_THRESHOLD)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let list = known.join(", ");
    match similar {
        Some((_, key)) => format!("unknown key `{unknown}`; did you mean `{key}`? Known here: {list}"),
        None => format!("unknown key `{unknown}`; known here: {list}"),
    }
}

/// Line and column of a byte offset, both from 1; columns count characters.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let start_of_line = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[start_of_line..].chars().count() + 1)
}

/// The key whose value starts at `offset`: what stands before the `=` before it.
fn key_before(text: &str, offset: usize) -> Option<&str> {
    let before = text.get(..offset)?.trim_end_matches([' ', '\t']).strip_suffix('=')?.trim_end_matches([' ', '\t']);
    let start = before.rfind(|c: char| !(c.is_ascii_alphanumeric() || "_-.".contains(c))).map_or(0, |i| i + 1);
    Some(&before[start..]).filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        assert_eq!(position("ab\ncd", 0), (1, 1));
        assert_eq!(position("ab\ncd", 4), (2, 2));
        assert_eq!(position("é = 1", 5), (1, 5));
    }

    #[test]
    fn the_key_of_a_value_is_found_in_a_line_and_in_an_inline_table() {
        assert_eq!(key_before("ttl = 0", 6), Some("ttl"));
        assert_eq!(key_before("tcp = { ttl=0 }", 12), Some("ttl"));
        assert_eq!(key_before("[tcp]\nx", 6), None);
    }

    #[test]
    fn an_unknown_key_without_a_similar_one_lists_those_known() {
        assert_eq!(unknown_key("`zzz`, expected one of `ttl`, `dscp`"), "unknown key `zzz`; known here: ttl, dscp");
    }
}

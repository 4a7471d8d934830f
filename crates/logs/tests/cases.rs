//! Logs and what must come out of them: `cases/*.txt` hold cases of the form
//!
//! ```text
//! === what the case shows
//! the log, line by line; \xNN is a byte, a line that ends with \c has no line break
//! --- unparsed 0
//! {"line": 1, "level": "ERROR", "message": "..."}     an entry a line; fields that are absent are not compared
//! ```
//!
//! Settings may stand before the log, between `<<<` and `>>>`.

mod gz;

use gz::read;
use logs::{Entry, Settings};
use serde_json::{Value, json};

fn unescaped(log: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = log;
    while let Some(at) = rest.find("\\x") {
        out.extend(rest[..at].bytes());
        out.push(u8::from_str_radix(&rest[at + 2..at + 4], 16).expect("two hex digits"));
        rest = &rest[at + 4..];
    }
    out.extend(rest.bytes());
    if out.ends_with(b"\\c\n") {
        out.truncate(out.len() - 3);
    }
    out
}

fn as_json(entry: &Entry) -> Value {
    json!({
        "line": entry.line, "byte": entry.byte, "time": entry.time.map(|time| format!("{time:.3}")), "level": entry.level.as_str(),
        "logger": entry.logger, "exception": entry.exception, "message": entry.message, "stack": entry.stack,
        "stack_lines": entry.stack.as_deref().map_or(0, |stack| stack.lines().count()), "category": entry.category,
    })
}

/// Every mismatch of a file at once.
fn check(file: &str) {
    let text = std::fs::read_to_string(format!("{}/tests/cases/{file}", env!("CARGO_MANIFEST_DIR"))).expect("the file");
    let mut faults = Vec::new();
    for case in text.split("\n=== ").map(|case| case.trim_start_matches("=== ")) {
        let (title, rest) = case.split_once('\n').expect("a title");
        let (settings, rest) = match rest.strip_prefix("<<<\n").and_then(|rest| rest.split_once(">>>\n")) {
            Some((settings, rest)) => (Settings::parse(settings).expect("settings"), rest),
            None => (Settings::built_in(), rest),
        };
        let (log, expected) =
            rest.split_once("--- unparsed ").unwrap_or_else(|| panic!("{file}: {title}: nothing is expected"));
        let (unparsed, expected) = expected.split_once('\n').unwrap_or((expected, ""));
        let (entries, summary) = read(&unescaped(log), "shop/2024/07/01/app.gz", &settings);
        let found: Vec<Value> = entries.iter().map(as_json).collect();
        let expected: Vec<Value> = expected
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{title}: {line}: {error}")))
            .collect();
        let same = |expected: &Value, found: &Value| {
            expected.as_object().expect("an object").iter().all(|(name, value)| found.get(name) == Some(value))
        };
        let is_same =
            expected.len() == found.len() && expected.iter().zip(&found).all(|(expected, found)| same(expected, found));
        if !is_same || summary.unparsed.to_string() != unparsed.trim() {
            let lines = |list: &[Value]| list.iter().map(|value| format!("\n    {value}")).collect::<String>();
            faults.push(format!(
                "{file}: {title}\n  expected, {} unparsed:{}\n  found, {} unparsed:{}",
                unparsed.trim(),
                lines(&expected),
                summary.unparsed,
                lines(&found)
            ));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n\n"));
}

#[test]
fn java() {
    check("java.txt");
}

#[test]
fn python() {
    check("python.txt");
}

#[test]
fn go_rust_node_dotnet() {
    check("others.txt");
}

#[test]
fn collectors() {
    check("collectors.txt");
}

#[test]
fn awkward_bytes_and_configuration() {
    check("awkward.txt");
}

#[test]
fn ruby_php_elixir_servers_and_what_dies() {
    check("programs.txt");
}

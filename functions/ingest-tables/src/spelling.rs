//! How keys are spelled: as JSON objects, with the columns in the order of the schema file and each value as PostgreSQL
//! writes that type. Either may change, and what was written before is spelled as it was then.

use crate::spool::key_of_line;
use serde_json::value::RawValue;
use std::collections::HashMap;
use warehouse::schema::Table;
use warehouse_state::SourceColumn;

pub struct Spelling {
    /// Of the key.
    pub columns: Vec<SourceColumn>,
}

/// Types between which a value keeps its digits or characters.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Number,
    Text,
    Other,
}

impl Kind {
    pub fn of(of: &str) -> Kind {
        match of.split('(').next().unwrap_or_default() {
            "smallint" | "integer" | "bigint" | "numeric" => Kind::Number,
            "text" | "character varying" => Kind::Text,
            _ => Kind::Other,
        }
    }
}

/// A whole number or a decimal one, as PostgreSQL writes it.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, after) = digits.split_once('.').unwrap_or((digits, "0"));
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    are_digits(whole) && are_digits(after) && (whole == "0" || !whole.starts_with('0'))
}

impl Spelling {
    /// `columns` are those of the table.
    pub fn new(table: &Table, columns: &[SourceColumn]) -> Self {
        let find = |at: &usize| columns.iter().find(|column| column.name == table.columns[*at].name).cloned();
        Spelling { columns: table.key.iter().filter_map(find).collect() }
    }

    /// Whether keys are spelled as they were; none: it was not noted how, and nothing says that they were not.
    pub fn is(&self, before: &[SourceColumn]) -> bool {
        before.is_empty() || self.columns == before
    }

    /// Whether a key that was spelled by those columns can be spelled by these.
    pub fn follows(&self, before: &[SourceColumn]) -> bool {
        let follows = |column: &SourceColumn| {
            before.iter().find(|other| other.name == column.name).is_some_and(|other| {
                let are_known = Kind::of(&column.of) != Kind::Other && Kind::of(&other.of) != Kind::Other;
                other.of == column.of || are_known
            })
        };
        before.is_empty() || self.columns.iter().all(follows)
    }

    /// A key as it is spelled now; `None`: it lacks a column.
    pub fn key(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.spell(&serde_json::from_slice(key).ok()?)
    }

    /// The key of a line that an ingest wrote, and whether the line deletes it.
    pub fn line(&self, line: &[u8]) -> Option<(Vec<u8>, bool)> {
        let row: HashMap<String, &RawValue> = serde_json::from_slice(line).ok()?;
        let is_deletion =
            row.contains_key("_deleted_at") && row.get("_deleted").is_some_and(|value| value.get() == "true");
        let key = self.spell(&row)?;
        let is_null = |column: &SourceColumn| row.get(&column.name).is_some_and(|value| value.get() == "null");
        Some((if self.columns.iter().any(is_null) { key_of_line(line) } else { key }, is_deletion))
    }

    fn spell(&self, row: &HashMap<String, &RawValue>) -> Option<Vec<u8>> {
        let mut key = Vec::from(b"{");
        for column in &self.columns {
            if key.len() > 1 {
                key.push(b',');
            }
            serde_json::to_writer(&mut key, &column.name).ok()?;
            key.push(b':');
            let value = row.get(&column.name)?.get();
            let inner = value.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            match (Kind::of(&column.of), inner) {
                (Kind::Text, None) if is_number(value) => key.extend_from_slice(format!("\"{value}\"").as_bytes()),
                (Kind::Number, Some(inner)) if is_number(inner) => key.extend_from_slice(inner.as_bytes()),
                _ => key.extend_from_slice(value.as_bytes()),
            }
        }
        key.push(b'}');
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warehouse::schema::Schema;

    fn column(name: &str, of: &str) -> SourceColumn {
        SourceColumn { name: name.into(), of: of.into() }
    }

    fn spelling(of: &str) -> Spelling {
        let text = "version: 1\ntables:\n  t:\n    key: [id, \"na\\\"me\"]\n    cursor: at\n    \
                    columns: {id: text, \"na\\\"me\": text, at: timestamptz}\n";
        let table = Schema::parse(text.as_bytes()).expect("schema").tables.remove(0);
        Spelling::new(&table, &[column("at", "date"), column("na\"me", "text"), column("id", of)])
    }

    #[test]
    fn the_key_of_a_line_is_spelled_as_the_database_spells_it_and_only_our_deletions_are_deletions() {
        let key = br#"{"id":1,"na\"me":"\u00fc"}"#.to_vec();
        let read = |line: &str| spelling("integer").line(line.as_bytes());
        assert_eq!(read(r#"{"id":1,"x":2,"na\"me":"\u00fc","at":null}"#), Some((key.clone(), false)));
        assert_eq!(read(r#"{"na\"me":"\u00fc","_deleted":true,"id":1}"#), Some((key.clone(), false)));
        let deletion = r#"{"id":1,"na\"me":"\u00fc","_deleted":true,"_deleted_at":"2024-01-01T00:00:00Z"}"#;
        assert_eq!(read(deletion), Some((key, true)));
        assert_eq!(read(r#"{"id":1}"#), None);
        let without_key = r#"{"id":null,"na\"me":"\u00fc","at":null}"#;
        assert_eq!(read(without_key), Some((key_of_line(without_key.as_bytes()), false)));
    }

    #[test]
    fn a_key_follows_its_columns_to_another_order_and_from_numbers_to_texts_and_back() {
        for (of, before, after) in [
            ("text", r#"{"na\"me":"x","id":1}"#, r#"{"id":"1","na\"me":"x"}"#),
            ("character varying(9)", r#"{"id":-1.50,"na\"me":"2"}"#, r#"{"id":"-1.50","na\"me":"2"}"#),
            ("bigint", r#"{"id":"12","na\"me":"2"}"#, r#"{"id":12,"na\"me":"2"}"#),
            ("numeric(9,2)", r#"{"id":"0.5","na\"me":"2"}"#, r#"{"id":0.5,"na\"me":"2"}"#),
            // No numbers as PostgreSQL writes them.
            ("integer", r#"{"id":"01","na\"me":"x"}"#, r#"{"id":"01","na\"me":"x"}"#),
            ("integer", r#"{"id":"1.","na\"me":"x"}"#, r#"{"id":"1.","na\"me":"x"}"#),
            ("text", r#"{"id":null,"na\"me":"x"}"#, r#"{"id":null,"na\"me":"x"}"#),
        ] {
            let spelled = spelling(of).key(before.as_bytes()).expect("a key");
            assert_eq!(String::from_utf8(spelled).expect("text"), after, "{of}");
        }
        assert_eq!(spelling("text").key(br#"{"id":1}"#), None);
    }

    #[test]
    fn what_is_known_is_of_use_for_the_same_columns_and_for_types_with_the_same_digits() {
        let now = spelling("text");
        let before = |id: &str, name: &str| [column(name, "text"), column("id", id)];
        assert!(now.follows(&[]) && now.is(&[]));
        assert!(now.follows(&before("numeric(9,2)", "na\"me")) && !now.is(&before("text", "na\"me")));
        assert!(!now.follows(&before("uuid", "na\"me")));
        assert!(!now.follows(&before("text", "other")));
        assert!(spelling("date").follows(&before("date", "na\"me")));
        assert!(!spelling("date").follows(&before("timestamp with time zone", "na\"me")));
    }
}

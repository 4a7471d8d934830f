//! One line of an object: a row as it was, or the news that a key is gone.

use crate::{
    schema::Table,
    time,
    value::{Misfit, Type, Value, write_key},
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, collections::BTreeSet, collections::HashMap, fmt};

/// What a line says of its key.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Equal for equal keys of all tables; see [`write_key`].
    pub key: Vec<u8>,
    pub change: Change,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub enum Change {
    Row {
        /// One value for each column of the table.
        values: Vec<Value>,
        /// The cursor in microseconds since 1970, where it is finite.
        at: Option<i64>,
        is_deleted: bool,
    },
    /// The comparison of keys did not find it any more.
    Gone {
        /// Null except in key columns.
        values: Vec<Value>,
        at: Option<i64>,
    },
}

/// Why a line stays out of the tables. It is kept with its reason.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error("the line is not valid UTF-8")]
    NotUtf8,
    #[error("the line is not a JSON object")]
    NotObject,
    #[error("the key column {column} is missing or null")]
    KeyMissing { column: String },
    #[error("the value of {column} {misfit} ({of})")]
    Misfit { column: String, of: Type, misfit: Misfit },
}

/// Reads the lines of a table, and remembers which columns they had.
pub struct LineReader<'a> {
    table: &'a Table,
    positions: HashMap<&'a str, usize>,
    /// Columns of lines that the file does not name.
    added: BTreeSet<String>,
    /// Which columns of the file the rows of the current object have had.
    present: Vec<bool>,
    rows: u64,
    dropped: Vec<usize>,
}

impl<'a> LineReader<'a> {
    pub fn new(table: &'a Table) -> Self {
        let positions = table.columns.iter().enumerate().map(|(at, column)| (column.name.as_str(), at)).collect();
        let present = vec![false; table.columns.len()];
        LineReader { table, positions, added: BTreeSet::new(), present, rows: 0, dropped: Vec::new() }
    }

    /// Reads a line without its end.
    pub fn read(&mut self, line: &[u8]) -> Result<Line, Refusal> {
        let text = std::str::from_utf8(line).map_err(|_| Refusal::NotUtf8)?;
        let object: Object = serde_json::from_str(text).map_err(|_| Refusal::NotObject)?;
        let mut raw: Vec<Option<&RawValue>> = vec![None; self.table.columns.len()];
        let (mut is_gone, mut gone_at) = (false, None);
        let mut strangers = Vec::new();
        for (name, value) in object.0 {
            match self.positions.get(name.as_ref()) {
                Some(at) => raw[*at] = Some(value),
                None => match name.as_ref() {
                    "_deleted" => is_gone = value.get() == "true",
                    "_deleted_at" => gone_at = Type::Timestamptz.read(value).ok(),
                    _ => strangers.push(name),
                },
            }
        }
        if !is_gone {
            self.note(&raw, strangers);
        }
        let mut values = vec![Value::Null; raw.len()];
        for (at, column) in self.table.columns.iter().enumerate() {
            if is_gone && !self.table.key.contains(&at) {
                continue;
            }
            if let Some(json) = raw[at] {
                let misfit = |misfit| Refusal::Misfit { column: column.name.clone(), of: column.of.clone(), misfit };
                values[at] = column.of.read(json).map_err(misfit)?;
            }
        }
        let mut key = Vec::new();
        for at in &self.table.key {
            let column = &self.table.columns[*at];
            if values[*at].is_null() {
                return Err(Refusal::KeyMissing { column: column.name.clone() });
            }
            write_key(&values[*at], &column.of, &mut key);
        }
        let change = if is_gone {
            Change::Gone { values, at: gone_at.as_ref().and_then(finite) }
        } else {
            let is_deleted = self.table.soft_delete.is_some_and(|at| is_set(&values[at]));
            // The greatest cursor counts, so that an infinite one is no time at all.
            let cursors = self.table.cursor.iter().filter_map(|at| instant(&values[*at]));
            let at = cursors.max().filter(|at| *at != time::INFINITY && *at != time::MINUS_INFINITY);
            Change::Row { values, at, is_deleted }
        };
        Ok(Line { key, change })
    }

    /// Ends an object: what its rows did not have is dropped at the source, as far as one can see.
    pub fn end_object(&mut self) {
        if self.rows > 0 {
            self.dropped = (0..self.present.len()).filter(|at| !self.present[*at]).collect();
        }
        self.present.fill(false);
        self.rows = 0;
    }

    /// Columns that lines have and the file does not.
    pub fn added(&self) -> impl Iterator<Item = &str> {
        self.added.iter().map(String::as_str)
    }

    /// Columns of the file that no row of the latest object had.
    pub fn dropped(&self) -> impl Iterator<Item = &str> {
        self.dropped.iter().map(|at| self.table.columns[*at].name.as_str())
    }

    fn note(&mut self, raw: &[Option<&RawValue>], strangers: Vec<Cow<str>>) {
        self.rows += 1;
        for (present, value) in self.present.iter_mut().zip(raw) {
            *present |= value.is_some();
        }
        for name in strangers {
            if !self.added.contains(name.as_ref()) {
                self.added.insert(name.into_owned());
            }
        }
    }
}

fn instant(value: &Value) -> Option<i64> {
    match value {
        Value::Timestamp(micros) => Some(*micros),
        _ => None,
    }
}

fn finite(value: &Value) -> Option<i64> {
    instant(value).filter(|at| *at != time::INFINITY && *at != time::MINUS_INFINITY)
}

/// Whether the column of a soft delete says deleted: true, or anything that is neither false nor null.
fn is_set(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Boolean(false))
}

/// The members of a JSON object as they stand; of a name that stands twice the last one counts.
struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;
            fn expecting(&self, to: &mut fmt::Formatter) -> fmt::Result {
                to.write_str("an object")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut members = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    members.push((name, map.next_value()?));
                }
                Ok(members)
            }
        }
        from.deserialize_map(Members).map(Object)
    }
}

/// Borrowed where the name has no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Cow<'de, str>;
            fn expecting(&self, to: &mut fmt::Formatter) -> fmt::Result {
                to.write_str("a name")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(text))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
        }
        from.deserialize_str(Text).map(Name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Schema;

    fn table() -> Table {
        let text = "version: 1\ntables:\n  t:\n    key: [id, day]\n    cursor: [updated_at, created_at]\n    \
            soft_delete: gone\n    columns: {id: integer, day: date, n: \"decimal(4,1)\", gone: boolean, \
            created_at: timestamptz, updated_at: timestamp}\n";
        Schema::parse(text.as_bytes()).expect("schema").tables.remove(0)
    }

    fn read(line: &str) -> Result<Line, Refusal> {
        LineReader::new(&table()).read(line.as_bytes())
    }

    #[test]
    fn a_row_has_its_greatest_cursor_and_its_soft_delete() {
        let line = read(
            r#"{"id":1,"day":"2024-01-01","n":1.5,"gone":true,"created_at":"1970-01-01T00:00:02+00:00","updated_at":null}"#,
        );
        let Ok(Line { change: Change::Row { values, at, is_deleted }, .. }) = line else { panic!("{line:?}") };
        assert_eq!((at, is_deleted, &values[2]), (Some(2_000_000), true, &Value::Decimal(15)));
        let line = read(r#"{"id":1,"day":"2024-01-01","created_at":"1970-01-01T00:00:02Z","updated_at":"infinity"}"#);
        assert!(matches!(line, Ok(Line { change: Change::Row { at: None, .. }, .. })), "{line:?}");
    }

    #[test]
    fn a_gone_key_has_its_time() {
        let line = read(r#"{"id":1,"day":"2024-01-01","_deleted":true,"_deleted_at":"1970-01-01T00:00:01Z"}"#);
        assert!(matches!(line, Ok(Line { change: Change::Gone { at: Some(1_000_000), .. }, .. })), "{line:?}");
    }

    #[test]
    fn what_is_no_row_is_refused_by_name() {
        for line in ["", "[]", "null", "1", "{", r#"{"id":1}x"#, r#"{"id":01}"#, "{\"id\":\"\u{1}\"}"] {
            assert_eq!(read(line), Err(Refusal::NotObject), "{line:?}");
        }
        assert_eq!(LineReader::new(&table()).read(b"{\"\xff\":1}"), Err(Refusal::NotUtf8));
        assert_eq!(read(r#"{"id":1}"#), Err(Refusal::KeyMissing { column: "day".into() }));
        assert_eq!(read(r#"{"id":null,"day":"2024-01-01"}"#), Err(Refusal::KeyMissing { column: "id".into() }));
        let refused = read(r#"{"id":1,"day":"2024-01-01","n":1.25}"#).expect_err("digits");
        assert_eq!(refused.to_string(), "the value of n has more digits than fit (decimal(4,1))");
    }

    #[test]
    fn columns_that_differ_from_the_file_are_known() {
        let table = table();
        let mut reader = LineReader::new(&table);
        reader.read(br#"{"id":1,"day":"2024-01-01","\u006eew":1,"n":1,"gone":null}"#).expect("line");
        reader.end_object();
        reader.read(br#"{"id":1,"day":"2024-01-01","gone":null,"created_at":null,"updated_at":null}"#).expect("line");
        reader.end_object();
        reader.read(br#"{"id":1,"day":"2024-01-01","_deleted":true}"#).expect("line");
        reader.end_object();
        assert_eq!(reader.added().collect::<Vec<_>>(), ["new"]);
        assert_eq!(reader.dropped().collect::<Vec<_>>(), ["n"]);
    }
}

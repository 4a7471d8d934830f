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
use std::{borrow::Cow, collections::BTreeSet, fmt};

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

/// Reads the lines of an object, and remembers which columns they had.
pub struct LineReader<'a> {
    table: &'a Table,
    /// The members of the last line. Those of the next one are most likely the same, in the same order.
    layout: Vec<(String, Member)>,
    /// The layout has members that were not noted.
    is_new: bool,
    /// Columns of lines that the file does not name.
    added: BTreeSet<String>,
    /// Which columns of the file the rows have had.
    present: Vec<bool>,
    rows: u64,
}

/// What a member of a line is.
#[derive(Clone, Copy)]
enum Member {
    Column(usize),
    Deleted,
    DeletedAt,
    /// A column that the file does not name.
    Stranger,
}

impl<'a> LineReader<'a> {
    pub fn new(table: &'a Table) -> Self {
        let present = vec![false; table.columns.len()];
        LineReader { table, layout: Vec::new(), is_new: false, added: BTreeSet::new(), present, rows: 0 }
    }

    /// Reads a line without its end.
    pub fn read(&mut self, line: &[u8]) -> Result<Line, Refusal> {
        let text = std::str::from_utf8(line).map_err(|_| Refusal::NotUtf8)?;
        let object: Object = serde_json::from_str(text).map_err(|_| Refusal::NotObject)?;
        let mut raw: Vec<Option<&RawValue>> = vec![None; self.table.columns.len()];
        let (mut is_marked, mut gone_at, mut has_strangers) = (false, None, false);
        self.layout.truncate(object.0.len());
        for (at, (name, value)) in object.0.into_iter().enumerate() {
            match self.member(at, name) {
                Member::Column(at) => raw[at] = Some(value),
                Member::Deleted => is_marked = value.get() == "true",
                Member::DeletedAt => gone_at = Some(Type::Timestamptz.read(value).ok()),
                Member::Stranger => has_strangers = true,
            }
        }
        // A row may have a column `_deleted` of its own: a deletion has its time, or nothing but the key.
        let is_rest = |at: &usize| raw[*at].is_some() && !self.table.key.contains(at);
        let is_gone = is_marked && (gone_at.is_some() || !has_strangers && !(0..raw.len()).any(|at| is_rest(&at)));
        if !is_gone {
            self.note(&raw);
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
            Change::Gone { values, at: gone_at.flatten().as_ref().and_then(finite) }
        } else {
            let is_deleted = self.table.soft_delete.is_some_and(|at| is_set(&values[at]));
            // The greatest cursor counts, so that an infinite one is no time at all.
            let cursors = self.table.cursor.iter().filter_map(|at| instant(&values[*at]));
            let at = cursors.max().filter(|at| *at != time::INFINITY && *at != time::MINUS_INFINITY);
            Change::Row { values, at, is_deleted }
        };
        Ok(Line { key, change })
    }

    /// Columns that lines have and the file does not.
    pub fn added(&self) -> impl Iterator<Item = &str> {
        self.added.iter().map(String::as_str)
    }

    /// Columns of the file that no row had: they are dropped at the source, as far as one can see. `None`: there were
    /// no rows.
    pub fn dropped(&self) -> Option<impl Iterator<Item = &str>> {
        let columns = self.table.columns.iter().zip(&self.present);
        (self.rows > 0).then(|| columns.filter(|(_, is_present)| !**is_present).map(|(column, _)| column.name.as_str()))
    }

    /// What the member at this place of a line is.
    fn member(&mut self, at: usize, name: Cow<str>) -> Member {
        if let Some((_, member)) = self.layout.get(at).filter(|(known, _)| *known == name) {
            return *member;
        }
        let member = match self.table.column(&name) {
            Some(column) => Member::Column(column),
            None if name == "_deleted" => Member::Deleted,
            None if name == "_deleted_at" => Member::DeletedAt,
            None => Member::Stranger,
        };
        self.layout.truncate(at);
        self.layout.push((name.into_owned(), member));
        self.is_new = true;
        member
    }

    /// Notes the columns of the line whose layout was just seen.
    fn note(&mut self, raw: &[Option<&RawValue>]) {
        self.rows += 1;
        for (present, value) in self.present.iter_mut().zip(raw) {
            *present |= value.is_some();
        }
        if std::mem::take(&mut self.is_new) {
            let strangers = self.layout.iter().filter(|(_, member)| matches!(member, Member::Stranger));
            self.added.extend(strangers.map(|(name, _)| name.clone()));
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
    fn a_row_with_a_column_called_deleted_is_a_row() {
        for (rest, is_gone) in [
            (r#","_deleted":true"#, true),
            (r#","_deleted":true,"_deleted_at":null,"n":1"#, true),
            (r#","_deleted":false"#, false),
            (r#","_deleted":true,"n":1"#, false),
            (r#","_deleted":true,"n":null"#, false),
            (r#","_deleted":true,"stranger":1"#, false),
        ] {
            let line = read(&format!(r#"{{"id":1,"day":"2024-01-01"{rest}}}"#)).expect("line");
            assert_eq!(matches!(line.change, Change::Gone { .. }), is_gone, "{rest}");
        }
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
        reader.read(br#"{"id":1,"day":"2024-01-01","_deleted":true,"_deleted_at":null,"why":1}"#).expect("line");
        assert_eq!((reader.added().count(), reader.dropped().is_none()), (0, true));
        reader.read(br#"{"id":1,"day":"2024-01-01","\u006eew":1,"gone":null}"#).expect("line");
        reader.read(br#"{"id":1,"gone":null,"day":"2024-01-01","created_at":null,"updated_at":null}"#).expect("line");
        assert_eq!(reader.added().collect::<Vec<_>>(), ["new"]);
        assert_eq!(reader.dropped().expect("rows").collect::<Vec<_>>(), ["n"]);
    }

    #[test]
    fn a_line_is_read_alike_whatever_line_was_before_it() {
        let table = table();
        let lines: [&[u8]; 5] = [
            br#"{"id":1,"day":"2024-01-01","n":1}"#,
            br#"{"day":"2024-01-01","n":1,"id":1}"#,
            br#"{"id":1,"day":"2024-01-01","_deleted":true,"n":7}"#,
            br#"{"id":1}"#,
            br#"{"x":1,"id":2,"id":1,"day":"2024-01-01","n":2}"#,
        ];
        for first in lines {
            for second in lines {
                let mut reader = LineReader::new(&table);
                let _ = reader.read(first);
                assert_eq!(reader.read(second), LineReader::new(&table).read(second));
            }
        }
    }
}

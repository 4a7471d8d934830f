//! The schema file: which tables are read, and what dimensions and facts become of them.

mod read;
mod yaml;

use crate::value::Type;
use jiff::civil::Date;
use serde::Serialize;
use std::time::Duration;

/// Larger files are refused before they are read.
pub const MAX_BYTES: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    pub tables: Vec<Table>,
    pub dimensions: Vec<Dimension>,
    pub date_dimension: Option<DateDimension>,
    pub facts: Vec<Fact>,
}

/// A source table. Columns are named by their position in `columns`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Table {
    pub name: String,
    pub source: Source,
    /// A missing id is a gap.
    pub sequential: bool,
    pub key: Vec<usize>,
    pub cursor: Vec<usize>,
    pub lookback: Duration,
    pub soft_delete: Option<usize>,
    /// How often all keys are compared; `None`: never.
    pub hard_deletes: Option<Duration>,
    pub columns: Vec<Column>,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Source {
    Database,
    /// Others put the objects into the ingestion bucket.
    Objects,
    /// What the partner feeds put below this content type.
    Feed {
        content_type: String,
    },
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Column {
    pub name: String,
    pub of: Type,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Dimension {
    pub name: String,
    /// Position in [`Schema::tables`].
    pub from: usize,
    pub type1: Vec<usize>,
    pub type2: Vec<usize>,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct DateDimension {
    pub from: Date,
    pub to: Date,
    /// Name in the IANA database.
    pub time_zone: String,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Fact {
    pub name: String,
    /// Position in [`Schema::tables`].
    pub from: usize,
    pub as_of: Option<usize>,
    pub roles: Vec<Role>,
    pub dates: Vec<DateRole>,
    /// Position in `dates`: the objects of each month of this date lie below a prefix of their own.
    pub partition: Option<usize>,
    pub columns: Vec<usize>,
}

/// A dimension as a fact refers to it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Role {
    pub name: String,
    /// Position in [`Schema::dimensions`].
    pub dimension: usize,
    /// As many as the dimension's source has key columns.
    pub columns: Vec<usize>,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct DateRole {
    pub name: String,
    pub column: usize,
}

/// Something wrong in a schema file.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Problem {
    /// From 1.
    pub line: usize,
    /// Such as `facts.visit.columns`; empty for the file as a whole.
    pub field: String,
    /// A stable name.
    pub error: &'static str,
    pub message: String,
}

impl Problem {
    fn syntax(line: usize, what: impl std::fmt::Display) -> Problem {
        let message = format!("this is not valid YAML: {what}");
        Problem { line: line.max(1), field: String::new(), error: "SyntaxInvalid", message }
    }
}

impl Schema {
    /// Reads a schema file; else all that is wrong with it, in the order of its lines.
    pub fn parse(text: &[u8]) -> Result<Schema, Vec<Problem>> {
        if text.len() > MAX_BYTES {
            return Err(vec![Problem::syntax(1, format_args!("it is larger than {MAX_BYTES} bytes"))]);
        }
        let text = std::str::from_utf8(text).map_err(|error| {
            let line = text[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
            vec![Problem::syntax(line, "it is not UTF-8")]
        })?;
        let root = yaml::parse(text).map_err(|problem| vec![problem])?;
        read::schema(&root)
    }

    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name == name)
    }
}

impl Table {
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// Where its objects lie in their bucket.
    pub fn prefix(&self) -> String {
        match &self.source {
            Source::Database | Source::Objects => format!("{}/", self.name),
            Source::Feed { content_type } => format!("{content_type}/"),
        }
    }

    /// Whether an output of the partner feeds is its input.
    pub fn is_fed_by(&self, key: &str) -> bool {
        matches!(self.source, Source::Feed { .. }) && key.starts_with(&self.prefix())
    }
}

impl Dimension {
    pub fn is_type2(&self) -> bool {
        !self.type2.is_empty()
    }
}

//! From the tree of a schema file to a [`Schema`], collecting every problem on the way.

use super::{
    Column, DateDimension, DateRole, Dimension, Fact, Problem, Role, Schema, Source, Table,
    yaml::{Entry, Kind, Node},
};
use crate::value::Type;
use jiff::{civil::Date, tz::TimeZone};
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

/// The longest name that PostgreSQL keeps.
const NAME_BYTES: usize = 63;
/// Days of a date dimension from 0001-01-01 to 9999-12-31.
const FIRST_YEAR: i16 = 1;

pub fn schema(root: &Node) -> Result<Schema, Vec<Problem>> {
    let mut reader = Reader { problems: Vec::new() };
    let schema = reader.schema(root);
    match schema {
        Some(schema) if reader.problems.is_empty() => Ok(schema),
        _ => {
            reader.problems.sort_by_key(|problem| problem.line);
            Err(reader.problems)
        }
    }
}

struct Reader {
    problems: Vec<Problem>,
}

/// A mapping whose properties are known by name.
struct Properties<'a> {
    line: usize,
    field: String,
    entries: Vec<&'a Entry>,
}

impl<'a> Properties<'a> {
    fn get(&self, name: &str) -> Option<&'a Node> {
        self.entries.iter().find(|entry| entry.key == name).map(|entry| &entry.value)
    }

    fn field(&self, name: &str) -> String {
        join(&self.field, name)
    }
}

fn join(field: &str, name: &str) -> String {
    if field.is_empty() { name.to_owned() } else { format!("{field}.{name}") }
}

impl Reader {
    fn report(&mut self, line: usize, field: impl Into<String>, error: &'static str, message: impl Into<String>) {
        self.problems.push(Problem { line, field: field.into(), error, message: message.into() });
    }

    // --- The file ----------------------------------------------------------------------------------------------------

    fn schema(&mut self, root: &Node) -> Option<Schema> {
        let known = ["version", "tables", "dimensions", "date_dimension", "facts"];
        let file = self.properties(root, "", &known)?;
        self.version(&file);
        let tables: Vec<Table> = match file.get("tables") {
            None => {
                self.report(file.line, "tables", "MissingProperty", "tables names the source tables; it is missing");
                Vec::new()
            }
            Some(node) => {
                let named = self.named(node, "tables");
                named.into_iter().filter_map(|entry| self.table(entry)).collect()
            }
        };
        let all_tables = self.names(file.get("tables"));
        let dimensions: Vec<Dimension> = match file.get("dimensions") {
            None => Vec::new(),
            Some(node) => {
                let named = self.named(node, "dimensions");
                named.into_iter().filter_map(|entry| self.dimension(entry, &tables, &all_tables)).collect()
            }
        };
        let all_dimensions = self.names(file.get("dimensions"));
        let date_dimension = file.get("date_dimension").and_then(|node| self.date_dimension(node));
        let known = Known {
            tables: &tables,
            all_tables: &all_tables,
            dimensions: &dimensions,
            all_dimensions: &all_dimensions,
            has_dates: file.get("date_dimension").is_some_and(|node| !node.is_null()),
        };
        let facts = match file.get("facts") {
            None => Vec::new(),
            Some(node) => {
                let named = self.named(node, "facts");
                named.into_iter().filter_map(|entry| self.fact(entry, &known)).collect()
            }
        };
        self.shared_feeds(&tables, file.get("tables"));
        Some(Schema { tables, dimensions, date_dimension, facts })
    }

    fn version(&mut self, file: &Properties) {
        match file.get("version") {
            None => self.report(file.line, "version", "MissingProperty", "version is missing; write: version: 1"),
            Some(node) => {
                if self.scalar(node, "version").is_some_and(|text| text != "1") {
                    self.report(node.line, "version", "UnsupportedVersion", "this program reads version 1");
                }
            }
        }
    }

    /// One content type makes one table, else a line would be in two.
    fn shared_feeds(&mut self, tables: &[Table], node: Option<&Node>) {
        let mut seen = HashSet::new();
        for table in tables {
            if let Source::Feed { content_type } = &table.source
                && !seen.insert(content_type)
            {
                let line = node.map_or(1, |node| line_of(node, &table.name));
                let message = format!("the content type {content_type} feeds another table already");
                self.report(line, format!("tables.{}.source", table.name), "DuplicateName", message);
            }
        }
    }

    // --- Source tables -----------------------------------------------------------------------------------------------

    fn table(&mut self, entry: &Entry) -> Option<Table> {
        let field = join("tables", &entry.key);
        if entry.key.contains('/') || entry.key.len() > NAME_BYTES || entry.key.starts_with('_') && entry.key.len() == 1
        {
            let message =
                format!("a table's name has at most {NAME_BYTES} bytes and no slash: it is a prefix of objects");
            self.report(entry.line, &field, "InvalidName", message);
        }
        let known = ["source", "sequential", "key", "cursor", "lookback", "soft_delete", "hard_deletes", "columns"];
        let table = self.properties(&entry.value, &field, &known)?;
        let source = self.source(&table);
        let columns = self.columns(&table);
        let found = |name: &str| columns.iter().position(|column| column.name == name);

        let key_field = table.field("key");
        let key = match table.get("key") {
            None => {
                self.report(
                    table.line,
                    &key_field,
                    "MissingProperty",
                    "key names the columns that tell rows apart; it is missing",
                );
                Vec::new()
            }
            Some(node) => self.some_columns(node, &key_field, &entry.key, &found),
        };
        for column in &key {
            if !columns[*column].of.is_keyable() {
                let message =
                    format!("{} is {}, which cannot be part of a key", columns[*column].name, columns[*column].of);
                self.report(table.get("key").map_or(table.line, |node| node.line), &key_field, "WrongType", message);
            }
        }

        let cursor_field = table.field("cursor");
        let cursor = match table.get("cursor") {
            None if source == Some(Source::Database) => {
                let message = "cursor names the columns with the time of the last change; a database table needs it";
                self.report(table.line, &cursor_field, "MissingProperty", message);
                Vec::new()
            }
            None => Vec::new(),
            Some(node) => {
                let cursor = self.some_columns(node, &cursor_field, &entry.key, &found);
                for column in &cursor {
                    if !columns[*column].of.is_instant() {
                        let message = format!(
                            "{} is {}; a cursor is timestamptz or timestamp",
                            columns[*column].name, columns[*column].of
                        );
                        self.report(node.line, &cursor_field, "WrongType", message);
                    }
                }
                cursor
            }
        };

        let soft_delete = table
            .get("soft_delete")
            .and_then(|node| self.one_column(node, &table.field("soft_delete"), &entry.key, &found));
        let lookback = table.get("lookback").and_then(|node| self.duration(node, &table.field("lookback")));
        let hard_deletes = table.get("hard_deletes").and_then(|node| self.duration(node, &table.field("hard_deletes")));
        for name in ["lookback", "hard_deletes"] {
            if let Some(node) = table.get(name)
                && source.as_ref().is_some_and(|source| *source != Source::Database)
            {
                let message = format!("{name} belongs to tables that are read from the database");
                self.report(node.line, table.field(name), "NotApplicable", message);
            }
        }
        if table.get("hard_deletes").is_some()
            && let Some(node) = table.get("columns")
        {
            for name in ["_deleted", "_deleted_at"].into_iter().filter(|name| found(name).is_some()) {
                let message = format!("{name} tells a deletion where hard_deletes finds one; it cannot be a column");
                self.report(line_of(node, name), join(&table.field("columns"), name), "InvalidName", message);
            }
        }
        let is_feed = matches!(source, Some(Source::Feed { .. }));
        let sequential = table.get("sequential").and_then(|node| self.boolean(node, &table.field("sequential")));
        Some(Table {
            name: entry.key.clone(),
            source: source.unwrap_or(Source::Database),
            sequential: sequential.unwrap_or(!is_feed),
            key,
            cursor,
            lookback: lookback.unwrap_or_default(),
            soft_delete,
            hard_deletes,
            columns,
        })
    }

    fn source(&mut self, table: &Properties) -> Option<Source> {
        let Some(node) = table.get("source") else { return Some(Source::Database) };
        let field = table.field("source");
        let text = self.scalar(node, &field)?;
        match text.split_once('/') {
            None if text == "database" => Some(Source::Database),
            None if text == "objects" => Some(Source::Objects),
            Some(("feed", name)) if !name.is_empty() && !name.contains('/') => {
                Some(Source::Feed { content_type: name.to_owned() })
            }
            _ => {
                self.report(
                    node.line,
                    field,
                    "InvalidValue",
                    format!("{text} is no source; it is database, objects or feed/CONTENT_TYPE"),
                );
                None
            }
        }
    }

    fn columns(&mut self, table: &Properties) -> Vec<Column> {
        let field = table.field("columns");
        let Some(node) = table.get("columns") else {
            self.report(table.line, field, "MissingProperty", "columns names each column with its type; it is missing");
            return Vec::new();
        };
        let mut columns = Vec::new();
        for entry in self.named(node, &field) {
            let field = join(&field, &entry.key);
            let Some(text) = self.scalar(&entry.value, &field) else { continue };
            match text.parse::<Type>() {
                Ok(of) => columns.push(Column { name: entry.key.clone(), of }),
                Err(message) => {
                    self.report(entry.value.line, field, "UnknownType", message);
                    // Other properties may name it all the same.
                    columns.push(Column { name: entry.key.clone(), of: Type::Text });
                }
            }
        }
        columns
    }

    // --- Dimensions --------------------------------------------------------------------------------------------------

    fn dimension(&mut self, entry: &Entry, tables: &[Table], all_tables: &HashSet<String>) -> Option<Dimension> {
        let field = join("dimensions", &entry.key);
        self.output_name(entry, &field);
        if entry.key == "date" {
            self.report(entry.line, &field, "DuplicateName", "dim_date is the date dimension; choose another name");
        }
        let dimension = self.properties(&entry.value, &field, &["from", "type1", "type2"])?;
        let from = self.from(&dimension, tables, all_tables)?;
        let table = &tables[from];
        let found = |name: &str| table.column(name);
        let mut lists = ["type1", "type2"].map(|name| {
            let columns =
                dimension.get(name).map(|node| self.column_list(node, &dimension.field(name), &table.name, &found));
            columns.unwrap_or_default()
        });
        for column in &lists[1] {
            if lists[0].contains(column) {
                let line = dimension.get("type2").map_or(dimension.line, |node| node.line);
                let message = format!("{} is of type 1 already", table.columns[*column].name);
                self.report(line, dimension.field("type2"), "DuplicateName", message);
            }
        }
        // Columns of the key come along anyway.
        for list in &mut lists {
            list.retain(|column| !table.key.contains(column));
        }
        let [type1, type2] = lists;
        let mut made = vec![format!("{}_key", entry.key), "is_deleted".to_owned()];
        if !type2.is_empty() {
            made.extend(["valid_from", "valid_to", "is_current"].map(str::to_owned));
        }
        self.clashes(entry.line, &field, &made, table, table.key.iter().chain(&type1).chain(&type2));
        Some(Dimension { name: entry.key.clone(), from, type1, type2 })
    }

    fn date_dimension(&mut self, node: &Node) -> Option<DateDimension> {
        let field = "date_dimension";
        let properties = self.properties(node, field, &["from", "to", "time_zone"])?;
        let mut bounds = ["from", "to"].map(|name| {
            let Some(node) = properties.get(name) else {
                let message = format!("{name} is missing");
                self.report(properties.line, properties.field(name), "MissingProperty", message);
                return None;
            };
            let text = self.scalar(node, &properties.field(name))?;
            let date = text.parse::<Date>().ok().filter(|date| date.year() >= FIRST_YEAR && text.len() == 10);
            if date.is_none() {
                let message = format!("{text} is not a date; write it as 2024-12-31");
                self.report(node.line, properties.field(name), "InvalidValue", message);
            }
            date
        });
        if let [Some(from), Some(to)] = bounds
            && from > to
        {
            let line = properties.get("to").map_or(properties.line, |node| node.line);
            self.report(line, properties.field("to"), "InvalidValue", format!("{to} is before {from}"));
        }
        let time_zone = match properties.get("time_zone") {
            None => "UTC".to_owned(),
            Some(node) => {
                let text = self.scalar(node, &properties.field("time_zone"))?;
                if TimeZone::get(text).is_err() {
                    let message = format!("{text} is no time zone; write it as Europe/Berlin");
                    self.report(node.line, properties.field("time_zone"), "InvalidValue", message);
                }
                text.to_owned()
            }
        };
        Some(DateDimension { from: bounds[0].take()?, to: bounds[1].take()?, time_zone })
    }

    // --- Facts -------------------------------------------------------------------------------------------------------

    fn fact(&mut self, entry: &Entry, known: &Known) -> Option<Fact> {
        let field = join("facts", &entry.key);
        self.output_name(entry, &field);
        let fact =
            self.properties(&entry.value, &field, &["from", "as_of", "dimensions", "dates", "partition", "columns"])?;
        let from = self.from(&fact, known.tables, known.all_tables)?;
        let table = &known.tables[from];
        let found = |name: &str| table.column(name);
        let as_of = fact.get("as_of").and_then(|node| {
            let column = self.one_column(node, &fact.field("as_of"), &table.name, &found)?;
            let of = &table.columns[column].of;
            if !of.is_instant() && *of != Type::Date {
                let message =
                    format!("{} is {of}; as_of is a timestamptz, a timestamp or a date", table.columns[column].name);
                self.report(node.line, fact.field("as_of"), "WrongType", message);
            }
            Some(column)
        });
        let mut roles = Vec::new();
        if let Some(node) = fact.get("dimensions") {
            for role in self.named(node, &fact.field("dimensions")) {
                roles.extend(self.role(role, &fact.field("dimensions"), table, known));
            }
            let type2 = roles.iter().find(|role: &&Role| known.dimensions[role.dimension].is_type2());
            if let (Some(role), None) = (type2, fact.get("as_of")) {
                let name = &known.dimensions[role.dimension].name;
                let message = format!("the dimension {name} has versions; as_of says which column's time chooses one");
                self.report(fact.line, fact.field("as_of"), "MissingProperty", message);
            }
        }
        let dates = self.dates(&fact, table, known.has_dates);
        let partition = fact.get("partition").and_then(|node| {
            let field = fact.field("partition");
            let name = self.scalar(node, &field)?;
            let found = dates.iter().position(|date| date.name == name);
            if found.is_none() {
                let message = format!("{name} is none of the fact's dates; their months are what a fact is divided by");
                self.report(node.line, field, "UnknownDate", message);
            }
            found
        });
        let mut columns = match fact.get("columns") {
            None => Vec::new(),
            Some(node) => self.column_list(node, &fact.field("columns"), &table.name, &found),
        };
        columns.retain(|column| !table.key.contains(column));
        let mut made = vec!["is_deleted".to_owned()];
        made.extend(roles.iter().map(|role| format!("{}_key", role.name)));
        made.extend(dates.iter().map(|date| format!("{}_date_key", date.name)));
        made.extend(partition.map(|at: usize| format!("{}_month", dates[at].name)));
        self.clashes(entry.line, &field, &made, table, table.key.iter().chain(&columns));
        Some(Fact { name: entry.key.clone(), from, as_of, roles, dates, partition, columns })
    }

    fn role(&mut self, entry: &Entry, parent: &str, table: &Table, known: &Known) -> Option<Role> {
        let field = join(parent, &entry.key);
        self.output_name(entry, &field);
        let (dimension, columns, line) = match &entry.value.kind {
            Kind::Map(_) => {
                let role = self.properties(&entry.value, &field, &["dimension", "column"])?;
                let name = match role.get("dimension") {
                    Some(node) => self.scalar(node, &role.field("dimension"))?,
                    None => &entry.key,
                };
                let Some(columns) = role.get("column") else {
                    self.report(role.line, role.field("column"), "MissingProperty", "column is missing");
                    return None;
                };
                (name, columns, role.get("dimension").map_or(role.line, |node| node.line))
            }
            _ => (entry.key.as_str(), &entry.value, entry.line),
        };
        let columns_line = columns.line;
        let columns = self.some_columns(columns, &field, &table.name, &|name| table.column(name));
        let Some(position) = known.dimensions.iter().position(|other| other.name == dimension) else {
            // One that is there but wrong has been reported.
            if !known.all_dimensions.contains(dimension) {
                self.report(line, field, "UnknownDimension", format!("there is no dimension {dimension}"));
            }
            return None;
        };
        let target = &known.tables[known.dimensions[position].from];
        if columns.is_empty() {
            return None;
        }
        if columns.len() != target.key.len() {
            let message =
                format!("the key of {} has {} columns, here are {}", target.name, target.key.len(), columns.len());
            self.report(columns_line, field, "KeyMismatch", message);
            return None;
        }
        for (column, key) in columns.iter().zip(&target.key) {
            let (column, key) = (&table.columns[*column], &target.columns[*key]);
            if !column.of.joins(&key.of) {
                let message =
                    format!("{} is {}, but {}.{} is {}", column.name, column.of, target.name, key.name, key.of);
                self.report(columns_line, &field, "KeyMismatch", message);
            }
        }
        Some(Role { name: entry.key.clone(), dimension: position, columns })
    }

    fn dates(&mut self, fact: &Properties, table: &Table, has_dates: bool) -> Vec<DateRole> {
        let Some(node) = fact.get("dates") else { return Vec::new() };
        let field = fact.field("dates");
        let mut dates = Vec::new();
        for entry in self.named(node, &field) {
            let field = join(&field, &entry.key);
            self.output_name(entry, &field);
            let column = self.one_column(&entry.value, &field, &table.name, &|name| table.column(name));
            let Some(column) = column else { continue };
            let of = &table.columns[column].of;
            if !of.is_instant() && *of != Type::Date {
                let message = format!(
                    "{} is {of}; a date comes from a date, a timestamp or a timestamptz",
                    table.columns[column].name
                );
                self.report(entry.value.line, &field, "WrongType", message);
            }
            dates.push(DateRole { name: entry.key.clone(), column });
        }
        if !has_dates && !dates.is_empty() {
            let message = "facts with dates need a date_dimension, which is missing";
            self.report(node.line, field, "MissingProperty", message);
        }
        dates
    }

    // --- Parts -------------------------------------------------------------------------------------------------------

    fn from(&mut self, properties: &Properties, tables: &[Table], all_tables: &HashSet<String>) -> Option<usize> {
        let field = properties.field("from");
        let Some(node) = properties.get("from") else {
            self.report(properties.line, field, "MissingProperty", "from names the source table; it is missing");
            return None;
        };
        let name = self.scalar(node, &field)?;
        let found = tables.iter().position(|table| table.name == name);
        // One that is there but wrong has been reported.
        if found.is_none() && !all_tables.contains(name) {
            self.report(node.line, field, "UnknownTable", format!("there is no table {name} among the tables"));
        }
        found
    }

    /// Names of dimensions, facts and roles become names of tables and columns.
    fn output_name(&mut self, entry: &Entry, field: &str) {
        let fits = |name: &str| name.chars().all(|char| char.is_alphanumeric() || char == '_');
        if entry.key.is_empty() || entry.key.len() > NAME_BYTES || !fits(&entry.key) {
            let message = format!("a name has 1 to {NAME_BYTES} letters, digits and underscores");
            self.report(entry.line, field, "InvalidName", message);
        }
    }

    /// Columns of one name, those made here and those that come along; readers of Parquet do not tell case apart.
    fn clashes<'a>(
        &mut self,
        line: usize,
        field: &str,
        made: &[String],
        table: &Table,
        columns: impl Iterator<Item = &'a usize>,
    ) {
        let mut seen: HashSet<String> = HashSet::new();
        for name in made {
            if !seen.insert(name.to_lowercase()) {
                self.report(line, field, "DuplicateName", format!("two columns would be called {name}"));
            }
        }
        let mut along: HashMap<String, &str> = HashMap::new();
        for column in columns {
            let name = table.columns[*column].name.as_str();
            let message = match along.insert(name.to_lowercase(), name) {
                _ if seen.contains(&name.to_lowercase()) => {
                    format!("the column {name} of {} has the name of a column that is made here", table.name)
                }
                Some(other) if other != name => {
                    format!("the columns {other} and {name} of {} differ only by case", table.name)
                }
                _ => continue,
            };
            self.report(line, field, "DuplicateName", message);
        }
    }

    fn names(&self, node: Option<&Node>) -> HashSet<String> {
        match node.map(|node| &node.kind) {
            Some(Kind::Map(entries)) => entries.iter().map(|entry| entry.key.clone()).collect(),
            _ => HashSet::new(),
        }
    }

    /// A mapping with known properties only.
    fn properties<'a>(&mut self, node: &'a Node, field: &str, known: &[&str]) -> Option<Properties<'a>> {
        let entries = self.named(node, field);
        if entries.is_empty() && !matches!(node.kind, Kind::Map(_)) {
            return None;
        }
        for entry in &entries {
            if !known.contains(&entry.key.as_str()) {
                let message = format!("{} is no property here; known are {}", entry.key, known.join(", "));
                self.report(entry.line, join(field, &entry.key), "UnknownProperty", message);
            }
        }
        Some(Properties { line: node.line, field: field.to_owned(), entries })
    }

    /// A mapping from names; a name that stands twice counts once.
    fn named<'a>(&mut self, node: &'a Node, field: &str) -> Vec<&'a Entry> {
        let Kind::Map(entries) = &node.kind else {
            self.report(node.line, field, "WrongType", format!("a mapping is wanted, here is {}", node.describe()));
            return Vec::new();
        };
        let mut seen = HashSet::new();
        let mut first = Vec::new();
        for entry in entries {
            if seen.insert(entry.key.as_str()) {
                first.push(entry);
            } else {
                self.report(
                    entry.line,
                    join(field, &entry.key),
                    "DuplicateName",
                    format!("{} stands here twice", entry.key),
                );
            }
        }
        first
    }

    fn scalar<'a>(&mut self, node: &'a Node, field: &str) -> Option<&'a str> {
        match &node.kind {
            Kind::Scalar { text, .. } if !node.is_null() => Some(text),
            _ => {
                self.report(
                    node.line,
                    field,
                    "WrongType",
                    format!("a single value is wanted, here is {}", node.describe()),
                );
                None
            }
        }
    }

    /// One column or a list of different columns.
    fn column_list(
        &mut self,
        node: &Node,
        field: &str,
        table: &str,
        found: &dyn Fn(&str) -> Option<usize>,
    ) -> Vec<usize> {
        let items = match &node.kind {
            Kind::List(items) => items.iter().collect(),
            _ => vec![node],
        };
        let mut columns = Vec::new();
        for item in items {
            // A column may be called null, so that a list may hold this word.
            let name = match &item.kind {
                Kind::Scalar { text, .. } if !text.is_empty() && text != "~" => text,
                _ => {
                    self.report(
                        item.line,
                        field,
                        "WrongType",
                        format!("the name of a column is wanted, here is {}", item.describe()),
                    );
                    continue;
                }
            };
            match found(name) {
                None => {
                    self.report(item.line, field, "UnknownColumn", format!("{table} has no column {name} in this file"))
                }
                Some(column) if columns.contains(&column) => {
                    self.report(item.line, field, "DuplicateName", format!("{name} stands here twice"));
                }
                Some(column) => columns.push(column),
            }
        }
        columns
    }

    /// The columns of a property that is of no use without any: a key of none would make one row of a whole table.
    fn some_columns(
        &mut self,
        node: &Node,
        field: &str,
        table: &str,
        found: &dyn Fn(&str) -> Option<usize>,
    ) -> Vec<usize> {
        if matches!(&node.kind, Kind::List(items) if items.is_empty()) {
            self.report(node.line, field, "InvalidValue", "a column is wanted, the list is empty");
        }
        self.column_list(node, field, table, found)
    }

    /// The column of a property that takes one; a list of one is as good.
    fn one_column(
        &mut self,
        node: &Node,
        field: &str,
        table: &str,
        found: &dyn Fn(&str) -> Option<usize>,
    ) -> Option<usize> {
        let columns = self.some_columns(node, field, table, found);
        if columns.len() > 1 {
            self.report(node.line, field, "WrongType", format!("one column is wanted, here are {}", columns.len()));
        }
        columns.first().copied()
    }

    fn boolean(&mut self, node: &Node, field: &str) -> Option<bool> {
        match self.scalar(node, field)? {
            "true" => Some(true),
            "false" => Some(false),
            text => {
                self.report(node.line, field, "InvalidValue", format!("{text} is neither true nor false"));
                None
            }
        }
    }

    /// `90s`, `5m`, `1h30m`, `7d`.
    fn duration(&mut self, node: &Node, field: &str) -> Option<Duration> {
        let text = self.scalar(node, field)?;
        let duration = parse_duration(text);
        if duration.is_none() {
            self.report(
                node.line,
                field,
                "InvalidValue",
                format!("{text} is no duration; write it as 60s, 5m, 1h30m or 7d"),
            );
        }
        duration
    }
}

/// What facts refer to.
struct Known<'a> {
    tables: &'a [Table],
    /// Also those with errors, which are reported once.
    all_tables: &'a HashSet<String>,
    dimensions: &'a [Dimension],
    all_dimensions: &'a HashSet<String>,
    has_dates: bool,
}

fn line_of(node: &Node, key: &str) -> usize {
    match &node.kind {
        Kind::Map(entries) => entries.iter().find(|entry| entry.key == key).map_or(node.line, |entry| entry.line),
        _ => node.line,
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let (mut rest, mut seconds) = (text, 0_u64);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = match rest.as_bytes().get(digits)? {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            _ => return None,
        };
        seconds = seconds.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[digits + 1..];
    }
    // A century is more than any cursor goes back.
    (seconds <= 100 * 366 * 86_400).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"
version: 1
tables:
  patient:
    key: patient_id
    cursor: [updated_at, created_at]
    lookback: 60s
    soft_delete: deleted_at
    hard_deletes: 0s
    columns: {patient_id: bigint, insurer_id: integer, name: text, born: date, balance: "decimal(38,10)", tags: "text[]",
              profile: json, created_at: timestamptz, updated_at: timestamptz, deleted_at: timestamptz}
  price:
    source: objects
    sequential: true
    key: [sku, day]
    columns: {sku: text, day: date, amount: "decimal(12,2)"}
  visit:
    key: visit_id
    cursor: updated_at
    columns: {visit_id: bigint, patient_id: integer, guardian_id: bigint, sku: text, day: date, fee: "decimal(10,2)",
              notes: text, started_at: timestamptz, due_on: date, updated_at: timestamptz}
dimensions:
  patient: {from: patient, type1: [name, profile], type2: [insurer_id, balance]}
  price: {from: price, type1: [amount]}
date_dimension: {from: 2020-01-01, to: 2030-12-31, time_zone: UTC}
facts:
  visit:
    from: visit
    as_of: started_at
    dimensions: {patient: patient_id, price: [sku, day], guardian: {dimension: patient, column: guardian_id}}
    dates: {started: started_at, due: due_on}
    columns: [fee, notes]
"#;

    /// The problems of the example after `from` was replaced by `to`, as `line field error`.
    fn problems(from: &str, to: &str) -> Vec<String> {
        assert!(EXAMPLE.contains(from), "{from}");
        match Schema::parse(EXAMPLE.replacen(from, to, 1).trim_start().as_bytes()) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.iter().map(|p| format!("{} {} {}", p.line, p.field, p.error)).collect(),
        }
    }

    #[test]
    fn the_example_of_the_contract_is_read() {
        let schema = Schema::parse(EXAMPLE.as_bytes()).expect("schema");
        let patient = schema.table("patient").expect("table");
        assert_eq!((patient.lookback.as_secs(), patient.hard_deletes), (60, Some(Duration::ZERO)));
        assert_eq!((patient.cursor.clone(), patient.soft_delete), (vec![8, 7], Some(9)));
        assert_eq!(schema.facts[0].roles[2].dimension, 0);
        assert!(schema.tables[1].sequential);
    }

    #[test]
    fn columns_that_differ_only_by_case_do_not_come_along_together() {
        let both = EXAMPLE.replace("notes: text,", "notes: text, Notes: text,");
        assert!(Schema::parse(both.as_bytes()).is_ok(), "one of them comes along");
        let problems = Schema::parse(both.replace("[fee, notes]", "[fee, notes, Notes]").as_bytes()).expect_err("both");
        let told: Vec<_> = problems.iter().map(|p| (p.field.as_str(), p.error, p.message.as_str())).collect();
        let message = "the columns notes and Notes of visit differ only by case";
        assert_eq!(told, [("facts.visit", "DuplicateName", message)]);
    }

    #[test]
    fn each_mistake_is_named_with_its_line_and_field() {
        for (from, to, expected) in [
            ("version: 1", "version: 2", "1 version UnsupportedVersion"),
            ("version: 1\n", "", "1 version MissingProperty"),
            ("    lookback: 60s", "    look_back: 60s", "6 tables.patient.look_back UnknownProperty"),
            ("60s", "60", "6 tables.patient.lookback InvalidValue"),
            ("    key: patient_id", "    key: patient", "4 tables.patient.key UnknownColumn"),
            ("    key: patient_id\n", "", "4 tables.patient.key MissingProperty"),
            ("    key: patient_id", "    key: []", "4 tables.patient.key InvalidValue"),
            ("[updated_at, created_at]", "[]", "5 tables.patient.cursor InvalidValue"),
            ("soft_delete: deleted_at", "soft_delete: []", "7 tables.patient.soft_delete InvalidValue"),
            ("soft_delete: deleted_at", "soft_delete: [deleted_at, born]", "7 tables.patient.soft_delete WrongType"),
            ("as_of: started_at", "as_of: []", "28 facts.visit.as_of InvalidValue"),
            ("as_of: started_at", "as_of: [started_at, due_on]", "28 facts.visit.as_of WrongType"),
            ("price: [sku, day], g", "price: [], g", "29 facts.visit.dimensions.price InvalidValue"),
            ("due: due_on", "due: []", "30 facts.visit.dates.due InvalidValue"),
            ("due: due_on", "due: [due_on, started_at]", "30 facts.visit.dates.due WrongType"),
            ("born: date", "born: days", "9 tables.patient.columns.born UnknownType"),
            ("born: date", "_deleted: boolean", "9 tables.patient.columns._deleted InvalidName"),
            ("born: date", "_deleted_at: date", "9 tables.patient.columns._deleted_at InvalidName"),
            ("decimal(38,10)", "decimal(39,10)", "9 tables.patient.columns.balance UnknownType"),
            ("[updated_at, created_at]", "[updated_at, born]", "5 tables.patient.cursor WrongType"),
            ("    cursor: updated_at\n", "", "17 tables.visit.cursor MissingProperty"),
            ("source: objects", "source: feed/", "12 tables.price.source InvalidValue"),
            ("    sequential: true", "    hard_deletes: 1d", "13 tables.price.hard_deletes NotApplicable"),
            ("type2: [insurer_id, balance]", "type2: [insurer_id, name]", "22 dimensions.patient.type2 DuplicateName"),
            ("{from: price, type1", "{from: prices, type1", "23 dimensions.price.from UnknownTable"),
            ("    as_of: started_at\n", "", "27 facts.visit.as_of MissingProperty"),
            ("as_of: started_at", "as_of: fee", "28 facts.visit.as_of WrongType"),
            ("price: [sku, day], g", "price: sku, g", "29 facts.visit.dimensions.price KeyMismatch"),
            ("price: [sku, day], g", "price: [day, sku], g", "29 facts.visit.dimensions.price KeyMismatch"),
            ("dimension: patient,", "dimension: patients,", "29 facts.visit.dimensions.guardian UnknownDimension"),
            ("due: due_on", "due: fee", "30 facts.visit.dates.due WrongType"),
            ("columns: [fee, notes]", "columns: [fee, note]", "31 facts.visit.columns UnknownColumn"),
            ("columns: [fee, notes]", "columns: [fee, fee]", "31 facts.visit.columns DuplicateName"),
            ("2030-12-31", "2019-12-31", "24 date_dimension.to InvalidValue"),
            ("2030-12-31", "2030-02-30", "24 date_dimension.to InvalidValue"),
            ("time_zone: UTC", "time_zone: Moon", "24 date_dimension.time_zone InvalidValue"),
            ("facts:", "version: 1\nfacts:", "25 version DuplicateName"),
            ("facts:", "facts: [", "27  SyntaxInvalid"),
            ("  price:\n    source", "  a/b:\n    source", "11 tables.a/b InvalidName"),
        ] {
            assert!(
                problems(from, to).iter().any(|found| found == expected),
                "{to}: {:?} lacks {expected}",
                problems(from, to)
            );
        }
        assert_eq!(
            problems("dimensions:\n  patient", "dimensions:\n  date"),
            [
                "22 dimensions.date DuplicateName",
                "29 facts.visit.dimensions.patient UnknownDimension",
                "29 facts.visit.dimensions.guardian UnknownDimension",
            ]
        );
    }

    #[test]
    fn all_mistakes_come_at_once_and_each_once() {
        assert_eq!(
            problems("born: date, balance: \"decimal(38,10)\"", "born: day, balance: money"),
            ["9 tables.patient.columns.born UnknownType", "9 tables.patient.columns.balance UnknownType",]
        );
        assert_eq!(
            problems("date_dimension: {from: 2020-01-01, to: 2030-12-31, time_zone: UTC}\n", ""),
            ["29 facts.visit.dates MissingProperty",]
        );
    }

    #[test]
    fn a_made_column_takes_no_name_that_a_source_column_has() {
        let clash = EXAMPLE.replace("insurer_id", "Valid_From");
        let problems = Schema::parse(clash.as_bytes()).expect_err("clash");
        assert_eq!((problems[0].field.as_str(), problems[0].error), ("dimensions.patient", "DuplicateName"));
    }

    #[test]
    fn columns_may_be_called_as_words_of_yaml() {
        let odd = EXAMPLE.replace("notes", "no").replace("fee", "null");
        assert!(Schema::parse(odd.as_bytes()).is_ok(), "{:?}", Schema::parse(odd.as_bytes()));
    }

    #[test]
    fn hostile_files_are_refused_and_not_read_to_the_end() {
        let aliases: String = (1..40).map(|n| format!("a{n}: &a{n} [{0}, {0}]\n", format!("*a{}", n - 1))).collect();
        let bomb = format!("a0: &a0 [1]\n{aliases}");
        assert_eq!(Schema::parse(bomb.as_bytes()).expect_err("bomb")[0].error, "SyntaxInvalid");
        assert_eq!(Schema::parse(&b"[".repeat(10_000)).expect_err("depth")[0].error, "SyntaxInvalid");
        assert_eq!(Schema::parse(b"version: 1\n\xff").expect_err("bytes")[0].line, 2);
        assert_eq!(Schema::parse(b"").expect_err("empty")[0].error, "SyntaxInvalid");
    }
}

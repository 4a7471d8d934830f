//! Tables as no designer would plan them, made and changed by chance, and a model of what a warehouse must make of
//! them: it asks PostgreSQL for every row after each ingest, and keeps all that it saw.

use crate::{
    columns::{KINDS, Kind, WIDENINGS, Widening, asked, shown},
    reader::Row,
};
use rand::{Rng, RngExt, seq::IndexedRandom};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Columns of a key, with values of one each; those at the end are used by long transactions only.
struct KeyKind {
    columns: &'static [(&'static str, &'static str)],
    values: &'static [&'static [&'static str]],
}

const RESERVED: usize = 3;
const KEYS: &[KeyKind] = &[
    KeyKind {
        columns: &[("bigint", "bigint")],
        values: &[
            &["1"],
            &["-1"],
            &["9007199254740993"],
            &["9007199254740992"],
            &["5"],
            &["6"],
            &["7"],
            &["8"],
            &["0"],
        ],
    },
    KeyKind {
        columns: &[("text", "text")],
        values: &[
            &["''"],
            &["'a'"],
            &["'A'"],
            &["' a'"],
            &["E'a\\n'"],
            &["'ü'"],
            &["'1'"],
            &["'\"\\'"],
            &["'null'"],
            &["'-'"],
        ],
    },
    KeyKind {
        columns: &[("text", "text"), ("text", "text")],
        values: &[
            &["'a'", "'b'"],
            &["'ab'", "''"],
            &["''", "'ab'"],
            &["'b'", "'a'"],
            &["'a,'", "'b'"],
            &["'a'", "',b'"],
            &["'x'", "'y'"],
        ],
    },
    KeyKind {
        columns: &[("integer", "integer"), ("date", "date")],
        values: &[
            &["1", "'2024-02-29'"],
            &["1", "'2024-03-01'"],
            &["2", "'2024-02-29'"],
            &["0", "'infinity'"],
            &["3", "'0044-03-15 BC'"],
            &["4", "'2024-01-01'"],
            &["5", "'2024-01-01'"],
        ],
    },
    KeyKind {
        columns: &[("uuid", "text")],
        values: &[
            &["'00000000-0000-0000-0000-000000000001'"],
            &["'A0000000-0000-0000-0000-00000000000B'"],
            &["'00000000-0000-0000-0000-000000000003'"],
            &["'00000000-0000-0000-0000-000000000004'"],
            &["'00000000-0000-0000-0000-000000000005'"],
            &["'00000000-0000-0000-0000-000000000006'"],
        ],
    },
    KeyKind {
        columns: &[("numeric(20,0)", "decimal(20,0)")],
        values: &[&["12345678901234567890"], &["-1"], &["0"], &["1"], &["2"], &["3"], &["4"]],
    },
    // To PostgreSQL 'a' and 'A' are one key, to a reader of the text they are two.
    KeyKind {
        columns: &[("odd_types.citext", "text")],
        values: &[&["'a'"], &["'A'"], &["'b'"], &["'B'"], &["'c'"], &["'x'"], &["'y'"], &["'z'"]],
    },
    KeyKind {
        columns: &[("interval", "text")],
        values: &[&["'1 mon'"], &["'30 days'"], &["'720:00:00'"], &["'0'"], &["'1 day'"], &["'2 days'"], &["'3 days'"]],
    },
    KeyKind {
        columns: &[("char(4)", "text"), ("odd_mood", "text"), ("boolean", "boolean")],
        values: &[
            &["'ab'", "'so so'", "true"],
            &["'ab'", "'so so'", "false"],
            &["''", "'\"fine\"'", "true"],
            &["'ab'", "'\"fine\"'", "true"],
            &["'x'", "'so so'", "true"],
            &["'y'", "'so so'", "true"],
            &["'z'", "'so so'", "true"],
        ],
    },
    KeyKind {
        columns: &[("odd_inner", "decimal(9,3)"), ("timestamp", "timestamp")],
        values: &[
            &["1.5", "'0044-03-15 12:00:00 BC'"],
            &["1.500", "'infinity'"],
            &["-0.001", "'2024-01-01 00:00:00.000001'"],
            &["0", "'2024-01-01'"],
            &["1", "'2024-01-01'"],
            &["2", "'2024-01-01'"],
            &["3", "'2024-01-01'"],
        ],
    },
    KeyKind {
        columns: &[("timestamptz", "timestamptz"), ("bytea", "bytes")],
        values: &[
            &["'2024-01-01'", "'\\x00'"],
            &["'2024-01-01'", "'\\x'"],
            &["'2024-01-01 00:00:00.000001'", "'\\x'"],
            &["'infinity'", "'\\x'"],
            &["'1900-01-01'", "'\\xff'"],
            &["'1900-01-01'", "'\\xfe'"],
        ],
    },
];

struct Column {
    name: String,
    kind: Kind,
    /// The type in the schema file; `None`: the file does not name it.
    declared: Option<&'static str>,
    is_type2: bool,
    is_dropped: bool,
    widens: Option<Widening>,
}

enum Role {
    Member,
    /// Refers to members by position.
    Event {
        members: Vec<usize>,
    },
}

pub struct Source {
    pub name: String,
    /// Of the dimension or the fact.
    output: String,
    role: Role,
    key: &'static KeyKind,
    columns: Vec<Column>,
    /// Names with their types.
    cursors: Vec<(&'static str, &'static str)>,
    soft_delete: Option<&'static str>,
    has_hard_deletes: bool,
    lookback: bool,
    /// Keys that were inserted at some time, by position.
    used: BTreeSet<usize>,
    history: BTreeMap<Vec<String>, Vec<Seen>>,
}

/// A row at an ingest that found it changed.
#[derive(Clone)]
struct Seen {
    /// `None`: it is gone.
    row: Option<State>,
}

#[derive(Clone)]
struct State {
    cells: BTreeMap<String, String>,
    is_deleted: bool,
    /// The finite cursor in microseconds since 1970.
    at: Option<i64>,
    /// sha256 of the line.
    line: String,
    /// Of events: the date key of `happened`.
    date: String,
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

pub struct Database {
    pub sources: Vec<Source>,
}

impl Database {
    pub fn new(rng: &mut impl Rng) -> Database {
        let members = rng.random_range(1..=3);
        let mut sources: Vec<Source> = (0..members).map(|n| Source::new(rng, n, Role::Member)).collect();
        for n in 0..rng.random_range(1..=2) {
            let refers = (0..members).collect();
            sources.push(Source::new(rng, members + n, Role::Event { members: refers }));
        }
        Database { sources }
    }

    pub fn created(&self) -> String {
        let mut sql = String::from(
            "DROP TYPE IF EXISTS odd_mood CASCADE; CREATE TYPE odd_mood AS ENUM ('so so', '\"fine\"'); \
             DROP TYPE IF EXISTS odd_pair CASCADE; CREATE TYPE odd_pair AS (a integer, b text); \
             DROP DOMAIN IF EXISTS odd_amount CASCADE; CREATE DOMAIN odd_amount AS numeric(9,3); \
             CREATE DOMAIN odd_inner AS odd_amount; \
             DROP DOMAIN IF EXISTS odd_list CASCADE; CREATE DOMAIN odd_list AS integer[]; \
             DROP DOMAIN IF EXISTS odd_pairs CASCADE; CREATE DOMAIN odd_pairs AS odd_pair[]; \
             DROP DOMAIN IF EXISTS odd_at CASCADE; CREATE DOMAIN odd_at AS timestamptz; \
             CREATE DOMAIN odd_updated_at AS odd_at; \
             CREATE SCHEMA IF NOT EXISTS odd_types; CREATE EXTENSION IF NOT EXISTS hstore SCHEMA odd_types; \
             CREATE EXTENSION IF NOT EXISTS citext SCHEMA odd_types;\n",
        );
        for source in &self.sources {
            sql += &source.created(self);
        }
        sql
    }

    pub fn schema(&self) -> String {
        let mut text = String::from("version: 1\ntables:\n");
        for source in &self.sources {
            source.write_table(&mut text, self);
        }
        let of =
            |is_event| self.sources.iter().filter(move |source| matches!(source.role, Role::Event { .. }) == is_event);
        text += "dimensions:\n";
        for source in of(false) {
            let named = |type2| {
                let columns = source.in_file().filter(move |column| column.is_type2 == type2);
                columns.map(|column| json(&column.name)).collect::<Vec<_>>().join(", ")
            };
            let (from, one, two) = (json(&source.name), named(false), named(true));
            writeln!(text, "  {}: {{from: {from}, type1: [{one}], type2: [{two}]}}", source.output).expect("text");
        }
        text += "date_dimension: {from: 2020-01-01, to: 2030-12-31, time_zone: Europe/Berlin}\nfacts:\n";
        for source in of(true) {
            let Role::Event { members } = &source.role else { continue };
            let roles: Vec<_> = members
                .iter()
                .map(|at| {
                    let member = &self.sources[*at];
                    let columns: Vec<_> = (0..member.key.columns.len()).map(|n| format!("m{at}_{n}")).collect();
                    format!("{}: [{}]", member.output, columns.join(", "))
                })
                .collect();
            let columns = source.in_file().map(|column| json(&column.name)).collect::<Vec<_>>().join(", ");
            writeln!(
                text,
                "  {}: {{from: {}, as_of: happened, dimensions: {{{}}}, dates: {{on: happened}}, partition: on, columns: [{columns}]}}",
                source.output,
                json(&source.name),
                roles.join(", ")
            )
            .expect("text");
        }
        text
    }

    /// SQL of some changes to a source; `is_long` for a transaction that stays open.
    pub fn changes(&mut self, rng: &mut impl Rng, at: usize, is_long: bool) -> String {
        let mut sql = String::new();
        for _ in 0..rng.random_range(if is_long { 1..3 } else { 0..9 }) {
            let (free, all) = (self.sources[at].key.values.len() - RESERVED, self.sources[at].key.values.len());
            let key = if is_long { rng.random_range(free..all) } else { rng.random_range(0..free) };
            if self.sources[at].has_hard_deletes && rng.random_bool(0.2) {
                sql += &self.sources[at].deletion(key);
                continue;
            }
            let is_new = self.sources[at].used.insert(key);
            sql += &self.upsert(rng, at, key, is_new && !is_long);
        }
        sql
    }

    fn upsert(&self, rng: &mut impl Rng, at: usize, key: usize, is_new: bool) -> String {
        let source = &self.sources[at];
        let mut values: Vec<(String, String)> = Vec::new();
        for (n, value) in source.key.values[key].iter().enumerate() {
            values.push((format!("k{n}"), (*value).to_owned()));
        }
        for column in source.columns.iter().filter(|column| !column.is_dropped) {
            let value = if rng.random_bool(0.15) { "NULL" } else { column.kind.values.choose(rng).expect("values") };
            values.push((column.name.clone(), value.to_owned()));
        }
        if let Role::Event { members } = &source.role {
            for at in members {
                let kind = self.sources[*at].key;
                let chosen = kind.values.choose(rng).expect("keys");
                let is_null = rng.random_bool(0.1);
                for (n, value) in chosen.iter().enumerate() {
                    let value = if is_null && n == 0 { "NULL" } else { value };
                    values.push((format!("m{at}_{n}"), value.to_owned()));
                }
            }
            let times = [
                "NULL",
                "now()",
                "now() - interval '1 hour'",
                "'2024-03-31 00:30:00+00'",
                "'infinity'",
                "'-infinity'",
                "'2019-12-31 23:30:00+00'",
            ];
            values.push(("happened".into(), times.choose(rng).expect("times").to_string()));
        }
        if let Some(of) = source.soft_delete {
            let (yes, no) = if of == "boolean" { ("true", "false") } else { ("now()", "NULL") };
            let chosen = if rng.random_bool(0.3) {
                yes
            } else if rng.random_bool(0.5) {
                no
            } else {
                "NULL"
            };
            values.push(("gone".into(), chosen.into()));
        }
        values.extend(source.cursor_values(rng, is_new));
        let names: Vec<_> = values.iter().map(|(name, _)| quoted(name)).collect();
        let set: Vec<_> = names.iter().map(|name| format!("{name} = excluded.{name}")).collect();
        let expressions: Vec<_> = values.into_iter().map(|(_, value)| value).collect();
        let key: Vec<_> = (0..source.key.columns.len()).map(|n| format!("k{n}")).collect();
        format!(
            "INSERT INTO {} ({}) VALUES ({}) ON CONFLICT ({}) DO UPDATE SET {};\n",
            quoted(&source.name),
            names.join(", "),
            expressions.join(", "),
            key.join(", "),
            set.join(", ")
        )
    }

    /// Changes the columns of a source; everything must then be read. `None`: there is nothing to change.
    pub fn alteration(&mut self, rng: &mut impl Rng, at: usize) -> Option<String> {
        let source = &mut self.sources[at];
        let table = quoted(&source.name);
        match rng.random_range(0..3) {
            0 => {
                let kind = *KINDS.choose(rng).expect("kinds");
                let name = format!("added {}", source.columns.len());
                let value = kind.values.choose(rng).expect("values");
                let sql = format!("ALTER TABLE {table} ADD {} {} DEFAULT {value};\n", quoted(&name), kind.of);
                let is_type2 = rng.random_bool(0.5);
                source.columns.push(Column { name, kind, declared: None, is_type2, is_dropped: false, widens: None });
                Some(sql)
            }
            1 => {
                let columns: Vec<usize> =
                    (0..source.columns.len()).filter(|at| !source.columns[*at].is_dropped).collect();
                let column = &mut source.columns[*columns.choose(rng)?];
                column.is_dropped = true;
                Some(format!("ALTER TABLE {table} DROP {};\n", quoted(&column.name)))
            }
            _ => {
                let column = source.columns.iter_mut().find(|column| !column.is_dropped && column.widens.is_some())?;
                let after = column.widens?.after;
                if column.kind.of == after.of {
                    return None;
                }
                column.kind = after;
                let name = quoted(&column.name);
                Some(format!("ALTER TABLE {table} ALTER {name} TYPE {} USING {name}::{};\n", after.of, after.of))
            }
        }
    }

    /// The file learns of what has changed in the database.
    pub fn follow(&mut self) {
        for column in self.sources.iter_mut().flat_map(|source| &mut source.columns) {
            if !column.is_dropped {
                column.declared = Some(column.kind.declared);
            }
        }
    }

    /// SQL for what the rows of an event refer to, the names of these columns, and how many columns of the key come
    /// first.
    pub fn references(&self, at: usize) -> Option<(String, Vec<String>, usize)> {
        let source = &self.sources[at];
        let Role::Event { members } = &source.role else { return None };
        let mut asks: Vec<String> = Vec::new();
        for (n, (of, declared)) in source.key.columns.iter().enumerate() {
            asks.push(asked(declared, of, &format!("t.k{n}")));
        }
        let mut names = Vec::new();
        for at in members {
            for (n, (of, declared)) in self.sources[*at].key.columns.iter().enumerate() {
                asks.push(asked(declared, of, &format!("t.m{at}_{n}")));
                names.push(format!("m{at}_{n}"));
            }
        }
        Some((format!("SELECT {} FROM {} t", asks.join(", "), quoted(&source.name)), names, source.key.columns.len()))
    }

    pub fn dropped(&self) -> String {
        self.sources.iter().map(|source| format!("DROP TABLE {};\n", quoted(&source.name))).collect()
    }

    pub fn check(&self, tables: &BTreeMap<String, Vec<Row>>) {
        let mut members = BTreeMap::new();
        for (at, source) in self.sources.iter().enumerate() {
            if matches!(source.role, Role::Member) {
                members.insert(at, source.check_dimension(&tables[&format!("dim_{}", source.output)]));
            }
        }
        for source in &self.sources {
            if let Role::Event { .. } = source.role {
                source.check_fact(&tables[&format!("fact_{}", source.output)], &self.sources, &members);
            }
        }
    }
}

/// A version of a member as the warehouse has it.
struct Version {
    surrogate: String,
    valid_from: i64,
}

impl Source {
    fn new(rng: &mut impl Rng, number: usize, role: Role) -> Source {
        let mut columns = Vec::new();
        for n in 0..rng.random_range(2..=6) {
            let prefix = ["c", "Grün", "select ", "a\"b", "_deleted"].choose(rng).expect("prefix");
            let widens = WIDENINGS.choose(rng).copied().filter(|_| rng.random_bool(0.3));
            let kind = widens.map_or(*KINDS.choose(rng).expect("kinds"), |widening| widening.before);
            let is_type2 = rng.random_bool(0.4);
            let name = format!("{prefix}{n}");
            columns.push(Column { name, kind, declared: Some(kind.declared), is_type2, is_dropped: false, widens });
        }
        if rng.random_bool(0.3) {
            columns.iter_mut().for_each(|column| column.is_type2 = false);
        }
        let cursors: [&[_]; 5] = [
            &[("updated_at", "odd_updated_at")],
            &[("updated_at", "timestamptz")],
            &[("updated_at", "timestamptz"), ("created_at", "timestamptz")],
            &[("updated_at", "timestamp")],
            &[("updated_at", "timestamp"), ("created_at", "timestamptz")],
        ];
        Source {
            name: format!("{} {number}", ["odd", "Odd", "odd\"d"].choose(rng).expect("name")),
            output: format!("o{number}"),
            role,
            key: KEYS.choose(rng).expect("keys"),
            columns,
            cursors: cursors.choose(rng).expect("cursors").to_vec(),
            soft_delete: [None, Some("boolean"), Some("timestamptz")].choose(rng).copied().flatten(),
            has_hard_deletes: rng.random_bool(0.5),
            lookback: rng.random_bool(0.5),
            used: BTreeSet::new(),
            history: BTreeMap::new(),
        }
    }

    fn in_file(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| column.declared.is_some())
    }

    fn is_type2(&self) -> bool {
        self.in_file().any(|column| column.is_type2)
    }

    /// Name, type in PostgreSQL, declared type of all columns but those that chance has made.
    fn fixed(&self, database: &Database) -> Vec<(String, String, &'static str)> {
        let mut columns = Vec::new();
        for (n, (of, declared)) in self.key.columns.iter().enumerate() {
            columns.push((format!("k{n}"), (*of).to_owned(), *declared));
        }
        if let Role::Event { members } = &self.role {
            for at in members {
                for (n, (of, declared)) in database.sources[*at].key.columns.iter().enumerate() {
                    columns.push((format!("m{at}_{n}"), (*of).to_owned(), *declared));
                }
            }
            columns.push(("happened".into(), "timestamptz".into(), "timestamptz"));
        }
        columns.extend(self.soft_delete.map(|of| ("gone".into(), of.to_owned(), of)));
        columns.extend(self.cursors.iter().map(|(name, of)| {
            let declared = if *of == "timestamp" { "timestamp" } else { "timestamptz" };
            ((*name).to_owned(), (*of).to_owned(), declared)
        }));
        columns
    }

    fn created(&self, database: &Database) -> String {
        let fixed = self.fixed(database).into_iter().map(|(name, of, _)| (name, of));
        let columns = fixed.chain(self.columns.iter().map(|column| (column.name.clone(), column.kind.of.to_owned())));
        let columns: Vec<_> = columns.map(|(name, of)| format!("{} {of}", quoted(&name))).collect();
        let key: Vec<_> = (0..self.key.columns.len()).map(|n| format!("k{n}")).collect();
        let (table, columns, key) = (quoted(&self.name), columns.join(", "), key.join(", "));
        format!("DROP TABLE IF EXISTS {table}; CREATE TABLE {table} ({columns}, PRIMARY KEY ({key}));\n")
    }

    fn write_table(&self, text: &mut String, database: &Database) {
        let key: Vec<_> = (0..self.key.columns.len()).map(|n| format!("k{n}")).collect();
        let cursors: Vec<_> = self.cursors.iter().map(|(name, _)| *name).collect();
        let fixed = self.fixed(database).into_iter().map(|(name, _, declared)| (name, declared));
        let others = self.in_file().filter_map(|column| Some((column.name.clone(), column.declared?)));
        let columns = fixed.chain(others).map(|(name, declared)| format!("{}: {}", json(&name), json(declared)));
        let columns = columns.collect::<Vec<_>>().join(", ");
        let (key, cursors) = (key.join(", "), cursors.join(", "));
        write!(text, "  {}:\n    key: [{key}]\n    cursor: [{cursors}]\n", json(&self.name)).expect("text");
        if self.lookback {
            *text += "    lookback: 60s\n";
        }
        if self.soft_delete.is_some() {
            *text += "    soft_delete: gone\n";
        }
        if self.has_hard_deletes {
            *text += "    hard_deletes: 0s\n";
        }
        writeln!(text, "    columns: {{{columns}}}").expect("text");
    }

    fn deletion(&self, key: usize) -> String {
        let equal: Vec<_> =
            self.key.values[key].iter().enumerate().map(|(n, value)| format!("k{n} = {value}")).collect();
        format!("DELETE FROM {} WHERE {};\n", quoted(&self.name), equal.join(" AND "))
    }

    /// A change is to be seen: the greatest cursor is one that the next ingest reads.
    fn cursor_values(&self, rng: &mut impl Rng, is_new: bool) -> Vec<(String, String)> {
        let mut choices = vec![
            "now()",
            "now()",
            "clock_timestamp()",
            "now() + interval '20 minutes'",
            "NULL",
            "'infinity'",
            "'-infinity'",
        ];
        if self.lookback {
            choices.push("now() - interval '30 seconds'");
        }
        // A comparison of keys finds what no cursor tells of.
        if self.has_hard_deletes && is_new {
            choices.extend(["'2001-01-01'", "'0044-03-15 BC'"]);
        }
        let first = *choices.choose(rng).expect("choices");
        let of_others: &[&str] =
            if ["NULL", "'-infinity'"].contains(&first) { &["NULL", "now()"] } else { &["NULL", "'1999-01-01'"] };
        let value = |at: usize, of: &str, value: &str| {
            let name = self.cursors[at].0.to_owned();
            (
                name,
                if of == "timestamp" { format!("({value})::timestamptz AT TIME ZONE 'UTC'") } else { value.to_owned() },
            )
        };
        let mut values = vec![value(0, self.cursors[0].1, first)];
        if let Some((_, of)) = self.cursors.get(1) {
            values.push(value(1, of, of_others.choose(rng).expect("choices")));
        }
        values
    }

    /// SQL for all rows as [`Source::observe`] wants them.
    pub fn question(&self) -> String {
        let mut asks: Vec<String> = Vec::new();
        for (n, (of, declared)) in self.key.columns.iter().enumerate() {
            asks.push(asked(declared, of, &format!("t.k{n}")));
        }
        asks.push("encode(sha256(convert_to(translate(row_to_json(t)::text, E'\\n\\r', ''), 'UTF8')), 'hex')".into());
        let cursors: Vec<_> = self.cursors.iter().map(|(name, _)| format!("t.{name}::timestamptz")).collect();
        let cursor = format!("GREATEST({})", cursors.join(", "));
        asks.push(format!(
            "CASE WHEN isfinite({cursor}) THEN trunc(extract(epoch FROM {cursor}) * 1000000)::bigint::text END"
        ));
        asks.push(match self.soft_delete {
            None => "'false'".into(),
            Some("boolean") => "CASE WHEN t.gone THEN 'true' ELSE 'false' END".into(),
            Some(_) => "CASE WHEN t.gone IS NOT NULL THEN 'true' ELSE 'false' END".to_owned(),
        });
        asks.push(match self.role {
            Role::Member => "''".into(),
            Role::Event { .. } => "CASE WHEN t.happened IS NULL THEN '-2' WHEN t.happened >= '2020-01-01 Europe/Berlin' \
                 AND t.happened < '2031-01-01 Europe/Berlin' THEN to_char(t.happened AT TIME ZONE 'Europe/Berlin', 'YYYYMMDD') \
                 ELSE '-1' END".to_owned(),
        });
        for (name, of, declared) in self.cells() {
            asks.push(asked(declared, &of, &format!("t.{}", quoted(&name))));
        }
        format!("SELECT {} FROM {} t", asks.join(", "), quoted(&self.name))
    }

    /// Name, type in PostgreSQL, declared type of what is no key.
    fn cells(&self) -> Vec<(String, String, &'static str)> {
        let mut cells = Vec::new();
        if let Role::Event { .. } = &self.role {
            cells.push(("happened".to_owned(), "timestamptz".to_owned(), "timestamptz"));
        }
        let present = self.columns.iter().filter(|column| !column.is_dropped);
        cells.extend(present.map(|column| (column.name.clone(), column.kind.of.to_owned(), column.kind.declared)));
        cells
    }

    /// Takes what PostgreSQL has answered after an ingest; `references` belong to the same rows.
    pub fn observe(
        &mut self,
        rows: Vec<Vec<Option<String>>>,
        references: &BTreeMap<Vec<String>, Vec<(String, Option<String>)>>,
    ) {
        let (keys, cells) = (self.key.columns.len(), self.cells());
        let mut present = BTreeSet::new();
        for row in rows {
            let text = |at: usize| row[at].clone().unwrap_or_default();
            let key: Vec<String> = (0..keys).map(text).collect();
            let named = cells.iter().zip(&row[keys + 4..]);
            let mut found: BTreeMap<_, _> =
                named.filter_map(|((name, ..), value)| Some((name.clone(), value.clone()?))).collect();
            for (name, value) in references.get(&key).into_iter().flatten() {
                found.extend(value.clone().map(|value| (name.clone(), value)));
            }
            let state = State {
                line: text(keys),
                at: row[keys + 1].as_ref().map(|micros| micros.parse().expect("micros")),
                is_deleted: text(keys + 2) == "true",
                date: text(keys + 3),
                cells: found,
            };
            present.insert(key.clone());
            let seen = self.history.entry(key).or_default();
            let newest = seen.last().and_then(|seen| seen.row.as_ref());
            if newest.is_none_or(|newest| newest.line != state.line) {
                seen.push(Seen { row: Some(state) });
            }
        }
        if self.has_hard_deletes {
            for (_, seen) in self.history.iter_mut().filter(|(key, _)| !present.contains(*key)) {
                if seen.last().is_some_and(|seen| seen.row.is_some()) {
                    seen.push(Seen { row: None });
                }
            }
        }
    }

    /// The lines that must lie in the bucket: digests of rows, and how many deletions.
    pub fn check_lines(&self, lines: &[(String, String)]) {
        let all = self.history.values().flatten();
        let mut expected: Vec<&str> = all.clone().filter_map(|seen| Some(seen.row.as_ref()?.line.as_str())).collect();
        let (gone, rows): (Vec<_>, Vec<_>) =
            lines.iter().partition(|(_, line)| line.contains(",\"_deleted\":true,\"_deleted_at\":\""));
        let mut found: Vec<String> = rows.iter().map(|(_, line)| storage::sha256_hex(line.as_bytes())).collect();
        expected.sort_unstable();
        found.sort_unstable();
        let strange = rows
            .iter()
            .find(|(_, line)| expected.binary_search(&storage::sha256_hex(line.as_bytes()).as_str()).is_err());
        assert_eq!(strange, None, "{}: a line that no row ever was", self.name);
        assert_eq!(found, expected, "{}: each version of a row is written once", self.name);
        let expected = all.filter(|seen| seen.row.is_none()).count();
        assert_eq!(gone.len(), expected, "{}: each deletion is written once", self.name);
    }

    /// A row as the warehouse shows it, with null for what is not there; `None` where it is in quarantine.
    fn shown(&self, state: &State) -> Option<BTreeMap<String, Option<String>>> {
        let mut cells = BTreeMap::new();
        for column in self.in_file() {
            let cell = state.cells.get(&column.name).cloned();
            let cell = cell.map(|text| shown(column.declared.unwrap_or_default(), text)).transpose().ok()?;
            cells.insert(column.name.clone(), cell);
        }
        Some(cells)
    }

    pub fn quarantined(&self) -> u64 {
        let rows = self.history.values().flatten().filter_map(|seen| seen.row.as_ref());
        rows.filter(|state| self.shown(state).is_none()).count() as u64
    }

    fn null(&self) -> BTreeMap<String, Option<String>> {
        self.in_file().map(|column| (column.name.clone(), None)).collect()
    }

    fn check_dimension(&self, rows: &[Row]) -> BTreeMap<Vec<String>, Vec<Version>> {
        let surrogate = format!("{}_key", self.output);
        let mut found: BTreeMap<Vec<String>, Vec<&Row>> = BTreeMap::new();
        let mut surrogates = BTreeSet::new();
        for row in rows {
            let number: i64 = row[&surrogate].as_ref().expect("a key").parse().expect("a number");
            assert!(surrogates.insert(number), "{}: the surrogate key {number} is there twice", self.name);
            if number < 0 {
                continue;
            }
            let key = (0..self.key.columns.len()).map(|n| row[&format!("k{n}")].clone().expect("key")).collect();
            found.entry(key).or_default().push(row);
        }
        assert!(surrogates.contains(&-1) && surrogates.contains(&-2), "{}: the two special members", self.name);
        let mut members = BTreeMap::new();
        for (key, seen) in &self.history {
            let expected = self.versions(seen);
            let mut versions = found.remove(key).unwrap_or_default();
            let time = |row: &Row, name: &str| {
                row.get(name).map_or(0, |text| text.as_ref().expect("time").parse().expect("micros"))
            };
            versions.sort_by_key(|row| time(row, "valid_from"));
            assert_eq!(versions.len(), expected.len(), "{} {key:?}: versions {versions:?}", self.name);
            let mut before: Option<i64> = None;
            for (n, (row, version)) in versions.iter().zip(&expected).enumerate() {
                let what = format!("{} {key:?} version {n}", self.name);
                for (name, value) in &version.cells {
                    assert_eq!(row[name], *value, "{what}: {name}");
                }
                assert_eq!(
                    row["is_deleted"].as_deref(),
                    Some(if version.is_deleted { "true" } else { "false" }),
                    "{what}"
                );
                if !self.is_type2() {
                    continue;
                }
                let from = time(row, "valid_from");
                match version.at {
                    Some(at) => assert_eq!(from, before.map_or(at, |before| at.max(before + 1)), "{what}: valid_from"),
                    None => assert!(before.is_none_or(|before| from > before), "{what}: valid_from"),
                }
                let to = versions.get(n + 1).map_or(253_402_300_799_999_999, |next| time(next, "valid_from"));
                assert_eq!(time(row, "valid_to"), to, "{what}: valid_to");
                let is_current = if n + 1 == versions.len() { "true" } else { "false" };
                assert_eq!(row["is_current"].as_deref(), Some(is_current), "{what}: is_current");
                before = Some(from);
            }
            let version = |row: &&Row| Version {
                surrogate: row[&surrogate].clone().expect("key"),
                valid_from: time(row, "valid_from"),
            };
            members.insert(key.clone(), versions.iter().map(version).collect());
        }
        assert!(found.is_empty(), "{}: members that never were: {:?}", self.name, found.keys());
        members
    }

    fn versions(&self, seen: &[Seen]) -> Vec<Expected> {
        let mut versions: Vec<Expected> = Vec::new();
        let (mut cells, mut is_deleted) = (self.null(), false);
        for seen in seen {
            let at = match &seen.row {
                Some(state) => {
                    let Some(shown) = self.shown(state) else { continue };
                    (cells, is_deleted) = (shown, state.is_deleted);
                    state.at
                }
                None => {
                    is_deleted = true;
                    None
                }
            };
            let type2 = |cells: &BTreeMap<String, Option<String>>| -> Vec<Option<String>> {
                self.in_file().filter(|column| column.is_type2).map(|column| cells[&column.name].clone()).collect()
            };
            let is_new =
                versions.last().is_none_or(|last| type2(&last.cells) != type2(&cells) || last.is_deleted != is_deleted);
            if is_new && (self.is_type2() || versions.is_empty()) {
                versions.push(Expected { cells: cells.clone(), is_deleted, at });
            }
        }
        // What is of type 1 has its newest value everywhere.
        for version in &mut versions {
            for column in self.in_file().filter(|column| !column.is_type2) {
                version.cells.insert(column.name.clone(), cells[&column.name].clone());
            }
        }
        if !self.is_type2() {
            versions.iter_mut().for_each(|version| version.is_deleted = is_deleted);
        }
        versions
    }

    fn check_fact(
        &self,
        rows: &[Row],
        sources: &[Source],
        members: &BTreeMap<usize, BTreeMap<Vec<String>, Vec<Version>>>,
    ) {
        let Role::Event { members: refers } = &self.role else { return };
        let key = |row: &Row| -> Vec<String> {
            (0..self.key.columns.len()).map(|n| row[&format!("k{n}")].clone().expect("key")).collect()
        };
        let mut found: BTreeMap<Vec<String>, &Row> = BTreeMap::new();
        for row in rows {
            assert!(found.insert(key(row), row).is_none(), "{} {:?} is there twice", self.name, key(row));
        }
        for (key, seen) in &self.history {
            let what = format!("{} {key:?}", self.name);
            let fitting = seen.iter().filter(|seen| seen.row.as_ref().is_none_or(|state| self.shown(state).is_some()));
            let fitting: Vec<_> = fitting.collect();
            let Some(last) = fitting.last() else {
                assert!(!found.contains_key(key), "{what} is in quarantine");
                continue;
            };
            let row = found.remove(key).unwrap_or_else(|| panic!("{what} is missing"));
            let newest = fitting.iter().rev().find_map(|seen| seen.row.as_ref());
            let is_deleted = last.row.as_ref().is_none_or(|state| state.is_deleted);
            assert_eq!(row["is_deleted"].as_deref(), Some(if is_deleted { "true" } else { "false" }), "{what}");
            let cells = newest.and_then(|state| self.shown(state)).unwrap_or_else(|| self.null());
            for (name, value) in &cells {
                assert_eq!(row[name], *value, "{what}: {name}");
            }
            let date = newest.map_or("-2", |state| state.date.as_str());
            assert_eq!(row["on_date_key"].as_deref(), Some(date), "{what}: the date");
            let happened: Option<i64> =
                newest.and_then(|state| state.cells.get("happened")).map(|micros| micros.parse().expect("micros"));
            for at in refers {
                let member = &sources[*at];
                let parts = (0..member.key.columns.len()).map(|n| newest?.cells.get(&format!("m{at}_{n}")).cloned());
                let expected = match parts.collect::<Option<Vec<String>>>() {
                    None => "-2",
                    Some(parts) => match members[at].get(&parts).filter(|versions| !versions.is_empty()) {
                        None => "-1",
                        Some(versions) => {
                            let held = versions
                                .iter()
                                .rev()
                                .find(|version| happened.is_some_and(|at| version.valid_from <= at));
                            &held.unwrap_or(&versions[0]).surrogate
                        }
                    },
                };
                assert_eq!(
                    row[&format!("{}_key", member.output)].as_deref(),
                    Some(expected),
                    "{what}: the member of {}",
                    member.name
                );
            }
        }
        assert!(found.is_empty(), "{}: facts that never were: {:?}", self.name, found.keys());
    }
}

struct Expected {
    cells: BTreeMap<String, Option<String>>,
    is_deleted: bool,
    at: Option<i64>,
}

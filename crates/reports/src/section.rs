//! The parts of which mail and page are built. What a pipeline has to say is told once, as a [`Section`]: the mail
//! renders it as HTML and as text ([`crate::letter`]), and the page draws the same from its JSON. So they cannot
//! differ.

pub use crate::state::State;
use crate::words::{grouped, one_line};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Rows of a table, bars and problems that are shown; the others are counted.
pub const LISTED: usize = 10;

/// Something with a title, and a label that says what its numbers are about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Section {
    pub title: String,
    /// `all runs, as of 2024-10-01 06:00 UTC`; `this run`; `the last 7 days`.
    pub scope: String,
    pub state: State,
    /// One sentence for a reader of nothing else.
    pub headline: String,
    pub blocks: Vec<Block>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Block {
    Text {
        text: String,
    },
    /// Smaller facts, one a line.
    Notes {
        notes: Vec<String>,
    },
    /// A row of cards.
    Figures {
        figures: Vec<Figure>,
    },
    Account(Account),
    Table(Table),
    Bars {
        title: String,
        bars: Vec<Bar>,
    },
    Problems {
        title: String,
        problems: Vec<Problem>,
        left_out: u64,
    },
    /// To be copied and run.
    Command {
        why: String,
        commands: Vec<String>,
    },
    /// Lines as they stand somewhere, in a fixed pitch, such as a stack trace.
    Lines {
        title: String,
        lines: Vec<String>,
    },
}

/// One number, ready to be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    pub label: String,
    pub value: String,
    /// What changed, or what the number means.
    #[serde(default)]
    pub note: String,
    #[serde(default)]
    pub state: State,
}

/// A total and the parts that must add up to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Account {
    pub label: String,
    pub total: u64,
    pub parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    pub label: String,
    pub count: u64,
    pub colour: Colour,
}

/// A meaning, which mail and page have a colour for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Colour {
    Done,
    DoneBefore,
    Waiting,
    SetAside,
    Failed,
    Other,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    pub title: String,
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<String>>,
    pub left_out: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    pub title: String,
    /// Set to the right, so that digits stand below each other.
    pub numeric: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    pub label: String,
    pub value: u64,
    /// The value as it is read: `1,234`, `12.3 MB`.
    pub shown: String,
    pub colour: Colour,
}

/// Something that went wrong, and what to do about it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// The error's stable name.
    pub name: String,
    /// What it hit: `12 windows, 433 messages`.
    pub affected: String,
    /// Where, one a line: ranges, files, tables.
    pub places: Vec<String>,
    /// What was said of one of them.
    pub message: String,
    pub advice: String,
    /// Where more stands, such as the log of the function; only http and https are linked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

impl Section {
    pub fn new(title: impl Into<String>, scope: impl Into<String>) -> Self {
        let (title, scope) = (title.into(), scope.into());
        Section { title, scope, state: State::Plain, headline: String::new(), blocks: Vec::new() }
    }

    pub fn headline(mut self, state: State, headline: impl Into<String>) -> Self {
        self.state = state;
        self.headline = headline.into();
        self
    }

    fn with(mut self, is_worth_it: bool, block: Block) -> Self {
        if is_worth_it {
            self.blocks.push(block);
        }
        self
    }

    pub fn text(self, text: impl Into<String>) -> Self {
        let text = text.into();
        self.with(!text.is_empty(), Block::Text { text })
    }

    pub fn notes(self, notes: Vec<String>) -> Self {
        self.with(!notes.is_empty(), Block::Notes { notes })
    }

    pub fn figures(self, figures: Vec<Figure>) -> Self {
        self.with(!figures.is_empty(), Block::Figures { figures })
    }

    pub fn account(self, account: Account) -> Self {
        self.with(true, Block::Account(account))
    }

    pub fn table(self, table: Table) -> Self {
        self.with(!table.rows.is_empty(), Block::Table(table))
    }

    pub fn bars(self, title: impl Into<String>, bars: Vec<Bar>) -> Self {
        self.with(!bars.is_empty(), Block::Bars { title: title.into(), bars })
    }

    /// The first [`LISTED`] of them.
    pub fn problems(self, title: impl Into<String>, problems: Vec<Problem>) -> Self {
        let all = problems.len() as u64;
        self.problems_of(title, problems, all)
    }

    /// The first [`LISTED`] of `all`, where not all of them are at hand.
    pub fn problems_of(self, title: impl Into<String>, mut problems: Vec<Problem>, all: u64) -> Self {
        problems.truncate(LISTED);
        let left_out = all.saturating_sub(problems.len() as u64);
        self.with(!problems.is_empty(), Block::Problems { title: title.into(), problems, left_out })
    }

    pub fn command(self, why: impl Into<String>, commands: Vec<String>) -> Self {
        self.with(!commands.is_empty(), Block::Command { why: why.into(), commands })
    }

    pub fn lines(self, title: impl Into<String>, lines: Vec<String>) -> Self {
        self.with(!lines.is_empty(), Block::Lines { title: title.into(), lines })
    }

    /// `dashboard/data/<pipeline>.json`, which the page shows, and the next weekly mail repeats.
    pub fn published(&self, now: Timestamp) -> Value {
        tamed(serde_json::json!({"v": 1, "generated_at": identity::instant::iso(now), "section": self}))
    }

    /// What [`Section::published`] wrote.
    pub fn read(body: &[u8]) -> serde_json::Result<Section> {
        #[derive(Deserialize)]
        struct Published {
            section: Section,
        }
        serde_json::from_slice(body).map(|Published { section }| section)
    }
}

impl Figure {
    pub fn new(label: impl Into<String>, value: impl Into<String>) -> Self {
        Figure { label: label.into(), value: value.into(), note: String::new(), state: State::Plain }
    }

    pub fn count(label: impl Into<String>, count: u64) -> Self {
        Figure::new(label, grouped(count))
    }

    pub fn note(self, note: impl Into<String>) -> Self {
        Figure { note: note.into(), ..self }
    }

    pub fn state(self, state: State) -> Self {
        Figure { state, ..self }
    }
}

impl Account {
    pub fn new(label: impl Into<String>, total: u64, parts: &[(&str, u64, Colour)]) -> Self {
        let part = |&(label, count, colour): &(&str, u64, Colour)| Part { label: label.to_owned(), count, colour };
        Account { label: label.into(), total, parts: parts.iter().map(part).collect() }
    }

    /// What the parts leave over; negative when they are more than the total.
    pub fn unaccounted(&self) -> i128 {
        i128::from(self.total) - self.parts.iter().map(|part| i128::from(part.count)).sum::<i128>()
    }

    /// `1,500 = 941 archived + 117 still open + 433 not archived yet`.
    pub fn equation(&self) -> String {
        let present = self.parts.iter().filter(|part| part.count > 0);
        let parts: Vec<String> =
            present.map(|part| format!("{} {}", grouped(part.count), part.label.to_lowercase())).collect();
        let sum = if parts.is_empty() { "0".to_owned() } else { parts.join(" + ") };
        match self.unaccounted() {
            0 => format!("{} = {sum}", grouped(self.total)),
            missing => {
                format!("{} ≠ {sum}: {} not accounted for", grouped(self.total), grouped(missing.unsigned_abs()))
            }
        }
    }
}

impl Table {
    /// A column whose title begins with `#` holds numbers.
    pub fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        let column =
            |title: &&str| Column { title: title.trim_start_matches('#').to_owned(), numeric: title.starts_with('#') };
        Table { title: title.into(), columns: columns.iter().map(column).collect(), ..Table::default() }
    }

    /// The first [`LISTED`] of the rows; `all` is how many there are, where not all of them are at hand.
    pub fn rows<const N: usize>(mut self, rows: impl IntoIterator<Item = [String; N]>, all: Option<u64>) -> Self {
        let mut rows = rows.into_iter();
        self.rows = rows.by_ref().take(LISTED).map(Vec::from).collect();
        let shown = self.rows.len() as u64;
        self.left_out = all.unwrap_or_else(|| shown + rows.count() as u64).saturating_sub(shown);
        self
    }

    /// The table in a fixed pitch, its title row first.
    pub(crate) fn lines(&self) -> Vec<String> {
        let titles: Vec<String> = self.columns.iter().map(|column| column.title.clone()).collect();
        let all: Vec<&Vec<String>> = std::iter::once(&titles).chain(&self.rows).collect();
        let length = |text: &String| text.chars().count();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|place| all.iter().filter_map(|row| row.get(place)).map(length).max().unwrap_or(0))
            .collect();
        let cell = |(place, text): (usize, &String)| match self.columns.get(place) {
            Some(Column { numeric: true, .. }) => format!("{text:>0$}", widths[place]),
            _ => format!("{text:<0$}", widths.get(place).copied().unwrap_or(0)),
        };
        all.iter()
            .map(|row| row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end().to_owned())
            .collect()
    }
}

impl Bar {
    pub fn count(label: impl Into<String>, value: u64, colour: Colour) -> Self {
        Bar { label: label.into(), value, shown: grouped(value), colour }
    }
}

/// Every text within on one line and of an end: what readers see comes from sources, errors and operators.
pub(crate) fn tamed(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(one_line(&text)),
        Value::Array(list) => Value::Array(list.into_iter().map(tamed).collect()),
        Value::Object(fields) => Value::Object(fields.into_iter().map(|(name, value)| (name, tamed(value))).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_says_what_is_missing() {
        let parts = [("Archived", 941, Colour::Done), ("Still open", 117, Colour::Waiting)];
        assert_eq!(Account::new("Planned", 1058, &parts).equation(), "1,058 = 941 archived + 117 still open");
        let short = Account::new("Planned", 1500, &parts);
        assert_eq!(
            (short.unaccounted(), short.equation().as_str()),
            (442, "1,500 ≠ 941 archived + 117 still open: 442 not accounted for")
        );
        assert_eq!(Account::new("Planned", 0, &[]).equation(), "0 = 0");
    }

    #[test]
    fn a_table_counts_what_it_leaves_out_and_sets_numbers_below_each_other() {
        let rows = (1..=25).map(|n| [format!("row-{n}"), (n * 100).to_string()]);
        let table = Table::new("Rows", &["Name", "#Count"]).rows(rows, None);
        assert_eq!((table.rows.len(), table.left_out), (LISTED, 15));
        assert_eq!(table.lines()[..2], ["Name    Count", "row-1     100"]);
        assert_eq!(Table::new("", &["A"]).rows([["x".to_owned()]], Some(640)).left_out, 639);
    }

    #[test]
    fn what_is_published_is_read_back_with_every_text_on_its_line() {
        let problem = Problem { name: "A\r\nB".into(), places: vec!["x\u{202e}y".into()], ..Problem::default() };
        let section =
            Section::new("Feeds", "since yesterday").headline(State::Bad, "It\nfailed").problems("P", vec![problem]);
        let published = section.published(Timestamp::UNIX_EPOCH);
        let read = Section::read(published.to_string().as_bytes()).expect("a section");
        assert_eq!((read.headline.as_str(), read.state), ("It failed", State::Bad));
        let Block::Problems { problems, .. } = &read.blocks[0] else { panic!("{read:?}") };
        assert_eq!((problems[0].name.as_str(), problems[0].places[0].as_str()), ("A  B", "x\u{fffd}y"));
    }

    #[test]
    fn what_has_nothing_to_say_is_left_out() {
        let section = Section::new("T", "s").text("").notes(vec![]).figures(vec![]).table(Table::new("", &["A"]));
        assert!(section.bars("", vec![]).problems("", vec![]).command("", vec![]).lines("", vec![]).blocks.is_empty());
    }
}

//! What mail and page say of the warehouse: what it holds, how far behind it is, and what is wrong.

use crate::section::{Figure, Problem, Section, State, Table};
use crate::words::{count, grouped, minute};
use errors::entry;
use std::collections::BTreeMap;
use warehouse::status::{Failure, SourceStatus, Status, TableStatus};

/// The section that mail and page show.
pub fn section(status: &Status) -> Section {
    let section = Section::new("Warehouse", "as of the last ingest or build");
    if is_unused(status) {
        return section.headline(State::Plain, "Nothing has come in yet.");
    }
    let sum = |of: fn(&SourceStatus) -> u64| status.sources.iter().map(of).sum::<u64>();
    let (missing, quarantined) = (sum(missing), sum(|source| source.quarantined));
    let changed = sum(|source| source.schema_changes.len() as u64);
    let alarming = |count: u64| if count > 0 { State::Attention } else { State::Plain };
    let rows = status.tables.iter().map(|table| table.rows).sum();
    let figures = vec![
        Figure::count("Rows", rows).note(format!("in {}", count(status.tables.len() as u64, "table"))),
        Figure::count("Lines built", sum(|source| source.rows)),
        Figure::count("Missing objects", missing).note("gaps between ids").state(alarming(missing)),
        Figure::count("Quarantined lines", quarantined).state(alarming(quarantined)),
        Figure::count("Changed columns", changed).note("that the file does not follow").state(alarming(changed)),
    ];
    let headings =
        ["Source", "#Lines", "Reaches to (UTC)", "Last ingest (UTC)", "Missing ids", "#Quarantined", "Changed columns"];
    let tables = ["Table", "#Rows", "Facts without their member"];
    let (state, headline) = verdict(status, missing, quarantined, changed);
    section
        .headline(state, headline)
        .figures(figures)
        .problems("What failed", problems(&status.failures))
        .table(Table::new("Sources", &headings).rows(status.sources.iter().map(source), None))
        .table(Table::new("Tables", &tables).rows(status.tables.iter().map(table), None))
        .command("How it stands now:", vec!["alert-archive warehouse status".into()])
}

/// A schema file in force makes tables of nothing: they would fill the mail of those who use no warehouse.
fn is_unused(status: &Status) -> bool {
    let is_unused = |source: &SourceStatus| {
        source.rows == 0 && source.latest_object.is_none() && source.ingested_at.is_none() && source.quarantined == 0
    };
    status.failures.is_empty() && status.pending == 0 && status.sources.iter().all(is_unused)
}

fn verdict(status: &Status, missing: u64, quarantined: u64, changed: u64) -> (State, String) {
    if !status.failures.is_empty() {
        let ingests = status.failures.iter().filter(|failure| failure.is_of_ingest()).count() as u64;
        let others = status.failures.len() as u64 - ingests;
        let parts = [
            (ingests, "table could not be ingested", "tables could not be ingested"),
            (others, "build or object failed", "builds or objects failed"),
        ];
        let parts = parts.iter().filter(|(count, ..)| *count > 0);
        let parts: Vec<_> = parts
            .map(|(count, one, many)| format!("{} {}", grouped(*count), if *count == 1 { one } else { many }))
            .collect();
        return (State::Bad, format!("{}.", parts.join(", ")));
    }
    let parts = [(missing, "missing object"), (quarantined, "quarantined line"), (changed, "changed column")];
    let parts: Vec<_> =
        parts.iter().filter(|(number, _)| *number > 0).map(|(number, what)| count(*number, what)).collect();
    if !parts.is_empty() {
        return (State::Attention, format!("The tables are built, with {}.", parts.join(", ")));
    }
    (State::Good, format!("{} built, nothing failed.", count(status.tables.len() as u64, "table")))
}

/// Objects that are not there although later ones are.
fn missing(source: &SourceStatus) -> u64 {
    source.gaps.iter().map(|(from, to)| to - from + 1).sum()
}

fn source(source: &SourceStatus) -> [String; 7] {
    let gaps = source.gaps.iter().map(|(from, to)| if from == to { from.to_string() } else { format!("{from}-{to}") });
    let changes = source.schema_changes.iter().map(|change| format!("{} {}", change.column, change.change));
    let nothing = || "-".to_owned();
    [
        source.table.clone(),
        grouped(source.rows),
        source.timestamp.as_ref().map_or_else(nothing, |text| text.replace('T', " ").chars().take(16).collect()),
        source.ingested_at.map_or_else(nothing, minute),
        gaps.collect::<Vec<_>>().join(", "),
        grouped(source.quarantined),
        changes.collect::<Vec<_>>().join(", "),
    ]
}

fn table(table: &TableStatus) -> [String; 3] {
    let unknown = table.unknown.iter().map(|(column, count)| format!("{column}: {}", grouped(*count)));
    [table.table.clone(), grouped(table.rows), unknown.collect::<Vec<_>>().join(", ")]
}

/// One for each name, with the tables and objects that it hit.
fn problems(failures: &[Failure]) -> Vec<Problem> {
    let mut by_name: BTreeMap<&str, Vec<&Failure>> = BTreeMap::new();
    for failure in failures {
        by_name.entry(&failure.error).or_default().push(failure);
    }
    let place = |failure: &&Failure| match (failure.object.as_str(), failure.table.as_str()) {
        ("", "") => "all tables".to_owned(),
        ("", table) => table.to_owned(),
        (object, _) => object.to_owned(),
    };
    let problem = |(name, failures): (&str, Vec<&Failure>)| Problem {
        name: name.to_owned(),
        affected: count(failures.len() as u64, "place"),
        places: failures.iter().map(place).collect(),
        message: failures[0].message.clone(),
        advice: entry(name).map(|entry| entry.advice.to_owned()).unwrap_or_default(),
        ..Problem::default()
    };
    by_name.into_iter().map(problem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use warehouse::status::SchemaChange;

    fn status() -> Status {
        let source = SourceStatus {
            table: "customer".into(),
            rows: 1200,
            timestamp: Some("2024-07-01T12:30:59.000001Z".into()),
            latest_object: None,
            sequential_id: 9,
            gaps: Vec::new(),
            quarantined: 0,
            ingested_at: "2024-07-01T12:45:00Z".parse().ok(),
            schema_changes: Vec::new(),
        };
        let table = TableStatus {
            table: "fact_sale".into(),
            rows: 990,
            location: "s3://w/fact_sale".into(),
            unknown: BTreeMap::from([("customer_key".to_owned(), 2)]),
        };
        Status { pending: 0, up_to_date: true, failures: Vec::new(), sources: vec![source], tables: vec![table] }
    }

    fn text(section: &Section) -> String {
        section.published(jiff::Timestamp::UNIX_EPOCH).to_string()
    }

    #[test]
    fn a_warehouse_in_order_says_what_it_holds_and_when_it_was_read() {
        let section = section(&status());
        assert_eq!((section.state, section.headline.as_str()), (State::Good, "1 table built, nothing failed."));
        let text = text(&section);
        for part in ["1,200", "2024-07-01 12:30", "2024-07-01 12:45", "fact_sale", "990", "customer_key: 2"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn a_warehouse_that_nothing_came_into_takes_a_line() {
        let mut status = status();
        status.sources[0] = SourceStatus { rows: 0, ingested_at: None, ..status.sources[0].clone() };
        assert_eq!(
            section(&status),
            Section::new("Warehouse", "as of the last ingest or build")
                .headline(State::Plain, "Nothing has come in yet.")
        );
        status.pending = 1;
        assert_ne!(section(&status).headline, "Nothing has come in yet.");
    }

    #[test]
    fn gaps_quarantine_and_changed_columns_want_attention() {
        let mut status = status();
        status.sources[0].gaps = vec![(3, 4), (7, 7)];
        status.sources[0].quarantined = 1;
        status.sources[0].schema_changes = vec![SchemaChange { column: "channel".into(), change: "added" }];
        let section = section(&status);
        assert_eq!(section.state, State::Attention);
        assert_eq!(
            section.headline,
            "The tables are built, with 3 missing objects, 1 quarantined line, 1 changed column."
        );
        let text = text(&section);
        assert!(text.contains("3-4, 7") && text.contains("channel added"), "{text}");
    }

    #[test]
    fn failures_come_first_each_with_its_places_and_advice() {
        let mut status = status();
        let failure = |table: &str, object: &str, error: &str| Failure {
            table: table.into(),
            object: object.into(),
            error: error.into(),
            message: "it broke".into(),
        };
        status.failures = vec![
            failure("a", "", "UnknownTable"),
            failure("b", "", "UnknownTable"),
            failure("c", "c/1.jsonl", "ObjectCorrupt"),
            failure("", "", "WarehouseBusy"),
        ];
        let section = section(&status);
        assert_eq!(section.state, State::Bad);
        assert_eq!(section.headline, "2 tables could not be ingested, 2 builds or objects failed.");
        let problems = problems(&status.failures);
        assert_eq!(problems.len(), 3);
        assert_eq!((problems[1].places.join(" "), problems[0].places.join(" ")), ("a b".into(), "c/1.jsonl".into()));
        assert!(problems.iter().all(|problem| !problem.advice.is_empty()), "{problems:?}");
    }
}

//! Tables as files, for a spreadsheet: CSV whose cells stay text, whatever they hold.

use crate::words;
use alerts::run::{overview::span_of, report::RunReport};
use identity::instant;

/// Rows of a file that goes along with a mail; `runs/<run>/report.json` has all of them.
const MOST: usize = 5000;

/// The windows of a run that failed, one a line, with what to do; none where none did.
pub fn failed_windows(report: &RunReport) -> Result<Option<Vec<u8>>, csv::Error> {
    let failures: Vec<_> = words::failures(report).filter(|failure| !failure.window_id.is_empty()).collect();
    if failures.is_empty() {
        return Ok(None);
    }
    let mut file = csv::Writer::from_writer(Vec::new());
    file.write_record(["window", "from", "to", "messages", "error", "said", "what to do"])?;
    for failure in failures.iter().take(MOST) {
        let span = span_of(&failure.window_id);
        let edge = |at: Option<jiff::Timestamp>| at.map(instant::iso).unwrap_or_default();
        let cells = [
            failure.window_id.clone(),
            edge(span.as_ref().map(|span| span.from)),
            edge(span.as_ref().map(|span| span.to)),
            failure.messages.to_string(),
            failure.error.clone(),
            failure.message.clone(),
            errors::advice(&failure.error).to_owned(),
        ];
        file.write_record(cells.map(|cell| safe(&cell)))?;
    }
    if failures.len() > MOST {
        let rest = format!("and {} more: runs/{}/report.json", failures.len() - MOST, report.run_id);
        file.write_record([safe(&rest), "".into(), "".into(), "".into(), "".into(), "".into(), "".into()])?;
    }
    file.into_inner().map(Some).map_err(|error| csv::Error::from(error.into_error()))
}

/// A cell that no spreadsheet takes for a formula, on one line: one that begins like a formula gets an apostrophe.
fn safe(cell: &str) -> String {
    let cell = words::one_line(cell);
    let begins_like_a_formula = cell.trim_start().starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠', '|', '%']);
    if begins_like_a_formula { format!("'{cell}") } else { cell }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alerts::run::report::Failure;

    fn report(failures: Vec<Failure>) -> RunReport {
        let report: RunReport = serde_json::from_str(include_str!("../tests/report.json")).expect("a report");
        RunReport { failures, unresolved: Vec::new(), ..report }
    }

    fn failure(window_id: &str, message: &str) -> Failure {
        Failure { window_id: window_id.into(), error: "StoreDenied".into(), message: message.into(), messages: 433 }
    }

    fn rows(file: &[u8]) -> Vec<Vec<String>> {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(file);
        reader.records().map(|row| row.expect("a row").iter().map(str::to_owned).collect()).collect()
    }

    #[test]
    fn no_cell_is_a_formula_or_ends_its_row() {
        let hostile = ["=HYPERLINK(\"http://x\")", "+1", "-1", "@SUM(A1)", " \t=1", "a\",\r\n=1", "plain"];
        let file = failed_windows(&report(hostile.map(|message| failure("w1", message)).to_vec()));
        let rows = rows(&file.expect("written").expect("a file"));
        assert_eq!(rows.len(), 1 + hostile.len());
        for row in &rows {
            assert_eq!(row.len(), 7, "{row:?}");
            assert!(row.iter().all(|cell| !cell.trim_start().starts_with(['=', '+', '-', '@'])), "{row:?}");
        }
        assert_eq!((rows[1][5].as_str(), rows[7][5].as_str()), ("'=HYPERLINK(\"http://x\")", "plain"));
    }

    #[test]
    fn a_window_has_its_range_its_messages_and_what_to_do() {
        let file = failed_windows(&report(vec![failure("20240701T000000.000Z--20240702T000000.000Z", "no")]));
        let rows = rows(&file.expect("written").expect("a file"));
        assert_eq!(rows[1][1..5], ["2024-07-01T00:00:00.000Z", "2024-07-02T00:00:00.000Z", "433", "StoreDenied"]);
        assert!(!rows[1][6].is_empty());
    }

    #[test]
    fn a_run_without_a_failed_window_has_no_file() {
        assert!(failed_windows(&report(Vec::new())).expect("nothing to write").is_none());
        assert!(failed_windows(&report(vec![failure("", "the run died")])).expect("nothing to write").is_none());
    }
}

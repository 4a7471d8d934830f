//! Tables as files, for a spreadsheet: CSV whose cells stay text, whatever they hold.

use crate::words;
use alerts::run::{
    overview::{Extent, span_of},
    report::RunReport,
};
use identity::instant;

/// Rows of a file that goes along with a mail; `runs/<run>/report.json` has all of them.
const MOST: usize = 5000;

const COLUMNS: [&str; 9] =
    ["window", "from", "to", "messages", "committed by other runs", "error", "said", "what to do", "log"];

/// The windows of a run that failed, one a line, with what to do and where their log is; none where none did.
pub fn failed_windows(report: &RunReport, execution_arn: &str) -> Result<Option<Vec<u8>>, csv::Error> {
    let failures: Vec<_> = words::failures(report).filter(|failure| !failure.window_id.is_empty()).collect();
    if failures.is_empty() {
        return Ok(None);
    }
    let mut file = csv::Writer::from_writer(Vec::new());
    file.write_record(COLUMNS)?;
    for failure in failures.iter().take(MOST) {
        let span = span_of(&failure.window_id);
        let edge = |at: Option<jiff::Timestamp>| at.map(instant::iso).unwrap_or_default();
        let cells = [
            failure.window_id.clone(),
            edge(span.as_ref().map(|span| span.from)),
            edge(span.as_ref().map(|span| span.to)),
            failure.messages.to_string(),
            match failure.by_other_runs {
                Extent::Nothing => "no".to_owned(),
                Extent::Part => "in part".to_owned(),
                Extent::All => "yes".to_owned(),
            },
            failure.error.clone(),
            failure.message.clone(),
            errors::advice(&failure.error).to_owned(),
            words::log_of_failure(failure, execution_arn).unwrap_or_default(),
        ];
        file.write_record(cells.map(|cell| safe(&cell)))?;
    }
    if failures.len() > MOST {
        let rest = format!("and {} more: runs/{}/report.json", failures.len() - MOST, report.run_id);
        let mut row = COLUMNS.map(|_| String::new());
        row[0] = safe(&rest);
        file.write_record(row)?;
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
        let (window_id, error, message) = (window_id.into(), "StoreDenied".into(), message.into());
        Failure { window_id, error, message, messages: 433, ..Failure::default() }
    }

    fn rows(file: &[u8]) -> Vec<Vec<String>> {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(file);
        reader.records().map(|row| row.expect("a row").iter().map(str::to_owned).collect()).collect()
    }

    #[test]
    fn no_cell_is_a_formula_or_ends_its_row() {
        let hostile = ["=HYPERLINK(\"http://x\")", "+1", "-1", "@SUM(A1)", " \t=1", "a\",\r\n=1", "plain"];
        let file = failed_windows(&report(hostile.map(|message| failure("w1", message)).to_vec()), "");
        let rows = rows(&file.expect("written").expect("a file"));
        assert_eq!(rows.len(), 1 + hostile.len());
        for row in &rows {
            assert_eq!(row.len(), COLUMNS.len(), "{row:?}");
            assert!(row.iter().all(|cell| !cell.trim_start().starts_with(['=', '+', '-', '@'])), "{row:?}");
        }
        assert_eq!((rows[1][6].as_str(), rows[7][6].as_str()), ("'=HYPERLINK(\"http://x\")", "plain"));
    }

    #[test]
    fn a_window_has_its_range_its_messages_and_what_to_do() {
        let arn = "arn:aws:states:eu-central-1:123456789012:execution:archive-alerts:r1";
        let failure = failure("20240701T000000.000Z--20240702T000000.000Z", "no");
        let failure = Failure { step: Some("query-messages".into()), by_other_runs: Extent::Part, ..failure };
        let rows = rows(&failed_windows(&report(vec![failure]), arn).expect("written").expect("a file"));
        let told = ["2024-07-01T00:00:00.000Z", "2024-07-02T00:00:00.000Z", "433", "in part", "StoreDenied"];
        assert_eq!(rows[1][1..6], told);
        assert!(!rows[1][7].is_empty() && rows[1][8].starts_with("https://eu-central-1."), "{rows:?}");
    }

    #[test]
    fn a_run_without_a_failed_window_has_no_file() {
        assert!(failed_windows(&report(Vec::new()), "").expect("nothing to write").is_none());
        assert!(failed_windows(&report(vec![failure("", "the run died")]), "").expect("nothing to write").is_none());
    }
}

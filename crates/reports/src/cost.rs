//! What a run uses of AWS, and what that costs. Prices stand in `prices.json` and nowhere else. What is used follows
//! from what plans and reports count; only the time of functions is an estimate, and says so.

use crate::words::{bytes, count, grouped};
use alerts::{run::report::RunReport, window::plan::Window};
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// Prices in USD; by the GB of 10^9 bytes where they are by size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// The day on which they were looked up.
    pub as_of: String,
    pub region: String,
    pub state_transition: f64,
    pub lambda_gb_second: f64,
    pub lambda_request: f64,
    pub dynamodb_write: f64,
    pub dynamodb_read: f64,
    pub s3_put: f64,
    pub s3_get: f64,
    pub s3_gb_month: f64,
    pub ses_mail: f64,
    /// Of the source's disks, for a GB of messages: here two copies, as with one replica, on gp3 volumes of OpenSearch
    /// Service. Nodes, history, audit and the index beside the messages are not in it.
    pub source_gb_month: f64,
}

const BUILT_IN: &str = include_str!("../prices.json");
static PRICES: LazyLock<Prices> = LazyLock::new(|| Prices::read(BUILT_IN).expect("a test reads the built-in prices"));

impl Prices {
    /// Those that the program was built with.
    pub fn built_in() -> &'static Self {
        &PRICES
    }

    pub fn read(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }
}

/// What there is to do, or what was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Work {
    pub runs: u64,
    pub windows: u64,
    pub messages: u64,
    /// Messages whose row is written: all but those that stand in the archive already.
    pub changed: u64,
    pub source_bytes: u64,
    pub archive_bytes: u64,
}

/// States of a run outside its windows, and of a window.
const STATES_A_RUN: u64 = 9;
const STATES_A_WINDOW: u64 = 8;
/// Functions that a run calls outside its windows, and for a window.
const CALLS_A_RUN: u64 = 5;
const CALLS_A_WINDOW: u64 = 3;
/// Memory of the functions, in GB, and how long one works: by the call, and by the message of 25 kB in all three steps.
/// Measured on 20,000 messages: 0.65 ms of CPU a message; the rest is waiting for the source, S3 and DynamoDB.
const FUNCTION_GB: f64 = 1.73;
const SECONDS_A_CALL: f64 = 0.5;
const SECONDS_A_MESSAGE: f64 = 0.002;
/// A message that is archived at once is written twice to its row; a window changes its own row a few times.
const WRITES_A_MESSAGE: u64 = 2;
const WRITES_A_WINDOW: u64 = 10;
/// Raw bytes of a spool pair, which is three objects, and of an object of the archive.
const PAIR: u64 = 16 << 20;
const OBJECT: u64 = 32 << 20;
const OBJECTS_A_WINDOW: u64 = 8;

/// Of closed messages that were measured, a byte in the archive holds so many of the source.
const COMPRESSION: u64 = 4;

impl Work {
    /// All that the windows of a plan hold, as if every message were closed and new.
    pub fn planned(windows: &[Window], bytes_a_message: u64) -> Self {
        let messages = windows.iter().map(|window| window.expected).sum::<u64>();
        let source_bytes = messages * bytes_a_message;
        let archive_bytes = source_bytes / COMPRESSION;
        Work { runs: 1, windows: windows.len() as u64, messages, changed: messages, source_bytes, archive_bytes }
    }

    pub fn done(report: &RunReport) -> Self {
        let messages = &report.messages;
        Work {
            runs: 1,
            windows: report.windows.planned,
            messages: messages.source,
            changed: messages.archived + messages.open + messages.quarantined,
            source_bytes: report.bytes.source,
            archive_bytes: report.bytes.archive,
        }
    }
}

impl std::iter::Sum for Work {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Work::default(), |left, right| Work {
            runs: left.runs + right.runs,
            windows: left.windows + right.windows,
            messages: left.messages + right.messages,
            changed: left.changed + right.changed,
            source_bytes: left.source_bytes + right.source_bytes,
            archive_bytes: left.archive_bytes + right.archive_bytes,
        })
    }
}

/// One line of a bill.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Item {
    pub service: &'static str,
    /// What is paid for: `4,212 state transitions`.
    pub what: String,
    pub usd: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// What is paid once.
    pub items: Vec<Item>,
    pub usd: f64,
    /// What the archive's objects cost from then on, a month.
    pub usd_a_month: f64,
    /// What the messages cost in the source meanwhile, a month.
    pub source_usd_a_month: f64,
}

pub fn cost(work: &Work, prices: &Prices) -> Cost {
    let item = |service, amount: u64, noun: &str, price: f64| Item {
        service,
        what: count(amount, noun),
        usd: amount as f64 * price,
    };
    let calls = CALLS_A_RUN * work.runs + CALLS_A_WINDOW * work.windows;
    let seconds = calls as f64 * SECONDS_A_CALL + work.messages as f64 * SECONDS_A_MESSAGE;
    let puts = OBJECTS_A_WINDOW * work.windows + 3 * work.source_bytes / PAIR + work.source_bytes / OBJECT;
    let gb_seconds = Item {
        service: "Lambda",
        what: format!("about {} GB-seconds", grouped((seconds * FUNCTION_GB).ceil() as u64)),
        usd: seconds * FUNCTION_GB * prices.lambda_gb_second,
    };
    let items = vec![
        item(
            "Step Functions",
            STATES_A_RUN * work.runs + STATES_A_WINDOW * work.windows,
            "state transition",
            prices.state_transition,
        ),
        item("Lambda", calls, "call", prices.lambda_request),
        gb_seconds,
        item(
            "DynamoDB",
            WRITES_A_MESSAGE * work.changed + WRITES_A_WINDOW * work.windows,
            "write",
            prices.dynamodb_write,
        ),
        item("DynamoDB", work.messages - work.changed.min(work.messages), "read", prices.dynamodb_read),
        item("S3", puts, "object write", prices.s3_put),
        item("S3", 2 * puts, "object read", prices.s3_get),
        item("SES", work.runs, "mail", prices.ses_mail),
    ];
    let items: Vec<Item> = items.into_iter().filter(|item| item.usd > 0.0).collect();
    let usd = items.iter().map(|item| item.usd).sum();
    Cost {
        items,
        usd,
        usd_a_month: work.archive_bytes as f64 / 1e9 * prices.s3_gb_month,
        source_usd_a_month: work.source_bytes as f64 / 1e9 * prices.source_gb_month,
    }
}

/// `$1.23`, `$0.0042`, `under $0.0001`.
pub fn usd(amount: f64) -> String {
    match amount {
        amount if amount <= 0.0 => "$0".to_owned(),
        amount if amount < 0.0001 => "under $0.0001".to_owned(),
        amount if amount < 0.095 => format!("${amount:.4}"),
        amount if amount < 1000.0 => format!("${amount:.2}"),
        amount => format!("${}", grouped(amount.round() as u64)),
    }
}

/// What it costs to keep messages in the archive, what of the source's storage can be saved, and by which prices that
/// is. `source_gb_month` is what the deployment says of its source.
pub fn of_keeping(source_bytes: u64, archive_bytes: u64, source_gb_month: Option<f64>) -> [String; 2] {
    let built_in = Prices::built_in();
    let prices = Prices { source_gb_month: source_gb_month.unwrap_or(built_in.source_gb_month), ..built_in.clone() };
    let kept = cost(&Work { source_bytes, archive_bytes, ..Work::default() }, &prices);
    let (there, here) = (kept.source_usd_a_month, kept.usd_a_month);
    let saved = match there - here {
        saved if saved > 0.0 => {
            format!(" Purged there, they save about {} a month, once its disks are made smaller.", usd(saved))
        }
        _ => String::new(),
    };
    let assumed = if source_gb_month.is_some() { "as this deployment is set" } else { "assumed, see source_gb_month" };
    let Prices { s3_gb_month, region, as_of, source_gb_month, .. } = &prices;
    [
        format!(
            "To keep these messages costs about {} a month in the archive, and about {} in the source.{saved}",
            usd(here),
            usd(there)
        ),
        format!(
            "Prices of a GB and month: ${s3_gb_month} in S3 ({region}, {as_of}), ${source_gb_month} in the source \
            ({assumed}), where messages are counted without their history and audit."
        ),
    ]
}

/// What a run cost once, in USD.
pub fn of_run(report: &RunReport) -> f64 {
    let work = Work::done(report);
    if work.messages == 0 { 0.0 } else { cost(&work, Prices::built_in()).usd }
}

/// What a run cost, for its report; none where it did nothing.
pub fn told(report: &RunReport) -> Option<String> {
    let (work, prices) = (Work::done(report), Prices::built_in());
    if work.messages == 0 {
        return None;
    }
    let Cost { usd: once, usd_a_month, .. } = cost(&work, prices);
    let kept = match work.archive_bytes {
        0 => String::new(),
        size => format!(", and {} a month for the {} that it wrote", usd(usd_a_month), bytes(size)),
    };
    Some(format!("It cost about {}{kept} (prices of {}, {}).", usd(once), prices.region, prices.as_of))
}

#[cfg(test)]
mod tests {
    use super::*;
    use identity::instant;

    #[test]
    fn the_built_in_prices_are_those_of_a_day() {
        let prices = Prices::built_in();
        assert!(instant::parse(&prices.as_of).is_some(), "{}", prices.as_of);
        for price in [prices.state_transition, prices.lambda_gb_second, prices.dynamodb_write, prices.s3_gb_month] {
            assert!(price > 0.0 && price < 0.1);
        }
        assert!(Prices::read(&BUILT_IN.replace("s3_put", "s3_putt")).is_err(), "a misspelled price is no price");
    }

    #[test]
    fn a_bill_counts_what_is_written_and_not_what_stands_there_already() {
        let new = Work {
            runs: 1,
            windows: 10,
            messages: 20_000,
            changed: 20_000,
            source_bytes: 500_000_000,
            archive_bytes: 100_000_000,
        };
        let bill = cost(&new, Prices::built_in());
        let of = |bill: &Cost, service: &str| {
            bill.items.iter().filter(|item| item.service == service).map(|item| item.usd).sum::<f64>()
        };
        // 40,100 writes at $0.625 a million, 89 transitions at $0.025 a thousand.
        assert!((of(&bill, "DynamoDB") - 0.0250625).abs() < 1e-9, "{bill:?}");
        assert!((of(&bill, "Step Functions") - 0.002225).abs() < 1e-9, "{bill:?}");
        assert!((bill.usd_a_month - 0.0023).abs() < 1e-9);
        assert!((bill.source_usd_a_month - 0.122).abs() < 1e-9);
        assert!((bill.items.iter().map(|item| item.usd).sum::<f64>() - bill.usd).abs() < 1e-12);
        let again = cost(&Work { changed: 0, ..new }, Prices::built_in());
        assert!(of(&again, "DynamoDB") < of(&bill, "DynamoDB") / 5.0, "{again:?}");
    }

    #[test]
    fn seven_years_of_half_a_million_messages_cost_less_than_five_dollars_with_their_storage() {
        let (weeks, messages) = (7 * 52, 500_000);
        let source_bytes = 25_000 * messages;
        let all = Work {
            runs: weeks,
            windows: weeks,
            messages,
            changed: messages,
            source_bytes,
            archive_bytes: source_bytes / COMPRESSION,
        };
        let bill = cost(&all, Prices::built_in());
        // What is archived grows evenly over 84 months.
        let total = bill.usd + bill.usd_a_month * 84.0 / 2.0;
        assert!(total < 5.0, "${total}: {bill:?}");
    }

    #[test]
    fn what_is_saved_is_told_with_its_assumption_and_only_where_something_is() {
        assert_eq!(
            of_keeping(20_000_000_000, 10_000_000_000, None),
            [
                "To keep these messages costs about $0.23 a month in the archive, and about $4.88 in the source. \
                 Purged there, they save about $4.65 a month, once its disks are made smaller.",
                "Prices of a GB and month: $0.023 in S3 (us-east-1, 2026-11-01), $0.244 in the source (assumed, see \
                 source_gb_month), where messages are counted without their history and audit."
            ]
        );
        let [told, prices] = of_keeping(20_000_000_000, 5_000_000_000, Some(0.1));
        assert!(told.contains("about $2.00 in the source."), "{told}");
        assert!(prices.contains("$0.1 in the source (as this deployment is set)"), "{prices}");
        let [cheap, _] = of_keeping(20_000_000_000, 5_000_000_000, Some(0.0));
        assert!(cheap.ends_with("about $0 in the source."), "{cheap}");
    }

    #[test]
    fn amounts_are_easy_to_read() {
        assert_eq!(
            [0.0, 0.00001, 0.0042, 1.234, 12345.6].map(usd),
            ["$0", "under $0.0001", "$0.0042", "$1.23", "$12,346"]
        );
    }
}

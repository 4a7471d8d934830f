//! Searches the extracted errors of a period, compares them with the period before and with all that is known, and
//! writes the report that mail and page are made of. Reads what EventBridge or a person gives as the context.

use aws_config::SdkConfig;
use errors::{Name, Named};
use futures::{StreamExt, TryStreamExt, stream};
use identity::instant;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use log_entries::{
    Filter, Group, LogObject, NOT_READ, Occurrence, PAYLOAD, ReportTask, SETTINGS, SearchError, Seen, groups,
};
use logs::{DamagedFile, FileShare, Finding, LogReport, Settings, SettingsError, Share, service_of};
use runtime::{Call, Config, ConfigMissing, Metrics, Unit};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use storage::{LedgerError, Objects, StoreError, Table};

/// What a scheduled report covers.
const PERIOD: SignedDuration = SignedDuration::from_hours(24);
/// An error that was not seen for this long is back.
const SILENCE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Errors that are looked up in what is known, the most frequent first, and lines of each list.
const LOOKED_UP: usize = 2000;
const LISTED: usize = 100;
const FREQUENT: usize = 5;
const LOOKUPS: usize = 16;
/// Days of a period whose files are looked at: ten years.
const DAYS: usize = 3660;

pub struct Deps {
    pub archive: Objects,
    pub objects: Table<LogObject>,
    pub occurrences: Table<Occurrence>,
}

impl Deps {
    pub fn from_env(aws: &SdkConfig) -> Result<Self, ConfigMissing> {
        let mut config = Config::default();
        let deps = Deps {
            archive: Objects::new(aws, config.required("ALERT_ARCHIVE_BUCKET")),
            objects: Table::new(aws, config.required("ALERT_ARCHIVE_LOG_OBJECTS_TABLE")),
            occurrences: Table::new(aws, config.required("ALERT_ARCHIVE_LOG_ERRORS_TABLE")),
        };
        config.check()?;
        Ok(deps)
    }
}

/// The execution's name and its input.
#[derive(Debug, Deserialize)]
pub struct Request {
    pub v: u32,
    pub run_id: String,
    pub input: Context,
}

/// `{"scheduled_for"}`: the day before it; or `{"from", "to"}`, and which errors and services.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Context {
    pub scheduled_for: Option<String>,
    pub from: Option<String>,
    pub to: Option<String>,
    pub error_types: Vec<String>,
    pub services: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Input(String),
    #[error(transparent)]
    Search(#[from] SearchError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("{SETTINGS} is not UTF-8")]
    PatternsText,
    #[error("{SETTINGS}, {0}")]
    Patterns(#[from] SettingsError),
}

impl Named for Error {
    fn name(&self) -> Name {
        match self {
            Error::Input(_) => Name::InvalidInput,
            Error::Search(error) => error.name(),
            Error::Store(error) => error.name(),
            Error::Ledger(error) => error.name(),
            Error::PatternsText | Error::Patterns(_) => Name::LogPatternsInvalid,
        }
    }
}

pub async fn handle(deps: &Deps, request: Request, call: Call) -> Result<ReportTask, Error> {
    if request.v != PAYLOAD {
        return Err(Error::Input(format!("payload version {} is not {PAYLOAD}", request.v)));
    }
    let (from, to) = period(&request.input)?;
    // Twice the same scheduled time is the same report, and so one mail.
    let id = match &request.input.scheduled_for {
        Some(_) => format!("scheduled-{}", to.strftime("%Y%m%dT%H%M%SZ")),
        None => request.run_id.clone(),
    };
    let filter = Filter { from, to, services: request.input.services, error_types: request.input.error_types };
    let before = Filter {
        from: from - (to - from).to_duration(jiff::SpanRelativeTo::days_are_24_hours()).unwrap_or(PERIOD),
        to: from,
        ..filter.clone()
    };
    let settings = match deps.archive.find(SETTINGS).await? {
        Some(body) => Settings::parse(std::str::from_utf8(&body).map_err(|_| Error::PatternsText)?)?,
        None => Settings::built_in(),
    };
    let now = groups(&deps.archive, &filter, &settings.masks).await?;
    let earlier = groups(&deps.archive, &before, &settings.masks).await?;
    let known = known(deps, &now, from).await?;
    let mut report = report(id.clone(), &filter, &now, &earlier, &known);
    (report.damaged, report.unread_files) = not_read(deps, &filter).await?;
    let report_key = format!("log-errors/reports/{}.json", identity::safe_component(&id));
    deps.archive.put_json(&report_key, &report).await?;
    Metrics::new()
        .dimension("Step", "search-log-errors")
        .property("Report", &id)
        .duration("Duration", call.took())
        .figure("Entries", Unit::Count, report.entries)
        .figure("NewErrors", Unit::Count, report.new.len() as u64)
        .write();
    Ok(ReportTask { v: PAYLOAD, id, report_key })
}

fn period(context: &Context) -> Result<(Timestamp, Timestamp), Error> {
    let read = |name: &str, text: &str| {
        let wrong =
            || Error::Input(format!("`{name}` is `{text}`: write a UTC date or instant, such as 2024-07-01T06:00:00Z"));
        instant::parse_edge(text).ok_or_else(wrong)
    };
    let (from, to) = match (&context.scheduled_for, &context.from, &context.to) {
        (Some(time), None, None) => {
            let to = read("scheduled_for", time)?;
            (to - PERIOD, to)
        }
        (None, Some(from), Some(to)) => (read("from", from)?, read("to", to)?),
        _ => return Err(Error::Input("the input needs `scheduled_for`, or `from` and `to`".into())),
    };
    if from >= to {
        return Err(Error::Input(format!("`from` {from} is not before `to` {to}")));
    }
    Ok((from, to))
}

/// What is known of each error over all logs.
async fn known(deps: &Deps, groups: &[Group], from: Timestamp) -> Result<HashMap<String, Seen>, Error> {
    let lookups = groups.iter().take(LOOKED_UP).map(|group| async move {
        let rows = deps.occurrences.partition(&format!("{}#{}", group.service, group.fingerprint)).await?;
        Ok::<_, Error>(Seen::of(&rows, from).map(|seen| (group.fingerprint.clone(), seen)))
    });
    stream::iter(lookups).buffer_unordered(LOOKUPS).try_filter_map(|seen| async move { Ok(seen) }).try_collect().await
}

/// Files that came in the days of the period and could not be read as a whole, and those with lines in no known format.
async fn not_read(deps: &Deps, filter: &Filter) -> Result<(Vec<DamagedFile>, Vec<FileShare>), Error> {
    let (mut damaged, mut unread) = (Vec::new(), Vec::new());
    let date = |at: Timestamp| at.to_zoned(TimeZone::UTC).date();
    let last = date(filter.to - SignedDuration::from_millis(1));
    for day in date(filter.from).series(1.day()).take_while(|day| *day <= last).take(DAYS) {
        for row in deps.objects.by_index(NOT_READ, "not_read_on", &day.to_string(), None).await? {
            let Some(version) = row.current else { continue };
            let service = service_of(&row.object);
            let is_asked_for = filter.services.is_empty() || filter.services.iter().any(|wanted| wanted == service);
            if !is_asked_for || version.at < filter.from || filter.to <= version.at {
                continue;
            }
            if version.unparsed > 0 {
                unread.push(FileShare { object: row.object.clone(), count: version.unparsed });
            }
            if let Some(damage) = version.damaged {
                damaged.push(DamagedFile { object: row.object, error: damage.error, lines: version.lines });
            }
        }
    }
    damaged.sort_by(|a, b| a.object.cmp(&b.object));
    damaged.truncate(LISTED);
    unread.sort_by(|a, b| (b.count, &a.object).cmp(&(a.count, &b.object)));
    unread.truncate(LISTED);
    Ok((damaged, unread))
}

fn report(id: String, filter: &Filter, now: &[Group], earlier: &[Group], known: &HashMap<String, Seen>) -> LogReport {
    let before: HashMap<&str, u64> = earlier.iter().map(|group| (group.fingerprint.as_str(), group.count)).collect();
    let finding = |group: &Group| {
        let seen = known.get(&group.fingerprint);
        Finding {
            fingerprint: group.fingerprint.clone(),
            service: group.service.clone(),
            category: group.category.clone(),
            level: group.level.clone(),
            exception: group.exception.clone(),
            message: group.message.clone(),
            count: group.count,
            before: before.get(group.fingerprint.as_str()).copied().unwrap_or(0),
            first_seen: seen.map(|seen| instant::iso(seen.first)).or_else(|| group.first_seen.clone()),
            last_before: seen.and_then(|seen| seen.last_before).map(instant::iso),
            object: group.sample.object.clone(),
            line: group.sample.line,
            stack: group.sample.stack.clone(),
        }
    };
    // An error without a time was seen on a date.
    let midnight = filter.from.to_zoned(TimeZone::UTC).start_of_day().map_or(filter.from, |day| day.timestamp());
    let is_new = |group: &&Group| {
        let from = if group.first_seen.is_none() { midnight } else { filter.from };
        known.get(&group.fingerprint).is_none_or(|seen| seen.first >= from)
    };
    let is_back = |group: &&Group| {
        let last = known.get(&group.fingerprint).and_then(|seen| seen.last_before);
        last.is_some_and(|last| filter.from.duration_since(last) >= SILENCE)
    };
    let mut top: Vec<Finding> = now.iter().map(finding).filter(|finding| finding.count > finding.before).collect();
    top.sort_by_key(|finding| std::cmp::Reverse(finding.count - finding.before));
    top.truncate(LISTED);
    let mut files: BTreeMap<&str, u64> = BTreeMap::new();
    let mut hours: BTreeMap<&str, u64> = BTreeMap::new();
    for group in now {
        group.objects.iter().for_each(|(object, count)| *files.entry(object).or_default() += count);
        group.hours.iter().for_each(|(hour, count)| *hours.entry(hour).or_default() += count);
    }
    let mut worst_files: Vec<FileShare> =
        files.into_iter().map(|(object, count)| FileShare { object: object.to_owned(), count }).collect();
    worst_files.sort_by_key(|file| std::cmp::Reverse(file.count));
    worst_files.truncate(LISTED);
    let sum = |groups: &[Group]| groups.iter().map(|group| group.count).sum();
    LogReport {
        id,
        from: instant::iso(filter.from),
        to: instant::iso(filter.to),
        error_types: filter.error_types.clone(),
        services: filter.services.clone(),
        entries: sum(now),
        entries_before: sum(earlier),
        kinds: now.len() as u64,
        by_category: shares(now, earlier, |group| &group.category),
        by_service: shares(now, earlier, |group| &group.service),
        new: now.iter().filter(is_new).take(LISTED).map(finding).collect(),
        back: now.iter().filter(is_back).take(LISTED).map(finding).collect(),
        top,
        frequent: now.iter().filter(|group| !is_new(group) && !is_back(group)).take(FREQUENT).map(finding).collect(),
        damaged: Vec::new(),
        unread_files: Vec::new(),
        worst_files,
        by_hour: hours.into_iter().map(|(hour, count)| Share { label: hour.to_owned(), count, before: 0 }).collect(),
    }
}

/// Counts by a label of now and before, the largest first.
fn shares<'a>(now: &'a [Group], earlier: &'a [Group], label: impl Fn(&'a Group) -> &'a String) -> Vec<Share> {
    let mut counts: BTreeMap<&String, Share> = BTreeMap::new();
    let share = |label: &String| Share { label: label.clone(), count: 0, before: 0 };
    for group in now {
        counts.entry(label(group)).or_insert_with_key(|name| share(name)).count += group.count;
    }
    for group in earlier {
        counts.entry(label(group)).or_insert_with_key(|name| share(name)).before += group.count;
    }
    let mut shares: Vec<Share> = counts.into_values().collect();
    shares.sort_by_key(|share| std::cmp::Reverse((share.count, share.before)));
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(fingerprint: &str, count: u64) -> Group {
        let sample =
            log_entries::Sample { object: "shop/a.gz".into(), line: 1, time: None, message: "m".into(), stack: None };
        Group {
            fingerprint: fingerprint.into(),
            category: "other".into(),
            service: "shop".into(),
            level: "ERROR".into(),
            exception: None,
            message: "m".into(),
            count,
            first_seen: None,
            last_seen: None,
            sample,
            hours: BTreeMap::new(),
            objects: BTreeMap::from([("shop/a.gz".to_owned(), count)]),
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant")
    }

    fn seen(first: &str, last_before: Option<&str>) -> Seen {
        Seen {
            first: at(first),
            last: at("2024-07-10T12:00:00Z"),
            last_before: last_before.map(at),
            hours: BTreeMap::new(),
        }
    }

    #[test]
    fn new_back_and_growing_errors_are_told_apart() {
        let filter = Filter {
            from: at("2024-07-10T00:00:00Z"),
            to: at("2024-07-11T00:00:00Z"),
            services: vec![],
            error_types: vec![],
        };
        let now = [group("steady", 5), group("new", 3), group("back", 2), group("grown", 9)];
        let earlier = [group("steady", 5), group("grown", 1), group("gone", 7)];
        let known = HashMap::from([
            ("steady".to_owned(), seen("2024-01-01T00:00:00Z", Some("2024-07-09T10:00:00Z"))),
            ("new".to_owned(), seen("2024-07-10T03:00:00Z", None)),
            ("back".to_owned(), seen("2024-01-01T00:00:00Z", Some("2024-06-01T00:00:00Z"))),
            ("grown".to_owned(), seen("2024-01-01T00:00:00Z", Some("2024-07-09T10:00:00Z"))),
        ]);
        let report = report("r".into(), &filter, &now, &earlier, &known);
        let names = |list: &[Finding]| list.iter().map(|finding| finding.fingerprint.clone()).collect::<Vec<_>>();
        assert_eq!(names(&report.new), ["new"]);
        assert_eq!(names(&report.back), ["back"]);
        assert_eq!(names(&report.top), ["grown", "new", "back"]);
        assert_eq!((report.entries, report.entries_before, report.kinds), (19, 13, 4));
        assert_eq!(report.by_service, [Share { label: "shop".into(), count: 19, before: 13 }]);
    }

    #[test]
    fn a_context_that_says_no_period_is_refused_by_name() {
        let period_of = |json: &str| period(&serde_json::from_str(json).expect("JSON"));
        for json in [
            "{}",
            r#"{"from":"2024-07-01"}"#,
            r#"{"from":"2024-07-02","to":"2024-07-01"}"#,
            r#"{"scheduled_for":"<aws.scheduler>"}"#,
        ] {
            assert_eq!(period_of(json).expect_err(json).name(), Name::InvalidInput, "{json}");
        }
        let day = period_of(r#"{"scheduled_for":"2024-07-02T06:00:00Z"}"#).expect("a day");
        assert_eq!(day, (at("2024-07-01T06:00:00Z"), at("2024-07-02T06:00:00Z")));
    }
}

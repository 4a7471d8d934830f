//! Searches the extracted errors of a period, compares them with the period before and with all that is known, and
//! writes the report that mail and page are made of. Reads what EventBridge or a person gives as the context.

use aws_config::SdkConfig;
use errors::{Name, Named};
use identity::instant;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use log_entries::{
    ALL_OBJECTS, EXTRACTED, Filter, Group, LogObject, NOT_READ, Occurrence, PAYLOAD, ReportInput, ReportTask, SETTINGS,
    SearchError, SearchRequest, Seen, Sightings, groups, late_groups, sightings_by_object,
};
use logs::{DamagedFile, FileShare, Finding, LogReport, Settings, SettingsError, Share, service_of};
use runtime::{Call, Config, ConfigMissing, Metrics, Unit};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use storage::{LedgerError, Objects, StoreError, Table};

/// What a scheduled report covers.
const PERIOD: SignedDuration = SignedDuration::from_hours(24);
/// An error that was not seen for this long is back.
const SILENCE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Errors that are looked up in what is known, the most frequent first, and lines of each list.
const LOOKED_UP: usize = 2000;
const LISTED: usize = 100;
const FREQUENT: usize = 5;
/// An index of the ledger follows its table within less than this.
const INDEX_LAG: Duration = Duration::from_secs(5);
/// Days of a period whose files are looked at: ten years.
const DAYS: usize = 3660;

pub struct Deps {
    pub archive: Objects,
    pub objects: Table<LogObject>,
    pub occurrences: Table<Occurrence>,
    pub sightings: Table<Sightings>,
}

impl Deps {
    pub fn from_env(aws: &SdkConfig) -> Result<Self, ConfigMissing> {
        let mut config = Config::default();
        let errors = config.required("ALERT_ARCHIVE_LOG_ERRORS_TABLE");
        let deps = Deps {
            archive: Objects::new(aws, config.required("ALERT_ARCHIVE_BUCKET")),
            objects: Table::new(aws, config.required("ALERT_ARCHIVE_LOG_OBJECTS_TABLE")),
            occurrences: Table::new(aws, errors.clone()),
            sightings: Table::new(aws, errors),
        };
        config.check()?;
        Ok(deps)
    }
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

pub async fn handle(deps: &Deps, request: SearchRequest, call: Call) -> Result<ReportTask, Error> {
    if request.v != PAYLOAD {
        return Err(Error::Input(format!("payload version {} is not {PAYLOAD}", request.v)));
    }
    let (from, to) = period(&request.input)?;
    // Twice the same scheduled time is the same report, and so one mail.
    let id = match &request.input.scheduled_for {
        Some(_) => scheduled_id(to),
        None => request.run_id.clone(),
    };
    let report_key = report_key(&id);
    // What came since the report was made is late for it, and the next one begins where this one looked.
    let is_scheduled = request.input.scheduled_for.is_some();
    if is_scheduled && deps.archive.find_json::<LogReport>(&report_key).await?.is_some() {
        return Ok(ReportTask { v: PAYLOAD, id, report_key });
    }
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
    // Before the first look: what comes from now on is late for this report.
    let searched_at = call.now();
    let now = groups(&deps.archive, &filter, &settings.masks).await?;
    let earlier = groups(&deps.archive, &before, &settings.masks).await?;
    let known = known(deps, &now, from).await?;
    let mut report = report(id.clone(), &filter, &now, &earlier, &known);
    (report.damaged, report.unread_files) = not_read(deps, &filter, call.now()).await?;
    report.damaged_files = report.damaged.len() as u64;
    report.damaged.truncate(LISTED);
    report.unread_files.truncate(LISTED);
    report.searched_at = instant::iso(searched_at);
    if is_scheduled {
        let late = late(deps, &filter, searched_at, &settings, &call).await?;
        let known = self::known(deps, &late, from).await?;
        report.late_entries = late.iter().map(|group| group.count).sum();
        report.late = late.iter().take(LISTED).map(|group| finding(group, 0, known.get(&group.fingerprint))).collect();
    }
    deps.archive.put_json(&report_key, &report).await?;
    Metrics::new()
        .dimension("Step", "search-log-errors")
        .property("Report", &id)
        .duration("Duration", call.took())
        .figure("Entries", Unit::Count, report.entries)
        .figure("NewErrors", Unit::Count, report.new_kinds)
        .write();
    Ok(ReportTask { v: PAYLOAD, id, report_key })
}

fn scheduled_id(to: Timestamp) -> String {
    format!("scheduled-{}", to.strftime("%Y%m%dT%H%M%SZ"))
}

fn report_key(id: &str) -> String {
    format!("log-errors/reports/{}.json", identity::safe_component(id))
}

/// Errors from before the period whose logs came when the report of their own period was made. A log that came too
/// late for it must not be lost in the tables.
async fn late(
    deps: &Deps,
    filter: &Filter,
    until: Timestamp,
    settings: &Settings,
    call: &Call,
) -> Result<Vec<Group>, Error> {
    // What came before `until` and is not in the index yet would be in no report: the next one begins there.
    call.sleep(INDEX_LAG.saturating_sub(call.took())).await;
    let before: Option<LogReport> = deps.archive.find_json(&report_key(&scheduled_id(filter.from))).await?;
    let since = before.and_then(|report| report.searched_at.parse().ok()).unwrap_or(filter.from);
    let date = |at: Timestamp| at.to_zoned(TimeZone::UTC).date();
    let mut extracted = Vec::new();
    // A log that was read again meanwhile stands on the day of that.
    for day in date(since).series(1.day()).take_while(|day| *day <= date(call.now())).take(DAYS) {
        extracted.extend(deps.objects.by_index(EXTRACTED, "extracted_on", &day.to_string(), None).await?);
    }
    Ok(late_groups(&deps.archive, &extracted, filter, since..until, &settings.masks).await?)
}

fn period(context: &ReportInput) -> Result<(Timestamp, Timestamp), Error> {
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

/// What is known of each error over all logs: a row of each, and nothing of what else is noted of it.
async fn known(deps: &Deps, groups: &[Group], from: Timestamp) -> Result<HashMap<String, Seen>, Error> {
    let looked_up = groups.iter().take(LOOKED_UP);
    let key = |group: &Group| Sightings::key_of(&group.service, &group.fingerprint);
    let keys: Vec<_> = looked_up.clone().map(|group| (key(group), Some(ALL_OBJECTS.to_owned()))).collect();
    let rows = deps.sightings.get_many(&keys).await?;
    let mut known = HashMap::new();
    for (group, key) in looked_up.zip(&keys) {
        let sightings = match rows.get(key) {
            Some(row) => Some(row.clone()),
            None => sightings_by_object(&deps.occurrences, &group.service, &group.fingerprint).await?,
        };
        let seen = sightings.and_then(|sightings| Seen::of(&sightings, from));
        known.extend(seen.map(|seen| (group.fingerprint.clone(), seen)));
    }
    Ok(known)
}

/// Files that came in the days of the period and could not be read as a whole, and those with lines in no known format.
async fn not_read(deps: &Deps, filter: &Filter, now: Timestamp) -> Result<(Vec<DamagedFile>, Vec<FileShare>), Error> {
    let (mut damaged, mut unread) = (Vec::new(), Vec::new());
    let date = |at: Timestamp| at.to_zoned(TimeZone::UTC).date();
    // No file comes after today, and of a period of centuries only the last years can have any.
    let last = date(filter.to - SignedDuration::from_millis(1)).min(date(now));
    let first = date(filter.from).max(last.saturating_sub((DAYS as i64).days()));
    for day in first.series(1.day()).take_while(|day| *day <= last) {
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
    unread.sort_by(|a, b| (b.count, &a.object).cmp(&(a.count, &b.object)));
    Ok((damaged, unread))
}

fn report(id: String, filter: &Filter, now: &[Group], earlier: &[Group], known: &HashMap<String, Seen>) -> LogReport {
    let before: HashMap<&str, u64> = earlier.iter().map(|group| (group.fingerprint.as_str(), group.count)).collect();
    let finding = |group: &Group| {
        let before = before.get(group.fingerprint.as_str()).copied().unwrap_or(0);
        finding(group, before, known.get(&group.fingerprint))
    };
    // Of the others it is not known since when they are there.
    let looked_up = &now[..now.len().min(LOOKED_UP)];
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
        new: looked_up.iter().filter(is_new).take(LISTED).map(finding).collect(),
        new_kinds: looked_up.iter().filter(is_new).count() as u64,
        back: looked_up.iter().filter(is_back).take(LISTED).map(finding).collect(),
        back_kinds: looked_up.iter().filter(is_back).count() as u64,
        top,
        frequent: looked_up
            .iter()
            .filter(|group| !is_new(group) && !is_back(group))
            .take(FREQUENT)
            .map(finding)
            .collect(),
        worst_files,
        by_hour: hours.into_iter().map(|(hour, count)| Share { label: hour.to_owned(), count, before: 0 }).collect(),
        ..LogReport::default()
    }
}

fn finding(group: &Group, before: u64, seen: Option<&Seen>) -> Finding {
    Finding {
        fingerprint: group.fingerprint.clone(),
        service: group.service.clone(),
        category: group.category.clone(),
        level: group.level.clone(),
        exception: group.exception.clone(),
        message: group.message.clone(),
        count: group.count,
        before,
        first_seen: seen.map(|seen| instant::iso(seen.first)).or_else(|| group.first_seen.clone()),
        last_before: seen.and_then(|seen| seen.last_before).map(instant::iso),
        object: group.sample.object.clone(),
        line: group.sample.line,
        stack: group.sample.stack.clone(),
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
        Seen { first: at(first), last_before: last_before.map(at) }
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
    fn all_new_errors_are_counted_and_none_is_new_that_was_not_looked_up() {
        let (from, to) = (at("2024-07-10T00:00:00Z"), at("2024-07-11T00:00:00Z"));
        let filter = Filter { from, to, services: vec![], error_types: vec![] };
        let now: Vec<Group> = (0..LOOKED_UP + 50).map(|at| group(&at.to_string(), 1)).collect();
        let unknown = report("r".into(), &filter, &now, &[], &HashMap::new());
        assert_eq!((unknown.new.len(), unknown.new_kinds, unknown.back_kinds), (LISTED, LOOKED_UP as u64, 0));
        assert!(unknown.frequent.is_empty(), "{:?}", unknown.frequent);
        let long_ago = || seen("2024-01-01T00:00:00Z", Some("2024-06-01T00:00:00Z"));
        let known = now.iter().take(LOOKED_UP).map(|group| (group.fingerprint.clone(), long_ago())).collect();
        let back = report("r".into(), &filter, &now, &[], &known);
        assert_eq!((back.back.len(), back.new_kinds, back.back_kinds), (LISTED, 0, LOOKED_UP as u64));
    }

    fn contribution(fingerprint: &str, first_seen: &str) -> log_entries::Contribution {
        log_entries::Contribution {
            fingerprint: fingerprint.into(),
            service: "shop".into(),
            category: "other".into(),
            level: "ERROR".into(),
            exception: None,
            count: 1,
            first_seen: first_seen.into(),
            last_seen: first_seen.into(),
            hours: BTreeMap::from([(first_seen[..13].to_owned(), 1)]),
            sample: group(fingerprint, 1).sample,
        }
    }

    #[tokio::test]
    async fn what_is_known_of_errors_is_read_by_the_hundred_however_often_they_were_seen() {
        const ERRORS: usize = 250;
        let counting = network::OneFault::at(usize::MAX, network::Strike::Request);
        let deps = cloud_through(counting.clone());
        let groups: Vec<Group> = (0..ERRORS).map(|at| group(&format!("f{at}"), 1)).collect();
        for error in &groups {
            let added = contribution(&error.fingerprint, "2024-01-01T10:00:00.000Z");
            let row = Sightings::with(None, &added).expect("a row");
            deps.sightings.put(&row).await.expect("stored");
            for object in 0..3 {
                let (fingerprint, object) = (Occurrence::partition("shop", &error.fingerprint), object.to_string());
                let contribution = Some(added.clone());
                let row = Occurrence { fingerprint, object, sequencer: "1".into(), contribution, revision: 0 };
                deps.occurrences.put(&row).await.expect("stored");
            }
        }
        let before = counting.seen();
        let known = known(&deps, &groups, at("2024-07-10T00:00:00Z")).await.expect("read");
        assert_eq!((known.len(), counting.seen() - before), (ERRORS, ERRORS.div_ceil(100)));
        assert_eq!(known["f7"], seen("2024-01-01T10:00:00Z", Some("2024-01-01T10:59:59.999Z")));
    }

    #[tokio::test]
    async fn an_error_that_an_earlier_version_noted_by_object_is_not_new() {
        let deps = cloud();
        for (object, first_seen) in [("a", "2024-02-01T10:00:00.000Z"), ("b", "2024-01-01T10:00:00.000Z")] {
            let (fingerprint, object) = (Occurrence::partition("shop", "f"), object.to_owned());
            let contribution = Some(contribution("f", first_seen));
            let row = Occurrence { fingerprint, object, sequencer: "1".into(), contribution, revision: 0 };
            deps.occurrences.put(&row).await.expect("stored");
        }
        let known = known(&deps, &[group("f", 1)], at("2024-07-10T00:00:00Z")).await.expect("read");
        assert_eq!(known["f"], seen("2024-01-01T10:00:00Z", Some("2024-02-01T10:59:59.999Z")));
    }

    #[tokio::test]
    async fn all_damaged_files_are_counted() {
        let deps = cloud();
        for number in 0..LISTED + 20 {
            let damage = log_entries::Damaged { error: "GzipTruncated".into(), message: "the end is missing".into() };
            let version = log_entries::ObjectVersion { damaged: Some(damage), ..unparsed() };
            let row = not_extracted(&format!("shop/2024/07/10/{number}.gz"));
            deps.objects.put(&row.with_current(version, at("2024-07-10T12:01:00Z"))).await.expect("stored");
        }
        let report = scheduled(&deps, "2024-07-11T00:00:00Z", "2024-07-11T00:05:00Z").await;
        let all = (LISTED + 20) as u64;
        assert_eq!((report.damaged.len(), report.damaged_files, report.unread_files.len()), (LISTED, all, LISTED));
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

    fn cloud() -> Deps {
        cloud_through(network::Calm::shared())
    }

    fn cloud_through(network: std::sync::Arc<dyn network::Network>) -> Deps {
        let tables = storage::MemoryTables::new(network)
            .table("objects", "object", None)
            .table("errors", "fingerprint", Some("object"))
            .index("objects", NOT_READ, "not_read_on", "object")
            .index("objects", EXTRACTED, "extracted_on", "object");
        let objects = storage::MemoryObjects::new(network::Calm::shared()).bucket("archive");
        Deps {
            archive: Objects::over(objects, "archive"),
            objects: Table::over(tables.clone(), "objects"),
            occurrences: Table::over(tables.clone(), "errors"),
            sightings: Table::over(tables, "errors"),
        }
    }

    /// Of a log whose lines are in no known format.
    fn unparsed() -> log_entries::ObjectVersion {
        log_entries::ObjectVersion {
            sequencer: "01".into(),
            version_id: None,
            at: at("2024-07-10T12:00:00Z"),
            lines: 9,
            bytes: 1,
            entries: 0,
            unparsed: 3,
            unlisted: 0,
            damaged: None,
            parts: vec![],
            part_name: None,
            contributions: String::new(),
        }
    }

    fn not_extracted(object: &str) -> LogObject {
        LogObject {
            object: object.to_owned(),
            current: None,
            claimed: None,
            work: None,
            not_read_on: None,
            extractions: vec![],
            extracted_on: None,
            revision: 0,
        }
    }

    #[tokio::test]
    async fn files_that_were_not_read_are_told_of_a_period_of_any_length() {
        let deps = cloud();
        let row = not_extracted("shop/2024/07/10/app.gz").with_current(unparsed(), at("2024-07-10T12:01:00Z"));
        deps.objects.put(&row).await.expect("stored");
        for (from, to, expected) in [
            ("2024-07-10T00:00:00Z", "2024-07-11T00:00:00Z", 1),
            ("1970-01-01T00:00:00Z", "2024-07-11T00:00:00Z", 1),
            ("2020-01-01T00:00:00Z", "2100-01-01T00:00:00Z", 1),
            ("0001-01-01T00:00:00Z", "9999-12-30T00:00:00Z", 1),
            ("2024-07-11T00:00:00Z", "2100-01-01T00:00:00Z", 0),
            ("2090-01-01T00:00:00Z", "2100-01-01T00:00:00Z", 0),
        ] {
            let filter = Filter { from: at(from), to: at(to), services: vec![], error_types: vec![] };
            let (_, unread) = not_read(&deps, &filter, at("2024-08-01T00:00:00Z")).await.expect("read");
            assert_eq!(unread.len(), expected, "{from} to {to}");
        }
    }

    /// A log with one error at noon of `day`, which came to be read at `extracted`.
    async fn put_log(deps: &Deps, day: &str, extracted: &[(&str, u64)], lines: &[u64]) {
        let object = format!("shop/{}/app.gz", day.replace('-', "/"));
        let entry = |line: &u64| logs::Entry {
            time: Some(at(&format!("{day}T12:00:00Z"))),
            level: logs::Level::Error,
            logger: None,
            message: "gone".into(),
            exception: None,
            stack: None,
            category: "other".into(),
            fingerprint: format!("{day}-{line}"),
            line: *line,
            byte: 0,
        };
        let part = log_entries::PartKey {
            date: day.parse().expect("a date"),
            object: log_entries::object_id(&object),
            sequencer: "01".into(),
            is_dated: true,
            number: 0,
        };
        let entries: Vec<logs::Entry> = lines.iter().map(entry).collect();
        let body = log_entries::write("shop", &object, &entries).expect("written");
        deps.archive.put(&part.key(), body, "application/vnd.apache.parquet").await.expect("stored");
        let none = not_extracted(&object);
        let version = |lines| log_entries::ObjectVersion {
            sequencer: "01".into(),
            version_id: None,
            at: Timestamp::UNIX_EPOCH,
            lines,
            bytes: 1,
            entries: lines,
            unparsed: 0,
            unlisted: 0,
            damaged: None,
            parts: vec![log_entries::Part { date: part.date, is_dated: true, number: 0 }],
            part_name: None,
            contributions: String::new(),
        };
        let row = extracted.iter().fold(none, |row, (time, lines)| row.with_current(version(*lines), at(time)));
        deps.objects.put(&row).await.expect("stored");
    }

    async fn scheduled(deps: &Deps, for_time: &str, now: &str) -> LogReport {
        let input = ReportInput { scheduled_for: Some(for_time.into()), ..ReportInput::default() };
        let request = SearchRequest { v: PAYLOAD, run_id: "r".into(), input };
        let clock = runtime::ManualClock::at(at(now));
        let mut work = std::pin::pin!(handle(deps, request, Call::new(clock.clone(), Duration::from_secs(60))));
        let task = loop {
            // Requests are done at once here: who waits sleeps.
            tokio::select! {
                biased;
                task = &mut work => break task.expect("a report"),
                () = tokio::task::yield_now() => clock.advance(Duration::from_secs(1)),
            }
        };
        deps.archive.get_json(&task.report_key).await.expect("the report")
    }

    #[tokio::test]
    async fn an_error_is_told_by_the_report_of_its_day_or_by_the_next_when_its_log_came_too_late() {
        let deps = cloud();
        put_log(&deps, "2024-07-10", &[("2024-07-10T12:01:00Z", 1)], &[1]).await;
        let first = scheduled(&deps, "2024-07-11T00:00:00Z", "2024-07-11T00:05:00Z").await;
        assert_eq!((first.entries, first.late_entries), (1, 0));
        // One that came behind that report; one that was told, and grew; one of its own day.
        put_log(&deps, "2024-07-08", &[("2024-07-11T00:05:00Z", 1)], &[1]).await;
        put_log(&deps, "2024-07-09", &[("2024-07-09T12:00:00Z", 4), ("2024-07-11T09:00:00Z", 6)], &[3, 6]).await;
        put_log(&deps, "2024-07-11", &[("2024-07-11T12:01:00Z", 1)], &[1]).await;
        // One that grew again when the second report was being made: its new line is for the third.
        put_log(&deps, "2024-07-06", &[("2024-07-11T08:00:00Z", 2), ("2024-07-12T00:05:01Z", 3)], &[2, 3]).await;
        for _ in 0..2 {
            let second = scheduled(&deps, "2024-07-12T00:00:00Z", "2024-07-12T00:05:00Z").await;
            let late: Vec<&str> = second.late.iter().map(|finding| finding.fingerprint.as_str()).collect();
            assert_eq!((second.entries, second.late_entries), (1, 3), "{late:?}");
            for told in ["2024-07-08-1", "2024-07-09-6", "2024-07-06-2"] {
                assert!(late.contains(&told), "{late:?}");
            }
        }
        let third = scheduled(&deps, "2024-07-13T00:00:00Z", "2024-07-13T00:05:00Z").await;
        assert_eq!((third.entries, third.late_entries, third.late[0].fingerprint.as_str()), (0, 1, "2024-07-06-3"));
    }

    #[tokio::test]
    async fn a_report_that_is_asked_for_again_later_stays_and_hides_no_late_log() {
        let deps = cloud();
        put_log(&deps, "2024-07-10", &[("2024-07-10T12:01:00Z", 1)], &[1]).await;
        let first = scheduled(&deps, "2024-07-11T00:00:00Z", "2024-07-11T00:05:00Z").await;
        put_log(&deps, "2024-07-09", &[("2024-07-11T06:00:00Z", 1)], &[1]).await;
        let again = scheduled(&deps, "2024-07-11T00:00:00Z", "2024-07-11T09:00:00Z").await;
        assert_eq!(again, first);
        let next = scheduled(&deps, "2024-07-12T00:00:00Z", "2024-07-12T00:05:00Z").await;
        let late: Vec<&str> = next.late.iter().map(|finding| finding.fingerprint.as_str()).collect();
        assert_eq!(late, ["2024-07-09-1"]);
    }
}

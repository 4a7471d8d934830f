//! What the archive holds, by day, without reading what it held before: each committed window is counted once, when a
//! report meets it first, and the sums are kept in one object. A run is looked at again only until all of it is
//! counted.

use crate::{Deps, Error};
use alerts::{
    commit::manifest::{Manifest, WrittenObject},
    counts::{AlertCounts, SourceSize},
    keys::{PARQUET, date_of, manifest_key, run_of, superseded_key, superseded_prefix, totals_key},
    mode::Mode,
    run::job_run::{JobRun, RunStatus},
    window::record::{State, WindowRecord},
};
use columnar::contents::{Contents, Counted, Parts, contents};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use storage::{Objects, PutOnce};

/// Requests to S3 that are under way at once.
const READS: usize = 16;
/// Windows that are counted before the sums are stored.
const AT_ONCE: usize = 500;
/// From the beginning of an object: all of a small one, and the columns with its alerts as a rule.
const BEGINNING_BYTES: u64 = 128 << 10;
/// How often the sums are taken up again when another report was quicker to write them.
const TRIES: usize = 5;

/// The sums, and what they are of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OverviewTotals {
    /// What stands in the archive, by date: without the rows that newer versions have replaced.
    pub days: BTreeMap<String, Written>,
    /// The alerts of these rows, by month. Of windows that were counted before their alerts were, there is nothing.
    #[serde(default)]
    pub alerts: BTreeMap<String, AlertCounts>,
    /// Runs whose windows are all counted.
    runs: BTreeSet<String>,
    /// Of the others, the windows that are counted.
    windows: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Below zero while the rows are not counted yet that a window of an older run has replaced.
    pub archived: i64,
    pub bytes: u64,
    /// What these messages have in the source. Of windows that were counted before this was, nothing.
    #[serde(default)]
    pub in_source: SourceSize,
    /// Where the bytes come from; not known of sums from before objects that lost rows were looked at again.
    #[serde(default)]
    measured: Option<Measured>,
}

/// How the bytes of a day are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Measured {
    /// What each window wrote, summed up.
    AsWritten,
    /// Objects of the day have lost rows, and are smaller than they were written: the day is listed.
    ByListing,
}

/// What one window changes.
#[derive(Default)]
struct OfWindow {
    window_id: String,
    days: BTreeMap<String, OfDay>,
    /// By month, without those of the rows that it took out.
    alerts: BTreeMap<String, AlertCounts>,
}

/// What one window changes of a day.
#[derive(Default)]
struct OfDay {
    /// Rows that it wrote, less those that it took out of older objects.
    rows: i64,
    /// Of the objects that it wrote.
    bytes: u64,
    in_source: SourceSize,
    has_taken_out: bool,
}

impl OfWindow {
    fn add(&mut self, date: &str, Contents { alerts, size }: &Contents, times: i64) {
        let month = date.get(..7).unwrap_or(date);
        self.alerts.entry(month.to_owned()).or_default().add_all(alerts, times);
        self.days.entry(date.to_owned()).or_default().in_source.add_all(*size, times);
    }
}

/// The sums up to now. They are stored again and again, so that a call that is cut short has not counted in vain.
pub async fn up_to_date(deps: &Deps, runs: &[JobRun]) -> Result<OverviewTotals, Error> {
    let (mut totals, mut tag) = stored(&deps.objects).await?;
    list_unmeasured(&deps.objects, &mut totals).await?;
    let mut tries = 0;
    let mut at = 0;
    while let Some(run) = runs.get(at) {
        if totals.runs.contains(&run.run_id) {
            at += 1;
            continue;
        }
        let mut next = totals.clone();
        let is_whole = count(deps, run, &mut next).await?;
        if next != totals {
            match store(&deps.objects, &next, tag.as_deref()).await? {
                Some(written) => tag = Some(written),
                None if tries < TRIES => {
                    // Another report was quicker: what it counted is not counted again.
                    tries += 1;
                    (totals, tag) = stored(&deps.objects).await?;
                    continue;
                }
                // This report counts for itself; the next one stores it.
                None => {}
            }
            totals = next;
        }
        at += usize::from(is_whole);
    }
    Ok(totals)
}

async fn stored(objects: &Objects) -> Result<(OverviewTotals, Option<String>), Error> {
    let Some((body, tag)) = objects.find_versioned(&totals_key()).await? else { return Ok(Default::default()) };
    let totals = serde_json::from_slice(&body).map_err(|error| objects.corrupt(&totals_key(), error))?;
    Ok((totals, Some(tag)))
}

/// Returns the tag of what is stored; none where it has changed since it was read.
async fn store(objects: &Objects, totals: &OverviewTotals, tag: Option<&str>) -> Result<Option<String>, Error> {
    const KIND: &str = "application/json";
    let body = serde_json::to_vec(totals).map_err(|error| objects.corrupt(&totals_key(), error))?;
    let is_stored = match tag {
        Some(tag) => objects.replace(&totals_key(), body.into(), KIND, tag).await?,
        None => matches!(objects.put_once(&totals_key(), body.into(), KIND).await?, PutOnce::Created(_)),
    };
    if !is_stored {
        return Ok(None);
    }
    let (stands, tag) = stored(objects).await?;
    Ok(tag.filter(|_| stands == *totals))
}

/// Adds windows of a run that are committed and not counted yet, a part of them where there are many; returns whether
/// that were all.
async fn count(deps: &Deps, run: &JobRun, totals: &mut OverviewTotals) -> Result<bool, Error> {
    let records = deps.windows.rows.partition(&run.run_id).await?;
    let is_done = |record: &WindowRecord| {
        record.status == State::Completed || (run.mode == Mode::Extract && record.status == State::Classified)
    };
    let is_all = run.status == RunStatus::Completed && records.len() as u64 == run.planned;
    let is_final = is_all && records.iter().all(is_done);
    let mut counted = totals.windows.remove(&run.run_id).unwrap_or_default();
    let is_new = |record: &&WindowRecord| record.status == State::Completed && !counted.contains(&record.window_id);
    let new: Vec<&WindowRecord> = records.iter().filter(is_new).collect();
    let is_whole = new.len() <= AT_ONCE;
    let windows = new.into_iter().take(AT_ONCE).map(|record| of_window(deps, record));
    // In order: which names of alerts are told apart must not depend on the network.
    let windows: Vec<OfWindow> = stream::iter(windows).buffered(READS).try_collect().await?;
    let mut changed = BTreeSet::new();
    for OfWindow { window_id, days, alerts } in windows {
        for (date, OfDay { rows, bytes, in_source, has_taken_out }) in days {
            let day = totals.days.entry(date.clone()).or_default();
            day.archived += rows;
            day.bytes += bytes;
            day.in_source.add_all(in_source, 1);
            if has_taken_out {
                day.measured = Some(Measured::ByListing);
            }
            day.measured.get_or_insert(Measured::AsWritten);
            changed.insert(date);
        }
        for (month, counts) in alerts {
            totals.alerts.entry(month).or_default().add_all(&counts, 1);
        }
        counted.insert(window_id);
    }
    let is_listed = |date: &String| totals.days.get(date).is_some_and(|day| day.measured == Some(Measured::ByListing));
    changed.retain(is_listed);
    list_days(&deps.objects, totals, changed).await?;
    if is_final && is_whole {
        totals.runs.insert(run.run_id.clone());
    } else if !counted.is_empty() {
        totals.windows.insert(run.run_id.clone(), counted);
    }
    Ok(is_whole)
}

/// Of sums from before this was told apart, every day is listed, once.
async fn list_unmeasured(objects: &Objects, totals: &mut OverviewTotals) -> Result<(), Error> {
    let unmeasured = totals.days.iter().filter(|(_, day)| day.measured.is_none());
    let unmeasured = unmeasured.map(|(date, _)| date.clone()).collect();
    list_days(objects, totals, unmeasured).await
}

/// Sets the bytes of days to what stands in the archive now, also of windows that are not counted yet: these make the
/// day be listed once more when they are.
async fn list_days(objects: &Objects, totals: &mut OverviewTotals, dates: BTreeSet<String>) -> Result<(), Error> {
    let listed = dates.into_iter().map(async |date| Ok::<_, Error>((listed_bytes(objects, &date).await?, date)));
    let listed: Vec<(u64, String)> = stream::iter(listed).buffered(READS).try_collect().await?;
    for (bytes, date) in listed {
        let day = totals.days.entry(date).or_default();
        (day.bytes, day.measured) = (bytes, Some(Measured::ByListing));
    }
    Ok(())
}

async fn listed_bytes(objects: &Objects, date: &str) -> Result<u64, Error> {
    let mut pages = pin!(objects.pages(&format!("{PARQUET}date={date}/"), None));
    let mut bytes = 0;
    while let Some(page) = pages.try_next().await? {
        bytes += page.iter().map(|object| object.bytes).sum::<u64>();
    }
    Ok(bytes)
}

async fn of_window(deps: &Deps, record: &WindowRecord) -> Result<OfWindow, Error> {
    let (window_id, run_id) = (&record.window_id, &record.run_id);
    // An intent that was ended has a manifest of its own.
    let keys = match &record.manifest_key {
        Some(key) if record.ended == 0 => vec![key.clone()],
        Some(_) => {
            let first = manifest_key(window_id, run_id, 0);
            deps.objects.list(first.trim_end_matches("0.json")).await?
        }
        None => Vec::new(),
    };
    let mut of_window = OfWindow { window_id: window_id.clone(), ..OfWindow::default() };
    for key in keys {
        let manifest: Manifest = deps.objects.get_json(&key).await?;
        for object in manifest.objects.iter().filter(|object| object.key.starts_with(PARQUET)) {
            let Some(date) = date_of(&object.key) else { continue };
            let name = object.key.rsplit('/').next().unwrap_or_default();
            let own = name.strip_prefix(window_id.as_str()).and_then(|name| name.strip_prefix('.'));
            // Behind the writer stands the number of the part.
            let writer = own.and_then(|name| name.strip_suffix(".parquet")?.rsplit_once('.')).map(|(writer, _)| writer);
            if writer.is_some_and(|writer| run_of(writer) == run_id) {
                let day = of_window.days.entry(date.to_owned()).or_default();
                day.rows += object.rows.cast_signed();
                day.bytes += object.bytes;
                of_window.add(date, &contents_of(&deps.objects, object).await?, 1);
                continue;
            }
            let taken = superseded_key(&object.key, window_id, run_id);
            if let Some(body) = deps.objects.find(&taken).await? {
                let damaged = |error| deps.objects.corrupt(&taken, error);
                let rows = columnar::row_count(body.clone()).map_err(damaged)?;
                let day = of_window.days.entry(date.to_owned()).or_default();
                day.rows -= rows.cast_signed();
                day.has_taken_out = true;
                if let Counted::All(taken) = contents(&Parts::whole(body)).map_err(damaged)? {
                    of_window.add(date, &taken, -1);
                }
            }
        }
    }
    Ok(of_window)
}

/// What an object said of its messages when it was committed.
async fn contents_of(objects: &Objects, object: &WrittenObject) -> Result<Contents, Error> {
    let mut whole = read_contents(objects, &object.key).await?;
    // Rows have been taken out since. The windows that took them out take away what they stood for.
    if whole.alerts.messages.unsigned_abs() < object.rows {
        for taken in objects.list(&superseded_prefix(&object.key)).await? {
            let taken = read_contents(objects, &taken).await?;
            whole.alerts.add_all(&taken.alerts, 1);
            whole.size.add_all(taken.size, 1);
        }
    }
    Ok(whole)
}

/// What an object says of its messages as it stands, of which only the parts are read that tell it; nothing where it is
/// gone.
async fn read_contents(objects: &Objects, key: &str) -> Result<Contents, Error> {
    let Some(beginning) = objects.find_part(key, 0..BEGINNING_BYTES, None).await? else {
        return Ok(Default::default());
    };
    let mut parts = Parts::of(beginning.object_bytes);
    parts.add(0, beginning.body);
    loop {
        match contents(&parts).map_err(|error| objects.corrupt(key, error))? {
            Counted::All(contents) => return Ok(contents),
            Counted::Needs(range) => {
                let part = objects.find_part(key, range.clone(), Some(&beginning.tag)).await?;
                let Some(part) = part else { return Ok(Contents::default()) };
                parts.add(range.start, part.body);
            }
        }
    }
}

use super::Deployment;
use crate::{
    commands::{Usage, bar, range_of},
    print::line,
};
use anyhow::{Context, Result};
use clap::Args;
use futures::{StreamExt, stream};
use grep_matcher::LineTerminator;
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{BinaryDetection, Searcher, SearcherBuilder, Sink, SinkContext, SinkMatch};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use lines::GunzipReader;
use logs::{LIMITS, Settings, date_of, service_of, time_of_line};
use serde::Serialize;
use std::io::{self, BufReader, Read};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use storage::{ObjectReader, Objects};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Sender, channel};

/// The most of one line that a search holds, in bytes.
const LONGEST_LINE: usize = 128 << 20;
/// Found lines that wait to be printed.
const WAITING: usize = 1024;
/// Lines of a group that are handed on at once: where each line is found, a group is a whole object.
const AT_ONCE: usize = 1000;
/// `grep` has 1 for nothing found; here 1 is a failure.
const NOTHING_FOUND: u8 = 3;

#[derive(Args)]
#[command(after_help = "\
Examples:
  alert-archive logs search 'connection reset' --from 2024-07-01 --to 2024-07-08
  alert-archive logs search --regex 'order-\\d+ failed' --from 2024-07-01 --to 2024-07-02 --service shop --context 3
  alert-archive logs search timeout --ignore-case --from 2024-07-01 --to 2024-07-02 --json | jq -r .object | uniq -c

Literal and case-sensitive unless told otherwise. An object counts by the date in its key. What stands before a damage
of an object is searched, and the damage is told.

Exit code: 0 found, 3 nothing found, 1 when an object could not be searched, 2 when the command was not understood.")]
pub struct Search {
    /// The text to search for
    #[arg(required_unless_present = "regex")]
    text: Option<String>,
    /// A regular expression instead of a text
    #[arg(long, value_name = "RE", conflicts_with = "text")]
    regex: Option<String>,
    /// First date of the objects' keys
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// The date behind the last one
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Only this service, the first component of the object's key; may be repeated
    #[arg(long, value_name = "SERVICE")]
    service: Vec<String>,
    /// Upper and lower case are the same
    #[arg(long, short)]
    ignore_case: bool,
    /// Lines before and after each one that is found
    #[arg(long, value_name = "LINES", default_value_t = 0)]
    context: usize,
    /// Print the number of lines that are found, and none of them
    #[arg(long)]
    count: bool,
    /// In order of time, when all is searched, instead of at once
    #[arg(long)]
    sorted: bool,
    /// Objects searched at once [default: two for each processor]
    #[arg(long, value_name = "NUMBER")]
    jobs: Option<usize>,
    /// Print JSON: an object a line
    #[arg(long)]
    json: bool,
}

fn exit_code(failed: bool, found: u64) -> ExitCode {
    match (failed, found) {
        (true, _) => ExitCode::FAILURE,
        (false, 0) => ExitCode::from(NOTHING_FOUND),
        (false, _) => ExitCode::SUCCESS,
    }
}

/// A line that was found, or one beside it.
#[derive(Serialize)]
struct FoundLine {
    object: String,
    line: u64,
    time: Option<String>,
    service: String,
    text: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    context: bool,
}

/// What the searchers tell the printer.
enum News {
    Lines(Vec<FoundLine>),
    Counted(u64),
    Damaged { object: String, what: String },
    Failed { object: String, what: String },
    Searched,
}

/// Ends the searchers when the command ends, whatever ends it.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Search {
    pub async fn call(self) -> Result<ExitCode> {
        let (from, to) = range_of(self.from.as_deref(), self.to.as_deref())?;
        let matcher = self.matcher()?;
        let deployment = Deployment::from_env().await?;
        let (logs, settings) = (deployment.logs(), Arc::new(deployment.settings().await?));
        let keys = keys(&logs, &self.service, from, to).await?;
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let jobs = self.jobs.unwrap_or(cores * 2).max(1);
        let progress = bar(keys.len(), "objects");
        let stop = Stop(Arc::default());
        let (sender, mut news) = channel(WAITING);
        let task = Arc::new(Task {
            matcher,
            settings,
            context: self.context,
            only_count: self.count,
            at_once: self.at_once(),
            stop: stop.0.clone(),
            sender,
        });
        let searchers = tokio::spawn(async move {
            let searches = keys.into_iter().map(|key| task.clone().object(logs.clone(), key));
            stream::iter(searches).buffer_unordered(jobs).collect::<()>().await;
        });
        let (mut found, mut failed, mut kept) = (0, false, Vec::new());
        let mut printed = None;
        while let Some(news) = news.recv().await {
            match news {
                News::Lines(lines) => {
                    found += lines.iter().filter(|line| !line.context).count() as u64;
                    if self.sorted {
                        kept.push(lines);
                    } else if !progress.suspend(|| self.print(&lines, &mut printed))? {
                        return Ok(exit_code(failed, found));
                    }
                }
                News::Counted(lines) => found += lines,
                News::Damaged { object, what } => {
                    progress.suspend(|| eprintln!("{object}: searched up to its damage: {what}"))
                }
                News::Failed { object, what } => {
                    failed = true;
                    progress.suspend(|| eprintln!("error: {object}: {what}"));
                }
                News::Searched => progress.inc(1),
            }
        }
        searchers.await.context("the search ended in the middle")?;
        progress.finish_and_clear();
        // Within an object lines stay in their order; a line without a time stands with the one before it.
        kept.sort_by(|a, b| place(a).cmp(&place(b)));
        for lines in &kept {
            if !self.print(lines, &mut printed)? {
                break;
            }
        }
        if self.count && self.json {
            say!("{}", serde_json::json!({"count": found}));
        } else if self.count {
            say!("{found}");
        }
        Ok(exit_code(failed, found))
    }

    fn matcher(&self) -> Result<RegexMatcher> {
        let (pattern, is_literal) = match (&self.regex, &self.text) {
            (Some(regex), _) => (regex, false),
            (None, Some(text)) => (text, true),
            (None, None) => return Err(Usage("there is nothing to search for".to_owned()).into()),
        };
        if pattern.is_empty() {
            return Err(Usage("the text to search for is empty".to_owned()).into());
        }
        let mut builder = RegexMatcherBuilder::new();
        // A line ends at LF, and `$` stands before CRLF, too. The searcher must be told the same.
        builder.fixed_strings(is_literal).case_insensitive(self.ignore_case).crlf(true);
        let unusable = |error| Usage(format!("`{pattern}` cannot be searched for within a line: {error}"));
        Ok(builder.build(pattern).map_err(unusable)?)
    }

    /// In order of time a group has one place.
    fn at_once(&self) -> usize {
        if self.sorted { usize::MAX } else { AT_ONCE }
    }

    /// `printed`: the line that was printed last. `false`: the reader has gone away, and what else is found is nothing
    /// to anyone.
    fn print(&self, lines: &[FoundLine], printed: &mut Option<(String, u64)>) -> Result<bool> {
        for (number, found) in lines.iter().enumerate() {
            let text = match self.json {
                true => serde_json::to_string(found)?,
                false => self.told(number == 0 && !follows(printed.as_ref(), found), found),
            };
            match line(&text) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
                printed => printed?,
            }
        }
        *printed = lines.last().map(|last| (last.object.clone(), last.line));
        Ok(true)
    }

    fn told(&self, is_first: bool, found: &FoundLine) -> String {
        let group = if self.context > 0 && is_first { "--\n" } else { "" };
        let sign = if found.context { '-' } else { ':' };
        // Escape sequences in a log must not reach the terminal.
        let text: String =
            found.text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect();
        format!("{group}{}{sign}{}{sign}{text}", found.object, found.line)
    }
}

/// Whether a line is the one behind the line that was printed last, and so of the same group.
fn follows(printed: Option<&(String, u64)>, found: &FoundLine) -> bool {
    printed.is_some_and(|(object, line)| *object == found.object && line + 1 == found.line)
}

/// Where a group of lines stands in time: by the first time in it, else by the date of its key.
fn place(lines: &[FoundLine]) -> (String, &str, u64) {
    let first = lines.first();
    let object = first.map_or("", |found| found.object.as_str());
    let time = lines.iter().find_map(|found| found.time.clone());
    let date = || date_of(object).map(|date| date.to_string()).unwrap_or_default();
    (time.unwrap_or_else(date), object, first.map_or(0, |found| found.line))
}

/// The objects of a range, oldest first.
async fn keys(logs: &Objects, services: &[String], from: Timestamp, to: Timestamp) -> Result<Vec<String>> {
    let mut keys = Vec::new();
    match services {
        [] => keys = logs.list("").await?,
        _ => {
            for service in services {
                keys.extend(logs.list(&format!("{service}/")).await?);
            }
        }
    }
    let in_range = |key: &String| {
        let midnight = date_of(key).and_then(|date| date.to_zoned(TimeZone::UTC).ok()).map(|day| day.timestamp());
        midnight.is_some_and(|midnight| midnight < to && from < midnight + SignedDuration::from_hours(24))
    };
    keys.retain(|key| key.ends_with(".gz") && in_range(key));
    keys.sort_by_key(|key| (date_of(key), key.clone()));
    Ok(keys)
}

struct Task {
    matcher: RegexMatcher,
    settings: Arc<Settings>,
    context: usize,
    only_count: bool,
    at_once: usize,
    stop: Arc<AtomicBool>,
    sender: Sender<News>,
}

/// An asynchronous reader for a thread that may block.
struct Blocking<R> {
    reader: R,
    runtime: Handle,
}

impl<R: AsyncRead + Unpin> io::Read for Blocking<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.runtime.block_on(self.reader.read(buffer))
    }
}

impl Task {
    async fn object(self: Arc<Self>, logs: Objects, key: String) {
        if self.stop.load(Ordering::Relaxed) {
            return;
        }
        let searched = match logs.open(&key, None).await {
            Ok(reader) => {
                let (task, key) = (self.clone(), key.clone());
                let source = Blocking { reader: ObjectReader::into_read(reader), runtime: Handle::current() };
                tokio::task::spawn_blocking(move || task.search(source, key))
                    .await
                    .unwrap_or_else(|crash| Err(io::Error::other(crash)))
            }
            Err(error) => Err(io::Error::other(error)),
        };
        // When the printer has ended, there is no reader to tell.
        if let Err(error) = searched {
            let what = errors::describe(&error);
            let _ = self.sender.send(News::Failed { object: key, what }).await;
        }
        let _ = self.sender.send(News::Searched).await;
    }

    fn search(&self, source: impl Read, object: String) -> io::Result<()> {
        let source = BufReader::with_capacity(256 << 10, Stoppable { source, stop: &self.stop });
        let mut text = GunzipReader::new(source, LIMITS);
        let mut searcher = SearcherBuilder::new()
            .binary_detection(BinaryDetection::none())
            .bom_sniffing(false)
            .line_number(true)
            .line_terminator(LineTerminator::crlf())
            .before_context(if self.only_count { 0 } else { self.context })
            .after_context(if self.only_count { 0 } else { self.context })
            .heap_limit(Some(LONGEST_LINE))
            .build();
        let mut printer = Printer { task: self, object: &object, group: Vec::new(), count: 0 };
        searcher.search_reader(&self.matcher, &mut text, &mut printer)?;
        printer.flush()?;
        let count = printer.count;
        if self.only_count {
            self.tell(News::Counted(count))?;
        }
        if let Some(damage) = text.damage() {
            self.tell(News::Damaged { what: format!("{}, {damage}", damage.name()), object })?;
        }
        Ok(())
    }

    fn tell(&self, news: News) -> io::Result<()> {
        self.sender.blocking_send(news).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

struct Printer<'a> {
    task: &'a Task,
    object: &'a str,
    group: Vec<FoundLine>,
    count: u64,
}

impl Printer<'_> {
    fn push(&mut self, line: Option<u64>, bytes: &[u8], context: bool) -> io::Result<bool> {
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let text = String::from_utf8_lossy(bytes.strip_suffix(b"\r").unwrap_or(bytes)).into_owned();
        let time = time_of_line(&text, self.object, &self.task.settings).map(|time| format!("{time:.3}"));
        let (object, service) = (self.object.to_owned(), service_of(self.object).to_owned());
        self.group.push(FoundLine { object, line: line.unwrap_or(0), time, service, text, context });
        if self.task.context == 0 || self.group.len() >= self.task.at_once { self.flush() } else { Ok(true) }
    }

    fn flush(&mut self) -> io::Result<bool> {
        if !self.group.is_empty() {
            self.task.tell(News::Lines(std::mem::take(&mut self.group)))?;
        }
        Ok(true)
    }
}

impl Sink for &mut Printer<'_> {
    type Error = io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> io::Result<bool> {
        self.count += 1;
        if self.task.only_count {
            return Ok(true);
        }
        self.push(found.line_number(), found.bytes(), false)
    }

    fn context(&mut self, _: &Searcher, line: &SinkContext<'_>) -> io::Result<bool> {
        self.push(line.line_number(), line.bytes(), true)
    }

    fn context_break(&mut self, _: &Searcher) -> io::Result<bool> {
        self.flush()
    }
}

/// Reads until the command ends.
struct Stoppable<'a, R> {
    source: R,
    stop: &'a AtomicBool,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("the command was ended"));
        }
        self.source.read(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use network::Calm;
    use std::io::Write;
    use storage::MemoryObjects;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        search: Search,
    }

    fn gz(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text).and_then(|()| encoder.finish()).expect("memory")
    }

    struct Searched {
        /// Line, whether it is context, and text.
        lines: Vec<(u64, bool, String)>,
        /// The most lines that came at once.
        most: usize,
        groups: usize,
        counted: u64,
        damage: Option<String>,
    }

    async fn search(body: Vec<u8>, arguments: &[&str]) -> Searched {
        let Line { search } = Line::parse_from([&["search"], arguments].concat());
        let logs = Objects::over(MemoryObjects::new(Calm::shared()).bucket("logs"), "logs");
        let key = "shop/2024/07/01/a.gz";
        logs.put(key, body, "application/gzip").await.expect("stored");
        let (sender, mut news) = channel(WAITING);
        let task = Arc::new(Task {
            matcher: search.matcher().expect("a pattern"),
            settings: Arc::new(Settings::built_in()),
            context: search.context,
            only_count: search.count,
            at_once: search.at_once(),
            stop: Arc::default(),
            sender,
        });
        task.object(logs, key.to_owned()).await;
        let mut searched = Searched { lines: Vec::new(), most: 0, groups: 0, counted: 0, damage: None };
        let mut printed = None;
        while let Some(news) = news.recv().await {
            match news {
                News::Lines(lines) => {
                    searched.most = searched.most.max(lines.len());
                    searched.groups += usize::from(!follows(printed.as_ref(), &lines[0]));
                    printed = lines.last().map(|last| (last.object.clone(), last.line));
                    searched.lines.extend(lines.into_iter().map(|found| (found.line, found.context, found.text)))
                }
                News::Counted(lines) => searched.counted += lines,
                News::Damaged { what, .. } => searched.damage = Some(what),
                News::Failed { what, .. } => panic!("{what}"),
                News::Searched => {}
            }
        }
        searched
    }

    fn found(searched: &Searched) -> Vec<(u64, &str)> {
        searched.lines.iter().map(|(line, _, text)| (*line, text.as_str())).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_line_is_found_at_its_place_whatever_stands_around_it() {
        let text = b"first\r\nnul \0 here\n\xff\xfe here\nlone \r here\n\nlast here";
        let members = [gz(&text[..20]), gz(&text[20..])].concat();
        for body in [gz(text), members] {
            let searched = search(body, &["here"]).await;
            let expected = [(2, "nul \0 here"), (3, "\u{fffd}\u{fffd} here"), (4, "lone \r here"), (6, "last here")];
            assert_eq!(found(&searched), expected);
        }
        assert_eq!(found(&search(gz(text), &["--regex", "^first$"]).await), [(1, "first")]);
        assert_eq!(found(&search(gz(text), &["FIRST", "--ignore-case"]).await), [(1, "first")]);
        assert!(search(gz(text), &["FIRST"]).await.lines.is_empty());
        assert!(search(gz(text), &["f.rst"]).await.lines.is_empty(), "a text is literal");
        assert_eq!(search(gz(text), &["here", "--count"]).await.counted, 4);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_text_is_found_in_utf_16_as_in_utf_8() {
        let text = "\u{feff}first\r\nzw\u{f6}lf here\r\n\u{1f980} here";
        let bytes = [u16::to_le_bytes, u16::to_be_bytes].map(|bytes| text.encode_utf16().flat_map(bytes).collect());
        for text in bytes as [Vec<u8>; 2] {
            let expected = [(2, "zw\u{f6}lf here"), (3, "\u{1f980} here")];
            assert_eq!(found(&search(gz(&text), &["here"]).await), expected);
            assert_eq!(found(&search(gz(&text), &["--regex", "^first$"]).await), [(1, "first")]);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn lines_around_are_told_from_the_line_that_is_found() {
        let searched = search(gz(b"a\nb\nhit\nd\ne\n"), &["hit", "--context", "1"]).await;
        let lines: Vec<(u64, bool)> = searched.lines.iter().map(|(line, context, _)| (*line, *context)).collect();
        assert_eq!(lines, [(2, true), (3, false), (4, true)]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_group_of_any_length_is_handed_on_in_parts_and_told_as_one() {
        let text = ["hit\n".repeat(2500), "no\n".repeat(9), "hit\n".into()].concat();
        let searched = search(gz(text.as_bytes()), &["hit", "--context", "2"]).await;
        let numbers: Vec<u64> = searched.lines.iter().map(|(line, ..)| *line).collect();
        let expected: Vec<u64> = (1..=2502).chain(2508..=2510).collect();
        assert_eq!(numbers, expected);
        assert_eq!((searched.most, searched.groups), (AT_ONCE, 2));
        let sorted = search(gz(text.as_bytes()), &["hit", "--context", "2", "--sorted"]).await;
        assert_eq!((sorted.most, sorted.groups), (2502, 2));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_stands_before_a_damage_is_searched_and_the_damage_is_told() {
        let text: Vec<u8> = (0..2000).flat_map(|n| format!("line {n} of a log\n").into_bytes()).collect();
        let whole = gz(&text);
        let searched = search(whole[..whole.len() / 2].to_vec(), &["line 1 of"]).await;
        assert_eq!(found(&searched), [(2, "line 1 of a log")]);
        assert!(searched.damage.is_some_and(|damage| damage.starts_with("GzipTruncated")));
        let plain = search(b"no gzip".to_vec(), &["gzip"]).await;
        assert!(plain.damage.is_some_and(|damage| damage.starts_with("NotGzip")));
    }
}

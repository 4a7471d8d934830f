use crate::{
    archive::{Archive, NotFound, went_well},
    print,
};
use alerts::{
    keys::spool_prefix,
    run::job_run::{JobRun, RunStatus},
    window::record::{State, WindowRecord},
};
use anyhow::Result;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use reports::{count, grouped};
use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use workflow::Execution;

/// Between two looks at a run.
const PAUSE: Duration = Duration::from_millis(700);
/// Of the time, one part in so many may pass with reading the windows of a run, of which there may be ten thousand.
const LOOKING: u32 = 20;
/// Between two lines of progress in a pipe.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// A page of the spool has 16 MiB of raw messages, usually of 25 kB.
const MESSAGES_A_PAGE: u64 = 650;
/// Windows that are being read whose pages are counted at each look.
const MOST_LISTED: usize = 16;

#[derive(Args)]
#[command(after_help = "Example:\n  alert-archive watch range-20240701-20241001-20261121T050000123")]
pub struct Watch {
    /// The run's id or the beginning of it; `latest`, or nothing, is the run that began last
    run: Option<String>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

impl Watch {
    pub async fn call(self, archive: &Archive) -> Result<bool> {
        match archive.job_run(self.run.as_deref()).await {
            Ok(run) => follow(archive, &run.run_id, &run.execution_arn, self.json).await,
            // Started a moment ago, it has no row yet.
            Err(error) => match self.run.filter(|_| error.is::<NotFound>()) {
                Some(name) if archive.workflow.is_running(&archive.execution_arn(&name)).await? => {
                    follow(archive, &name, &archive.execution_arn(&name), self.json).await
                }
                _ => Err(error),
            },
        }
    }
}

/// Shows a run's progress on standard error until its execution ends, then prints the report on standard output.
pub async fn follow(archive: &Archive, run_id: &str, execution_arn: &str, json: bool) -> Result<bool> {
    eprintln!("{run_id} (Ctrl-C leaves it running; alert-archive watch {run_id} comes back to it)");
    let mut progress = Progress::new();
    let execution = loop {
        let execution = archive.workflow.describe(execution_arn).await?;
        progress.show(archive, run_id).await?;
        if !execution.running {
            break execution;
        }
        tokio::time::sleep(PAUSE).await;
    };
    progress.bar.finish_and_clear();
    let reported = run_of(execution.output.as_deref()).unwrap_or_else(|| run_id.to_owned());
    if reported != run_id {
        eprintln!("{run_id} had nothing to do: {reported} had done this scheduled time before");
    }
    let Some(run) = archive.job_runs.get(&reported).await? else {
        let name = execution.error.unwrap_or(execution.status);
        eprintln!("run {run_id} ended before it was planned: {name}: {}", message_of(execution.cause.as_deref()));
        return Ok(false);
    };
    let mut report = archive.report(&run).await?;
    // A run that died is marked by a rule, a moment later than its execution ends.
    if report.status == RunStatus::Running && execution.status != "SUCCEEDED" {
        report.status = RunStatus::Failed;
        report.reconciled = false;
    }
    print::report(&report, false, json)?;
    if let Some(error) = &execution.error {
        eprintln!("execution {}: {error}: {}", execution.status, message_of(execution.cause.as_deref()));
    }
    Ok(went_well(&report) && execution.status == "SUCCEEDED")
}

/// Waits for the end of an execution without telling anything of it.
pub async fn ended(archive: &Archive, execution_arn: &str) -> Result<Execution> {
    loop {
        let execution = archive.workflow.describe(execution_arn).await?;
        if !execution.running {
            return Ok(execution);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A function's error arrives as JSON with its message inside.
fn message_of(cause: Option<&str>) -> String {
    let cause = cause.unwrap_or_default();
    let parsed: Option<serde_json::Value> = serde_json::from_str(cause).ok();
    parsed.and_then(|value| value["errorMessage"].as_str().map(str::to_owned)).unwrap_or_else(|| cause.to_owned())
}

/// The run that an execution ended with: for a scheduled time that was done before, the one that had done it.
fn run_of(output: Option<&str>) -> Option<String> {
    let output: serde_json::Value = serde_json::from_str(output?).ok()?;
    output["run_id"].as_str().map(str::to_owned)
}

/// How far a run is: a message counts three times, once for each step of its window.
#[derive(Debug, Default, PartialEq)]
struct Standing {
    planned: u64,
    /// Windows by what becomes of them.
    done: u64,
    failed: u64,
    reading: u64,
    classifying: u64,
    writing: u64,
    /// Pages of raw messages in the spool of the windows that are read now.
    pages: u64,
    /// Messages of the windows that are read to their end, and of all.
    read: u64,
    expected: u64,
    /// Of `3 * expected`.
    steps: u64,
}

impl Standing {
    fn of(planned: u64, windows: &[WindowRecord], pages: &HashMap<String, u64>) -> Self {
        let mut standing = Standing { planned, ..Standing::default() };
        for record in windows {
            let expected = record.window.expected;
            standing.expected += expected;
            let is_at_work = matches!(record.status, State::Running | State::Prepared);
            let (steps, is_read) = match record.status {
                State::Completed | State::Classified | State::Skipped => {
                    standing.done += 1;
                    (3 * expected, record.status != State::Skipped)
                }
                State::Failed => {
                    standing.failed += 1;
                    (0, false)
                }
                _ if !is_at_work => (0, false),
                _ if record.step == "write-partitions" => {
                    standing.writing += 1;
                    (2 * expected, true)
                }
                _ if record.step == "classify-alerts" => {
                    standing.classifying += 1;
                    (expected, true)
                }
                _ => {
                    standing.reading += 1;
                    let pages = pages.get(&record.window_id).copied().unwrap_or_default();
                    standing.pages += pages;
                    // About as many messages as a page holds of the usual size; never all of them.
                    ((pages * MESSAGES_A_PAGE).min(expected * 9 / 10), false)
                }
            };
            standing.steps += steps;
            standing.read += if is_read { record.messages.source.max(expected) } else { 0 };
        }
        standing
    }

    fn told(&self) -> String {
        let mut parts = Vec::new();
        for (count, what) in [
            (self.reading, "reading"),
            (self.classifying, "classifying"),
            (self.writing, "writing"),
            (self.failed, "failed"),
        ] {
            if count > 0 {
                parts.push(format!("{} {what}", grouped(count)));
            }
        }
        let pages = if self.pages > 0 { format!(" ({})", count(self.pages, "page")) } else { String::new() };
        let windows = if parts.is_empty() { String::new() } else { format!(": {}{pages}", parts.join(", ")) };
        let (read, expected) = (grouped(self.read), grouped(self.expected));
        format!("{} of {} windows{windows}; {read} of {expected} messages read", self.done, self.planned)
    }
}

/// How far a run is now.
pub async fn standing(archive: &Archive, run: &JobRun) -> Result<String> {
    let windows = archive.windows.rows.partition(&run.run_id).await?;
    Ok(Standing::of(run.planned, &windows, &pages(archive, &windows).await?).told())
}

struct Progress {
    bar: ProgressBar,
    terminal: bool,
    last_line: Option<Instant>,
    /// Before it, the windows are not read again.
    next_look: Option<Instant>,
    last_text: String,
    /// The first look at which something was done, and how much that was.
    first: Option<(Instant, u64)>,
}

impl Progress {
    fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal { ProgressBar::new(0) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} [{bar:30}] {percent:>3} %  {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Progress { bar, terminal, last_line: None, next_look: None, last_text: String::new(), first: None }
    }

    /// Messages a second since the first look, and the time that is left at this pace.
    fn pace(&mut self, standing: &Standing) -> String {
        let (began, first) = *self.first.get_or_insert_with(|| (Instant::now(), standing.steps));
        pace(
            began.elapsed(),
            standing.steps.saturating_sub(first),
            (3 * standing.expected).saturating_sub(standing.steps),
        )
    }

    async fn show(&mut self, archive: &Archive, run_id: &str) -> Result<()> {
        let began = Instant::now();
        if self.next_look.is_some_and(|next| began < next) {
            return Ok(());
        }
        let Some(run) = archive.job_runs.get(run_id).await? else { return Ok(()) };
        let windows = archive.windows.rows.partition(run_id).await?;
        let standing = Standing::of(run.planned, &windows, &pages(archive, &windows).await?);
        self.next_look = Some(Instant::now() + LOOKING * began.elapsed());
        let text = format!("{}{}", standing.told(), self.pace(&standing));
        self.bar.set_length(3 * standing.expected);
        self.bar.set_position(standing.steps);
        self.bar.set_message(text.clone());
        let is_due = self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY);
        if !self.terminal && is_due && run.planned > 0 && self.last_text != text {
            eprintln!("{run_id}: {text}");
            self.last_line = Some(Instant::now());
            self.last_text = text;
        }
        Ok(())
    }
}

/// Nothing until there is something to judge by.
fn pace(elapsed: Duration, done: u64, left: u64) -> String {
    let seconds = elapsed.as_secs_f64();
    let rate = done as f64 / seconds.max(0.001);
    if seconds < 2.0 || rate < 1.0 || left == 0 {
        return String::new();
    }
    let time = reports::duration((left as f64 / rate).ceil() as u64);
    format!("; about {}/s, {time} left", grouped((rate / 3.0) as u64))
}

/// Pages in the spool of the windows that are being read, by window.
async fn pages(archive: &Archive, windows: &[WindowRecord]) -> Result<HashMap<String, u64>> {
    let reading = windows.iter().filter(|record| record.status == State::Running && record.step == "query-messages");
    let mut pages = HashMap::new();
    for record in reading.take(MOST_LISTED) {
        let prefix = spool_prefix(&record.run_id, &record.window_id, record.fence.attempt);
        let keys = archive.objects.list(&format!("{prefix}/index-")).await?;
        pages.insert(record.window_id.clone(), keys.len() as u64);
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::given::{World, given};
    use alerts::{mode::Mode, run::report::RunReport, window::plan::Window};
    use jiff::{SignedDuration, Timestamp};
    use memory_cloud::{MACHINE, given::RUN};

    impl World {
        async fn run(&self) -> JobRun {
            self.archive.job_runs.get(RUN).await.expect("read").expect("the run")
        }
    }

    fn window(n: i64, status: State, step: &str) -> WindowRecord {
        let from = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(n);
        let window = Window::new(from, from + SignedDuration::from_hours(1), 3000);
        let planned = WindowRecord::planned("r1", Mode::Range, window, Timestamp::UNIX_EPOCH);
        WindowRecord { status, step: step.into(), ..planned }
    }

    #[test]
    fn a_window_that_is_being_read_moves_the_bar_by_its_pages() {
        let windows = [
            window(0, State::Completed, "write-partitions"),
            window(1, State::Running, "query-messages"),
            window(2, State::Prepared, "write-partitions"),
            window(3, State::Planned, ""),
            window(4, State::Failed, "classify-alerts"),
        ];
        let pages = HashMap::from([(windows[1].window_id.clone(), 2)]);
        let standing = Standing::of(5, &windows, &pages);
        assert_eq!((standing.read, standing.expected), (6000, 15_000));
        assert_eq!(standing.steps, 9000 + 2 * MESSAGES_A_PAGE + 6000);
        assert_eq!(
            standing.told(),
            "1 of 5 windows: 1 reading, 1 writing, 1 failed (2 pages); 6,000 of 15,000 messages read"
        );
        let before = Standing::of(5, &windows, &HashMap::new());
        assert!(before.steps < standing.steps, "a page more moves it");
        // However large the pages look, a window that is being read is not done.
        let many = HashMap::from([(windows[1].window_id.clone(), 1000)]);
        assert!(Standing::of(5, &windows, &many).steps < 9000 + 3000 + 6000);
    }

    #[tokio::test]
    async fn how_far_a_run_is_can_be_asked_without_following_it() {
        let world = given().await;
        let told = standing(&world.archive, &world.run().await).await.expect("counted");
        assert_eq!(told, "1 of 3 windows; 4 of 1 messages read");
    }

    #[tokio::test]
    async fn a_scheduled_time_that_was_done_before_is_told_by_the_run_that_has_done_it() {
        let world = given().await;
        let report = RunReport { reconciled: true, ..RunReport::unreported(&world.run().await) };
        world.archive.objects.put_json(&format!("runs/{RUN}/report.json"), &report).await.expect("written");
        let again = world.archive.workflow.start(MACHINE, "again", "{}".into()).await.expect("started");
        world.cloud.executions.succeed(&again, &format!(r#"{{"v":1,"run_id":"{RUN}","retry":false}}"#));
        assert!(follow(&world.archive, "again", &again, true).await.expect("told"));
        // An execution that came to no plan has done nothing.
        let refused = world.archive.workflow.start(MACHINE, "refused", "{}".into()).await.expect("started");
        world.cloud.executions.end(&refused, "FAILED", Some("RangeBusy"));
        assert!(!follow(&world.archive, "refused", &refused, true).await.expect("told"));
    }

    #[test]
    fn rate_and_time_left_are_told_as_soon_as_there_is_something_to_judge_by() {
        assert_eq!(pace(Duration::from_secs(1), 3000, 9000), "");
        assert_eq!(pace(Duration::from_secs(10), 3000, 9000), "; about 100/s, 30 s left");
        assert_eq!(pace(Duration::from_secs(10), 0, 9000), "");
        assert_eq!(pace(Duration::from_secs(10), 3000, 0), "");
    }
}

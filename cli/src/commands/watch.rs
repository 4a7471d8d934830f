use crate::{
    archive::{Archive, NotFound, went_well},
    print,
};
use alerts::{run::job_run::RunStatus, window::record::State};
use anyhow::Result;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Between two looks at a run.
const PAUSE: Duration = Duration::from_millis(700);
/// Between two lines of progress in a pipe.
const LINE_EVERY: Duration = Duration::from_secs(10);

#[derive(Args)]
#[command(after_help = "Example:\n  alert-archive watch range-20240701-20241001-20261121T050000123")]
pub struct Watch {
    /// The run's id, the beginning of it, or `latest`
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
    let progress = Progress::new();
    let execution = loop {
        let execution = archive.workflow.describe(execution_arn).await?;
        progress.show(archive, run_id).await?;
        if !execution.running {
            break execution;
        }
        tokio::time::sleep(PAUSE).await;
    };
    progress.bar.finish_and_clear();
    let Some(run) = archive.job_runs.get(run_id).await? else {
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
    print::report(&report, json)?;
    if let Some(error) = &execution.error {
        eprintln!("execution {}: {error}: {}", execution.status, message_of(execution.cause.as_deref()));
    }
    Ok(went_well(&report) && execution.status == "SUCCEEDED")
}

/// A function's error arrives as JSON with its message inside.
fn message_of(cause: Option<&str>) -> String {
    let cause = cause.unwrap_or_default();
    let parsed: Option<serde_json::Value> = serde_json::from_str(cause).ok();
    parsed.and_then(|value| value["errorMessage"].as_str().map(str::to_owned)).unwrap_or_else(|| cause.to_owned())
}

struct Progress {
    bar: ProgressBar,
    terminal: bool,
    last_line: std::cell::Cell<Option<Instant>>,
    last_text: std::cell::RefCell<String>,
    /// When messages were counted first, and how many there were.
    first: std::cell::RefCell<Option<(Instant, u64)>>,
}

impl Progress {
    fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal { ProgressBar::new(0) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} [{bar:40}] {pos}/{len} windows  {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Progress {
            bar,
            terminal,
            last_line: Default::default(),
            last_text: Default::default(),
            first: Default::default(),
        }
    }

    /// Messages a second since the first look, and the time that is left at this pace.
    fn pace(&self, documents: u64, expected: u64) -> String {
        let (began, first) = *self.first.borrow_mut().get_or_insert_with(|| (Instant::now(), documents));
        let seconds = began.elapsed().as_secs_f64();
        let rate = documents.saturating_sub(first) as f64 / seconds;
        if seconds < 2.0 || rate < 1.0 || documents >= expected {
            return String::new();
        }
        let left = ((expected - documents) as f64 / rate).ceil() as u64;
        format!(", {}/s, about {} left", reports::grouped(rate as u64), reports::duration(left))
    }

    async fn show(&self, archive: &Archive, run_id: &str) -> Result<()> {
        let Some(run) = archive.job_runs.get(run_id).await? else { return Ok(()) };
        let windows = archive.windows.rows.partition(run_id).await?;
        let count = |state: State| windows.iter().filter(|window| window.status == state).count();
        let (done, failed) = (count(State::Completed) + count(State::Classified), count(State::Failed));
        let documents: u64 = windows.iter().map(|window| window.messages.source).sum();
        let expected: u64 = windows.iter().map(|window| window.window.expected).sum();
        let failed = if failed > 0 { format!(", {failed} windows failed") } else { String::new() };
        let pace = self.pace(documents, expected);
        let text =
            format!("{} of {} messages read{pace}{failed}", reports::grouped(documents), reports::grouped(expected));
        self.bar.set_length(run.planned);
        self.bar.set_position(done as u64);
        self.bar.set_message(text.clone());
        let is_due = self.last_line.get().is_none_or(|last| last.elapsed() >= LINE_EVERY);
        if !self.terminal && is_due && run.planned > 0 {
            let line = format!("{run_id}: {done} of {} windows, {text}", run.planned);
            if *self.last_text.borrow() != line {
                eprintln!("{line}");
                self.last_line.set(Some(Instant::now()));
                *self.last_text.borrow_mut() = line;
            }
        }
        Ok(())
    }
}

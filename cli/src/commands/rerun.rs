use super::watch::follow;
use crate::{archive::Archive, print};
use alerts::{
    keys::plan_key,
    mode::Mode,
    run::{
        job_run::{JobRun, RunStatus},
        payloads::Input,
    },
    window::record::State,
};
use anyhow::{Result, bail};
use clap::Args;
use identity::instant;
use jiff::Timestamp;
use serde_json::json;
use workflow::{Execution, WorkflowError};

#[derive(Args)]
#[command(after_help = "\
Examples:
  alert-archive rerun latest --wait
  alert-archive rerun range-20240701-20241001-20261121T050000123 --wait

Only what failed runs again. How, is chosen by what can be done, and said: the execution is redriven, as the console's
button does (possible for 14 days); else a new execution takes the windows that failed; and a run that never had a plan
is started anew. Where nothing failed, nothing is started.")]
pub struct Rerun {
    /// The run's id or the beginning of it; `latest`, or nothing, is the run that began last
    run: Option<String>,
    /// Only by redriving the execution
    #[arg(long)]
    redrive: bool,
    /// Only by a new execution that takes the windows that failed
    #[arg(long, conflicts_with = "redrive")]
    failed_only: bool,
    /// Follow the run to its end and print its report
    #[arg(long)]
    wait: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What can be done about a run.
#[derive(Debug, PartialEq)]
enum Way {
    /// It is at work.
    Wait,
    Nothing,
    Redrive,
    /// A new execution takes the windows of the plan that failed.
    FailedOnly,
    /// There is no plan: a new run over the same range.
    Anew(Input),
}

/// What is known of a run before it is run again.
struct Known<'a> {
    run: &'a JobRun,
    /// None when Step Functions has forgotten it.
    execution: Option<&'a Execution>,
    has_plan: bool,
    /// A window that is neither done nor set aside, such as one that is wanted again.
    has_windows_left: bool,
}

fn way(known: &Known) -> Way {
    let &Known { run, execution, has_plan, has_windows_left } = known;
    match execution {
        Some(execution) if execution.running => return Way::Wait,
        _ if run.status == RunStatus::Completed && !has_windows_left => return Way::Nothing,
        Some(execution) if execution.status != "SUCCEEDED" => return Way::Redrive,
        _ => {}
    }
    without_redrive(run, has_plan)
}

fn without_redrive(run: &JobRun, has_plan: bool) -> Way {
    let (from, to) = (instant::iso(run.from), instant::iso(run.to));
    match (run.mode, &run.scheduled_for) {
        _ if has_plan => Way::FailedOnly,
        (_, Some(scheduled_for)) => Way::Anew(Input::Scheduled { scheduled_for: scheduled_for.clone() }),
        (Mode::Recheck, None) => Way::Anew(Input::Recheck),
        (Mode::Process, None) => Way::Anew(Input::Process),
        (Mode::Extract, None) => Way::Anew(Input::Extract { from, to }),
        (Mode::Range | Mode::Scheduled | Mode::FailedOnly, None) => Way::Anew(Input::Range { from, to }),
    }
}

/// A window that is set aside has not failed, and is not done either.
fn left_alone(run_id: &str, set_aside: u64) -> String {
    let aside = match set_aside {
        0 => String::new(),
        some => format!(
            "; {} set aside, and wanted again with: alert-archive skip {run_id} WINDOW --undo",
            reports::count(some, "window")
        ),
    };
    format!("nothing failed in {run_id}: nothing is started{aside}")
}

impl Rerun {
    pub async fn call(self, archive: &Archive) -> Result<bool> {
        let run = archive.job_run(self.run.as_deref()).await?;
        let execution = match archive.workflow.describe(&run.execution_arn).await {
            Ok(execution) => Some(execution),
            Err(WorkflowError::Missing { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let has_plan = archive.objects.head(&plan_key(&run.run_id)).await?.is_some();
        let records = archive.windows.rows.partition(&run.run_id).await?;
        let is_over = |state| matches!(state, State::Completed | State::Classified | State::Skipped);
        let has_windows_left = records.iter().any(|record| !is_over(record.status));
        let mut way = way(&Known { run: &run, execution: execution.as_ref(), has_plan, has_windows_left });
        if self.failed_only && way == Way::Redrive {
            way = without_redrive(&run, has_plan);
        }
        if self.redrive && !matches!(way, Way::Redrive | Way::Wait | Way::Nothing) {
            bail!("{} cannot be redriven; leave --redrive away, and it is run again another way", run.run_id);
        }
        if way == Way::Redrive {
            match archive.workflow.redrive(&run.execution_arn).await {
                Ok(()) => {
                    return self.went_on(archive, &run.run_id, &run.execution_arn, "its execution is redriven").await;
                }
                Err(WorkflowError::NotRedrivable { message, .. }) if !self.redrive => {
                    eprintln!("the execution cannot be redriven any more: {message}");
                    way = without_redrive(&run, has_plan);
                }
                Err(error) => return Err(error.into()),
            }
        }
        let unique = Timestamp::now().strftime("%Y%m%dT%H%M%S%3f");
        match way {
            Way::Wait => bail!("run {} is at work; follow it with: alert-archive watch {}", run.run_id, run.run_id),
            Way::Nothing | Way::Redrive => {
                let set_aside = records.iter().filter(|record| record.status == State::Skipped).count() as u64;
                eprintln!("{}", left_alone(&run.run_id, set_aside));
                if self.json {
                    say!("{}", serde_json::to_string_pretty(&archive.report(&run).await?)?);
                }
                Ok(set_aside == 0)
            }
            Way::FailedOnly => {
                let input = serde_json::to_string(&Input::FailedOnly { run_id: run.run_id.clone() })?;
                let name = format!("failed-only-{unique}");
                let execution = archive.workflow.start(&archive.state_machine_arn, &name, input).await?;
                self.went_on(archive, &run.run_id, &execution, "a new execution takes the windows that failed").await
            }
            Way::Anew(input) => {
                let name = format!("again-{unique}");
                let input = serde_json::to_string(&input)?;
                let execution = archive.workflow.start(&archive.state_machine_arn, &name, input).await?;
                let how = format!("{} never had a plan, so that a new run of its kind is started", run.run_id);
                self.went_on(archive, &name, &execution, &how).await
            }
        }
    }

    async fn went_on(&self, archive: &Archive, run_id: &str, execution_arn: &str, how: &str) -> Result<bool> {
        eprintln!("{run_id}: {how}");
        if self.wait {
            return follow(archive, run_id, execution_arn, self.json).await;
        }
        if self.json {
            say!("{}", json!({"run_id": run_id, "how": how}));
            return Ok(true);
        }
        print::started(run_id, false)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(status: RunStatus) -> JobRun {
        let row = json!({
            "run_id": "r1", "mode": "range", "status": status, "from": "2024-07-01T00:00:00.000Z",
            "to": "2024-08-01T00:00:00.000Z", "created_at": "2024-08-01T00:00:00.000Z",
            "updated_at": "2024-08-01T00:00:00.000Z", "execution_arn": "", "attempt": 1, "planned": 0, "undated": 0,
            "revision": 0,
        });
        serde_json::from_value(row).expect("a row of job-runs")
    }

    fn execution(status: &str) -> Execution {
        let started = Timestamp::UNIX_EPOCH;
        Execution {
            running: status == "RUNNING",
            status: status.into(),
            started,
            redrives: 0,
            error: None,
            cause: None,
            output: None,
        }
    }

    fn way_of(run: &JobRun, status: Option<&str>, has_plan: bool, has_windows_left: bool) -> Way {
        let execution = status.map(execution);
        way(&Known { run, execution: execution.as_ref(), has_plan, has_windows_left })
    }

    #[test]
    fn a_rerun_takes_the_way_that_is_open() {
        let failed = run(RunStatus::Failed);
        assert_eq!(way_of(&failed, Some("FAILED"), true, true), Way::Redrive);
        assert_eq!(way_of(&failed, Some("ABORTED"), false, false), Way::Redrive, "it plans once more");
        assert_eq!(way_of(&failed, None, true, true), Way::FailedOnly);
        let range = Input::Range { from: "2024-07-01T00:00:00.000Z".into(), to: "2024-08-01T00:00:00.000Z".into() };
        assert_eq!(way_of(&failed, None, false, false), Way::Anew(range));
        let scheduled = JobRun { scheduled_for: Some("2024-08-01T06:00:00Z".into()), ..failed };
        let again = Input::Scheduled { scheduled_for: "2024-08-01T06:00:00Z".into() };
        assert_eq!(way_of(&scheduled, None, false, false), Way::Anew(again));
        let anew = |mode| way_of(&JobRun { mode, ..run(RunStatus::Failed) }, None, false, false);
        assert_eq!(anew(Mode::Recheck), Way::Anew(Input::Recheck), "its range is all of time");
        assert_eq!(anew(Mode::Process), Way::Anew(Input::Process));
        assert!(matches!(anew(Mode::Extract), Way::Anew(Input::Extract { .. })));
    }

    #[test]
    fn a_window_that_is_set_aside_is_named_where_nothing_failed() {
        assert_eq!(left_alone("r1", 0), "nothing failed in r1: nothing is started");
        let said = "nothing failed in r1: nothing is started; 1 window set aside, and wanted again with: \
                    alert-archive skip r1 WINDOW --undo";
        assert_eq!(left_alone("r1", 1), said);
    }

    #[test]
    fn a_run_that_is_complete_or_at_work_is_left_alone() {
        let done = run(RunStatus::Completed);
        assert_eq!(way_of(&done, Some("SUCCEEDED"), true, false), Way::Nothing);
        assert_eq!(way_of(&done, None, true, false), Way::Nothing);
        assert_eq!(way_of(&done, Some("SUCCEEDED"), true, true), Way::FailedOnly, "a window is wanted again");
        assert_eq!(way_of(&run(RunStatus::Running), Some("RUNNING"), true, true), Way::Wait);
        // It died, and is not marked yet.
        assert_eq!(way_of(&run(RunStatus::Running), Some("FAILED"), true, true), Way::Redrive);
    }
}

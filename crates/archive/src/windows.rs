use alerts::{
    run::payloads::{NoProgress, WindowTask},
    window::record::{Begin, LEASE, Refused, State, WindowRecord},
};
use aws_config::SdkConfig;
use errors::{Name, Named, describe};
use jiff::Timestamp;
use runtime::Call;
use std::time::Duration;
use storage::{LedgerError, Table, TableStore};

/// The rows of `windows`, changed by the rules of [`alerts::window::record`].
#[derive(Clone)]
pub struct Windows {
    pub rows: Table<WindowRecord>,
}

#[derive(Debug, thiserror::Error)]
pub enum WindowError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("window {window_id} names no attempt: it was not queried")]
    NoAttempt { window_id: String },
}

/// How one call of a step ends, if it does not fail.
#[derive(Debug, PartialEq, Eq)]
pub enum StepEnd {
    Done,
    /// The call's time is over before the work. `advanced`: the call got further than the one before.
    Interrupted {
        advanced: bool,
    },
}

impl Named for WindowError {
    fn name(&self) -> Name {
        match self {
            WindowError::Ledger(error) => error.name(),
            WindowError::Refused(Refused::Busy { .. }) => Name::WindowBusy,
            WindowError::Refused(Refused::Unknown { .. }) => Name::PlanMissing,
            WindowError::Refused(_) => Name::WindowSuperseded,
            WindowError::NoAttempt { .. } => Name::InvalidInput,
        }
    }
}

impl Windows {
    pub fn new(config: &SdkConfig, table: String) -> Self {
        Windows { rows: Table::new(config, table) }
    }

    pub fn over(store: impl TableStore + 'static, table: &str) -> Self {
        Windows { rows: Table::over(store, table) }
    }

    /// Changes the record of a window that the plan wrote.
    pub async fn change(
        &self,
        run_id: &str,
        window_id: &str,
        mut decide: impl FnMut(&WindowRecord) -> Result<WindowRecord, Refused>,
    ) -> Result<WindowRecord, WindowError> {
        let unknown = || Refused::Unknown { run_id: run_id.to_owned(), window_id: window_id.to_owned() };
        let changed = self.rows.update(run_id, Some(window_id), |record| {
            let record = record.ok_or_else(unknown)?;
            let next = decide(record)?;
            Ok::<_, WindowError>((next != *record).then_some(next))
        });
        Ok(changed.await?.ok_or_else(unknown)?)
    }

    /// Counts messages of a window whose rows were moved to the index that took the place of theirs.
    pub async fn note_moved(&self, run_id: &str, window_id: &str, moved: u64) -> Result<(), WindowError> {
        if moved > 0 {
            let noted = |record: &WindowRecord| Ok(WindowRecord { moved: record.moved + moved, ..record.clone() });
            self.change(run_id, window_id, noted).await?;
        }
        Ok(())
    }

    /// One call of a step that follows query-messages. `work` gets the window's row and goes on as the attempt that
    /// the task names. A window that is completed or skipped needs no work. A failure is noted on the row.
    pub async fn run_step<E>(
        &self,
        step: &'static str,
        task: &mut WindowTask,
        call: &Call,
        work: impl AsyncFnOnce(&WindowTask, WindowRecord) -> Result<StepEnd, E>,
    ) -> Result<(), E>
    where
        E: Named + From<WindowError> + From<NoProgress>,
    {
        let result = match self.proceed(step, task, call).await {
            Err(error) => Err(error.into()),
            Ok(row) if matches!(row.status, State::Completed | State::Skipped) => Ok(StepEnd::Done),
            Ok(row) => {
                let attempt = row.fence.attempt;
                self.hold(call, &task.run_id, &task.window.window_id, attempt, Box::pin(work(task, row))).await
            }
        };
        let result = match result {
            Ok(StepEnd::Done) => {
                task.step_done();
                Ok(())
            }
            Ok(StepEnd::Interrupted { advanced }) => task.call_again(step, advanced).map_err(E::from),
            Err(error) => Err(error),
        };
        if let Err(error) = &result {
            self.note_failure(task, error, call.now()).await;
        }
        result
    }

    /// A new attempt of the window begins with `step`.
    pub async fn begin(&self, step: &str, task: &WindowTask, call: &Call) -> Result<Begin, WindowError> {
        let mut begin = Begin::Nothing { attempt: 0 };
        let decide = |record: &WindowRecord| {
            let (next, what) = record.begin(step, call.now());
            begin = what;
            Ok(next)
        };
        self.change(&task.run_id, &task.window.window_id, decide).await?;
        Ok(begin)
    }

    /// The same attempt goes on with `step`. Refused when the window has a newer attempt, or another run released it.
    pub async fn proceed(&self, step: &str, task: &WindowTask, call: &Call) -> Result<WindowRecord, WindowError> {
        let window_id = &task.window.window_id;
        let attempt = task.attempt.ok_or_else(|| WindowError::NoAttempt { window_id: window_id.clone() })?;
        self.change(&task.run_id, window_id, |record| record.proceed(attempt, step, call.now())).await
    }

    /// Does a step's work and meanwhile renews the lease of its attempt. The work ends early when the attempt is no
    /// longer the window's.
    pub async fn hold<T, E: From<WindowError>>(
        &self,
        call: &Call,
        run_id: &str,
        window_id: &str,
        attempt: u64,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let lost = async {
            loop {
                call.sleep(Duration::from_secs(LEASE.as_secs().unsigned_abs() / 3)).await;
                match self.change(run_id, window_id, |record| record.renew(attempt, call.now())).await {
                    Err(WindowError::Refused(refused)) => return refused,
                    // The work will meet the same trouble, and knows what to do about it.
                    Err(error) => {
                        tracing::warn!(window = window_id, error = describe(&error), "the lease could not be renewed")
                    }
                    Ok(_) => {}
                }
            }
        };
        tokio::select! {
            // In this order, so that a simulated history can be repeated.
            biased;
            done = work => done,
            refused = lost => Err(WindowError::from(refused).into()),
        }
    }

    /// Notes on the window why its attempt ended. Best effort: the error itself is what the caller returns.
    pub async fn note_failure(&self, task: &WindowTask, error: &impl Named, now: Timestamp) {
        let message: String = describe(error).chars().take(2000).collect();
        let noted = self.change(&task.run_id, &task.window.window_id, |record| {
            record.fail(task.attempt.unwrap_or(record.fence.attempt), error.name().as_str(), message.clone(), now)
        });
        if let Err(failed) = noted.await {
            tracing::warn!(
                window = task.window.window_id,
                error = describe(&failed),
                "the failure could not be noted on the window"
            );
        }
    }
}

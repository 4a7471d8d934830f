//! The execution that accounts for a run, and what only that one may write.

use crate::{Deps, Error};
use alerts::{
    keys::{grid_key, run_prefix},
    run::{
        job_run::{JobRun, RunStatus},
        payloads::CollectRequest,
    },
};
use archive::Account;
use jiff::Timestamp;
use serde::Serialize;

/// How often an object is written that another call keeps writing.
const TRIES: u32 = 10;

/// The objects of a report, in [`Own::stood`].
pub const DETAILS: usize = 0;
pub const GRID: usize = 1;
pub const REPORT: usize = 2;

/// The account that a call gives of its run: this execution's, of this attempt.
pub struct Own<'a> {
    deps: &'a Deps,
    run_id: &'a str,
    execution_arn: &'a str,
    attempt: u64,
    /// What it had died of before it was redriven. A death that comes later ends the account.
    died_of: Option<String>,
    /// Each object's key, and its entity tag before it was asked whose account counts.
    stood: [(String, Option<String>); 3],
}

impl<'a> Own<'a> {
    /// `None` when another execution has completed the run.
    pub async fn account_for(
        deps: &'a Deps,
        request: &'a CollectRequest,
        now: Timestamp,
    ) -> Result<Option<(JobRun, Own<'a>)>, Error> {
        let CollectRequest { run_id, execution_arn, .. } = request;
        let keys = [
            format!("{}/details.json", run_prefix(run_id)),
            grid_key(run_id),
            format!("{}/report.json", run_prefix(run_id)),
        ];
        let mut stood = keys.map(|key| (key, None));
        for (key, tag) in &mut stood {
            *tag = tag_of(deps, key).await?;
        }
        let missing = || Error::PlanMissing { run_id: run_id.clone() };
        let run = deps.job_runs.get(run_id).await?.ok_or_else(missing)?;
        if run.status == RunStatus::Completed && run.execution_arn != *execution_arn {
            return Ok(None);
        }
        let is_running = async |arn: &str| Ok::<_, Error>(deps.workflow.is_running(arn).await?);
        match deps.job_runs.account_for(run_id, execution_arn, now, is_running).await?.ok_or_else(missing)? {
            Account::Own(run) => {
                let (attempt, died_of) = (run.attempt, run.error.clone());
                Ok(Some((*run, Own { deps, run_id, execution_arn, attempt, died_of, stood })))
            }
            Account::Other(execution) => Err(Error::RangeBusy { run_id: run_id.clone(), execution }),
        }
    }

    /// Writes an object over what stood there before this account was found to count. A call that wakes up late
    /// overwrites nothing that another execution has written since.
    pub async fn put(&self, object: usize, value: &impl Serialize) -> Result<(), Error> {
        let (key, mut tag) = self.stood[object].clone();
        for _ in 0..TRIES {
            if self.deps.objects.put_json_over(&key, tag.as_deref(), value).await? {
                return Ok(());
            }
            tag = tag_of(self.deps, &key).await?;
            self.change(|_| ()).await?;
        }
        Err(Error::ListContended { key })
    }

    /// Changes the run's row, as long as this account counts.
    pub async fn change(&self, mut change: impl FnMut(&mut JobRun)) -> Result<(), Error> {
        let mut other = None;
        let changed = self.deps.job_runs.change(self.run_id, |row| {
            let is_dead = row.error.is_some() && row.error != self.died_of;
            let is_own = row.execution_arn == self.execution_arn && row.attempt == self.attempt && !is_dead;
            other = (!is_own).then(|| row.execution_arn.clone());
            if is_own {
                change(row);
            }
        });
        changed.await?;
        let busy = |execution| Error::RangeBusy { run_id: self.run_id.to_owned(), execution };
        other.map_or(Ok(()), |execution| Err(busy(execution)))
    }
}

/// The entity tag of an object, where there is one.
async fn tag_of(deps: &Deps, key: &str) -> Result<Option<String>, Error> {
    Ok(deps.objects.find_part(key, 0..1, None).await?.map(|part| part.tag))
}

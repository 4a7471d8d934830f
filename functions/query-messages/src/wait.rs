//! A wait that the API asked for and that is too long for a call ends the window. The state machine calls again within
//! seconds all the same: until the wait is over nothing is asked. A redrive or a rerun is a person's decision, and
//! free.

use crate::{Deps, Error};
use alerts::{keys::wait_key, run::payloads::WindowTask};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sources::{SourceError, api::ApiError};
use std::time::Duration;
use storage::StoreError;

#[derive(Serialize, Deserialize)]
struct Wait {
    status: u16,
    until: Timestamp,
    /// The run's attempt that it binds.
    attempt: u64,
}

/// Fails while an earlier call of the same attempt of the run is to be waited for.
pub async fn check(deps: &Deps, task: &WindowTask, now: Timestamp) -> Result<(), Error> {
    let wait: Wait = match deps.objects.get_json(&wait_key(&task.run_id, &task.window.window_id)).await {
        Ok(wait) => wait,
        Err(StoreError::Missing { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let left = Duration::try_from(wait.until.duration_since(now)).unwrap_or_default();
    if left.is_zero() || attempt(deps, task).await? != wait.attempt {
        return Ok(());
    }
    Err(SourceError::from(ApiError::WaitTooLong { status: wait.status, wait: left }).into())
}

/// Notes the wait that ended the window, for the calls that follow.
pub async fn note(deps: &Deps, task: &WindowTask, error: &Error, now: Timestamp) -> Result<(), Error> {
    let Error::Source(SourceError::Api(ApiError::WaitTooLong { status, wait })) = error else { return Ok(()) };
    // A month is as good as for ever.
    let wait = SignedDuration::try_from(*wait).unwrap_or(SignedDuration::MAX).min(SignedDuration::from_hours(24 * 30));
    let wait = Wait { status: *status, until: now + wait, attempt: attempt(deps, task).await? };
    Ok(deps.objects.put_json(&wait_key(&task.run_id, &task.window.window_id), &wait).await?)
}

async fn attempt(deps: &Deps, task: &WindowTask) -> Result<u64, Error> {
    Ok(deps.job_runs.get(&task.run_id).await?.map_or(0, |run| run.attempt))
}

//! The rows of the table `warehouse`: one for the build, one for each source table's ingest. Each has a fence, so that
//! of two executors one waits, and one that was thought dead can change nothing any more.

use errors::{Name, Named};
use identity::instant;
use jiff::{SignedDuration, Timestamp};
use ledger::{Fence, Keyed, Superseded};
use runtime::Call;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use storage::{LedgerError, Table};
use tokio::task::JoinSet;

const LEASE: SignedDuration = SignedDuration::from_secs(30);
/// How often a claim that another executor holds is asked for again.
const PAUSE: Duration = Duration::from_millis(200);

/// Why the last attempt ended early.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailureNote {
    pub error: String,
    pub message: String,
    #[serde(with = "instant::serde_iso")]
    pub at: Timestamp,
}

/// The one build of all tables: they are published together, so that a fact never refers to an older dimension.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BuildRow {
    pub name: String,
    #[serde(flatten)]
    pub fence: Fence,
    /// Key of the [`BuildState`](crate::BuildState) in force.
    #[serde(default)]
    pub state: Option<String>,
    #[serde(default)]
    pub failure: Option<FailureNote>,
    pub revision: u64,
}

/// What the ingests of one table have reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IngestRow {
    pub name: String,
    #[serde(flatten)]
    pub fence: Fence,
    /// The next read begins here; as PostgreSQL writes it, UTC. `None`: at the beginning.
    #[serde(default)]
    pub timestamp: Option<String>,
    /// Of the last object that an ingest completed.
    #[serde(default)]
    pub sequential_id: u64,
    #[serde(default)]
    pub latest_object: Option<String>,
    /// Key of the object with all keys that are in the ingestion bucket; `None`: there are none.
    #[serde(default)]
    pub known: Option<String>,
    /// The columns by which these keys are spelled, in their order; none where that was not noted yet.
    #[serde(default)]
    pub key: Vec<SourceColumn>,
    /// How many keys these are.
    #[serde(default)]
    pub keys: u64,
    /// Objects of the attempt that is under way, in the order of their ids. A later attempt looks for each of them.
    #[serde(default)]
    pub planned: Vec<Planned>,
    /// When all keys were last compared, in seconds since 1970.
    #[serde(default)]
    pub compared_at: Option<i64>,
    /// The slice of the keys with which the comparison goes on; 0: none is under way.
    #[serde(default)]
    pub compare_from: usize,
    /// No more slices than this are compared at once, because there was no time for more; 0: any number.
    #[serde(default)]
    pub compare_most: usize,
    /// PostgreSQL's number of the table at the last read: another one is another table of the same name.
    #[serde(default)]
    pub oid: Option<u32>,
    /// When the last ingest that went well ended.
    #[serde(default)]
    pub completed_at: Option<Timestamp>,
    /// The columns of the table at the last read.
    #[serde(default)]
    pub columns: Vec<SourceColumn>,
    /// The columns when each was first seen.
    #[serde(default)]
    pub first_columns: Vec<SourceColumn>,
    #[serde(default)]
    pub failure: Option<FailureNote>,
    /// Ingests that failed since one went well.
    #[serde(default)]
    pub failures_in_a_row: u64,
    pub revision: u64,
}

/// An object that an ingest is about to write. An id belongs to one key for ever.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    pub id: u64,
    pub key: String,
    /// Of its content, in hex.
    pub sha256: String,
    /// Another's object lay there, so that nothing was written.
    #[serde(default)]
    pub is_refused: bool,
}

/// A column as PostgreSQL's catalogue describes it, such as `numeric(10,2)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceColumn {
    pub name: String,
    pub of: String,
}

macro_rules! keyed {
    ($($row:ty),*) => {$(
        impl Keyed for $row {
            const PARTITION: &'static str = "name";
            const SORT: Option<&'static str> = None;
            fn key(&self) -> (String, Option<String>) {
                (self.name.clone(), None)
            }
            fn revision(&self) -> u64 {
                self.revision
            }
            fn revised(mut self, revision: u64) -> Self {
                self.revision = revision;
                self
            }
        }
    )*};
}
keyed!(BuildRow, IngestRow);

#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("{what} is at work until {until}; it is tried again")]
    Busy { what: String, until: Timestamp },
    #[error(transparent)]
    Superseded(#[from] Superseded),
}

impl Named for ClaimError {
    fn name(&self) -> Name {
        match self {
            ClaimError::Ledger(error) => error.name(),
            ClaimError::Busy { .. } => Name::WarehouseBusy,
            ClaimError::Superseded(_) => Name::WarehouseSuperseded,
        }
    }
}

/// A row that executors take turns at.
trait Claimed: Keyed + Send + Sync + 'static {
    fn first(name: &str, now: Timestamp) -> Self;
    fn fence(&self) -> Fence;
    fn with_fence(self, fence: Fence) -> Self;
}

impl Claimed for BuildRow {
    fn first(name: &str, now: Timestamp) -> Self {
        BuildRow { name: name.to_owned(), fence: Fence::new(now), state: None, failure: None, revision: 0 }
    }
    fn fence(&self) -> Fence {
        self.fence
    }
    fn with_fence(self, fence: Fence) -> Self {
        BuildRow { fence, ..self }
    }
}

impl Claimed for IngestRow {
    fn first(name: &str, now: Timestamp) -> Self {
        IngestRow {
            name: name.to_owned(),
            fence: Fence::new(now),
            timestamp: None,
            sequential_id: 0,
            latest_object: None,
            known: None,
            key: Vec::new(),
            keys: 0,
            planned: Vec::new(),
            compared_at: None,
            compare_from: 0,
            compare_most: 0,
            oid: None,
            completed_at: None,
            columns: Vec::new(),
            first_columns: Vec::new(),
            failure: None,
            failures_in_a_row: 0,
            revision: 0,
        }
    }
    fn fence(&self) -> Fence {
        self.fence
    }
    fn with_fence(self, fence: Fence) -> Self {
        IngestRow { fence, ..self }
    }
}

/// The rows of a deployment's warehouse.
#[derive(Clone)]
pub struct Warehouse {
    builds: Table<BuildRow>,
    ingests: Table<IngestRow>,
}

const BUILD: &str = "build";

fn ingest_name(table: &str) -> String {
    format!("ingest/{table}")
}

impl Warehouse {
    pub fn new(builds: Table<BuildRow>, ingests: Table<IngestRow>) -> Self {
        Warehouse { builds, ingests }
    }

    pub async fn build(&self) -> Result<Option<BuildRow>, LedgerError> {
        self.builds.get(BUILD, None).await
    }

    pub async fn ingest(&self, table: &str) -> Result<Option<IngestRow>, LedgerError> {
        self.ingests.get(&ingest_name(table), None).await
    }

    /// Waits for the turn of this build, at most `patience`.
    pub async fn claim_build(&self, patience: Duration, call: &Call) -> Result<BuildRow, ClaimError> {
        claim(&self.builds, BUILD, "another build", patience, call).await
    }

    pub async fn claim_ingest(&self, table: &str, patience: Duration, call: &Call) -> Result<IngestRow, ClaimError> {
        claim(&self.ingests, &ingest_name(table), "another ingest of this table", patience, call).await
    }

    /// Changes the row as long as the attempt is its own.
    pub async fn change_build(
        &self,
        attempt: u64,
        mut decide: impl FnMut(BuildRow) -> BuildRow,
    ) -> Result<BuildRow, ClaimError> {
        change(&self.builds, BUILD, attempt, &mut decide).await
    }

    pub async fn change_ingest(
        &self,
        table: &str,
        attempt: u64,
        mut decide: impl FnMut(IngestRow) -> IngestRow,
    ) -> Result<IngestRow, ClaimError> {
        change(&self.ingests, &ingest_name(table), attempt, &mut decide).await
    }

    /// Does a build's work and meanwhile renews its lease.
    pub async fn hold_build<T, E: From<ClaimError>>(
        &self,
        attempt: u64,
        call: &Call,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        hold(&self.builds, BUILD, attempt, call, work).await
    }

    pub async fn hold_ingest<T, E: From<ClaimError>>(
        &self,
        table: &str,
        attempt: u64,
        call: &Call,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        hold(&self.ingests, &ingest_name(table), attempt, call, work).await
    }
}

async fn claim<R: Claimed>(
    table: &Table<R>,
    name: &str,
    what: &str,
    patience: Duration,
    call: &Call,
) -> Result<R, ClaimError> {
    let until = call.took() + patience;
    loop {
        let now = call.now();
        let claimed = table.update(name, None, |row| {
            let row = row.cloned().unwrap_or_else(|| R::first(name, now));
            let fence = row.fence();
            if fence.is_alive(now) {
                return Err(ClaimError::Busy { what: what.to_owned(), until: fence.lease_until });
            }
            Ok(Some(row.with_fence(fence.next(now, LEASE))))
        });
        match claimed.await {
            Ok(Some(row)) => return Ok(row),
            Err(ClaimError::Busy { .. } | ClaimError::Ledger(LedgerError::Contended { .. })) if call.took() < until => {
                call.sleep(PAUSE).await;
            }
            Ok(None) => {}
            Err(error) => return Err(error),
        }
    }
}

async fn change<R: Claimed>(
    table: &Table<R>,
    name: &str,
    attempt: u64,
    decide: &mut impl FnMut(R) -> R,
) -> Result<R, ClaimError> {
    let changed = table.update(name, None, |row| {
        let superseded = || Superseded { attempt, current: 0 };
        let row = row.ok_or_else(superseded)?;
        row.fence().check(attempt)?;
        Ok::<_, ClaimError>(Some(decide(row.clone())))
    });
    changed.await?.ok_or_else(|| Superseded { attempt, current: 0 }.into())
}

async fn hold<R: Claimed, T, E: From<ClaimError>>(
    table: &Table<R>,
    name: &str,
    attempt: u64,
    call: &Call,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let (table, name, call) = (table.clone(), name.to_owned(), call.clone());
    // On a thread of its own, since the work may keep its thread busy for longer than the lease; it ends with the set.
    let mut renewing = JoinSet::new();
    renewing.spawn(async move {
        loop {
            call.sleep(Duration::from_secs(LEASE.as_secs().unsigned_abs() / 3)).await;
            let now = call.now();
            let renew = |row: R| {
                let fence = row.fence().renew(now, LEASE);
                row.with_fence(fence)
            };
            match change(&table, &name, attempt, &mut { renew }).await {
                Err(error @ ClaimError::Superseded(_)) => return error,
                // The work will meet the same trouble, and knows what to do about it.
                Err(error) => {
                    tracing::warn!(row = name, error = errors::describe(&error), "the lease could not be renewed")
                }
                Ok(_) => {}
            }
        }
    });
    tokio::select! {
        done = work => done,
        Some(Ok(lost)) = renewing.join_next() => Err(lost.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use network::Calm;
    use runtime::ManualClock;
    use std::sync::Arc;
    use storage::MemoryTables;

    const STEP: Duration = Duration::from_secs(5);

    /// Lets time pass, and lets those at work that it wakes.
    async fn pass(clock: &Arc<ManualClock>, time: Duration) {
        for _ in 0..time.as_secs() / STEP.as_secs() {
            clock.advance(STEP);
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn one_builds_at_a_time_as_long_as_it_lives_and_who_was_thought_dead_may_change_nothing() {
        let tables = MemoryTables::new(Calm::shared()).table("rows", "name", None);
        let rows = Warehouse::new(Table::over(tables.clone(), "rows"), Table::over(tables, "rows"));
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let call = Call::new(clock.clone(), Duration::from_secs(900));
        let first = rows.claim_build(Duration::ZERO, &call).await.expect("nobody is at work");
        let attempt = first.fence.attempt;
        let work = tokio::spawn({
            let (rows, call) = (rows.clone(), call.clone());
            async move { rows.hold_build(attempt, &call, std::future::pending::<Result<(), ClaimError>>()).await }
        });
        // Several times as long as a lease, which is renewed meanwhile.
        for _ in 0..4 {
            pass(&clock, Duration::from_secs(25)).await;
            let busy = rows.claim_build(Duration::ZERO, &call).await;
            assert!(matches!(busy, Err(ClaimError::Busy { .. })), "{busy:?}");
            // Another row is another's turn.
            let other = rows.claim_ingest("t", Duration::ZERO, &call).await.expect("nobody reads this table");
            rows.change_ingest("t", other.fence.attempt, |row| IngestRow { fence: row.fence.end(call.now()), ..row })
                .await
                .expect("its own row");
        }
        work.abort();
        pass(&clock, Duration::from_secs(35)).await;
        let second = rows.claim_build(Duration::ZERO, &call).await.expect("the lease is over");
        assert_eq!(second.fence.attempt, attempt + 1);
        let refused = rows.change_build(attempt, |row| BuildRow { state: Some("stale".into()), ..row }).await;
        assert!(matches!(refused, Err(ClaimError::Superseded(_))), "{refused:?}");
        assert_eq!(rows.build().await.expect("row"), Some(second));
        // Work that goes on all the same ends when its lease is to be renewed.
        let woken = tokio::spawn({
            let (rows, call) = (rows.clone(), call.clone());
            async move { rows.hold_build(attempt, &call, std::future::pending::<Result<(), ClaimError>>()).await }
        });
        pass(&clock, Duration::from_secs(15)).await;
        assert!(woken.is_finished());
        assert!(matches!(woken.await, Ok(Err(ClaimError::Superseded(_)))));
    }
}

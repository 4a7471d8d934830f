use alerts::run::{
    api_use::{API_USE, ApiUse},
    indices::{INDICES, IndicesRead},
    job_run::{JobRun, RunStatus, WATERMARK, Watermark},
    lock::{Held, LOCK, Lock},
    swept::{IndexSwept, Swept},
    unresolved::{Register, UNRESOLVED},
};
use aws_config::SdkConfig;
use jiff::Timestamp;
use ledger::Once;
use std::collections::HashMap;
use storage::{LedgerError, Table, TableStore};

/// Whether an execution accounts for its run.
#[derive(Clone, Debug)]
pub enum Account {
    /// It does; the run's row as it then stands.
    Own(Box<JobRun>),
    /// This one does.
    Other(String),
}

/// `job-runs`: a row a run, the lock, the watermark and the register of what is unresolved.
#[derive(Clone)]
pub struct JobRuns {
    pub runs: Table<JobRun>,
    locks: Table<Lock>,
    watermarks: Table<Watermark>,
    registers: Table<Register>,
    api_uses: Table<ApiUse>,
    indices: Table<IndicesRead>,
    swept: Table<Swept>,
}

impl JobRuns {
    pub fn new(config: &SdkConfig, table: String) -> Self {
        JobRuns {
            runs: Table::new(config, table.clone()),
            locks: Table::new(config, table.clone()),
            watermarks: Table::new(config, table.clone()),
            registers: Table::new(config, table.clone()),
            api_uses: Table::new(config, table.clone()),
            indices: Table::new(config, table.clone()),
            swept: Table::new(config, table),
        }
    }

    pub fn over(store: impl TableStore + Clone + 'static, table: &str) -> Self {
        JobRuns {
            runs: Table::over(store.clone(), table),
            locks: Table::over(store.clone(), table),
            watermarks: Table::over(store.clone(), table),
            registers: Table::over(store.clone(), table),
            api_uses: Table::over(store.clone(), table),
            indices: Table::over(store.clone(), table),
            swept: Table::over(store, table),
        }
    }

    pub async fn get(&self, run_id: &str) -> Result<Option<JobRun>, LedgerError> {
        self.runs.get(run_id, None).await
    }

    /// Changes a run's row; `None` when there is no such run.
    pub async fn change(
        &self,
        run_id: &str,
        mut change: impl FnMut(&mut JobRun),
    ) -> Result<Option<JobRun>, LedgerError> {
        let update = self.runs.update(run_id, None, |row| {
            let Some(before) = row else { return Ok::<_, LedgerError>(None) };
            let mut after = before.clone();
            change(&mut after);
            Ok((after != *before).then_some(after))
        });
        update.await
    }

    /// Changes what the run's row notes of a mail, under a name, as `decide` says; `None` takes the note away. Where the
    /// mail does not tell what counts any more, nothing is decided.
    pub async fn note_mail(
        &self,
        run_id: &str,
        name: &str,
        mut still_counts: impl FnMut(&JobRun) -> bool,
        decide: &mut (dyn FnMut(Option<Once>) -> Option<Once> + Send),
    ) -> Result<Option<JobRun>, LedgerError> {
        let change = self.change(run_id, |row| {
            if !still_counts(row) {
                return;
            }
            match decide(row.outbox.get(name).copied()) {
                Some(once) => row.outbox.insert(name.to_owned(), once),
                None => row.outbox.remove(name),
            };
        });
        change.await
    }

    /// Takes the range. Returns the holder of a part of it, when that is at work. A run whose execution has ended holds
    /// nothing: its windows are guarded by their own leases. A holder that is no execution has a lease.
    pub async fn acquire<E: From<LedgerError>>(
        &self,
        wanted: &Held,
        now: Timestamp,
        is_running: impl AsyncFn(&Held) -> Result<bool, E>,
    ) -> Result<Option<Held>, E> {
        let mut dead: Vec<Held> = Vec::new();
        loop {
            let Some(holder) = self.acquire_beside(wanted, &dead).await? else { return Ok(None) };
            let is_at_work = match holder.until {
                Some(until) => now < until,
                None => is_running(&holder).await?,
            };
            if is_at_work {
                return Ok(Some(holder));
            }
            dead.push(holder);
        }
    }

    /// Takes the range and removes the holders that are `dead`, unless another run holds a part of it: then that run.
    async fn acquire_beside(&self, wanted: &Held, dead: &[Held]) -> Result<Option<Held>, LedgerError> {
        let mut blocked = None;
        let update = self.locks.update(LOCK, None, |lock| {
            let mut lock = lock.cloned().unwrap_or_else(|| Lock { run_id: LOCK.to_owned(), ..Lock::default() });
            lock.held.retain(|held| !dead.contains(held));
            blocked = lock.holder_of(wanted).cloned();
            Ok::<_, LedgerError>(blocked.is_none().then(|| lock.with(wanted.clone())))
        });
        update.await?;
        Ok(blocked)
    }

    /// Who accounts for a run: the execution that its row names. Another takes the run over, as an attempt of its own,
    /// when it is at work itself and the one that is named is not, or has come to its end. `None` when there is no such
    /// run.
    pub async fn account_for<E: From<LedgerError>>(
        &self,
        run_id: &str,
        execution_arn: &str,
        now: Timestamp,
        is_running: impl AsyncFn(&str) -> Result<bool, E>,
    ) -> Result<Option<Account>, E> {
        loop {
            let Some(read) = self.get(run_id).await? else { return Ok(None) };
            if read.execution_arn == execution_arn {
                return Ok(Some(Account::Own(Box::new(read))));
            }
            let is_at_work = read.status == RunStatus::Running && is_running(&read.execution_arn).await?;
            // A call that wakes up late, of an execution that has ended, takes nothing over.
            if is_at_work || !is_running(execution_arn).await? {
                return Ok(Some(Account::Other(read.execution_arn)));
            }
            let mut is_as_read = false;
            let change = self.change(run_id, |row| {
                is_as_read =
                    row.execution_arn == read.execution_arn && row.attempt == read.attempt && row.status == read.status;
                if is_as_read {
                    row.take_over(execution_arn, now);
                }
            });
            if let Some(taken) = change.await?.filter(|_| is_as_read) {
                return Ok(Some(Account::Own(Box::new(taken))));
            }
        }
    }

    /// Whether any other run holds a range and is at work.
    pub async fn is_another_at_work<E: From<LedgerError>>(
        &self,
        run_id: &str,
        is_running: impl AsyncFn(&Held) -> Result<bool, E>,
    ) -> Result<bool, E> {
        let lock = self.locks.get(LOCK, None).await?.unwrap_or_default();
        for held in lock.held.iter().filter(|held| held.holder != run_id && held.until.is_none()) {
            if is_running(held).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What this execution of a run holds is free again.
    pub async fn release(&self, holder: &str, execution_arn: &str) -> Result<(), LedgerError> {
        let update = self.locks.update(LOCK, None, |lock| {
            let before = lock.cloned().unwrap_or_default();
            let after = before.clone().without(holder, execution_arn);
            Ok::<_, LedgerError>((after != before).then_some(after))
        });
        update.await.map(|_| ())
    }

    pub async fn watermark(&self) -> Result<Option<Timestamp>, LedgerError> {
        Ok(self.watermarks.get(WATERMARK, None).await?.map(|row| row.at))
    }

    /// Moves the watermark forward, never back.
    pub async fn move_watermark(&self, at: Timestamp) -> Result<(), LedgerError> {
        let update = self.watermarks.update(WATERMARK, None, |row| {
            let is_later = row.is_none_or(|row| row.at < at);
            Ok::<_, LedgerError>(is_later.then(|| Watermark { run_id: WATERMARK.to_owned(), at, revision: 0 }))
        });
        update.await.map(|_| ())
    }

    /// Sets the watermark, on condition that it stands where it was read.
    pub async fn set_watermark(&self, before: Option<Timestamp>, at: Timestamp) -> Result<bool, LedgerError> {
        let mut is_as_read = false;
        let update = self.watermarks.update(WATERMARK, None, |row| {
            is_as_read = row.map(|row| row.at) == before;
            let next = Watermark { run_id: WATERMARK.to_owned(), at, revision: 0 };
            Ok::<_, LedgerError>(is_as_read.then_some(next))
        });
        update.await?;
        Ok(is_as_read)
    }

    /// Notes that the API is a source, before anything of it is read.
    pub async fn note_api_use(&self) -> Result<(), LedgerError> {
        let update = self.api_uses.update(API_USE, None, |row| {
            let first = || ApiUse { run_id: API_USE.to_owned(), revision: 0 };
            Ok::<_, LedgerError>(row.is_none().then(first))
        });
        update.await.map(|_| ())
    }

    /// Whether the API is, or ever was, a source.
    pub async fn uses_api(&self) -> Result<bool, LedgerError> {
        Ok(self.api_uses.get(API_USE, None).await?.is_some())
    }

    /// Notes which indices of messages there are, before anything of them is read.
    pub async fn note_indices(&self, names: &[String], now: Timestamp) -> Result<IndicesRead, LedgerError> {
        let with = |row: Option<&IndicesRead>| IndicesRead::with(row, names, now);
        let update = self.indices.update(INDICES, None, |row| Ok::<_, LedgerError>(Some(with(row))));
        Ok(update.await?.unwrap_or_else(|| with(None)))
    }

    /// Which indices of messages the last plan found that asked an index.
    pub async fn indices_read(&self) -> Result<Option<IndicesRead>, LedgerError> {
        self.indices.get(INDICES, None).await
    }

    /// How far the writes of each index have been looked at, by its name.
    pub async fn swept(&self) -> Result<HashMap<String, IndexSwept>, LedgerError> {
        let mut swept = HashMap::new();
        let note = |row: Swept| drop(swept.insert(row.index.index.clone(), row.index));
        self.swept.for_each(note).await?;
        Ok(swept)
    }

    /// Notes how far the writes of an index have been looked at.
    pub async fn note_swept(&self, index: &IndexSwept) -> Result<(), LedgerError> {
        let key = Swept::key_of(&index.index);
        let update = self.swept.update(&key, None, |row| {
            let next = Swept::new(row.map_or_else(|| index.clone(), |row| index.after(&row.index)));
            Ok::<_, LedgerError>(row.is_none_or(|row| row.index != next.index).then_some(next))
        });
        update.await.map(|_| ())
    }

    /// What operators have set aside and is not resolved.
    pub async fn unresolved(&self) -> Result<Register, LedgerError> {
        Ok(self.registers.get(UNRESOLVED, None).await?.unwrap_or_default())
    }

    /// Changes what is unresolved; `None` leaves it as it is. Returns what then stands.
    pub async fn change_unresolved(
        &self,
        mut change: impl FnMut(Register) -> Option<Register>,
    ) -> Result<Register, LedgerError> {
        let update = self.registers.update(UNRESOLVED, None, |row| {
            let before =
                row.cloned().unwrap_or_else(|| Register { run_id: UNRESOLVED.to_owned(), ..Register::default() });
            Ok::<_, LedgerError>(change(before.clone()).filter(|after| *after != before))
        });
        Ok(update.await?.unwrap_or_default())
    }
}

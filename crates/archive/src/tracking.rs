use alerts::message::{
    classification::Disposition,
    entry::Entry,
    tracking::{Claim, Decision, Move, NO_INDEX, Row, STAGING_SHARDS, moved, renamed, stage, staging_shard},
};
use alerts::source::Source;
use aws_config::SdkConfig;
use errors::{Name, Named};
use identity::Identity;
use jiff::Timestamp;
use std::collections::{HashMap, HashSet};
use storage::{LedgerError, Table, TableStore};

/// The sparse index of rows that are open or unfinished, and its partition key.
const STAGING: &str = "staging";
/// How often rows are staged again because another executor changed them meanwhile.
const ROUNDS: usize = 6;

/// Rows that are read and written between two looks at the clock.
const AT_ONCE: usize = 250;

/// How far a change of many rows came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Rows that were written.
    pub rows: usize,
    /// `false` when the time was over first: the same change again goes on from there.
    pub all: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("{rows} rows of table {table} changed again and again while they were being staged")]
    Contended { table: String, rows: usize },
}

impl Named for StageError {
    fn name(&self) -> Name {
        match self {
            StageError::Ledger(error) => error.name(),
            StageError::Contended { .. } => Name::LedgerUnavailable,
        }
    }
}

/// `message-tracking`: a row a message.
#[derive(Clone)]
pub struct Tracking {
    pub rows: Table<Row>,
}

impl Tracking {
    pub fn new(config: &SdkConfig, table: String) -> Self {
        Tracking { rows: Table::new(config, table) }
    }

    pub fn over(store: impl TableStore + 'static, table: &str) -> Self {
        Tracking { rows: Table::over(store, table) }
    }

    /// Stages classified documents on behalf of `claim`; returns a decision for each, in order. `None` when the time was over
    /// first: staged again, the rows that are done are only read. `had_api`: rows may be called after no index.
    pub async fn stage_all(
        &self,
        entries: &[&Entry],
        claim: &Claim,
        had_api: bool,
        now: Timestamp,
        is_ending: impl Fn() -> bool,
    ) -> Result<Option<Vec<Decision>>, StageError> {
        let mut decisions = Vec::with_capacity(entries.len());
        for part in entries.chunks(AT_ONCE) {
            if is_ending() {
                return Ok(None);
            }
            decisions.extend(self.stage_part(part, claim, had_api, now).await?);
        }
        Ok(Some(decisions))
    }

    async fn stage_part(
        &self,
        entries: &[&Entry],
        claim: &Claim,
        had_api: bool,
        now: Timestamp,
    ) -> Result<Vec<Decision>, StageError> {
        let mut decisions: Vec<Option<Decision>> = vec![None; entries.len()];
        for _ in 0..ROUNDS {
            let undecided: Vec<usize> = (0..entries.len()).filter(|position| decisions[*position].is_none()).collect();
            if undecided.is_empty() {
                break;
            }
            let keys: Vec<_> = undecided.iter().map(|position| row_key(entries[*position])).collect();
            let mut rows = self.rows.get_many(&keys).await?;
            let mut waits = HashMap::new();
            if had_api {
                let entries: Vec<&Entry> = undecided.iter().map(|position| entries[*position]).collect();
                waits = self.move_to_indices(&entries, &mut rows).await?;
            }
            let mut changes = Vec::new();
            for (position, key) in undecided.iter().zip(&keys) {
                let Some(holder) = waits.remove(key) else {
                    let staged = stage(rows.get(key), entries[*position], claim, now);
                    decisions[*position] = Some(staged.decision);
                    changes.extend(staged.row);
                    continue;
                };
                let Claim { run_id, window_id } = holder;
                decisions[*position] = Some(Decision::Contested { run_id, window_id });
            }
            let lost = self.rows.put_many(changes).await?;
            let lost: HashSet<_> = lost.into_iter().map(|row| (row.message_id, Some(row.source_index))).collect();
            for (position, key) in undecided.iter().zip(&keys) {
                if lost.contains(key) {
                    decisions[*position] = None;
                }
            }
        }
        let rows = decisions.iter().filter(|decision| decision.is_none()).count();
        decisions
            .into_iter()
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| StageError::Contended { table: self.rows.name().to_owned(), rows })
    }

    /// Moves rows from the time when no index had their messages to the indices that have them now, and puts them among
    /// `rows`. Returns the holders of those that a window is at work on.
    async fn move_to_indices(
        &self,
        entries: &[&Entry],
        rows: &mut HashMap<(String, Option<String>), Row>,
    ) -> Result<HashMap<(String, Option<String>), Claim>, LedgerError> {
        let may_have = |entry: &&&Entry| {
            entry.index != NO_INDEX && rows.get(&row_key(entry)).is_none_or(|row| row.source == Source::Api)
        };
        let candidates: Vec<&Entry> = entries.iter().filter(may_have).copied().collect();
        let keys: Vec<_> = candidates.iter().map(|entry| (entry.id.clone(), Some(NO_INDEX.to_owned()))).collect();
        let earlier = self.rows.get_many(&keys).await?;
        let mut waits = HashMap::new();
        for (entry, key) in candidates.into_iter().zip(&keys).filter(|(_, key)| earlier.contains_key(key)) {
            // One after the other: of two documents of one id the first takes the row over.
            for _ in 0..ROUNDS {
                let Some(earlier) = self.rows.get(&key.0, key.1.as_deref()).await? else { break };
                match moved(rows.get(&row_key(entry)), &earlier, &entry.index) {
                    Move::Name(named) => {
                        self.rows.put(&named).await?;
                    }
                    Move::Take(row) => {
                        // Whether this writes it or another did: only one document can.
                        self.rows.put(&row).await?;
                        let stands = self.rows.get(&row.message_id, Some(&row.source_index)).await?;
                        rows.extend(stands.map(|row| (row_key(entry), row)));
                    }
                    Move::Leave => {
                        self.rows.delete(&earlier).await?;
                    }
                    Move::Wait(holder) => {
                        waits.insert(row_key(entry), holder);
                        break;
                    }
                    Move::Nothing => break,
                }
            }
        }
        Ok(waits)
    }

    /// Reads the rows of `entries` and changes each as `decide` says, until no other executor interferes or the time is over.
    pub async fn change_all<E: From<LedgerError>>(
        &self,
        entries: &[&Entry],
        mut decide: impl FnMut(&Entry, Option<&Row>) -> Result<Option<Row>, E>,
        is_ending: impl Fn() -> bool,
    ) -> Result<Changed, E> {
        let mut changed = Changed::default();
        for part in entries.chunks(AT_ONCE) {
            if is_ending() {
                return Ok(changed);
            }
            changed.rows += self.change_part(part, &mut decide).await?;
        }
        changed.all = true;
        Ok(changed)
    }

    async fn change_part<E: From<LedgerError>>(
        &self,
        entries: &[&Entry],
        decide: &mut impl FnMut(&Entry, Option<&Row>) -> Result<Option<Row>, E>,
    ) -> Result<usize, E> {
        let (mut left, mut written) = (entries.to_vec(), 0);
        for _ in 0..ROUNDS {
            let keys: Vec<_> = left.iter().map(|entry| row_key(entry)).collect();
            let rows = self.rows.get_many(&keys).await?;
            let mut changes = Vec::new();
            for (entry, key) in left.iter().zip(&keys) {
                changes.extend(decide(entry, rows.get(key))?);
            }
            let wanted = changes.len();
            let lost = self.rows.put_many(changes).await?;
            written += wanted - lost.len();
            if lost.is_empty() {
                return Ok(written);
            }
            let lost: HashSet<_> = lost.into_iter().map(|row| (row.message_id, row.source_index)).collect();
            left.retain(|entry| lost.contains(&(entry.id.clone(), entry.index.clone())));
        }
        Err(LedgerError::Contended {
            table: self.rows.name().to_owned(),
            key: format!("{} rows", left.len()),
            tries: ROUNDS,
        }
        .into())
    }

    /// Hands over every row that is open or unfinished, a shard of the sparse index in memory at a time. The index is
    /// eventually consistent: a row that changed a moment ago may be missing or stale.
    pub async fn staged(&self, mut look: impl FnMut(Row)) -> Result<(), LedgerError> {
        for shard in 0..STAGING_SHARDS {
            self.staged_in(shard).await?.into_iter().for_each(&mut look);
        }
        Ok(())
    }

    /// Moves the row of a message to the index that holds it now and that took the place of one which is not `present` any
    /// more. `false` when there is no such row, or a window is at work on it.
    pub async fn rename(&self, document: &Identity, present: &HashSet<String>) -> Result<bool, LedgerError> {
        let rows = self.rows.partition(&document.id).await?;
        let is_left = |row: &&Row| row.source_index != NO_INDEX && !present.contains(&row.source_index);
        let Some(row) = rows.iter().filter(is_left).max_by_key(|row| row.processed_at) else { return Ok(false) };
        let Some(next) = renamed(row, &document.source_index) else { return Ok(false) };
        // The earlier row last: until then the message is known by it.
        Ok(self.rows.put(&next).await? && self.rows.delete(row).await?)
    }

    /// The rows of one shard of the sparse index.
    pub async fn staged_in(&self, shard: u8) -> Result<Vec<Row>, LedgerError> {
        self.rows.by_index(STAGING, STAGING, &staging_shard(shard), None).await
    }

    /// How many messages are held over, and the `most` oldest of them by their own instant.
    pub async fn oldest_open(&self, most: usize) -> Result<(u64, Vec<Row>), LedgerError> {
        let (mut backlog, mut oldest) = (0, Vec::new());
        let is_open = |row: &Row| row.disposition == Disposition::Open && row.first_seen_open.is_some();
        for shard in (0..STAGING_SHARDS).map(staging_shard) {
            let open = Disposition::Open.as_str();
            backlog += self.rows.count(STAGING, (STAGING, &shard), "disposition", open).await?;
            // Oldest first; unfinished rows of failed windows may stand between the open ones.
            let rows = self.rows.by_index(STAGING, STAGING, &shard, Some(10 * most as i32)).await?;
            oldest.extend(rows.into_iter().filter(is_open));
        }
        oldest.sort_by(|left, right| (left.timestamp, &left.message_id).cmp(&(right.timestamp, &right.message_id)));
        oldest.truncate(most);
        Ok((backlog, oldest))
    }
}

/// The ledger's key of a document.
pub fn row_key(entry: &Entry) -> (String, Option<String>) {
    (entry.id.clone(), Some(entry.index.clone()))
}

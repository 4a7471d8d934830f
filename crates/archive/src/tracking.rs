use alerts::message::{
    classification::Disposition,
    entry::Entry,
    tracking::{Claim, Decision, NO_INDEX, Row, STAGING_SHARDS, rekeyed, stage, staging_shard},
};
use alerts::source::Source;
use aws_config::SdkConfig;
use errors::{Name, Named};
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
    /// first: staged again, the rows that are done are only read.
    pub async fn stage_all(
        &self,
        entries: &[&Entry],
        claim: &Claim,
        now: Timestamp,
        is_ending: impl Fn() -> bool,
    ) -> Result<Option<Vec<Decision>>, StageError> {
        let mut decisions = Vec::with_capacity(entries.len());
        for part in entries.chunks(AT_ONCE) {
            if is_ending() {
                return Ok(None);
            }
            decisions.extend(self.stage_part(part, claim, now).await?);
        }
        Ok(Some(decisions))
    }

    async fn stage_part(&self, entries: &[&Entry], claim: &Claim, now: Timestamp) -> Result<Vec<Decision>, StageError> {
        let mut decisions: Vec<Option<Decision>> = vec![None; entries.len()];
        for _ in 0..ROUNDS {
            let undecided: Vec<usize> = (0..entries.len()).filter(|position| decisions[*position].is_none()).collect();
            if undecided.is_empty() {
                break;
            }
            let keys: Vec<_> = undecided.iter().map(|position| row_key(entries[*position])).collect();
            let rows = self.rows.get_many(&keys).await?;
            let without_index = self.without_index(undecided.iter().map(|position| entries[*position]), &rows).await?;
            let (mut changes, mut outgrown) = (Vec::new(), Vec::new());
            for (position, key) in undecided.iter().zip(&keys) {
                let (entry, row) = (entries[*position], rows.get(key));
                let earlier = without_index.get(&entry.id);
                let known = earlier.filter(|_| row.is_none()).map(|earlier| rekeyed(earlier, &entry.index));
                let staged = stage(known.as_ref().or(row), entry, claim, now);
                let is_contested = matches!(staged.decision, Decision::Contested { .. });
                decisions[*position] = Some(staged.decision);
                if !is_contested {
                    // As long as it says that the API was its source, its earlier row is looked for.
                    let made = |row: Row| if known.is_some() { Row { source: Source::Api, ..row } } else { row };
                    let known = || known.clone().map(|row| Row { revision: 1, ..row });
                    changes.extend(staged.row.or_else(known).map(made));
                    outgrown.extend(earlier.filter(|row| row.claim.is_none()).map(|earlier| (key.clone(), earlier)));
                }
            }
            let lost = self.rows.put_many(changes).await?;
            let lost: HashMap<_, Row> = lost.into_iter().map(|row| ((row.message_id.clone(), Some(row.source_index.clone())), row)).collect();
            for (position, key) in undecided.iter().zip(&keys) {
                if lost.contains_key(key) {
                    decisions[*position] = None;
                }
            }
            // Last: until then the message is known by its earlier row. One that is left behind goes the next time.
            for (_, earlier) in outgrown.into_iter().filter(|(key, _)| !lost.contains_key(key)) {
                self.rows.delete(earlier).await?;
            }
        }
        let rows = decisions.iter().filter(|decision| decision.is_none()).count();
        decisions.into_iter().collect::<Option<Vec<_>>>().ok_or_else(|| StageError::Contended { table: self.rows.name().to_owned(), rows })
    }

    /// By id, the rows of messages from the time when no index had them: of those that an index has now, and whose own row
    /// is missing or was made of such a one.
    async fn without_index<'a>(
        &self,
        entries: impl Iterator<Item = &'a Entry>,
        rows: &HashMap<(String, Option<String>), Row>,
    ) -> Result<HashMap<String, Row>, LedgerError> {
        let may_have = |entry: &&Entry| entry.index != NO_INDEX && rows.get(&row_key(entry)).is_none_or(|row| row.source == Source::Api);
        let keys: Vec<_> = entries.filter(may_have).map(|entry| (entry.id.clone(), Some(NO_INDEX.to_owned()))).collect();
        let found = self.rows.get_many(&keys).await?;
        Ok(found.into_values().map(|row| (row.message_id.clone(), row)).collect())
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
        Err(LedgerError::Contended { table: self.rows.name().to_owned(), key: format!("{} rows", left.len()), tries: ROUNDS }.into())
    }

    /// Hands over every row that is open or unfinished, a shard of the sparse index in memory at a time. The index is
    /// eventually consistent: a row that changed a moment ago may be missing or stale.
    pub async fn staged(&self, mut look: impl FnMut(Row)) -> Result<(), LedgerError> {
        for shard in 0..STAGING_SHARDS {
            self.rows.by_index(STAGING, STAGING, &staging_shard(shard), None).await?.into_iter().for_each(&mut look);
        }
        Ok(())
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

use alerts::message::{
    classification::Disposition,
    entry::Entry,
    tracking::{Claim, Decision, Move, NO_INDEX, Row, Staging, moved, renamed, stage, staging_shards},
};
use aws_config::SdkConfig;
use errors::{Name, Named};
use futures::{StreamExt, TryStreamExt, future::try_join_all, stream};
use identity::Identity;
use ledger::Superseded;
use std::collections::{BTreeSet, HashMap, HashSet};
use storage::{Change, LedgerError, Refused, Table, TableStore, WRITES_AT_ONCE};

/// The sparse index of rows that are open or unfinished, and its partition key.
const STAGING: &str = "staging";
/// How often rows are looked at again because another executor changed them meanwhile.
const ROUNDS: usize = 6;

/// Reads of all rows of an id under way at once.
const READS: usize = 16;
/// Rows that are read and written between two looks at the clock.
const AT_ONCE: usize = 250;

type Key = (String, Option<String>);

/// What is known of a row before it is changed.
enum Known {
    Nothing,
    /// How it probably stands; `None`: there is probably none.
    Guess(Option<Box<Row>>),
    Row(Option<Box<Row>>),
}

/// How often rows stood as they were expected to. A write that is refused costs as much as five reads with strong
/// consistency, so that as long as one guess in five is wrong at most, none of the rows is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Guesses {
    right: usize,
    wrong: usize,
}

impl Guesses {
    fn are_worth_it(self) -> bool {
        5 * self.wrong <= self.right + self.wrong
    }

    fn note(&mut self, right: usize, wrong: usize) {
        self.right += right;
        self.wrong += wrong;
    }

    /// How many entries are dealt with at once: few, as long as it is not known whether guesses are worth it.
    fn part_of<'e, 'a>(self, entries: &'e [&'a Entry]) -> &'e [&'a Entry] {
        let most = if self.right + self.wrong == 0 { WRITES_AT_ONCE } else { AT_ONCE };
        &entries[..most.min(entries.len())]
    }
}

/// What was decided about classified documents.
#[derive(Clone, Debug, PartialEq)]
pub struct StagedAll {
    /// One for each, in order; `None` when the time was over first.
    pub decisions: Option<Vec<Decision>>,
    /// Rows that were moved to the index that took the place of theirs.
    pub moved: u64,
}

/// What became of the row of a message that had none where it was read.
enum Moved {
    Row {
        row: Box<Row>,
        is_between_indices: bool,
    },
    /// A window is at work on it.
    Held(Claim),
}

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
    #[error(transparent)]
    Superseded(#[from] Superseded),
}

impl Named for StageError {
    fn name(&self) -> Name {
        match self {
            StageError::Ledger(error) => error.name(),
            StageError::Superseded(_) => Name::WindowSuperseded,
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

    /// Stages classified documents, as many as there is time for: staged again, the rows that are done are only read.
    pub async fn stage_all(
        &self,
        entries: &[&Entry],
        staging: &Staging,
        guesses: &mut Guesses,
        is_ending: impl Fn() -> bool,
    ) -> Result<StagedAll, StageError> {
        let (mut decisions, mut moved) = (Vec::with_capacity(entries.len()), 0);
        while decisions.len() < entries.len() {
            if is_ending() {
                return Ok(StagedAll { decisions: None, moved });
            }
            let part = guesses.part_of(&entries[decisions.len()..]);
            decisions.extend(self.stage_part(part, staging, guesses, &mut moved).await?);
        }
        Ok(StagedAll { decisions: Some(decisions), moved })
    }

    async fn stage_part(
        &self,
        entries: &[&Entry],
        staging: &Staging,
        guesses: &mut Guesses,
        moved: &mut u64,
    ) -> Result<Vec<Decision>, StageError> {
        let mut decisions: Vec<Option<Decision>> = vec![None; entries.len()];
        // A closed message is new as a rule. An open one is known as a rule, and has not changed.
        let is_new = |entry: &&Entry| entry.outcome.disposition != Disposition::Open;
        let mut known: Vec<Known> =
            entries.iter().map(|entry| if is_new(entry) { Known::Guess(None) } else { Known::Nothing }).collect();
        if staging.had_api || staging.present.is_some() {
            let keys: Vec<_> = entries.iter().map(|entry| row_key(entry)).collect();
            let mut rows = self.rows.get_many(&keys).await?;
            let mut holders = self.move_to_places(entries, staging, &mut rows, moved).await?;
            for (at, key) in keys.iter().enumerate() {
                known[at] = Known::Row(rows.remove(key).map(Box::new));
                decisions[at] = holders.remove(key).map(|claim| Decision::Contested { claim });
            }
        }
        let undecided: Vec<usize> = (0..entries.len()).filter(|at| decisions[*at].is_none()).collect();
        let decide = |at: usize, row: Option<&Row>| {
            let staged = stage(row, entries[at], staging)?;
            decisions[at] = Some(staged.decision);
            Ok::<_, StageError>(staged.row)
        };
        self.change_part(entries, undecided, known, guesses, decide).await?;
        let undecided = || LedgerError::Malformed {
            table: self.rows.name().to_owned(),
            key: staging.claim.window_id.clone(),
            message: "a document was left undecided".to_owned(),
        };
        Ok(decisions.into_iter().collect::<Option<Vec<_>>>().ok_or_else(undecided)?)
    }

    /// Moves rows that are called after no index, or after one that is gone, to where their messages were read now, and
    /// puts them among `rows`. Returns the holders of those that a window is at work on.
    async fn move_to_places(
        &self,
        entries: &[&Entry],
        staging: &Staging,
        rows: &mut HashMap<Key, Row>,
        between_indices: &mut u64,
    ) -> Result<HashMap<Key, Claim>, LedgerError> {
        let unknown: Vec<&Entry> =
            entries.iter().filter(|entry| !rows.contains_key(&row_key(entry))).copied().collect();
        let of_no_index = |entry: &Entry| (entry.id.clone(), Some(NO_INDEX.to_owned()));
        let may_be_of_none = |entry: &&&Entry| staging.had_api && entry.index != NO_INDEX;
        let keys: Vec<_> = unknown.iter().filter(may_be_of_none).map(|entry| of_no_index(entry)).collect();
        let earlier = self.rows.get_many(&keys).await?;
        // An index that is gone may have had any of them, and did not have most.
        let mut known: HashSet<&String> = HashSet::new();
        if staging.present.is_some() {
            let ids: BTreeSet<&String> = unknown.iter().map(|entry| &entry.id).collect();
            let reads = ids.into_iter().map(async |id| Ok::<_, LedgerError>((id, self.rows.partition(id).await?)));
            let mut reads = stream::iter(reads).buffered(READS);
            while let Some((id, rows)) = reads.try_next().await? {
                known.extend((!rows.is_empty()).then_some(id));
            }
        }
        let may_stand = |entry: &&Entry| known.contains(&entry.id) || earlier.contains_key(&of_no_index(entry));
        let mut waits = HashMap::new();
        // One after the other: of two documents of one id the first takes the row over.
        for entry in unknown.into_iter().filter(may_stand) {
            match self.move_to_place(entry, staging).await? {
                Some(Moved::Row { row, is_between_indices }) => {
                    *between_indices += u64::from(is_between_indices);
                    rows.insert(row_key(entry), *row);
                }
                Some(Moved::Held(holder)) => drop(waits.insert(row_key(entry), holder)),
                None => {}
            }
        }
        Ok(waits)
    }

    async fn move_to_place(&self, entry: &Entry, staging: &Staging) -> Result<Option<Moved>, LedgerError> {
        for _ in 0..ROUNDS {
            let stand = self.rows.partition(&entry.id).await?;
            match moved(&stand, entry, staging) {
                Move::Take { before, after } => {
                    if self.rows.rekey(&before, &after).await? {
                        let is_between_indices = ![&before, &after].iter().any(|row| row.source_index == NO_INDEX);
                        return Ok(Some(Moved::Row { row: after, is_between_indices }));
                    }
                }
                Move::Wait(holder) => return Ok(Some(Moved::Held(holder))),
                Move::Nothing => {
                    let own = stand.into_iter().find(|row| row.source_index == entry.index);
                    return Ok(own.map(|row| Moved::Row { row: Box::new(row), is_between_indices: false }));
                }
            }
        }
        Err(LedgerError::Contended { table: self.rows.name().to_owned(), key: entry.id.clone(), tries: ROUNDS })
    }

    /// Changes the row of each entry as `decide` says, by the entry's position, until no other executor interferes or
    /// the time is over. `guess` says how a row probably stands, so that it need not be read.
    pub async fn change_all<E: From<LedgerError>>(
        &self,
        entries: &[&Entry],
        guesses: &mut Guesses,
        guess: impl Fn(usize) -> Option<Row>,
        mut decide: impl FnMut(usize, Option<&Row>) -> Result<Option<Row>, E>,
        is_ending: impl Fn() -> bool,
    ) -> Result<Changed, E> {
        let (mut changed, mut first) = (Changed::default(), 0);
        while first < entries.len() {
            if is_ending() {
                return Ok(changed);
            }
            let part = guesses.part_of(&entries[first..]);
            let known = (first..first + part.len()).map(|at| match guess(at) {
                Some(row) => Known::Guess(Some(Box::new(row))),
                None => Known::Nothing,
            });
            let (all, known) = ((0..part.len()).collect(), known.collect());
            changed.rows += self.change_part(part, all, known, guesses, |at, row| decide(first + at, row)).await?;
            first += part.len();
        }
        changed.all = true;
        Ok(changed)
    }

    /// Changes the rows of the entries at the positions `left`; returns how many were written.
    async fn change_part<E: From<LedgerError>>(
        &self,
        entries: &[&Entry],
        mut left: Vec<usize>,
        mut known: Vec<Known>,
        guesses: &mut Guesses,
        mut decide: impl FnMut(usize, Option<&Row>) -> Result<Option<Row>, E>,
    ) -> Result<usize, E> {
        let keys: Vec<Key> = entries.iter().map(|entry| row_key(entry)).collect();
        let mut written = 0;
        for _ in 0..ROUNDS {
            if left.is_empty() {
                return Ok(written);
            }
            self.read_unknown(&keys, &left, &mut known, guesses).await?;
            let (mut changes, mut made, mut later) = (Vec::new(), HashMap::new(), Vec::new());
            for at in std::mem::take(&mut left) {
                if made.contains_key(&keys[at]) {
                    // Two documents of one key: the second looks at what became of the first.
                    known[at] = Known::Nothing;
                    later.push(at);
                    continue;
                }
                let (before, is_guess) = match &known[at] {
                    Known::Guess(row) => (row.as_deref(), true),
                    Known::Row(row) => (row.as_deref(), false),
                    Known::Nothing => (None, true),
                };
                match decide(at, before)? {
                    Some(after) => {
                        made.insert(keys[at].clone(), at);
                        changes.push(Change { before: before.cloned(), after });
                    }
                    None if is_guess => {
                        known[at] = Known::Nothing;
                        later.push(at);
                    }
                    None => {}
                }
            }
            let tried = made.values().filter(|at| matches!(known[**at], Known::Guess(_))).count();
            written += changes.len();
            let refused = self.rows.change_many(changes).await?;
            written -= refused.len();
            let mut wrong = 0;
            for Refused { key, stands } in refused {
                let Some(at) = made.get(&key).copied() else { continue };
                wrong += usize::from(matches!(known[at], Known::Guess(_)));
                known[at] = stands.map_or(Known::Nothing, |row| Known::Row(Some(Box::new(row))));
                later.push(at);
            }
            guesses.note(tried - wrong, wrong);
            left = later;
        }
        if left.is_empty() {
            return Ok(written);
        }
        Err(LedgerError::Contended {
            table: self.rows.name().to_owned(),
            key: format!("{} rows", left.len()),
            tries: ROUNDS,
        }
        .into())
    }

    /// Reads the rows of which nothing is known, and those on which a guess is not worth its price.
    async fn read_unknown(
        &self,
        keys: &[Key],
        left: &[usize],
        known: &mut [Known],
        guesses: &mut Guesses,
    ) -> Result<(), LedgerError> {
        let are_worth_it = guesses.are_worth_it();
        let is_read = |known: &Known| match known {
            Known::Nothing => true,
            Known::Guess(_) => !are_worth_it,
            Known::Row(_) => false,
        };
        let wanted: Vec<usize> = left.iter().copied().filter(|at| is_read(&known[*at])).collect();
        let wanted_keys: Vec<Key> = wanted.iter().map(|at| keys[*at].clone()).collect();
        if wanted_keys.is_empty() {
            return Ok(());
        }
        let rows = self.rows.get_many(&wanted_keys).await?;
        for at in wanted {
            let row = rows.get(&keys[at]).cloned().map(Box::new);
            if let Known::Guess(guess) = &known[at] {
                let is_right = *guess == row;
                guesses.note(usize::from(is_right), usize::from(!is_right));
            }
            known[at] = Known::Row(row);
        }
        Ok(())
    }

    /// Hands over every row that is open or unfinished, in no order, a page of each shard of the sparse index in memory.
    /// The index is eventually consistent: a row that changed a moment ago may be missing or stale.
    pub async fn staged(&self, look: impl FnMut(Row)) -> Result<(), LedgerError> {
        let shards: Vec<String> = staging_shards().collect();
        self.rows.for_each_by_index(STAGING, STAGING, &shards, look).await
    }

    /// Moves the row of a message to the index that holds it now and that took the place of one which is not `present`
    /// any more. `false` when there is no such row, or a window is at work on it.
    pub async fn rename(&self, document: &Identity, present: &HashSet<String>) -> Result<bool, LedgerError> {
        let rows = self.rows.partition(&document.id).await?;
        let is_left = |row: &&Row| row.source_index != NO_INDEX && !present.contains(&row.source_index);
        let Some(row) = rows.iter().filter(is_left).max_by_key(|row| row.processed_at) else { return Ok(false) };
        let Some(next) = renamed(row, &document.source_index) else { return Ok(false) };
        self.rows.rekey(row, &next).await
    }

    /// The rows of one of the [`staging_shards`].
    pub async fn staged_in(&self, shard: &str) -> Result<Vec<Row>, LedgerError> {
        self.rows.by_index(STAGING, STAGING, shard, None).await
    }

    /// How many messages are held over, and the `most` oldest of them by their own instant.
    pub async fn oldest_open(&self, most: usize) -> Result<(u64, Vec<Row>), LedgerError> {
        let is_open = |row: &Row| row.disposition == Disposition::Open && row.first_seen_open.is_some();
        let of_shard = async |shard: String| {
            let counted = self.rows.count(STAGING, (STAGING, &shard), "disposition", Disposition::Open.as_str());
            // Oldest first; unfinished rows of failed windows may stand between the open ones.
            let listed = self.rows.by_index(STAGING, STAGING, &shard, Some(10 * most as i32));
            futures::try_join!(counted, listed)
        };
        let shards: Vec<(u64, Vec<Row>)> = try_join_all(staging_shards().map(of_shard)).await?;
        let backlog = shards.iter().map(|(open, _)| open).sum();
        let mut oldest: Vec<Row> = shards.into_iter().flat_map(|(_, rows)| rows).filter(is_open).collect();
        oldest.sort_by(|left, right| (left.timestamp, &left.message_id).cmp(&(right.timestamp, &right.message_id)));
        oldest.truncate(most);
        Ok((backlog, oldest))
    }
}

/// The ledger's key of a document.
pub fn row_key(entry: &Entry) -> Key {
    (entry.id.clone(), Some(entry.index.clone()))
}

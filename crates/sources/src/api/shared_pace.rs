use super::{Granted, Pace, reserve};
use alerts::run::turns::{TURNS, Turns};
use async_trait::async_trait;
use aws_config::SdkConfig;
use jiff::Timestamp;
use storage::{LedgerError, Table};

/// How often a reservation is tried again after many others were quicker: they all want the same row.
const ROUNDS: usize = 5;

/// The API's limit of requests a second, held in one row of `job-runs` from which all functions take their turns.
pub struct SharedPace {
    turns: Table<Turns>,
    per_second: u32,
}

impl SharedPace {
    pub fn boxed(config: &SdkConfig, job_runs: String, per_second: u32) -> Box<dyn Pace> {
        Box::new(SharedPace::over(Table::new(config, job_runs), per_second))
    }

    fn over(turns: Table<Turns>, per_second: u32) -> Self {
        SharedPace { turns, per_second }
    }

    /// Changes when the next turn is free.
    async fn change(&self, mut free: impl FnMut(Option<i64>) -> i64) -> Result<(), String> {
        let mut failed = String::new();
        for _ in 0..ROUNDS {
            let update = self.turns.update(TURNS, None, |row| {
                let free_at_micros = free(row.map(|row| row.free_at_micros));
                Ok::<_, LedgerError>(Some(Turns { run_id: TURNS.to_owned(), free_at_micros, revision: 0 }))
            });
            match update.await {
                Ok(_) => return Ok(()),
                Err(error @ LedgerError::Contended { .. }) => failed = errors::describe(&error),
                Err(error) => return Err(errors::describe(&error)),
            }
        }
        Err(failed)
    }
}

#[async_trait]
impl Pace for SharedPace {
    async fn reserve(&self, wanted: usize, now: Timestamp) -> Result<Granted, String> {
        let mut granted = None;
        let changed = self.change(|free| {
            let (turns, next) = reserve(free, now, self.per_second, wanted);
            granted = Some(turns);
            next
        });
        changed.await?;
        granted.ok_or_else(|| "nothing was reserved".to_owned())
    }

    async fn pause(&self, until: Timestamp) -> Result<(), String> {
        self.change(|free| free.unwrap_or(i64::MIN).max(until.as_microsecond())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use network::Calm;
    use storage::MemoryTables;
    use tokio::task::JoinSet;

    fn now() -> Timestamp {
        "2026-11-16T06:00:00Z".parse().expect("an instant")
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn functions_that_reserve_at_once_never_get_the_same_turn() {
        let tables = MemoryTables::new(Calm::shared()).table("job-runs", "run_id", None);
        let mut functions = JoinSet::new();
        for wanted in 1..=6 {
            let pace = SharedPace::over(Table::over(tables.clone(), "job-runs"), 50);
            functions.spawn(async move {
                let mut turns = Vec::new();
                for _ in 0..4 {
                    let Granted { first_micros, step_micros, count } =
                        pace.reserve(wanted, now()).await.expect("turns");
                    assert!(count >= 1 && count as usize <= wanted);
                    turns.extend((0..i64::from(count)).map(|turn| first_micros + turn * step_micros));
                }
                turns
            });
        }
        let mut all = Vec::new();
        while let Some(turns) = functions.join_next().await {
            all.extend(turns.expect("a function"));
        }
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| pair[1] - pair[0] >= 20_000), "{all:?}");
    }

    #[tokio::test]
    async fn when_one_is_asked_to_wait_no_function_gets_an_earlier_turn() {
        let tables = MemoryTables::new(Calm::shared()).table("job-runs", "run_id", None);
        let pace = |per_second| SharedPace::over(Table::over(tables.clone(), "job-runs"), per_second);
        let until = now() + jiff::SignedDuration::from_secs(30);
        pace(10).pause(until).await.expect("noted");
        assert_eq!(pace(10).reserve(1, now()).await.expect("a turn").first_micros, until.as_microsecond());
        // A shorter wait takes nothing back.
        pace(10).pause(now()).await.expect("noted");
        assert!(pace(10).reserve(1, now()).await.expect("a turn").first_micros > until.as_microsecond());
    }
}

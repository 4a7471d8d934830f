//! One run: the payloads between its steps, its row, the lock, the watermark and the turns of requests, what is
//! unresolved, its report, and the overview of all runs.

pub mod api_use;
pub mod grid;
pub mod indices;
pub mod job_run;
pub mod lock;
pub mod looked_at;
pub mod overview;
pub mod payloads;
pub mod report;
pub mod span;
pub mod swept;
pub mod turns;
pub mod unresolved;

// With the `run_id`s that are a row's of this type: no execution's name may hold a `#`.
macro_rules! keyed_by_run {
    ($($row:ty: $holds:expr),*) => {$(
        impl ledger::Keyed for $row {
            const PARTITION: &'static str = "run_id";
            const SORT: Option<&'static str> = None;

            fn key(&self) -> (String, Option<String>) {
                (self.run_id.clone(), None)
            }

            fn revision(&self) -> u64 {
                self.revision
            }

            fn revised(mut self, revision: u64) -> Self {
                self.revision = revision;
                self
            }

            fn holds(run_id: &str) -> bool {
                $holds(run_id)
            }
        }
    )*};
}
use keyed_by_run;

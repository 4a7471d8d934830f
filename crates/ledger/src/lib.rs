//! Claims, intents and once: how several executors share one piece of work, so that it is done and done once, although
//! any of them can be killed at any moment, be thought dead and wake up, or run beside a second one. Archive, feeds,
//! logs, warehouse and mail share this module. Pure: it decides how a row may change; `storage` writes the row on
//! condition that its revision is the one that was read (`Table::update`), so that of two decisions one is refused.
//!
//! # The protocol
//!
//! 1. **Claim** ([`Work::claim`]). A new attempt gets the next number, the *fence*. The lease only avoids contention.
//!    Safety comes from fencing: a superseded attempt cannot register an intent, complete, renew or fail.
//! 2. **Prepare** ([`Work::prepare`]). Before its first byte the attempt registers its *intent*: the keys that it will
//!    write and what goes into each, fixed, never derived from the clock. This conditional write is the decisive
//!    moment. Before it, nothing has been written and another executor may begin anew. After it, every executor that
//!    claims the work gets the same intent back ([`ClaimOutcome::Resume`]) and carries it out.
//! 3. **Write.** Create each object of the intent with `If-None-Match` and verify it. An intent may be carried out by
//!    two executors at once: keys and contents are the same, so it does not matter which of them creates an object.
//! 4. **Complete** ([`Work::complete`]). Only after everything in the intent was verified.
//!
//! # How to use it
//!
//! Flatten [`Work`] into the row of your table, beside its key and its `revision`, and implement [`Keyed`] for the row:
//!
//! ```
//! use ledger::{ClaimOutcome, Superseded, Work};
//! use jiff::{SignedDuration, Timestamp};
//! use serde::{Deserialize, Serialize};
//!
//! /// What one object of the source becomes.
//! #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
//! struct Intent {
//!     outputs: Vec<String>,
//! }
//!
//! #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
//! struct FeedObject {
//!     object: String,
//!     #[serde(flatten)]
//!     work: Work<Intent>,
//!     revision: u64,
//! }
//!
//! # fn main() -> Result<(), Superseded> {
//! let lease = SignedDuration::from_secs(30);
//! let now = Timestamp::UNIX_EPOCH;
//! // In `table.update(key, |row| ...)`: decide on the row as it was read, and write what comes back.
//! let ClaimOutcome::Begin(work) = Work::<Intent>::claim(None, now, lease) else { panic!("there was no row") };
//! let attempt = work.attempt();
//! // Read the input, choose the keys, and register them before the first byte is written.
//! let work = work.prepare(attempt, Intent { outputs: vec!["a/1.jsonl".into()] }, now)?;
//! // A second executor waits while the lease lasts, then carries out the same intent.
//! assert!(matches!(Work::claim(Some(&work), now, lease), ClaimOutcome::Busy { .. }));
//! let later = now + lease;
//! let outcome = Work::claim(Some(&work), later, lease);
//! let ClaimOutcome::Resume { work: taken, intent } = outcome else { panic!("prepared") };
//! assert_eq!(intent.outputs, ["a/1.jsonl"]);
//! // The first executor wakes up and is refused; the second one completes.
//! assert!(work.clone().prepare(attempt, intent, later).is_ok(), "against the row it read");
//! assert!(taken.complete(attempt, later).is_err(), "but not against the row that stands");
//! let done = taken.complete(taken.attempt(), later)?;
//! assert!(matches!(Work::claim(Some(&done), later, lease), ClaimOutcome::Done(_)));
//! # Ok(())
//! # }
//! ```
//!
//! What cannot be planned as work with an intent, because the other side knows no keys (a mail), is sent [`Once`].

mod fence;
mod keyed;
mod once;
mod work;

pub use fence::{Fence, Superseded};
pub use keyed::Keyed;
pub use once::{Once, Sending};
pub use work::{ClaimOutcome, Failure, Work, WorkState};

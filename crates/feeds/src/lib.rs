//! Partner feeds: many small files of JSON lines become few large ones. This is the pure part; it does no I/O and
//! reads no clock.
//!
//! - [`key`]: what a key says: content type, partner, date.
//! - [`record`]: which lines are records; the others are quarantined.
//! - [`partners`]: which come first, and which are blocked.
//! - [`pack`]: how records are put into output objects.
//! - [`protocol`]: why each record comes out once, whichever process is killed.
//! - [`status`]: what it all came to.

pub mod key;
pub mod pack;
pub mod partners;
pub mod protocol;
pub mod record;
pub mod status;

pub use key::{DateSource, FeedKey, KeyError};
pub use pack::{Format, OUTPUT_BYTES, Pack, Rank};
pub use partners::{Rules, Treatment};
pub use protocol::{Batch, BatchCounts, BatchIntent, FeedFile, FilePart, FileState, Numbers, Plan};
pub use status::{FeedsStatus, Totals};

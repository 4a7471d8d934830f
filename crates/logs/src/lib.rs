//! Errors in logs: from the bytes of a gz object to entries with time, level, type, trace, category and fingerprint.
//!
//! Lines (`lines`) are taken out of what collectors put around them (`envelope`), read as the first line of an entry or
//! as a part of one (`record`, [`Settings`], `trace`), and put together (`assemble`). Pure: no clock, no network and no
//! store may enter.

mod assemble;
mod entry;
mod envelope;
mod extract;
pub mod fingerprint;
mod level;
mod mask;
mod record;
mod report;
mod settings;
mod time;
mod trace;

pub use assemble::time_of_line;
pub use entry::{Entry, OTHER, date_of, service_of};
pub use extract::{Extraction, LIMITS, ObjectStats};
pub use level::Level;
pub use mask::excerpt;
pub use report::{DamagedFile, FileShare, Finding, LogReport, Share};
pub use settings::{Mask, Settings, SettingsError};

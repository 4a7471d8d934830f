//! What people read about a run: the mail and the dashboard. Both are made here from a run report, so
//! that they say the same. Nothing in here sends, stores or reads a clock; "now" is an argument.

pub mod dashboard;
pub mod log_errors;
pub mod mail;
mod words;

pub use words::{bytes, failures, sentence};

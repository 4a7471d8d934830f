//! The pure core of the archive: what a window is, how a message is classified, where it is kept, and how its row may
//! change. No I/O, no clock ("now" is an argument), no AWS, and no document's bytes beyond the one that is looked at.
//!
//! `message` knows nothing of windows, `window` nothing of commits, `commit` nothing of runs.

pub mod commit;
pub mod counts;
#[cfg(test)]
mod fuzz;
pub mod keys;
pub mod message;
pub mod mode;
pub mod run;
pub mod source;
pub mod window;

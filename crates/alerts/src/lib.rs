//! The pure core: what a window is, how a message is classified, where it is kept, and how its
//! ledger row may change. Nothing in here does I/O, reads a clock or knows AWS; "now" is an argument.

pub use identity::instant;

pub mod classification;
pub mod document;
#[cfg(test)]
mod fuzz;
pub mod intent;
pub mod ledger;
pub mod partitions;
pub mod report;
pub mod runs;
pub mod spool;
pub mod steps;
pub mod unresolved;
pub mod window_state;
pub mod windows;

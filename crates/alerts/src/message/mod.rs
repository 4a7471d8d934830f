//! One message: what it says, what it counts as, and how its row in `message-tracking` may change.

pub mod classification;
pub mod document;
pub mod entry;
pub mod tracking;

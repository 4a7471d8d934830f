//! One window: how windows are planned, how a window's row may change, and what lies in its spool.

pub mod plan;
pub mod record;
pub mod spool;

//! The warehouse in one process: both functions over stores in memory, and what a reader of the tables then finds.

pub mod columns;
pub mod faults;
pub mod odd;
pub mod postgres;
pub mod reader;
pub mod server;
pub mod world;

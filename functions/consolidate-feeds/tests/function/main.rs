//! The function with its stores in memory.

mod consolidate;
mod exactly_once;
mod world;

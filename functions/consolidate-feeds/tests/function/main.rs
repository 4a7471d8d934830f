//! The function with its stores in memory.

mod catalogue;
mod consolidate;
mod exactly_once;
mod random_kills;
mod world;

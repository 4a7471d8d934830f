//! The warehouse's rules: from the lines of a source table to the rows of dimensions and facts.
//!
//! Pure: no I/O and no clock. Everything that PostgreSQL, S3 or Parquet must be asked stays in the functions.
//! The tables are a function of two things, the schema file and the lines in their order, so a rebuild gives the same.

pub mod calendar;
pub mod dimension;
pub mod fact;
pub mod line;
mod misfit;
pub mod object;
pub mod schema;
pub mod status;
pub mod surrogate;
pub mod table;
pub mod time;
pub mod value;

#[cfg(test)]
mod model;

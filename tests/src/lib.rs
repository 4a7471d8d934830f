//! The harness of the pipeline tests: a deployed archive, documents whose fate is known beforehand, runs
//! through the real command line, faults between a function and its services, and one check of everything
//! that a run leaves behind. Tests ask the services themselves and DuckDB; no code of the product reads for them.

pub mod archive;
pub mod check;
pub mod cloud;
pub mod documents;
pub mod faults;
pub mod functions;
pub mod http;
pub mod ledger;
pub mod mail;
pub mod proxy;
pub mod runs;

pub use check::{Account, Snapshot, account, check, check_archive};
pub use cloud::{Cloud, Stretch};
pub use documents::Message;
pub use runs::{Outcome, PATIENCE};

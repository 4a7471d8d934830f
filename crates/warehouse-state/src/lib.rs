//! What ingest and build keep between calls, and the status made of it. Rows of the table `warehouse` decide; documents
//! too large for a row lie in the warehouse bucket; Parameter Store holds each table's figures for others to read.
//! No reading of PostgreSQL and no making of tables enters here.

mod layout;
mod parameters;
mod rows;
mod state;
mod status;

pub use self::parameters::{BuildParameter, IngestParameter};
pub use layout::{
    LINES, PAGE_KEY, QUARANTINE, REQUESTS, SCHEMA_KEY, build_parameter, build_state_key, ingest_parameter, known_key,
    manifest_key, members_key, request_key, segment_key,
};
pub use rows::{BuildRow, ClaimError, FailureNote, IngestRow, Planned, SourceColumn, Warehouse};
pub use state::{
    BuildState, BuiltObject, Segment, SourceState, StoredLines, Superseded, TablePart, TableState, UnreadObject,
};
pub use status::{Pending, Standing, StandingError};

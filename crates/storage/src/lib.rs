//! The two stores: objects in S3 and versioned rows in DynamoDB, each change on condition that no other executor was
//! quicker. No row of a pipeline and none of its rules may enter: what a change means is decided by the caller.

mod objects;
mod tables;

pub use objects::{
    Algorithm, Checksum, Complete, Condition, Content, Get, Head, ListPage, Listed, MemoryObjects, ObjectPart,
    ObjectReader, ObjectStore, Objects, Part, PartDone, Put, PutEnd, PutOnce, StoreError, Upload, sha256_hex,
};
pub use tables::{
    Batch, Change, Item, LedgerError, MemoryTables, Page, Query, Refused, RowCondition, Scanned, Table, TableStore,
    WRITES_AT_ONCE, Write, WriteOutcome,
};

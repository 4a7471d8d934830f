use serde::{Serialize, de::DeserializeOwned};

/// A row of a table: its key, and the revision that each change is conditional on.
pub trait Keyed: Serialize + DeserializeOwned + Clone {
    /// Attribute of the partition key.
    const PARTITION: &'static str;
    /// Attribute of the sort key, where the table has one.
    const SORT: Option<&'static str>;
    /// Attribute that names who is at work on the row, where the rows have one. A change is conditional on it too, so
    /// that a row that was deleted and made anew is never taken for the one that was read.
    const OWNER: Option<&'static str> = None;
    /// Values of the partition key and the sort key.
    fn key(&self) -> (String, Option<String>);
    /// 1 when the row is first written, and one more for each change; an attribute of that name must be serialized.
    fn revision(&self) -> u64;
    fn revised(self, revision: u64) -> Self;
    /// Whether a partition holds rows of this type, in a table that has several.
    fn holds(_partition: &str) -> bool {
        true
    }
}

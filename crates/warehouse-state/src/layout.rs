//! Where things lie. Names that begin with an underscore are no tables: a table's name in the warehouse begins with
//! `dim_` or `fact_`.

/// The schema file in force, in the warehouse bucket.
pub const SCHEMA_KEY: &str = "_schema/warehouse.yaml";
/// Requests to build tables anew, in the warehouse bucket.
pub const REQUESTS: &str = "_requests/";
/// Lines that no table took, in the warehouse bucket.
pub const QUARANTINE: &str = "_quarantine/";

/// What the page and the weekly mail show, in the archive's bucket.
pub const PAGE_KEY: &str = "dashboard/data/warehouse.json";

/// Where a table's objects are named for readers that know a table by one place, such as Athena: a list of URIs.
pub fn manifest_key(table: &str) -> String {
    format!("_tables/{table}/manifest")
}

pub fn request_key(id: &str) -> String {
    format!("{REQUESTS}{id}.json")
}

/// What a build knew when it ended.
pub fn build_state_key(attempt: u64) -> String {
    format!("_state/build/{attempt:010}.json.zst")
}

/// The keys that a table's ingests have written, each with the digest of its newest line.
pub fn known_key(table: &str, attempt: u64) -> String {
    format!("_state/known/{table}/{attempt:010}.zst")
}

/// The members of a dimension in binary form, so that facts find them without reading its source again.
pub fn members_key(table: &str, attempt: u64) -> String {
    format!("_state/members/{table}/{attempt:010}.bin")
}

/// The lines of all sources in binary form, in the warehouse bucket.
pub const LINES: &str = "_state/lines/";

/// Begins the keys of a segment of a table's lines.
pub fn segment_key(table: &str, attempt: u64, segment: usize) -> String {
    format!("{LINES}{table}/{attempt:010}-{segment:05}.")
}

/// The parameter with what a table's ingests have reached.
pub fn ingest_parameter(prefix: &str, table: &str) -> String {
    format!("{}/ingest", parameter_name(prefix, table))
}

/// The parameter with what a table's last build has read.
pub fn build_parameter(prefix: &str, table: &str) -> String {
    format!("{}/build", parameter_name(prefix, table))
}

/// Parameter Store allows letters, digits, and `.-_/` in names; what else a table's name has becomes its hex digits.
fn parameter_name(prefix: &str, table: &str) -> String {
    let mut name = format!("{prefix}/");
    for byte in table.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("-{byte:02x}"));
        }
    }
    name
}

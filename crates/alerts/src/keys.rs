//! Names of objects in S3. A key is a function of what it holds, never of the clock.

use identity::safe_component;

/// What each of the folders holds has keys that begin so.
pub const PARQUET: &str = "archive/parquet/";
pub const JSONL: &str = "archive/jsonl/";
pub const SUPERSEDED: &str = "archive/superseded/";
pub const COMMITS: &str = "archive/_commits/";
pub const QUARANTINE: &str = "quarantine/";

/// Everything that one window of one run keeps under the spool.
pub fn spool_prefix(run_id: &str, window_id: &str, attempt: u64) -> String {
    format!("spool/{run_id}/{window_id}/{attempt}")
}

pub fn run_prefix(run_id: &str) -> String {
    format!("runs/{run_id}")
}

/// The plan of a run: the list of its windows.
pub fn plan_key(run_id: &str) -> String {
    format!("{}/windows.jsonl", run_prefix(run_id))
}

/// What became of each window of a run.
pub fn grid_key(run_id: &str) -> String {
    format!("{}/grid.json", run_prefix(run_id))
}

/// What the plan of a run found out about messages outside its range.
pub fn looked_at_key(run_id: &str) -> String {
    format!("{}/looked-at.json", run_prefix(run_id))
}

/// What the archive holds, as it was counted so far. No run is called so: names of executions have no `#`.
pub fn totals_key() -> String {
    "runs/#totals.json".to_owned()
}

/// The date of a partition, from the key of an object in it.
pub fn date_of(key: &str) -> Option<&str> {
    key.split('/').find_map(|part| part.strip_prefix("date="))
}

/// After whom objects of a window are called where the keys of its run may be taken, by an intent that was ended: after
/// their attempt, too, behind a sign that no name of an execution has.
pub fn attempt_of(run_id: &str, attempt: u64) -> String {
    format!("{run_id}~{attempt}")
}

/// The run whose window calls its objects after `writer`.
pub fn run_of(writer: &str) -> &str {
    writer.split('~').next().unwrap_or(writer)
}

pub fn parquet_key(date: &str, window_id: &str, run_id: &str, part: usize) -> String {
    format!("{PARQUET}date={date}/{window_id}.{run_id}.{part:04}.parquet")
}

pub fn jsonl_key(date: &str, window_id: &str, run_id: &str, part: usize) -> String {
    format!("{JSONL}date={date}/{window_id}.{run_id}.{part:04}.jsonl.zst")
}

pub fn quarantine_key(date: &str, window_id: &str, run_id: &str, part: usize) -> String {
    format!("{QUARANTINE}date={date}/{window_id}.{run_id}.{part:04}.jsonl.zst")
}

pub fn message_key(date: &str, source_index: &str, id: &str) -> String {
    format!("archive/messages/date={date}/{}/{}.json", safe_component(source_index), safe_component(id))
}

/// The rows that were taken out of an object, one object for each window that took some.
pub fn superseded_prefix(parquet_key: &str) -> String {
    let name = parquet_key.strip_prefix(PARQUET).unwrap_or(parquet_key);
    format!("{SUPERSEDED}{}/", name.trim_end_matches(".parquet"))
}

pub fn superseded_key(parquet_key: &str, window_id: &str, run_id: &str) -> String {
    format!("{}by-{window_id}.{run_id}.parquet", superseded_prefix(parquet_key))
}

/// What a run had read of a message that left the source before it was written.
pub fn gone_key(date: &str, source_index: &str, id: &str) -> String {
    format!("{SUPERSEDED}gone/date={date}/{}/{}.json", safe_component(source_index), safe_component(id))
}

/// Which rows of the archive are no longer final, because their messages are open again.
pub const REOPENED: &str = "archive/reopened/reopened.parquet";

pub fn manifest_key(window_id: &str, run_id: &str, attempt: u64) -> String {
    format!("{COMMITS}{window_id}/{run_id}-{attempt}.json")
}

pub fn records_key(prefix: &str, pair: u32) -> String {
    format!("{prefix}/records-{pair:05}.zst")
}

pub fn index_key(prefix: &str, pair: u32) -> String {
    format!("{prefix}/index-{pair:05}.jsonl.zst")
}

pub fn decisions_key(prefix: &str, pair: u32) -> String {
    format!("{prefix}/decisions-{pair:05}.jsonl.zst")
}

/// One [`id_hash`](crate::window::spool::id_hash) a message, as little-endian bytes: with them a run finds the ids that
/// stand in more than one index.
pub fn ids_key(prefix: &str) -> String {
    format!("{prefix}/ids.bin")
}

pub fn checkpoint_key(prefix: &str) -> String {
    format!("{prefix}/checkpoint.json")
}

/// An intent that was amended has a key of its own, so that the window's row says which one counts. Intents do not
/// expire: one whose spool is gone still says which objects it may have written.
pub fn intent_key(window_id: &str, run_id: &str, attempt: u64, amended: u32) -> String {
    intent_key_in_spool(&format!("intents/{window_id}/{run_id}/{attempt}"), amended)
}

/// Where the first intents stood.
pub fn intent_key_in_spool(prefix: &str, amended: u32) -> String {
    match amended {
        0 => format!("{prefix}/intent.json.zst"),
        amended => format!("{prefix}/intent-amended-{amended}.json.zst"),
    }
}

/// The points in time that an attempt on the window has opened, as a list: a killed one leaves them for the next to
/// close.
pub fn points_key(run_id: &str, window_id: &str) -> String {
    format!("spool/{run_id}/{window_id}/points.json")
}

/// How long the source asked to be left alone, where that was too long for a call.
pub fn wait_key(run_id: &str, window_id: &str) -> String {
    format!("spool/{run_id}/{window_id}/wait.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ids_that_look_alike_get_different_keys_on_any_file_system(
            id in "[a-zA-Z0-9/._~:é\\\\ -]{1,130}",
            other in prop_oneof![Just(None), "[a-zA-Z/._~: -]".prop_map(Some)],
            place in any::<proptest::sample::Index>(),
        ) {
            let mut like: Vec<char> = id.chars().collect();
            let place = place.index(like.len());
            // One character becomes another one, or changes its case.
            let flipped = |c: char| if c.is_uppercase() { c.to_ascii_lowercase() } else { c.to_ascii_uppercase() };
            like[place] = other.map_or(flipped(like[place]), |other| other.chars().next().expect("one"));
            let like: String = like.into_iter().collect();
            let key = |index: &str, id: &str| message_key("2024-07-01", index, id).to_lowercase();
            prop_assert_eq!(id == like, key("m", &id) == key("m", &like));
            prop_assert_eq!(id == like, key(&id, "m") == key(&like, "m"));
            prop_assert_eq!(id == "m", key("m", &id) == key(&id, "m"));
            prop_assert_eq!(key(&id, &like).split('/').count(), 5);
            prop_assert!(key(&id, &like).split('/').all(|part| part.len() <= 205 && !part.contains(':') && part != ".."));
        }
    }
}

//! Names of objects in S3. A key is a function of what it holds, never of the clock.

use sha2::{Digest, Sha256};

/// A key component of at most 200 bytes for any id: the id itself when it is short, plain and lower-case,
/// else a readable beginning and a hash, so that ids which differ by case, slashes or dots never meet.
pub fn safe_component(id: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if !id.is_empty() && id.len() <= 120 && id.chars().all(plain) {
        return id.to_owned();
    }
    let readable: String = id.chars().take(80).map(|c| c.to_ascii_lowercase()).map(|c| if plain(c) { c } else { '_' }).collect();
    let hash = hex::encode(&Sha256::digest(id.as_bytes())[..16]);
    format!("{readable}~{hash}")
}

/// Everything that one window of one run keeps under the spool.
pub fn spool_prefix(run_id: &str, window_id: &str, attempt: u64) -> String {
    format!("spool/{run_id}/{window_id}/{attempt}")
}

pub fn run_prefix(run_id: &str) -> String {
    format!("runs/{run_id}")
}

pub fn parquet_key(date: &str, window_id: &str, run_id: &str, part: usize) -> String {
    format!("archive/parquet/date={date}/{window_id}.{run_id}.{part:04}.parquet")
}

pub fn jsonl_key(date: &str, window_id: &str, run_id: &str, part: usize) -> String {
    format!("archive/jsonl/date={date}/{window_id}.{run_id}.{part:04}.jsonl.zst")
}

pub fn quarantine_key(date: &str, window_id: &str, run_id: &str, part: usize) -> String {
    format!("quarantine/date={date}/{window_id}.{run_id}.{part:04}.jsonl.zst")
}

pub fn message_key(date: &str, source_index: &str, id: &str) -> String {
    format!("archive/messages/date={date}/{}/{}.json", safe_component(source_index), safe_component(id))
}

pub fn superseded_key(parquet_key: &str, window_id: &str, run_id: &str) -> String {
    let name = parquet_key.strip_prefix("archive/parquet/").unwrap_or(parquet_key);
    format!("archive/superseded/{}/by-{window_id}.{run_id}.parquet", name.trim_end_matches(".parquet"))
}

pub fn manifest_key(window_id: &str, run_id: &str, attempt: u64) -> String {
    format!("archive/_commits/{window_id}/{run_id}-{attempt}.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_that_differ_only_by_case_slash_dot_or_length_get_different_keys() {
        let long = "x".repeat(512);
        let longer = "x".repeat(511) + "y";
        let ids = ["abc", "ABC", "Abc", "a/b", "a.b", "a_b", "a:b", "..", ".", "", "é", "~", &long, &longer];
        let mut keys: Vec<_> = ids.iter().map(|id| safe_component(id).to_lowercase()).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), ids.len());
        assert_eq!(safe_component("msg-2024_01"), "msg-2024_01");
    }

    proptest! {
        #[test]
        fn components_are_short_plain_and_unique(a in ".{0,600}", b in ".{0,600}") {
            let (left, right) = (safe_component(&a), safe_component(&b));
            prop_assert!(left.len() <= 200 && !left.is_empty());
            prop_assert!(left.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_~".contains(c)));
            prop_assert_eq!(a == b, left == right);
        }

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

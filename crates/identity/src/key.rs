use sha2::{Digest, Sha256};

/// A key component of at most 200 bytes for any id: the id itself when it is short, plain and lower-case,
/// else a readable beginning and a hash, so that ids which differ by case, slashes or dots never meet.
pub fn safe_component(id: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if !id.is_empty() && id.len() <= 120 && id.chars().all(plain) {
        return id.to_owned();
    }
    let readable: String =
        id.chars().take(80).map(|c| c.to_ascii_lowercase()).map(|c| if plain(c) { c } else { '_' }).collect();
    let hash = hex::encode(&Sha256::digest(id.as_bytes())[..16]);
    format!("{readable}~{hash}")
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
    }
}

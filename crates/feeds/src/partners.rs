//! Which partners come first and which are blocked: rows that operators keep, one a content type.

use crate::pack::Rank;
use ledger::Keyed;
use serde::{Deserialize, Serialize};

/// A row of the partners' table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    pub content_type: String,
    #[serde(default)]
    pub priority_partners: Vec<String>,
    #[serde(default)]
    pub blocked_partners: Vec<String>,
}

impl Keyed for Rules {
    const PARTITION: &'static str = "content_type";
    const SORT: Option<&'static str> = None;
    fn key(&self) -> (String, Option<String>) {
        (self.content_type.clone(), None)
    }
    /// Operators write these rows; the product only reads them.
    fn revision(&self) -> u64 {
        0
    }
    fn revised(self, _: u64) -> Self {
        self
    }
}

/// What becomes of a partner's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    Consolidate(Rank),
    Blocked,
}

impl Rules {
    /// A partner in both lists is blocked.
    pub fn treatment(&self, partner: &str) -> Treatment {
        let is_in = |list: &[String]| list.iter().any(|listed| listed == partner);
        if is_in(&self.blocked_partners) {
            Treatment::Blocked
        } else if is_in(&self.priority_partners) {
            Treatment::Consolidate(Rank::Priority)
        } else {
            Treatment::Consolidate(Rank::Other)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partner_is_known_by_its_whole_name_and_blocked_before_it_is_first() {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let (priority_partners, blocked_partners) = (owned(&["acme", "both", "a b+c%"]), owned(&["bad", "both"]));
        let rules = Rules { content_type: "offers".into(), priority_partners, blocked_partners };
        let (first, other) = (Treatment::Consolidate(Rank::Priority), Treatment::Consolidate(Rank::Other));
        for (partner, expected) in [
            ("acme", first),
            ("a b+c%", first),
            ("both", Treatment::Blocked),
            ("bad", Treatment::Blocked),
            ("ACME", other),
            ("acme2", other),
            ("acm", other),
            ("Bad", other),
            ("bad ", other),
            ("bad2", other),
        ] {
            assert_eq!(rules.treatment(partner), expected, "{partner}");
        }
    }
}

//! Names of objects below `log-errors/`.

use identity::safe_component;
use jiff::civil::Date;

/// One row an error entry.
pub const ENTRIES: &str = "log-errors/parquet/";
const STAGING: &str = "log-errors/staging/";
const CONTRIBUTIONS: &str = "log-errors/objects/";
/// The pattern file of the deployment.
pub const SETTINGS: &str = "log-errors/settings/patterns.toml";

/// A short name for a log object that is safe in keys.
pub fn object_id(object: &str) -> String {
    // Readable, and distinct for keys that differ in anything.
    safe_component(object)
}

/// How the names of a log object's parts begin. Hive, Spark and Athena take what begins with `_` or `.` for hidden, and
/// so would the names of many services: `_billing`, `.net`, `Übersicht`.
pub fn part_name(object: &str) -> String {
    let name = object_id(object);
    if name.starts_with('_') { format!("~{name}") } else { name }
}

/// A part of an object's entries: `date=2024-07-01/<object>~<sequencer>~<number>.parquet`, `~undated~` for entries that
/// have no time, so that readers find them whatever their partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartKey {
    pub date: Date,
    /// As [`part_name`] has it.
    pub object: String,
    pub sequencer: String,
    pub is_dated: bool,
    pub number: usize,
}

impl PartKey {
    pub fn key(&self) -> String {
        let PartKey { date, object, sequencer, number, .. } = self;
        let kind = if self.is_dated { "dated" } else { "undated" };
        format!("{ENTRIES}date={date}/{object}~{sequencer}~{kind}~{number}.parquet")
    }

    /// The same for all parts of one log object, also for those of earlier versions of this project, which were hidden.
    pub fn object_name(&self) -> &str {
        self.object.trim_start_matches('~')
    }

    /// `None` for a key of another kind.
    pub fn parse(key: &str) -> Option<Self> {
        let (date, name) = key.strip_prefix(ENTRIES)?.strip_prefix("date=")?.split_once('/')?;
        let mut parts = name.strip_suffix(".parquet")?.rsplitn(4, '~');
        let number = parts.next()?.parse().ok()?;
        let is_dated = parts.next()? == "dated";
        let sequencer = parts.next()?.to_owned();
        Some(PartKey { date: date.parse().ok()?, object: parts.next()?.to_owned(), sequencer, is_dated, number })
    }
}

/// One attempt at a version of a log object, as the names of what it writes before its intent say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub sequencer: String,
    pub number: u64,
}

impl Attempt {
    /// Where a part waits until the intent that names it is registered.
    pub fn staged_key(&self, object: &str, number: usize) -> String {
        format!("{STAGING}{}/{}-{}/{number}.parquet", object_id(object), self.sequencer, self.number)
    }

    /// What the version adds to each fingerprint.
    pub fn contributions_key(&self, object: &str) -> String {
        format!("{CONTRIBUTIONS}{}/{}-{}.jsonl.zst", object_id(object), self.sequencer, self.number)
    }

    /// Where all attempts at an object write.
    pub fn folders(object: &str) -> [String; 2] {
        [STAGING, CONTRIBUTIONS].map(|folder| format!("{folder}{}/", object_id(object)))
    }

    /// The attempt that has written `key`; `None` for a key of another kind.
    pub fn of(key: &str) -> Option<Self> {
        let name = match key.strip_prefix(STAGING) {
            Some(rest) => rest.split('/').nth(1)?,
            None => key.strip_prefix(CONTRIBUTIONS)?.split('/').nth(1)?.strip_suffix(".jsonl.zst")?,
        };
        let (sequencer, number) = name.rsplit_once('-')?;
        Some(Attempt { sequencer: sequencer.to_owned(), number: number.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn an_attempt_is_read_from_the_names_of_what_it_wrote() {
        let attempt = Attempt { sequencer: "0055-AE".into(), number: 12 };
        let object = "shop/2024/07/01/a~b 1.gz";
        for key in [attempt.staged_key(object, 3), attempt.contributions_key(object)] {
            assert_eq!(Attempt::of(&key).as_ref(), Some(&attempt));
            assert!(Attempt::folders(object).iter().any(|folder| key.starts_with(folder.as_str())), "{key}");
        }
        assert_eq!(Attempt::of("log-errors/parquet/date=2024-07-01/x.parquet"), None);
    }

    #[test]
    fn no_part_is_hidden_to_readers_whatever_its_service_is_called() {
        for object in
            ["_billing/2024/07/01/a.gz", ".net/2024/07/01/a.gz", "Übersicht/a.gz", "+1/a.gz", "~a/a.gz", "shop/a.gz"]
        {
            let (object, sequencer) = (part_name(object), "05".to_owned());
            let part = PartKey { date: date(2024, 7, 1), object, sequencer, is_dated: true, number: 0 };
            let name = part.key().rsplit('/').next().expect("a name").to_owned();
            assert!(!name.starts_with(['_', '.']), "{name}");
            assert_eq!(PartKey::parse(&part.key()), Some(part));
        }
        let names = ["_a.gz", ".a.gz", "~a.gz", "a.gz"].map(part_name);
        assert!((1..names.len()).all(|at| !names[..at].contains(&names[at])), "{names:?}");
    }

    #[test]
    fn a_part_is_read_from_its_key() {
        let part = PartKey {
            date: date(2024, 7, 1),
            object: part_name("shop/2024/07/01/a~b 1.gz"),
            sequencer: "0055ae".into(),
            is_dated: false,
            number: 3,
        };
        assert_eq!(PartKey::parse(&part.key()), Some(part));
        assert_eq!(PartKey::parse("log-errors/parquet/date=2024-07-01/x.parquet"), None);
    }
}

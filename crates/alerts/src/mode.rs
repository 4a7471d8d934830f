use serde::{Deserialize, Serialize};

/// What a run is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    Scheduled,
    Range,
    FailedOnly,
    Recheck,
    Extract,
    Process,
}

impl Mode {
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Scheduled => "scheduled",
            Mode::Range => "range",
            Mode::FailedOnly => "failed-only",
            Mode::Recheck => "recheck",
            Mode::Extract => "extract",
            Mode::Process => "process",
        }
    }
}

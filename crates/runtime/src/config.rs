use errors::{Name, Named};
use std::str::FromStr;

/// Reads the environment once and names everything that is missing at once.
#[derive(Default)]
pub struct Config {
    faults: Vec<String>,
}

/// Variables that are absent or not readable, each with what was expected.
#[derive(Debug, thiserror::Error)]
#[error("configuration: {}", .0.join("; "))]
pub struct ConfigMissing(Vec<String>);

impl Named for ConfigMissing {
    fn name(&self) -> Name {
        Name::ConfigMissing
    }
}

impl Config {
    /// A variable that must be set; an empty string stands in for one that is not, until [`Config::check`] refuses.
    pub fn required(&mut self, variable: &str) -> String {
        let value = self.optional(variable);
        if value.is_none() {
            self.faults.push(format!("{variable} is not set"));
        }
        value.unwrap_or_default()
    }

    /// An empty variable counts as absent.
    pub fn optional(&mut self, variable: &str) -> Option<String> {
        std::env::var(variable).ok().filter(|value| !value.is_empty())
    }

    pub fn parsed<T: FromStr>(&mut self, variable: &str, default: T) -> T {
        self.parsed_if_set(variable).unwrap_or(default)
    }

    pub fn parsed_if_set<T: FromStr>(&mut self, variable: &str) -> Option<T> {
        let value = self.optional(variable)?;
        let parsed = value.parse().ok();
        if parsed.is_none() {
            self.faults.push(format!("{variable} is `{value}`, expected a {}", std::any::type_name::<T>()));
        }
        parsed
    }

    /// A list separated by commas with at least one element.
    pub fn required_list(&mut self, variable: &str) -> Vec<String> {
        let list = self.list(variable).unwrap_or_default();
        if list.is_empty() {
            self.faults.push(format!("{variable} is not set"));
        }
        list
    }

    /// A list separated by commas.
    pub fn list(&mut self, variable: &str) -> Option<Vec<String>> {
        let value = self.optional(variable)?;
        Some(value.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect())
    }

    /// Notes a value that was read and cannot be used.
    pub fn refuse(&mut self, fault: String) {
        self.faults.push(fault);
    }

    pub fn check(self) -> Result<(), ConfigMissing> {
        if self.faults.is_empty() { Ok(()) } else { Err(ConfigMissing(self.faults)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_missing_variable_is_named_at_once() {
        let mut config = Config::default();
        config.required("ALERT_ARCHIVE_TEST_ABSENT_1");
        config.required("ALERT_ARCHIVE_TEST_ABSENT_2");
        let fault = config.check().expect_err("two are missing").to_string();
        assert_eq!(
            fault,
            "configuration: ALERT_ARCHIVE_TEST_ABSENT_1 is not set; ALERT_ARCHIVE_TEST_ABSENT_2 is not set"
        );
    }
}

use crate::MailError;
use parameters::{Parameters, Ssm};
use std::sync::Arc;

/// Who gets a kind of report: a parameter with addresses and commas between them. Read for each mail, so that a change
/// needs no deployment.
#[derive(Clone)]
pub struct Recipients {
    parameters: Arc<dyn Parameters>,
    name: String,
}

impl Recipients {
    pub fn new(config: &aws_config::SdkConfig, name: String) -> Self {
        Recipients::over(Arc::new(Ssm::new(config)), name)
    }

    pub fn over(parameters: Arc<dyn Parameters>, name: impl Into<String>) -> Self {
        Recipients { parameters, name: name.into() }
    }

    pub async fn list(&self) -> Result<Vec<String>, MailError> {
        Ok(addresses(&self.parameters.get(&self.name).await?))
    }
}

/// Cut at commas and line ends; what lies in quotes is a name, as in `"Shift, night" <night@example.com>`.
fn addresses(value: &str) -> Vec<String> {
    let mut is_quoted = false;
    let parts = value.split(|c| {
        is_quoted ^= c == '"';
        c == '\n' || (c == ',' && !is_quoted)
    });
    parts.map(str::trim).filter(|address| !address.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_however_a_person_writes_it() {
        assert_eq!(addresses("a@example.com,b@example.com"), ["a@example.com", "b@example.com"]);
        assert_eq!(addresses(" a@example.com ,\n b@example.com,,\r\n"), ["a@example.com", "b@example.com"]);
        let named = [r#""Shift, night" <night@example.com>"#, "Day <day@example.com>"];
        assert_eq!(addresses(&named.join(", ")), named);
        assert_eq!(addresses(" , "), [""; 0]);
    }
}

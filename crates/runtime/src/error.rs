/// An error that an operator meets in the console: its name is part of the contract and never a type's name.
pub trait Named: std::error::Error {
    fn name(&self) -> &'static str;
}

/// The error and all that caused it, in one line.
pub fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

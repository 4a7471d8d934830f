//! Every error name that an operator can meet, once: whether the workflow retries it, what it means, what to do.
//! The README's tables, the Retry lists of the definitions and the advice in mail, page and command line come from
//! here or are tested against it. No error type enters: each step has its own, and says by [`Named`] which name it has.

mod registry;

pub use registry::{Entry, Name, PLATFORM, Retried, advice, entry, explained};

/// An error that an operator meets in the console. Its name is part of the contract and never a type's name.
pub trait Named: std::error::Error {
    fn name(&self) -> Name;
}

/// The error and all that caused it, in one line.
pub fn describe(error: &dyn std::error::Error) -> String {
    // A service that gave no reason leaves an empty one behind its colon.
    let of = |error: &dyn std::error::Error| error.to_string().trim_end_matches([':', ' ']).to_owned();
    let mut text = of(error);
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = of(cause);
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Chain(&'static str, Option<Box<Chain>>);

    impl std::fmt::Display for Chain {
        fn fmt(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
            out.write_str(self.0)
        }
    }

    impl std::error::Error for Chain {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            self.1.as_deref().map(|cause| cause as _)
        }
    }

    #[test]
    fn a_description_holds_each_cause_once() {
        let cause = Chain("the search failed", Some(Box::new(Chain("the search failed", None))));
        let error = Chain("window 7 cannot be read", Some(Box::new(cause)));
        assert_eq!(describe(&error), "window 7 cannot be read: the search failed");
        let silent = Chain("Scan failed: ", Some(Box::new(Chain("connection refused", None))));
        assert_eq!(describe(&silent), "Scan failed: connection refused");
    }
}

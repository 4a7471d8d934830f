/// Why a value stays out. The text says what is wrong, never the value: it may be confidential.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Misfit {
    #[error("is not a value of this type")]
    Kind,
    #[error("is out of range")]
    Range,
    #[error("has more digits than fit")]
    Digits,
    #[error("is NaN or infinite, which a decimal cannot hold")]
    NotFinite,
    #[error("has a part of a surrogate pair, which is not valid text")]
    Surrogate,
}

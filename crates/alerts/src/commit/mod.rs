//! What a window writes: the intent before the first byte, the manifest after the last.

pub mod intent;
pub mod manifest;

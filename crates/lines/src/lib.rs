//! Numbered lines of a text that arrives in pieces, plain or compressed with gzip, from a sender that is not trusted.
//! No I/O: the caller hands over the bytes as they come and asks for one line after the other, so that it can stop at
//! any of them. What a line means does not enter here.

mod gunzip;
mod reader;
mod utf16;

pub use gunzip::{GunzipReader, GzipError, Limits};
pub use reader::{Damage, Line, LineTooLong, Lines, Position, Step};

#[cfg(test)]
mod tests;

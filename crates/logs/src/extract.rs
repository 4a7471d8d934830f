use crate::assemble::Assembler;
use crate::entry::{Context, Entry, Position};
use crate::gunzip::{Damage, Gunzip, Limits};
use crate::lines::Lines;
use crate::settings::Settings;
use std::io::{self, BufRead};

/// What was read of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Lines, the last one also without its line break.
    pub lines: u64,
    /// Unpacked.
    pub bytes: u64,
    pub entries: u64,
    /// Lines that are in no known format and belong to no entry.
    pub unparsed: u64,
    /// Why the object could not be read to its end.
    pub damage: Option<Damage>,
}

/// Reads a gz object from its first byte to its end or its damage, and hands each error entry to `sink` as soon as it is
/// complete. Memory does not grow with the object. Fails only when `source` or `sink` does.
pub fn extract<E: From<io::Error>>(
    source: impl BufRead,
    key: &str,
    settings: &Settings,
    limits: Limits,
    mut sink: impl FnMut(Entry) -> Result<(), E>,
) -> Result<Summary, E> {
    let context = Context::new(key, settings);
    let mut assembler = Assembler::new(&context);
    let mut lines = Lines::new(Gunzip::new(source, limits));
    let mut entries = 0;
    let mut bytes = 0;
    while let Some(line) = lines.next()? {
        let position = Position { line: line.number, byte: line.byte };
        bytes = line.byte + line.text.len() as u64;
        let text = match line.number {
            // A byte order mark.
            1 => line.text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line.text),
            _ => line.text,
        };
        // Bytes that are no UTF-8 become U+FFFD.
        assembler.line(position, &String::from_utf8_lossy(text));
        for entry in assembler.take() {
            entries += 1;
            sink(entry)?;
        }
    }
    assembler.finish();
    for entry in assembler.take() {
        entries += 1;
        sink(entry)?;
    }
    let damage = lines.source().damage().cloned();
    Ok(Summary { lines: lines.count(), bytes, entries, unparsed: assembler.unparsed(), damage })
}

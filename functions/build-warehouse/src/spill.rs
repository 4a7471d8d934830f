//! Lines of a table on the function's own disk, spread over parts by their keys, so that one part after the other can be
//! looked at as a whole: memory depends on the size of a part, and never on how many lines there are.

use crate::Error;
use std::{
    io::{BufWriter, Read, Seek, SeekFrom, Write},
    sync::{Mutex, PoisonError},
};
use warehouse::{line::Change, surrogate::Identity};

/// Bytes of lines that a part is meant for. In memory their values take a few times as much.
const PART_BYTES: u64 = 16 << 20;
/// Each part is an open file with a buffer.
const MAX_PARTS: u64 = 512;
const BUFFER: usize = 32 << 10;

/// Several may write at once: a line's place is in its record.
pub struct Spill {
    parts: Vec<Mutex<BufWriter<std::fs::File>>>,
}

/// The place of a line among all lines of its table.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Order {
    pub object: u32,
    pub line: u32,
}

const HEADER: usize = 16 + 4 + 4 + 8 + 4;

impl Spill {
    /// `bytes`: about how much will come.
    pub fn new(bytes: u64) -> Result<Self, Error> {
        let count = bytes.div_ceil(PART_BYTES).clamp(1, MAX_PARTS);
        let part = |_| Ok::<_, Error>(Mutex::new(BufWriter::with_capacity(BUFFER, tempfile::tempfile()?)));
        Ok(Spill { parts: (0..count).map(part).collect::<Result<_, _>>()? })
    }

    /// `object_time`: microseconds since 1970, of the object's name. `record` is room that is used again.
    pub fn push(
        &self,
        identity: Identity,
        order: Order,
        object_time: i64,
        change: &Change,
        record: &mut Vec<u8>,
    ) -> Result<(), Error> {
        record.clear();
        record.resize(HEADER, 0);
        *record = postcard::to_extend(change, std::mem::take(record))?;
        let length = (record.len() - HEADER) as u32;
        record[..16].copy_from_slice(&identity.to_bytes());
        record[16..20].copy_from_slice(&order.object.to_le_bytes());
        record[20..24].copy_from_slice(&order.line.to_le_bytes());
        record[24..32].copy_from_slice(&object_time.to_le_bytes());
        record[32..36].copy_from_slice(&length.to_le_bytes());
        let part = &self.parts[identity.part(self.parts.len())];
        part.lock().unwrap_or_else(PoisonError::into_inner).write_all(record)?;
        Ok(())
    }

    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Reads a part into memory, ordered by key and by place.
    pub fn part(&self, part: usize) -> Result<Part, Error> {
        let mut writer = self.parts[part].lock().unwrap_or_else(PoisonError::into_inner);
        writer.flush()?;
        let file = writer.get_mut();
        let mut bytes = Vec::with_capacity(file.metadata()?.len() as usize);
        file.seek(SeekFrom::Start(0))?;
        file.read_to_end(&mut bytes)?;
        let mut index = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let header = &bytes[at..at + HEADER];
            let number = |from: usize| u32::from_le_bytes(array(&header[from..from + 4]));
            let entry = Entry {
                identity: Identity::from_bytes(array(&header[..16])),
                order: Order { object: number(16), line: number(20) },
                object_time: i64::from_le_bytes(array(&header[24..32])),
                start: at + HEADER,
                length: number(32) as usize,
            };
            at += HEADER + entry.length;
            index.push(entry);
        }
        index.sort_unstable_by_key(|entry| (entry.identity, entry.order));
        Ok(Part { bytes, index })
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}

struct Entry {
    identity: Identity,
    order: Order,
    object_time: i64,
    start: usize,
    length: usize,
}

/// All lines of some keys.
pub struct Part {
    bytes: Vec<u8>,
    index: Vec<Entry>,
}

impl Part {
    /// The changes of one key after the other, each key's in their order.
    pub fn keys(&self) -> impl Iterator<Item = Key<'_>> {
        let groups = self.index.chunk_by(|a, b| a.identity == b.identity);
        groups.map(|entries| Key { identity: entries[0].identity, bytes: &self.bytes, entries })
    }
}

pub struct Key<'a> {
    pub identity: Identity,
    bytes: &'a [u8],
    entries: &'a [Entry],
}

impl Key<'_> {
    /// Each change with the time of its object.
    pub fn changes(&self) -> impl Iterator<Item = Result<(Change, i64), Error>> {
        self.entries.iter().map(|entry| {
            let change = postcard::from_bytes(&self.bytes[entry.start..entry.start + entry.length])?;
            Ok((change, entry.object_time))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warehouse::value::Value;

    #[test]
    fn changes_come_back_by_key_in_their_order_whatever_order_they_came_in() {
        let spill = Spill::new(10 * PART_BYTES).expect("spill");
        let row = |n| Change::Row { values: vec![Value::Integer(n)], at: Some(1), is_deleted: false };
        for n in (0..1000).rev() {
            let key = Identity::of(&[n as u8 % 7]);
            let order = Order { object: n as u32 / 10, line: n as u32 % 10 };
            spill.push(key, order, 5, &row(n), &mut Vec::new()).expect("line");
        }
        let mut keys = 0;
        for part in 0..spill.parts() {
            for key in spill.part(part).expect("part").keys() {
                keys += 1;
                let changes: Vec<_> = key.changes().map(|change| change.expect("change").0).collect();
                let first = (0..1000).find(|n| Identity::of(&[*n as u8 % 7]) == key.identity).expect("key");
                let expected = (0..1000).filter(|n| *n as u8 % 7 == first as u8).map(row);
                assert_eq!(changes, expected.collect::<Vec<_>>());
            }
        }
        assert_eq!((keys, spill.parts()), (7, 10));
    }
}

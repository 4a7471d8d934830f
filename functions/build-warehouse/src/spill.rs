//! Lines of a table on the function's own disk, spread over parts by their keys, so that one part after the other can
//! be looked at as a whole: memory depends on the size of a part, and never on how many lines there are.

use crate::Error;
use std::{
    io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    sync::{Mutex, PoisonError},
};
use warehouse::{line::Change, surrogate::Identity};

/// Each part is an open file with a buffer.
pub const MAX_PARTS: u64 = 512;
const BUFFER: usize = 32 << 10;

/// A file of records, which goes with it. Several may write at once: a line's place is in its record.
pub struct Scratch(Mutex<BufWriter<std::fs::File>>);

impl Scratch {
    pub fn new() -> Result<Self, Error> {
        Ok(Scratch(Mutex::new(BufWriter::with_capacity(BUFFER, tempfile::tempfile()?))))
    }

    pub fn append(&self, records: &[u8]) -> Result<(), Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(records)?;
        Ok(())
    }

    pub fn bytes(&self) -> Result<u64, Error> {
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writer.flush()?;
        Ok(writer.get_ref().metadata()?.len())
    }

    fn reader(&self) -> Result<impl Read + use<>, Error> {
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writer.flush()?;
        let mut file = writer.get_ref().try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        Ok(BufReader::new(file))
    }

    pub fn read(&self) -> Result<Vec<u8>, Error> {
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writer.flush()?;
        let file = writer.get_mut();
        let mut bytes = Vec::with_capacity(file.metadata()?.len() as usize);
        file.seek(SeekFrom::Start(0))?;
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

pub struct Spill {
    pub parts: Vec<Scratch>,
}

/// The place of a line among all lines of its table.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Order {
    /// Number of its object.
    pub object: u32,
    pub line: u32,
}

/// Identity, object, line, time of the object, whether its key is gone, length.
const HEADER: usize = 16 + 4 + 4 + 8 + 1 + 4;
/// Where parts have got so many times their size, because objects were compressed, they are divided once more.
const GROWTH: u64 = 4;

impl Spill {
    /// Parts of about `part_bytes` each, for about `bytes` in all.
    pub fn new(bytes: u64, part_bytes: u64) -> Result<Self, Error> {
        let count = bytes.div_ceil(part_bytes).clamp(1, MAX_PARTS);
        Ok(Spill { parts: (0..count).map(|_| Scratch::new()).collect::<Result<_, _>>()? })
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
        record[32] = u8::from(matches!(change, Change::Gone { .. }));
        record[33..37].copy_from_slice(&length.to_le_bytes());
        self.parts[identity.part(self.parts.len())].append(record)
    }

    /// The same in more parts, where these have become too large to be in memory. One part after the other leaves the
    /// disk.
    pub fn divided(self, part_bytes: u64) -> Result<Spill, Error> {
        let bytes = self.parts.iter().map(Scratch::bytes).sum::<Result<u64, _>>()?;
        if bytes <= GROWTH * part_bytes * self.parts.len() as u64 {
            return Ok(self);
        }
        let spill = Spill::new(bytes, part_bytes)?;
        for part in self.parts {
            let mut left = part.bytes()?;
            let mut reader = part.reader()?;
            while left > 0 {
                let mut record = vec![0; HEADER];
                reader.read_exact(&mut record)?;
                let identity = Identity::from_bytes(array(&record[..16]));
                record.resize(HEADER + u32::from_le_bytes(array(&record[33..HEADER])) as usize, 0);
                reader.read_exact(&mut record[HEADER..])?;
                left = left.saturating_sub(record.len() as u64);
                spill.parts[identity.part(spill.parts.len())].append(&record)?;
            }
        }
        Ok(spill)
    }
}

/// Lines of some keys in memory, ordered by key and by place.
pub struct Part {
    bytes: Vec<u8>,
    index: Vec<Entry>,
}

struct Entry {
    identity: Identity,
    order: Order,
    /// Of the object among all of its table.
    position: u32,
    object_time: i64,
    is_gone: bool,
    /// Of the record.
    start: usize,
    end: usize,
}

impl Part {
    /// `positions`: of objects among all of their table, by number.
    pub fn new(bytes: Vec<u8>, positions: &[u32]) -> Part {
        let mut index = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let header = &bytes[at..at + HEADER];
            let number = |from: usize| u32::from_le_bytes(array(&header[from..from + 4]));
            let order = Order { object: number(16), line: number(20) };
            let end = at + HEADER + number(33) as usize;
            index.push(Entry {
                identity: Identity::from_bytes(array(&header[..16])),
                order,
                position: positions[order.object as usize],
                object_time: i64::from_le_bytes(array(&header[24..32])),
                is_gone: header[32] == 1,
                start: at,
                end,
            });
            at = end;
        }
        index.sort_unstable_by_key(|entry| (entry.identity, entry.position, entry.order.line));
        Part { bytes, index }
    }

    /// The changes of one key after the other, each key's in their order.
    pub fn keys(&self) -> impl Iterator<Item = Key<'_>> {
        let groups = self.index.chunk_by(|a, b| a.identity == b.identity);
        groups.map(|entries| Key { identity: entries[0].identity, bytes: &self.bytes, entries })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}

pub struct Key<'a> {
    pub identity: Identity,
    bytes: &'a [u8],
    entries: &'a [Entry],
}

impl<'a> Key<'a> {
    /// Each change with the time of its object.
    pub fn changes(&self) -> impl Iterator<Item = Result<(Change, i64), Error>> {
        self.entries.iter().map(|entry| {
            let change = postcard::from_bytes(&self.bytes[entry.start + HEADER..entry.end])?;
            Ok((change, entry.object_time))
        })
    }

    /// The number of the object that has its first line.
    pub fn first_object(&self) -> usize {
        self.entries[0].order.object as usize
    }

    /// All of its lines as they are stored.
    pub fn records(&self) -> impl Iterator<Item = &'a [u8]> {
        self.entries.iter().map(|entry| &self.bytes[entry.start..entry.end])
    }

    /// Those of its lines from which its newest values follow, whatever lines come later: the last row and the last
    /// deletion behind it. Where there is no row yet, its first deletion, which names it, and the last.
    pub fn newest_records(&self) -> impl Iterator<Item = &'a [u8]> {
        let first = self.entries.iter().rposition(|entry| !entry.is_gone).unwrap_or(0);
        let last = self.entries.len() - 1;
        let last = (last > first).then_some(last);
        [Some(first), last].into_iter().flatten().map(|at| &self.bytes[self.entries[at].start..self.entries[at].end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warehouse::value::Value;

    fn row(n: i32) -> Change {
        Change::Row { values: vec![Value::Integer(n)], at: Some(1), is_deleted: false }
    }

    #[test]
    fn changes_come_back_by_key_in_their_order_whatever_order_they_came_in() {
        let spill = Spill::new(10, 1).expect("spill");
        // Objects are numbered as they came, and the later ones come first.
        let positions: Vec<u32> = (0..100).rev().collect();
        for n in 0..1000 {
            let key = Identity::of(&[n as u8 % 7]);
            let order = Order { object: 99 - n as u32 / 10, line: n as u32 % 10 };
            spill.push(key, order, 5, &row(n), &mut Vec::new()).expect("line");
        }
        let mut keys = 0;
        for part in &spill.parts {
            for key in Part::new(part.read().expect("part"), &positions).keys() {
                keys += 1;
                let changes: Vec<_> = key.changes().map(|change| change.expect("change").0).collect();
                let first = (0..1000).find(|n| Identity::of(&[*n as u8 % 7]) == key.identity).expect("key");
                let expected = (0..1000).filter(|n| *n as u8 % 7 == first as u8).map(row);
                assert_eq!(changes, expected.collect::<Vec<_>>());
            }
        }
        assert_eq!((keys, spill.parts.len()), (7, 10));
    }

    #[test]
    fn parts_that_became_too_large_are_divided_once_more_and_lose_nothing() {
        let spill = Spill::new(10, 1000).expect("spill");
        for n in 0..1000 {
            let order = Order { object: 0, line: n };
            spill.push(Identity::of(&(n / 2).to_le_bytes()), order, 5, &row(n as i32), &mut Vec::new()).expect("line");
        }
        let before = spill.parts[0].read().expect("part");
        let divided = spill.divided(1000).expect("divided");
        assert_eq!(divided.parts.len(), before.len().div_ceil(1000));
        let parts: Vec<Vec<u8>> = divided.parts.iter().map(|part| part.read().expect("part")).collect();
        assert!(parts.iter().all(|part| part.len() < 3000), "{:?}", parts.iter().map(Vec::len).collect::<Vec<_>>());
        let keys = |part: &[u8]| -> Vec<(Identity, Vec<u8>)> {
            let part = Part::new(part.to_vec(), &[0]);
            part.keys().map(|key| (key.identity, key.records().flatten().copied().collect())).collect()
        };
        let mut found: Vec<_> = parts.iter().flat_map(|part| keys(part)).collect();
        found.sort_unstable();
        assert_eq!(found, keys(&before));
    }
}

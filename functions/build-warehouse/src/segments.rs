//! The lines of a source, divided by their keys into segments that stay from build to build, so that a load reads those
//! only that have a key of its own. All lines of a key stand in one segment. A key comes into the segment that is
//! filled when it is first seen, because what comes together is changed together.

use crate::{
    Error,
    spill::{MAX_PARTS, Part, Scratch, Spill},
};
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::HashMap;
use storage::Objects;
use warehouse::surrogate::Identity;
use warehouse_state::{Segment, StoredLines, segment_key};

/// Of the stored records. Another form needs another number: then all is read from the JSON lines once more.
const FORMAT: u32 = 1;
/// Records are small and written often.
const ZSTD_LEVEL: i32 = 1;
/// A load of more than so many segments is read together with all that was before it.
const LOAD_SEGMENTS: u64 = 8;
/// A segment that has grown to so many times its size is divided again, with all others.
const GROWTH: u64 = 4;
/// Indexes that are fetched side by side.
const AT_ONCE: usize = 8;
/// Bytes of an identity in an index. Two keys that share them cost a segment that is read in vain.
const INDEXED: usize = 4;

pub struct Segments {
    warehouse: Objects,
    /// Of an object among all of its table, by number.
    positions: Vec<u32>,
    places: Vec<Place>,
}

enum Place {
    /// With lines that came since the last build. `first_bytes`: how large it was when it was first stored.
    Changed { records: Scratch, first_bytes: Option<u64> },
    /// As the last build has left it.
    Stored(Segment),
}

/// Whether stored lines are of use to a build that needs all lines of each key, or only its newest values.
pub fn are_usable(stored: &StoredLines, needs_all: bool) -> bool {
    stored.format == FORMAT && (stored.has_all || !needs_all)
}

/// Whether a load of so many bytes is small enough to be put to what is stored.
pub fn is_load(bytes: u64, segment_bytes: u64) -> bool {
    bytes <= LOAD_SEGMENTS * segment_bytes
}

impl Segments {
    /// All lines of a source for the first time. Objects are numbered in their order.
    pub fn divide(warehouse: &Objects, spill: Spill, objects: usize, segment_bytes: u64) -> Result<Segments, Error> {
        let positions: Vec<u32> = (0..objects as u32).collect();
        let parts =
            if spill.parts.len() == 1 { spill.parts } else { by_first_object(spill.parts, &positions, segment_bytes)? };
        let places = parts.into_iter().map(|records| Place::Changed { records, first_bytes: None });
        Ok(Segments { warehouse: warehouse.clone(), positions, places: places.collect() })
    }

    /// The lines of the last build, and those that came since. `None`: they are to be divided anew.
    pub async fn extend(
        warehouse: &Objects,
        stored: &[Segment],
        spill: &Spill,
        positions: Vec<u32>,
        segment_bytes: u64,
    ) -> Result<Option<Segments>, Error> {
        let mut incoming: Vec<(Identity, u64)> = Vec::new();
        for part in &spill.parts {
            let part = Part::new(part.read()?, &positions);
            incoming
                .extend(part.keys().map(|key| (key.identity, key.records().map(|record| record.len() as u64).sum())));
        }
        incoming.sort_unstable();
        let places = stored.iter().cloned().map(Place::Stored).collect();
        let mut segments = Segments { warehouse: warehouse.clone(), positions, places };
        let mut routes: HashMap<Identity, usize> = HashMap::with_capacity(incoming.len());
        let indexes = stored.iter().enumerate().map(|(at, segment)| {
            let (warehouse, key) = (warehouse.clone(), segment.index_key());
            async move { Ok::<_, Error>((at, warehouse.find(&key).await?)) }
        });
        let indexes: Vec<_> = indexes.collect();
        let mut indexes = stream::iter(indexes).buffer_unordered(AT_ONCE);
        while let Some((at, index)) = indexes.try_next().await? {
            let Some(index) = index else { return Ok(None) };
            let is_candidate = |identity: Identity| is_indexed(&index, identity);
            if !incoming.iter().any(|(identity, _)| is_candidate(*identity)) {
                continue;
            }
            let Some(part) = segments.find(at).await? else { return Ok(None) };
            let known = routes.len();
            let its_own = part
                .keys()
                .filter(|key| incoming.binary_search_by_key(&key.identity, |(identity, _)| *identity).is_ok());
            routes.extend(its_own.map(|key| (key.identity, at)));
            if routes.len() > known {
                segments.open(at, &part)?;
            }
        }
        drop(indexes);
        let new: Vec<_> = incoming.iter().filter(|(identity, _)| !routes.contains_key(identity)).collect();
        let new_bytes: u64 = new.iter().map(|(_, bytes)| bytes).sum();
        let last = stored.len().saturating_sub(1);
        if new.is_empty() {
            // Every key is in a segment.
        } else if stored.last().is_some_and(|segment| segment.bytes + new_bytes <= segment_bytes) {
            if matches!(segments.places[last], Place::Stored(_)) {
                let Some(part) = segments.find(last).await? else { return Ok(None) };
                segments.open(last, &part)?;
            }
            routes.extend(new.iter().map(|(identity, _)| (*identity, last)));
        } else {
            let count = new_bytes.div_ceil(segment_bytes).clamp(1, MAX_PARTS) as usize;
            routes.extend(new.iter().map(|(identity, _)| (*identity, stored.len() + identity.part(count))));
            for _ in 0..count {
                segments.places.push(Place::Changed { records: Scratch::new()?, first_bytes: None });
            }
        }
        for part in &spill.parts {
            for key in Part::new(part.read()?, &segments.positions).keys() {
                if let Place::Changed { records, .. } = &segments.places[routes[&key.identity]] {
                    key.records().try_for_each(|record| records.append(record))?;
                }
            }
        }
        for place in &segments.places {
            if let Place::Changed { records, first_bytes: Some(first_bytes) } = place
                && records.bytes()? > GROWTH * segment_bytes.max(*first_bytes)
            {
                return Ok(None);
            }
        }
        Ok(Some(segments))
    }

    /// The lines of the last build, to which none came.
    pub fn stored(warehouse: &Objects, stored: &[Segment], positions: Vec<u32>) -> Segments {
        let places = stored.iter().cloned().map(Place::Stored).collect();
        Segments { warehouse: warehouse.clone(), positions, places }
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_changed(&self, at: usize) -> bool {
        matches!(self.places[at], Place::Changed { .. })
    }

    /// Reads a segment into memory.
    pub async fn part(&self, at: usize) -> Result<Part, Error> {
        match (self.find(at).await?, &self.places[at]) {
            (Some(part), _) => Ok(part),
            (None, Place::Stored(segment)) => {
                let what = "it is missing; `alert-archive warehouse rebuild` makes it anew";
                Err(self.warehouse.corrupt(&segment.lines_key(), what).into())
            }
            (None, Place::Changed { .. }) => unreachable!("what is on the disk stays there"),
        }
    }

    /// `None`: its object is gone.
    async fn find(&self, at: usize) -> Result<Option<Part>, Error> {
        let bytes = match &self.places[at] {
            Place::Changed { records, .. } => records.read()?,
            Place::Stored(segment) => {
                let key = segment.lines_key();
                let Some(packed) = self.warehouse.find(&key).await? else { return Ok(None) };
                zstd::decode_all(&packed[..]).map_err(|error| self.warehouse.corrupt(&key, error))?
            }
        };
        Ok(Some(Part::new(bytes, &self.positions)))
    }

    /// Makes a stored segment one that lines can be put to.
    fn open(&mut self, at: usize, part: &Part) -> Result<(), Error> {
        if let Place::Stored(segment) = &self.places[at] {
            let (records, first_bytes) = (Scratch::new()?, Some(segment.first_bytes));
            records.append(part.bytes())?;
            self.places[at] = Place::Changed { records, first_bytes };
        }
        Ok(())
    }

    /// Puts a changed segment where the next build finds it. `has_all`: with all lines of each key.
    pub async fn store(&self, at: usize, table: &str, attempt: u64, has_all: bool) -> Result<Segment, Error> {
        let first_bytes = match &self.places[at] {
            Place::Stored(segment) => return Ok(segment.clone()),
            Place::Changed { first_bytes, .. } => *first_bytes,
        };
        let part = self.part(at).await?;
        let (mut records, mut index) = (Vec::with_capacity(part.bytes().len()), Vec::new());
        for key in part.keys() {
            index.extend_from_slice(&key.identity.to_bytes()[..INDEXED]);
            if has_all {
                key.records().for_each(|record| records.extend_from_slice(record));
            } else {
                key.newest_records().for_each(|record| records.extend_from_slice(record));
            }
        }
        drop(part);
        let bytes = records.len() as u64;
        let segment =
            Segment { key: segment_key(table, attempt, at), bytes, first_bytes: first_bytes.unwrap_or(bytes) };
        let packed = zstd::encode_all(&records[..], ZSTD_LEVEL)?;
        self.warehouse.put(&segment.lines_key(), packed, "application/zstd").await?;
        self.warehouse.put(&segment.index_key(), index, "application/octet-stream").await?;
        Ok(segment)
    }
}

pub fn stored_lines(segments: Vec<Segment>, has_all: bool) -> StoredLines {
    StoredLines { format: FORMAT, has_all, segments }
}

/// Whether a segment may have a key. Its index holds the first bytes of its identities, in order.
fn is_indexed(index: &[u8], identity: Identity) -> bool {
    let wanted = &identity.to_bytes()[..INDEXED];
    let (entries, _) = index.as_chunks::<INDEXED>();
    entries.binary_search_by(|entry| entry[..].cmp(wanted)).is_ok()
}

/// Spreads records over segments of about equal size, each with the keys that came first in the same objects.
fn by_first_object(parts: Vec<Scratch>, positions: &[u32], segment_bytes: u64) -> Result<Vec<Scratch>, Error> {
    let mut sizes = vec![0_u64; positions.len()];
    for part in &parts {
        for key in Part::new(part.read()?, positions).keys() {
            sizes[key.first_object()] += key.records().map(|record| record.len() as u64).sum::<u64>();
        }
    }
    let total: u64 = sizes.iter().sum();
    let count = total.div_ceil(segment_bytes).clamp(1, MAX_PARTS);
    let each = total.div_ceil(count).max(1);
    let mut end = 0;
    let ranges: Vec<(usize, usize)> = sizes
        .iter()
        .map(|size| {
            let first = end / each;
            end += size;
            (first as usize, (end.saturating_sub(1) / each).saturating_sub(first) as usize + 1)
        })
        .collect();
    let segments = (0..count).map(|_| Scratch::new()).collect::<Result<Vec<_>, _>>()?;
    // One after the other leaves the disk.
    for part in parts {
        for key in Part::new(part.read()?, positions).keys() {
            let (first, of) = ranges[key.first_object()];
            let segment = &segments[first + key.identity.part(of)];
            key.records().try_for_each(|record| segment.append(record))?;
        }
    }
    Ok(segments)
}

//! Severities and categories of an object's alerts, and how large its messages were, read without its documents: the
//! two columns are small beside them, and sizes stand at the object's end.

use crate::ColumnarError;
use alerts::counts::{AlertCounts, SourceSize};
use arrow_array::{Array, ListArray, RecordBatch, StringArray};
use bytes::{Buf, Bytes, buf::Reader};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
    },
    errors::ParquetError,
    file::{
        metadata::RowGroupMetaData,
        reader::{ChunkReader, Length},
    },
};
use std::ops::Range;

const SEVERITIES: &str = "alert_severities";
const CATEGORIES: &str = "alert_categories";
const MESSAGE: &str = "message";
/// From the end of an object: more than what says where its columns are, as a rule.
const END_BYTES: u64 = 64 << 10;

/// The parts of an object that are at hand.
#[derive(Clone, Debug)]
pub struct Parts {
    object_bytes: u64,
    /// Where each begins.
    held: Vec<(u64, Bytes)>,
}

/// What an object says of its messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    /// Nothing of an object from before they had columns.
    pub alerts: AlertCounts,
    pub size: SourceSize,
}

/// What is known of an object by its parts.
#[derive(Clone, Debug, PartialEq)]
pub enum Counted {
    All(Contents),
    /// These bytes are needed, too.
    Needs(Range<u64>),
}

impl Parts {
    /// Of an object of so many bytes.
    pub fn of(object_bytes: u64) -> Self {
        Parts { object_bytes, held: Vec::new() }
    }

    pub fn whole(object: Bytes) -> Self {
        Parts { object_bytes: object.len() as u64, held: vec![(0, object)] }
    }

    pub fn add(&mut self, begins: u64, bytes: Bytes) {
        self.held.push((begins, bytes));
    }

    /// From `start` to the end of the part that holds it.
    fn held_at(&self, start: u64, length: u64) -> Result<Bytes, ParquetError> {
        let end = start.checked_add(length).filter(|end| *end <= self.object_bytes);
        let end = end.ok_or_else(|| ParquetError::EOF(format!("{length} bytes at {start} lie beyond its end")))?;
        let holds = |(begins, bytes): &&(u64, Bytes)| *begins <= start && end <= begins + bytes.len() as u64;
        match self.held.iter().find(holds) {
            Some((begins, bytes)) => Ok(bytes.slice((start - begins) as usize..)),
            None => Err(ParquetError::NeedMoreDataRange(start..end)),
        }
    }
}

impl Length for Parts {
    fn len(&self) -> u64 {
        self.object_bytes
    }
}

impl ChunkReader for Parts {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(self.held_at(start, 1)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        Ok(self.held_at(start, length as u64)?.slice(..length))
    }
}

/// The alerts and the size of an object's messages. To be called again with what it needs, twice as a rule.
pub fn contents(parts: &Parts) -> Result<Counted, ColumnarError> {
    match counted(parts) {
        Ok(contents) => Ok(Counted::All(contents)),
        Err(ColumnarError::Parquet(ParquetError::NeedMoreDataRange(range))) => {
            let is_end = range.end == parts.object_bytes;
            let start = if is_end { range.start.min(range.end.saturating_sub(END_BYTES)) } else { range.start };
            Ok(Counted::Needs(start..range.end))
        }
        Err(error) => Err(error),
    }
}

fn counted(parts: &Parts) -> Result<Contents, ColumnarError> {
    // The last 8 bytes say how long what stands before them is; asked for by themselves, they bring it along.
    parts.get_bytes(parts.object_bytes.saturating_sub(8), parts.object_bytes.min(8) as usize)?;
    let metadata = ArrowReaderMetadata::load(parts, ArrowReaderOptions::new())?;
    let schema = metadata.metadata().file_metadata().schema_descr_ptr();
    let is_wanted = |column: usize| {
        let path = schema.column(column).path().parts().first().cloned();
        path.is_some_and(|name| name == SEVERITIES || name == CATEGORIES)
    };
    let columns: Vec<usize> = (0..schema.num_columns()).filter(|column| is_wanted(*column)).collect();
    let size = size_of(&metadata);
    if columns.len() < 2 {
        return Ok(Contents { size, ..Contents::default() });
    }
    for group in metadata.metadata().row_groups() {
        let Range { start, end } = range_of(group, &columns);
        parts.held_at(start, end - start)?;
    }
    let mut counts = AlertCounts { messages: metadata.metadata().file_metadata().num_rows(), ..AlertCounts::default() };
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(parts.clone(), metadata);
    for batch in reader.with_projection(ProjectionMask::leaves(&schema, columns)).build()? {
        let batch = batch?;
        let (severities, categories) = (names(&batch, SEVERITIES)?, names(&batch, CATEGORIES)?);
        for (severity, category) in severities.into_iter().zip(categories) {
            counts.add_alert(severity, category);
        }
    }
    Ok(Contents { alerts: counts, size })
}

/// By the column that holds the messages as they are, each behind its length; some dozens of bytes more, for a page's
/// header.
fn size_of(metadata: &ArrowReaderMetadata) -> SourceSize {
    const LENGTH: i64 = 4;
    let columns = metadata.metadata().row_groups().iter().flat_map(RowGroupMetaData::columns);
    let of_messages = columns.filter(|column| column.column_path().string() == MESSAGE);
    let bytes = of_messages.map(|column| column.uncompressed_size() - LENGTH * column.num_values()).sum();
    SourceSize { messages: metadata.metadata().file_metadata().num_rows(), bytes }
}

/// Where the columns stand, which stand beside each other.
fn range_of(group: &RowGroupMetaData, columns: &[usize]) -> Range<u64> {
    let ranges: Vec<(u64, u64)> = columns.iter().map(|column| group.column(*column).byte_range()).collect();
    let start = ranges.iter().map(|(start, _)| *start).min().unwrap_or(0);
    start..ranges.iter().map(|(start, length)| start + length).max().unwrap_or(start)
}

/// One for each alert of the rows, in their order.
fn names<'a>(batch: &'a RecordBatch, column: &'static str) -> Result<Vec<Option<&'a str>>, ColumnarError> {
    let lists: Option<&ListArray> = batch.column_by_name(column).and_then(|lists| lists.as_any().downcast_ref());
    let lists = lists.ok_or(ColumnarError::Column(column))?;
    let values: &StringArray = lists.values().as_any().downcast_ref().ok_or(ColumnarError::Column(column))?;
    let offsets = lists.value_offsets();
    let (first, last) = (offsets.first().copied().unwrap_or(0), offsets.last().copied().unwrap_or(0));
    Ok((first..last).map(|at| values.is_valid(at as usize).then(|| values.value(at as usize))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::object;

    const SEVERAL: &str = r#"{"message_id":"a","alerts":[{"status":"closed","severity":"High","category":"fraud"},
        {"status":"closed","severity":"low"},{"status":"closed","severity":"high","category":"fraud"}]}"#;
    const NONE: &str = r#"{"message_id":"b","alerts":[]}"#;

    fn expected(messages: i64) -> AlertCounts {
        let mut counts = AlertCounts { messages, ..AlertCounts::default() };
        counts.add_alert(Some("high"), Some("fraud"));
        counts.add_alert(Some("low"), None);
        counts.add_alert(Some("high"), Some("fraud"));
        counts
    }

    fn of_whole(object: Bytes) -> Contents {
        match contents(&Parts::whole(object)).expect("counted") {
            Counted::All(contents) => contents,
            needs => panic!("{needs:?}"),
        }
    }

    #[test]
    fn every_alert_is_counted_once_by_its_severity_and_its_category() {
        assert_eq!(of_whole(object(&[("a", SEVERAL), ("b", NONE)])).alerts, expected(2));
        assert_eq!(of_whole(object(&[])), Contents::default());
    }

    #[test]
    fn the_size_is_that_of_the_messages_however_often_they_repeat_and_whichever_rows_left() {
        let text = format!(r#"{{"message_id":"c","alerts":[],"body":"{}"}}"#, "as it was ".repeat(1000));
        let same = [("a", text.as_str()), ("b", &text), ("c", &text), ("d", NONE)];
        let named = std::collections::HashSet::from([identity::Identity::new("messages", "b")]);
        let crate::Split { kept, taken, .. } = crate::split(object(&same), &named).expect("Parquet").expect("a row");
        for (object, repeats, messages) in [(object(&same), 3, 4), (kept, 2, 3), (taken, 1, 1)] {
            let size = of_whole(object).size;
            let more = size.bytes - (repeats * text.len()) as i64;
            assert!(size.messages == messages && (0..100).contains(&more), "{size:?}, {more} bytes more");
        }
    }

    /// Fetches what is needed and nothing else, and returns how many bytes that were.
    fn fetched(object: &Bytes) -> (Contents, u64) {
        let (mut parts, mut bytes) = (Parts::of(object.len() as u64), 0);
        loop {
            match contents(&parts).expect("counted") {
                Counted::All(contents) => return (contents, bytes),
                Counted::Needs(range) => {
                    assert!(bytes < 10 * object.len() as u64, "it asks for ever: {range:?}");
                    bytes += range.end - range.start;
                    parts.add(range.start, object.slice(range.start as usize..range.end as usize));
                }
            }
        }
    }

    #[test]
    fn of_an_object_only_its_end_and_two_columns_are_needed() {
        // No compression makes it small.
        let letter = |n: u64| char::from(b'a' + ((n.wrapping_mul(n).wrapping_mul(2_654_435_761) >> 20) % 26) as u8);
        let noise: String = (0..3_000_000).map(letter).collect();
        let large = format!(r#"{{"message_id":"c","subject":"s","alerts":[],"body":"{noise}"}}"#);
        let object = object(&[("a", SEVERAL), ("c", &large), ("b", NONE)]);
        let (counted, bytes) = fetched(&object);
        assert_eq!(counted.alerts, expected(3));
        assert!(object.len() > 500_000 && bytes < 70_000, "{bytes} of {}", object.len());
    }

    #[test]
    fn what_is_no_object_of_the_archive_is_an_error() {
        for body in [&b""[..], b"PAR1", b"no Parquet, though it is long enough to have an end of eight bytes"] {
            contents(&Parts::whole(Bytes::from_static(body))).expect_err("nothing to count");
        }
    }
}

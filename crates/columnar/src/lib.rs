//! The Parquet objects of the archive: typed columns for queries and, beside them, the document byte for byte.
//! [`writer`] knows no schema, so that other pipelines share it.

pub mod contents;
#[cfg(test)]
mod fuzz;
pub mod reopened;
pub mod writer;

use alerts::message::document::{Alerts, MessageFields};
use alerts::{message::entry::Entry, window::spool::Record};
use arrow_array::{
    Array, ArrayRef, BooleanArray, ListArray, RecordBatch, StringArray, TimestampMillisecondArray, UInt32Array,
    builder::{BooleanBuilder, ListBuilder, StringBuilder, TimestampMillisecondBuilder, UInt32Builder},
};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use identity::Identity;
use jiff::Timestamp;
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    errors::ParquetError,
};
use std::sync::{Arc, LazyLock};
use writer::Packing;

/// Raw bytes that are collected before they are encoded: they bound the memory.
const BATCH_BYTES: usize = 2 << 20;
const ROWS_READ: usize = 256;

#[derive(Debug, thiserror::Error)]
pub enum ColumnarError {
    #[error("Parquet")]
    Parquet(#[from] ParquetError),
    #[error("Arrow")]
    Arrow(#[from] ArrowError),
    #[error("message {id} is not UTF-8, so it should stand in quarantine and not in the archive")]
    NotUtf8 { id: String },
    #[error("the object has no column `{0}` of the archive's type")]
    Column(&'static str),
}

fn list() -> DataType {
    DataType::List(Arc::new(Field::new("element", DataType::Utf8, true)))
}

fn instant_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

/// The columns, in order. `date` is the partition and no column.
static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("message_id", DataType::Utf8, false),
        Field::new("source_index", DataType::Utf8, false),
        Field::new("timestamp", instant_type(), false),
        Field::new("sender", DataType::Utf8, true),
        Field::new("channel", DataType::Utf8, true),
        Field::new("subject", DataType::Utf8, true),
        Field::new("alert_count", DataType::UInt32, false),
        Field::new("no_alerts", DataType::Boolean, false),
        Field::new("alert_ids", list(), false),
        Field::new("alert_severities", list(), false),
        Field::new("alert_categories", list(), false),
        Field::new("first_opened_at", instant_type(), true),
        Field::new("last_closed_at", instant_type(), true),
        Field::new("history_count", DataType::UInt32, false),
        Field::new("audit_count", DataType::UInt32, false),
        Field::new("source", DataType::Utf8, false),
        Field::new("version", DataType::Utf8, false),
        Field::new("archived_at", instant_type(), false),
        Field::new("run_id", DataType::Utf8, false),
        Field::new("message", DataType::Utf8, false),
        Field::new("history", list(), false),
        Field::new("audit", list(), false),
    ]))
});

/// Where the rows of an object come from; the same for each of its rows.
#[derive(Clone, Debug)]
pub struct Origin {
    pub run_id: String,
    pub archived_at: Timestamp,
}

/// Writes one object. Holds at most a batch of raw rows and the compressed bytes so far.
pub struct ObjectWriter {
    writer: ArrowWriter<Vec<u8>>,
    columns: Columns,
    origin: Origin,
}

impl ObjectWriter {
    pub fn new(origin: Origin) -> Result<Self, ColumnarError> {
        ObjectWriter::packed(origin, Packing::BALANCED)
    }

    pub fn packed(origin: Origin, packing: Packing) -> Result<Self, ColumnarError> {
        Ok(ObjectWriter { writer: arrow_writer(&SCHEMA, packing)?, columns: Columns::default(), origin })
    }

    pub fn push(&mut self, entry: &Entry, record: Record) -> Result<(), ColumnarError> {
        self.columns.push(entry, &record, &self.origin)?;
        // The columns have a copy, and encoding makes two more: a large document must not be there a fourth time.
        drop(record);
        if self.columns.bytes >= BATCH_BYTES {
            self.writer.write(&self.columns.take()?)?;
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<Bytes, ColumnarError> {
        if self.columns.rows > 0 {
            self.writer.write(&self.columns.take()?)?;
        }
        Ok(self.writer.into_inner()?.into())
    }
}

/// Columns that hold whole documents.
const DOCUMENTS: &[&[&str]] = &[&["message"], &["history", "list", "element"], &["audit", "list", "element"]];

fn arrow_writer(schema: &SchemaRef, packing: Packing) -> Result<ArrowWriter<Vec<u8>>, ColumnarError> {
    Ok(writer::in_memory(schema.clone(), DOCUMENTS, packing)?)
}

type Lists = ListBuilder<StringBuilder>;

fn lists() -> Lists {
    ListBuilder::new(StringBuilder::new()).with_field(Field::new("element", DataType::Utf8, true))
}

fn instants() -> TimestampMillisecondBuilder {
    TimestampMillisecondBuilder::new().with_timezone("UTC")
}

struct Columns {
    rows: usize,
    bytes: usize,
    message_id: StringBuilder,
    source_index: StringBuilder,
    timestamp: TimestampMillisecondBuilder,
    sender: StringBuilder,
    channel: StringBuilder,
    subject: StringBuilder,
    alert_count: UInt32Builder,
    no_alerts: BooleanBuilder,
    alert_ids: Lists,
    alert_severities: Lists,
    alert_categories: Lists,
    first_opened_at: TimestampMillisecondBuilder,
    last_closed_at: TimestampMillisecondBuilder,
    history_count: UInt32Builder,
    audit_count: UInt32Builder,
    source: StringBuilder,
    version: StringBuilder,
    archived_at: TimestampMillisecondBuilder,
    run_id: StringBuilder,
    message: StringBuilder,
    history: Lists,
    audit: Lists,
}

impl Default for Columns {
    fn default() -> Self {
        Columns {
            rows: 0,
            bytes: 0,
            message_id: StringBuilder::new(),
            source_index: StringBuilder::new(),
            timestamp: instants(),
            sender: StringBuilder::new(),
            channel: StringBuilder::new(),
            subject: StringBuilder::new(),
            alert_count: UInt32Builder::new(),
            no_alerts: BooleanBuilder::new(),
            alert_ids: lists(),
            alert_severities: lists(),
            alert_categories: lists(),
            first_opened_at: instants(),
            last_closed_at: instants(),
            history_count: UInt32Builder::new(),
            audit_count: UInt32Builder::new(),
            source: StringBuilder::new(),
            version: StringBuilder::new(),
            archived_at: instants(),
            run_id: StringBuilder::new(),
            message: StringBuilder::new(),
            history: lists(),
            audit: lists(),
        }
    }
}

impl Columns {
    fn push(&mut self, entry: &Entry, record: &Record, origin: &Origin) -> Result<(), ColumnarError> {
        let not_utf8 = || ColumnarError::NotUtf8 { id: entry.id.clone() };
        let message = std::str::from_utf8(&record.message).map_err(|_| not_utf8())?;
        let document = MessageFields::parse(&record.message).ok_or_else(not_utf8)?;
        let none = Vec::new();
        let alerts = match document.alerts() {
            Alerts::List(alerts) => alerts,
            Alerts::None | Alerts::Scalar => &none,
        };
        self.message_id.append_value(&entry.id);
        self.source_index.append_value(&entry.index);
        self.timestamp.append_value(entry.at.as_millisecond());
        self.sender.append_option(document.sender());
        self.channel.append_option(document.channel());
        self.subject.append_option(document.subject());
        self.alert_count.append_value(alerts.len() as u32);
        self.no_alerts.append_value(entry.outcome.no_alerts);
        self.alert_ids.append_value(alerts.iter().map(|alert| alert.alert_id.as_deref()));
        self.alert_severities.append_value(alerts.iter().map(|alert| alert.severity.as_deref()));
        self.alert_categories.append_value(alerts.iter().map(|alert| alert.category.as_deref()));
        self.first_opened_at
            .append_option(alerts.iter().filter_map(|alert| alert.opened_at).min().map(|at| at.as_millisecond()));
        self.last_closed_at
            .append_option(alerts.iter().filter_map(|alert| alert.closed_at).max().map(|at| at.as_millisecond()));
        self.history_count.append_value(record.history.len() as u32);
        self.audit_count.append_value(record.audit.len() as u32);
        self.source.append_value(entry.source.as_str());
        self.version.append_value(&entry.version);
        self.archived_at.append_value(origin.archived_at.as_millisecond());
        self.run_id.append_value(&origin.run_id);
        self.message.append_value(message);
        for (column, bodies) in [(&mut self.history, &record.history), (&mut self.audit, &record.audit)] {
            for body in bodies {
                column.values().append_value(std::str::from_utf8(body).map_err(|_| not_utf8())?);
                self.bytes += body.len();
            }
            column.append(true);
        }
        self.rows += 1;
        self.bytes += message.len();
        Ok(())
    }

    fn take(&mut self) -> Result<RecordBatch, ColumnarError> {
        let mut full = std::mem::take(self);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(full.message_id.finish()),
            Arc::new(full.source_index.finish()),
            Arc::new(full.timestamp.finish()),
            Arc::new(full.sender.finish()),
            Arc::new(full.channel.finish()),
            Arc::new(full.subject.finish()),
            Arc::new(full.alert_count.finish()),
            Arc::new(full.no_alerts.finish()),
            Arc::new(full.alert_ids.finish()),
            Arc::new(full.alert_severities.finish()),
            Arc::new(full.alert_categories.finish()),
            Arc::new(full.first_opened_at.finish()),
            Arc::new(full.last_closed_at.finish()),
            Arc::new(full.history_count.finish()),
            Arc::new(full.audit_count.finish()),
            Arc::new(full.source.finish()),
            Arc::new(full.version.finish()),
            Arc::new(full.archived_at.finish()),
            Arc::new(full.run_id.finish()),
            Arc::new(full.message.finish()),
            Arc::new(full.history.finish()),
            Arc::new(full.audit.finish()),
        ];
        Ok(RecordBatch::try_new(SCHEMA.clone(), columns)?)
    }
}

/// A row as it comes back out of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct ArchivedRow {
    pub identity: Identity,
    pub timestamp: Timestamp,
    /// sha256 of the message's bytes as they were archived, in hex.
    pub version: String,
    pub run_id: String,
    pub no_alerts: bool,
    pub record: Record,
}

/// Reads an object row by row, a few rows in memory at a time.
pub fn rows(object: Bytes) -> Result<impl Iterator<Item = Result<ArchivedRow, ColumnarError>>, ColumnarError> {
    let batches = ParquetRecordBatchReaderBuilder::try_new(object)?.with_batch_size(ROWS_READ).build()?;
    Ok(batches.flat_map(|batch| {
        let rows = batch
            .map_err(ColumnarError::from)
            .and_then(|batch| (0..batch.num_rows()).map(|row| archived_row(&batch, row)).collect());
        match rows {
            Ok(rows) => Vec::into_iter(rows).map(Ok).collect::<Vec<_>>(),
            Err(error) => vec![Err(error)],
        }
    }))
}

fn archived_row(batch: &RecordBatch, row: usize) -> Result<ArchivedRow, ColumnarError> {
    let text = |name| Ok::<_, ColumnarError>(strings(batch, name)?.value(row).to_owned());
    let bodies = |name: &'static str| {
        let column: &ListArray = batch
            .column_by_name(name)
            .and_then(|column| column.as_any().downcast_ref())
            .ok_or(ColumnarError::Column(name))?;
        let values = column.value(row);
        let values: &StringArray = values.as_any().downcast_ref().ok_or(ColumnarError::Column(name))?;
        Ok::<_, ColumnarError>(values.iter().flatten().map(|body| body.as_bytes().to_vec()).collect())
    };
    let instants: Option<&TimestampMillisecondArray> =
        batch.column_by_name("timestamp").and_then(|column| column.as_any().downcast_ref());
    let timestamp = instants
        .and_then(|column| Timestamp::from_millisecond(column.value(row)).ok())
        .ok_or(ColumnarError::Column("timestamp"))?;
    let flags: &BooleanArray = batch
        .column_by_name("no_alerts")
        .and_then(|column| column.as_any().downcast_ref())
        .ok_or(ColumnarError::Column("no_alerts"))?;
    Ok(ArchivedRow {
        identity: Identity::new(text("source_index")?, text("message_id")?),
        timestamp,
        version: text("version")?,
        run_id: text("run_id")?,
        no_alerts: flags.value(row),
        record: Record { message: text("message")?.into_bytes(), history: bodies("history")?, audit: bodies("audit")? },
    })
}

/// An object in two: the rows that stay and the rows that were asked for.
pub struct Split {
    pub kept: Bytes,
    pub kept_rows: u64,
    pub taken: Bytes,
}

/// Takes the rows of `identities` out of an object; `None` when it holds none of them. Both parts have the columns of
/// the object, which may be older than a column of today. They are packed for daily use, also where the object was
/// packed for cold storage: what changes is not cold.
pub fn split(object: Bytes, identities: &std::collections::HashSet<Identity>) -> Result<Option<Split>, ColumnarError> {
    let object = ParquetRecordBatchReaderBuilder::try_new(object)?.with_batch_size(ROWS_READ);
    let packing = Packing::BALANCED;
    let (mut kept, mut taken) = (arrow_writer(object.schema(), packing)?, arrow_writer(object.schema(), packing)?);
    let (mut any, mut kept_rows) = (false, 0);
    for batch in object.build()? {
        let batch = batch?;
        let (ids, indices) = (strings(&batch, "message_id")?, strings(&batch, "source_index")?);
        let is_taken =
            |row: &u32| identities.contains(&Identity::new(indices.value(*row as usize), ids.value(*row as usize)));
        let (away, here): (Vec<u32>, Vec<u32>) = (0..batch.num_rows() as u32).partition(is_taken);
        any |= !away.is_empty();
        kept_rows += here.len() as u64;
        for (writer, rows) in [(&mut kept, here), (&mut taken, away)] {
            if !rows.is_empty() {
                writer.write(&pick(&batch, rows)?)?;
            }
        }
    }
    if !any {
        return Ok(None);
    }
    Ok(Some(Split { kept: kept.into_inner()?.into(), kept_rows, taken: taken.into_inner()?.into() }))
}

pub fn row_count(object: Bytes) -> Result<u64, ColumnarError> {
    Ok(ParquetRecordBatchReaderBuilder::try_new(object)?.metadata().file_metadata().num_rows() as u64)
}

fn pick(batch: &RecordBatch, rows: Vec<u32>) -> Result<RecordBatch, ColumnarError> {
    let rows = UInt32Array::from(rows);
    let columns = batch
        .columns()
        .iter()
        .map(|column| arrow_select::take::take(column, &rows, None))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}

fn strings<'a>(batch: &'a RecordBatch, name: &'static str) -> Result<&'a StringArray, ColumnarError> {
    let column = batch.column_by_name(name).and_then(|column| column.as_any().downcast_ref());
    column.ok_or(ColumnarError::Column(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alerts::message::{
        classification::{Rules, classify},
        document,
    };
    use alerts::source::Source;
    use identity::instant;
    use parquet::{arrow::arrow_reader::ArrowReaderOptions, file::metadata::PageIndexPolicy};
    use std::collections::HashSet;

    fn entry(id: &str, source: &str) -> Entry {
        let outcome = classify(&Rules::default(), id, source.as_bytes());
        let at = instant::parse("2024-07-01").expect("instant");
        Entry {
            related: String::new(),
            related_bytes: 0,
            index: "messages".into(),
            id: id.into(),
            at,
            version: document::version(source.as_bytes()),
            bytes: source.len() as u64,
            source: Source::Opensearch,
            written: None,
            outcome,
        }
    }

    pub fn object(sources: &[(&str, &str)]) -> Bytes {
        let origin = Origin { run_id: "r1".into(), archived_at: instant::parse("2026-01-01").expect("instant") };
        let mut writer = ObjectWriter::new(origin).expect("writer");
        for (id, source) in sources {
            let record =
                Record { message: source.as_bytes().to_vec(), history: vec![b"{\"n\":1.0}".to_vec()], audit: vec![] };
            writer.push(&entry(id, source), record).expect("row");
        }
        writer.finish().expect("object")
    }

    fn messages(object: Bytes) -> Vec<String> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(object).expect("parquet").build().expect("reader");
        let batches: Vec<_> = reader.map(|batch| batch.expect("batch")).collect();
        batches
            .iter()
            .flat_map(|batch| {
                strings(batch, "message")
                    .expect("column")
                    .iter()
                    .map(|text| text.expect("value").to_owned())
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    const A: &str = "{\"message_id\":\"a\", \"big\":9007199254740993,\n\"alerts\":[{\"status\":\"closed\",\"severity\":3,\"opened_at\":1719792000000}]}";
    const B: &str = r#"{"alerts":[],"message_id":"b","float":1.0,"lone":"\ud800"}"#;

    #[test]
    fn documents_come_back_byte_for_byte() {
        assert_eq!(messages(object(&[("a", A), ("b", B)])), [A, B]);
    }

    #[test]
    fn a_row_comes_back_with_what_belongs_to_it() {
        let rows: Vec<_> = rows(object(&[("a", A)])).expect("object").collect::<Result<_, _>>().expect("rows");
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].identity.id.as_str(), instant::date(rows[0].timestamp).as_str()), ("a", "2024-07-01"));
        assert_eq!(rows[0].record, Record { message: A.into(), history: vec![b"{\"n\":1.0}".to_vec()], audit: vec![] });
        assert_eq!(rows[0].version, document::version(A.as_bytes()));
    }

    #[test]
    fn the_same_rows_make_the_same_bytes() {
        assert_eq!(object(&[("a", A), ("b", B)]), object(&[("a", A), ("b", B)]));
    }

    #[test]
    fn documents_that_repeat_each_other_far_apart_are_compressed_together() {
        // No two of them have anything in common, but each comes twice, 1.5 MB apart.
        let mut state = 1u64;
        let mut digits = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            format!("{state:016x}")
        };
        let body = |_| (0..1600).map(|_| digits()).collect::<String>();
        let sources: Vec<String> =
            (0..60).map(body).map(|body| format!("{{\"alerts\":[],\"x\":\"{body}\"}}")).collect();
        let once: Vec<(&str, &str)> = sources.iter().map(|source| ("a", source.as_str())).collect();
        let (once, twice) = (object(&once).len(), object(&[once.as_slice(), &once].concat()).len());
        assert!(twice < once + once / 4, "{once} bytes, and {twice} with everything a second time");
    }

    #[test]
    fn one_row_is_read_with_one_page_of_documents_and_not_with_all_of_them() {
        let sources: Vec<String> =
            (1000..2500).map(|n| format!("{{\"alerts\":[],\"x\":\"{}\"}}", n.to_string().repeat(6_000))).collect();
        let rows: Vec<(&str, &str)> = sources.iter().map(|source| ("a", source.as_str())).collect();
        let raw: usize = sources.iter().map(String::len).sum();
        let taken = HashSet::from([Identity::new("messages", "none of them"), Identity::new("messages", "b")]);
        let split = split(object(&[rows.as_slice(), &[("b", B)]].concat()), &taken).expect("split").expect("some");
        for object in [object(&rows), split.kept] {
            let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
            let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(object, options).expect("parquet");
            let (metadata, message) = (reader.metadata(), SCHEMA.index_of("message").expect("a column"));
            let groups = metadata.row_groups();
            for (at, group) in groups.iter().enumerate() {
                let index = metadata.page_index_for_row_group(at);
                assert_eq!(index.offset_index(message).expect("an index").page_locations().len(), 1);
                let bytes = group.column(message).uncompressed_size();
                assert!(bytes < 11 << 20, "{bytes} raw bytes of documents");
            }
            let expected = raw.div_ceil(10 << 20);
            assert!((expected..expected + 2).contains(&groups.len()), "{} row groups for {raw} bytes", groups.len());
        }
    }

    #[test]
    fn a_row_can_be_taken_out_and_an_emptied_object_still_opens() {
        let identities = HashSet::from([Identity::new("messages", "a")]);
        let Split { kept, kept_rows, taken } =
            split(object(&[("a", A), ("b", B)]), &identities).expect("split").expect("some");
        assert_eq!((messages(kept.clone()), kept_rows, messages(taken)), (vec![B.to_owned()], 1, vec![A.to_owned()]));
        assert!(split(kept, &identities).expect("split").is_none());
        let Split { kept: empty, .. } = split(object(&[("a", A)]), &identities).expect("split").expect("some");
        assert!(messages(empty).is_empty());
    }

    /// An object as it was written before there was a column `subject`.
    fn before_subject(object: Bytes) -> Bytes {
        let columns: Vec<usize> =
            (0..SCHEMA.fields().len()).filter(|at| SCHEMA.field(*at).name() != "subject").collect();
        let mut writer =
            arrow_writer(&Arc::new(SCHEMA.project(&columns).expect("columns")), Packing::BALANCED).expect("writer");
        for batch in ParquetRecordBatchReaderBuilder::try_new(object).expect("parquet").build().expect("reader") {
            writer.write(&batch.expect("batch").project(&columns).expect("columns")).expect("written");
        }
        writer.into_inner().expect("object").into()
    }

    #[test]
    fn an_object_from_before_a_column_keeps_its_columns_when_a_row_is_taken_out() {
        let identities = HashSet::from([Identity::new("messages", "a")]);
        let Split { kept, taken, .. } =
            split(before_subject(object(&[("a", A), ("b", B)])), &identities).expect("split").expect("some");
        assert_eq!(kept, before_subject(object(&[("b", B)])));
        assert_eq!(taken, before_subject(object(&[("a", A)])));
        assert_eq!(rows(kept).expect("object").filter(Result::is_ok).count(), 1);
    }
}

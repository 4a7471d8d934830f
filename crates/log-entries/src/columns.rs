use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMillisecondType};
use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use jiff::Timestamp;
use logs::Entry;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use std::sync::{Arc, LazyLock};

#[derive(Debug, thiserror::Error)]
pub enum ColumnsError {
    #[error("Parquet")]
    Parquet(#[from] ParquetError),
    #[error("Arrow")]
    Arrow(#[from] ArrowError),
    #[error("the object has no column `{0}` of the entries' type")]
    Column(&'static str),
}

/// The columns, in order. `date` is the partition and no column.
static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let text = |name: &str, nullable: bool| Field::new(name, DataType::Utf8, nullable);
    Arc::new(Schema::new(vec![
        Field::new("time", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true),
        text("service", false),
        text("level", false),
        text("logger", true),
        text("category", false),
        text("fingerprint", false),
        text("exception", true),
        text("message", false),
        text("stack", true),
        text("object", false),
        Field::new("line", DataType::Int64, false),
        Field::new("byte", DataType::Int64, false),
    ]))
});

/// An entry as a reader gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct EntryRow {
    pub time: Option<Timestamp>,
    pub service: String,
    /// `ERROR` or `FATAL`.
    pub level: String,
    pub logger: Option<String>,
    pub category: String,
    pub fingerprint: String,
    pub exception: Option<String>,
    pub message: String,
    pub stack: Option<String>,
    /// Key of the log object.
    pub object: String,
    pub line: u64,
}

/// One Parquet object with the entries of one log object.
pub fn write(service: &str, object: &str, entries: &[Entry]) -> Result<Bytes, ColumnsError> {
    fn texts<'e>(entries: &'e [Entry], text: impl Fn(&'e Entry) -> Option<&'e str>) -> ArrayRef {
        Arc::new(entries.iter().map(text).collect::<StringArray>())
    }
    let same = |text: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(entries.iter().map(|_| text))) };
    let number = |number: fn(&Entry) -> u64| -> ArrayRef {
        Arc::new(entries.iter().map(|entry| i64::try_from(number(entry)).ok()).collect::<Int64Array>())
    };
    let times =
        entries.iter().map(|entry| entry.time.map(|time| time.as_millisecond())).collect::<TimestampMillisecondArray>();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(times.with_timezone("UTC")),
        same(service),
        texts(entries, |entry| Some(entry.level.as_str())),
        texts(entries, |entry| entry.logger.as_deref()),
        texts(entries, |entry| Some(&entry.category)),
        texts(entries, |entry| Some(&entry.fingerprint)),
        texts(entries, |entry| entry.exception.as_deref()),
        texts(entries, |entry| Some(&entry.message)),
        texts(entries, |entry| entry.stack.as_deref()),
        same(object),
        number(|entry| entry.line),
        number(|entry| entry.byte),
    ];
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_created_by("alert-archive".into())
        .build();
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), SCHEMA.clone(), options)?;
    writer.write(&RecordBatch::try_new(SCHEMA.clone(), columns)?)?;
    Ok(writer.into_inner()?.into())
}

/// All rows of one Parquet object.
pub fn read(body: Bytes) -> Result<Vec<EntryRow>, ColumnsError> {
    let mut rows = Vec::new();
    for batch in ParquetRecordBatchReaderBuilder::try_new(body)?.build()? {
        let batch = batch?;
        let text = |name: &'static str| {
            let column = batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
            column.ok_or(ColumnsError::Column(name))
        };
        let times =
            batch.column_by_name("time").and_then(|column| column.as_primitive_opt::<TimestampMillisecondType>());
        let times = times.ok_or(ColumnsError::Column("time"))?;
        let lines = batch.column_by_name("line").and_then(|column| column.as_primitive_opt::<Int64Type>());
        let lines = lines.ok_or(ColumnsError::Column("line"))?;
        let (service, level, logger) = (text("service")?, text("level")?, text("logger")?);
        let (category, fingerprint, exception) = (text("category")?, text("fingerprint")?, text("exception")?);
        let (message, stack, object) = (text("message")?, text("stack")?, text("object")?);
        let some = |column: &StringArray, at: usize| column.is_valid(at).then(|| column.value(at).to_owned());
        for at in 0..batch.num_rows() {
            rows.push(EntryRow {
                time: times.is_valid(at).then(|| Timestamp::from_millisecond(times.value(at)).unwrap_or_default()),
                service: service.value(at).to_owned(),
                level: level.value(at).to_owned(),
                logger: some(logger, at),
                category: category.value(at).to_owned(),
                fingerprint: fingerprint.value(at).to_owned(),
                exception: some(exception, at),
                message: message.value(at).to_owned(),
                stack: some(stack, at),
                object: object.value(at).to_owned(),
                line: lines.value(at).unsigned_abs(),
            });
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use logs::Level;

    #[test]
    fn entries_come_back_from_parquet() {
        let entry = Entry {
            time: Some("2024-07-01T10:00:00.123Z".parse().expect("an instant")),
            level: Level::Fatal,
            logger: Some("a.B".into()),
            message: "nul \0 and ü".into(),
            exception: None,
            stack: Some("at x\nat y".into()),
            category: "other".into(),
            fingerprint: "0123".into(),
            line: 7,
            byte: 99,
        };
        let undated = Entry { time: None, stack: None, ..entry.clone() };
        let rows = read(write("shop", "shop/a.gz", &[entry, undated]).expect("written")).expect("read");
        assert_eq!(rows.len(), 2);
        let first = &rows[0];
        assert_eq!((first.level.as_str(), first.line, first.message.as_str()), ("FATAL", 7, "nul \0 and ü"));
        assert_eq!(first.time.map(|time| time.to_string()).as_deref(), Some("2024-07-01T10:00:00.123Z"));
        assert_eq!((rows[1].time, &rows[1].stack, rows[1].object.as_str()), (None, &None, "shop/a.gz"));
    }
}

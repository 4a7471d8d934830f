//! How every Parquet object of the project is written: zstd, row groups that bound the memory, no copies of documents
//! in statistics. The schema is the caller's; no pipeline's type may enter.

use arrow_schema::SchemaRef;
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::properties::{EnabledStatistics, WriterProperties},
    schema::types::ColumnPath,
};

/// How documents are packed (figures: bench/RESULTS.md).
#[derive(Clone, Copy, Debug)]
pub struct Packing {
    /// Raw bytes of a row group, in which the documents are one page. A page is compressed on its own, and messages have
    /// much in common with those of the same hours: pages of 1 MiB make objects a tenth larger. A reader that looks for
    /// one row reads its row group's pages, and a writer holds one row group.
    row_group_bytes: usize,
    /// Of zstd.
    level: i32,
}

impl Packing {
    /// Level 5 takes twice the instructions for 3 % less.
    pub const BALANCED: Packing = Packing { row_group_bytes: 10 << 20, level: 4 };
    /// A fifth smaller, for more than three times the time. A larger row group saves as much as the level above 9 does,
    /// but is most of an object.
    pub const COLD: Packing = Packing { row_group_bytes: 16 << 20, level: 10 };
}

/// A writer of one object that is collected in memory: at most a row group of raw rows, and the compressed bytes so
/// far. `documents` are paths of columns that hold whole documents; queries read them, and never search by them.
pub fn in_memory(
    schema: SchemaRef,
    documents: &[&[&str]],
    packing: Packing,
) -> Result<ArrowWriter<Vec<u8>>, ParquetError> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_max_row_group_bytes(Some(packing.row_group_bytes))
        .set_created_by("alert-archive".into());
    for path in documents {
        let column = ColumnPath::new(path.iter().map(|part| (*part).to_owned()).collect());
        // Statistics and dictionaries of whole documents would hold them twice, and no query uses them.
        properties = properties
            .set_column_compression(column.clone(), Compression::ZSTD(ZstdLevel::try_new(packing.level)?))
            .set_column_data_page_size_limit(column.clone(), packing.row_group_bytes)
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_statistics_enabled(column, EnabledStatistics::None);
    }
    // The Parquet schema says it all; Arrow's own copy of it would be a third of a small object.
    let options = ArrowWriterOptions::new().with_properties(properties.build()).with_skip_arrow_metadata(true);
    ArrowWriter::try_new_with_options(Vec::new(), schema, options)
}

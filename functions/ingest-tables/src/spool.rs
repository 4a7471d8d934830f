//! What was read, on the function's own disk, spread over parts by the digests of keys. One part after the other is
//! then compared with what is known, so that memory depends on the size of a part, and never on the number of rows.

use sha2::{Digest as _, Sha256};
use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
};

/// 10 million keys are 40,000 a part.
pub const PARTS: usize = 256;
const BUFFER: usize = 8 << 10;

/// 16 bytes of a sha256: of a key, or of a line.
pub type Digest = [u8; 16];

pub fn digest(bytes: &[u8]) -> Digest {
    let mut digest = [0; 16];
    digest.copy_from_slice(&Sha256::digest(bytes)[..16]);
    digest
}

/// In the place of the key of a row where a part of it is null. Many rows may be so, and each is known by its line.
pub fn key_of_line(line: &[u8]) -> Vec<u8> {
    format!("\"{}\"", hex::encode(digest(line))).into_bytes()
}

/// Whether a key is one that the database can be asked for.
pub fn is_whole(key: &[u8]) -> bool {
    key.starts_with(b"{")
}

/// The comparison of keys goes over them slice by slice.
pub const SLICES: usize = 256;

/// The slice of a key as it is spelled, which the database can tell, too.
pub fn slice_of(key: &[u8]) -> usize {
    usize::from(digest(key)[0])
}

/// The part of a key, however it is spelled. Parts are in the order of digests.
pub fn part_of(key: &[u8]) -> usize {
    usize::from(digest(&canonical(key))[0])
}

/// A key, as JSON, with one spelling for each number: PostgreSQL holds 1.0 and 1.00 for one key, and so -0 and 0.
pub fn canonical(key: &[u8]) -> Vec<u8> {
    let (mut canonical, mut rest) = (Vec::with_capacity(key.len()), key);
    while let Some(first) = rest.first() {
        let end = match first {
            b'"' => string_end(rest),
            b'-' | b'0'..=b'9' => {
                let is_number = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
                rest.iter().position(|byte| !is_number(byte)).unwrap_or(rest.len())
            }
            _ => 1,
        };
        let (token, behind) = rest.split_at(end);
        let is_decimal = *first != b'"' && token.contains(&b'.') && !token.contains(&b'e');
        let zeros = if is_decimal { token.iter().rev().take_while(|byte| **byte == b'0').count() } else { 0 };
        let token = &token[..token.len() - zeros];
        let token = if is_decimal { token.strip_suffix(b".").unwrap_or(token) } else { token };
        canonical.extend_from_slice(if token == b"-0" { b"0" } else { token });
        rest = behind;
    }
    canonical
}

/// Behind the quotation mark that ends the string at the start of `json`.
fn string_end(json: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = json.get(at) {
        at += if *byte == b'\\' { 2 } else { 1 };
        if *byte == b'"' {
            break;
        }
    }
    at.min(json.len())
}

#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A line of an object that an attempt wrote which then died: it is in the bucket already.
    Adopted { key: Vec<u8>, line: Digest },
    /// As above, of a deleted key.
    AdoptedDeletion { key: Vec<u8> },
    /// A row as it was read; the cursor in microseconds since 1970, where it is finite.
    Row { key: Vec<u8>, line: Vec<u8>, cursor: Option<i64> },
    /// A key that the comparison found.
    Present { key: Vec<u8> },
}

impl Record {
    fn key(&self) -> &[u8] {
        match self {
            Record::Adopted { key, .. }
            | Record::AdoptedDeletion { key }
            | Record::Row { key, .. }
            | Record::Present { key } => key,
        }
    }
}

pub struct Spool {
    parts: Vec<BufWriter<File>>,
    /// Of all records.
    pub bytes: u64,
}

impl Spool {
    pub fn new() -> io::Result<Self> {
        let part = |_| Ok::<_, io::Error>(BufWriter::with_capacity(BUFFER, tempfile::tempfile()?));
        Ok(Spool { parts: (0..PARTS).map(part).collect::<Result<_, _>>()?, bytes: 0 })
    }

    pub fn push(&mut self, record: &Record) -> io::Result<()> {
        let to = &mut self.parts[part_of(record.key())];
        let (kind, line, cursor): (u8, &[u8], Option<i64>) = match record {
            Record::Adopted { line, .. } => (0, line, None),
            Record::AdoptedDeletion { .. } => (1, &[], None),
            Record::Row { line, cursor, .. } => (2, line, *cursor),
            Record::Present { .. } => (3, &[], None),
        };
        to.write_all(&[kind, u8::from(cursor.is_some())])?;
        to.write_all(&cursor.unwrap_or_default().to_le_bytes())?;
        for bytes in [record.key(), line] {
            to.write_all(&(bytes.len() as u32).to_le_bytes())?;
            to.write_all(bytes)?;
        }
        self.bytes += (record.key().len() + line.len()) as u64;
        Ok(())
    }

    /// The records of a part in the order in which they came.
    pub fn part(&mut self, part: usize) -> io::Result<impl Iterator<Item = io::Result<Record>>> {
        let writer = &mut self.parts[part];
        writer.flush()?;
        let mut file = writer.get_mut().try_clone()?;
        let mut left = file.metadata()?.len();
        file.seek(SeekFrom::Start(0))?;
        let mut reader = BufReader::new(file);
        Ok(std::iter::from_fn(move || {
            (left > 0).then(|| {
                let (record, bytes) = read(&mut reader)?;
                left = left.saturating_sub(bytes);
                Ok(record)
            })
        }))
    }
}

fn read(from: &mut impl Read) -> io::Result<(Record, u64)> {
    let mut head = [0; 10];
    from.read_exact(&mut head)?;
    let mut bytes = |length: u64| {
        let mut size = [0; 4];
        from.read_exact(&mut size)?;
        let size = u32::from_le_bytes(size);
        let mut bytes = vec![0; size as usize];
        from.read_exact(&mut bytes)?;
        Ok::<_, io::Error>((bytes, length + 4 + u64::from(size)))
    };
    let (key, length) = bytes(head.len() as u64)?;
    let (line, length) = bytes(length)?;
    let mut cursor = [0; 8];
    cursor.copy_from_slice(&head[2..]);
    let record = match head[0] {
        0 => Record::Adopted { key, line: line.try_into().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))? },
        1 => Record::AdoptedDeletion { key },
        2 => Record::Row { key, line, cursor: (head[1] == 1).then_some(i64::from_le_bytes(cursor)) },
        _ => Record::Present { key },
    };
    Ok((record, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_a_key_have_one_spelling_and_strings_stay() {
        for (key, expected) in [
            (r#"{"id":1.50,"b":-0.00,"c":100}"#, r#"{"id":1.5,"b":0,"c":100}"#),
            (r#"{"1.0":"1.0","x\"2.0":[3.0,-0],"e":1e+20}"#, r#"{"1.0":"1.0","x\"2.0":[3,0],"e":1e+20}"#),
            (r#"{"id":0.0001000,"n":-10.0,"t":"\\"}"#, r#"{"id":0.0001,"n":-10,"t":"\\"}"#),
            ("\"open", "\"open"),
        ] {
            assert_eq!(String::from_utf8(canonical(key.as_bytes())).expect("text"), expected);
        }
    }

    #[test]
    fn records_come_back_in_their_order_within_a_key() {
        let mut spool = Spool::new().expect("spool");
        let records: Vec<Record> = (0..1000_u32)
            .map(|n| {
                let key = (n % 300).to_string().into_bytes();
                match n % 4 {
                    0 => Record::Row { key, line: vec![7; n as usize], cursor: (n % 3 == 0).then_some(i64::from(n)) },
                    1 => Record::Adopted { key, line: [n as u8; 16] },
                    2 => Record::AdoptedDeletion { key },
                    _ => Record::Present { key },
                }
            })
            .collect();
        for record in &records {
            spool.push(record).expect("record");
        }
        let mut found = Vec::new();
        for part in 0..PARTS {
            let of_part: Vec<Record> = spool.part(part).expect("part").map(|record| record.expect("record")).collect();
            let expected = records.iter().filter(|record| part_of(record.key()) == part);
            assert_eq!(of_part.iter().collect::<Vec<_>>(), expected.collect::<Vec<_>>());
            found.extend(of_part);
        }
        assert_eq!(found.len(), records.len());
    }
}

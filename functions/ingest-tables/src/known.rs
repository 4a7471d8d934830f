//! All keys that lie in the ingestion bucket, each with the digest of its newest line: one object a table, compressed,
//! a line a key, in the order of [`part_of`]. It is read and written part by part.

use crate::{
    Error,
    spool::{Digest, part_of},
};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
};
use storage::Objects;

/// Bytes of a piece that is uploaded.
const PIECE: usize = 1 << 20;

type Decoder = BufReader<zstd::Decoder<'static, BufReader<File>>>;

pub struct KnownReader {
    lines: Option<Decoder>,
    /// The first line of a part that was not asked for yet.
    ahead: Option<(Vec<u8>, Digest)>,
}

impl KnownReader {
    /// `key`: `None` where nothing is known.
    pub async fn open(objects: &Objects, key: Option<&str>) -> Result<Self, Error> {
        let Some(key) = key else { return Ok(KnownReader { lines: None, ahead: None }) };
        let mut file = tempfile::tempfile()?;
        let mut reader = objects.open(key, None).await?;
        while let Some(piece) = reader.chunk().await? {
            file.write_all(&piece)?;
        }
        Ok(KnownReader::over(file)?)
    }

    fn over(mut file: File) -> io::Result<Self> {
        file.seek(SeekFrom::Start(0))?;
        Ok(KnownReader { lines: Some(BufReader::new(zstd::Decoder::new(file)?)), ahead: None })
    }

    /// The keys of a part. Parts are asked for in their order.
    pub fn part(&mut self, part: usize) -> io::Result<HashMap<Vec<u8>, Digest>> {
        let mut known = HashMap::new();
        loop {
            let next = match self.ahead.take() {
                Some(next) => Some(next),
                None => self.line()?,
            };
            let Some((key, line)) = next else { return Ok(known) };
            if part_of(&key) != part {
                self.ahead = Some((key, line));
                return Ok(known);
            }
            known.insert(key, line);
        }
    }

    fn line(&mut self) -> io::Result<Option<(Vec<u8>, Digest)>> {
        let Some(lines) = &mut self.lines else { return Ok(None) };
        let mut line = Vec::new();
        if lines.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let damaged = || io::Error::from(io::ErrorKind::InvalidData);
        let text = line.strip_suffix(b"\n").filter(|line| line.len() > 32).ok_or_else(damaged)?;
        let (digest, key) = text.split_at(32);
        let mut bytes = [0; 16];
        hex::decode_to_slice(digest, &mut bytes).map_err(|_| damaged())?;
        Ok(Some((key.to_vec(), bytes)))
    }
}

pub struct KnownWriter {
    encoder: zstd::Encoder<'static, BufWriter<File>>,
}

impl KnownWriter {
    pub fn new() -> io::Result<Self> {
        Ok(KnownWriter { encoder: zstd::Encoder::new(BufWriter::new(tempfile::tempfile()?), 1)? })
    }

    /// Adds the keys of the next part. A key is JSON, so that it has no line feed.
    pub fn part(&mut self, known: &HashMap<Vec<u8>, Digest>) -> io::Result<()> {
        for (key, line) in known {
            self.encoder.write_all(hex::encode(line).as_bytes())?;
            self.encoder.write_all(key)?;
            self.encoder.write_all(b"\n")?;
        }
        Ok(())
    }

    /// What was written.
    pub fn reread(self) -> io::Result<KnownReader> {
        KnownReader::over(self.finish()?)
    }

    fn finish(self) -> io::Result<File> {
        self.encoder.finish()?.into_inner().map_err(io::IntoInnerError::into_error)
    }

    pub async fn put(self, objects: &Objects, key: &str) -> Result<(), Error> {
        let mut file = self.finish()?;
        file.seek(SeekFrom::Start(0))?;
        let mut upload = objects.upload(key, "application/zstd");
        let mut piece = vec![0; PIECE];
        loop {
            let length = file.read(&mut piece)?;
            if length == 0 {
                upload.finish().await?;
                return Ok(());
            }
            upload.write(&piece[..length]).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::{PARTS, digest};
    use network::Calm;
    use storage::MemoryObjects;

    #[tokio::test]
    async fn what_is_known_comes_back_part_by_part_whatever_the_keys_are() {
        let objects = Objects::over(MemoryObjects::new(Calm::shared()).bucket("b"), "b");
        // So few that most parts are empty, the first and the last ones perhaps too.
        let keys = (0..40).map(|n| format!("{{\"id\":\"{}\\n\",\"ü\":{n}}}", "x".repeat(n * 7)).into_bytes());
        let keys: Vec<(Vec<u8>, Digest)> =
            keys.map(|key| (key.clone(), digest(&[&key[..], b"line"].concat()))).collect();
        let of_part = |part| -> HashMap<Vec<u8>, Digest> {
            keys.iter().filter(|(key, _)| part_of(key) == part).cloned().collect()
        };
        let mut writer = KnownWriter::new().expect("writer");
        for part in 0..PARTS {
            writer.part(&of_part(part)).expect("part");
        }
        writer.put(&objects, "known").await.expect("put");
        let mut reader = KnownReader::open(&objects, Some("known")).await.expect("known");
        for part in 0..PARTS {
            assert_eq!(reader.part(part).expect("part"), of_part(part), "part {part}");
        }
        let mut nothing = KnownReader::open(&objects, None).await.expect("nothing");
        assert!((0..PARTS).all(|part| nothing.part(part).expect("part").is_empty()));
    }

    #[tokio::test]
    async fn what_is_no_list_of_keys_is_an_error_and_never_an_empty_list() {
        let objects = Objects::over(MemoryObjects::new(Calm::shared()).bucket("b"), "b");
        let line = format!("{}{{\"id\":1}}\n", "0".repeat(32));
        let whole = zstd::encode_all(line.as_bytes(), 1).expect("zstd");
        let short = zstd::encode_all(&line.as_bytes()[2..20], 1).expect("zstd");
        let strange = zstd::encode_all(line.replacen('0', "g", 1).as_bytes(), 1).expect("zstd");
        for damaged in [whole[..whole.len() - 4].to_vec(), b"{}".to_vec(), short, strange] {
            objects.put("known", damaged.clone(), "application/zstd").await.expect("put");
            let opened = KnownReader::open(&objects, Some("known")).await;
            let read = opened.map(|mut reader| (0..PARTS).try_for_each(|part| reader.part(part).map(|_| ())));
            assert!(!matches!(read, Ok(Ok(()))), "{damaged:?}");
        }
    }
}

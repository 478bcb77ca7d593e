//! A file that is compressed while it is written.

use std::io::{self, Write};

use flate2::write::GzEncoder;

use super::compression::FileCompression;
use super::shards::ShardOptions;
use super::storage::Writing;
use crate::error::{Error, Result};

/// What gzip keeps of a file that is open, about: its window and its tables.
const GZIP_BYTES: u64 = 300 << 10;
/// What zstd keeps of one: a window of 2 MiB, its tables, and a block.
const ZSTD_BYTES: u64 = 4 << 20;

/// A file being written, compressed or as it is.
pub(crate) struct CompressedFile(Form);

enum Form {
    Plain(Counted),
    Gzip(GzEncoder<Counted>),
    Zstd(zstd::stream::write::Encoder<'static, Counted>),
}

impl CompressedFile {
    pub(crate) fn new(file: Box<dyn Writing>, compression: FileCompression) -> io::Result<Self> {
        let file = Counted { file, n_bytes: 0 };
        Ok(Self(match compression {
            FileCompression::None => Form::Plain(file),
            FileCompression::Gzip => Form::Gzip(gzip(file)),
            FileCompression::Zstd => Form::Zstd(zstd(file)?),
        }))
    }

    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.0 {
            Form::Plain(file) => file.write_all(bytes),
            Form::Gzip(file) => file.write_all(bytes),
            Form::Zstd(file) => file.write_all(bytes),
        }
    }

    /// How many bytes the file has so far, without those that the compression still holds.
    pub(crate) fn n_bytes(&self) -> u64 {
        match &self.0 {
            Form::Plain(file) => file.n_bytes,
            Form::Gzip(file) => file.get_ref().n_bytes,
            Form::Zstd(file) => file.get_ref().n_bytes,
        }
    }

    /// How many bytes of memory the compression takes, about.
    pub(crate) fn held_bytes(&self) -> u64 {
        match &self.0 {
            Form::Plain(_) => 0,
            Form::Gzip(_) => GZIP_BYTES,
            Form::Zstd(_) => ZSTD_BYTES,
        }
    }

    /// Ends the compressed data and gives the file back.
    pub(crate) fn finish(self) -> io::Result<Box<dyn Writing>> {
        let counted = match self.0 {
            Form::Plain(file) => file,
            Form::Gzip(file) => file.finish()?,
            Form::Zstd(file) => file.finish()?,
        };
        Ok(counted.file)
    }
}

/// Bytes that stand alone before other compressed data, as a header does.
pub(crate) fn compressed(bytes: &[u8], compression: FileCompression) -> io::Result<Vec<u8>> {
    match compression {
        FileCompression::None => Ok(bytes.to_vec()),
        FileCompression::Gzip => {
            let mut encoder = gzip(Vec::new());
            encoder.write_all(bytes)?;
            encoder.finish()
        }
        FileCompression::Zstd => {
            let mut encoder = zstd(Vec::new())?;
            encoder.write_all(bytes)?;
            encoder.finish()
        }
    }
}

/// How files at this place are compressed: as asked, or as the name of the one file says.
///
/// # Errors
/// If the name of the one file says otherwise than what was asked.
pub(crate) fn compression_at(
    options: &ShardOptions,
    asked: Option<FileCompression>,
) -> Result<FileCompression> {
    if !options.one_file {
        return Ok(asked.unwrap_or_default());
    }
    let target = options.target.to_string_lossy();
    let named = FileCompression::of_name(&target);
    match asked {
        Some(asked) if asked != named => Err(Error::pipeline(format!(
            "{target:?} is named as {}, but {} is asked for",
            named.name(),
            asked.name()
        ))
        .with_hint("Name the file so that it can be read again, or leave `.compression(…)` out.")),
        _ => Ok(named),
    }
}

fn gzip<W: Write>(file: W) -> GzEncoder<W> {
    GzEncoder::new(file, flate2::Compression::default())
}

fn zstd<W: Write>(file: W) -> io::Result<zstd::stream::write::Encoder<'static, W>> {
    let mut encoder = zstd::stream::write::Encoder::new(file, zstd::DEFAULT_COMPRESSION_LEVEL)?;
    encoder.include_checksum(true)?;
    Ok(encoder)
}

/// A file, with a count of what was written to it.
struct Counted {
    file: Box<dyn Writing>,
    n_bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.n_bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectors::compression::PlainBytes;
    use crate::connectors::storage::{LocalFile, StoredFile};
    use crate::connectors::test_folder::TestFolder;
    use std::io::Read;

    #[test]
    fn what_is_written_in_pieces_is_read_again_and_members_can_be_put_together() {
        let folder = TestFolder::new();
        let text: Vec<u8> = (0..300_000_u32)
            .flat_map(|i| i.wrapping_mul(2_654_435_769).to_string().into_bytes())
            .collect();
        for (compression, name) in [
            (FileCompression::None, "a.csv"),
            (FileCompression::Gzip, "a.csv.gz"),
            (FileCompression::Zstd, "a.csv.zst"),
        ] {
            let path = folder.path(name);
            let mut both = compressed(b"header\n", compression).unwrap();
            let shard = LocalFile::create_new(&folder.path("shard")).unwrap();
            let mut file = CompressedFile::new(Box::new(shard), compression).unwrap();
            text.chunks(10_007)
                .for_each(|part| file.write_all(part).unwrap());
            let (so_far, held) = (file.n_bytes(), file.held_bytes());
            let n_bytes = file.finish().unwrap().close().unwrap().n_bytes();
            assert!(so_far <= n_bytes, "{so_far} of {n_bytes} bytes");
            assert_eq!(held == 0, compression == FileCompression::None);
            both.extend(std::fs::read(folder.path("shard")).unwrap());
            std::fs::remove_file(folder.path("shard")).unwrap();
            std::fs::write(&path, both).unwrap();
            let stored = StoredFile::local(path).unwrap();
            let mut back = Vec::new();
            PlainBytes::open(&stored)
                .unwrap()
                .read_to_end(&mut back)
                .unwrap();
            assert_eq!(back, [b"header\n", text.as_slice()].concat());
        }
    }
}

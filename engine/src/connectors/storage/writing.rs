//! A file that is being written.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::thread::{Builder, JoinHandle};

/// A file being written, wherever it is.
///
/// Dropping it without a close leaves a part of a file that is never published.
pub(crate) trait Writing: Write + Send {
    /// Makes what was written durable, and gives its bytes.
    fn close(self: Box<Self>) -> io::Result<u64>;
}

/// Once so much was written, the disk is asked to begin with it.
const AHEAD_BYTES: u64 = 16 << 20;

/// A file of the local file system.
///
/// What is written of a large file goes to the disk beside the work that goes on, so that a close need not wait for
/// all of it at once.
#[derive(Debug)]
pub(crate) struct LocalFile {
    file: File,
    n_bytes: u64,
    /// How many of them the disk was asked to take.
    n_asked: u64,
    asked: Option<JoinHandle<io::Result<()>>>,
}

impl LocalFile {
    /// Makes a file that is not there yet.
    pub(crate) fn create_new(path: &Path) -> io::Result<Self> {
        Ok(Self::new(File::create_new(path)?))
    }

    pub(crate) fn new(file: File) -> Self {
        Self {
            file,
            n_bytes: 0,
            n_asked: 0,
            asked: None,
        }
    }

    /// Lets a thread wait for the disk, unless one does.
    fn ask_ahead(&mut self) -> io::Result<()> {
        if self
            .asked
            .as_ref()
            .is_some_and(|asked| !asked.is_finished())
        {
            return Ok(());
        }
        self.answer()?;
        let file = self.file.try_clone()?;
        let waiting = Builder::new().name("mainstem-disk".to_owned());
        self.asked = Some(waiting.spawn(move || file.sync_data())?);
        self.n_asked = self.n_bytes;
        Ok(())
    }

    /// What the disk has said, which it says only once.
    fn answer(&mut self) -> io::Result<()> {
        let answer = self.asked.take().map(JoinHandle::join);
        let died = |_| Err(io::Error::other("the thread that waits for the disk died"));
        answer.map_or(Ok(()), |answer| answer.unwrap_or_else(died))
    }
}

impl Write for LocalFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.n_bytes += n as u64;
        if self.n_bytes - self.n_asked >= AHEAD_BYTES {
            self.ask_ahead()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Writing for LocalFile {
    fn close(mut self: Box<Self>) -> io::Result<u64> {
        self.answer()?;
        self.file.sync_all()?;
        Ok(self.n_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_file_is_whole_and_the_disk_is_asked_ahead() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        let mut file = LocalFile::create_new(&path).unwrap();
        let mebibyte: Vec<u8> = (0..1 << 20).map(|i| (i % 251) as u8).collect();
        for _ in 0..15 {
            file.write_all(&mebibyte).unwrap();
        }
        assert!(file.asked.is_none());
        for _ in 0..25 {
            file.write_all(&mebibyte).unwrap();
        }
        assert!(file.n_asked >= AHEAD_BYTES);
        assert_eq!(Box::new(file).close().unwrap(), 40 << 20);
        let written = std::fs::read(&path).unwrap();
        assert!(written.chunks(1 << 20).all(|part| part == mebibyte));
        assert_eq!(written.len(), 40 << 20);
    }

    #[cfg(unix)]
    #[test]
    fn what_the_disk_says_ahead_is_not_lost() {
        // A pipe takes bytes, but nothing can make them durable.
        let (mut reader, writer) = io::pipe().unwrap();
        let pipe = File::from(std::os::fd::OwnedFd::from(writer));
        let drained = std::thread::spawn(move || io::copy(&mut reader, &mut io::sink()));
        let mut file = LocalFile::new(pipe);
        let bytes = vec![7; 1 << 20];
        for _ in 0..16 {
            file.write_all(&bytes).unwrap();
        }
        // Only what was said ahead is looked at here.
        let told = file.answer().unwrap_err();
        assert_eq!(told.kind(), io::ErrorKind::InvalidInput);
        drop(file);
        assert_eq!(drained.join().unwrap().unwrap(), 16 << 20);
    }
}

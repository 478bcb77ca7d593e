//! Writes to a sink, under the laws that every sink keeps.

use std::fs;
use std::path::{Path, PathBuf};

use arrow::array::UInt64Array;
use arrow::compute::{concat_batches, take_record_batch};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};

use crate::error::{Error, Result};
use crate::sink::{Published, Sink};

/// Writes `rows` as one publication: `rows[i]` are the batches of worker `i`.
///
/// # Errors
/// What the sink says of its place or of the rows; the publication is aborted then.
pub fn write_sink(sink: &dyn Sink, rows: &[Vec<RecordBatch>]) -> Result<Published> {
    let schema = rows
        .iter()
        .flatten()
        .next()
        .ok_or_else(|| Error::bug("a test must write a batch, perhaps an empty one"))?
        .schema();
    sink.accepts(&schema)?;
    let publication = sink.begin(&schema)?;
    let write_all = || {
        for (worker, batches) in rows.iter().enumerate() {
            let mut writer = publication.writer(worker)?;
            for batch in batches {
                writer.write(batch)?;
            }
            writer.finish()?;
        }
        publication.commit()
    };
    write_all().inspect_err(|_| publication.abort())
}

/// Checks the laws that every sink keeps, on these rows.
///
/// Nothing can be seen before the commit; an abort leaves nothing, hidden or not; what several
/// workers wrote is there once, each worker's rows in order; no rows are published as no rows, with
/// their schema. `make` makes a sink whose place is a path in an empty folder, or in a folder that is
/// not there yet; `read_back` gives what it has published there, with no batches where that is nothing.
///
/// # Panics
/// If a law is broken.
///
/// # Errors
/// What the sink says of its place or of the rows.
pub fn check_sink(
    rows: &RecordBatch,
    make: impl Fn(&Path) -> Box<dyn Sink>,
    read_back: impl Fn(&Path) -> Result<Vec<RecordBatch>>,
) -> Result<()> {
    let folder = tempfile::tempdir()?;
    check_sink_at(rows, folder.path(), everything_local, make, read_back)
}

/// Checks the laws that every sink keeps, as [`check_sink`], below a path or a URL where nothing is yet.
///
/// `everything` gives all files below a place, hidden or not, and of a local folder the folders too.
///
/// # Panics
/// If a law is broken.
///
/// # Errors
/// What the sink says of its place or of the rows.
pub fn check_sink_at(
    rows: &RecordBatch,
    root: &Path,
    everything: impl Fn(&Path) -> Result<Vec<PathBuf>>,
    make: impl Fn(&Path) -> Box<dyn Sink>,
    read_back: impl Fn(&Path) -> Result<Vec<RecordBatch>>,
) -> Result<()> {
    let schema = rows.schema();
    let place = |name: &str| root.join(name);
    let half = rows.num_rows() / 2;
    let parts = [
        rows.slice(0, half),
        rows.slice(half, rows.num_rows() - half),
    ];

    // Whole, by one worker, and hidden until then.
    let one = place("one/rows");
    let sink = make(&one);
    sink.accepts(&schema)?;
    let publication = sink.begin(&schema)?;
    let mut writer = publication.writer(0)?;
    for part in &parts {
        writer.write(part)?;
        assert!(
            read_back(&one)?.is_empty(),
            "nothing can be seen before the commit"
        );
    }
    writer.finish()?;
    assert!(
        read_back(&one)?.is_empty(),
        "nothing can be seen before the commit"
    );
    assert_eq!(
        visible(root, everything(root)?),
        Vec::<PathBuf>::new(),
        "files before the commit"
    );
    let published = publication.commit()?;
    drop(publication);
    let found = read_back(&one)?;
    assert_eq!(concat_batches(&schema, &found)?, *rows, "what was written");
    assert_eq!(
        published.n_rows,
        rows.num_rows() as u64,
        "rows that were published"
    );
    let there = everything(root)?;
    for file in &published.files {
        assert!(
            there.contains(file),
            "{file:?} was published and is not there"
        );
    }
    assert_eq!(
        hidden(root, &everything(root)?),
        Vec::<PathBuf>::new(),
        "hidden files after the commit"
    );

    // By three workers, row by row, the second without rows.
    let three = place("three");
    let none = RecordBatch::new_empty(schema.clone());
    let by_row = |part: &RecordBatch| (0..part.num_rows()).map(|n| part.slice(n, 1)).collect();
    write_sink(
        &*make(&three),
        &[by_row(&parts[1]), vec![none.clone()], by_row(&parts[0])],
    )?;
    let found = concat_batches(&schema, &read_back(&three)?)?;
    assert_eq!(sorted(&found)?, sorted(rows)?, "what three workers wrote");
    for part in &parts {
        assert!(
            in_order(part, &found)?,
            "the rows of a worker stand in their order"
        );
    }

    // No rows at all.
    let empty = place("empty");
    let published = write_sink(&*make(&empty), &[vec![none]])?;
    assert_eq!(published.n_rows, 0);
    let found = read_back(&empty)?;
    assert!(!found.is_empty(), "no rows are published as a schema");
    assert_eq!(concat_batches(&schema, &found)?.num_rows(), 0);

    // Aborted with a writer at work, and one that was dropped.
    let before = everything(root)?;
    let gone = place("gone/deep/rows");
    for abort in [true, false] {
        let publication = make(&gone).begin(&schema)?;
        let mut writer = publication.writer(0)?;
        writer.write(rows)?;
        if abort {
            publication.abort();
        }
        drop(writer);
        drop(publication);
        assert!(
            read_back(&gone)?.is_empty(),
            "nothing can be seen after an abort"
        );
        assert_eq!(everything(root)?, before, "files after an abort");
    }
    Ok(())
}

/// True if all of `part` stands in `rows`, in its order, others perhaps in between.
fn in_order(part: &RecordBatch, rows: &RecordBatch) -> Result<bool> {
    let converter = converter(rows)?;
    let part = converter.convert_columns(part.columns())?;
    let rows = converter.convert_columns(rows.columns())?;
    let mut found = rows.iter();
    Ok(part.iter().all(|row| found.any(|there| there == row)))
}

fn converter(rows: &RecordBatch) -> Result<RowConverter> {
    let columns = rows.columns().iter();
    let fields = columns.map(|c| SortField::new(c.data_type().clone()));
    Ok(RowConverter::new(fields.collect())?)
}

/// The rows in an order that does not depend on where they came from.
fn sorted(rows: &RecordBatch) -> Result<RecordBatch> {
    let keys = converter(rows)?.convert_columns(rows.columns())?;
    let mut order: Vec<u64> = (0..rows.num_rows() as u64).collect();
    order.sort_by(|a, b| keys.row(*a as usize).cmp(&keys.row(*b as usize)));
    Ok(take_record_batch(rows, &UInt64Array::from(order))?)
}

fn everything_local(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(everything_local(&path)?);
        }
        found.push(path);
    }
    found.sort();
    Ok(found)
}

fn hidden(root: &Path, everything: &[PathBuf]) -> Vec<PathBuf> {
    let is_hidden = |path: &&PathBuf| {
        let path = path.strip_prefix(root).unwrap_or(path);
        path.iter()
            .any(|part| part.to_string_lossy().starts_with('.'))
    };
    everything.iter().filter(is_hidden).cloned().collect()
}

/// Files outside of hidden folders.
fn visible(root: &Path, mut everything: Vec<PathBuf>) -> Vec<PathBuf> {
    let hidden = hidden(root, &everything);
    everything.retain(|path| !path.is_dir() && !hidden.contains(path));
    everything
}

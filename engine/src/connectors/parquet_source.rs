//! Reads Parquet files, many at a time by a folder or a pattern.

mod chunks;
mod fetching;
mod footers;
mod instants;
mod loaded;
mod page_index;
mod page_sample;
mod ranges;
mod reader;
mod sieve;
mod splits;
mod statistics;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_expr::Expr;
use serde_json::json;

use super::file_source::Once;
use super::files::Files;
use super::hive::HiveColumns;
use super::selection::Selection;
use super::storage::{Storage, has_changed};
use crate::error::{Error, Result};
use crate::predicate::{Alternatives, Predicate};
use crate::source::{Position, Source, SourceProperties, Split, SplitReader};
use crate::transform::Description;
use loaded::{KEPT_BYTES, KnownFile, Listed, Loaded};
use page_sample::pages_help;
use reader::{ParquetReader, Request, Wanted};
use splits::{Locator, locators, split};
use statistics::row_groups_that_may_hold;

/// Rows of Parquet files: of one file, of all `*.parquet` of a folder, or of those that match a pattern, at
/// a path or a URL such as `s3://bucket/births/*.parquet` (see [`Storage`]).
///
/// All files must have the same columns, in any order. Text is read as Utf8, with large offsets or a
/// view in the file or not; text that the first file's Arrow schema holds as a dictionary stays one, with
/// Int32 keys, and so does that of [`ParquetSource::read_dictionary`]. Nested columns are read as they
/// are. Nulls are nulls. Timestamps of 96 bits (INT96) are microseconds, digits behind them cut off, unless the
/// file's Arrow schema says of which unit they are.
///
/// Folders below the place that are named `column=value`, such as `year=2020/month=5/a.parquet`, are
/// columns at the end of the schema: Int64 if all values are whole numbers, Date32 if all are days, else
/// Utf8; `__HIVE_DEFAULT_PARTITION__` is null. See [`ParquetSource::hive_type`].
///
/// A split is a run of neighbouring row groups of one file, of about 131,072 rows; a row group of
/// twice as many and more is cut into several, whose pages are passed over without decoding them.
///
/// Where filters stand right behind the source, files, row groups and pages are left out unread in which
/// no row can pass, by folders and statistics. In what is left, columns that no filter reads are decoded
/// for the rows that pass, if these are few. A page index that does not fit the rest of the file is not believed; one
/// that fits is, though the format has no checksum of it.
///
/// ```no_run
/// # use mainstem_engine::{Pipeline, connectors};
/// let pipeline = Pipeline::new("births");
/// let births = pipeline.read("births", connectors::parquet("births/2024-*.parquet"));
/// ```
#[derive(Clone)]
pub struct ParquetSource {
    files: Files,
    hive: bool,
    hive_types: Vec<(String, DataType)>,
    dictionaries: Vec<String>,
    /// Columns of text that come as dictionaries where a split holds them so.
    encoded: Vec<String>,
    /// The files are listed and footers read once, by the first who needs them.
    listed: Arc<Once<Listed>>,
    loaded: Arc<Once<Loaded>>,
    /// The footer of the first file, where that is enough.
    first: Arc<Once<Loaded>>,
    pruned: Option<Arc<Pruned>>,
    /// How many bytes of footers are kept.
    footer_bytes: usize,
}

/// The rows that matter.
struct Pruned {
    expr: Expr,
    /// What is left, once it has been found out.
    left: Once<Left>,
}

/// What is left of a source.
struct Left {
    /// The files whose folders do not rule them out, if that is not all of them.
    loaded: Option<Loaded>,
    of_files: Vec<LeftOfFile>,
}

/// What is left of a file.
struct LeftOfFile {
    /// True for the rows of the file that matter.
    predicate: Arc<Predicate>,
    /// Whether each of its row groups may hold such a row.
    row_groups: Vec<bool>,
    /// Whether what it says of its pages may leave some out.
    pages_help: Once<bool>,
}

/// The rows of Parquet files: see [`ParquetSource`].
pub fn parquet(place: impl AsRef<Path>) -> ParquetSource {
    ParquetSource {
        files: Files::new(place, &["parquet"]),
        hive: true,
        hive_types: Vec::new(),
        dictionaries: Vec::new(),
        encoded: Vec::new(),
        listed: Arc::default(),
        loaded: Arc::default(),
        first: Arc::default(),
        pruned: None,
        footer_bytes: KEPT_BYTES,
    }
}

impl ParquetSource {
    /// Forgets what was found with other options.
    fn anew(self) -> Self {
        Self {
            listed: Arc::default(),
            loaded: Arc::default(),
            first: Arc::default(),
            ..self
        }
    }

    /// How an object store is reached, where the place is a URL: by default as the environment says.
    #[must_use]
    pub fn storage(mut self, storage: Storage) -> Self {
        self.files = self.files.storage(storage);
        self.anew()
    }

    /// Whether folders named `column=value` are columns; they are by default.
    #[must_use]
    pub fn hive_columns(mut self, hive_columns: bool) -> Self {
        self.hive = hive_columns;
        self.anew()
    }

    /// The type of a column that stands in the names of folders, in place of the one found out.
    #[must_use]
    pub fn hive_type(mut self, column: impl Into<String>, data_type: DataType) -> Self {
        self.hive_types.push((column.into(), data_type));
        self.anew()
    }

    /// Columns of text to read as dictionaries, with Int32 keys, which keeps what a file holds encoded.
    #[must_use]
    pub fn read_dictionary(mut self, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.dictionaries
            .extend(columns.into_iter().map(Into::into));
        self.anew()
    }
}

impl fmt::Debug for ParquetSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "parquet({:?})", self.files.place())
    }
}

impl ParquetSource {
    fn listed(&self) -> Result<&Listed> {
        self.listed.of(|| {
            let files = self.files.list()?;
            let locations = files.iter().map(|f| f.location());
            let hive = match self.hive {
                true => HiveColumns::of(&self.files.place(), locations, &self.hive_types)?,
                false => HiveColumns::default(),
            };
            Ok(Listed { files, hive })
        })
    }

    /// How many bytes of footers are kept.
    #[cfg(test)]
    fn keep_footers(mut self, n_bytes: usize) -> Self {
        self.footer_bytes = n_bytes;
        self.anew()
    }

    fn read_footers(
        &self,
        listed: &Listed,
        numbers: &[usize],
        speaker: Option<&Loaded>,
    ) -> Result<Loaded> {
        let (dictionaries, n_bytes) = (&self.dictionaries, self.footer_bytes);
        Loaded::read(listed, numbers, speaker, dictionaries, n_bytes)
    }

    /// The first of all files, which speaks for those that are read.
    fn first(&self, listed: &Listed) -> Result<&Loaded> {
        self.first.of(|| self.read_footers(listed, &[0], None))
    }

    /// All files with what their footers say.
    fn loaded(&self) -> Result<&Loaded> {
        let listed = self.listed()?;
        self.loaded.of(|| {
            let all: Vec<usize> = (0..listed.files.len()).collect();
            self.read_footers(listed, &all, None)
        })
    }

    /// What is left, if something need not be read.
    fn left(&self) -> Result<Option<(&Left, &Loaded)>> {
        let Some(pruned) = &self.pruned else {
            return Ok(None);
        };
        let left = pruned.left.of(|| self.find_left(&pruned.expr))?;
        let loaded = match &left.loaded {
            Some(loaded) => loaded,
            None => self.loaded()?,
        };
        Ok(Some((left, loaded)))
    }

    fn find_left(&self, expr: &Expr) -> Result<Left> {
        let listed = self.listed()?;
        let hive = &listed.hive;
        let predicate = Alternatives::compile(expr, &self.schema()?)?;
        let loaded = match hive.is_empty() {
            true => None,
            false => {
                let may_hold =
                    |file: &usize| predicate.whole().may_hold(|name| hive.known(*file, name));
                let numbers: Vec<usize> = (0..listed.files.len()).filter(may_hold).collect();
                Some(match numbers.is_empty() {
                    true => Loaded::none(),
                    false => self.read_footers(listed, &numbers, Some(self.first(listed)?))?,
                })
            }
        };
        let files = match &loaded {
            Some(loaded) => loaded,
            None => self.loaded()?,
        };
        let of_files = files.of_footers(|file| {
            let may_hold = |predicate: &Predicate| {
                row_groups_that_may_hold(&file.footer, predicate, |name| {
                    hive.known(file.number, name)
                })
            };
            let predicate = predicate.left(|part| may_hold(part).contains(&true))?;
            let row_groups = may_hold(&predicate);
            Ok(LeftOfFile {
                predicate,
                row_groups,
                pages_help: Once::default(),
            })
        })?;
        let of_files = of_files.into_iter().collect::<Result<_>>()?;
        Ok(Left { loaded, of_files })
    }
}

/// What is left, for `explain()`.
fn told(left: &Left, loaded: &Loaded, n_files: usize) -> String {
    let n_left = loaded.files.len();
    let groups = || left.of_files.iter().flat_map(|file| &file.row_groups);
    let n_all = groups().count();
    let n_kept = groups().filter(|kept| **kept).count();
    match n_left == n_files {
        true => format!("{n_kept} of {n_all} row groups"),
        false => format!("{n_left} of {n_files} files, {n_kept} of {n_all} row groups"),
    }
}

impl Source for ParquetSource {
    fn describe(&self) -> Description {
        let mut config = json!({ "files": self.files.place() });
        if let Some(pruned) = &self.pruned {
            config["only"] = json!(pruned.expr.to_string());
        }
        if let (Ok(Some((left, loaded))), Ok(listed)) = (self.left(), self.listed()) {
            config["reads"] = json!(told(left, loaded, listed.files.len()));
        }
        Description::new("parquet", config)
    }

    fn place(&self) -> Option<String> {
        Some(self.files.root())
    }

    fn schema(&self) -> Result<SchemaRef> {
        let listed = self.listed()?;
        if listed.hive.is_empty() {
            return Ok(Arc::clone(&self.loaded()?.schema));
        }
        // Files that folders rule out are not opened, so the first speaks for all, as far as it can.
        let first = self.first(listed)?;
        let nullable = |f: &Arc<Field>| f.as_ref().clone().with_nullable(true);
        let fields: Vec<Field> = first.schema.fields().iter().map(nullable).collect();
        Ok(Arc::new(Schema::new(fields)))
    }

    fn properties(&self) -> SourceProperties {
        self.files.properties()
    }

    fn splits(&self) -> Result<Vec<Split>> {
        let left = self.left()?;
        let loaded = match left {
            Some((_, loaded)) => loaded,
            None => self.loaded()?,
        };
        if let Some(first) = self.first.get() {
            check_like_first(first, loaded)?;
        }
        let mut splits = Vec::new();
        for (i, file) in loaded.files.iter().enumerate() {
            for locator in locators(file) {
                let kept = left.is_none_or(|(left, _)| {
                    let of_file = &left.of_files[i].row_groups;
                    locator.row_groups().any(|group| of_file[group])
                });
                if kept {
                    splits.push(split(file, locator)?);
                }
            }
        }
        Ok(splits)
    }

    fn open(
        &self,
        split: &Split,
        position: Position,
        columns: Option<&[String]>,
    ) -> Result<Box<dyn SplitReader>> {
        let left = self.left()?;
        let loaded = match left {
            Some((_, loaded)) => loaded,
            None => self.loaded()?,
        };
        let locator: Locator = serde_json::from_value(split.locator.clone())?;
        let place = loaded
            .place(&locator.file)
            .ok_or_else(|| has_changed(&locator.file))?;
        loaded.files[place].file.check()?;
        let file = loaded.footer(place)?;
        let encoded = file.with_dictionaries(locator.row_groups(), &self.encoded)?;
        let file = encoded.as_ref().unwrap_or(&file);
        let hive = &self.listed()?.hive;
        let wanted = left.map(|(left, _)| {
            let LeftOfFile {
                predicate,
                row_groups,
                pages_help: known,
            } = &left.of_files[place];
            let pages_help = known.of(|| pages_help(file, hive, predicate, row_groups))?;
            Ok::<_, Error>(Wanted {
                predicate,
                row_groups,
                pages_help: *pages_help,
            })
        });
        let reader = ParquetReader::open(Request {
            file,
            hive,
            name: split.name.clone(),
            locator,
            position,
            selection: Selection::new(&file.types_of(&self.schema()?, &self.encoded), columns)?,
            wanted: wanted.transpose()?,
        })?;
        Ok(Box::new(reader))
    }

    fn prune(&self, predicate: &Expr) -> Option<Arc<dyn Source>> {
        Some(Arc::new(Self {
            pruned: Some(Arc::new(Pruned {
                expr: predicate.clone(),
                left: Once::default(),
            })),
            ..self.clone()
        }))
    }

    fn encoded(&self, columns: &[String]) -> Option<Arc<dyn Source>> {
        Some(Arc::new(Self {
            encoded: columns.to_vec(),
            ..self.clone()
        }))
    }

    /// Rows of files that are left out by their folders are not counted: their footers are not read.
    fn n_pruned_rows(&self) -> u64 {
        let Ok(Some((left, loaded))) = self.left() else {
            return 0;
        };
        let files = loaded.files.iter().zip(&left.of_files);
        let of_file = |(file, left): (&KnownFile, &LeftOfFile)| -> u64 {
            locators(file)
                .into_iter()
                .filter(|locator| !locator.row_groups().any(|group| left.row_groups[group]))
                .map(|locator| locator.n_rows)
                .sum()
        };
        files.map(of_file).sum()
    }
}

/// Checks that files are as the first said, whose footer alone was read for the schema.
fn check_like_first(first: &Loaded, loaded: &Loaded) -> Result<()> {
    let schemas = first.files.iter().chain(&loaded.files);
    let schemas: Vec<(String, SchemaRef)> = schemas
        .map(|f| (f.file.name(), Arc::clone(&f.schema)))
        .collect();
    super::agreement::agree(&schemas).map(|_| ())
}

#[cfg(test)]
mod damaged_index_tests;
#[cfg(test)]
mod event_time_tests;
#[cfg(test)]
mod foreign_tests;
#[cfg(test)]
mod pruning_tests;
#[cfg(test)]
mod tests;

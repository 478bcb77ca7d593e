//! Columns that stand in the names of folders: `year=2020/month=5/part-0.parquet`.
//!
//! ```text
//! paths below the named folder ─▶ HiveColumns ─▶ fields at the end of the schema
//!                                             └▶ the same value for each row of a file
//! ```

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion_common::ScalarValue;
use datafusion_expr::interval_arithmetic::{Interval, NullableInterval};

use super::selection::Selection;
use super::storage::StoredFile;
use crate::error::{Error, Result};
use crate::output::Output;
use crate::predicate::Known;
use crate::source::{Lines, RowsRead, SplitReader};

/// The value of a folder that stands for null.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// The partition columns of the files of a source; none where no folder is named `column=value`.
///
/// Names and values are percent-decoded, and `__HIVE_DEFAULT_PARTITION__` is null. A column is Int64 if
/// all its values are whole numbers, Date32 if all are days such as `2024-02-29`, else Utf8.
#[derive(Clone, Debug, Default)]
pub(crate) struct HiveColumns {
    fields: Vec<FieldRef>,
    /// The values of each file, in the order of the fields.
    values: Vec<Vec<ScalarValue>>,
}

/// What a source was told of columns that stand in the names of folders.
#[derive(Clone, Debug)]
pub(crate) struct HiveOptions {
    pub(crate) are_columns: bool,
    pub(crate) types: Vec<(String, DataType)>,
}

impl Default for HiveOptions {
    fn default() -> Self {
        Self {
            are_columns: true,
            types: Vec::new(),
        }
    }
}

impl HiveOptions {
    /// The columns of these files, whose places are their numbers: see [`HiveColumns::of`].
    pub(crate) fn columns<'a>(
        &self,
        place: &str,
        files: impl IntoIterator<Item = &'a StoredFile>,
    ) -> Result<HiveColumns> {
        match self.are_columns {
            true => {
                let locations = files.into_iter().map(StoredFile::location);
                HiveColumns::of(place, locations, &self.types)
            }
            false => Ok(HiveColumns::default()),
        }
    }
}

/// The options of a source whose folders may be columns; its field `hive` holds them, and
/// `$afresh` forgets what was found with others.
macro_rules! hive_options {
    ($source:ty, $afresh:ident) => {
        impl $source {
            /// Whether folders below the place that are named `column=value` are columns, at the end of
            /// the schema; they are by default. A column is Int64 if all values are whole numbers, Date32
            /// if all are days, else Utf8; `__HIVE_DEFAULT_PARTITION__` is null.
            #[must_use]
            pub fn hive_columns(mut self, hive_columns: bool) -> Self {
                self.hive.are_columns = hive_columns;
                self.$afresh()
            }

            /// The type of a column that stands in the names of folders, in place of the one found out.
            #[must_use]
            pub fn hive_type(
                mut self,
                column: impl Into<String>,
                data_type: arrow::datatypes::DataType,
            ) -> Self {
                self.hive.types.push((column.into(), data_type));
                self.$afresh()
            }
        }
    };
}
pub(crate) use hive_options;

/// Reads a split of a file, and adds the columns of its folders.
struct HiveReader {
    rows: Box<dyn SplitReader>,
    /// The columns of the folders, one row of them.
    constants: RecordBatch,
    selection: Selection,
}

impl SplitReader for HiveReader {
    fn next_batch(&mut self, out: &mut Output) -> Result<Option<RecordBatch>> {
        let Some(rows) = self.rows.next_batch(out)? else {
            return Ok(None);
        };
        let whole = beside(&rows, &repeat(&self.constants, rows.num_rows())?)?;
        Ok(Some(self.selection.arrange(&whole)?))
    }

    fn lines(&self) -> Option<Lines> {
        self.rows.lines()
    }

    fn rows_read(&self) -> Option<RowsRead> {
        self.rows.rows_read()
    }

    fn bytes_read(&self) -> u64 {
        self.rows.bytes_read()
    }

    fn n_pruned_rows(&self) -> u64 {
        self.rows.n_pruned_rows()
    }
}

/// The folders of one file that are named `column=value`, in order.
type Folders = Vec<(String, Option<String>)>;

impl HiveColumns {
    /// The columns of files at these locations, whose folders count from `place` on: a folder or pattern.
    ///
    /// `types` gives the types of columns that are not to be found out.
    ///
    /// # Errors
    /// If the files stand in folders of different columns, a value is not of its column's type, or a
    /// type is given for a column that is not there.
    pub(crate) fn of<'a>(
        place: &str,
        locations: impl IntoIterator<Item = &'a str>,
        types: &[(String, DataType)],
    ) -> Result<Self> {
        let base = base(place);
        let files: Vec<(&str, Folders)> = locations
            .into_iter()
            .map(|location| (location, folders(base, location)))
            .collect();
        let Some((first, folders)) = files.first() else {
            return Ok(Self::default());
        };
        let names: Vec<&str> = folders.iter().map(|(name, _)| name.as_str()).collect();
        check_alike(first, &names, &files)?;
        check_types(&names, types)?;
        let mut fields = Vec::new();
        let mut columns = Vec::new();
        for (i, name) in names.iter().enumerate() {
            let texts: Vec<Option<&str>> = files.iter().map(|(_, f)| f[i].1.as_deref()).collect();
            let given = types.iter().find(|(of, _)| of == name);
            let data_type = given.map_or_else(|| find_type(&texts), |(_, t)| t.clone());
            columns.push(column(name, &files, texts, &data_type)?);
            fields.push(Arc::new(Field::new(*name, data_type, true)));
        }
        let row = |file: usize| -> Result<Vec<ScalarValue>> {
            let of = |c: &ArrayRef| Ok(ScalarValue::try_from_array(c, file)?);
            columns.iter().map(of).collect()
        };
        Ok(Self {
            fields,
            values: (0..files.len()).map(row).collect::<Result<_>>()?,
        })
    }

    /// True if no folder is named `column=value`.
    pub(crate) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The schema of files with these columns at its end, in place of columns of the same names.
    pub(crate) fn schema(&self, of_files: &Schema) -> SchemaRef {
        let is_here = |name: &String| self.fields.iter().any(|f| f.name() == name);
        let others = of_files.fields().iter().filter(|f| !is_here(f.name()));
        Arc::new(Schema::new(
            others.chain(&self.fields).cloned().collect::<Vec<_>>(),
        ))
    }

    /// The value of `column` for all rows of file number `file`; `None` if it is no partition column.
    pub(crate) fn value(&self, file: usize, column: &str) -> Option<&ScalarValue> {
        let place = self.fields.iter().position(|f| f.name() == column)?;
        self.values.get(file)?.get(place)
    }

    /// What is known of `column` in file number `file`; `None` if it is no partition column.
    pub(crate) fn known(&self, file: usize, column: &str) -> Known {
        let value = self.value(file, column)?;
        if value.is_null() {
            let datatype = value.data_type();
            return Some(NullableInterval::Null { datatype });
        }
        let values = Interval::try_new(value.clone(), value.clone()).ok()?;
        Some(NullableInterval::NotNull { values })
    }

    /// The column for `n_rows` rows of file number `file`; `None` if it is no partition column.
    pub(crate) fn array(
        &self,
        file: usize,
        column: &str,
        n_rows: usize,
    ) -> Option<Result<ArrayRef>> {
        let value = self.value(file, column)?;
        Some(value.to_array_of_size(n_rows).map_err(Error::from))
    }
}

impl HiveColumns {
    /// The columns of a file, of those wanted from the source: what a reader of the file is asked for.
    pub(crate) fn of_file(&self, file: &SchemaRef, wanted: Option<&[String]>) -> Result<Selection> {
        if self.is_empty() {
            return Selection::new(file, wanted);
        }
        let names = file.fields().iter().map(|f| f.name());
        let names = names.filter(|name| {
            self.value(0, name).is_none() && wanted.is_none_or(|wanted| wanted.contains(name))
        });
        Selection::new(file, Some(&names.cloned().collect::<Vec<_>>()))
    }

    /// Adds the columns of the folders of file number `file` to the rows of a reader that was opened for
    /// what [`HiveColumns::of_file`] says; `schema` is that of the source.
    pub(crate) fn reader(
        &self,
        file: usize,
        rows: Box<dyn SplitReader>,
        schema: &SchemaRef,
        wanted: Option<&[String]>,
    ) -> Result<Box<dyn SplitReader>> {
        match self.constants(file)? {
            None => Ok(rows),
            Some(constants) => Ok(Box::new(HiveReader {
                rows,
                constants,
                selection: Selection::new(schema, wanted)?,
            })),
        }
    }

    /// The columns of a file's folders, one row of them; `None` where there are none.
    pub(crate) fn constants(&self, file: usize) -> Result<Option<RecordBatch>> {
        if self.is_empty() {
            return Ok(None);
        }
        let columns = self
            .fields
            .iter()
            .filter_map(|f| self.array(file, f.name(), 1));
        let schema: SchemaRef = Arc::new(Schema::new(self.fields.clone()));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        Ok(Some(RecordBatch::try_new(schema, columns)?))
    }
}

/// One row, as often as this.
pub(crate) fn repeat(one: &RecordBatch, n_rows: usize) -> Result<RecordBatch> {
    let indices = arrow::array::UInt32Array::from(vec![0; n_rows]);
    Ok(arrow::compute::take_record_batch(one, &indices)?)
}

/// The columns of two batches of as many rows.
pub(crate) fn beside(left: &RecordBatch, right: &RecordBatch) -> Result<RecordBatch> {
    let (a, b) = (left.schema(), right.schema());
    let fields = a.fields().iter().chain(b.fields());
    let fields: Vec<Field> = fields.map(|f| f.as_ref().clone()).collect();
    let columns = [left.columns(), right.columns()].concat();
    let options = RecordBatchOptions::new().with_row_count(Some(left.num_rows()));
    let schema = Arc::new(Schema::new(fields));
    Ok(RecordBatch::try_new_with_options(
        schema, columns, &options,
    )?)
}

/// The part of a place that is no pattern: folders below it count.
fn base(place: &str) -> &str {
    let pattern = place.find(['*', '?', '[']).unwrap_or(place.len());
    match place[..pattern].rfind('/') {
        Some(slash) if pattern < place.len() => &place[..slash],
        _ if pattern < place.len() => "",
        _ => place,
    }
}

fn folders(base: &str, location: &str) -> Folders {
    let below = location.strip_prefix(base).unwrap_or(location);
    let Some((folders, _file)) = below.rsplit_once('/') else {
        return Vec::new();
    };
    let named = folders.split('/').filter_map(|f| f.split_once('='));
    named
        .map(|(name, value)| {
            let value = decode(value);
            (decode(name), (value != NULL).then_some(value))
        })
        .collect()
}

/// The text with `%41` as `A`; what is no such escape stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).unwrap_or_else(|_| text.to_owned())
}

fn check_alike(first: &str, names: &[&str], files: &[(&str, Folders)]) -> Result<()> {
    let said = |names: &[&str]| match names {
        [] => "None of its folders is named \"column=value\".".to_owned(),
        _ => format!("Its folders name {}.", names.join(", ")),
    };
    let other = files.iter().find_map(|(location, folders)| {
        let found: Vec<&str> = folders.iter().map(|(name, _)| name.as_str()).collect();
        (found != names).then_some((location, found))
    });
    match other {
        None => Ok(()),
        Some((location, found)) => Err(Error::data(format!(
            "file {location:?} stands in folders of other columns than file {first:?}"
        ))
        .with_detail(format!("File {first:?}: {}", said(names)))
        .with_detail(format!("File {location:?}: {}", said(&found)))
        .with_hint("Read them apart, or say `.hive_columns(false)`.")),
    }
}

fn check_types(names: &[&str], types: &[(String, DataType)]) -> Result<()> {
    match types
        .iter()
        .find(|(name, _)| !names.contains(&name.as_str()))
    {
        None => Ok(()),
        Some((name, _)) => Err(Error::pipeline(format!(
            "a type is given for column {name:?}, which no folder names"
        ))
        .with_detail(match names {
            [] => "No folder is named \"column=value\".".to_owned(),
            _ => format!("The folders name {}.", names.join(", ")),
        })),
    }
}

fn find_type(texts: &[Option<&str>]) -> DataType {
    let all = |test: fn(&str) -> bool| texts.iter().flatten().all(|text| test(text));
    if texts.iter().all(Option::is_none) {
        DataType::Utf8
    } else if all(|text| text.parse::<i64>().is_ok() && !text.starts_with('+')) {
        DataType::Int64
    } else if all(is_day) {
        DataType::Date32
    } else {
        DataType::Utf8
    }
}

fn is_day(text: &str) -> bool {
    let shape = text.len() == 10 && text.as_bytes()[4] == b'-' && text.as_bytes()[7] == b'-';
    let value = ScalarValue::Utf8(Some(text.to_owned())).cast_to(&DataType::Date32);
    shape && value.is_ok_and(|day| !day.is_null())
}

/// The values of a column for all files.
fn column(
    name: &str,
    files: &[(&str, Folders)],
    texts: Vec<Option<&str>>,
    data_type: &DataType,
) -> Result<ArrayRef> {
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let refused = |location: &str, text: &str, reason: String| {
        Error::data(format!(
            "file {location:?}: folder {name:?} must hold {data_type}, found {text:?}"
        ))
        .with_detail(format!("{reason}."))
        .with_hint("Give the column another type with `.hive_type(column, type)`.")
    };
    let all: ArrayRef = Arc::new(StringArray::from(texts.clone()));
    cast_with_options(&all, data_type, &strict).map_err(|error| {
        let wrong = texts.iter().zip(files).find_map(|(text, (location, _))| {
            let one: ArrayRef = Arc::new(StringArray::from(vec![*text]));
            let error = cast_with_options(&one, data_type, &strict).err()?;
            Some(refused(location, text.unwrap_or(NULL), error.to_string()))
        });
        wrong.unwrap_or_else(|| error.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectors::test_folder::TestFolder;
    use crate::connectors::{
        avro, avro_sink, csv, csv_sink, ipc, ipc_sink, json_lines, json_lines_sink, parquet,
        parquet_sink,
    };
    #[cfg(feature = "tfrecord")]
    use crate::connectors::{tfrecord, tfrecord_sink};
    use crate::source::Source;
    use crate::testing::{check_source, show, table, write_sink};
    use expect_test::{Expect, expect};

    fn check(place: &str, locations: &[&str], types: &[(&str, DataType)], expected: Expect) {
        let types: Vec<_> = types
            .iter()
            .map(|(n, t)| ((*n).to_owned(), t.clone()))
            .collect();
        let said = match HiveColumns::of(place, locations.iter().copied(), &types) {
            Ok(columns) => {
                let of_file = |file: usize| {
                    let values = columns.values[file].iter().map(ToString::to_string);
                    format!(
                        "\n{}: {}",
                        locations[file],
                        values.collect::<Vec<_>>().join(", ")
                    )
                };
                let of_files: String = (0..locations.len()).map(of_file).collect();
                format!("{}{of_files}", Schema::new(columns.fields))
            }
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&said);
    }

    #[test]
    fn types_are_found_out_and_values_decoded() {
        check(
            "data",
            &[
                "data/year=2020/day=2020-02-29/place=a%2Fb%20c/x.parquet",
                "data/year=-5/day=1999-12-31/place=100%/x.parquet",
                "data/year=__HIVE_DEFAULT_PARTITION__/day=2020-01-01/place=__HIVE_DEFAULT_PARTITION__/x.parquet",
            ],
            &[],
            expect![[r#"
                Field { "year": nullable Int64 }, Field { "day": nullable Date32 }, Field { "place": nullable Utf8 }
                data/year=2020/day=2020-02-29/place=a%2Fb%20c/x.parquet: 2020, 2020-02-29, a/b c
                data/year=-5/day=1999-12-31/place=100%/x.parquet: -5, 1999-12-31, 100%
                data/year=__HIVE_DEFAULT_PARTITION__/day=2020-01-01/place=__HIVE_DEFAULT_PARTITION__/x.parquet: NULL, 2020-01-01, NULL"#]],
        );
        check(
            "data/**/*.parquet",
            &["data/zip=00501/x.parquet", "data/zip=10001/x.parquet"],
            &[("zip", DataType::Utf8)],
            expect![[r#"
                Field { "zip": nullable Utf8 }
                data/zip=00501/x.parquet: 00501
                data/zip=10001/x.parquet: 10001"#]],
        );
        check(
            "data",
            &["data/a.parquet"],
            &[],
            expect![[r#"

            data/a.parquet: "#]],
        );
        check(
            "k=1/data",
            &["k=1/data/a.parquet"],
            &[],
            expect![[r#"

            k=1/data/a.parquet: "#]],
        );
        check(
            "k=1/data/a.parquet",
            &["k=1/data/a.parquet"],
            &[],
            expect![[r#"

                k=1/data/a.parquet: "#]],
        );
        check(
            "d",
            &["d/day=2020-02-30/a", "d/day=2020-02-28/a"],
            &[],
            expect![[r#"
                Field { "day": nullable Utf8 }
                d/day=2020-02-30/a: 2020-02-30
                d/day=2020-02-28/a: 2020-02-28"#]],
        );
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        check(
            "d",
            &["d/a=1/x", "d/a=1/b=2/x"],
            &[],
            expect![[r#"
            file "d/a=1/b=2/x" stands in folders of other columns than file "d/a=1/x"
              File "d/a=1/x": Its folders name a.
              File "d/a=1/b=2/x": Its folders name a, b.
              Hint: Read them apart, or say `.hive_columns(false)`."#]],
        );
        check(
            "d",
            &["d/x", "d/b=2/x"],
            &[],
            expect![[r#"
            file "d/b=2/x" stands in folders of other columns than file "d/x"
              File "d/x": None of its folders is named "column=value".
              File "d/b=2/x": Its folders name b.
              Hint: Read them apart, or say `.hive_columns(false)`."#]],
        );
        check(
            "d",
            &["d/a=1/x", "d/a=one/x"],
            &[("a", DataType::Int32)],
            expect![[r#"
                file "d/a=one/x": folder "a" must hold Int32, found "one"
                  Cast error: Cannot cast string 'one' to value of Int32 type.
                  Hint: Give the column another type with `.hive_type(column, type)`."#]],
        );
        check(
            "d",
            &["d/a=1/x"],
            &[("b", DataType::Int32)],
            expect![[r#"
                a type is given for column "b", which no folder names
                  The folders name a."#]],
        );
    }

    #[test]
    fn what_sinks_divide_is_read_back_in_every_format() {
        let folder = TestFolder::new();
        let rows = table("x: 1, 2, 3, 4; year: 2020, 2021, null, 2020; y: a, b, c, d");
        let batches = [vec![rows]];
        let by = ["year"];
        let place = |name: &str| folder.path(name);
        #[cfg(feature = "tfrecord")]
        let (sink, tfrecords) = (tfrecord_sink(place("tf")), tfrecord(place("tf")));
        #[cfg(feature = "tfrecord")]
        write_sink(&sink.partition_by(by), &batches).unwrap();
        let written = [
            write_sink(&csv_sink(place("csv")).partition_by(by), &batches),
            write_sink(&json_lines_sink(place("json")).partition_by(by), &batches),
            write_sink(&avro_sink(place("avro")).partition_by(by), &batches),
            write_sink(&ipc_sink(place("ipc")).partition_by(by), &batches),
            write_sink(&parquet_sink(place("parquet")).partition_by(by), &batches),
        ];
        for one in written {
            one.unwrap();
        }
        let sources: &[&dyn Source] = &[
            &csv(place("csv")),
            &json_lines(place("json")),
            &avro(place("avro")),
            &ipc(place("ipc")),
            &parquet(place("parquet")),
            #[cfg(feature = "tfrecord")]
            &tfrecords,
        ];
        for source in sources {
            let rows = check_source(*source).unwrap();
            let sorted = in_order(&rows);
            expect![[r#"
                x: 1, 2, 3, 4
                y: 'a', 'b', 'c', 'd'
                year: 2020, 2021, null, 2020"#]]
            .assert_eq(&show(&sorted));
        }
        let as_text = csv(place("csv")).hive_type("year", DataType::Utf8);
        let year = Source::schema(&as_text).unwrap();
        assert_eq!(year.field(2).data_type(), &DataType::Utf8);
        let without = json_lines(place("json")).hive_columns(false);
        assert_eq!(Source::schema(&without).unwrap().fields().len(), 2);
        let refused = avro(place("avro")).hive_type("month", DataType::Int32);
        expect![[r#"
            a type is given for column "month", which no folder names
              The folders name year."#]]
        .assert_eq(&Source::schema(&refused).unwrap_err().to_string());
    }

    fn in_order(rows: &RecordBatch) -> RecordBatch {
        let order = arrow::compute::sort_to_indices(rows.column(0), None, None).unwrap();
        arrow::compute::take_record_batch(rows, &order).unwrap()
    }
}

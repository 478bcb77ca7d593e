//! The two files of the census, as the UCI repository ships them.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use mainstem::prelude::*;

/// Numbers, by their column.
pub(crate) const NUMBERS: [&str; 5] = [
    "age",
    "education_num",
    "capital_gain",
    "capital_loss",
    "hours_per_week",
];

/// Categories, by their column.
pub(crate) const CATEGORIES: [&str; 8] = [
    "workclass",
    "education",
    "marital_status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "native_country",
];

/// True where a person earns more than 50,000 dollars.
pub(crate) const LABEL: &str = "over_50k";

/// Checks that the folder holds both files.
pub(crate) fn check(folder: &Path) -> Result<()> {
    for name in ["adult.data", "adult.test"] {
        if !folder.join(name).is_file() {
            return Err(Error::environment(format!("folder {:?} has no file {name:?}", folder.display()))
                .with_detail("It should hold adult.data and adult.test of the UCI repository's \"adult\" data set.")
                .with_hint("Name the folder with `--data FOLDER`."));
        }
    }
    Ok(())
}

/// The rows to learn from.
pub(crate) fn train(pipeline: &Pipeline, folder: &Path) -> Collection {
    rows(
        pipeline,
        "train",
        connectors::csv(folder.join("adult.data")),
    )
}

/// The rows to evaluate on; their file begins with a line that is no row.
pub(crate) fn test(pipeline: &Pipeline, folder: &Path) -> Collection {
    rows(
        pipeline,
        "test",
        connectors::csv(folder.join("adult.test")).skip_lines(1),
    )
}

fn rows(pipeline: &Pipeline, name: &str, file: connectors::CsvSource) -> Collection {
    // "?" stays a category of its own: that an occupation is not known tells something too.
    let file = file.schema(schema()).trim(true);
    let label = col("income").like(lit(">50K%")).alias(LABEL);
    let columns = NUMBERS.iter().chain(&CATEGORIES).map(|name| col(*name));
    pipeline
        .read(name, file)
        .select(columns.chain([label]).collect::<Vec<_>>())
}

fn schema() -> SchemaRef {
    let number = |name| Field::new(name, DataType::Int64, false);
    let category = |name| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(vec![
        number("age"),
        category("workclass"),
        number("fnlwgt"),
        category("education"),
        number("education_num"),
        category("marital_status"),
        category("occupation"),
        category("relationship"),
        category("race"),
        category("sex"),
        number("capital_gain"),
        number("capital_loss"),
        number("hours_per_week"),
        category("native_country"),
        Field::new("income", DataType::Utf8, false),
    ]))
}

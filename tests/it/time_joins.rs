//! Joins in event time through whole pipelines, against a search for each row.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, TimestampMillisecondType};
use mainstem::engine::ops::{AsOf, Watermarks};
use mainstem::engine::testing::{Script, scripted_with, simulate};
use mainstem::engine::{Collection, Progress};
use mainstem::prelude::*;

/// Rows of each side: 100,000, or as many as `MAINSTEM_TIME_JOIN_ROWS` says.
///
/// `MAINSTEM_TIME_JOIN_ROWS=1000000 cargo test --release --test it -- time_joins` is the full size.
fn n_rows() -> usize {
    let asked = std::env::var("MAINSTEM_TIME_JOIN_ROWS");
    asked.ok().and_then(|n| n.parse().ok()).unwrap_or(100_000)
}

const TTL_MS: i64 = 60_000;
const MAX_LATE_MS: i64 = 5_000;

/// Numbers that look random, the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: i64) -> i64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as i64) % end
    }
}

/// A feature or an entity: driver, event time, time of creation, number.
type Row = (i64, i64, i64, i64);

/// Rows in an order in which none is more than [`MAX_LATE_MS`] behind a later one.
fn history(n: usize, seed: u64) -> Vec<Row> {
    let mut numbers = Numbers(seed);
    let n_drivers = (n as i64 / 50).max(1);
    let span = n as i64 * 10;
    let mut rows: Vec<(i64, Row)> = (0..n as i64)
        .map(|i| {
            // Whole seconds now and then, so that some rows have one time.
            let time = numbers.below(span);
            let time = if i % 3 == 0 {
                time / 1_000 * 1_000
            } else {
                time
            };
            let arrives = time + numbers.below(MAX_LATE_MS);
            (
                arrives,
                (numbers.below(n_drivers), time, numbers.below(4), i),
            )
        })
        .collect();
    rows.sort_by_key(|(arrives, row)| (*arrives, row.3));
    rows.into_iter().map(|(_, row)| row).collect()
}

fn batches(rows: &[Row], names: [&str; 4], batch_rows: usize) -> Vec<RecordBatch> {
    let column = |rows: &[Row], of: fn(&Row) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(rows.iter().map(of)))
    };
    let batch = |rows: &[Row]| {
        let of: [fn(&Row) -> i64; 4] = [|r| r.0, |r| r.1, |r| r.2, |r| r.3];
        let columns = names.iter().zip(of);
        RecordBatch::try_from_iter(columns.map(|(name, of)| (*name, column(rows, of)))).unwrap()
    };
    rows.chunks(batch_rows).map(batch).collect()
}

const ENTITY: [&str; 4] = ["driver", "at", "asked", "entity"];
const FEATURE: [&str; 4] = ["id", "at", "created", "trips"];

fn joined(entities: &Collection, features: &Collection) -> Collection {
    let timed = |rows: &Collection| {
        let late = Duration::from_millis(MAX_LATE_MS as u64);
        let watermarks = Watermarks::bounded_out_of_orderness(late).splits_in_order(true);
        rows.assign_timestamps(col("at"), watermarks)
    };
    let (entities, features) = (timed(entities), timed(features));
    let as_of = AsOf::on_pairs([(col("driver"), col("id"))])
        .ttl(Duration::from_millis(TTL_MS as u64))
        .created(col("created"))
        .suffix("_of_feature");
    entities.named("as_of").join_as_of(&features, as_of)
}

/// What each entity was given: number, event time, number of the feature and its event time.
type Given = (i64, i64, Option<(i64, i64)>);

fn given(batches: &[RecordBatch]) -> Vec<Given> {
    let rows = concat_batches(&batches[0].schema(), batches).unwrap();
    let ints = |name: &str| rows[name].as_primitive::<Int64Type>().clone();
    let times = |name: &str| {
        rows[name]
            .as_primitive::<TimestampMillisecondType>()
            .clone()
    };
    let (entity, trips) = (ints("entity"), ints("trips"));
    let (at, of_feature) = (times("event_time"), times("event_time_of_feature"));
    let mut given: Vec<Given> = (0..rows.num_rows())
        .map(|row| {
            let feature = trips
                .is_valid(row)
                .then(|| (trips.value(row), of_feature.value(row)));
            (entity.value(row), at.value(row), feature)
        })
        .collect();
    given.sort_unstable();
    given
}

fn bounded(entities: &[Row], features: &[Row], workers: usize) -> Vec<Given> {
    let pipeline = Pipeline::new("point_in_time");
    let read = |name: &str, rows| pipeline.read(name, connectors::from_record_batches(rows));
    let entities = read("entities", batches(entities, ENTITY, 8_192));
    let features = read("features", batches(features, FEATURE, 8_192));
    let (sink, rows) = connectors::collect();
    joined(&entities, &features).write(sink);
    let options = RunOptions::new().workers(workers).progress(Progress::Never);
    pipeline.run(&options).unwrap();
    given(&rows.take())
}

/// The same rows from sources that do not end before all have come, with a restart on the way.
fn unbounded(entities: &[Row], features: &[Row], seed: u64) -> Vec<Given> {
    let pipeline = Pipeline::new("point_in_time");
    let batch_rows = entities.len() / 20 + 1;
    let entities = batches(entities, ENTITY, batch_rows);
    let features = batches(features, FEATURE, batch_rows);
    let read =
        |name: &str, rows: &[RecordBatch]| pipeline.read(name, scripted_with(rows[0].schema()));
    let (of_entities, of_features) = (read("entities", &entities), read("features", &features));
    let (sink, _) = connectors::collect();
    joined(&of_entities, &of_features).named("out").write(sink);
    let mut script = Script::new();
    for (n, (entities, features)) in entities.into_iter().zip(features).enumerate() {
        script = script
            .batch("features", 0, features)
            .batch("entities", 0, entities);
        if n == 7 {
            script = script.restart(3);
        }
    }
    let script = script.end("entities").end("features");
    let made = simulate(&pipeline, &script, 2, seed).unwrap();
    given(&made.rows("out"))
}

#[test]
fn each_entity_is_given_the_feature_that_a_search_finds() {
    let n = n_rows();
    let (entities, features) = (history(n, 1), history(n, 2));
    let made = bounded(&entities, &features, 2);
    assert_eq!(made.len(), n, "one row for each entity");
    let mut of_driver: HashMap<i64, Vec<&Row>> = HashMap::new();
    for feature in &features {
        of_driver.entry(feature.0).or_default().push(feature);
    }
    // In the order of the source, so that of two equal ones the last is the greatest.
    let by_number: HashMap<i64, &Row> = entities.iter().map(|e| (e.3, e)).collect();
    let (mut n_found, step) = (0, (n / 10_000).max(1));
    for (entity, at, feature) in &made {
        assert!(
            feature.is_none_or(|(_, time)| time <= *at),
            "a value from the future"
        );
        if (*entity as usize).is_multiple_of(step) {
            let &&(driver, time, ..) = &by_number[entity];
            let candidates = of_driver.get(&driver).into_iter().flatten().enumerate();
            let expected = candidates
                .filter(|(_, f)| f.1 <= time && f.1 >= time - TTL_MS)
                .max_by_key(|(place, f)| (f.1, f.2, *place))
                .map(|(_, f)| (f.3, f.1));
            assert_eq!(
                *feature, expected,
                "entity {entity} of driver {driver} at {time}"
            );
            n_found += usize::from(expected.is_some());
        }
    }
    assert!(n_found > n / step / 10, "hardly a feature was found");
}

#[test]
fn bounded_and_unbounded_runs_give_the_same_rows_on_any_number_of_workers() {
    let n = n_rows() / 2;
    let (entities, features) = (history(n, 3), history(n, 4));
    let one = bounded(&entities, &features, 1);
    assert!(one == bounded(&entities, &features, 3), "3 workers");
    assert!(one == unbounded(&entities, &features, 5), "unbounded");
}

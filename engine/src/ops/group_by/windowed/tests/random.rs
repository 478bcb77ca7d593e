//! Random rows, watermarks and clocks, compared with the plain implementation.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use proptest::prelude::*;

use super::driver::Driver;
use super::reference::{Reference, Row, Shown};
use super::{aggregates, fixed, ms, sessions};
use crate::event_time::{EVENT_TIME, time_field};
use crate::expression::col;
use crate::ops::group_by::windowed::Asked;
use crate::windowing::{
    Accumulation, Closing, GlobalWindow, SlidingWindows, TimestampCombiner, Trigger, Windowing,
};

#[derive(Clone, Debug)]
enum Event {
    Rows(Vec<Row>),
    /// By how much the watermark moves.
    Watermark(i64),
    Clock(i64),
    /// A snapshot that so many workers go on with.
    Restore(usize),
    /// The watermark moves, and a snapshot is taken when only some have heard of it, on each side of which are keys.
    Cut(Cut),
}

#[derive(Clone, Debug)]
struct Cut {
    by: i64,
    /// How many workers have heard of it, besides the first.
    n_told: usize,
    /// Only first halves have.
    only_first_halves: bool,
    /// How many go on.
    n_workers: usize,
    /// What comes before anybody is told again.
    rows: Vec<Row>,
}

pub(super) fn rows_of(rows: &[Row]) -> RecordBatch {
    let keys = rows.iter().map(|(key, _, _)| key.clone());
    let times = rows.iter().map(|(_, time, _)| *time);
    let values = rows.iter().map(|(_, _, x)| *x);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from_iter_values(times)),
        Arc::new(keys.collect::<StringArray>()),
        Arc::new(values.collect::<Int64Array>()),
    ];
    let schema = Schema::new(vec![
        time_field(EVENT_TIME).as_ref().clone(),
        Field::new("k", DataType::Utf8, true),
        Field::new("x", DataType::Int64, true),
    ]);
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

fn event() -> impl Strategy<Value = Event> {
    let key = prop_oneof![
        Just(Some("a".to_owned())),
        Just(Some("b".to_owned())),
        Just(Some("c".to_owned())),
        Just(None)
    ];
    let row = (key, 0i64..100, prop::option::of(0i64..9));
    let rows = prop::collection::vec(row.clone(), 0..6);
    let told = (0usize..3, any::<bool>());
    let cut = (1i64..25, told, 1usize..4, rows).prop_map(|(by, told, n_workers, rows)| {
        let (n_told, only_first_halves) = told;
        Event::Cut(Cut {
            by,
            n_told,
            only_first_halves,
            n_workers,
            rows,
        })
    });
    prop_oneof![
        6 => prop::collection::vec(row, 1..12).prop_map(Event::Rows),
        3 => (1i64..25).prop_map(Event::Watermark),
        1 => (1i64..8).prop_map(Event::Clock),
        2 => (1usize..4).prop_map(Event::Restore),
        2 => cut,
    ]
}

fn trigger() -> impl Strategy<Value = Trigger> {
    let leaf = prop_oneof![
        4 => Just(Trigger::Default),
        2 => Just(Trigger::after_watermark()),
        1 => Just(Trigger::Never),
        2 => (1u64..5).prop_map(Trigger::after_count),
        1 => (1u64..9).prop_map(|delay| Trigger::after_processing_time(ms(delay))),
    ];
    leaf.prop_recursive(2, 6, 3, |inner| {
        let several = prop::collection::vec(inner.clone(), 1..3);
        prop_oneof![
            3 => inner.clone().prop_map(Trigger::repeatedly),
            1 => several.clone().prop_map(Trigger::AfterAny),
            1 => several.clone().prop_map(Trigger::AfterAll),
            1 => several.prop_map(Trigger::AfterEach),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| a.or_finally(b)),
            2 => inner.clone().prop_map(|early| Trigger::after_watermark().early(early)),
            3 => inner.clone().prop_map(|late| Trigger::after_watermark().late(late)),
            2 => (inner.clone(), inner)
                .prop_map(|(early, late)| Trigger::after_watermark().early(early).late(late)),
        ]
    })
}

fn windowing() -> impl Strategy<Value = Windowing> {
    let windows = prop_oneof![
        3 => (1u64..30).prop_map(fixed),
        3 => (1u64..30, 1u64..20).prop_map(|(size, period)| {
            Windowing::of(SlidingWindows::of(ms(size)).every(ms(period)))
        }),
        3 => (1u64..20).prop_map(sessions),
        1 => Just(Windowing::of(GlobalWindow)),
    ];
    let accumulation = prop_oneof![
        Just(Accumulation::Discarding),
        Just(Accumulation::Accumulating),
        Just(Accumulation::AccumulatingAndRetracting)
    ];
    let combiner = prop_oneof![
        2 => Just(TimestampCombiner::EndOfWindow),
        1 => Just(TimestampCombiner::Earliest),
        1 => Just(TimestampCombiner::Latest)
    ];
    let closing = prop_oneof![Just(Closing::FireIfNonEmpty), Just(Closing::FireAlways)];
    let lateness = prop_oneof![Just(0), 1u64..60];
    let trigger = prop_oneof![1 => Just(Trigger::Default), 2 => trigger()];
    (windows, trigger, accumulation, combiner, closing, lateness).prop_map(
        |(windows, trigger, accumulation, combiner, closing, lateness)| {
            windows
                .trigger(trigger)
                .accumulation(accumulation)
                .timestamp_combiner(combiner)
                .closing(closing)
                .allowed_lateness(ms(lateness))
                .allow_data_loss(true)
        },
    )
}

/// Windows of many slices, which are put together from sums of slices.
fn overlapping() -> impl Strategy<Value = Windowing> {
    let windows = (20u64..60, 1u64..4)
        .prop_map(|(size, period)| Windowing::of(SlidingWindows::of(ms(size)).every(ms(period))));
    let lateness = prop_oneof![Just(0), 1u64..30];
    let accumulation = prop_oneof![
        Just(Accumulation::Discarding),
        Just(Accumulation::AccumulatingAndRetracting)
    ];
    (windows, lateness, accumulation).prop_map(|(windows, lateness, accumulation)| {
        windows
            .allowed_lateness(ms(lateness))
            .accumulation(accumulation)
    })
}

fn many_rows() -> impl Strategy<Value = Event> {
    let key = prop_oneof![Just(Some("a".to_owned())), Just(Some("b".to_owned()))];
    let row = (key, 0i64..100, prop::option::of(0i64..9));
    prop_oneof![
        6 => prop::collection::vec(row, 30..80).prop_map(Event::Rows),
        6 => (1i64..9).prop_map(Event::Watermark),
        1 => (1usize..4).prop_map(Event::Restore),
    ]
}

/// Rows that are near to each other, so that a batch is mostly of one slice.
fn near_rows() -> impl Strategy<Value = Event> {
    let key = prop_oneof![Just(Some("a".to_owned())), Just(Some("b".to_owned()))];
    let row = (key, 0i64..3, prop::option::of(0i64..9));
    let rows = (0i64..100, prop::collection::vec(row, 1..4)).prop_map(|(from, rows)| {
        let rows = rows.into_iter();
        Event::Rows(rows.map(|(k, time, x)| (k, from + time, x)).collect())
    });
    prop_oneof![
        8 => rows,
        4 => (1i64..12).prop_map(Event::Watermark),
        1 => (1usize..4).prop_map(Event::Restore),
    ]
}

/// Windows with results that have the time of a row, which fire once or are over, mostly, where others begin.
fn at_the_time_of_a_row() -> impl Strategy<Value = Windowing> {
    let windows = prop_oneof![
        2 => (1u64..30).prop_map(|size| (size, fixed(size))),
        3 => (1u64..40, 1u64..20).prop_map(|(size, period)| {
            let windows = SlidingWindows::of(ms(size)).every(ms(period));
            (period, Windowing::of(windows))
        }),
        1 => (5u64..30).prop_map(|gap| (gap, sessions(gap))),
    ];
    let lateness = prop_oneof![3 => Just((0, 0)), 3 => (1u64..4, Just(0)), 4 => (0u64..3, 1u64..9)];
    let accumulation = prop_oneof![
        Just(Accumulation::Discarding),
        Just(Accumulation::Accumulating),
        Just(Accumulation::AccumulatingAndRetracting)
    ];
    let closing = prop_oneof![Just(Closing::FireIfNonEmpty), Just(Closing::FireAlways)];
    let windows = (windows, lateness, accumulation, closing).prop_map(
        |((period, windows), (periods, more), accumulation, closing)| {
            windows
                .allowed_lateness(ms(periods * period + more))
                .accumulation(accumulation)
                .closing(closing)
        },
    );
    let combiner = prop_oneof![
        Just(TimestampCombiner::Earliest),
        Just(TimestampCombiner::Latest)
    ];
    (windows, combiner).prop_map(|(windows, combiner)| windows.timestamp_combiner(combiner))
}

/// Both give the same after each event; whatever is taken back had left.
fn compare(
    shown: Shown,
    windowing: &Windowing,
    n_workers: usize,
    events: &[Event],
) -> Result<(), TestCaseError> {
    let schema = rows_of(&[]).schema();
    let (asked, columns) = match shown {
        Shown::Sums => {
            let keys = vec![col("k")];
            let outputs = aggregates();
            (Asked::Aggregates { keys, outputs }, vec![0, 1, 2])
        }
        Shown::Once => (Asked::Distinct, vec![0, 1]),
        Shown::Least(n_rows) => {
            let asked = Asked::First {
                kind: "top_k",
                n_rows,
                keys: vec![col("k")],
                order: vec![col("x").sort(true, false)],
            };
            (asked, vec![0, 1, 2])
        }
    };
    let given = Arc::new(schema.project(&columns).unwrap());
    let mut driver = Driver::asking(&given, windowing, n_workers, asked).unwrap();
    let mut reference = Reference::new(windowing, shown);
    let mut there: BTreeMap<String, i64> = BTreeMap::new();
    let (mut watermark, mut clock) = (0, 0);
    let end = Event::Watermark(i64::MAX);
    let fires_once = windowing.trigger == Trigger::Default
        && windowing.allowed_lateness_ms == 0
        && !windowing.window_fn.is_merging();
    for (n, event) in events.iter().chain([&end]).enumerate() {
        let behind = driver.behind;
        let (made, expected) = match event {
            Event::Rows(rows) => {
                let given = rows_of(rows).project(&columns).unwrap();
                (driver.rows(n, &given), reference.rows(rows))
            }
            Event::Watermark(i64::MAX) => (driver.end(), reference.watermark(i64::MAX)),
            Event::Watermark(by) => {
                watermark += by;
                (driver.watermark(watermark), reference.watermark(watermark))
            }
            Event::Clock(by) => {
                clock += by;
                (driver.clock(clock), reference.clock(clock))
            }
            Event::Restore(n_workers) => {
                driver.restore(*n_workers);
                continue;
            }
            Event::Cut(cut) => {
                watermark += cut.by;
                let given = rows_of(&cut.rows).project(&columns).unwrap();
                let mut made = Vec::new();
                let mut expected = Vec::new();
                if cut.only_first_halves {
                    // Nobody says yet that the windows are over.
                    driver.watermark_to_some_first_halves(watermark, 1 + cut.n_told);
                } else {
                    made = driver.watermark_to_some(watermark, 1 + cut.n_told);
                    expected = reference.watermark(watermark);
                }
                driver.restore(cut.n_workers);
                made.extend(driver.rows(n, &given));
                made.extend(driver.watermark(watermark));
                expected.extend(reference.rows(&cut.rows));
                expected.extend(reference.watermark(watermark));
                made.sort();
                expected.sort();
                (made, expected)
            }
        };
        prop_assert_eq!(&made, &expected, "event {}: {:?}", n, event);
        // What leaves once is never late for those who read it.
        let time = |line: &String| line.split_once(" at ")?.1.split(' ').next()?.parse().ok();
        let mut times = made.iter().filter(|_| fires_once).filter_map(time);
        prop_assert!(
            times.all(|time: i64| time >= behind),
            "{:?} behind {}",
            made,
            behind
        );
        let changes = made.iter().filter_map(|line| {
            let (result, diff) = line.rsplit_once(' ')?;
            Some((result.to_owned(), diff.parse::<i64>().ok()?))
        });
        for (result, diff) in changes {
            *there.entry(result).or_default() += diff;
        }
    }
    prop_assert_eq!(driver.take_late(), reference.late);
    // So the rows that are late leave as they came, also after restarts: but where a window may finish before it is over.
    let may_finish = windowing.window_fn.is_merging() || windowing.trigger != Trigger::Default;
    prop_assert!(may_finish || driver.late_in_finish == 0);
    if windowing.accumulation == Accumulation::AccumulatingAndRetracting {
        // Rows of the same values may be among the first together.
        let most = match shown {
            Shown::Least(n_rows) => i64::try_from(n_rows).unwrap(),
            Shown::Sums | Shown::Once => 1,
        };
        prop_assert!(
            there.values().all(|n| (0..=most).contains(n)),
            "{:?}",
            there
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn results_are_those_of_the_plain_implementation(
        windowing in windowing(),
        n_workers in 1usize..4,
        events in prop::collection::vec(event(), 1..30),
    ) {
        prop_assume!(windowing.check().is_ok());
        compare(Shown::Sums, &windowing, n_workers, &events)?;
    }

    #[test]
    fn results_at_the_time_of_a_row_are_those_of_the_plain_implementation(
        windowing in at_the_time_of_a_row(),
        n_workers in 1usize..4,
        events in prop::collection::vec(near_rows(), 1..40),
    ) {
        compare(Shown::Sums, &windowing, n_workers, &events)?;
    }

    #[test]
    fn distinct_rows_are_those_of_the_plain_implementation(
        windowing in windowing(),
        n_workers in 1usize..4,
        events in prop::collection::vec(event(), 1..30),
    ) {
        prop_assume!(windowing.check().is_ok());
        compare(Shown::Once, &windowing, n_workers, &events)?;
    }

    #[test]
    fn first_rows_are_those_of_the_plain_implementation(
        n_rows in 1usize..5,
        windowing in windowing(),
        n_workers in 1usize..4,
        events in prop::collection::vec(event(), 1..30),
    ) {
        prop_assume!(windowing.check().is_ok());
        compare(Shown::Least(n_rows), &windowing, n_workers, &events)?;
    }

    #[test]
    fn first_rows_of_slices_are_those_of_the_plain_implementation(
        n_rows in 1usize..5,
        windowing in overlapping(),
        n_workers in 1usize..3,
        events in prop::collection::vec(many_rows(), 1..20),
    ) {
        compare(Shown::Least(n_rows), &windowing, n_workers, &events)?;
    }

    #[test]
    fn sums_of_slices_are_those_of_the_plain_implementation(
        windowing in overlapping(),
        n_workers in 1usize..3,
        events in prop::collection::vec(many_rows(), 1..20),
    ) {
        compare(Shown::Sums, &windowing, n_workers, &events)?;
    }
}

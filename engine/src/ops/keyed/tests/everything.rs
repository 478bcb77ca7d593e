//! A transform that uses every kind of cell and of timer keeps the laws.

use std::time::Duration;

use arrow::datatypes::Int64Type;

use super::*;
use crate::aggregates::{max, sum};
use crate::col;
use crate::testing::{Laws, check_operator, show};
use crate::transform::Watermark;

const LAST: Value<Option<i64>> = Value::new("last");
const ALL: Bag<i64> = Bag::new("all");
const DISTINCT: Set<i64> = Set::new("distinct");
const COUNTS: Map<String, i64> = Map::new("counts");
const IN_ORDER: OrderedList<i64> = OrderedList::new("in_order");
const TOTAL: Combining<i64, i64> = Combining::new("total", || 0, |total, x| *total += x);
const ROWS: RowBag = RowBag::new("rows");
const DUE: Timer = Timer::event_time("due");
const TICK: Timer = Timer::processing_time("tick");

#[derive(Debug)]
struct Everything {
    aggregates: Aggregates,
}

impl Everything {
    fn new() -> Self {
        let outputs = [sum(col("x")).alias("sum"), max(col("x")).alias("max")];
        Self {
            aggregates: Aggregates::new("aggregates", outputs),
        }
    }

    fn digest(&self, key: &mut Scope<'_>) -> Result<String> {
        let last = key.value(LAST)?.read().copied();
        let all = key.bag(ALL)?.read().to_vec();
        let distinct = key.set(DISTINCT)?.read().clone();
        let counts = key.map(COUNTS)?.read().clone();
        let in_order: Vec<(i64, i64)> = key
            .ordered_list(IN_ORDER)?
            .read()
            .map(|(time, x)| (time, *x))
            .collect();
        let total = key.combining(TOTAL)?.read().copied();
        let rows = show(&key.row_bag(ROWS)?.read()?);
        let aggregates = key.aggregates(&self.aggregates)?.read()?;
        let aggregates = aggregates.map(|row| show(&row));
        Ok(format!(
            "{last:?} {all:?} {distinct:?} {counts:?} {in_order:?} {total:?} {rows} {aggregates:?}"
        ))
    }
}

impl KeyedTransform for Everything {
    fn declare(&self, _rows: &SchemaRef) -> Result<Declared> {
        Ok(Declared::emits::<Said>()
            .cell(LAST)
            .cell(ALL)
            .cell(DISTINCT)
            .cell(COUNTS)
            .cell(IN_ORDER)
            .cell(TOTAL)
            .cell(ROWS)
            .cell(self.aggregates.clone())
            .timer(DUE)
            .timer(TICK)
            .late_after(Duration::ZERO))
    }

    fn on_rows(&self, key: &mut Scope<'_>, rows: &KeyRows<'_>) -> Result<()> {
        let times = rows.times()?;
        let Watermark(watermark) = key.watermark();
        for (row, x) in rows.values::<Int64Type>("x")?.iter().enumerate() {
            let time = times[row];
            let one = rows.batch().slice(row, 1);
            key.value(LAST)?.write((x % 4 != 0).then_some(*x));
            key.bag(ALL)?.add(*x);
            key.set(DISTINCT)?.add(*x);
            let name = format!("{}", x % 3);
            let n = key.map(COUNTS)?.get(name.as_str()).copied().unwrap_or(0);
            key.map(COUNTS)?.put(name, n + 1);
            key.ordered_list(IN_ORDER)?.add(time, *x);
            key.combining(TOTAL)?.add(*x);
            key.row_bag(ROWS)?.add(&one)?;
            key.aggregates(&self.aggregates)?.add(&one)?;
            let last = key.window().end.saturating_add(key.allowed_lateness_ms());
            let due = (time + 20).max(watermark.saturating_add(1)).min(last);
            let tag = if x % 2 == 0 { "even" } else { "odd" };
            key.timer(DUE)?.tagged(tag).output_time(time).set(due)?;
            let now = key.processing_time();
            key.timer(TICK)?.output_time(time).set(now + 15)?;
        }
        Ok(())
    }

    fn on_timer(&self, key: &mut Scope<'_>, timer: FiredTimer<'_>) -> Result<()> {
        let digest = self.digest(key)?;
        let name = format!("{} {} {}", timer.name(), timer.tag(), timer.time());
        say(key, format!("{name}: {digest}"))?;
        if timer.is(TICK) {
            key.value(LAST)?.clear();
            key.set(DISTINCT)?.remove(&1);
            key.map(COUNTS)?.remove("1");
            return Ok(());
        }
        let before = timer.time() - 10;
        key.ordered_list(IN_ORDER)?.clear_range(..before);
        if timer.tag() == "even" {
            key.bag(ALL)?.clear();
            key.row_bag(ROWS)?.clear();
            key.combining(TOTAL)?.clear();
            key.aggregates(&self.aggregates)?.clear();
            key.map(COUNTS)?.clear();
        }
        Ok(())
    }
}

const COLUMNS: &str = "k: a, b, null, c; x: 1, 2, 3, 4, 8, -5; event_time: 0";

fn check(windowing: Windowing, laws: Laws) {
    check_operator(
        Process::new(Everything::new(), ["k"], windowing),
        &[COLUMNS],
        &laws,
    );
}

#[test]
fn all_of_time() {
    check(Windowing::global(), Laws::new().runs(16));
}

#[test]
fn fixed_windows() {
    let windows = Windowing::fixed(Duration::from_millis(40));
    check(windows, Laws::new().runs(16));
}

#[test]
fn sliding_windows_with_lateness() {
    let windows = Windowing::sliding(Duration::from_millis(40), Duration::from_millis(10));
    let windows = windows.allowed_lateness(Duration::from_millis(15));
    // Rows that are late and allowed make rows that are late.
    check(windows, Laws::new().runs(8).on_time(false));
}

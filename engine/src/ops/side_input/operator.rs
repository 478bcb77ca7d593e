//! The operator of a side input: answers main rows when the side is ready for them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, UInt32Array};
use arrow::compute::{concat_batches, filter_record_batch, not, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};

use super::answer::{answer, parts, unanswered};
use super::compiled::{MainRows, SideRows};
use super::layout::{Layout, Values};
use super::reach::Seen;
use super::table::Table;
use super::waiting::Waiting;
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::event_time::{EVENT_TIME, event_times};
use crate::expression::on_good_rows;
use crate::output::Output;
use crate::state::StatePart;
use crate::transform::{Operator, Watermark};
use crate::windowing::Window;

/// The inputs.
const MAIN: usize = 0;
const SIDE: usize = 1;
/// The port of main rows that come when the side has been released.
const LATE: usize = 1;
/// The port of side rows that come when their windows are over.
const LATE_SIDE: usize = 2;

/// The ports, by name.
pub(super) const PORTS: [&str; 3] = ["out", "late", "late_side"];

/// The columns of late rows: those of their side, of main ones with what they did not see.
pub(super) fn late_schema(layout: &Layout, port: usize, main: &SchemaRef) -> SchemaRef {
    match port {
        LATE_SIDE => Arc::clone(&layout.given_side),
        _ => layout.output(main),
    }
}

/// What is kept of the side, by window.
type Tables = BTreeMap<Window, Table>;

pub(super) struct SideInputOperator {
    layout: Arc<Layout>,
    main: Option<MainRows>,
    side: Option<SideRows>,
    tables: Tables,
    waiting: Waiting,
    /// Batches that are ready, of which lists would be too long for one.
    ready: VecDeque<Batch>,
    watermarks: [i64; 2],
    /// The side is an artifact, and no part of the state.
    is_learned: bool,
}

/// Side rows as they are kept: with their times, and the windows they are in.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) rows: RecordBatch,
    pub(super) times: Vec<i64>,
    pub(super) windows: Vec<(Window, Vec<u32>)>,
    /// Which of the rows as they came are kept; `None` for all.
    has_key: Option<BooleanArray>,
}

/// Which side rows are not kept.
struct NotKept {
    /// Those that are too late for all of their windows.
    late: BooleanArray,
    /// How many are in no window.
    n_in_none: usize,
}

impl Stored {
    pub(super) fn new(layout: &Layout, compiled: &SideRows, rows: &RecordBatch) -> Result<Self> {
        let (stored, mask) = compiled.store(rows)?;
        let rows = match &mask {
            Some(mask) => &filter_record_batch(rows, mask)?,
            None => rows,
        };
        Ok(Self {
            times: times_of(rows)?.map_or_else(|| vec![0; rows.num_rows()], <[i64]>::to_vec),
            windows: layout.reach.of_side(rows)?,
            rows: stored,
            has_key: mask,
        })
    }

    /// Of the batch that these are of the rows where this is true.
    fn rows_of(&self, batch: &Batch, is_wanted: &BooleanArray) -> Result<Batch> {
        match &self.has_key {
            Some(has_key) => batch.filter(has_key)?.filter(is_wanted),
            None => batch.filter(is_wanted),
        }
    }
}

/// The event times of rows that have them.
fn times_of(rows: &RecordBatch) -> Result<Option<&[i64]>> {
    let has_time = crate::event_time::check_event_time(&rows.schema()).is_ok();
    has_time.then(|| event_times(rows)).transpose()
}

impl SideInputOperator {
    pub(super) fn new(layout: &Arc<Layout>) -> Self {
        Self {
            layout: Arc::clone(layout),
            main: None,
            side: None,
            tables: Tables::new(),
            waiting: Waiting::default(),
            ready: VecDeque::new(),
            watermarks: [i64::MIN; 2],
            is_learned: false,
        }
    }

    /// With all of a side that has ended.
    pub(super) fn learned(layout: &Arc<Layout>, side: &[Stored]) -> Result<Self> {
        let mut operator = Self::new(layout);
        for stored in side {
            operator.keep(stored)?;
        }
        operator.is_learned = true;
        operator.watermarks[SIDE] = i64::MAX;
        Ok(operator)
    }

    /// Keeps side rows; says which of them are not kept, while anybody may ask for them.
    fn keep(&mut self, stored: &Stored) -> Result<Option<NotKept>> {
        if self.is_over() {
            return Ok(None);
        }
        let Stored {
            rows,
            times,
            windows,
            ..
        } = stored;
        let [main, side] = self.watermarks;
        let layout = &self.layout;
        let mut is_kept = vec![false; rows.num_rows()];
        for (window, of_window) in windows {
            if layout.reach.is_late(*window, side) || layout.reach.is_over(*window, main, side) {
                continue;
            }
            let table = self.tables.entry(*window);
            let table = table.or_insert_with(|| Table::new(&layout.stored, layout.n_keys()));
            let add = match layout.reach.is_versions() {
                true => Table::add_versions,
                false => Table::add,
            };
            if of_window.len() == rows.num_rows() {
                add(table, rows, times)?;
                is_kept.fill(true);
                continue;
            }
            let times: Vec<i64> = of_window.iter().map(|&row| times[row as usize]).collect();
            of_window
                .iter()
                .for_each(|&row| is_kept[row as usize] = true);
            let of_window = UInt32Array::from(of_window.clone());
            add(table, &take_record_batch(rows, &of_window)?, &times)?;
        }
        if is_kept.iter().all(|kept| *kept) {
            return Ok(None);
        }
        let mut is_in_some = vec![false; rows.num_rows()];
        for row in windows.iter().flat_map(|(_, rows)| rows) {
            is_in_some[*row as usize] = true;
        }
        let fates = is_kept.iter().zip(&is_in_some);
        Ok(Some(NotKept {
            late: fates
                .map(|(kept, in_some)| Some(!kept && *in_some))
                .collect(),
            n_in_none: is_in_some.iter().filter(|in_some| !**in_some).count(),
        }))
    }

    /// Gives the rows away that are not kept, by the worker that gets the first of the copies: late rows are late on
    /// all that have heard of the same watermark.
    fn leave_out(
        &self,
        batch: &Batch,
        stored: &Stored,
        not_kept: &NotKept,
        out: &mut Output,
    ) -> Result<()> {
        let NotKept { late, n_in_none } = not_kept;
        out.filtered(*n_in_none);
        let n_late = late.true_count();
        match batch.worker() {
            0 if n_late > 0 => out.push_late(LATE_SIDE, stored.rows_of(batch, late)?),
            _ => out.late(n_late as u64),
        }
        Ok(())
    }

    /// True if nobody will ask for the side any more.
    fn is_over(&self) -> bool {
        self.watermarks[MAIN] == i64::MAX
            && self.waiting.earliest_need().is_none()
            && self.ready.is_empty()
    }

    fn on_main(&mut self, batch: Batch, out: &mut Output) -> Result<()> {
        let seen = self.layout.reach.of_main(batch.rows())?;
        let [main, side] = self.watermarks;
        let reach = &self.layout.reach;
        let horizon = reach.horizon(main);
        let is_over = |window: Window| reach.is_over(window, main, side);
        let is_late = |row: usize| match reach.is_versions() {
            true => seen.needs[row] < horizon,
            false => is_over(seen.windows[seen.of_row[row] as usize]),
        };
        let is_any_late = match reach.is_versions() {
            true => seen.needs.iter().any(|need| *need < horizon),
            false => seen.windows.iter().any(|window| is_over(*window)),
        };
        if is_any_late {
            let late: BooleanArray = (0..batch.n_rows()).map(|row| Some(is_late(row))).collect();
            out.push_late(LATE, unanswered(&self.layout, batch.filter(&late)?)?);
            let batch = batch.filter(&not(&late)?)?;
            // A row that is not late is none for the same reasons now.
            return match batch.n_rows() {
                0 => Ok(()),
                _ => self.on_main(batch, out),
            };
        }
        let is_ready = |need: &i64| *need < side;
        let n_ready = seen.needs.iter().filter(|need| is_ready(need)).count();
        if n_ready == seen.needs.len() {
            return self.answer(batch, &seen, out);
        }
        if n_ready == 0 {
            let times = times_of(batch.rows())?;
            return self.waiting.add(&batch, &seen.needs, times);
        }
        let ready: BooleanArray = seen.needs.iter().map(|need| Some(is_ready(need))).collect();
        let waits = batch.filter(&not(&ready)?)?;
        let ready = batch.filter(&ready)?;
        let needs = seen.needs.iter().copied();
        let needs: Vec<i64> = needs.filter(|need| !is_ready(need)).collect();
        self.waiting.add(&waits, &needs, times_of(waits.rows())?)?;
        match ready.n_rows() {
            0 => Ok(()),
            _ => {
                let seen = self.layout.reach.of_main(ready.rows())?;
                self.answer(ready, &seen, out)
            }
        }
    }

    /// Answers rows that are ready; what lists make too long is left for later.
    fn answer(&mut self, batch: Batch, seen: &Seen, out: &mut Output) -> Result<()> {
        let layout = &self.layout;
        let schema = batch.rows().schema();
        let compiled = match self.main.take().filter(|main| main.fits(&schema)) {
            Some(compiled) => self.main.insert(compiled),
            None => self.main.insert(MainRows::new(layout, &schema)?),
        };
        let n_rows = batch.n_rows();
        let (batch, keys) = on_good_rows(batch, out, |rows| compiled.keys(rows))?;
        let of_good;
        let seen = match batch.n_rows() {
            0 => return Ok(()),
            n_good if n_good == n_rows => seen,
            _ => {
                of_good = layout.reach.of_main(batch.rows())?;
                &of_good
            }
        };
        if let Values::List(_) = layout.values {
            for window in &seen.windows {
                self.tables.get_mut(window).map_or(Ok(()), Table::sort)?;
            }
        }
        let tables: Vec<Option<&Table>> = seen.windows.iter().map(|w| self.tables.get(w)).collect();
        let ends = parts(layout, seen, &tables, keys.as_ref());
        if ends.len() > 1 {
            let mut start = 0;
            for end in ends {
                let is_of_part = |row: usize| Some((start..end).contains(&row));
                let part: BooleanArray = (0..batch.n_rows()).map(is_of_part).collect();
                self.ready.push_back(batch.filter(&part)?);
                start = end;
            }
            out.more_follows();
            return Ok(());
        }
        let schema = &compiled.output;
        if let Some(answered) = answer(layout, &batch, seen, &tables, keys.as_ref(), schema, out)? {
            out.push(answered);
        }
        Ok(())
    }

    /// Answers the next rows that are ready, and forgets what nobody asks for any more once there are none.
    fn go_on(&mut self, out: &mut Output) -> Result<()> {
        let next = self.ready.pop_front();
        if let Some(batch) = next.or_else(|| self.waiting.take_ready(self.watermarks[SIDE])) {
            let seen = self.layout.reach.of_main(batch.rows())?;
            self.answer(batch, &seen, out)?;
            out.more_follows();
            return Ok(());
        }
        if self.is_over() {
            self.tables.clear();
        }
        let [main, side] = self.watermarks;
        let reach = &self.layout.reach;
        self.tables
            .retain(|window, _| !reach.is_over(*window, main, side));
        if reach.is_versions() {
            let horizon = reach.horizon(main);
            let horizon = self
                .waiting
                .earliest()
                .map_or(horizon, |time| time.min(horizon));
            self.tables
                .values_mut()
                .try_for_each(|table| table.prune(horizon))?;
        }
        Ok(())
    }
}

impl Operator for SideInputOperator {
    fn on_batch(&mut self, port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        if port == MAIN {
            return self.on_main(batch, out);
        }
        let schema = batch.rows().schema();
        let compiled = match self.side.take().filter(|side| side.fits(&schema)) {
            Some(compiled) => self.side.insert(compiled),
            None => self.side.insert(SideRows::new(&self.layout, &schema)?),
        };
        let stored = Stored::new(&self.layout, compiled, batch.rows())?;
        match self.keep(&stored)? {
            Some(not_kept) => self.leave_out(&batch, &stored, &not_kept, out),
            None => Ok(()),
        }
    }

    fn on_input_watermark(
        &mut self,
        port: usize,
        watermark: Watermark,
        out: &mut Output,
    ) -> Result<()> {
        if let Some(of_input) = self.watermarks.get_mut(port) {
            *of_input = watermark.0.max(*of_input);
        }
        self.go_on(out)
    }

    fn on_watermark(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        // No input is behind the least of all.
        for of_input in &mut self.watermarks {
            *of_input = watermark.0.max(*of_input);
        }
        self.go_on(out)
    }

    fn resume(&mut self, out: &mut Output) -> Result<()> {
        self.go_on(out)
    }

    fn output_watermark(&self, input: Watermark) -> Watermark {
        Watermark(
            self.waiting
                .earliest()
                .map_or(input.0, |time| time.min(input.0)),
        )
    }

    fn state_bytes(&self) -> u64 {
        let tables: usize = self.tables.values().map(Table::n_bytes).sum();
        tables as u64 + self.waiting.n_bytes()
    }

    fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        let [main, side] = self.watermarks;
        let watermarks: [(&str, ArrayRef); 2] = [
            ("main", Arc::new(Int64Array::from(vec![main]))),
            ("side", Arc::new(Int64Array::from(vec![side]))),
        ];
        let watermarks = RecordBatch::try_from_iter(watermarks)?;
        let mut state = vec![StatePart::of_worker("watermarks", watermarks)];
        if !self.is_learned {
            state.push(StatePart::of_worker("side", self.save_side()?));
        }
        let waiting: Vec<RecordBatch> = self.waiting.rows().collect();
        if let Some(first) = waiting.first() {
            let rows = concat_batches(&first.schema(), &waiting)?;
            // By nothing but to deal them out, each once.
            let by = match times_of(&rows)? {
                Some(_) => vec![EVENT_TIME.to_owned()],
                None => Vec::new(),
            };
            state.extend(StatePart::by_key("waiting", &rows, &by)?);
        }
        Ok(state)
    }

    fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        let of = |table: &'static str| {
            let parts = state.iter().filter(move |part| part.table == table);
            parts.map(|part| &part.rows)
        };
        let told = |column: usize| {
            let values = of("watermarks").map(|rows| {
                let column = rows.columns().get(column)?;
                column
                    .as_primitive_opt::<Int64Type>()?
                    .values()
                    .first()
                    .copied()
            });
            values.flatten().collect::<Vec<i64>>()
        };
        // Of the main input the earliest: who had not heard of more keeps all that rows from then on ask for. Of the
        // side the latest: who had heard of it has answered rows without what comes late.
        let (main, side) = (told(MAIN).into_iter().min(), told(SIDE).into_iter().max());
        // Before any watermark, so that nothing that was kept is late.
        let mut once = Once::new(&saved_schema(&self.layout.stored))?;
        for rows in of("side") {
            let (rows, times, windows) = split_saved(&once.new_rows(rows)?)?;
            let stored = Stored {
                rows: rows.with_schema(Arc::clone(&self.layout.stored))?,
                times,
                windows,
                has_key: None,
            };
            self.keep(&stored)?;
        }
        for (of_input, restored) in self.watermarks.iter_mut().zip([main, side]) {
            *of_input = restored.unwrap_or(*of_input);
        }
        for rows in of("waiting") {
            let seen = self.layout.reach.of_main(rows)?;
            let batch = Batch::new(rows.clone()).inexact();
            self.waiting.add(&batch, &seen.needs, times_of(rows)?)?;
        }
        Ok(())
    }
}

impl SideInputOperator {
    /// The side, a row for each window that a row is in.
    fn save_side(&self) -> Result<RecordBatch> {
        let schema = saved_schema(&self.layout.stored);
        let mut parts = Vec::with_capacity(self.tables.len());
        for (window, table) in &self.tables {
            let (rows, times) = table.rows()?;
            let n_rows = rows.num_rows();
            let mut columns: Vec<ArrayRef> = vec![
                Arc::new(Int64Array::from_value(window.start, n_rows)),
                Arc::new(Int64Array::from_value(window.end, n_rows)),
                Arc::new(Int64Array::from(times)),
            ];
            columns.extend(rows.columns().iter().cloned());
            parts.push(RecordBatch::try_new(Arc::clone(&schema), columns)?);
        }
        Ok(concat_batches(&schema, &parts)?)
    }
}

/// The columns in which the side is saved.
fn saved_schema(stored: &SchemaRef) -> SchemaRef {
    let of_time = ["window start", "window end", "time"];
    let of_time = of_time.map(|name| Arc::new(Field::new(name, DataType::Int64, false)));
    let fields = of_time.into_iter().chain(stored.fields().iter().cloned());
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Rows by the windows they are in.
type Saved = (RecordBatch, Vec<i64>, Vec<(Window, Vec<u32>)>);

fn split_saved(rows: &RecordBatch) -> Result<Saved> {
    let foreign = || Error::bug("the saved state is not that of a side input");
    let of_time = |n: usize| {
        let column = rows.columns().get(n)?;
        Some(column.as_primitive_opt::<Int64Type>()?.values().to_vec())
    };
    let (Some(starts), Some(ends), Some(times)) = (of_time(0), of_time(1), of_time(2)) else {
        return Err(foreign());
    };
    let mut windows: BTreeMap<Window, Vec<u32>> = BTreeMap::new();
    for (row, (start, end)) in (0u32..).zip(starts.into_iter().zip(ends)) {
        windows.entry(Window { start, end }).or_default().push(row);
    }
    let stored: Vec<usize> = (3..rows.num_columns()).collect();
    Ok((rows.project(&stored)?, times, windows.into_iter().collect()))
}

/// Brings the copies of several workers together: of each row as many as one of them has at most.
struct Once {
    schema: SchemaRef,
    converter: RowConverter,
    taken: HashMap<Box<[u8]>, usize>,
}

impl Once {
    fn new(schema: &SchemaRef) -> Result<Self> {
        let fields = schema.fields().iter();
        let fields = fields.map(|f| SortField::new(f.data_type().clone()));
        Ok(Self {
            schema: Arc::clone(schema),
            converter: RowConverter::new(fields.collect())?,
            taken: HashMap::new(),
        })
    }

    /// The rows of a copy that no copy before it has.
    fn new_rows(&mut self, copy: &RecordBatch) -> Result<RecordBatch> {
        if copy.schema().fields() != self.schema.fields() {
            return Err(Error::pipeline("the saved side input has other columns")
                .with_hint("Restore it with the pipeline that saved it."));
        }
        let bytes = self.converter.convert_columns(copy.columns())?;
        let mut of_copy: HashMap<&[u8], usize> = HashMap::new();
        let mut is_new = Vec::with_capacity(copy.num_rows());
        for row in &bytes {
            let n = of_copy.entry(row.data()).or_default();
            *n += 1;
            let taken = self.taken.entry(row.data().into()).or_default();
            is_new.push(*n > *taken);
            *taken = (*taken).max(*n);
        }
        Ok(filter_record_batch(copy, &BooleanArray::from(is_new))?)
    }
}

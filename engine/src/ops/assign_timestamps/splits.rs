//! The watermarks of the splits that one worker reads, and the least of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, UInt32Array};
use arrow::datatypes::{Int64Type, UInt32Type};
use arrow::record_batch::RecordBatch;

use super::generator::{Generator, RowMarks};
use super::good_times::GoodTimes;
use super::watermarks::Watermarks;
use crate::batch::SplitKey;
use crate::error::{Error, Result};
use crate::state::StatePart;
use crate::transform::{SplitEvent, Watermark};

/// Behind all rows; less than the end, which only timely tells.
const NO_MORE: i64 = i64::MAX - 1;

/// The splits of one worker.
///
/// Where splits stand in order, all that the worker reads of a source is one split here: what comes later is
/// ahead of it.
pub(super) struct Splits {
    watermarks: Watermarks,
    /// Sources of which a further split may be opened; `None` before they are known.
    unopened: Option<BTreeSet<u32>>,
    /// By how many ways the rows of each source come.
    n_ways: BTreeMap<u32, usize>,
    open: BTreeMap<SplitKey, OpenSplit>,
    /// Where splits stand in order, what earlier splits of a source have shown.
    earlier: BTreeMap<u32, i64>,
    /// What splits had shown when they were saved.
    saved: BTreeMap<SplitKey, i64>,
    /// It never goes back.
    watermark: i64,
}

/// A split whose rows come by one way or by several.
///
/// Where one way has brought more than another, only what all have brought counts: the other's rows of the same
/// batch of the source would come under the watermark that the first has made.
struct OpenSplit {
    name: Arc<str>,
    watermark: i64,
    ways: BTreeMap<u64, Way>,
    n_ways: usize,
    /// So many ways have brought all rows.
    n_ended: usize,
    last_rows_ms: i64,
    is_idle: bool,
}

struct Way {
    generator: Generator,
    /// What it had shown behind each batch of the source that not all ways have brought yet.
    shown: VecDeque<i64>,
}

impl OpenSplit {
    fn way(&mut self, way: u64, watermarks: &Watermarks) -> &mut Way {
        self.ways.entry(way).or_insert_with(|| Way {
            generator: Generator::new(watermarks),
            shown: VecDeque::new(),
        })
    }

    /// A way has brought all rows of a batch.
    fn pass(&mut self, way: u64, watermarks: &Watermarks) {
        let way = self.way(way, watermarks);
        way.shown.push_back(way.generator.watermark());
        while self.ways.len() >= self.n_ways && self.ways.values().all(|w| !w.shown.is_empty()) {
            let shown = self.ways.values_mut().filter_map(|w| w.shown.pop_front());
            self.watermark = shown.fold(self.watermark, i64::max);
        }
    }

    /// True if rows are still on their way here that the source gave long ago.
    fn lags(&self) -> bool {
        self.ways.values().any(|way| !way.shown.is_empty())
    }
}

impl Splits {
    pub(super) fn new(watermarks: &Watermarks) -> Self {
        Self {
            watermarks: watermarks.clone(),
            unopened: None,
            n_ways: BTreeMap::new(),
            open: BTreeMap::new(),
            earlier: BTreeMap::new(),
            saved: BTreeMap::new(),
            watermark: i64::MIN,
        }
    }

    /// Hears what has become of a split.
    pub(super) fn hear(&mut self, event: &SplitEvent, now_ms: i64) {
        match event {
            SplitEvent::Sources(sources) => {
                self.unopened = Some(sources.keys().copied().collect());
                self.n_ways.clone_from(sources);
            }
            SplitEvent::Opened { key, name } => self.add(*key, Arc::clone(name), now_ms),
            SplitEvent::Passed { key } => {
                if let Some(split) = self.open.get_mut(&without_way(*key)) {
                    split.pass(key.branch, &self.watermarks);
                    split.last_rows_ms = now_ms;
                    split.is_idle = false;
                }
            }
            SplitEvent::Ended { key } => {
                let key = without_way(*key);
                if let Some(split) = self.open.get_mut(&key) {
                    split.n_ended += 1;
                    if split.n_ended >= split.n_ways {
                        self.earlier.insert(key.source, split.watermark);
                        self.open.remove(&key);
                    }
                }
            }
            // By whichever way it is told first: their splits are open until all ways have brought them.
            SplitEvent::AllOpened { source } => {
                if let Some(unopened) = &mut self.unopened {
                    unopened.remove(source);
                }
            }
        }
        self.look();
    }

    fn add(&mut self, key: SplitKey, name: Arc<str>, now_ms: i64) {
        let key = without_way(key);
        if self.open.contains_key(&key) {
            return;
        }
        let in_order = self.watermarks.splits_in_order;
        let earlier = self.earlier.get(&key.source).filter(|_| in_order);
        let shown = earlier.into_iter().chain(self.saved.get(&key));
        self.open.insert(
            key,
            OpenSplit {
                name,
                watermark: shown.copied().max().unwrap_or(i64::MIN),
                ways: BTreeMap::new(),
                n_ways: self.n_ways.get(&key.source).map_or(1, |n| (*n).max(1)),
                n_ended: 0,
                last_rows_ms: now_ms,
                is_idle: false,
            },
        );
    }

    /// Takes in rows of a split, and gives how many stand behind its watermark.
    pub(super) fn take(
        &mut self,
        key: SplitKey,
        times: &GoodTimes,
        marks: &RowMarks,
        now_ms: i64,
    ) -> u64 {
        if !self.open.contains_key(&without_way(key)) {
            self.add(key, Arc::from("rows in memory"), now_ms);
        }
        let Some(split) = self.open.get_mut(&without_way(key)) else {
            return 0;
        };
        let (shown, n_ways) = (split.watermark, split.n_ways);
        let generator = &mut split.way(key.branch, &self.watermarks).generator;
        generator.go_on_from(shown);
        let n_behind = generator.take(times, marks);
        if n_ways == 1 {
            split.watermark = generator.watermark();
        }
        split.last_rows_ms = now_ms;
        split.is_idle = false;
        self.look();
        n_behind
    }

    /// Looks at which splits have been silent for too long.
    pub(super) fn pass_time(&mut self, now_ms: i64) {
        let Some(idle_after) = self.watermarks.idle_after_ms else {
            return;
        };
        for split in self.open.values_mut() {
            let silent_ms = now_ms.saturating_sub(split.last_rows_ms);
            split.is_idle = silent_ms >= idle_after && !split.lags();
        }
        self.look();
    }

    /// When the next split will have been silent for too long.
    pub(super) fn wakes_at(&self) -> Option<i64> {
        let idle_after = self.watermarks.idle_after_ms?;
        // What lags moves when its rows come, and by no clock.
        let active = self.open.values();
        let active = active.filter(|split| !split.is_idle && !split.lags());
        let at = active.map(|split| split.last_rows_ms.saturating_add(idle_after));
        at.min()
    }

    fn waits_for_splits(&self) -> bool {
        // In order, what is unopened is ahead of what is open.
        let in_order = self.watermarks.splits_in_order && !self.open.is_empty();
        self.unopened
            .as_ref()
            .is_some_and(|unopened| !unopened.is_empty() && !in_order)
    }

    fn look(&mut self) {
        if self.waits_for_splits() {
            return;
        }
        let active = self.open.values().filter(|split| !split.is_idle);
        let least = active.map(|split| split.watermark).min();
        let least = match least {
            Some(least) => least,
            None if self.open.is_empty() && self.unopened.is_some() => NO_MORE,
            // The last to fall silent decides, whichever it is.
            None => match self.open.values().map(|s| s.watermark).max() {
                Some(greatest) => greatest,
                None => return,
            },
        };
        self.watermark = self.watermark.max(least);
    }

    /// The watermark of each open split, which every worker must know: any may read it next.
    pub(super) fn snapshot(&self) -> Result<Vec<StatePart>> {
        let (mut sources, mut splits, mut marks) = (Vec::new(), Vec::new(), Vec::new());
        for (key, split) in &self.open {
            sources.push(key.source);
            splits.push(key.split);
            marks.push(split.watermark);
        }
        let columns: [(&str, ArrayRef); 3] = [
            ("source", Arc::new(UInt32Array::from(sources))),
            ("split", Arc::new(UInt32Array::from(splits))),
            ("watermark", Arc::new(Int64Array::from(marks))),
        ];
        let rows = RecordBatch::try_from_iter(columns)?;
        Ok(vec![StatePart::of_worker("splits", rows)])
    }

    pub(super) fn restore(&mut self, part: &StatePart) -> Result<()> {
        let of_another = || Error::data("the state is not of `assign_timestamps`");
        let column = |name: &str| part.rows.column_by_name(name).ok_or_else(of_another);
        let numbers = |name: &str| {
            let column = column(name)?.as_primitive_opt::<UInt32Type>();
            column.ok_or_else(of_another)
        };
        let (sources, splits) = (numbers("source")?, numbers("split")?);
        let marks = column("watermark")?.as_primitive_opt::<Int64Type>();
        let marks = marks.ok_or_else(of_another)?;
        for row in 0..part.rows.num_rows() {
            let key = SplitKey {
                source: sources.value(row),
                split: splits.value(row),
                branch: 0,
            };
            self.saved.insert(key, marks.value(row));
        }
        Ok(())
    }

    /// The watermark of this worker.
    pub(super) fn watermark(&self) -> Watermark {
        Watermark(self.watermark)
    }

    /// True if there are splits, and all have been silent for too long.
    pub(super) fn is_idle(&self) -> bool {
        !self.waits_for_splits()
            && !self.open.is_empty()
            && self.open.values().all(|split| split.is_idle)
    }

    /// The split with the least watermark.
    pub(super) fn held_back_by(&self) -> Option<Arc<str>> {
        let active = self.open.values().filter(|split| !split.is_idle);
        let least = active.min_by_key(|split| split.watermark)?;
        Some(Arc::clone(&least.name))
    }

    pub(super) fn n_bytes(&self) -> u64 {
        let n_ways: usize = self.open.values().map(|split| split.ways.len()).sum();
        let of_splits = self.open.len() * size_of::<(SplitKey, OpenSplit)>();
        (of_splits + n_ways * size_of::<(u64, Way)>()) as u64
    }
}

fn without_way(key: SplitKey) -> SplitKey {
    SplitKey { branch: 0, ..key }
}

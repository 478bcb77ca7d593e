//! How rows are dealt to workers: one contract for all edges, chosen when the dataflow is built.

use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use timely::communication::{Pull, Push};
use timely::dataflow::channels::Message;
use timely::dataflow::channels::pact::{DistributorPact, ParallelizationContract, Pipeline};
use timely::dataflow::channels::pushers::exchange::Distributor;
use timely::logging::TimelyLogger;
use timely::progress::Stamp;
use timely::worker::Worker;

use super::container::Rows;
use super::failure::{Failure, guard};
use super::time::LogicalTime;
use crate::error::{Error, Result};
use crate::keys::{Hashed, normal};
use crate::state::{KEY_GROUPS, worker_of};
use crate::transform::Distribution;

/// The rows of `rows` by the worker that their key belongs to; `None` where there are none.
pub(crate) fn deal(
    rows: &RecordBatch,
    keys: &[String],
    n_workers: usize,
) -> Result<Vec<Option<RecordBatch>>> {
    let groups = key_groups(rows, keys)?;
    let mut n_rows = vec![0; n_workers];
    for &group in &groups {
        n_rows[worker_of(group, n_workers)] += 1;
    }
    if let Some(worker) = n_rows.iter().position(|&n| n == rows.num_rows()) {
        let mut parts = vec![None; n_workers];
        parts[worker] = (rows.num_rows() > 0).then(|| rows.clone());
        return Ok(parts);
    }
    let mut indices: Vec<Vec<u32>> = n_rows.into_iter().map(Vec::with_capacity).collect();
    for (row, &group) in (0u32..).zip(&groups) {
        indices[worker_of(group, n_workers)].push(row);
    }
    indices
        .into_iter()
        .map(|rows_of| match rows_of.len() {
            0 => Ok(None),
            _ => Ok(Some(take_record_batch(rows, &UInt32Array::from(rows_of))?)),
        })
        .collect()
}

/// The key group of each row: equal keys, null included, share one, today and after a restart.
///
/// Of a column of integers, dates or times it is made by a multiplication of their bits; of all else it is the
/// FarmHash of the keys as arrow-row writes them. -0.0 counts as 0.0, and every NaN as the same.
pub(crate) fn key_groups(rows: &RecordBatch, keys: &[String]) -> Result<Vec<u8>> {
    let schema: SchemaRef = rows.schema();
    let mut columns = Vec::with_capacity(keys.len());
    let mut fields = Vec::with_capacity(keys.len());
    for key in keys {
        let index = crate::expression::check_column(key, &schema)?;
        columns.push(normal(rows.column(index))?);
        fields.push(SortField::new(schema.field(index).data_type().clone()));
    }
    if let [column] = columns.as_slice()
        && let Some(groups) = groups_of_numbers(column)
    {
        return Ok(groups);
    }
    let converter = RowConverter::new(fields)
        .map_err(|e| Error::pipeline(format!("rows cannot be dealt by {keys:?}")).with_source(e))?;
    let keys = converter.convert_columns(&columns)?;
    let hash = |key: arrow::row::Row<'_>| farmhash::fingerprint64(key.as_ref());
    Ok(keys.iter().map(|key| group_of(hash(key))).collect())
}

/// The low bits; the high ones find keys in the tables of a worker, and must differ there.
fn group_of(hash: u64) -> u8 {
    // Less than `KEY_GROUPS`, so it fits.
    (hash % KEY_GROUPS as u64).to_le_bytes()[0]
}

/// The groups of one column of integers, dates or times of 32 or 64 bits.
fn groups_of_numbers(column: &ArrayRef) -> Option<Vec<u8>> {
    if !matches!(
        column.data_type(),
        DataType::Int32
            | DataType::UInt32
            | DataType::Date32
            | DataType::Time32(_)
            | DataType::Int64
            | DataType::UInt64
            | DataType::Date64
            | DataType::Time64(_)
            | DataType::Timestamp(_, _)
            | DataType::Duration(_)
    ) {
        return None;
    }
    let data = column.to_data().into_builder();
    let mut groups: Vec<u8> = if column.data_type().primitive_width() == Some(4) {
        let bits = UInt32Array::from(data.data_type(DataType::UInt32).build().ok()?);
        bits.values().iter().map(|v| group_of(v.hash())).collect()
    } else {
        let bits = UInt64Array::from(data.data_type(DataType::UInt64).build().ok()?);
        bits.values().iter().map(|v| group_of(v.hash())).collect()
    };
    if let Some(nulls) = column.nulls().filter(|n| n.null_count() > 0) {
        for (group, valid) in groups.iter_mut().zip(nulls) {
            if !valid {
                *group = GROUP_OF_NULL;
            }
        }
    }
    Some(groups)
}

/// The key group of a null among numbers.
const GROUP_OF_NULL: u8 = 0;

/// How the rows of one edge are dealt to workers.
#[derive(Clone)]
pub(crate) struct Dealing {
    pub(crate) distribution: Distribution,
    pub(crate) node: Arc<str>,
    pub(crate) failure: Arc<Failure>,
}

impl ParallelizationContract<LogicalTime, Rows> for Dealing {
    type Pusher = Box<dyn Push<Message<LogicalTime, Rows>>>;
    type Puller = Box<dyn Pull<Message<LogicalTime, Rows>>>;

    fn connect(
        self,
        worker: &Worker,
        identifier: usize,
        address: Rc<[usize]>,
        logging: Option<TimelyLogger>,
    ) -> (Self::Pusher, Self::Puller) {
        if self.distribution == Distribution::Keep || worker.peers() == 1 {
            let (push, pull) = Pipeline.connect(worker, identifier, address, logging);
            return (Box::new(push), Box::new(pull));
        }
        let pact = DistributorPact(move |_peers| self);
        let (push, pull) = pact.connect(worker, identifier, address, logging);
        (Box::new(push), Box::new(pull))
    }
}

impl Distributor<Rows> for Dealing {
    fn partition<T: Clone, P: Push<Message<T, Rows>>>(
        &mut self,
        container: &mut Rows,
        stamp: &Stamp<T>,
        pushers: &mut [P],
    ) {
        let Some(batch) = container.0.take() else {
            return;
        };
        if batch.event().is_some() || batch.n_rows() == 0 {
            // Of no use there, but progress waits for whatever was sent to be taken in.
            if let Some(first) = pushers.first_mut() {
                Message::push_at(&mut Rows(Some(batch)), stamp.clone(), first);
            }
            return;
        }
        let parts = match &self.distribution {
            Distribution::ByKey(keys) => {
                guard(&self.node, || deal(batch.rows(), keys, pushers.len()))
            }
            Distribution::Keep | Distribution::One => Ok(vec![Some(batch.rows().clone())]),
            // One of the copies: each counts for itself, since progress counts what was sent before it is dealt.
            Distribution::Broadcast => {
                let mut parts = vec![None; pushers.len()];
                if let Some(part) = parts.get_mut(batch.worker()) {
                    *part = Some(batch.rows().clone());
                }
                Ok(parts)
            }
        };
        match parts {
            Ok(parts) => {
                for (rows, pusher) in parts.into_iter().zip(pushers) {
                    let Some(rows) = rows else { continue };
                    // All rows are still there in their order where none went elsewhere.
                    let whole = rows.num_rows() == batch.n_rows();
                    let part = if whole {
                        batch.clone()
                    } else {
                        batch.derive(rows)
                    };
                    Message::push_at(&mut Rows(Some(part)), stamp.clone(), pusher);
                }
            }
            Err(error) => self.failure.set(error),
        }
    }

    fn flush<T: Clone, P: Push<Message<T, Rows>>>(
        &mut self,
        _stamp: &Stamp<T>,
        _pushers: &mut [P],
    ) {
    }

    fn relax(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::table;
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equal_keys_meet_whatever_the_batch_and_null_is_a_key(
            keys in prop::collection::vec(prop::option::of(0i64..20), 1..60),
            n_workers in 1usize..5,
        ) {
            let n: Vec<String> = (0..keys.len()).map(|n| n.to_string()).collect();
            let k: Vec<String> =
                keys.iter().map(|k| k.map_or("null".into(), |k| k.to_string())).collect();
            let rows = table(&format!("k: 0, {}; n: -1, {}", k.join(", "), n.join(", ")));
            let rows = rows.slice(1, keys.len());
            let parts = deal(&rows, &["k".into()], n_workers).unwrap();
            prop_assert_eq!(parts.len(), n_workers);
            let n_dealt: usize = parts.iter().flatten().map(RecordBatch::num_rows).sum();
            prop_assert_eq!(n_dealt, keys.len());
            for row in 0..keys.len() {
                let one = deal(&rows.slice(row, 1), &["k".into()], n_workers).unwrap();
                let at = one.iter().position(Option::is_some).unwrap();
                let there = parts[at].as_ref().unwrap()["n"].as_primitive::<Int64Type>().values();
                prop_assert!(there.contains(&(row as i64)));
            }
        }
    }

    /// As `python3 -c "m = 0x9E3779B97F4A7C15 * (N ^ 0x2545F4914F6CDD1D); print((m ^ m >> 64) % 128)"` has it for
    /// N = 0, 1, 2, 7 and 2**64 - 7; what is saved by key group relies on it.
    #[test]
    fn groups_of_numbers_stay_what_they_are() {
        let rows = table("k: 0, 1, 2, 7, -7, null");
        let groups = key_groups(&rows, &["k".into()]).unwrap();
        assert_eq!(groups, [100, 73, 12, 38, 59, GROUP_OF_NULL]);
    }

    #[test]
    fn groups_of_text_are_farmhash_of_the_row_bytes() {
        let rows = table("k: a");
        // As arrow-row writes it: 2 as there is a text, blocks of 8 bytes, and how many of the last are its own.
        let bytes = [&[2, b'a'][..], &[0; 7], &[1]].concat();
        let expected = farmhash::fingerprint64(&bytes) % 128;
        let groups = key_groups(&rows, &["k".into()]).unwrap();
        assert_eq!(groups, [u8::try_from(expected).unwrap()]);
    }

    #[test]
    fn numbers_in_a_row_are_dealt_evenly() {
        for step in [1i64, 2, 128, 1 << 20, 1 << 32, 1_000_000_007] {
            let keys: arrow::array::Int64Array = (0..128_000).map(|n| n * step).collect();
            let groups = groups_of_numbers(&(Arc::new(keys) as ArrayRef)).unwrap();
            let mut n_rows = [0; 128];
            for group in groups {
                n_rows[usize::from(group)] += 1;
            }
            let (least, most) = (n_rows.iter().min().unwrap(), n_rows.iter().max().unwrap());
            assert!(
                *least > 800 && *most < 1_200,
                "step {step}: {least} to {most} rows in a group"
            );
        }
    }

    #[test]
    fn zeros_meet_and_so_do_nans() {
        let rows = table("k: 0.0, -0.0; n: 1, 2");
        let groups = key_groups(&rows, &["k".into()]).unwrap();
        assert_eq!(groups[0], groups[1]);
    }
}

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
use crate::keys::normal;
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
/// It is the FarmHash of the keys as arrow-row writes them; -0.0 counts as 0.0, and every NaN as the same.
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
    Ok(keys.iter().map(|key| group_of(key.as_ref())).collect())
}

fn group_of(key: &[u8]) -> u8 {
    // Less than `KEY_GROUPS`, so it fits.
    (farmhash::fingerprint64(key) % KEY_GROUPS as u64).to_le_bytes()[0]
}

/// The groups of one column of integers, dates or times, whose row bytes are written without a converter.
fn groups_of_numbers(column: &ArrayRef) -> Option<Vec<u8>> {
    let (flip32, flip64) = match column.data_type() {
        DataType::Int32 | DataType::Date32 | DataType::Time32(_) => (1 << 31, 0),
        DataType::UInt32 => (0, 0),
        DataType::Int64
        | DataType::Date64
        | DataType::Time64(_)
        | DataType::Timestamp(_, _)
        | DataType::Duration(_) => (0, 1 << 63),
        DataType::UInt64 => (0, 0),
        _ => return None,
    };
    let nulls = column.nulls().cloned();
    let valid = |row: usize| nulls.as_ref().is_none_or(|n| n.is_valid(row));
    let data = column.to_data().into_builder();
    if column.data_type().primitive_width() == Some(4) {
        let bits = UInt32Array::from(data.data_type(DataType::UInt32).build().ok()?);
        let all = bits.values().iter().enumerate();
        return Some(
            all.map(|(row, value)| {
                let mut key = [0; 5];
                if valid(row) {
                    key[0] = 1;
                    key[1..].copy_from_slice(&(value ^ flip32).to_be_bytes());
                }
                group_of(&key)
            })
            .collect(),
        );
    }
    let bits = UInt64Array::from(data.data_type(DataType::UInt64).build().ok()?);
    let all = bits.values().iter().enumerate();
    Some(
        all.map(|(row, value)| {
            let mut key = [0; 9];
            if valid(row) {
                key[0] = 1;
                key[1..].copy_from_slice(&(value ^ flip64).to_be_bytes());
            }
            group_of(&key)
        })
        .collect(),
    )
}

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
        if batch.event().is_some() {
            // Only of use to those on the worker of the split, none of whom is behind an exchange. Timely has
            // counted it as sent and waits until it has come, wherever that is.
            if let Some(pusher) = pushers.first_mut() {
                Message::push_at(&mut Rows(Some(batch)), stamp.clone(), pusher);
            }
            return;
        }
        let parts = match &self.distribution {
            Distribution::ByKey(keys) => {
                guard(&self.node, || deal(batch.rows(), keys, pushers.len()))
            }
            Distribution::Keep | Distribution::One => Ok(vec![Some(batch.rows().clone())]),
            Distribution::Broadcast => Ok(vec![Some(batch.rows().clone()); pushers.len()]),
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

    /// The key of one row is null, as arrow-row writes it: the byte 0 and eight zeros.
    #[test]
    fn groups_are_farmhash_of_the_row_bytes() {
        let rows = table("k: 7, null").slice(1, 1);
        let expected = farmhash::fingerprint64(&[0; 9]) % 128;
        let groups = key_groups(&rows, &["k".into()]).unwrap();
        assert_eq!(groups, [u8::try_from(expected).unwrap()]);
    }

    proptest! {
        /// Numbers skip the converter, and land where it would put them.
        #[test]
        fn groups_of_numbers_are_those_of_their_row_bytes(
            values in prop::collection::vec(prop::option::of(any::<i64>()), 0..50),
        ) {
            let longs: ArrayRef = Arc::new(arrow::array::Int64Array::from(values.clone()));
            let ints: ArrayRef = Arc::new(values.iter().map(|v| v.map(|v| v as i32)).collect::<arrow::array::Int32Array>());
            let unsigned: ArrayRef = Arc::new(values.iter().map(|v| v.map(|v| v as u64)).collect::<UInt64Array>());
            let small: ArrayRef = Arc::new(values.iter().map(|v| v.map(|v| v as u32)).collect::<UInt32Array>());
            let days = arrow::compute::cast(&ints, &DataType::Date32).unwrap();
            for column in [longs, ints, unsigned, small, days] {
                let converter = RowConverter::new(vec![SortField::new(column.data_type().clone())]).unwrap();
                let rows = converter.convert_columns(std::slice::from_ref(&column)).unwrap();
                let expected: Vec<u8> = rows.iter().map(|r| group_of(r.as_ref())).collect();
                prop_assert_eq!(groups_of_numbers(&column), Some(expected));
            }
        }
    }

    #[test]
    fn zeros_meet_and_so_do_nans() {
        let rows = table("k: 0.0, -0.0; n: 1, 2");
        let groups = key_groups(&rows, &["k".into()]).unwrap();
        assert_eq!(groups[0], groups[1]);
    }
}

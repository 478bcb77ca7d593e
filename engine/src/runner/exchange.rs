//! How rows are dealt to workers: one contract for all edges, chosen when the dataflow is built.

use std::rc::Rc;
use std::sync::Arc;

use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
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
use crate::transform::Distribution;

/// Keys are dealt to this many groups, and groups to workers, so that state kept per group can be dealt
/// again to another number of workers.
pub(crate) const KEY_GROUPS: usize = 128;

/// The rows of `rows` by the worker that their key belongs to; `None` where there are none.
pub(crate) fn deal(
    rows: &RecordBatch,
    keys: &[String],
    n_workers: usize,
) -> Result<Vec<Option<RecordBatch>>> {
    let mut indices: Vec<Vec<u32>> = vec![Vec::new(); n_workers];
    for (row, group) in key_groups(rows, keys)?.into_iter().enumerate() {
        indices[group * n_workers / KEY_GROUPS].push(u32::try_from(row).unwrap_or(u32::MAX));
    }
    indices
        .into_iter()
        .map(|rows_of| match rows_of.len() {
            0 => Ok(None),
            n if n == rows.num_rows() => Ok(Some(rows.clone())),
            _ => Ok(Some(take_record_batch(rows, &UInt32Array::from(rows_of))?)),
        })
        .collect()
}

/// The key group of each row: equal keys, null included, share one, today and after a restart.
fn key_groups(rows: &RecordBatch, keys: &[String]) -> Result<Vec<usize>> {
    let schema: SchemaRef = rows.schema();
    let mut columns = Vec::with_capacity(keys.len());
    let mut fields = Vec::with_capacity(keys.len());
    for key in keys {
        let index = crate::expression::check_column(key, &schema)?;
        columns.push(Arc::clone(rows.column(index)));
        fields.push(SortField::new(schema.field(index).data_type().clone()));
    }
    let converter = RowConverter::new(fields)
        .map_err(|e| Error::pipeline(format!("rows cannot be dealt by {keys:?}")).with_source(e))?;
    let keys = converter.convert_columns(&columns)?;
    let groups = KEY_GROUPS as u64;
    Ok(keys
        .iter()
        .map(|key| usize::try_from(farmhash::fingerprint64(key.as_ref()) % groups).unwrap_or(0))
        .collect())
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
        let parts = match &self.distribution {
            Distribution::ByKey(keys) => {
                guard(&self.node, || deal(batch.rows(), keys, pushers.len()))
            }
            Distribution::Keep | Distribution::One => Ok(vec![Some(batch.rows().clone())]),
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
        assert_eq!(
            key_groups(&rows, &["k".into()]).unwrap(),
            [usize::try_from(expected).unwrap()]
        );
    }
}

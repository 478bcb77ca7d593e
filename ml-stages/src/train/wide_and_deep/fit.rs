//! The training loop: epochs, minibatches, shards on threads.

use std::sync::{Mutex, PoisonError};

use candle_core::backprop::GradStore;
use mainstem_engine::{Error, Result, TrainingContext, TrainingRows};
use mainstem_transforms::FeatureLayout;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::WideAndDeep;
use super::inputs::Inputs;
use super::minibatch::Block;
use super::network::{Network, loss};
use super::optimizer::AdamW;
use crate::model::Task;
use crate::train::columns::no_rows;

/// Rows up to this many bytes stay in memory from epoch to epoch; of more rows, one block of this size
/// after the other is read, shuffled and learned from.
const MAX_BLOCK_BYTES: usize = 1 << 30;

/// The gradient of a minibatch is computed in so many parts, whatever the number of threads: sums of
/// floats depend on their order.
const N_SHARDS: usize = 4;

/// What training ends in.
pub(super) struct Trained {
    pub(super) inputs: Inputs,
    pub(super) networks: Vec<Network>,
    pub(super) label: LabelScale,
    pub(super) losses: Vec<f64>,
}

/// How labels are scaled for training: `(label - mean) / std_dev`.
#[derive(Clone, Copy, Debug)]
pub(super) struct LabelScale {
    pub(super) mean: f64,
    pub(super) std_dev: f64,
    n_rows: u64,
}

pub(super) fn fit(
    spec: &WideAndDeep,
    layout: &FeatureLayout,
    rows: &dyn TrainingRows,
    context: &dyn TrainingContext,
) -> Result<Trained> {
    fit_within(MAX_BLOCK_BYTES, spec, layout, rows, context)
}

/// [`fit`] with at most so many bytes of rows in memory, but at least a minibatch.
pub(super) fn fit_within(
    max_block_bytes: usize,
    spec: &WideAndDeep,
    layout: &FeatureLayout,
    rows: &dyn TrainingRows,
    context: &dyn TrainingContext,
) -> Result<Trained> {
    let inputs = Inputs::new(layout, &spec.wide)?;
    let label = scan_labels(spec, layout, rows, context)?;
    let score = match spec.task {
        Task::Regression => 0.0,
        Task::BinaryClassification => {
            let share = label.mean.clamp(1e-6, 1.0 - 1e-6);
            (share / (1.0 - share)).ln()
        }
    };
    let mut random = ChaCha8Rng::seed_from_u64(spec.seed);
    let networks = (0..spec.ensemble)
        .map(|_| Network::new(spec, &inputs, score as f32, &mut random))
        .collect::<candle_core::Result<Vec<_>>>()
        .map_err(candle)?;
    let optimizers = networks
        .iter()
        .map(|n| AdamW::new(n.parameters(), spec.weight_decay))
        .collect::<candle_core::Result<_>>()
        .map_err(candle)?;
    let n_threads = context.n_threads().clamp(1, N_SHARDS * spec.ensemble);
    let mut run = Run {
        spec,
        layout,
        inputs: &inputs,
        label: match spec.task {
            Task::Regression => label,
            Task::BinaryClassification => LabelScale {
                mean: 0.0,
                std_dev: 1.0,
                ..label
            },
        },
        context,
        networks: &networks,
        optimizers,
        pools: (0..n_threads)
            .map(|_| one_thread())
            .collect::<Result<_>>()?,
        random,
        n_done: 0,
    };
    let block_rows = (max_block_bytes / inputs.bytes_per_row()).max(spec.batch_size);
    let losses = run.epochs(rows, block_rows)?;
    let label = run.label;
    Ok(Trained {
        inputs,
        networks,
        label,
        losses,
    })
}

/// One pass over the labels alone, which also finds what is wrong with any row.
fn scan_labels(
    spec: &WideAndDeep,
    layout: &FeatureLayout,
    rows: &dyn TrainingRows,
    context: &dyn TrainingContext,
) -> Result<LabelScale> {
    let (mut n_rows, mut weight, mut mean, mut squares) = (0, 0.0, 0.0, 0.0);
    for batch in rows.epoch() {
        context.check()?;
        let examples = spec.columns.read(&batch?, n_rows, layout, spec.task)?;
        for (row, y) in examples.labels.iter().enumerate() {
            let w = examples.weight(row);
            if w > 0.0 {
                weight += w;
                let above = y - mean;
                mean += above * w / weight;
                squares += w * above * (y - mean);
            }
        }
        n_rows += examples.n_rows() as u64;
    }
    if weight == 0.0 {
        return Err(no_rows(spec.columns.label()));
    }
    let std_dev = (squares / weight).sqrt();
    Ok(LabelScale {
        mean,
        std_dev: if std_dev > 0.0 { std_dev } else { 1.0 },
        n_rows,
    })
}

/// candle spreads over the rayon pool it runs in; with its own thread each, shards do not disturb each other.
fn one_thread() -> Result<ThreadPool> {
    ThreadPoolBuilder::new()
        .num_threads(1)
        .thread_name(|_| "mainstem-train".into())
        .build()
        .map_err(|e| Error::environment("a thread for training cannot be started").with_source(e))
}

/// Runs `work` once in each pool, with its number, at the same time; waits for all.
fn on_each(pools: &[ThreadPool], work: &(impl Fn(usize) + Sync)) {
    match pools {
        [] => {}
        [only] => only.install(|| work(0)),
        [others @ .., last] => last.in_place_scope(|scope| {
            scope.spawn(move |_| work(others.len()));
            on_each(others, work);
        }),
    }
}

struct Run<'a> {
    spec: &'a WideAndDeep,
    layout: &'a FeatureLayout,
    inputs: &'a Inputs,
    label: LabelScale,
    context: &'a dyn TrainingContext,
    networks: &'a [Network],
    optimizers: Vec<AdamW>,
    pools: Vec<ThreadPool>,
    random: ChaCha8Rng,
    n_done: u64,
}

impl Run<'_> {
    /// All passes, and the mean loss of each.
    fn epochs(&mut self, rows: &dyn TrainingRows, block_rows: usize) -> Result<Vec<f64>> {
        let mut losses = Vec::new();
        let mut kept: Option<Block> = None;
        for epoch in 1..=self.spec.epochs {
            let mut sum = Sum::default();
            match &kept {
                Some(block) => self.learn(block, epoch, &mut sum)?,
                None => kept = self.read_and_learn(rows, block_rows, epoch, &mut sum)?,
            }
            losses.push(sum.loss / sum.weight);
        }
        Ok(losses)
    }

    /// One pass in blocks; gives the block back if it holds all rows.
    fn read_and_learn(
        &mut self,
        rows: &dyn TrainingRows,
        block_rows: usize,
        epoch: usize,
        sum: &mut Sum,
    ) -> Result<Option<Block>> {
        let mut block = Block::default();
        let mut n_read = 0;
        for batch in rows.epoch() {
            self.context.check()?;
            let Self { spec, layout, .. } = self;
            let examples = spec.columns.read(&batch?, n_read, layout, spec.task)?;
            for (row, features) in examples.rows().enumerate() {
                if block.n_rows() == block_rows {
                    self.learn(&block, epoch, sum)?;
                    block = Block::default();
                }
                let y = (examples.labels[row] - self.label.mean) / self.label.std_dev;
                let weight = examples.weight(row) as f32;
                block.push(self.inputs, features, y as f32, weight);
            }
            n_read += examples.n_rows() as u64;
        }
        self.learn(&block, epoch, sum)?;
        Ok((block.n_rows() as u64 == n_read).then_some(block))
    }

    /// One pass over the rows of a block, in a new order.
    fn learn(&mut self, block: &Block, epoch: usize, sum: &mut Sum) -> Result<()> {
        let mut order: Vec<u32> = (0..block.n_rows() as u32).collect();
        order.shuffle(&mut self.random);
        for rows in order.chunks(self.spec.batch_size) {
            self.context.check()?;
            let weight = block.weight(rows);
            if weight > 0.0 {
                let loss = self.step(block, rows, weight)?;
                if !loss.is_finite() {
                    return Err(self.diverged(epoch, loss));
                }
                sum.loss += loss * weight;
                sum.weight += weight;
            }
            self.n_done += rows.len() as u64;
            self.context.progress(self.n_done, self.n_total());
        }
        Ok(())
    }

    fn n_total(&self) -> u64 {
        self.label.n_rows * self.spec.epochs as u64
    }

    fn step(&mut self, block: &Block, rows: &[u32], weight: f64) -> Result<f64> {
        let shards: Vec<&[u32]> = rows.chunks(rows.len().div_ceil(N_SHARDS)).collect();
        let parts = self.gradients(block, &shards, weight)?;
        let progress = self.n_done as f64 / self.n_total() as f64;
        let rate = self.spec.learning_rate * (1.0 + (std::f64::consts::PI * progress).cos()) / 2.0;
        let mut loss = 0.0;
        for (optimizer, parts) in self.optimizers.iter_mut().zip(parts.chunks(shards.len())) {
            let gradients: Vec<&GradStore> = parts.iter().map(|(g, _)| g).collect();
            optimizer.step(&gradients, rate).map_err(candle)?;
            loss += parts.iter().map(|(_, l)| l).sum::<f64>();
        }
        Ok(loss / self.networks.len() as f64)
    }

    /// The gradient and the loss of each shard for each network, network by network.
    fn gradients(
        &self,
        block: &Block,
        shards: &[&[u32]],
        weight: f64,
    ) -> Result<Vec<(GradStore, f64)>> {
        let n_tasks = shards.len() * self.networks.len();
        let work = |task: usize| {
            let network = &self.networks[task / shards.len()];
            let rows = block.minibatch(self.inputs, shards[task % shards.len()])?;
            let loss = loss(&network.forward(&rows)?, &rows, weight, self.spec.task)?;
            Ok((loss.backward()?, f64::from(loss.to_scalar::<f32>()?)))
        };
        let n_threads = self.pools.len();
        let done: Mutex<Vec<(usize, candle_core::Result<_>)>> = Mutex::default();
        on_each(&self.pools, &|thread| {
            for task in (thread..n_tasks).step_by(n_threads) {
                let part = work(task);
                done.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push((task, part));
            }
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by_key(|(task, _)| *task);
        done.into_iter()
            .map(|(_, part)| part.map_err(candle))
            .collect()
    }

    fn diverged(&self, epoch: usize, loss: f64) -> Error {
        Error::data(format!(
            "the loss of {:?} became {loss} in epoch {epoch}",
            self.spec.columns.label()
        ))
        .with_detail(format!("The learning rate is {}.", self.spec.learning_rate))
        .with_hint("Lower `learning_rate`, and scale the numeric features by `scale_to_z_score`.")
    }
}

#[derive(Default)]
struct Sum {
    loss: f64,
    weight: f64,
}

pub(super) fn candle(error: candle_core::Error) -> Error {
    Error::bug("candle refused a tensor").with_source(error)
}

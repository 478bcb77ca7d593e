//! What may happen next in a simulation, and which of it does.

use super::{QueueKey, Simulation};
use crate::error::Result;
use crate::runner::chain::RunningChain;

/// One thing that may happen.
enum Move {
    Take(QueueKey),
    /// A chain on a worker hears of the watermark of one of its inputs.
    PassOfInput(usize, usize, usize, i64),
    /// A chain on a worker hears of the watermark of all its inputs.
    Pass(usize, usize, i64),
    /// A relation does what there is to do on a worker, once.
    Step(usize, usize),
    Wake(usize, usize),
}

impl Simulation<'_> {
    /// What a chain may hear as the watermark of each of its inputs: the least of what is before it and of what is on
    /// its way.
    fn input_watermarks(&self, chain: usize) -> Vec<i64> {
        let phase = self.phase();
        let first = phase.chains[chain].members[0];
        let inputs = phase.inputs(self.workshop.graph, first);
        let of_input = inputs.iter().enumerate().map(|(port, edge)| {
            let before = phase
                .chains
                .iter()
                .position(|of| of.members.contains(&edge.from));
            let at = match before {
                Some(before) => self.behind[before].iter().copied().min(),
                None => self.sources.get(&edge.from).map(|source| source.watermark),
            };
            let on_their_way = self.queues.iter();
            let on_their_way =
                on_their_way.filter(|((to, _, at, _), _)| (*to, *at) == (chain, port));
            let stamps = on_their_way.flat_map(|(_, queue)| queue.iter().map(|(stamp, _)| *stamp));
            stamps.fold(at.unwrap_or(i64::MIN), i64::min)
        });
        of_input.collect()
    }

    /// What a chain may hear of watermarks. Where it has several inputs it hears of each by itself, and of all
    /// together no more than that.
    fn add_watermarks(&self, chain: usize, moves: &mut Vec<Move>) {
        let of_inputs = self.input_watermarks(chain);
        let hears_of_each = of_inputs.len() > 1 && !self.relations.contains_key(&chain);
        let least = of_inputs.iter().copied().min().unwrap_or(i64::MAX);
        for worker in 0..self.workshop.n_workers {
            let seen_of = &self.seen_of[chain][worker];
            let mut at = least;
            if hears_of_each {
                for (port, (now, seen)) in of_inputs.iter().zip(seen_of).enumerate() {
                    if now > seen {
                        moves.push(Move::PassOfInput(chain, worker, port, *now));
                    }
                }
                at = seen_of.iter().copied().min().unwrap_or(least);
            }
            if at > self.seen[chain][worker] {
                moves.push(Move::Pass(chain, worker, at));
            }
        }
    }

    /// Moves whatever can move, in an order of chance, until nothing can.
    pub(super) fn settle(&mut self) -> Result<()> {
        loop {
            let mut moves: Vec<Move> = self.queues.keys().map(|key| Move::Take(*key)).collect();
            for chain in 0..self.running.len() {
                self.add_watermarks(chain, &mut moves);
                let now = self.workshop.clock.now_ms();
                for worker in 0..self.workshop.n_workers {
                    let running = self.running[chain].get(worker);
                    let wakes_at = running.and_then(RunningChain::wakes_at);
                    if self.seen[chain][worker] != i64::MAX && wakes_at.is_some_and(|t| t <= now) {
                        moves.push(Move::Wake(chain, worker));
                    }
                }
            }
            for (chain, relation) in &self.relations {
                if relation.is_at_work() {
                    let workers = 0..self.workshop.n_workers;
                    moves.extend(workers.map(|worker| Move::Step(*chain, worker)));
                }
            }
            if moves.is_empty() {
                return Ok(());
            }
            let chosen = self.chance.index(moves.len());
            match moves.swap_remove(chosen) {
                Move::Take(key) => self.take_in(key)?,
                Move::PassOfInput(chain, worker, port, at) => {
                    self.pass_of_input(chain, worker, port, at)?;
                }
                Move::Pass(chain, worker, at) => self.pass(chain, worker, at)?,
                Move::Step(chain, worker) => {
                    self.of_relation(chain, worker, |relation| relation.step(worker))?;
                }
                Move::Wake(chain, worker) => {
                    let now = self.workshop.clock.now_ms();
                    self.running[chain][worker].wake(now);
                    self.work(chain, worker, self.behind[chain][worker])?;
                }
            }
        }
    }
}

//! The trained networks as one ONNX graph.

use candle_core::Var;
use mainstem_engine::Result;
use mainstem_transforms::FeatureLayout;
use mainstem_transforms::onnx_graph::Value;

use super::WideAndDeep;
use super::fit::{Trained, candle};
use super::inputs::{Inputs, Part};
use super::network::{Layer, Network};
use crate::model::TrainedModel;
use crate::train::graph::ModelGraph;

pub(super) fn export(
    spec: &WideAndDeep,
    layout: FeatureLayout,
    trained: Trained,
) -> Result<TrainedModel> {
    // The label's scale and the mean over the ensemble go into the last weights.
    let n = trained.networks.len() as f64;
    let mut writer = Writer {
        graph: ModelGraph::new(&layout),
        inputs: &trained.inputs,
        scale: trained.label.std_dev / n,
        shift: trained.label.mean / n,
    };
    let mut scores = Vec::new();
    for network in &trained.networks {
        scores.push(writer.network(network).map_err(candle)?);
    }
    let mut graph = writer.graph;
    let score = graph.sum(scores);
    Ok(TrainedModel {
        kind: "wide_and_deep",
        task: spec.task,
        graph: graph.finish(score, spec.task),
        layout,
        losses: trained.losses,
    })
}

struct Writer<'a> {
    graph: ModelGraph,
    inputs: &'a Inputs,
    scale: f64,
    shift: f64,
}

impl Writer<'_> {
    fn network(&mut self, network: &Network) -> candle_core::Result<Value> {
        let mut scores = vec![self.deep(network)?];
        let Part {
            dense,
            indexes,
            first,
            ..
        } = &self.inputs.wide;
        if let Some(table) = &network.wide_table {
            let rows = self.graph.table_rows(indexes, first);
            let table = self.scaled(table)?;
            scores.push(self.graph.sum_of_weights(rows, table));
        }
        if let Some(weights) = &network.wide_dense {
            let columns = self.graph.pick(dense);
            let weights = self.scaled(weights)?;
            scores.push(self.graph.linear(columns, weights, vec![0.0]));
        }
        Ok(self.graph.sum(scores))
    }

    fn deep(&mut self, network: &Network) -> candle_core::Result<Value> {
        let Part {
            dense,
            indexes,
            first,
            ..
        } = &self.inputs.deep;
        let (hidden, last) = match network.layers.split_last() {
            Some((last, hidden)) => (hidden, last),
            None => return Ok(self.graph.same_for_all(0.0)),
        };
        let mut parts = Vec::new();
        if !dense.is_empty() {
            parts.push(self.graph.pick(dense));
        }
        if let Some(table) = &network.embeddings {
            let rows = self.graph.table_rows(indexes, first);
            parts.push(self.graph.embed(rows, table.dim(1)?, floats(table)?));
        }
        if parts.is_empty() {
            let bias = self.last_bias(last)?;
            return Ok(self.graph.same_for_all(bias));
        }
        let mut x = self.graph.concat(&parts);
        for layer in hidden {
            x = self
                .graph
                .linear(x, floats(&layer.weights)?, floats(&layer.bias)?);
            x = self.graph.relu(x);
        }
        let (weights, bias) = (self.scaled(&last.weights)?, self.last_bias(last)?);
        Ok(self.graph.linear(x, weights, vec![bias]))
    }

    fn last_bias(&self, last: &Layer) -> candle_core::Result<f32> {
        let bias = f64::from(last.bias.get(0)?.to_scalar::<f32>()?);
        Ok((bias * self.scale + self.shift) as f32)
    }

    fn scaled(&self, weights: &Var) -> candle_core::Result<Vec<f32>> {
        let scaled = |w: &f32| (f64::from(*w) * self.scale) as f32;
        Ok(floats(weights)?.iter().map(scaled).collect())
    }
}

fn floats(var: &Var) -> candle_core::Result<Vec<f32>> {
    var.flatten_all()?.to_vec1()
}

//! AdamW over the gradients of several shards, added in a fixed order.

use candle_core::backprop::GradStore;
use candle_core::{Device, Result, Tensor};

use super::network::Parameter;

const BETA1: f32 = 0.9;
const BETA2: f32 = 0.999;
const EPSILON: f32 = 1e-8;

/// The state of one parameter.
struct State {
    parameter: Parameter,
    values: Vec<f32>,
    gradient: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
}

/// AdamW (Loshchilov and Hutter), as plain loops: for small tensors much faster than as tensors.
pub(super) struct AdamW {
    states: Vec<State>,
    weight_decay: f64,
    n_steps: i32,
}

impl AdamW {
    pub(super) fn new(parameters: Vec<Parameter>, weight_decay: f64) -> Result<Self> {
        let states = parameters
            .into_iter()
            .map(|parameter| {
                let values: Vec<f32> = parameter.var.flatten_all()?.to_vec1()?;
                Ok(State {
                    gradient: vec![0.0; values.len()],
                    first: vec![0.0; values.len()],
                    second: vec![0.0; values.len()],
                    values,
                    parameter,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            states,
            weight_decay,
            n_steps: 0,
        })
    }

    /// One step along the sum of the shards' gradients.
    pub(super) fn step(&mut self, shards: &[&GradStore], rate: f64) -> Result<()> {
        self.n_steps += 1;
        let correct1 = 1.0 / (1.0 - BETA1.powi(self.n_steps));
        let correct2 = 1.0 / (1.0 - BETA2.powi(self.n_steps));
        for state in &mut self.states {
            state.gradient.fill(0.0);
            for gradient in shards.iter().filter_map(|s| s.get(&state.parameter.var)) {
                let gradient = gradient.flatten_all()?.to_vec1::<f32>()?;
                for (sum, g) in state.gradient.iter_mut().zip(gradient) {
                    *sum += g;
                }
            }
            let decay = match state.parameter.decays {
                true => 1.0 - (rate * self.weight_decay) as f32,
                false => 1.0,
            };
            let rate = rate as f32;
            let moments = state.first.iter_mut().zip(&mut state.second);
            for ((x, g), (m, v)) in state.values.iter_mut().zip(&state.gradient).zip(moments) {
                *m = BETA1 * *m + (1.0 - BETA1) * g;
                *v = BETA2 * *v + (1.0 - BETA2) * g * g;
                *x = *x * decay - rate * (*m * correct1) / ((*v * correct2).sqrt() + EPSILON);
            }
            let var = &state.parameter.var;
            var.set(&Tensor::from_slice(
                &state.values,
                var.shape(),
                &Device::Cpu,
            )?)?;
        }
        Ok(())
    }
}

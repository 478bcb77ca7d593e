//! The embedded back-end: tract, in pure Rust, present on every machine.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use mainstem_engine::{Error, Result};
use prost::Message;
use tract_onnx::prelude::{
    Framework, InferenceModelExt, IntoRunnable, TValue, TVec, Tensor, TractError,
    TypedRunnableModel,
};

use super::backend::{InferenceBackend, InferenceSession, TensorOut, TensorValuesRef, TensorView};
use super::proto::ModelProto;

/// Runs models without any library.
///
/// It lacks operators of `ai.onnx.ml` and takes no text; it says so by name. What Mainstem's trainers
/// write as `model.onnx` it always runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Embedded;

impl Embedded {
    /// The embedded back-end.
    pub fn new() -> Self {
        Self
    }
}

impl InferenceBackend for Embedded {
    fn name(&self) -> String {
        "embedded".into()
    }

    fn load(&self, model: &[u8]) -> Result<Box<dyn InferenceSession>> {
        refuse_unknown_operators(model)?;
        let session = caught("load the model", || {
            let parsed = tract_onnx::onnx().model_for_read(&mut Cursor::new(model))?;
            let name =
                |outlet: &tract_onnx::prelude::OutletId| parsed.node(outlet.node).name.clone();
            let inputs = parsed.input_outlets()?.iter().map(name).collect();
            let outputs = parsed
                .output_outlets()?
                .iter()
                .map(|o| {
                    parsed
                        .outlet_label(*o)
                        .map_or_else(|| name(o), str::to_owned)
                })
                .collect();
            // Rows stay a symbol here and get their number at each run, so any number of rows will do.
            let plan = parsed.into_optimized()?.into_runnable()?;
            Ok(EmbeddedSession {
                plan,
                inputs,
                outputs,
            })
        })?;
        Ok(Box::new(session))
    }
}

struct EmbeddedSession {
    plan: Arc<TypedRunnableModel>,
    inputs: Vec<String>,
    outputs: Vec<String>,
}

impl InferenceSession for EmbeddedSession {
    fn run(&mut self, inputs: &[(&str, TensorView<'_>)]) -> Result<Vec<(String, TensorOut)>> {
        let values = self
            .inputs
            .iter()
            .map(|name| {
                let (_, view) = inputs.iter().find(|(n, _)| n == name).ok_or_else(|| {
                    Error::data(format!("the model's input {name:?} is not given"))
                })?;
                tensor(name, view)
            })
            .collect::<Result<TVec<TValue>>>()?;
        let plan = &self.plan;
        let made = caught("run the model", || plan.run(values))?;
        self.outputs
            .iter()
            .zip(made)
            .map(|(name, value)| {
                Ok((
                    name.clone(),
                    caught("read the model's output", || floats(&value))?,
                ))
            })
            .collect()
    }
}

fn tensor(name: &str, view: &TensorView<'_>) -> Result<TValue> {
    let shape = [view.n_rows, view.width];
    let made = match view.values {
        TensorValuesRef::Float(v) => Tensor::from_shape(&shape, v),
        TensorValuesRef::Double(v) => Tensor::from_shape(&shape, v),
        TensorValuesRef::Int64(v) => Tensor::from_shape(&shape, v),
        TensorValuesRef::Bool(v) => Tensor::from_shape(&shape, v),
        TensorValuesRef::String(_) => {
            return Err(Error::environment(format!(
                "the embedded back-end takes no text, as the input {name:?} is"
            ))
            .with_hint("Use ONNX Runtime: `OnnxRuntime::install()`."));
        }
    };
    Ok(made.map_err(|e| refused("take the input", &e))?.into())
}

fn floats(value: &TValue) -> Result<TensorOut, TractError> {
    let width = value.shape().iter().skip(1).product();
    let cast = value.cast_to::<f32>()?;
    let values = cast.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
    Ok(TensorOut { width, values })
}

fn refuse_unknown_operators(model: &[u8]) -> Result<()> {
    let proto = ModelProto::decode(model).map_err(|e| {
        Error::data("the bytes are not an ONNX file")
            .with_detail(e.to_string())
            .with_source(e)
    })?;
    let known = tract_onnx::onnx().op_register.0;
    let unknown: BTreeSet<String> = proto
        .graph
        .iter()
        .flat_map(|g| &g.node)
        .filter(|n| !known.contains_key(&n.op_type))
        .map(|n| format!("{:?}", n.op_type))
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = unknown.into_iter().collect();
    Err(Error::environment(format!(
        "the embedded back-end lacks the operators {}",
        names.join(", ")
    ))
    .with_hint("Use ONNX Runtime: `OnnxRuntime::install()`."))
}

/// Does what may fail or panic inside tract.
fn caught<T>(what: &str, work: impl FnOnce() -> Result<T, TractError>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(refused(what, &error)),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("a panic without a text");
            Err(failed(what).with_detail(text.to_owned()))
        }
    }
}

fn refused(what: &str, error: &TractError) -> Error {
    failed(what).with_detail(format!("{error:#}"))
}

fn failed(what: &str) -> Error {
    Error::data(format!("the embedded back-end could not {what}"))
}

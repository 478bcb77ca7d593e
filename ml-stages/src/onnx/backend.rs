//! What runs an ONNX file: the contract, and how a user names an implementation.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use mainstem_engine::{Error, Result};

use super::embedded::Embedded;
use super::ort_backend::OnnxRuntime;

/// The values of an input, row by row.
#[derive(Clone, Copy, Debug)]
pub enum TensorValuesRef<'a> {
    /// 32-bit floats.
    Float(&'a [f32]),
    /// 64-bit floats.
    Double(&'a [f64]),
    /// 64-bit integers.
    Int64(&'a [i64]),
    /// Booleans.
    Bool(&'a [bool]),
    /// UTF-8 text.
    String(&'a [&'a str]),
}

impl TensorValuesRef<'_> {
    /// How many values.
    pub fn len(&self) -> usize {
        match self {
            Self::Float(v) => v.len(),
            Self::Double(v) => v.len(),
            Self::Int64(v) => v.len(),
            Self::Bool(v) => v.len(),
            Self::String(v) => v.len(),
        }
    }

    /// True if there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An input of shape `[n_rows, width]`, borrowed from where it lies.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    /// How many rows.
    pub n_rows: usize,
    /// How many values a row has.
    pub width: usize,
    /// The values; `n_rows * width` of them.
    pub values: TensorValuesRef<'a>,
}

impl<'a> TensorView<'a> {
    /// Rows of `width` values each.
    ///
    /// # Errors
    /// A bug if the number of values is not a multiple of the width.
    pub fn new(values: TensorValuesRef<'a>, width: usize) -> Result<Self> {
        let n_values = values.len();
        if width == 0 || !n_values.is_multiple_of(width) {
            return Err(Error::bug(format!(
                "{n_values} values do not make rows of {width}"
            )));
        }
        Ok(Self {
            n_rows: n_values / width,
            width,
            values,
        })
    }
}

/// An output: 32-bit floats of shape `[n_rows, width]`, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorOut {
    /// How many values a row has.
    pub width: usize,
    /// The values.
    pub values: Vec<f32>,
}

/// Something that runs ONNX files.
pub trait InferenceBackend: Send + Sync + fmt::Debug {
    /// Its name with its version, for reports.
    fn name(&self) -> String;

    /// Makes a model ready to run.
    ///
    /// # Errors
    /// A data error if the bytes are not an ONNX file, and an environment error if it holds an operator
    /// that this back-end lacks, which it names.
    fn load(&self, model: &[u8]) -> Result<Box<dyn InferenceSession>>;
}

/// A model ready to run, for one caller at a time.
pub trait InferenceSession: Send {
    /// Runs the model on any number of rows and gives its outputs by name, in their order.
    ///
    /// The inputs are not copied where the back-end can read them in place.
    ///
    /// # Errors
    /// A data error if an input is missing or of the wrong type, or if the model fails on the rows.
    fn run(&mut self, inputs: &[(&str, TensorView<'_>)]) -> Result<Vec<(String, TensorOut)>>;
}

/// Which back-end runs a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// ONNX Runtime where its library is found, else the embedded one.
    #[default]
    Auto,
    /// ONNX Runtime.
    OnnxRuntime,
    /// The embedded one, in pure Rust.
    Embedded,
}

impl Backend {
    /// The back-end itself.
    ///
    /// # Errors
    /// An environment error if ONNX Runtime is asked for and not found, or found and unusable.
    pub fn resolve(self) -> Result<Arc<dyn InferenceBackend>> {
        match self {
            Self::OnnxRuntime => Ok(Arc::new(OnnxRuntime::find()?)),
            Self::Embedded => Ok(Arc::new(Embedded::new())),
            Self::Auto => match OnnxRuntime::find() {
                Ok(runtime) => Ok(Arc::new(runtime)),
                Err(error) => {
                    tracing::info!("the embedded back-end runs the models: {}", error.message());
                    Ok(Arc::new(Embedded::new()))
                }
            },
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::OnnxRuntime => "onnxruntime",
            Self::Embedded => "embedded",
        })
    }
}

impl FromStr for Backend {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "onnxruntime" => Ok(Self::OnnxRuntime),
            "embedded" => Ok(Self::Embedded),
            _ => Err(Error::pipeline(format!("there is no back-end {text:?}"))
                .with_hint("Choose \"onnxruntime\", \"embedded\" or \"auto\".")),
        }
    }
}

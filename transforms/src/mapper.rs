//! The contract of a mapper, and of the kernel it becomes once fitted.

use std::fmt;

use mainstem_engine::{Error, Result};

use crate::feature::Feature;
use crate::learned::{Learn, Learned};
use crate::onnx_graph::{OnnxGraph, Value};
use crate::values::{Kind, Shape, Values};

/// What a mapper's file starts from.
pub mod prelude {
    pub use mainstem_engine::{Error, Result};
    pub use serde::{Deserialize, Serialize};

    pub use super::{Kernel, Mapper, expect_shape};
    pub use crate::feature::Feature;
    pub use crate::learned::{Learn, Learned};
    pub use crate::onnx_graph::{OnnxGraph, Value};
    pub use crate::values::{Kind, MISSING, Shape, UNKNOWN, Values};
}

/// Features to a feature, row by row, with what analyzers have learned as constants.
///
/// A mapper is plain data. [`Mapper::build`] is the only way to its [`Kernel`], in fitting, in batch, in
/// streams and behind HTTP.
#[typetag::serde(tag = "mapper")]
pub trait Mapper: fmt::Debug + Send + Sync {
    /// The name for messages, as the method that makes it.
    fn name(&self) -> &'static str;

    /// The features it reads.
    fn inputs(&self) -> Vec<&Feature>;

    /// What it needs to learn first; nothing by default.
    fn analyzers(&self) -> Vec<Learn> {
        Vec::new()
    }

    /// What comes out, given what its inputs are; checks whatever a schema can tell.
    ///
    /// # Errors
    /// A pipeline error with what was expected and what was found.
    fn check(&self, inputs: &[Shape]) -> Result<Shape>;

    /// The kernel with what was learned.
    ///
    /// # Errors
    /// If what was learned does not fit.
    fn build(&self, learned: &Learned, inputs: &[Kind]) -> Result<Box<dyn Kernel>>;
}

/// A fitted mapper: closed, row-wise, and the same in Rust and in ONNX.
pub trait Kernel: fmt::Debug + Send + Sync {
    /// What comes out.
    fn kind(&self) -> Kind;

    /// One value for each row.
    ///
    /// # Errors
    /// A bug if the inputs are not of the kinds it was built for.
    fn run(&self, inputs: &[&Values]) -> Result<Values>;

    /// True if it gives the values of its only input as they are, and changes only what they mean: they
    /// are then used where they lie, and [`Kernel::run`] is not called.
    fn keeps_values(&self) -> bool {
        false
    }

    /// Writes the nodes that do the same, bit by bit.
    ///
    /// Every tensor is of shape `[N, 1]`: numbers are DOUBLE with NaN for missing values, text is STRING
    /// with the empty text for missing ones, indexes (and one-hot features, which are widened only in
    /// the matrix) are INT64 with [`MISSING`](crate::MISSING) and [`UNKNOWN`](crate::UNKNOWN).
    ///
    /// # Errors
    /// A pipeline error where ONNX cannot express it, with what to use instead.
    fn to_onnx(&self, inputs: &[Value], graph: &mut OnnxGraph) -> Result<Value>;
}

/// Checks what an input of a mapper is.
///
/// # Errors
/// A pipeline error with what was expected and what was found.
pub fn expect_shape(mapper: &str, expected: Shape, found: Shape) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    let error = Error::pipeline(format!(
        "`{mapper}` needs {}, found {}",
        expected.noun(),
        found.noun()
    ));
    let hint = match (expected, found) {
        (Shape::Text, Shape::Number) => {
            "Cast the numbers to text first: `feature(cast(col(..), DataType::Utf8))`."
        }
        (Shape::Number, Shape::Text) => {
            "Cast the text to numbers first: `feature(try_cast(col(..), DataType::Float64))`."
        }
        (Shape::Index, Shape::Text) => "Add `.compute_and_apply_vocabulary(..)` before it.",
        (Shape::Index, Shape::Number) => "Add `.bucketize(..)` before it.",
        (Shape::Index, Shape::OneHot) => "Leave out `.one_hot()` before it.",
        _ => return Err(error),
    };
    Err(error.with_hint(hint))
}

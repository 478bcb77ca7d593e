//! For tests, in Mainstem and in your own code: rows as text, and laws that every implementation keeps.

mod table;
mod transform;

pub use table::{show, table};
pub use transform::{check_transform, refuse_transform, run_transform};

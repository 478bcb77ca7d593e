//! For tests, in Mainstem and in your own code: rows written as text.

mod table;

pub use table::{show, table};

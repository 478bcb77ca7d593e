//! For tests, in Mainstem and in your own code: rows as text, and laws that every implementation keeps.

#[cfg(test)]
mod beam_tests;
mod chance;
mod changelog;
mod laws;
mod operator_driver;
mod operator_run;
mod simulation;
mod sink;
mod source;
mod table;
mod transform;
mod window_fn;
mod windowing;

pub(crate) use chance::Chance;
pub use changelog::{changelog, contents_at, times_of};
pub use laws::{Laws, check_operator};
pub use operator_run::OperatorRun;
pub(crate) use simulation::Step;
pub use simulation::{Script, Scripted, Simulated, scripted, scripted_with, show_rows, simulate};
pub use sink::{check_sink, check_sink_at, write_sink};
pub use source::{check_source, read_source};
pub use table::{show, table};
pub use transform::{check_transform, refuse_transform, run_transform};
pub use window_fn::check_window_fn;
pub use windowing::check_windowing;

//! Runs a plan: phase by phase, each a dataflow on timely workers.

mod allocator;
mod analysis;
mod beside_reading;
mod cancel;
mod chain;
mod clock;
mod container;
pub(crate) mod credit;
mod dataflow;
mod driver;
mod ends;
mod event_time_standing;
mod exchange;
mod failure;
mod feed;
mod incremental;
mod machine;
mod memory;
pub(crate) mod metrics;
mod options;
mod parts;
mod pool;
mod progress;
mod simulation;
mod spool;
mod time;
mod time_line;
mod watch;
mod watermark_board;

pub use cancel::CancelToken;
pub use clock::Clock;
pub(crate) use container::{decode, encode};
pub(crate) use driver::run;
pub(crate) use exchange::{deal, key_groups};
pub(crate) use failure::guard;
pub(crate) use options::explain;
pub use options::{Progress, RunOptions};
pub(crate) use simulation::{Arrived, Saved, simulate};

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tracing_tests;
#[cfg(test)]
mod watch_tests;
#[cfg(test)]
mod watermark_report_tests;

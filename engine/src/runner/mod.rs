//! Runs a plan: phase by phase, each a dataflow on timely workers.

mod allocator;
mod analysis;
mod cancel;
mod chain;
mod container;
pub(crate) mod credit;
mod dataflow;
mod driver;
mod ends;
mod exchange;
mod failure;
mod feed;
mod machine;
mod memory;
pub(crate) mod metrics;
mod options;
mod parts;
mod pool;
mod progress;
mod spool;
mod time;
mod time_line;
mod watch;

pub use cancel::CancelToken;
pub(crate) use driver::run;
pub(crate) use exchange::key_groups;
pub(crate) use failure::guard;
pub(crate) use options::explain;
pub use options::{Progress, RunOptions};

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tracing_tests;
#[cfg(test)]
mod watch_tests;

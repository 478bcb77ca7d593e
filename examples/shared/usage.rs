//! What the process has taken of the machine so far.

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// Seconds of processor time, user and system, over all threads; 0 where the system does not tell.
pub(crate) fn cpu_seconds() -> f64 {
    usage().map_or(0.0, |usage| {
        let micros = (usage.user_time() + usage.system_time()).num_microseconds();
        micros as f64 / 1e6
    })
}

/// The most memory that was ever resident; 0 where the system does not tell.
pub(crate) fn peak_rss_bytes() -> u64 {
    // Linux counts kibibytes here, macOS bytes.
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    usage().map_or(0, |usage| usage.max_rss().unsigned_abs() * unit)
}

fn usage() -> Option<Usage> {
    getrusage(UsageWho::RUSAGE_SELF).ok()
}

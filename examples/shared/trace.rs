//! What the engine traces, on standard error, as `RUST_LOG` asks for it.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Tells nothing where `RUST_LOG` is not set; a directive that is none is named and passed over.
pub(crate) fn as_rust_log_asks() {
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::OFF.into());
    if filter.parse(&asked).is_err() {
        eprintln!(
            "RUST_LOG takes directives such as \"info\" or \"mainstem_engine=debug\", found {asked:?}"
        );
    }
    tracing_subscriber::fmt()
        .with_env_filter(filter.parse_lossy(&asked))
        .with_span_events(FmtSpan::CLOSE)
        // A file of colours can be searched by nobody.
        .with_ansi(stderr().is_terminal())
        .with_writer(stderr)
        .init();
}

//! Nexmark: queries over an auction's events, in event time.

fn main() {}

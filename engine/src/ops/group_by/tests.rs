//! Tests of grouping.

//! Tests of the first rows.

//! Tests of consolidation.

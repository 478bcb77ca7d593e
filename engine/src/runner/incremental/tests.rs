//! Tests of relations at work.

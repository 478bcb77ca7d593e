//! Tests of relations.

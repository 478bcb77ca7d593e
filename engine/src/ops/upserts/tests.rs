//! Tests of upserts.

//! Tests of aggregates of changelogs.

//! Transforms that every pipeline needs.

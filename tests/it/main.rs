//! What must hold for the whole tree: tidiness, documents, and the graph from end to end.

mod readme;
mod sources;
mod tidy;

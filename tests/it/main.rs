//! What must hold for the whole tree: tidiness, documents, and the graph from end to end.

#[cfg(test)]
mod consistency;
#[cfg(all(test, feature = "datafusion"))]
mod datafusion;
#[cfg(test)]
mod disorder;
#[cfg(test)]
mod documented;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod incremental;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod logging;
#[cfg(test)]
mod pages;
#[cfg(test)]
mod readme;
#[cfg(test)]
mod sources;
#[cfg(test)]
mod stopping;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod time_joins;
#[cfg(test)]
mod transcripts;
#[cfg(test)]
mod windows;

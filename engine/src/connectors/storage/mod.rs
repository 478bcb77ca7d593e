//! Files wherever they are: on a disk, in memory, in an object store, behind one interface.
//!
//! ```text
//! Files::list ─▶ StoredFile ─▶ open (in order), range (a part)          sources
//!                Writing    ◀─ write, close (durable, not yet visible)   sinks
//!
//! address  "s3://bucket/key"     listing   folders and patterns      read_ahead  ranges in order
//! connect  options ─▶ Store      refusals  what an error means       upload      parts of a file
//! background  the one runtime    prefix, object, claim   publication without a rename
//! ```
//!
//! The libraries of object stores are asynchronous, the engine's threads are not. Requests run on one
//! runtime per process; a thread waits for their result on a channel. Nothing asynchronous leaves this
//! folder, so nothing else has to care whether it is called inside another runtime.

mod address;
mod background;
mod claim;
mod connect;
mod credentials;
mod listing;
mod object;
mod options;
mod prefix;
mod read_ahead;
mod refusals;
mod remote_file;
mod store;
mod stored_file;
mod upload;
mod writing;

pub(crate) use address::{Address, local_path, same_place};
pub(crate) use listing::list;
pub(crate) use object::OneObject;
pub use options::Storage;
pub(crate) use prefix::Prefix;
pub(crate) use refusals::found_within;
pub(crate) use stored_file::{Fetch, StoredFile, has_changed};
pub(crate) use writing::{Closed, LocalFile, Writing};

#[cfg(test)]
mod tests;

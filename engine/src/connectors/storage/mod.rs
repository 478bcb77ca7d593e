//! Files wherever they are: on a disk today, behind one interface.
//!
//! ```text
//! Files::list ─▶ StoredFile ─▶ open (in order), range (a part)     sources
//!                Writing    ◀─ write, close (durable)              sinks
//! ```

mod stored_file;
mod writing;

pub(crate) use stored_file::{StoredFile, has_changed};
pub(crate) use writing::{LocalFile, Writing};

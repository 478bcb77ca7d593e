//! Where results are written before they can be seen, and how they appear: all or nothing.
//!
//! ```text
//! a path          StagedFolder   a hidden folder beside it, one rename
//! a URL           Prefix         uploads that are completed at the end, under a mark
//! one file there  OneObject      the local disk, one upload
//! ```

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::shards::{Shard, ShardOptions};
use super::staged_folder::StagedFolder;
use super::storage::{Address, OneObject, Prefix, Writing};
use crate::error::{Error, Result};

/// What a publication does with results that are there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Existing {
    #[default]
    Refuse,
    Replace,
}

impl Existing {
    pub(crate) fn when(overwrite: bool) -> Self {
        if overwrite {
            Self::Replace
        } else {
            Self::Refuse
        }
    }
}

/// Results under way. Dropping them without a publication removes them.
pub(crate) trait Staging: Send + Sync + fmt::Debug {
    /// The place as messages name it.
    fn target(&self) -> String;

    /// The most bytes that one file can have here.
    fn max_bytes_per_file(&self) -> u64 {
        u64::MAX
    }

    /// True if its files are of this machine.
    fn is_local(&self) -> bool {
        false
    }

    /// Starts the file of a shard.
    fn create(&self, shard: &Shard) -> Result<Box<dyn Writing>>;

    /// Makes these shards visible as files of a folder, named in this order; gives their places.
    fn publish_shards(&self, shards: &[Shard]) -> Result<Vec<PathBuf>>;

    /// Puts these shards together behind the preamble to one visible file; gives its bytes.
    fn publish_joined(&self, preamble: &[u8], shards: &[Shard]) -> Result<u64>;

    /// Removes all that was written; what cannot be removed stays hidden.
    fn abort(&self);

    /// What a failure of the disk or of a server means to the user.
    fn cannot_write(&self, error: io::Error) -> Error;
}

/// Starts a publication, after a look at what stands at the place.
///
/// `extension` is that of the files which may be replaced.
pub(crate) fn begin(options: &ShardOptions, extension: &'static str) -> Result<Box<dyn Staging>> {
    Ok(match Address::of(&options.target)? {
        None => Box::new(StagedFolder::begin(options, extension)?),
        Some(address) if options.one_file => Box::new(OneObject::begin(&address, options)?),
        Some(address) => Box::new(Prefix::begin(&address, options, extension)?),
    })
}

/// The error of a folder that must stay.
pub(crate) fn is_not_empty(folder: &str) -> Error {
    Error::environment(format!("folder {folder:?} is not empty"))
        .with_hint("Choose another place, remove it, or say `.overwrite(true)`.")
}

/// The error of a file that must stay.
pub(crate) fn is_there(file: &str) -> Error {
    Error::environment(format!("file {file:?} is there already"))
        .with_hint("Choose another place, remove it, or say `.overwrite(true)`.")
}

/// The error of a folder that holds more than what may be replaced.
pub(crate) fn not_replaceable(folder: &str, extension: &str, found: &str) -> Error {
    Error::environment(format!(
        "folder {folder:?} holds more than {extension} files and is not overwritten"
    ))
    .with_detail(format!("It holds {found:?}."))
    .with_hint("Choose another place, or remove it yourself.")
}

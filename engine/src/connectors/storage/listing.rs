//! Finds the files of a source in an object store, by the rules that hold for local files.

use glob::{MatchOptions, Pattern};
use object_store::ObjectMeta;
use object_store::path::Path as Key;

use super::address::{Address, Kind};
use super::claim::being_published;
use super::connect::connect;
use super::options::Storage;
use super::prefix::{PUBLISHING, SUCCESS};
use super::refusals::Doing;
use super::remote_file::RemoteFile;
use super::store::Store;
use super::stored_file::StoredFile;
use crate::connectors::files::{ends_in, is_hidden, no_match, no_pattern};
use crate::error::{Error, Result};

/// The files at an address, sorted by name; never none.
///
/// An object that exists is taken as it is, even if its name holds characters of a pattern.
pub(crate) fn list(
    address: &Address,
    storage: &Storage,
    extensions: &[&'static str],
) -> Result<Vec<StoredFile>> {
    let place = Place {
        store: connect(address, storage)?,
        address,
        extensions,
    };
    let mut found = match address.key.contains(['*', '?', '[']) {
        true => place.matches()?,
        false => place.file_or_folder()?,
    };
    found.sort_by(|a, b| a.location.as_ref().cmp(b.location.as_ref()));
    let file = |listed| StoredFile::remote(RemoteFile::new(place.store.clone(), listed));
    Ok(found.into_iter().map(file).collect())
}

struct Place<'a> {
    store: Store,
    address: &'a Address,
    extensions: &'a [&'static str],
}

impl Place<'_> {
    fn extension(&self) -> &'static str {
        self.extensions.first().copied().unwrap_or("*")
    }

    fn file_or_folder(&self) -> Result<Vec<ObjectMeta>> {
        let key = self.address.key()?;
        if !self.address.is_folder
            && let Some(file) = self.store.head(&key)?
        {
            return Ok(vec![file]);
        }
        self.can_list()?;
        self.check_outer(&key)?;
        let (mut found, mut folders) = self.store.list_folder(&key)?;
        // A folder of `year=2024` and the like is read with all that is below it.
        while let Some(folder) = folders.pop() {
            let name = folder.filename().unwrap_or_default();
            if name.contains('=') && !is_hidden(name) {
                let (below, deeper) = self.store.list_folder(&folder)?;
                found.extend(below);
                folders.extend(deeper);
            }
        }
        let is_there = !found.is_empty();
        self.check_whole(&found)?;
        self.check_outer(&key)?;
        found.retain(|object| object.location != key && self.is_wanted(&object.location));
        match (found.is_empty(), is_there || self.address.is_folder) {
            (false, _) => Ok(found),
            (true, true) => {
                let url = self.address.url();
                let url = url.trim_end_matches('/');
                Err(no_match(&format!("{url}/*.{}", self.extension()))
                    .with_hint("Check the pattern; hidden files are passed over."))
            }
            (true, false) => Err(self.does_not_exist()),
        }
    }

    fn is_wanted(&self, key: &Key) -> bool {
        let wanted = |name: &str| ends_in(name, self.extensions) && !is_hidden(name);
        key.filename().is_some_and(wanted)
    }

    fn matches(&self) -> Result<Vec<ObjectMeta>> {
        self.can_list()?;
        let pattern = &self.address.key;
        let compiled = Pattern::new(pattern).map_err(|e| no_pattern(&self.address.url(), &e))?;
        let options = MatchOptions {
            require_literal_separator: true,
            require_literal_leading_dot: true,
            ..MatchOptions::default()
        };
        // What stands before the first wildcard is the same in all names.
        let fixed = pattern.split(['*', '?', '[']).next().unwrap_or_default();
        let (folder, rest) = match fixed.rsplit_once('/') {
            Some((folder, _)) => (folder, &pattern[folder.len() + 1..]),
            None => ("", pattern.as_str()),
        };
        let folder = Address {
            key: folder.to_owned(),
            ..self.address.clone()
        }
        .key()?;
        self.check_outer(&folder)?;
        let mut found = match rest.contains('/') {
            true => self.store.list_below(Doing::Read, &folder)?,
            false => self.store.list_folder(&folder)?.0,
        };
        if let Some(named) = found.iter().find(|f| f.location.as_ref() == pattern) {
            return Ok(vec![named.clone()]);
        }
        self.check_whole(&found)?;
        self.check_outer(&folder)?;
        found.retain(|object| {
            let name = object.location.filename().unwrap_or_default();
            compiled.matches_with(object.location.as_ref(), options)
                && ![SUCCESS, PUBLISHING].contains(&name)
        });
        match found.is_empty() {
            false => Ok(found),
            true => Err(no_match(&self.address.url())
                .with_hint("Check the pattern; hidden files are passed over.")),
        }
    }

    /// A server of web pages cannot say what it has.
    fn can_list(&self) -> Result<()> {
        match self.address.kind {
            Kind::Http if self.address.is_folder || self.address.key.contains(['*', '?', '[']) => {
                let url = self.address.url();
                Err(
                    Error::pipeline(format!("{url:?} is no single file, expected one"))
                        .with_detail("Files behind HTTP cannot be listed.")
                        .with_hint(
                            "Read each file by its name, and bring them together with `union`.",
                        ),
                )
            }
            Kind::Http => Err(self.does_not_exist()),
            _ => Ok(()),
        }
    }

    fn does_not_exist(&self) -> Error {
        Error::environment(format!("{:?} does not exist", self.address.url())).with_hint(format!(
            "Name a file, a folder, or a pattern such as \"births/*.{}\".",
            self.extension()
        ))
    }

    /// A folder that is being published holds some of the files, not all.
    fn check_whole(&self, found: &[ObjectMeta]) -> Result<()> {
        match found
            .iter()
            .find(|f| f.location.filename() == Some(PUBLISHING))
        {
            Some(mark) => Err(being_published(&self.store.url(&mark.location))),
            None => Ok(()),
        }
    }

    /// A folder `year=2020` may be a part of one that is being published, in which the mark stands.
    ///
    /// To be asked before the list and after it: the mark of a publication that only ends or only begins meanwhile is
    /// found. A file that is named is whole by itself, and not asked about.
    fn check_outer(&self, folder: &Key) -> Result<()> {
        let mut parts: Vec<_> = folder.parts().collect();
        while parts.pop().is_some_and(|name| name.as_ref().contains('=')) && !parts.is_empty() {
            let mark = Key::from_iter(parts.clone()).join(PUBLISHING);
            if self.store.may_see(&mark)? {
                return Err(being_published(&self.store.url(&mark)));
            }
        }
        Ok(())
    }
}

//! A place in an object store, as a URL says it.

use std::path::{Component, Path, PathBuf};

use object_store::path::Path as Key;

use crate::error::{Error, Result};

/// What kind of store a URL names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    S3,
    Google,
    Azure,
    Http,
    Memory,
}

/// A place in an object store: `s3://bucket/births/*.csv`.
///
/// It is taken apart by hand: keys stand in it as they are in the store, and may hold what a URL must
/// escape, such as the `?` of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) kind: Kind,
    /// The URL of the store: `s3://bucket`.
    pub(crate) root: String,
    /// The rest, without slashes at its ends.
    pub(crate) key: String,
    /// The URL ends in a slash, so it is a folder.
    pub(crate) is_folder: bool,
}

impl Address {
    /// The place in an object store, or nothing for a path.
    pub(crate) fn of(place: &Path) -> Result<Option<Self>> {
        match place.to_str().and_then(|text| text.split_once("://")) {
            None | Some(("file", _)) => Ok(None),
            Some((scheme, rest)) => Self::parse(scheme, rest).map(Some),
        }
    }

    fn parse(scheme: &str, rest: &str) -> Result<Self> {
        let url = format!("{scheme}://{rest}");
        let kind = match scheme.to_ascii_lowercase().as_str() {
            "s3" | "s3a" => Kind::S3,
            "gs" => Kind::Google,
            "az" | "azure" | "adl" | "abfs" | "abfss" => Kind::Azure,
            "http" | "https" => Kind::Http,
            "memory" => Kind::Memory,
            _ => {
                return Err(Error::pipeline(format!(
                    "{url:?} begins with {scheme:?}, which names no storage"
                ))
                .with_hint(
                    "Begin it with s3, gs, az, abfs, http, https, memory or file, or name a path.",
                ));
            }
        };
        let (host, key) = rest.split_once('/').unwrap_or((rest, ""));
        if host.is_empty() {
            return Err(Error::pipeline(format!("{url:?} names no bucket"))
                .with_hint(format!("Write it as \"{scheme}://bucket/key\".")));
        }
        if kind == Kind::Http && host.contains('@') {
            // The URL stands in messages, and a password must not.
            return Err(Error::pipeline(format!(
                "a URL that begins with {scheme:?} must not hold a name and a password"
            )));
        }
        Ok(Self {
            kind,
            root: format!("{scheme}://{host}"),
            key: key.trim_matches('/').to_owned(),
            is_folder: key.is_empty() || key.ends_with('/'),
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("{}/{}", self.root, self.key)
    }

    pub(crate) fn host(&self) -> &str {
        self.root.split_once("://").map_or("", |(_, host)| host)
    }

    pub(crate) fn scheme(&self) -> &str {
        self.root.split_once("://").map_or("", |(scheme, _)| scheme)
    }

    /// The key as the library wants it.
    pub(crate) fn key(&self) -> Result<Key> {
        let key = match self.kind {
            Kind::Http => Key::from_url_path(&self.key),
            _ => Key::parse(&self.key),
        };
        key.map_err(|error| {
            Error::pipeline(format!("{:?} cannot be the name of a file", self.url()))
                .with_detail(format!("{error}."))
        })
    }
}

/// A path, also where it is written as `file:///path`.
pub(crate) fn local_path(place: &Path) -> PathBuf {
    match place.to_str().and_then(|text| text.strip_prefix("file://")) {
        Some(path) => PathBuf::from(path),
        None => place.to_owned(),
    }
}

/// One text for all paths and URLs that name the same place: absolute, without `.`, `..`, a slash at the end, or links.
pub(crate) fn same_place(place: &Path) -> String {
    match Address::of(place) {
        Ok(Some(address)) => {
            let parts: Vec<&str> = address.key.split('/').filter(|p| !p.is_empty()).collect();
            let (scheme, host) = (address.scheme().to_ascii_lowercase(), address.host());
            format!("{scheme}://{host}/{}", parts.join("/"))
        }
        _ => without_links(&local_path(place)).display().to_string(),
    }
}

/// The absolute path, of which what is there already is followed through links.
fn without_links(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            part => {
                plain.push(part);
                plain = plain.canonicalize().unwrap_or(plain);
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn parts(url: &str) -> String {
        match Address::of(Path::new(url)) {
            Ok(None) => format!("path {}", local_path(Path::new(url)).display()),
            Ok(Some(a)) => format!("{:?} {} key {:?} {}", a.kind, a.root, a.key, a.is_folder),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn urls_are_taken_apart() {
        let urls = [
            "births/a.csv",
            "file:///tmp/a.csv",
            "s3://bucket/births/?[0-9]*.csv",
            "s3://bucket",
            "S3A://bucket/a%20b#c/",
            "abfs://container@account/x",
            "memory://name/x",
            "https://example.org/a.csv",
        ];
        let told: Vec<String> = urls.iter().map(|url| parts(url)).collect();
        expect![[r#"
            path births/a.csv
            path /tmp/a.csv
            S3 s3://bucket key "births/?[0-9]*.csv" false
            S3 s3://bucket key "" true
            S3 S3A://bucket key "a%20b#c" true
            Azure abfs://container@account key "x" false
            Memory memory://name key "x" false
            Http https://example.org key "a.csv" false"#]]
        .assert_eq(&told.join("\n"));
    }

    #[test]
    fn what_is_no_url_of_a_store_is_refused() {
        expect![[r#"
            "ftp://host/a.csv" begins with "ftp", which names no storage
              Hint: Begin it with s3, gs, az, abfs, http, https, memory or file, or name a path."#]]
        .assert_eq(&parts("ftp://host/a.csv"));
        expect![[r#"
            "s3:///a.csv" names no bucket
              Hint: Write it as "s3://bucket/key"."#]]
        .assert_eq(&parts("s3:///a.csv"));
        expect![[r#"a URL that begins with "https" must not hold a name and a password"#]]
            .assert_eq(&parts("https://me:secret@example.org/a.csv"));
    }
}

//! Sources and sinks over object stores: in memory, on real servers that fail, and on those of the environment.

/// Makes a test of each function for each kind of server, in a module that names it.
macro_rules! on_each_server {
    ($($test:ident,)*) => {
        mod s3 {
            $(#[test]
            fn $test() {
                super::$test(&super::StoreServer::s3());
            })*
        }

        #[cfg(feature = "gcp")]
        mod google {
            $(#[test]
            fn $test() {
                super::$test(&super::StoreServer::google());
            })*
        }
    };
}

mod formats;
#[cfg(feature = "gcp")]
mod google;
#[cfg(feature = "gcp")]
mod google_dialect;
#[cfg(feature = "http")]
mod http_server;
mod other_stores;
mod publication;
mod reading;
mod slow_and_refused;
mod store_server;

use std::path::{Path, PathBuf};

use arrow::record_batch::RecordBatch;
use object_store::path::Path as Key;

use super::address::Address;
use super::connect::connect;
use super::refusals::Doing;
use super::store::Store;
use crate::connectors::{CsvSource, ParquetSource, Storage, csv, parquet};
use crate::error::Result;
use crate::output::OnBadRow;
use crate::testing::{read_source, show};

/// The store of a URL.
fn store(url: &str, storage: &Storage) -> (Store, Key) {
    let address = Address::of(Path::new(url)).unwrap().unwrap();
    (connect(&address, storage).unwrap(), address.key().unwrap())
}

/// Everything below a URL, hidden or not, in order.
fn everything(url: &Path, storage: &Storage) -> Result<Vec<PathBuf>> {
    let (store, key) = store(url.to_str().unwrap(), storage);
    let found = store.list_below(Doing::Read, &key)?;
    let mut urls: Vec<PathBuf> = found
        .iter()
        .map(|object| store.url(&object.location).into())
        .collect();
    urls.sort();
    Ok(urls)
}

/// The names of everything below a URL; the part of a name that is another each time as `RUN`.
fn tree(url: &str, storage: &Storage) -> String {
    let found = everything(Path::new(url), storage).unwrap();
    let names = found.iter().map(|path| {
        let name = path.strip_prefix(url).unwrap().display().to_string();
        match name.split_once("part-").map(|(_, rest)| &rest[12..28]) {
            Some(run) => name.replace(run, "RUN"),
            None => name,
        }
    });
    names.collect::<Vec<_>>().join("\n")
}

/// Puts an object.
fn put(url: &str, storage: &Storage, content: &str) {
    let (store, key) = store(url, storage);
    store.delete(vec![key.clone()]).unwrap();
    store.put_new(&key, content.to_owned()).unwrap();
}

fn read_csv(source: CsvSource) -> Result<String> {
    Ok(show(&read_source(&source, OnBadRow::Fail)?.0))
}

fn read_parquet(source: &ParquetSource) -> Result<RecordBatch> {
    Ok(read_source(source, OnBadRow::Fail)?.0)
}

/// What is published as Parquet below a URL, nothing where nothing is.
fn parquet_back(url: &Path, storage: &Storage) -> Result<Vec<RecordBatch>> {
    match everything(url, storage)?.is_empty() {
        true => Ok(Vec::new()),
        false => Ok(vec![read_parquet(&parquet(url).storage(storage.clone()))?]),
    }
}

fn csv_at(url: &str, storage: &Storage) -> CsvSource {
    csv(url).storage(storage.clone())
}

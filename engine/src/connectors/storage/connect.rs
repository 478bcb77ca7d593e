//! Makes a store of a URL and its options.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use object_store::ObjectStore;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::memory::InMemory;

use super::address::{Address, Kind};
use super::credentials::check_credentials;
#[cfg(feature = "gcp")]
use super::credentials::{check_google_credentials, skips_signature};
use super::options::Storage;
use super::store::Store;
use crate::error::{Error, Result};

/// The store that an address is in. Nothing is asked of it yet; where nobody says who is asking, it is looked
/// whether this is an instance that knows.
pub(super) fn connect(address: &Address, storage: &Storage) -> Result<Store> {
    let (store, endpoint) = match address.kind {
        Kind::S3 => s3(address, storage)?,
        Kind::Memory => (memory(address, storage)?, None),
        Kind::Google => google(address, storage)?,
        Kind::Azure => (azure(address, storage)?, None),
        Kind::Http => (http(address, storage)?, None),
    };
    Ok(Store::new(store, address, endpoint))
}

type Connected = Arc<dyn ObjectStore>;

fn s3(address: &Address, storage: &Storage) -> Result<(Connected, Option<String>)> {
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(address.host());
    for (key, value) in storage.options() {
        builder = builder.with_config(known(key, address)?, value);
    }
    check_credentials(&builder, address)?;
    let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
    if endpoint.as_ref().is_some_and(|e| e.starts_with("http://")) {
        // Whoever names such an endpoint wants it.
        builder = builder.with_allow_http(true);
    }
    let store = builder
        .with_retry(storage.retries())
        .build()
        .map_err(|e| unfit(address, e))?;
    Ok((Arc::new(store), endpoint))
}

/// The stores of this process, by name. They stay until it ends.
fn memory(address: &Address, storage: &Storage) -> Result<Connected> {
    static STORES: OnceLock<Mutex<HashMap<String, Arc<InMemory>>>> = OnceLock::new();
    if let Some((key, _)) = storage.options().next() {
        return Err(unknown(key, address));
    }
    let stores = STORES.get_or_init(Mutex::default);
    let mut stores = stores.lock().unwrap_or_else(PoisonError::into_inner);
    let name = address.host().to_owned();
    Ok(Arc::clone(stores.entry(name).or_default()) as _)
}

#[cfg(feature = "gcp")]
fn google(address: &Address, storage: &Storage) -> Result<(Connected, Option<String>)> {
    use object_store::StaticCredentialProvider;
    use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder, GoogleConfigKey};
    let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(address.host());
    for (key, value) in storage.options() {
        builder = builder.with_config(known(key, address)?, value);
    }
    check_google_credentials(&builder, address)?;
    if skips_signature(builder.get_config_value(&GoogleConfigKey::SkipSignature)) {
        // The library would look for a token all the same when it writes; it signs nothing with this one.
        let nobody = GcpCredential {
            bearer: String::new(),
        };
        builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(nobody)));
    }
    let endpoint = builder.get_config_value(&GoogleConfigKey::BaseUrl);
    let store = builder
        .with_retry(storage.retries())
        .build()
        .map_err(|e| unfit(address, e))?;
    Ok((Arc::new(store), endpoint))
}

#[cfg(not(feature = "gcp"))]
fn google(address: &Address, _: &Storage) -> Result<(Connected, Option<String>)> {
    Err(not_built(address, "gcp"))
}

#[cfg(feature = "azure")]
fn azure(address: &Address, storage: &Storage) -> Result<Connected> {
    use object_store::azure::MicrosoftAzureBuilder;
    let mut builder = MicrosoftAzureBuilder::from_env().with_url(&address.root);
    for (key, value) in storage.options() {
        builder = builder.with_config(known(key, address)?, value);
    }
    let builder = builder.with_retry(storage.retries());
    Ok(Arc::new(builder.build().map_err(|e| unfit(address, e))?))
}

#[cfg(not(feature = "azure"))]
fn azure(address: &Address, _: &Storage) -> Result<Connected> {
    Err(not_built(address, "azure"))
}

#[cfg(feature = "http")]
fn http(address: &Address, storage: &Storage) -> Result<Connected> {
    use object_store::ClientOptions;
    use object_store::http::HttpBuilder;
    let mut options = ClientOptions::new().with_allow_http(true);
    for (key, value) in storage.options() {
        options = options.with_config(known(key, address)?, value);
    }
    let builder = HttpBuilder::new()
        .with_url(&address.root)
        .with_client_options(options)
        .with_retry(storage.retries());
    Ok(Arc::new(builder.build().map_err(|e| unfit(address, e))?))
}

#[cfg(not(feature = "http"))]
fn http(address: &Address, _: &Storage) -> Result<Connected> {
    Err(not_built(address, "http"))
}

#[cfg(not(all(feature = "gcp", feature = "azure", feature = "http")))]
fn not_built(address: &Address, feature: &str) -> Error {
    Error::pipeline(format!(
        "{:?} needs a storage that is not built in",
        address.url()
    ))
    .with_hint(format!("Build Mainstem with the feature {feature:?}."))
}

fn known<K: std::str::FromStr>(key: &str, address: &Address) -> Result<K> {
    key.parse().map_err(|_| unknown(key, address))
}

fn unknown(key: &str, address: &Address) -> Error {
    let scheme = address.scheme();
    let examples = match address.kind {
        Kind::Google => "google_service_account, google_base_url or timeout",
        _ => "aws_region, aws_endpoint or timeout",
    };
    Error::pipeline(format!("{scheme:?} has no option {key:?}")).with_hint(format!(
        "Options are those of the crate object_store, such as {examples}."
    ))
}

/// The error of options that do not fit together.
fn unfit(address: &Address, error: object_store::Error) -> Error {
    let reason = match &error {
        object_store::Error::Generic { source, .. } => source.to_string(),
        other => other.to_string(),
    };
    Error::pipeline(format!(
        "{:?} cannot be reached with these options",
        address.url()
    ))
    .with_detail(format!("{}.", reason.trim_end_matches('.')))
    .with_hint("Correct the options given by `.storage(…)`, or the environment.")
}

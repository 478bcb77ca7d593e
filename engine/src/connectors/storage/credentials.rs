//! Tells soon that a bucket has no credentials, which the library finds out by many slow tries.

use std::net::{TcpStream, ToSocketAddrs};
#[cfg(feature = "gcp")]
use std::path::Path;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as Key};
#[cfg(feature = "gcp")]
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};

use super::address::Address;
use super::refusals::credentials_of;
use crate::error::{Error, Result};

/// Where an instance of the cloud learns who it is, if nothing else is said.
const METADATA: &str = "http://169.254.169.254";

#[cfg(feature = "gcp")]
const METADATA_IP: &str = "169.254.169.254";

/// The service is on the instance itself and answers at once, if it is there at all.
const WAIT: Duration = Duration::from_secs(1);

/// Checks that requests can be signed: by credentials that are given, or by those of the instance.
///
/// # Errors
/// An environment error if none are given and no metadata service can be reached.
pub(super) fn check_credentials(builder: &AmazonS3Builder, address: &Address) -> Result<()> {
    if are_given(builder) {
        return Ok(());
    }
    let metadata = builder
        .get_config_value(&Key::MetadataEndpoint)
        .unwrap_or_else(|| METADATA.to_owned());
    match answers(&metadata) {
        true => Ok(()),
        false => Err(none_given(address, &metadata, "aws_skip_signature")),
    }
}

/// The same for a bucket of Google's.
#[cfg(feature = "gcp")]
pub(super) fn check_google_credentials(
    builder: &GoogleCloudStorageBuilder,
    address: &Address,
) -> Result<()> {
    check_google(builder, address, |name| std::env::var(name).ok())
}

/// The library takes where the metadata service is, and where the user has signed in, from these variables.
#[cfg(feature = "gcp")]
fn check_google(
    builder: &GoogleCloudStorageBuilder,
    address: &Address,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<()> {
    let has = |key: GoogleConfigKey| builder.get_config_value(&key).is_some();
    let home = variable(if cfg!(windows) { "APPDATA" } else { "HOME" });
    let signed_in = match cfg!(windows) {
        true => "gcloud/application_default_credentials.json",
        false => ".config/gcloud/application_default_credentials.json",
    };
    if has(GoogleConfigKey::ServiceAccount)
        || has(GoogleConfigKey::ServiceAccountKey)
        || has(GoogleConfigKey::ApplicationCredentials)
        || skips_signature(builder.get_config_value(&GoogleConfigKey::SkipSignature))
        || home.is_some_and(|home| Path::new(&home).join(signed_in).exists())
    {
        return Ok(());
    }
    let host = variable("GCE_METADATA_HOST").or_else(|| variable("GCE_METADATA_ROOT"));
    let host = host.unwrap_or_else(|| "metadata.google.internal".to_owned());
    let ip = variable("GCE_METADATA_IP").unwrap_or_else(|| METADATA_IP.to_owned());
    match answers(&host) || answers(&ip) {
        true => Ok(()),
        false => Err(none_given(address, &host, "google_skip_signature")),
    }
}

/// True if the library takes this value for true, and for one that it refuses later.
pub(super) fn skips_signature(value: Option<String>) -> bool {
    let no = ["0", "false", "off", "no", "n"];
    value.is_some_and(|value| !no.contains(&value.to_ascii_lowercase().as_str()))
}

fn none_given(address: &Address, metadata: &str, skip: &str) -> Error {
    Error::environment(format!("there are no credentials for {:?}", address.root))
        .with_detail(format!(
            "None are given, and no instance's metadata service answers at {metadata:?}."
        ))
        .with_hint(format!(
            "{} A bucket that anybody may read needs none, but `{skip}`.",
            credentials_of(address.kind)
        ))
}

/// As the library looks for them.
fn are_given(builder: &AmazonS3Builder) -> bool {
    let has = |key: Key| builder.get_config_value(&key).is_some();
    has(Key::AccessKeyId)
        || has(Key::WebIdentityTokenFile)
        || has(Key::ContainerCredentialsRelativeUri)
        || has(Key::ContainerCredentialsFullUri)
        || skips_signature(builder.get_config_value(&Key::SkipSignature))
}

/// True if somebody listens there.
fn answers(url: &str) -> bool {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let host = rest.split('/').next().unwrap_or_default();
    let port = if scheme == "https" { 443 } else { 80 };
    let places = match host.to_socket_addrs() {
        Ok(places) => places.collect::<Vec<_>>(),
        // Without a port of its own.
        Err(_) => (host.trim_matches(['[', ']']), port)
            .to_socket_addrs()
            .map(Iterator::collect)
            .unwrap_or_default(),
    };
    let mut places = places.iter();
    places.any(|place| TcpStream::connect_timeout(place, WAIT).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use std::net::TcpListener;
    use std::path::Path;

    fn bucket() -> Address {
        Address::of(Path::new("s3://bucket/in")).unwrap().unwrap()
    }

    #[test]
    fn without_credentials_and_without_an_instance_it_is_told_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = format!("http://{}", listener.local_addr().unwrap());
        let nothing = || AmazonS3Builder::new().with_metadata_endpoint(&place);
        // The service of an instance.
        check_credentials(&nothing(), &bucket()).unwrap();
        drop(listener);
        let refused = check_credentials(&nothing(), &bucket()).unwrap_err();
        assert!(refused.is_environment());
        expect![[r#"
            there are no credentials for "s3://bucket"
              None are given, and no instance's metadata service answers at "http://METADATA".
              Hint: Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (with AWS_SESSION_TOKEN, if they are temporary), or give them by `.storage(Storage::new().option("aws_access_key_id", …))`. A bucket that anybody may read needs none, but `aws_skip_signature`."#]].assert_eq(&refused.to_string().replace(&place, "http://METADATA"));
    }

    #[test]
    fn whatever_gives_credentials_is_not_asked_first() {
        let nowhere = || AmazonS3Builder::new().with_metadata_endpoint("http://127.0.0.1:1");
        let given = [
            nowhere()
                .with_access_key_id("id")
                .with_secret_access_key("secret"),
            nowhere().with_skip_signature(true),
            nowhere().with_config(Key::SkipSignature, "YES"),
            nowhere().with_config(Key::ContainerCredentialsRelativeUri, "/credentials"),
            nowhere().with_config(Key::WebIdentityTokenFile, "token"),
        ];
        for builder in given {
            check_credentials(&builder, &bucket()).unwrap();
        }
        let unsigned = nowhere().with_skip_signature(false);
        assert!(check_credentials(&unsigned, &bucket()).is_err());
    }

    #[cfg(feature = "gcp")]
    #[test]
    fn at_google_too_it_is_told_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap().to_string();
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap().to_owned();
        let bucket = Address::of(Path::new("gs://bucket/in")).unwrap().unwrap();
        let nothing = GoogleCloudStorageBuilder::new;
        let check = |builder: &GoogleCloudStorageBuilder, home: &str, host: &str| {
            check_google(builder, &bucket, |name| match name {
                "GCE_METADATA_HOST" => Some(host.to_owned()),
                "GCE_METADATA_IP" => Some("127.0.0.1:1".to_owned()),
                "HOME" => Some(home.to_owned()),
                _ => None,
            })
        };
        // The service of an instance.
        check(&nothing(), &home, &place).unwrap();
        drop(listener);
        let refused = check(&nothing(), &home, &place).unwrap_err();
        assert!(refused.is_environment());
        expect![[r#"
            there are no credentials for "gs://bucket"
              None are given, and no instance's metadata service answers at "METADATA".
              Hint: Set GOOGLE_SERVICE_ACCOUNT (the path of a service account's key), or give them by `.storage(Storage::new().option("google_service_account", …))`. A bucket that anybody may read needs none, but `google_skip_signature`."#]].assert_eq(&refused.to_string().replace(&place, "METADATA"));
        let with = |key, value| nothing().with_config(key, value);
        let given = [
            with(GoogleConfigKey::ServiceAccount, "account.json"),
            with(GoogleConfigKey::ServiceAccountKey, "{}"),
            with(GoogleConfigKey::ApplicationCredentials, "signed-in.json"),
            with(GoogleConfigKey::SkipSignature, "1"),
        ];
        for builder in given {
            check(&builder, &home, &place).unwrap();
        }
        assert!(check(&with(GoogleConfigKey::SkipSignature, "no"), &home, &place).is_err());
        // Whoever has signed in by `gcloud auth application-default login`.
        let gcloud = folder.path().join(".config/gcloud");
        std::fs::create_dir_all(&gcloud).unwrap();
        std::fs::write(gcloud.join("application_default_credentials.json"), "{}").unwrap();
        check(&nothing(), &home, &place).unwrap();
    }

    #[test]
    fn a_port_is_found_or_follows_from_the_scheme() {
        assert!(!answers("http://127.0.0.1:1/latest"));
        assert!(!answers("no place at all"));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(answers(&format!(
            "http://{}/latest",
            listener.local_addr().unwrap()
        )));
    }
}

//! Tells soon that a bucket of S3 has no credentials, which the library finds out by many slow tries.

use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as Key};

use super::address::{Address, Kind};
use super::refusals::credentials_of;
use crate::error::{Error, Result};

/// Where an instance of the cloud learns who it is, if nothing else is said.
const METADATA: &str = "http://169.254.169.254";

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
    if answers(&metadata) {
        return Ok(());
    }
    Err(
        Error::environment(format!("there are no credentials for {:?}", address.root))
            .with_detail(format!(
                "None are given, and no instance's metadata service answers at {metadata:?}."
            ))
            .with_hint(format!(
                "{} A bucket that anybody may read needs none, but `aws_skip_signature`.",
                credentials_of(Kind::S3)
            )),
    )
}

/// As the library looks for them.
fn are_given(builder: &AmazonS3Builder) -> bool {
    let has = |key: Key| builder.get_config_value(&key).is_some();
    let unsigned = builder.get_config_value(&Key::SkipSignature);
    has(Key::AccessKeyId)
        || has(Key::WebIdentityTokenFile)
        || has(Key::ContainerCredentialsRelativeUri)
        || has(Key::ContainerCredentialsFullUri)
        || unsigned.is_some_and(|value| value == "true")
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
            nowhere().with_config(Key::ContainerCredentialsRelativeUri, "/credentials"),
            nowhere().with_config(Key::WebIdentityTokenFile, "token"),
        ];
        for builder in given {
            check_credentials(&builder, &bucket()).unwrap();
        }
        let unsigned = nowhere().with_skip_signature(false);
        assert!(check_credentials(&unsigned, &bucket()).is_err());
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

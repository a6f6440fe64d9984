//! Addresses of object stores, and the clients behind them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ::object_store::aws::AmazonS3Builder;
use ::object_store::azure::MicrosoftAzureBuilder;
use ::object_store::gcp::GoogleCloudStorageBuilder;
use ::object_store::path::Path;
use ::object_store::{ClientOptions, ObjectStore, RetryConfig};
use bytesize::ByteSize;

use super::connector::Connector;
use super::error::ObjectStoreError;
use super::naming::PREFIX_MAX;
use crate::backend::query::write_query;

/// Whose protocol a store speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ObjectStoreKind {
    /// `s3:` Amazon S3, and whatever else speaks it.
    S3,
    /// `gs:` Google Cloud Storage.
    GoogleCloud,
    /// `az:` Azure Blob Storage.
    Azure,
}

impl ObjectStoreKind {
    const fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::GoogleCloud => "gs",
            Self::Azure => "az",
        }
    }
}

/// The address of a store: `s3://BUCKET/PREFIX?endpoint=URL&region=NAME&block_size=SIZE`, or `gs://`, `az://`.
///
/// Who may use it is not part of the address: credentials come from the environment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectStoreUrl {
    /// Whose protocol.
    pub kind: ObjectStoreKind,
    /// The bucket, or container.
    pub bucket: String,
    /// Where in it, without slashes at the ends; may be empty.
    pub prefix: String,
    /// The server, where it is not the one of the kind. Plain `http:` is allowed here and nowhere else.
    pub endpoint: Option<String>,
    /// The region, for S3; otherwise that of the environment.
    pub region: Option<String>,
    /// How large the blocks of a new store are; those of one that exists must be as large.
    pub block_bytes: Option<u64>,
}

fn bad(what: impl Into<String>) -> ObjectStoreError {
    ObjectStoreError::BadUrl { what: what.into() }
}

impl FromStr for ObjectStoreUrl {
    type Err = ObjectStoreError;

    fn from_str(text: &str) -> Result<Self, ObjectStoreError> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| bad("an object store is written s3://BUCKET/PREFIX"))?;
        let kind = [
            ObjectStoreKind::S3,
            ObjectStoreKind::GoogleCloud,
            ObjectStoreKind::Azure,
        ]
        .into_iter()
        .find(|kind| kind.scheme() == scheme)
        .ok_or_else(|| bad("object stores are s3://, gs:// and az://"))?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        if bucket.is_empty() {
            return Err(bad("the bucket is missing"));
        }
        if prefix.len() > PREFIX_MAX || Path::parse(prefix).is_err() || prefix.starts_with('/') {
            return Err(bad(
                "the prefix is too long, or has parts that are empty or dots",
            ));
        }
        let mut url = Self {
            kind,
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: None,
            region: None,
            block_bytes: None,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            url.set(key, value)?;
        }
        Ok(url)
    }
}

impl ObjectStoreUrl {
    fn set(&mut self, key: &str, value: &str) -> Result<(), ObjectStoreError> {
        match (key, value) {
            (_, "") => return Err(bad(format!("{key} needs a value, as in {key}=..."))),
            ("endpoint", value) => {
                if !value.starts_with("http://") && !value.starts_with("https://") {
                    return Err(bad("the endpoint is a URL, as in https://HOST:PORT"));
                }
                self.endpoint = Some(value.trim_end_matches('/').to_owned());
            }
            ("region", value) => self.region = Some(value.to_owned()),
            ("block_size", value) => {
                let size: Result<ByteSize, _> = value.parse();
                let size = size.map_err(|what| bad(format!("block_size={value}: {what}")))?;
                self.block_bytes = Some(size.as_u64());
            }
            (key, _) => {
                return Err(bad(format!(
                    "there is no {key}: write endpoint, region or block_size"
                )));
            }
        }
        Ok(())
    }

    /// A client that repeats nothing by itself.
    pub(super) fn connect(
        &self,
        request_timeout: Duration,
    ) -> Result<Arc<dyn ObjectStore>, ObjectStoreError> {
        let is_plain = self
            .endpoint
            .as_ref()
            .is_some_and(|endpoint| endpoint.starts_with("http://"));
        let client = ClientOptions::new()
            .with_allow_http(is_plain)
            .with_timeout(request_timeout)
            .with_connect_timeout(request_timeout.min(Duration::from_secs(5)));
        let retry = RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        };
        match self.kind {
            ObjectStoreKind::S3 => {
                let mut builder = AmazonS3Builder::from_env()
                    .with_bucket_name(&self.bucket)
                    .with_client_options(client)
                    .with_http_connector(Connector::default())
                    .with_retry(retry)
                    // The connection keeps the bytes whole where it is encrypted; else the signature does.
                    .with_unsigned_payload(!is_plain);
                if let Some(endpoint) = &self.endpoint {
                    builder = builder.with_endpoint(endpoint);
                }
                if let Some(region) = &self.region {
                    builder = builder.with_region(region);
                }
                Ok(Arc::new(builder.build()?))
            }
            ObjectStoreKind::GoogleCloud => {
                let mut builder = GoogleCloudStorageBuilder::from_env()
                    .with_bucket_name(&self.bucket)
                    .with_client_options(client)
                    .with_http_connector(Connector::default())
                    .with_retry(retry);
                if let Some(endpoint) = &self.endpoint {
                    builder = builder.with_base_url(endpoint);
                }
                Ok(Arc::new(builder.build()?))
            }
            ObjectStoreKind::Azure => {
                let mut builder = MicrosoftAzureBuilder::from_env()
                    .with_container_name(&self.bucket)
                    .with_client_options(client)
                    .with_http_connector(Connector::default())
                    .with_retry(retry);
                if let Some(endpoint) = &self.endpoint {
                    builder = builder.with_endpoint(endpoint.clone());
                }
                Ok(Arc::new(builder.build()?))
            }
        }
    }
}

impl fmt::Display for ObjectStoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.kind.scheme(), self.bucket)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        let block_size = self.block_bytes.map(|bytes| bytes.to_string());
        let pairs = [
            ("endpoint", &self.endpoint),
            ("region", &self.region),
            ("block_size", &block_size),
        ];
        write_query(f, &pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_printed() {
        for text in [
            "s3://bucket",
            "s3://bucket/some/where",
            "gs://bucket/x",
            "az://container/x",
            "s3://b/p?endpoint=http://127.0.0.1:8000&region=eu-west-1&block_size=131072",
        ] {
            let url: ObjectStoreUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), text);
        }
        let url: ObjectStoreUrl = "s3://b/p/?block_size=128KiB&endpoint=https://h/"
            .parse()
            .unwrap();
        assert_eq!(url.block_bytes, Some(131_072));
        assert_eq!(url.prefix, "p");
        assert_eq!(url.endpoint.as_deref(), Some("https://h"));
    }

    #[test]
    fn bad_addresses_say_what_is_wrong() {
        for (text, hint) in [
            ("bucket", "s3://BUCKET"),
            ("ftp://x", "s3://, gs:// and az://"),
            ("s3://", "bucket is missing"),
            ("s3://b//x", "prefix"),
            ("s3://b/a/../x", "prefix"),
            ("s3://b/x?endpoint=host", "endpoint is a URL"),
            ("s3://b/x?block_size=much", "block_size=much"),
            ("s3://b/x?color=red", "there is no color"),
            ("s3://b/x?region", "needs a value"),
        ] {
            let error = text.parse::<ObjectStoreUrl>().unwrap_err().to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }
}

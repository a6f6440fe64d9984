//! HTTP below the clients: finds among a server's answers that there is no room, which the clients do not tell apart.

use ::object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use ::object_store::{ClientOptions, Result as Answer};
use async_trait::async_trait;

/// The server answered that it has no room, or that what there is for us is used up.
#[derive(Debug, thiserror::Error)]
#[error("the server has no room: status {status}")]
pub(super) struct NoRoom {
    status: u16,
}

/// Makes the clients' connections.
#[derive(Debug, Default)]
pub(super) struct Connector(ReqwestConnector);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> Answer<HttpClient> {
        Ok(HttpClient::new(Watch(self.0.connect(options)?)))
    }
}

/// Looks at answers before a client does.
#[derive(Debug)]
struct Watch(HttpClient);

#[async_trait]
impl HttpService for Watch {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = self.0.execute(request).await?;
        let status = answer.status().as_u16();
        if !matches!(status, 400 | 403 | INSUFFICIENT_STORAGE) {
            return Ok(answer);
        }
        let (parts, body) = answer.into_parts();
        let body = body.bytes().await?;
        if status == INSUFFICIENT_STORAGE || names_a_quota(&String::from_utf8_lossy(&body)) {
            return Err(HttpError::new(HttpErrorKind::Unknown, NoRoom { status }));
        }
        Ok(HttpResponse::from_parts(parts, body.into()))
    }
}

const INSUFFICIENT_STORAGE: u16 = 507;

/// Whether an answer's code says that a quota is used up: that of radosgw and others, and that of `MinIO`.
fn names_a_quota(body: &str) -> bool {
    ["QuotaExceeded", "XMinioAdminBucketQuotaExceeded"]
        .iter()
        .any(|code| body.contains(&format!("<Code>{code}</Code>")))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use ::object_store::aws::AmazonS3Builder;
    use ::object_store::path::Path;
    use ::object_store::{ObjectStoreExt, PutPayload, RetryConfig};

    use super::super::requests::judge;
    use super::*;
    use crate::error::BackendError;

    /// What a put is found to have met at a server that gives this answer.
    fn put_where(status: u16, code: &str) -> BackendError {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let body = format!("<Error><Code>{code}</Code></Error>");
        let len = body.len();
        let answer = format!(
            "HTTP/1.1 {status} No\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n{body}"
        );
        let server = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"the body") {
                let mut some = [0; 4096];
                let read = client.read(&mut some).unwrap();
                request.extend_from_slice(&some[..read]);
            }
            client.write_all(answer.as_bytes()).unwrap();
        });
        let client = AmazonS3Builder::new()
            .with_endpoint(endpoint)
            .with_allow_http(true)
            .with_bucket_name("bucket")
            .with_access_key_id("id")
            .with_secret_access_key("secret")
            .with_retry(RetryConfig {
                max_retries: 0,
                ..RetryConfig::default()
            })
            .with_http_connector(Connector::default());
        let client = client.build().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let path = Path::from("key");
        let put = client.put(&path, PutPayload::from_static(b"the body"));
        let error = runtime.block_on(put).unwrap_err();
        server.join().unwrap();
        judge(&error)
    }

    /// H-34
    #[test]
    fn a_server_without_room_is_told_apart_from_one_that_refuses_or_is_down() {
        for (status, code, expected) in [
            (507, "XMinioStorageFull", BackendError::Full),
            (507, "", BackendError::Full),
            (403, "QuotaExceeded", BackendError::Full),
            (400, "XMinioAdminBucketQuotaExceeded", BackendError::Full),
            (403, "AccessDenied", BackendError::PermissionDenied),
            (503, "SlowDown", BackendError::Unavailable),
            (500, "QuotaExceeded", BackendError::Unavailable),
        ] {
            assert_eq!(put_where(status, code), expected, "{status} {code}");
        }
    }
}

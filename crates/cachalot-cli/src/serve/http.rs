//! `--metrics`: numbers for Prometheus, for programs, and as a page that moves. Reads only.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::JoinSet;

use super::gateway::Gateway;
use super::listener::Listener;
use super::metrics;

const PAGE: &str = include_str!("page.html");
/// The page brings all it needs, and asks for numbers where it came from.
const PAGE_MAY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
/// How many connections are open at once; more are closed.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may take over a request's head.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// How long a connection may last.
const CONNECTION_MAX: Duration = Duration::from_secs(600);
/// What a connection's buffer may hold.
const BUFFER_BYTES_MAX: usize = 16 << 10;

type Answer = Response<Full<Bytes>>;

/// Answers whoever connects, until it is dropped.
pub(super) async fn answer_all(listener: Listener, gateway: Arc<Gateway>, any_host: bool) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok(stream) if connections.len() >= CONNECTIONS_MAX => drop(stream),
                Ok(stream) => {
                    let gateway = Arc::clone(&gateway);
                    connections.spawn(async move {
                        let Ok(stream) = stream.into_stream() else {
                            return;
                        };
                        let service = service_fn(|request| answer(request, &gateway, any_host));
                        let served = http1::Builder::new()
                            .timer(TokioTimer::new())
                            .header_read_timeout(HEAD_MAX)
                            .max_buf_size(BUFFER_BYTES_MAX)
                            .serve_connection(TokioIo::new(stream), service);
                        // Whoever talks nonsense or goes away is nobody's concern.
                        tokio::time::timeout(CONNECTION_MAX, served).await.map(drop).unwrap_or_default();
                    });
                }
                Err(_) => {
                    let pause = std::future::pending::<()>();
                    tokio::time::timeout(super::ACCEPT_PAUSE, pause).await.unwrap_or_default();
                }
            }
        }
    }
}

/// Whether a request was meant for this machine by number or as itself: a page from elsewhere whose name was made to
/// mean this machine says that name.
fn is_meant(host: Option<&HeaderValue>) -> bool {
    let Some(host) = host.and_then(|host| host.to_str().ok()) else {
        return false;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        Some(_) | None => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<IpAddr>().is_ok()
}

async fn answer(
    request: Request<Incoming>,
    gateway: &Gateway,
    any_host: bool,
) -> Result<Answer, Infallible> {
    if !any_host && !is_meant(request.headers().get(HOST)) {
        return Ok(refusal(
            StatusCode::FORBIDDEN,
            "ask for an address or localhost\n",
        ));
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = refusal(StatusCode::METHOD_NOT_ALLOWED, "this is only read\n");
        refused
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(refused);
    }
    Ok(match request.uri().path() {
        "/" => {
            let mut page = found("text/html; charset=utf-8", PAGE.into());
            page.headers_mut()
                .insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_MAY));
            page
        }
        "/stats.json" => {
            let stats = gateway.stats(None).await.ok();
            let text = stats.and_then(|stats| serde_json::to_vec(&stats).ok());
            of_text("application/json", text.map(Bytes::from))
        }
        "/metrics" => {
            let stats = gateway.stats(None).await.ok();
            let text = stats.and_then(|stats| metrics::text(stats).ok());
            of_text(metrics::CONTENT_TYPE, text.map(Bytes::from))
        }
        _ => refusal(
            StatusCode::NOT_FOUND,
            "there are /, /metrics and /stats.json\n",
        ),
    })
}

fn of_text(kind: &'static str, text: Option<Bytes>) -> Answer {
    text.map_or_else(
        || refusal(StatusCode::INTERNAL_SERVER_ERROR, "no numbers\n"),
        |text| found(kind, text),
    )
}

fn found(kind: &'static str, text: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(text));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

fn refusal(status: StatusCode, text: &'static str) -> Answer {
    let mut answer = found(
        "text/plain; charset=utf-8",
        Bytes::from_static(text.as_bytes()),
    );
    *answer.status_mut() = status;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_was_made_to_mean_this_machine_is_noticed() {
        for host in [
            "localhost",
            "localhost:9090",
            "127.0.0.1:9090",
            "[::1]:9090",
            "10.0.0.1",
        ] {
            assert!(is_meant(Some(&HeaderValue::from_static(host))), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9090",
            "",
            "127.0.0.1.evil.example",
        ] {
            assert!(!is_meant(Some(&HeaderValue::from_static(host))), "{host}");
        }
        assert!(!is_meant(None));
    }
}

//! The numbers that a server shows over HTTP.

use super::*;

/// A request to the page with numbers, and its answer, whole.
async fn http(rig: &Rig, request: &str) -> String {
    let address = ListenAddress::Tcp("127.0.0.1:0".to_owned());
    let listener = Listener::bind(&address, false).await.unwrap();
    let Listener::Tcp(tcp) = &listener else {
        panic!("another kind of listener");
    };
    let address = tcp.local_addr().unwrap();
    let mut answering = JoinSet::new();
    answering.spawn(http::answer_all(listener, Arc::clone(&rig.gateway), false));
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(LONG, read).await.unwrap().unwrap();
    answer
}

async fn got(rig: &Rig, path: &str) -> String {
    let end = "HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    http(rig, &format!("GET {path} {end}")).await
}

/// L-04
#[tokio::test]
async fn prometheus_is_told_all_counters_and_gauges_by_volume_and_how_long_requests_take() {
    let rig = rig().await;
    rig.disk.write(0, data(1), false).await.unwrap();
    rig.disk.read(0, 512).await.unwrap();
    let refused = rig.disk.write(SIZE, data(1), false).await;
    refused.unwrap_err();
    let answer = got(&rig, "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("openmetrics-text"), "{answer}");
    let (_, text) = answer.split_once("\r\n\r\n").unwrap();
    let (gauges, counters) = rig.disk.set.stats();
    for (name, number) in crate::ctl::protocol::numbers(&counters) {
        let line = format!("cachalot_{name}_total{{volume=\"disk\"}} {number}\n");
        assert!(text.contains(&line), "{line} is not in {text}");
    }
    for (name, number) in crate::ctl::protocol::numbers(&gauges) {
        let line = format!("cachalot_{name}{{volume=\"disk\"}} {number}\n");
        assert!(text.contains(&line), "{line} is not in {text}");
    }
    for line in [
        "cachalot_write_bytes_total{volume=\"disk\"} 4096",
        "cachalot_dirty_bytes{volume=\"disk\"} 4096",
        "cachalot_request_seconds_count{volume=\"disk\",request=\"write\"} 2",
        "cachalot_request_seconds_bucket{le=\"+Inf\",volume=\"disk\",request=\"read\"} 1",
        "cachalot_requests_failed_total{volume=\"disk\",request=\"write\"} 1",
        "cachalot_requests_under_way{volume=\"disk\",request=\"trim\"} 0",
        "cachalot_mode{volume=\"disk\",mode=\"writeback\"} 1",
        "cachalot_limit{limit=\"max_bytes\"} 268435456",
        "cachalot_waiting_claims 0",
    ] {
        assert!(
            text.contains(&format!("{line}\n")),
            "{line} is not in {text}"
        );
    }
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[tokio::test]
async fn programs_get_the_numbers_as_the_admin_socket_gives_them() {
    let rig = rig().await;
    rig.disk.write(0, data(1), false).await.unwrap();
    let answer = got(&rig, "/stats.json").await;
    let (_, json) = answer.split_once("\r\n\r\n").unwrap();
    let told: crate::ctl::protocol::GatewayStats = serde_json::from_str(json).unwrap();
    let mut stats = rig.gateway.stats(None).await.unwrap();
    stats.uptime_seconds = told.uptime_seconds;
    assert_eq!(told, stats);
}

#[tokio::test]
async fn the_page_brings_all_that_it_needs() {
    let page = got(&rig().await, "/").await;
    assert!(page.contains("content-security-policy: default-src 'none'"));
    assert!(page.contains("fetch(\"stats.json\""), "{page}");
    for outside in ["http://", "https://", "src=", "<link", "@import"] {
        let (_, body) = page.split_once("\r\n\r\n").unwrap();
        assert!(!body.contains(outside), "{outside}");
    }
}

#[tokio::test]
async fn what_the_page_does_not_have_is_refused() {
    let rig = rig().await;
    for (request, status) in [
        ("GET /else HTTP/1.1\r\nHost: localhost\r\n", "404"),
        ("POST / HTTP/1.1\r\nHost: localhost\r\n", "405"),
        ("GET / HTTP/1.1\r\nHost: evil.example\r\n", "403"),
        ("GET / HTTP/1.1\r\n", "403"),
        ("nonsense\r\n", "400"),
    ] {
        let answer = http(&rig, &format!("{request}Connection: close\r\n\r\n")).await;
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expected), "{request}: {answer}");
    }
}

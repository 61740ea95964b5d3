//! What passes through, and how.

use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::replica::{Act, Replica};
use crate::router::{PATIENCE, Router, SCORE, blue, eventually, get, post};

/// Sends these bytes and reads until the router closes or an answer's head and a short body are there.
pub(crate) async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await
}

/// Reads until this text has come or the stream ends.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    let read = async {
        while !text.contains(end) {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => text.push_str(&String::from_utf8_lossy(&buffer[..count])),
            }
        }
    };
    let _ = tokio::time::timeout(PATIENCE, read).await;
    text
}

#[tokio::test]
async fn an_event_stream_arrives_event_by_event() {
    let replica = Replica::acting(Act::Stream);
    let router = Router::start(&blue(&[replica.address()], "")).ready().await;
    let mut stream = TcpStream::connect(router.address()).await.unwrap();
    stream.write_all(format!("GET {SCORE} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    eventually("request at the replica", async || (replica.in_flight() == 1).then_some(())).await;
    for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
        // The next event is sent only when the last one has arrived: nothing may be held back.
        eventually("stream open", async || {
            replica.stream(event);
            let text = tokio::time::timeout(Duration::from_millis(200), read_until(&mut stream, event)).await;
            text.is_ok_and(|text| text.contains(event)).then_some(())
        })
        .await;
    }
    let busy = async || router.state().await["endpoints"][0]["deployments"][0]["slots"]["busy"].clone();
    assert_eq!(busy().await, 1, "a slot is held to the last byte");
    replica.end_streams();
    read_until(&mut stream, "0\r\n\r\n").await;
    assert_eq!(busy().await, 0);
}

#[tokio::test]
async fn a_request_body_streams_through_while_it_is_sent() {
    let replica = Replica::start();
    let router = Router::start(&blue(&[replica.address()], "")).ready().await;
    let mut stream = TcpStream::connect(router.address()).await.unwrap();
    let head =
        format!("POST {SCORE} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    eventually("head at the replica", async || (replica.in_flight() == 1).then_some(())).await;
    stream.write_all(b"4\r\nlast\r\n0\r\n\r\n").await.unwrap();
    assert!(read_until(&mut stream, "{\"ok\":true}").await.starts_with("HTTP/1.1 200"));
    assert_eq!(replica.requests()[0].body, "firstlast");
}

#[tokio::test]
async fn a_large_body_passes_whole_both_ways() {
    let replica = Replica::start();
    let body: Vec<u8> = (0..20_000_000u32).map(|n| (n % 251) as u8).collect();
    replica.act(Act::Answer(200, body.clone().into(), Duration::ZERO));
    let router = Router::start(&blue(&[replica.address()], "request_timeout_ms: 60000")).ready().await;
    let reply = post(SCORE, body.clone()).send(&router).await;
    assert!(reply.body == body, "{} bytes", reply.body.len());
    assert!(replica.requests()[0].body == body);
}

#[tokio::test]
async fn expect_continue_asks_for_the_body_only_after_admission() {
    let replica = Replica::acting(Act::Hold);
    let settings = "max_queue_wait_ms: 60000, request_timeout_ms: 60000";
    let router = Router::start(&blue(&[replica.address()], settings)).ready().await;
    let first = tokio::spawn(post(SCORE, "{}").send_to(router.address()));
    eventually("request at the replica", async || (replica.in_flight() == 1).then_some(())).await;
    let mut stream = TcpStream::connect(router.address()).await.unwrap();
    let head =
        format!("POST {SCORE} HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    eventually("second in the queue", async || {
        (router.state().await["endpoints"][0]["deployments"][0]["queue"]["length"] == 1).then_some(())
    })
    .await;
    let mut early = [0; 1];
    let nothing = tokio::time::timeout(Duration::from_millis(50), stream.peek(&mut early)).await;
    assert!(nothing.is_err(), "asked for the body before there was a slot");
    replica.release(1);
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
    assert!(read_until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 100"));
    stream.write_all(b"body").await.unwrap();
    eventually("body at the replica", async || (replica.requests().len() == 2).then_some(())).await;
    replica.release(1);
    assert!(read_until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    assert_eq!(replica.requests()[1].body, "body");
}

#[tokio::test]
async fn hop_by_hop_headers_and_ids_follow_the_rules() {
    let replica = Replica::start();
    let router = Router::start(&blue(&[replica.address()], "")).ready().await;
    let reply = post(SCORE, "{}")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("keep-alive", "timeout=5")
        .header("x-ms-client-request-id", "client-1")
        .header("x-custom", "kept")
        .send(&router)
        .await;
    let seen = &replica.requests()[0].headers;
    assert!(!seen.contains_key("x-hop") && !seen.contains_key("keep-alive"), "{seen:?}");
    assert_eq!(seen["x-custom"], "kept");
    assert_eq!(seen["content-type"], "application/json");
    assert_eq!(seen["x-forwarded-for"], "127.0.0.1");
    assert_eq!(seen["host"], replica.address().to_string());
    assert_eq!(seen["x-request-id"], reply.header("x-request-id"));
    assert_eq!(seen["x-ms-client-request-id"], "client-1");
    assert!(seen.contains_key("traceparent"));
    assert_eq!(reply.header("x-ms-client-request-id"), "client-1");
    assert_eq!(reply.header("x-ms-request-id"), "client-1");
}

#[tokio::test]
async fn trailers_pass_to_a_client_that_takes_them() {
    let replica = Replica::acting(Act::Trailers("x-checksum", "42"));
    let router = Router::start(&blue(&[replica.address()], "")).ready().await;
    let reply = post(SCORE, "{}").header("te", "trailers").send(&router).await;
    assert_eq!(reply.text(), "data");
    assert_eq!(reply.trailers.unwrap()["x-checksum"], "42");
}

#[tokio::test]
async fn connections_to_a_replica_are_used_again_unless_it_closes_them() {
    let replica = Replica::start();
    let router = Router::start_with(
        "listen: { address: \"127.0.0.1:0\", workers: 1 }",
        &blue(&[replica.address()], ""),
    )
    .ready()
    .await;
    for _ in 0..5 {
        assert_eq!(post(SCORE, "{}").send(&router).await.status, StatusCode::OK);
    }
    let used: Vec<u64> = replica.requests().iter().map(|seen| seen.connection).collect();
    assert!(used.iter().all(|connection| *connection == used[0]), "{used:?}");
    replica.act(Act::AnswerAndClose);
    for _ in 0..5 {
        assert_eq!(post(SCORE, "{}").send(&router).await.status, StatusCode::OK);
    }
    let mut used: Vec<u64> = replica.requests().iter().skip(5).map(|seen| seen.connection).collect();
    used.dedup();
    assert_eq!(used.len(), 5, "one connection for each answer that closes it");
}

#[tokio::test]
async fn a_pooled_connection_that_went_stale_costs_no_request() {
    let replica = Replica::start();
    let address = replica.address();
    let endpoints = blue(&[address], "max_queue_wait_ms: 20000");
    let router =
        Router::start_with("listen: { address: \"127.0.0.1:0\", workers: 1 }", &endpoints).ready().await;
    assert_eq!(post(SCORE, "{}").send(&router).await.status, StatusCode::OK);
    replica.kill();
    eventually("connections cut", async || (replica.open_connections() == 0).then_some(())).await;
    let next = Replica::at(address, Act::ok("{}"));
    assert_eq!(post(SCORE, "{}").send(&router).await.status, StatusCode::OK);
    assert_eq!(next.served(), 1);
}

#[tokio::test]
async fn a_replica_that_refuses_connections_costs_no_request() {
    let (one, two) = (Replica::start(), Replica::start());
    let router =
        Router::start(&blue(&[one.address(), two.address()], "max_queue_wait_ms: 20000")).ready().await;
    eventually("both ready", async || {
        (router.state().await["endpoints"][0]["deployments"][0]["ready"] == 2).then_some(())
    })
    .await;
    one.kill();
    for _ in 0..10 {
        assert_eq!(post(SCORE, "{}").send(&router).await.status, StatusCode::OK);
    }
    assert_eq!(one.served() + two.served(), 10);
}

#[tokio::test]
async fn early_answers_reach_a_client_that_is_still_sending() {
    let replica = Replica::acting(Act::AnswerUnread(429));
    let router = Router::start(&blue(&[replica.address()], "")).ready().await;
    let reply = post(SCORE, vec![b'x'; 8_000_000]).send(&router).await;
    assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS);
    replica.act(Act::ok("{}"));
    assert_eq!(
        post(SCORE, "{}").send(&router).await.status,
        StatusCode::OK,
        "the connection was not used again"
    );
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_sends_everything_before_it_reads() {
    let replica = Replica::start();
    let router = Router::start(&blue(&[replica.address()], "")).ready().await;
    let mut stream = TcpStream::connect(router.address()).await.unwrap();
    let head = format!(
        "POST {SCORE} HTTP/1.1\r\nhost: x\r\nazureml-model-deployment: red\r\ncontent-length: 8000000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b'x'; 8_000_000]).await.unwrap();
    let answer = read_until(&mut stream, "unknown_deployment").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[tokio::test]
async fn a_request_whose_replica_refuses_waits_for_another_one() {
    let (one, two) = (Replica::start(), Replica::acting(Act::Hold));
    let settings = "max_queue_wait_ms: 60000, request_timeout_ms: 60000";
    let router = Router::start(&blue(&[one.address(), two.address()], settings)).ready().await;
    eventually("both ready", async || {
        (router.state().await["endpoints"][0]["deployments"][0]["ready"] == 2).then_some(())
    })
    .await;
    one.kill();
    // Whichever comes to the dead one first: one request ends up at the living one, the other one in the queue.
    let calls: Vec<_> = (0..2).map(|_| tokio::spawn(post(SCORE, "{}").send_to(router.address()))).collect();
    eventually("one at the replica, one in the queue", async || {
        let deployment = router.state().await["endpoints"][0]["deployments"][0].clone();
        (two.in_flight() == 1 && deployment["queue"]["length"] == 1).then_some(())
    })
    .await;
    two.release(2);
    for call in calls {
        assert_eq!(call.await.unwrap().status, StatusCode::OK);
    }
    assert_eq!((two.served(), two.max_in_flight()), (2, 1));
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_served_too() {
    let replica = Replica::start();
    let router = Router::start(&blue(&[replica.address()], "max_queue_wait_ms: 20000")).ready().await;
    let stream = TcpStream::connect(router.address()).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut calls = Vec::new();
    for number in 0..20 {
        let body = Full::new(bytes::Bytes::from(format!("{number}")));
        let request = http::Request::post(format!("http://demo.example{SCORE}")).body(body).unwrap();
        let mut sender = sender.clone();
        calls.push(tokio::spawn(async move {
            let response = sender.send_request(request).await.unwrap();
            let status = response.status();
            (status, response.into_body().collect().await.unwrap().to_bytes())
        }));
    }
    for call in calls {
        assert_eq!(call.await.unwrap(), (StatusCode::OK, bytes::Bytes::from_static(b"{\"ok\":true}")));
    }
    assert_eq!((replica.served(), replica.max_in_flight()), (20, 1));
    assert_eq!(replica.requests()[0].headers["x-forwarded-host"], "demo.example");
}

#[tokio::test]
async fn two_framings_of_one_body_do_not_smuggle_a_request() {
    let replica = Replica::start();
    let router = Router::start(&blue(&[replica.address()], "")).ready().await;
    let smuggled = "0\r\n\r\nGET /score?smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    for framing in [
        format!("content-length: {}\r\ntransfer-encoding: chunked", smuggled.len()),
        format!("transfer-encoding: chunked\r\ncontent-length: {}", smuggled.len()),
    ] {
        let request = format!("POST {SCORE} HTTP/1.1\r\nhost: x\r\n{framing}\r\n\r\n{smuggled}");
        exchange(router.address(), request.as_bytes()).await;
        let seen = replica.requests();
        let first = seen.iter().find(|seen| seen.method == "POST").unwrap();
        assert!(first.body.is_empty() && !first.headers.contains_key("content-length"), "{first:?}");
    }
}

#[tokio::test]
async fn malformed_requests_are_answered_with_400_and_reach_no_model() {
    let replica = Replica::start();
    let router = Router::start(&blue(&[replica.address()], "")).ready().await;
    let post = |head: &str, body: &str| format!("POST {SCORE} HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n{body}");
    for request in [
        "GARBAGE\r\n\r\n".to_owned(),
        post("content-length: 1\r\ncontent-length: 2", "ab"),
        post("content-length: +2", "ab"),
        post("transfer-encoding: chunked", "zz\r\n"),
        post("transfer-encoding: gzip, chunked", "0\r\n\r\n"),
        post("host: y", ""),
        post("bad header: \0", ""),
        format!("GET {SCORE} HTTP/1.1\r\n\r\n"),
        format!("GET {SCORE} HTTP/9.9\r\nhost: x\r\n\r\n"),
    ] {
        let answer = exchange(router.address(), request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{request:?} got {answer:?}");
    }
    assert!(replica.requests().is_empty());
    assert_eq!(get(SCORE).send(&router).await.status, StatusCode::OK);
}

#[tokio::test]
async fn junk_behind_a_request_does_not_cost_its_answer() {
    let replica = Replica::start();
    let router = Router::start(&blue(&[replica.address()], "")).ready().await;
    let request = format!("POST {SCORE} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{}}GARBAGE\r\n\r\n");
    let mut stream = TcpStream::connect(router.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let answers = read_until(&mut stream, "HTTP/1.1 400 ").await;
    assert!(answers.starts_with("HTTP/1.1 200 ") && answers.contains("HTTP/1.1 400 "), "{answers}");
}

#[tokio::test]
async fn a_client_that_says_nothing_is_let_go() {
    let replica = Replica::start();
    let top = "listen: { address: \"127.0.0.1:0\", header_timeout_ms: 100 }";
    let router = Router::start_with(top, &blue(&[replica.address()], "")).ready().await;
    for said in ["", "PRI * HT", "POST / HTTP/1.1\r\nHost"] {
        let mut stream = TcpStream::connect(router.address()).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "still open after {said:?}");
    }
}

#[tokio::test]
async fn an_upload_goes_on_while_nobody_reads_the_answer() {
    use std::io::{Read as _, Write as _};
    // More than all the buffers on the way hold.
    const SIZE: usize = 64 << 20;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let replica = listener.local_addr().unwrap();
    let model = std::thread::spawn(move || {
        for stream in listener.incoming().map(Result::unwrap) {
            let mut first = [0; 4096];
            let count = (&stream).read(&mut first).unwrap();
            if !first.starts_with(b"POST") {
                (&stream)
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                    .unwrap();
                continue;
            }
            // Answers with as much as it is sent, at the same time.
            let (mut reading, mut writing) = (stream.try_clone().unwrap(), stream);
            let answer = std::thread::spawn(move || {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n");
                writing.write_all(head.as_bytes()).and_then(|()| writing.write_all(&vec![b'a'; SIZE]))
            });
            let mut rest = vec![0; 1 << 20];
            let mut read = count;
            while read < SIZE {
                read += reading.read(&mut rest).unwrap();
            }
            return answer.join().unwrap();
        }
        Ok(())
    });
    let router = Router::start(&blue(&[replica], "request_timeout_ms: 60000")).ready().await;
    let address = router.address();
    let client = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address)?;
        let head = format!("POST {SCORE} HTTP/1.1\r\nhost: x\r\ncontent-length: {SIZE}\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        stream.write_all(&vec![b'q'; SIZE])?;
        let (mut piece, mut read) = (vec![0; 1 << 20], 0);
        while read < SIZE {
            match stream.read(&mut piece)? {
                0 => break,
                count => read += count,
            }
        }
        std::io::Result::Ok(read)
    });
    let read =
        tokio::time::timeout(Duration::from_secs(60), client).await.expect("it goes on").unwrap().unwrap();
    assert!(read >= SIZE, "{read}");
    model.join().unwrap().unwrap();
}

//! A refusal says what it turned on, with the numbers, and is found by every id that its client knows.

use http::HeaderMap;

use super::*;

/// Requests that the client may send in this test.
const BURST: usize = 6;

fn configuration(replica: &Replica) -> String {
    format!(
        r#"
listen: {{ address: "127.0.0.1:0", workers: 1 }}
admin: {{ address: "127.0.0.1:0" }}
access_log: "off"
endpoints:
  - name: demo
    clients: [{{ name: batch-team, key: "env:SCOREGATE_TEST_KEY", limits: {{ requests_per_second: 0.001, burst: {BURST} }} }}]
    classes: {{ header: trust }}
    deployments:
      - name: blue
        replicas: ["http://{}"]
        request_settings: {{ max_queue_wait_ms: 60000, max_queue_length: 1 }}
"#,
        replica.address()
    )
}

/// Sends a request by this id of its client's; the status of its answer, and the id that the router has given it.
async fn send(
    address: std::net::SocketAddr,
    id: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> (u16, String) {
    let mut connection = Connection::open(address).await.unwrap();
    let mut request = Request::post(path).header("authorization", "Bearer open-sesame-open-sesame");
    for (name, value) in [("x-ms-client-request-id", id)].iter().chain(headers) {
        request = request.header(*name, *value);
    }
    let answer = connection.call(request.body(Full::new(Bytes::from("{}"))).unwrap()).await.unwrap();
    let own = |headers: &HeaderMap| headers["x-request-id"].to_str().unwrap().to_owned();
    (answer.status().as_u16(), own(answer.headers()))
}

const SCORE: &str = "/api/v1/endpoint/demo/score";

#[tokio::test]
async fn a_refusal_says_what_it_turned_on_and_is_found_by_its_ids() {
    let replica = Replica::acting(Act::after(300));
    let secret = ("SCOREGATE_TEST_KEY", "open-sesame-open-sesame");
    let router = RouterProcess::serve("explain-refusals", &configuration(&replica), secret).await;
    let blue = async || router.state().await["endpoints"][0]["deployments"][0].clone();
    eventually("a ready replica", async || (blue().await["ready"] == 1).then_some(())).await;
    let address = router.data;
    let told = async |id: &str| explain(&router, &["--request", id, "-o", "table"]).await;

    assert_eq!(
        send(address, "usual", SCORE, &[]).await.0,
        200,
        "from which it knows how long an answer takes"
    );
    let nobody = [("azureml-model-deployment", "nobody")];
    for (id, path, headers, reason) in [
        ("no-deployment", SCORE, &nobody[..], "its header names a deployment that is not there"),
        ("no-route", "/nowhere", &[], "its path leads nowhere"),
    ] {
        let (status, own) = send(address, id, path, headers).await;
        assert_eq!(status, 404);
        let text = told(id).await;
        let expected =
            format!("request {own} (its client's id: {id}) was refused with 404 at once: {reason}");
        assert!(text.contains(&expected), "{expected}: {text}");
        assert_eq!(told(&own).await, text);
    }

    replica.act(Act::Hold);
    let held = tokio::spawn(send(address, "held", SCORE, &[]));
    eventually("one that is held", async || (replica.in_flight() == 1).then_some(())).await;
    assert_eq!(send(address, "late", SCORE, &[("x-request-deadline-ms", "450")]).await.0, 503);
    let text = told("late").await;
    for part in [" were left until its deadline, but it would have waited ", " an answer typically takes 3"] {
        assert!(text.contains(part), "{part}: {text}");
    }

    let gives_way = tokio::spawn(send(address, "gives-way", SCORE, &[("x-request-class", "sheddable")]));
    eventually("one that waits", async || (blue().await["queue"]["length"] == 1).then_some(())).await;
    let comes = tokio::spawn(send(address, "comes", SCORE, &[("x-request-class", "critical")]));
    assert_eq!(gives_way.await.unwrap().0, 503);
    let text = told("gives-way").await;
    assert!(text.contains("its place went to a request of the more important class critical"), "{text}");

    assert_eq!(send(address, "too-many", SCORE, &[]).await.0, 429);
    let text = told("too-many").await;
    let expected =
        format!("client batch-team sent more than 0.001 requests a second, with {BURST} at the same moment");
    assert!(text.contains(&expected), "{expected}: {text}");

    replica.release(2);
    assert_eq!((held.await.unwrap().0, comes.await.unwrap().0), (200, 200));
    assert!(router.terminate().await.success());
}

#[tokio::test]
async fn a_name_that_is_nobodys_is_refused_and_says_which_there_are() {
    let replica = Replica::start();
    let router = in_front_of("explain-nobody", &[&replica], "max_queue_wait_ms: 500").await;
    let admin = format!("http://{}", router.admin);
    let ask = async |arguments: &[&str]| {
        scoregate(&[&["explain", "--state", "/nowhere", "--admin", &admin], arguments].concat()).await
    };
    let (is_well, text) = ask(&["-d", "nope"]).await;
    assert!(
        !is_well && text.contains("there is no such deployment") && text.contains("there are: blue"),
        "{text}"
    );
    assert!(!ask(&["-e", "demo", "-d", "nope"]).await.0);
    assert!(!ask(&["-e", "nope"]).await.0);
    assert!(
        ask(&["-e", "DEMO", "-d", "Blue", "--kind", "retry"]).await.0,
        "it is there, and has nothing to tell"
    );
}

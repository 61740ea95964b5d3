//! What can be seen of a worker's connections from within.

use std::num::NonZeroU32;

use tokio::runtime::{Builder, LocalOptions};

use super::*;
use crate::core::admission::{self, Ask};
use crate::data::gate::Gate;

#[test]
fn requests_leave_in_the_turn_of_replicas() {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = Arc::new(Target {
            id: ReplicaId(1),
            name: "blue-1".into(),
            authority: Authority { host: "127.0.0.1".into(), port },
            host: http::HeaderValue::from_static("replica"),
        });
        let gate = Gate::new(admission::Limits { slots: NonZeroU32::new(1), max_queue_length: None });
        gate.admit(&target);
        let now = Instant::now();
        let permit = gate.take_idle(now, &[], Ask::default()).unwrap();
        let minute = Duration::from_secs(60);
        let limits = Limits { connect_timeout: minute, now, until: now + minute };
        // Nobody takes out what waits.
        let cork = Cork::new();
        let upstream = Upstream::new(&Tasks::new(), &cork);
        let trip = Trip::default();
        let mut send = Box::pin(upstream.send(
            permit,
            Box::new(Request::new(RequestBody::empty())),
            None,
            limits,
            &trip,
        ));
        std::future::poll_fn(|cx| {
            assert!(send.as_mut().poll(cx).is_pending(), "nobody answers");
            match cork.waiting() {
                [0, 0] => Poll::Pending,
                waiting => {
                    assert_eq!(waiting, [1, 0]);
                    Poll::Ready(())
                }
            }
        })
        .await;
    });
}

//! What the router's own decisions cost, without network: route, deployment by turn, slot and release.

use std::hint::black_box;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use scoregate::config;
use scoregate::core::admission::{Limits, ReplicaId};
use scoregate::core::route::Routes;
use scoregate::core::settings::Authority;
use scoregate::data::gate::{Gate, Target};

fn route(criterion: &mut Criterion) {
    let settings = config::demo("a-primary-key-0123456789", "a-secondary-key-0123456789");
    let routes = Routes::new(settings.endpoints.iter().map(Arc::as_ref));
    let traffic = &settings.endpoints[0].traffic;
    let mut turn = 0;
    criterion.bench_function("route and choose", |bencher| {
        bencher.iter(|| {
            turn += 1;
            (routes.find(black_box("/api/v1/endpoint/demo/score"), None), traffic.pick(turn))
        });
    });
}

fn slot(criterion: &mut Criterion) {
    for replicas in [1, 16, 256] {
        let gate = Gate::new(Limits { slots: 4.try_into().ok(), max_queue_length: None });
        for id in 1..=replicas {
            let authority = Authority { host: "127.0.0.1".to_owned(), port: 1 };
            let host = http::HeaderValue::from_static("127.0.0.1:1");
            gate.admit(&Arc::new(Target { id: ReplicaId(id), name: "r".into(), authority, host }));
        }
        let now = Instant::now();
        criterion.bench_function(&format!("slot and release, {replicas} replicas"), |bencher| {
            bencher.iter(|| {
                let mut acquire = std::pin::pin!(gate.acquire(now, Duration::from_secs(1)));
                match acquire.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(permit) => drop(permit),
                    Poll::Pending => unreachable!("there are free slots"),
                }
            });
        });
    }
}

criterion_group!(benches, route, slot);
criterion_main!(benches);

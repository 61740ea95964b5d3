//! How long the router's own decisions take, without network: route, deployment by turn, slot and release, and everything
//! for one request together. Goal of the last one: 1 µs.

#[path = "support/world.rs"]
mod world;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::HeaderValue;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use scoregate::data::head::Forwarding;
use scoregate::observe::metrics;
use world::{Exchange, World, acquire, gate, route as route_of};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Requests between two pauses in which the access log can catch up; few enough to stay in the cache.
const BATCH: u64 = 250;

fn route(criterion: &mut Criterion) {
    let mut world = World::new();
    let (snapshot, exchange) = (world.snapshot(), Exchange::new());
    criterion.bench_function("route and choose", |bencher| {
        bencher.iter(|| route_of(black_box(&snapshot), &exchange.request).next().is_some());
    });
}

fn slot(criterion: &mut Criterion) {
    for replicas in [1, 16, 256] {
        let gate = gate(replicas);
        let now = Instant::now();
        criterion.bench_function(&format!("slot and release, {replicas} replicas"), |bencher| {
            bencher.iter(|| drop(acquire(&gate, now, Duration::from_secs(1))));
        });
    }
}

fn heads(criterion: &mut Criterion) {
    let client = HeaderValue::from_static("203.0.113.7");
    let forwarding = Forwarding { authorization: false, client: &client, tls: false };
    let mut rng = SmallRng::seed_from_u64(1);
    criterion.bench_function("heads of a request and its answer", |bencher| {
        bencher.iter_batched_ref(
            Exchange::new,
            |exchange| exchange.edit_heads(&mut rng, &forwarding),
            BatchSize::SmallInput,
        );
    });
}

#[expect(clippy::disallowed_methods, reason = "a bench has no runtime that could be blocked")]
fn own_decisions(criterion: &mut Criterion) {
    let mut world = World::warm();
    criterion.bench_function("own decisions of a request", |bencher| {
        bencher.iter_custom(|requests| {
            let mut taken = Duration::ZERO;
            let mut left = requests;
            while left > 0 {
                let batch = left.min(BATCH);
                let exchanges = Exchange::many(batch as usize);
                let begin = Instant::now();
                exchanges.iter().for_each(|exchange| world.own_decisions(exchange));
                taken += begin.elapsed();
                left -= batch;
                // What the control thread does each second; without it, what was measured would pile up.
                metrics::install().run_upkeep();
                std::thread::sleep(Duration::from_millis(2));
            }
            taken
        });
    });
}

criterion_group!(benches, route, slot, heads, own_decisions);
criterion_main!(benches);

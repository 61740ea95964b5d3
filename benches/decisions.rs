//! How long the router's own decisions take, without network: route, deployment by turn, slot and release, and everything
//! for one request together. Goal of the last one: 1 µs.

#[path = "support/world.rs"]
mod world;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
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

#[expect(clippy::disallowed_methods, reason = "a bench has no runtime that could be blocked")]
fn own_decisions(criterion: &mut Criterion) {
    let mut world = World::warm();
    criterion.bench_function("own decisions of a request", |bencher| {
        bencher.iter_custom(|requests| {
            let mut taken = Duration::ZERO;
            let mut left = requests;
            while left > 0 {
                let batch = left.min(BATCH);
                let mut exchanges = Exchange::many(batch as usize);
                let begin = Instant::now();
                exchanges.iter_mut().for_each(|exchange| world.own_decisions(exchange));
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

criterion_group!(benches, route, slot, own_decisions);
criterion_main!(benches);

//! How many instructions the router's own decisions take, without network. Each has a limit, and one over its limit fails
//! the run: unlike times, instructions are the same on a busy machine. `README.md` here says how to run them.

#![expect(clippy::disallowed_methods, missing_docs, unused_qualifications, reason = "what the macros make")]

#[path = "support/world.rs"]
mod world;

use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, StatusCode};
use jsonwebtoken::{EncodingKey, Header};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use scoregate::core::identity::{self, AuthType, Identity, JwtAlgorithm, JwtKey, JwtKeys, JwtSettings};
use scoregate::core::settings::{AuthMode, AuthSettings, Key};
use scoregate::data::gate::Gate;
use scoregate::data::head::Forwarding;
use scoregate::data::record::OpenRecord;
use scoregate::data::verify::{LastKey, TokenCache, Verifier, digest_of};
use scoregate::data::world::{Endpoint, Snapshot};
use world::{Exchange, World, acquire, gate as gate_of, route as route_of};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often a bench repeats its operation. The counts in the report are for all of them together.
const TIMES: u64 = 100;

/// Fails above this many instructions for one operation.
fn at_most(instructions: u64) -> LibraryBenchmarkConfig {
    let mut callgrind = Callgrind::default();
    callgrind.hard_limits([(EventKind::Ir, instructions * TIMES)]);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

fn exchanges() -> (World, Vec<Exchange>) {
    (World::warm(), Exchange::many(TIMES as usize))
}

// Target 4,000; of today's 6,250 the line of the access log takes 1,690, the slot 1,170, the metrics 730, the ledger 150.
#[library_benchmark]
#[bench::all(setup = exchanges, config = at_most(6_570))]
fn own_decisions((mut world, exchanges): (World, Vec<Exchange>)) -> (World, Vec<Exchange>) {
    for exchange in &exchanges {
        world.own_decisions(exchange);
    }
    (world, exchanges)
}

#[library_benchmark]
#[bench::load(setup = World::warm, config = at_most(30))]
fn snapshot(mut world: World) -> World {
    for _ in 0..TIMES {
        black_box(world.snapshot());
    }
    world
}

fn routed() -> (Arc<Snapshot>, Exchange) {
    (World::warm().snapshot(), Exchange::new())
}

#[library_benchmark]
#[bench::find(setup = routed, config = at_most(510))]
fn route((snapshot, exchange): (Arc<Snapshot>, Exchange)) -> (Arc<Snapshot>, Exchange) {
    for _ in 0..TIMES {
        black_box(route_of(black_box(&snapshot), &exchange.request));
    }
    (snapshot, exchange)
}

fn heads() -> (SmallRng, Vec<Exchange>) {
    (SmallRng::seed_from_u64(1), Exchange::many(TIMES as usize))
}

#[library_benchmark]
#[bench::of_request_and_answer(setup = heads, config = at_most(10_220))]
fn head((mut rng, mut exchanges): (SmallRng, Vec<Exchange>)) -> Vec<Exchange> {
    let client = HeaderValue::from_static("203.0.113.7");
    let forwarding = Forwarding { authorization: false, client: &client, tls: false };
    for exchange in &mut exchanges {
        exchange.edit_heads(&mut rng, &forwarding);
    }
    exchanges
}

fn now_unix() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// A verifier, what it remembers, and a request for it.
struct Caller {
    verifier: Arc<Verifier>,
    /// `None` is a new connection for each request.
    last: Option<LastKey>,
    tokens: TokenCache,
    headers: HeaderMap,
    now: u64,
}

impl Caller {
    fn new(settings: &AuthSettings, credential: &str, last: Option<LastKey>) -> Self {
        let verifier = Arc::new(Verifier::new(settings).expect("the settings are good"));
        let mut headers = Exchange::new().request.headers().clone();
        let bearer = HeaderValue::from_str(&format!("Bearer {credential}"));
        headers.insert(AUTHORIZATION, bearer.expect("printable characters"));
        let mut caller = Self { verifier, last, tokens: TokenCache::new(), headers, now: now_unix() };
        caller.verify();
        caller
    }

    fn warm(mut self) -> Self {
        self.verify();
        self
    }

    fn verify(&mut self) {
        let new = LastKey::default();
        let last = self.last.as_ref().unwrap_or(&new);
        let identity = self.verifier.authorize(&self.headers, self.now, &mut self.tokens, last);
        black_box(identity).expect("the credential is good");
    }
}

/// A caller with this one of so many keys.
fn key_of(place: usize, keys: usize) -> Caller {
    let text = |place| format!("a-key-of-many-{place:010}");
    let key = |place| Key { digest: digest_of(text(place).as_bytes()), origin: "inline".to_owned() };
    let settings = AuthSettings {
        mode: AuthMode::Key,
        keys: (0..keys).map(key).collect(),
        clients: Vec::new(),
        jwt: None,
    };
    Caller::new(&settings, &text(place), None)
}

/// A caller that sends its requests over one connection.
fn known_key() -> Caller {
    Caller { last: Some(LastKey::default()), ..key_of(0, 2) }.warm()
}

/// A caller with a token that has been verified before.
fn known_token() -> Caller {
    let secret = b"a secret of thirty-two bytes: ok";
    let claims = serde_json::json!({ "sub": "somebody", "exp": now_unix() + 3600 });
    let token = jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(secret));
    let key = JwtKey {
        kid: None,
        algorithm: JwtAlgorithm::Hs256,
        material: Arc::from(secret.as_slice()),
        origin: "inline".to_owned(),
    };
    let rules = JwtSettings {
        keys: JwtKeys::Static(vec![key]),
        issuers: Vec::new(),
        audiences: Vec::new(),
        leeway: Duration::ZERO,
        required_claims: [].into(),
    };
    let settings =
        AuthSettings { mode: AuthMode::Jwt, keys: Vec::new(), clients: Vec::new(), jwt: Some(rules) };
    Caller::new(&settings, &token.expect("a token can be signed"), None)
}

#[library_benchmark]
#[bench::key_of_two(args = (0, 2), setup = key_of, config = at_most(3_650))]
#[bench::first_key_of_100(args = (0, 100), setup = key_of, config = at_most(10_100))]
#[bench::last_key_of_100(args = (99, 100), setup = key_of, config = at_most(10_100))]
#[bench::key_of_the_connection(setup = known_key, config = at_most(405))]
#[bench::known_token(setup = known_token, config = at_most(9_750))]
fn verify(mut caller: Caller) -> Caller {
    for _ in 0..TIMES {
        caller.verify();
    }
    caller
}

fn endpoint() -> Arc<Endpoint> {
    Arc::clone(&World::warm().snapshot().endpoints[0])
}

#[library_benchmark]
#[bench::next(setup = endpoint, config = at_most(28))]
fn turn(endpoint: Arc<Endpoint>) -> Arc<Endpoint> {
    for _ in 0..TIMES {
        black_box(endpoint.next());
    }
    endpoint
}

fn used_gate(replicas: u64) -> (Arc<Gate>, Instant) {
    let (gate, now) = (gate_of(replicas), Instant::now());
    for _ in 0..TIMES {
        drop(acquire(&gate, now, Duration::from_secs(1)));
    }
    (gate, now)
}

// Half of it is what the gate counts for the scaler and learns of replicas (docs/performance.md). Given up, not answered:
// what is learnt from an answer depends on the clock. That is in `own_decisions`.
#[library_benchmark]
#[bench::of_1_replica(args = (1), setup = used_gate, config = at_most(970))]
#[bench::of_16_replicas(args = (16), setup = used_gate, config = at_most(1_070))]
#[bench::of_256_replicas(args = (256), setup = used_gate, config = at_most(1_170))]
fn slot((gate, now): (Arc<Gate>, Instant)) -> Arc<Gate> {
    for _ in 0..TIMES {
        drop(black_box(acquire(&gate, now, Duration::from_secs(1))));
    }
    gate
}

/// Records of requests that have ended and only need to be dropped.
fn ended() -> (World, Vec<OpenRecord>) {
    let mut world = World::warm();
    let endpoint = Arc::clone(&world.snapshot().endpoints[0]);
    let deployment = &endpoint.deployments[0];
    let record = |_| {
        let exchange = Exchange::new();
        let mut record = OpenRecord::new(
            &exchange.request,
            Instant::now(),
            Rc::clone(&world.sinks),
            Rc::clone(&world.peer),
        );
        let fields = record.fields();
        fields.endpoint = Some(endpoint.settings.name.clone());
        fields.deployment = Some(deployment.settings.name.clone());
        fields.replica = Some("blue-1".into());
        fields.identity = Some(Identity {
            auth: AuthType::Key,
            subject: Some("primary".into()),
            caller: identity::Caller::Key,
        });
        fields.request_id = Some(HeaderValue::from_static("8f14e45f-ceea-467f-a8f5-9f1b2c3d4e5f"));
        (fields.request_bytes, fields.response_bytes) = (200, 200);
        fields.model_time = Some(Duration::from_millis(40));
        fields.model_status = Some(StatusCode::OK);
        record.attribute(&deployment.metrics);
        record.answered(StatusCode::OK, Instant::now());
        record.complete(Instant::now());
        record
    };
    let records = (0..TIMES).map(record).collect();
    (world, records)
}

#[library_benchmark]
#[bench::metrics_and_log(setup = ended, config = at_most(3_230))]
fn record((world, records): (World, Vec<OpenRecord>)) -> World {
    drop(black_box(records));
    world
}

library_benchmark_group!(
    name = decisions,
    benchmarks = [own_decisions, snapshot, route, head, verify, turn, slot, record]
);

main!(library_benchmark_groups = decisions);

//! The listener for operators: health, metrics, state and reload, on the control plane's own thread.
//!
//! `guard` decides who is answered, `state` what there is to see, `connection` how connections are bounded.

mod api;
mod connection;
#[cfg(test)]
pub(crate) mod fixtures;
mod gauges;
mod guard;
mod reload;
pub mod state;

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use axum::extract::{Request, State as Shared};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;

use crate::control::board::Board;
use crate::control::overrides::Overrides;
use crate::control::registry::{Registrar, Shown};
use crate::core::identity::KeyDigest;
use crate::core::settings::Key;
use crate::data::world::Snapshot;
use crate::observe::access::AccessLog;
use crate::observe::ledger::Ledger;
use crate::observe::metrics;
use crate::shutdown::Drain;
pub use api::{Explained, Explanation};
use guard::Guard;
pub use reload::{ReloadError, ReloadRequest, Reloader, reloader};
use state::State;

const INDEX: &str = "scoregate admin: GET /healthz /readyz /metrics /state /events /explain, POST /reload; \
    endpoints and deployments: /openapi.json says how\n";

/// What the listener shows and can do.
#[derive(Clone, Debug)]
pub struct AdminContext {
    /// The configuration in use.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// What the control plane knows of each deployment.
    pub board: Board,
    /// What operators have asked for.
    pub overrides: Overrides,
    /// Reads the configuration again.
    pub reload: Reloader,
    /// The access log, for its count of lost lines.
    pub access: AccessLog,
    /// The last decisions.
    pub ledger: Ledger,
    /// The key that callers must send.
    pub key: Option<Key>,
    /// The keys of the state directory: whoever may change things, and whoever may look.
    pub roles: Option<Roles>,
    /// Asks for changes of what is declared.
    pub registrar: Registrar,
    /// What is declared, and what goes on.
    pub shown: Shown,
    /// Scheme, host and port under which clients reach the data listener.
    pub public_url: String,
    /// The drain of the data plane, to be shown. The listener outlives its begin, so that a drain can be watched.
    pub stage: Drain,
    /// When the router started.
    pub started: Instant,
    /// The same on the wall clock.
    pub started_at: SystemTime,
}

/// The keys of the state directory.
#[derive(Clone, Copy, Debug)]
pub struct Roles {
    /// May change things.
    pub writer: KeyDigest,
    /// May look, but at no secret.
    pub reader: KeyDigest,
}

/// Answers operators until `drain` begins; then takes no new connection and gives answers that are on their way
/// until its deadline. That is the end of this listener: start it when the data plane has ended.
///
/// # Errors
/// The listener has no local address.
pub async fn serve(listener: TcpListener, context: AdminContext, drain: Drain) -> io::Result<()> {
    let loopback = listener.local_addr()?.ip().is_loopback();
    let key = context.key.as_ref().map(|key| key.digest);
    let writers = key.into_iter().chain(context.roles.map(|roles| roles.writer)).collect();
    let guard = Guard { writers, reader: context.roles.map(|roles| roles.reader), loopback };
    connection::serve(listener, router(context, guard), drain).await;
    Ok(())
}

fn router(context: AdminContext, guard: Guard) -> Router {
    Router::new()
        .route("/", get(async || INDEX))
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .route(
            "/state",
            get(async |Shared(context): Shared<_>| Json(State::gather(&context, Instant::now()))),
        )
        .route("/reload", post(reload_now))
        .merge(api::routes())
        .fallback(async || {
            Failure::new(StatusCode::NOT_FOUND, "not_found", "no such route; GET / lists them")
        })
        .method_not_allowed_fallback(async || {
            Failure::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "this route takes another method",
            )
        })
        .layer(from_fn_with_state(guard, check))
        .with_state(context)
}

async fn check(Shared(guard): Shared<Guard>, request: Request, next: Next) -> Response {
    let mut response = match guard.check(request.method(), request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn readyz(Shared(context): Shared<AdminContext>) -> Response {
    let state = State::gather(&context, Instant::now());
    let status = if state.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "ready": state.is_ready(), "stage": state.stage, "endpoints_without_ready_replica": state.not_ready(),
    });
    (status, Json(body)).into_response()
}

async fn metrics_text(Shared(context): Shared<AdminContext>) -> Response {
    let state = State::gather(&context, Instant::now());
    let text = metrics::render(|| gauges::set(&state));
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn reload_now(Shared(context): Shared<AdminContext>) -> Result<Response, Failure> {
    match context.reload.reload().await {
        Ok(generation) => Ok(Json(json!({ "generation": generation })).into_response()),
        Err(error) => {
            let (status, code) = match error {
                ReloadError::NobodyThere => (StatusCode::SERVICE_UNAVAILABLE, "reload_unavailable"),
                ReloadError::Rejected(_) => (StatusCode::UNPROCESSABLE_ENTITY, "configuration_rejected"),
                ReloadError::TooSlow => (StatusCode::GATEWAY_TIMEOUT, "reload_slow"),
            };
            Err(Failure::new(status, code, error.to_string()))
        }
    }
}

/// An answer that says what went wrong.
#[derive(Debug)]
struct Failure {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
}

impl Failure {
    fn new(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, message: message.into() }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = json!({ "error": { "code": self.code, "message": self.message } });
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::fixtures::{Admin, KEY};
    use super::*;

    fn json_of(body: &str) -> Value {
        serde_json::from_str(body).unwrap()
    }

    #[tokio::test]
    async fn every_route_answers() {
        let admin = Admin::start().await;
        for (line, expected) in [
            ("GET /", INDEX),
            ("GET /healthz", "alive"),
            ("GET /readyz", "\"ready\":true"),
            ("GET /metrics", "scoregate_config_generation 7"),
            ("GET /state", "\"generation\":7"),
            ("GET /explain?kind=scale&last=3", "\"value\":[]"),
        ] {
            let (status, body) = admin.ask(line, "host: localhost\r\n").await;
            assert_eq!(status, 200, "{line}");
            assert!(body.contains(expected), "{line}: {body}");
        }
    }

    #[tokio::test]
    async fn wrong_routes_and_methods_are_json_errors() {
        let admin = Admin::start().await;
        for (line, status, code) in [
            ("GET /nowhere", 404, "not_found"),
            ("POST /state", 405, "method_not_allowed"),
            ("GET /reload", 405, "method_not_allowed"),
            ("GET /explain?kind=everything", 400, "invalid"),
            ("GET /explain?last=many", 400, "invalid"),
            ("GET /explain?endpoint=nowhere", 404, "endpoint_not_found"),
        ] {
            let (got, body) = admin.ask(line, "host: 127.0.0.1\r\n").await;
            assert_eq!((got, &json_of(&body)["error"]["code"]), (status, &code.into()), "{line}");
        }
    }

    #[tokio::test]
    async fn a_key_guards_everything_but_health() {
        let admin = Admin::with_key().await;
        let right = format!("authorization: bearer {KEY}\r\n");
        for (line, headers, expected) in [
            ("GET /healthz", "", 200),
            ("GET /readyz", "", 200),
            ("GET /state", "", 401),
            ("GET /metrics", "authorization: Bearer wrong\r\n", 401),
            ("GET /state", "authorization: Basic b3BlbiBzZXNhbWU=\r\n", 401),
            ("GET /nowhere", "", 401),
            ("GET /state", &right, 200),
        ] {
            let (status, body) = admin.ask(line, headers).await;
            assert_eq!(status, expected, "{line} {headers}");
            assert!(!body.contains(KEY));
        }
    }

    #[tokio::test]
    async fn pages_in_a_browser_get_no_answer() {
        let admin = Admin::start().await;
        let port = admin.address.port();
        for (headers, expected) in [
            ("host: evil.example\r\n".to_owned(), 403),
            ("host: localhost.evil.example\r\n".to_owned(), 403),
            ("host: 127.0.0.1\r\nhost: evil.example\r\n".to_owned(), 400),
            ("host: 127.0.0.1\r\norigin: http://evil.example\r\n".to_owned(), 403),
            ("host: 127.0.0.1\r\norigin: null\r\n".to_owned(), 403),
            (format!("host: 127.0.0.1:{port}\r\norigin: http://127.0.0.1:{}\r\n", port ^ 1), 403),
            (format!("host: 127.0.0.1:{port}\r\norigin: http://127.0.0.1:{port}\r\n"), 200),
            (format!("host: [::1]:{port}\r\n"), 200),
            (format!("host: LocalHost:{port}\r\n"), 200),
        ] {
            assert_eq!(admin.ask("GET /healthz", &headers).await.0, expected, "{headers}");
        }
    }

    #[tokio::test]
    async fn large_heads_and_bodies_are_refused() {
        let admin = Admin::start().await;
        let large = format!("host: localhost\r\nx: {}\r\n", "a".repeat(20_000));
        assert_eq!(admin.ask("GET /state", &large).await.0, 431);
        let body = "host: localhost\r\ncontent-length: 2000000\r\n";
        assert_eq!(admin.ask("POST /reload", body).await.0, 413);
    }

    #[tokio::test]
    async fn a_reload_says_the_generation_or_the_report() {
        let mut admin = Admin::start().await;
        for (outcome, status, expected) in [
            (Ok(8), 200, json!({ "generation": 8 })),
            (
                Err("line 3: no".to_owned()),
                422,
                json!({ "error": { "code": "configuration_rejected", "message": "line 3: no" } }),
            ),
        ] {
            let mut reloads = admin.reloads;
            let asked = async { reloads.recv().await.unwrap().answer(outcome) };
            admin.reloads = tokio::sync::mpsc::channel(1).1;
            let ((), (got, body)) = tokio::join!(asked, admin.ask("POST /reload", "host: localhost\r\n"));
            assert_eq!((got, json_of(&body)), (status, expected));
            admin.reloads = reloads;
        }
        admin.reloads.close();
        assert_eq!(admin.ask("POST /reload", "host: localhost\r\n").await.0, 503);
    }

    #[tokio::test]
    async fn a_drain_can_be_watched_and_is_not_ready() {
        let admin = Admin::start().await;
        admin.stage.start(Instant::now() + Duration::from_secs(60));
        assert_eq!(admin.ask("GET /readyz", "").await.0, 503);
        let state = json_of(&admin.ask("GET /state", "").await.1);
        assert_eq!(state["stage"], "draining");
        assert!(state["drain_seconds_left"].as_u64().unwrap() <= 60);
    }

    #[tokio::test]
    async fn the_listener_ends_with_its_own_drain_and_gives_the_answer_on_its_way() {
        let mut admin = Admin::start().await;
        let mut reloads = std::mem::replace(&mut admin.reloads, tokio::sync::mpsc::channel(1).1);
        let end = async {
            let request = reloads.recv().await.unwrap();
            admin.end.start(Instant::now() + Duration::from_secs(60));
            while tokio::net::TcpStream::connect(admin.address).await.is_ok() {
                tokio::task::yield_now().await;
            }
            request.answer(Ok(9));
        };
        let ((), (status, _)) = tokio::join!(end, admin.ask("POST /reload", ""));
        assert_eq!(status, 200);
        admin.tasks.ended().await;
    }
}

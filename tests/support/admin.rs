//! An admin API for tests of the command line: it keeps documents as the real one does, starts nothing, and remembers what
//! it was asked. Every long change is seen once in progress; then a deployment with the environment variable FAIL
//! fails, and one with HANG goes on. An endpoint with the tag `moving` has always just been changed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A running admin API; it ends when it is dropped.
pub(crate) struct Admin {
    pub(crate) address: SocketAddr,
    shared: Arc<Mutex<Kept>>,
    _server: JoinSet<()>,
}

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// `PATCH /endpoints/e`.
    pub(crate) line: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

#[derive(Default)]
struct Kept {
    address: String,
    endpoints: BTreeMap<String, Value>,
    deployments: BTreeMap<(String, String), Value>,
    keys: BTreeMap<String, [String; 2]>,
    /// How often each was looked at, and how it ends.
    operations: BTreeMap<String, (u32, End)>,
    changes: u64,
    asked: Vec<Asked>,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Good,
    Bad,
    Never,
}

type Answer = (StatusCode, Value, Option<String>);

impl Admin {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Mutex::new(Kept { address: address.to_string(), ..Kept::default() }));
        let service = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self { address, shared, _server: server }
    }

    /// Everything that was asked since the last time.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.shared.lock().unwrap().asked)
    }

    /// The first that was asked in these words, of what was asked since the last time.
    pub(crate) fn asked_for(&self, line: &str) -> Asked {
        let all = self.asked();
        let lines: Vec<&str> = all.iter().map(|asked| asked.line.as_str()).collect();
        let at = lines.iter().position(|asked| *asked == line);
        all[at.unwrap_or_else(|| panic!("{line} was not asked, but {lines:?}"))].clone()
    }

    /// Puts an endpoint there, with its deployments.
    pub(crate) fn declare(&self, endpoint: Value, deployments: &[Value]) {
        let name = endpoint["name"].as_str().unwrap().to_owned();
        let mut kept = self.shared.lock().unwrap();
        for deployment in deployments {
            let key = (name.clone(), deployment["name"].as_str().unwrap().to_owned());
            kept.deployments.insert(key, deployment.clone());
        }
        kept.create(&name, endpoint);
    }
}

async fn answer(
    State(shared): State<Arc<Mutex<Kept>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut kept = shared.lock().unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let line = format!("{method} {uri}");
    kept.asked.push(Asked { line, headers: headers.clone(), body: body.clone() });
    let (status, value, operation) =
        kept.serve(&method, &uri, &headers, &body).unwrap_or_else(|refusal| refusal);
    let mut response = (status, axum::Json(value)).into_response();
    if let Some(id) = operation {
        let url = format!("http://{}/operations/{id}", kept.address);
        response.headers_mut().insert("azure-asyncoperation", url.parse().unwrap());
        response.headers_mut().insert("retry-after", "0".parse().unwrap());
    }
    response
}

fn refused(status: u16, code: &str, message: &str) -> Answer {
    let body = json!({"error": {"code": code, "message": message, "details": []}});
    (StatusCode::from_u16(status).unwrap(), body, None)
}

fn ok(value: Value) -> Result<Answer, Answer> {
    Ok((StatusCode::OK, value, None))
}

impl Kept {
    fn serve(
        &mut self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &Value,
    ) -> Result<Answer, Answer> {
        let parts: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
        match (method.as_str(), parts.as_slice()) {
            ("POST", ["score"]) => {
                let deployment = headers.get("azureml-model-deployment").map(|name| name.to_str().unwrap());
                if deployment == Some("broken") {
                    return Err(refused(502, "model_error", "no"));
                }
                ok(json!({ "from": deployment, "got": body }))
            }
            ("GET", ["operations", id]) => {
                let Some((looks, end)) = self.operations.get_mut(*id) else {
                    return Err(refused(404, "operation_not_found", "no such operation"));
                };
                *looks += 1;
                let state = match (*looks, *end) {
                    (1, _) | (_, End::Never) => json!({"status": "InProgress", "phase": "starting"}),
                    (_, End::Bad) => {
                        json!({"status": "Failed", "error": {"code": "start_failed", "message": "no module named x"}})
                    }
                    (_, End::Good) => json!({"status": "Succeeded"}),
                };
                let (status, value, _) = ok(state)?;
                Ok((status, value, Some((*id).to_owned())))
            }
            ("GET", ["endpoints"]) => {
                ok(json!({"value": self.endpoints.keys().map(|e| self.endpoint(e)).collect::<Vec<_>>()}))
            }
            ("POST", ["endpoints"]) => {
                let name = body["name"].as_str().unwrap().to_owned();
                if self.endpoints.contains_key(&name) {
                    return Err(refused(409, "already_exists", &format!("endpoint {name} exists already")));
                }
                self.create(&name, body.clone());
                Ok((StatusCode::CREATED, self.endpoint(&name), None))
            }
            ("PUT", ["apply"]) => {
                let name = body["endpoint"]["name"].as_str().unwrap().to_owned();
                self.deployments.retain(|key, _| key.0 != name);
                for deployment in body["deployments"].as_array().unwrap() {
                    let key = (name.clone(), deployment["name"].as_str().unwrap().to_owned());
                    self.deployments.insert(key, deployment.clone());
                }
                self.create(&name, body["endpoint"].clone());
                let operation = self.operation(End::Good);
                Ok((StatusCode::ACCEPTED, self.endpoint(&name), operation))
            }
            (_, ["endpoints", name, ..]) if !self.endpoints.contains_key(*name) => {
                Err(refused(404, "endpoint_not_found", &format!("there is no endpoint {name}")))
            }
            (_, ["endpoints", name, rest @ ..]) => self.within(method, name, rest, uri, headers, body),
            _ => Err((StatusCode::NOT_FOUND, Value::Null, None)),
        }
    }

    fn within(
        &mut self,
        method: &Method,
        name: &str,
        rest: &[&str],
        uri: &Uri,
        headers: &HeaderMap,
        body: &Value,
    ) -> Result<Answer, Answer> {
        let key = |deployment: &str| (name.to_owned(), deployment.to_owned());
        match (method.as_str(), rest) {
            ("GET", []) => ok(self.endpoint(name)),
            ("PATCH", []) => {
                self.check(headers)?;
                self.changes += 1;
                merge(self.endpoints.get_mut(name).unwrap(), body);
                ok(self.endpoint(name))
            }
            ("DELETE", []) => {
                self.endpoints.remove(name);
                self.deployments.retain(|key, _| key.0 != name);
                let operation = self.operation(End::Good);
                Ok((StatusCode::ACCEPTED, Value::Null, operation))
            }
            ("GET", ["keys"]) => {
                let [primary, secondary] = &self.keys[name];
                ok(json!({"primaryKey": primary, "secondaryKey": secondary}))
            }
            ("POST", ["keys", "regenerate"]) => {
                let which = usize::from(body["keyType"] == "secondary");
                let made = format!("made-{}", self.asked.len());
                self.keys.get_mut(name).unwrap()[which] =
                    body["keyValue"].as_str().unwrap_or(&made).to_owned();
                ok(json!({}))
            }
            ("POST", ["token"]) => ok(
                json!({"accessToken": "t0ken", "tokenType": "Bearer", "expiryTimeUtc": 20, "refreshAfterTimeUtc": 10}),
            ),
            ("GET", ["deployments"]) => {
                let of = self.deployments.iter().filter(|(key, _)| key.0 == name);
                ok(json!({"value": of.map(|(key, _)| self.deployment(key)).collect::<Vec<_>>()}))
            }
            ("POST", ["deployments"]) => {
                let key = key(body["name"].as_str().unwrap());
                if self.deployments.contains_key(&key) {
                    return Err(refused(409, "already_exists", "it exists already"));
                }
                self.deployments.insert(key.clone(), body.clone());
                let variables = &body["environment_variables"];
                let end = match (variables["FAIL"].is_string(), variables["HANG"].is_string()) {
                    (true, _) => End::Bad,
                    (_, true) => End::Never,
                    _ => End::Good,
                };
                if uri.query() == Some("all_traffic=true") {
                    self.endpoints.get_mut(name).unwrap()["traffic"] = json!({ key.1.as_str(): 100 });
                }
                let operation = self.operation(end);
                Ok((StatusCode::ACCEPTED, self.deployment(&key), operation))
            }
            (_, ["deployments", d, ..]) if !self.deployments.contains_key(&key(d)) => {
                Err(refused(404, "deployment_not_found", &format!("there is no deployment {d}")))
            }
            ("GET", ["deployments", d]) => ok(self.deployment(&key(d))),
            ("PATCH" | "PUT", ["deployments", d]) => {
                if method == Method::PATCH {
                    self.check(headers)?;
                }
                self.changes += 1;
                let kept = self.deployments.get_mut(&key(d)).unwrap();
                if method == Method::PUT {
                    kept.clone_from(body);
                } else {
                    merge(kept, body);
                }
                let operation = self.operation(End::Good);
                Ok((StatusCode::ACCEPTED, self.deployment(&key(d)), operation))
            }
            ("DELETE", ["deployments", d]) => {
                if self.endpoints[name]["traffic"][*d].as_u64().is_some_and(|share| share > 0) {
                    return Err(refused(
                        409,
                        "deployment_has_traffic",
                        &format!("deployment {d} still has traffic"),
                    ));
                }
                self.deployments.remove(&key(d));
                let operation = self.operation(End::Good);
                Ok((StatusCode::ACCEPTED, Value::Null, operation))
            }
            ("GET", ["deployments", d, "logs"]) => ok(json!({"content": format!("{d} says\nhello\n")})),
            _ => Err((StatusCode::NOT_FOUND, Value::Null, None)),
        }
    }

    fn create(&mut self, name: &str, document: Value) {
        self.changes += 1;
        self.endpoints.insert(name.to_owned(), document);
        self.keys.entry(name.to_owned()).or_insert_with(|| ["first".into(), "second".into()]);
    }

    fn operation(&mut self, end: End) -> Option<String> {
        let id = (self.operations.len() + 1).to_string();
        self.operations.insert(id.clone(), (0, end));
        Some(id)
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), Answer> {
        let etag = headers.get("if-match").expect("changes say what they start from");
        let is_moving = self.endpoints.values().any(|endpoint| endpoint["tags"]["moving"].is_string());
        if etag.to_str().unwrap() == self.etag() && !is_moving {
            Ok(())
        } else {
            Err(refused(409, "conflict", "it has changed"))
        }
    }

    fn etag(&self) -> String {
        format!("\"{}\"", self.changes)
    }

    fn endpoint(&self, name: &str) -> Value {
        let mut view = self.endpoints[name].clone();
        let of = self.deployments.keys().filter(|key| key.0 == name);
        let traffic: serde_json::Map<_, _> = of
            .map(|key| (key.1.clone(), view["traffic"].get(&key.1).cloned().unwrap_or_else(|| json!(0))))
            .collect();
        view["traffic"] = Value::Object(traffic);
        view["scoring_uri"] = json!(format!("http://{}/score", self.address));
        view["provisioning_state"] = json!("Succeeded");
        view["etag"] = json!(self.etag());
        view
    }

    fn deployment(&self, key: &(String, String)) -> Value {
        let mut view = self.deployments[key].clone();
        view["provisioning_state"] = json!("Succeeded");
        view["etag"] = json!(self.etag());
        view
    }
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else { return target.clone_from(patch) };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

//! Calls an endpoint as its clients do: at its scoring URI, with its key or a token.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, Request};
use http_body_util::Full;
use secrecy::SecretString;
use serde_json::Value;

use super::session::{Session, path};
use crate::cli::admin::{bearer, printable};
use crate::cli::http::target::Target;
use crate::cli::http::tls::Trust;
use crate::cli::http::{self as wire};

/// The header by which a request asks for a deployment.
const DEPLOYMENT: HeaderName = HeaderName::from_static("azureml-model-deployment");
/// Longest time: the largest request timeout, and some.
const LONGEST: Duration = Duration::from_secs(330);
/// Largest body, as v1 had it.
const LARGEST: u64 = 100 * 1024 * 1024;

/// Sends a body and gives the answer's.
///
/// # Errors
/// The endpoint cannot be called, or answers no success.
pub(super) async fn call(
    session: &Session,
    trust: &Trust,
    endpoint: &str,
    deployment: Option<&str>,
    body: Vec<u8>,
) -> anyhow::Result<String> {
    let object = session.get(&path(&["endpoints", endpoint])).await?;
    let uri = object["scoring_uri"].as_str().context("the router says no scoring URI of this endpoint")?;
    let target = Target::parse(uri).map_err(|error| anyhow!("the endpoint cannot be called: {error}"))?;
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(target.path.clone())
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("scoregate/", env!("CARGO_PKG_VERSION")));
    if let Some(secret) = secret(session, endpoint, &object).await? {
        request = request.header(AUTHORIZATION, bearer(&secret)?);
    }
    if let Some(name) = deployment {
        let name = HeaderValue::from_str(name).context("a deployment's name holds letters, digits and -")?;
        request = request.header(DEPLOYMENT, name);
    }
    let request = request.body(Full::new(Bytes::from(body)))?;
    let answer = wire::send(&target, trust, request, LONGEST)
        .await
        .with_context(|| format!("endpoint {endpoint} cannot be called at {target}"))?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    if !answer.status.is_success() {
        bail!("endpoint {endpoint} answered {}: {}", answer.status, printable(text.trim_end()));
    }
    Ok(text)
}

/// What opens the endpoint: its primary key, or a fresh token.
async fn secret(session: &Session, endpoint: &str, object: &Value) -> anyhow::Result<Option<SecretString>> {
    let credentials = match object["auth_mode"].as_str().unwrap_or("key").to_lowercase().as_str() {
        "none" => return Ok(None),
        mode => credentials(session, endpoint, mode).await?,
    };
    let secret = ["primaryKey", "accessToken"].iter().find_map(|key| credentials[*key].as_str());
    let secret = secret.context("the router gave neither a key nor a token")?;
    Ok(Some(secret.into()))
}

/// The keys or a token, as the router gives them.
pub(super) async fn credentials(session: &Session, endpoint: &str, mode: &str) -> anyhow::Result<Value> {
    match mode.to_lowercase().as_str() {
        "key" | "key_or_jwt" => session.get(&path(&["endpoints", endpoint, "keys"])).await,
        "aml_token" => {
            let token = path(&["endpoints", endpoint, "token"]);
            Ok(session.send(Method::POST, &token, None, None).await?.value)
        }
        "none" => bail!("endpoint {endpoint} lets anybody call (auth_mode none); there are no credentials"),
        mode => bail!(
            "endpoint {endpoint} wants tokens that the router does not issue (auth_mode {mode}); get one where its users do"
        ),
    }
}

/// The file of `--request-file`.
pub(super) fn body(file: &Path) -> anyhow::Result<Vec<u8>> {
    let length = std::fs::metadata(file)
        .with_context(|| format!("cannot read {} (--request-file)", file.display()))?;
    if length.len() > LARGEST {
        bail!("{} (--request-file) is larger than 100 MiB", file.display());
    }
    std::fs::read(file).with_context(|| format!("cannot read {} (--request-file)", file.display()))
}

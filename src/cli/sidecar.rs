//! `scoregate sidecar`: one running model server, every setting by flag or environment, all paths forwarded.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use crate::app;
use crate::cli::serve;
use crate::config;
use crate::core::settings::Settings;

/// Run in front of one model server: enforce its concurrency, queue the rest, pass every path on
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The model server, such as http://127.0.0.1:5001.
    #[arg(long, env = "SCOREGATE_UPSTREAM")]
    pub upstream: String,
    /// Where clients call.
    #[arg(long, env = "SCOREGATE_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Where /state, /metrics, /healthz and /readyz are; not loopback only with --admin-key.
    #[arg(long, env = "SCOREGATE_ADMIN", default_value = "127.0.0.1:8081")]
    pub admin: SocketAddr,
    /// Key of the admin listener: env:NAME, file:PATH, or the key itself.
    #[arg(long, env = "SCOREGATE_ADMIN_KEY", hide_env_values = true)]
    pub admin_key: Option<String>,
    /// Requests at once on the model server; 0 is no limit.
    #[arg(long, env = "SCOREGATE_MAX_CONCURRENT", default_value_t = 1)]
    pub max_concurrent: u32,
    /// Longest time in the queue, ms.
    #[arg(long, env = "SCOREGATE_MAX_QUEUE_WAIT", default_value_t = 500, value_name = "MS")]
    pub max_queue_wait: u64,
    /// Longest queue; not set: no limit but the number of connections.
    #[arg(long, env = "SCOREGATE_MAX_QUEUE_LENGTH")]
    pub max_queue_length: Option<u32>,
    /// Longest time for the head of an answer, and longest silence within it, ms.
    #[arg(long, env = "SCOREGATE_REQUEST_TIMEOUT", default_value_t = 5000, value_name = "MS")]
    pub request_timeout: u64,
    /// Longest time to open a connection to the model server, ms.
    #[arg(long, env = "SCOREGATE_CONNECT_TIMEOUT", default_value_t = 1000, value_name = "MS")]
    pub connect_timeout: u64,
    /// Largest request body, bytes.
    #[arg(long, env = "SCOREGATE_MAX_BODY_BYTES", default_value_t = 104_857_600, value_name = "BYTES")]
    pub max_body_bytes: u64,
    /// Path that tells whether the model server is ready.
    #[arg(long, env = "SCOREGATE_READINESS_PATH", default_value = "/")]
    pub readiness_path: String,
    /// Whose status codes: aks, aks-v1 or managed.
    #[arg(long, env = "SCOREGATE_PROFILE", default_value = "aks")]
    pub profile: String,
    /// A key that clients must send: env:NAME, file:PATH, or the key itself. Not set: anybody may call, as the
    /// ingress in front of the pod has checked already.
    #[arg(long, env = "SCOREGATE_KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// Access log: stdout, off, or file:PATH.
    #[arg(long, env = "SCOREGATE_ACCESS_LOG", default_value = "stdout")]
    pub access_log: String,
    /// Answers tell in a `Server-Timing` header how long queue, model and router took.
    #[arg(long, env = "SCOREGATE_SERVER_TIMING")]
    pub server_timing: bool,
    /// Data-plane threads; not set: one for each core.
    #[arg(long, env = "SCOREGATE_WORKERS")]
    pub workers: Option<u32>,
    /// Longest time that a drain waits for requests to end, ms.
    #[arg(long, env = "SCOREGATE_DRAIN_TIMEOUT", default_value_t = 30_000, value_name = "MS")]
    pub drain_timeout: u64,
}

/// Starts, announces, waits for the end.
///
/// # Errors
/// A flag that does not fit, or whatever keeps the router from starting.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let running = app::start(settings(args)?, app::Origin::default())?;
    serve::until_end(running, |running| serve::announce(running, "http"))
}

/// The flags as a configuration, so that every check of a file holds for them too.
fn settings(args: &Args) -> anyhow::Result<Settings> {
    let text = configuration(args);
    let mut settings = match config::parse("flags", &text, Path::new(".")) {
        Ok(loaded) => loaded.settings,
        Err(report) => anyhow::bail!("these flags do not fit; as a configuration they are\n{report}"),
    };
    for endpoint in &mut settings.endpoints {
        let endpoint = Arc::make_mut(endpoint);
        endpoint.server_timing = args.server_timing;
        for deployment in &mut endpoint.deployments {
            let deployment = Arc::make_mut(deployment);
            deployment.routes.pass_through = true;
            deployment.forward_authorization = args.key.is_none();
        }
    }
    Ok(settings)
}

fn configuration(args: &Args) -> String {
    // A JSON string is a YAML string, whatever is in it.
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let mut text = format!(
        "profile: {profile}\nlisten:\n  address: {listen}\n{workers}admin:\n  address: {admin}\n{admin_key}\
         drain_timeout_ms: {drain}\naccess_log: {access_log}\nendpoints:\n  - name: sidecar\n",
        profile = quote(&args.profile),
        listen = quote(&args.listen.to_string()),
        workers = args.workers.map_or_else(String::new, |workers| format!("  workers: {workers}\n")),
        admin = quote(&args.admin.to_string()),
        admin_key =
            args.admin_key.as_ref().map_or_else(String::new, |key| format!("  key: {}\n", quote(key))),
        drain = args.drain_timeout,
        access_log = quote(&args.access_log),
    );
    let auth = match &args.key {
        Some(key) => format!("    auth_mode: key\n    keys:\n      primary: {}\n", quote(key)),
        None => "    auth_mode: none\n".to_owned(),
    };
    text.push_str(&auth);
    let _ = write!(
        text,
        "    deployments:\n      - name: model\n        replicas: [{upstream}]\n        request_settings:\n\
         \x20         max_concurrent_requests_per_instance: {concurrent}\n          max_queue_wait_ms: {wait}\n\
         \x20         request_timeout_ms: {timeout}\n          connect_timeout_ms: {connect}\n\
         \x20         max_body_bytes: {body}\n",
        upstream = quote(&args.upstream),
        concurrent = args.max_concurrent,
        wait = args.max_queue_wait,
        timeout = args.request_timeout,
        connect = args.connect_timeout,
        body = args.max_body_bytes,
    );
    if let Some(length) = args.max_queue_length {
        let _ = writeln!(text, "          max_queue_length: {length}");
    }
    let path = quote(&args.readiness_path);
    let _ = write!(
        text,
        "        inference_config:\n          scoring_route: {{path: /score}}\n\
         \x20         liveness_route: {{path: {path}}}\n          readiness_route: {{path: {path}}}\n"
    );
    text
}

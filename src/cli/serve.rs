//! `scoregate serve [FILE]`: runs the router until a signal ends it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rand::RngExt as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::{self, Origin, Running, StateOptions};
use crate::cli::admin::default_folder;
use crate::config;
use crate::core::settings::Settings;
use crate::observe::metrics;

/// How long an end that was forced may take.
const FORCED_END: Duration = Duration::from_secs(3);

/// Run the router
///
/// Without a file it runs a demo: endpoint `demo`, deployments blue and green, synthetic models.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Configuration file (YAML); `scoregate check FILE` tells what it means.
    pub file: Option<PathBuf>,
    /// Where clients call, instead of what the file says; port 0 lets the system choose.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Where operators call, instead of what the file says; only a loopback address.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = loopback)]
    pub admin: Option<SocketAddr>,
    /// Keep what is declared with `scoregate online-endpoint` and its kin in this directory; without a value, in
    /// $SCOREGATE_STATE or ~/.local/state/scoregate.
    #[arg(long, value_name = "DIR", num_args = 0..=1)]
    pub state: Option<Option<PathBuf>>,
    /// Python interpreter whose environment runs the entry scripts of deployments; it must have azureml-inference-server-http.
    #[arg(long, value_name = "PATH", requires = "state")]
    pub python: Option<PathBuf>,
    /// URL under which clients reach the data listener, for the scoring URIs that are shown.
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
}

impl Args {
    fn origin(&self) -> anyhow::Result<Origin> {
        let state = match &self.state {
            None => None,
            Some(None) => Some(
                state_folder()
                    .context("there is no home directory to keep the state in; give --state a directory")?,
            ),
            Some(Some(file))
                if file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") =>
            {
                anyhow::bail!(
                    "--state takes a directory, and {} looks like a configuration file: name that one before --state",
                    file.display()
                )
            }
            Some(Some(folder)) => Some(folder.clone()),
        };
        let state = state.map(|folder| StateOptions { folder, python: self.python.clone() });
        let public_url = self.public_url.as_ref().map(|url| url.trim_end_matches('/').to_owned());
        Ok(Origin { file: self.file.clone(), state, public_url })
    }

    fn place(&self, mut settings: Settings) -> Settings {
        settings.listen.address = self.listen.unwrap_or(settings.listen.address);
        settings.admin.address = self.admin.unwrap_or(settings.admin.address);
        settings
    }
}

/// Where the state is when nobody says where.
fn state_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    set("SCOREGATE_STATE").map(PathBuf::from).or_else(|| default_folder(set))
}

/// Others need a key, and that is the file's part.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "not of the form 127.0.0.1:8081".to_owned())?;
    match address.ip().is_loopback() {
        true => Ok(address),
        false => Err("not a loopback address; set `admin` with a key in the file for that".to_owned()),
    }
}

/// Starts, announces, waits for the end.
///
/// # Errors
/// Whatever keeps the router from starting.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    // The clock of the metrics takes about 10 ms to calibrate, during which the file can be read. Should there be no
    // thread to be had, whoever needs the metrics first waits for it.
    let _ = std::thread::Builder::new().name("calibrate".into()).spawn(metrics::install);
    let settings = match (&args.file, &args.state) {
        (None, None) => return demo(args),
        (None, Some(_)) => config::defaults(),
        (Some(file), state) => {
            let load = if state.is_some() { config::load_part } else { config::load };
            let loaded = load(file).map_err(|report| anyhow::anyhow!("{report}"))?;
            for warning in &loaded.warnings {
                tracing::warn!("{warning}");
            }
            loaded.settings
        }
    };
    let scheme = scheme(&settings);
    let running = app::start(args.place(settings), args.origin()?)?;
    until_end(running, |running| announce(running, scheme))
}

fn demo(args: &Args) -> anyhow::Result<ExitCode> {
    let (primary, secondary) = (random_key(), random_key());
    let running = app::start(args.place(config::demo(&primary, &secondary)), Origin::default())?;
    until_end(running, |running| {
        announce(running, "http");
        let (data, admin) = (running.data, running.admin);
        let url = format!("http://{data}/api/v1/endpoint/demo/score");
        print(&format!(
            "\nendpoint demo: deployments blue (90 %) and green (10 %), 1 to 4 replicas each\n\
             key    {primary}\n\n\
             try\n\
             \x20 curl -i {url} -H 'Authorization: Bearer {primary}' -H 'Content-Type: application/json' -d '{{\"data\": [1, 2]}}'\n\
             \x20 curl -i {url} -H 'Authorization: Bearer {primary}' -H 'azureml-model-deployment: green' -d '{{}}'\n\
             \x20 curl http://{admin}/state\n"
        ));
    })
}

/// 32 characters, 190 bits.
fn random_key() -> String {
    let mut rng = rand::rng();
    (0..32).map(|_| char::from(rng.sample(rand::distr::Alphanumeric))).collect()
}

fn scheme(settings: &Settings) -> &'static str {
    if settings.listen.tls.is_some() { "https" } else { "http" }
}

/// Prints where the router listens.
pub fn announce(running: &Running, scheme: &str) {
    print(&format!("data   {scheme}://{}\nadmin  http://{}", running.data, running.admin));
    if let Some(redirect) = running.redirect {
        print(&format!("redirect from http://{redirect}"));
    }
}

fn print(text: &str) {
    use std::io::Write as _;
    // A closed pipe must not end the router.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// SIGTERM and SIGINT drain, a second one forces; SIGHUP reloads; SIGUSR2 opens the log anew. `announce` is called when
/// signals are heard: who reads the addresses may send one at once.
///
/// # Errors
/// Signals cannot be listened to.
pub fn until_end(running: Running, announce: impl FnOnce(&Running)) -> anyhow::Result<ExitCode> {
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot make a runtime for signals")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut user = signal(SignalKind::user_defined2())?;
        announce(&running);
        let mut ended = tokio::time::interval(Duration::from_millis(50));
        let mut draining = false;
        let mut forced: Option<Instant> = None;
        loop {
            tokio::select! {
                _ = terminate.recv() => end(&running, &mut draining, &mut forced),
                _ = interrupt.recv() => end(&running, &mut draining, &mut forced),
                // The outcome is logged by whoever reloads.
                _ = hangup.recv() => drop(running.reload.reload().await),
                _ = user.recv() => running.reopen_log(),
                _ = ended.tick() => {
                    // A thread that hangs, such as in a read of a dead network disk, must not keep the process.
                    let hangs = forced.is_some_and(|at| Instant::now() > at + FORCED_END);
                    if hangs || running.is_finished() {
                        break;
                    }
                }
            }
        }
        anyhow::Ok(())
    })?;
    if !running.is_finished() {
        tracing::error!("a part of the router does not end; leaving it behind");
        return Ok(ExitCode::FAILURE);
    }
    Ok(if running.wait() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Two descriptors a request: as many as the system allows, since the usual soft limit of 1,024 is soon reached.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

fn end(running: &Running, draining: &mut bool, forced: &mut Option<Instant>) {
    if std::mem::replace(draining, true) {
        tracing::warn!("second signal: ending at once");
        forced.get_or_insert_with(Instant::now);
        running.force();
    } else {
        tracing::info!("draining; a second signal ends at once");
        running.drain();
    }
}

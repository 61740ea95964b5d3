//! `scoregate model`: a synthetic model server with the manners of the real one, for demos, tests and load. What it
//! answers is in `service`, how long it works in `work`, what it counts in `stats`.
//!
//! It runs on one thread: the end of one connection and the first bytes of another are then seen in the order in
//! which they arrived, so that what it counts as in flight at once is true.

mod service;
mod stats;
mod work;

use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use self::service::Model;
use crate::shutdown::{Drain, Tasks, drain};

/// Flags of `scoregate model`.
#[derive(Clone, Debug, Args)]
pub struct ModelArgs {
    /// Port to listen on; 0 lets the system choose.
    #[arg(long, env = "PORT", default_value_t = 5001)]
    pub port: u16,
    /// Address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub address: IpAddr,
    /// Name in the answers [default: the port].
    #[arg(long)]
    pub name: Option<String>,
    /// Mean time to work on a request, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 0.0, value_parser = milliseconds)]
    pub service_time: f64,
    /// How the time to work varies around its mean.
    #[arg(long, value_enum, default_value_t = Distribution::Constant)]
    pub distribution: Distribution,
    /// Spread of the log-normal distribution (standard deviation of the logarithm).
    #[arg(long, default_value_t = 0.5, value_parser = spread)]
    pub sigma: f64,
    /// Requests worked on at once; more wait inside, in order, as in a real server's accept queue.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub concurrency: u32,
    /// Share of the requests that fail with 500, from 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub failure_rate: f64,
    /// The port is open at once, but every answer waits for this many milliseconds from the start.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub startup_delay: u64,
    /// Bytes of an answer; shorter ones are filled up.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub response_size: usize,
    /// Answer with this many server-sent events; 0 does so (with 8) only when the client accepts
    /// text/event-stream.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub sse_events: u32,
    /// Milliseconds between two events.
    #[arg(long, value_name = "MS", default_value_t = 20)]
    pub sse_interval: u64,
    /// Seed of all draws [default: another one each time].
    #[arg(long)]
    pub seed: Option<u64>,
}

/// How the time to work varies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Distribution {
    /// Always the mean.
    Constant,
    /// Exponential.
    Exponential,
    /// Log-normal, with the same mean.
    Lognormal,
}

/// Serves until SIGTERM or Ctrl-C, then finishes what it works on.
///
/// # Errors
/// When the port cannot be bound.
pub fn run(args: ModelArgs) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(args))
}

#[expect(clippy::print_stdout, reason = "the line tells which port the system chose")]
async fn serve(args: ModelArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = TcpListener::bind((args.address, args.port))
        .await
        .with_context(|| format!("cannot listen on {} port {}", args.address, args.port))?;
    let address = listener.local_addr()?;
    println!("model server on http://{address}");

    let tasks = Tasks::new();
    let (trigger, drain) = drain();
    let model = Arc::new(Model::new(args, address.port(), Instant::now()));
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => tasks.spawn(connection(stream, Arc::clone(&model), drain.clone())),
                // Out of descriptors, most likely: the next try must not spin.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    drop(listener);
    trigger.start(Instant::now());
    tasks.ended().await;
    Ok(())
}

async fn connection(stream: TcpStream, model: Arc<Model>, mut drain: Drain) {
    // Small pieces of a stream must not wait for each other. Failing here costs only time.
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |request| {
        let model = Arc::clone(&model);
        async move { model.answer(request).await }
    });
    let connection =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // Errors are clients that went away.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = drain.started() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

fn milliseconds(text: &str) -> Result<f64, String> {
    bounded(text, 0.0, 86_400_000.0)
}

fn share(text: &str) -> Result<f64, String> {
    bounded(text, 0.0, 1.0)
}

fn spread(text: &str) -> Result<f64, String> {
    bounded(text, 0.0, 5.0)
}

fn bounded(text: &str, least: f64, most: f64) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("must be a number from {least} to {most}"))
}

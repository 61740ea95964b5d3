//! What was typed. What it means, and whether it fits together, is decided in `plan`.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use secrecy::SecretString;

/// Lowest rate: a request in a quarter of an hour. With a lower one the first request would never seem to come.
const LOWEST_RATE: f64 = 0.001;
/// Highest rate, in requests a second: above it one thread cannot even count.
const HIGHEST_RATE: f64 = 1_000_000.0;
/// Most requests in flight: each has a connection or a stream.
const MOST_IN_FLIGHT: i64 = 100_000;
/// Longest times that may be given.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Send requests to an endpoint at a rate, and show what became of them
///
/// The loop is open: requests are sent at their times whatever the answers do, and a latency counts from the time at
/// which its request was due. Ctrl-C ends the sending and the run ends with the last answer; a second one does not wait for it.
#[derive(Clone, Debug, clap::Args)]
pub struct LoadArgs {
    /// Where to send them: http:// or https://, with the path
    pub url: SecretString,

    /// Requests a second
    #[arg(long, value_name = "R", default_value_t = 50.0, allow_negative_numbers = true, value_parser = rate)]
    pub rate: f64,
    /// Random gaps (a Poisson process) in place of even ones
    #[arg(long)]
    pub poisson: bool,
    /// Seed of the random gaps [default: another one each time]
    #[arg(long, value_name = "N", requires = "poisson")]
    pub seed: Option<u64>,
    /// How long to send after the warm-up, such as 500ms, 10s, 2m [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = run_time, conflicts_with = "requests")]
    pub duration: Option<Duration>,
    /// How many requests to send after the warm-up
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: Option<u64>,
    /// Time at the beginning whose requests are sent and not counted
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = warm_up)]
    pub warm_up: Duration,
    /// Requests that may be under way at once; those that are due beyond it wait, and their latency goes on counting
    #[arg(long, value_name = "N", default_value = "1024", value_parser = in_flight)]
    pub max_in_flight: NonZeroU32,
    /// Longest time from when a request is due to the last byte of its answer
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = timeout)]
    pub timeout: Duration,

    /// Key or token; several are used in turn. Without --key and --key-file: the variable SCOREGATE_KEY
    #[arg(long, value_name = "KEY")]
    pub key: Vec<SecretString>,
    /// File with keys or tokens, one a line
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Deployment to ask for by header; several are used in turn
    #[arg(long, value_name = "NAME")]
    pub deployment: Vec<String>,
    /// Header to send, as 'Name: value'; may be repeated
    #[arg(long, value_name = "HEADER")]
    pub header: Vec<SecretString>,
    /// Body to send [default: {"data": [[1, 2, 3, 4]]}]
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["data_file", "get"])]
    pub data: Option<String>,
    /// File with the body to send
    #[arg(long, value_name = "FILE", conflicts_with = "get")]
    pub data_file: Option<PathBuf>,
    /// Send GET without a body, not POST
    #[arg(long)]
    pub get: bool,
    /// Answers are server-sent events: count them and time their gaps
    #[arg(long)]
    pub stream: bool,

    /// Speak HTTP/2
    #[arg(long)]
    pub http2: bool,
    /// File with the certificates to trust (PEM), in place of the system's
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub ca: Option<PathBuf>,
    /// Trust any certificate
    #[arg(long)]
    pub insecure: bool,

    /// Form of the report [default: table on a terminal, JSON in a pipe]
    #[arg(long, value_name = "FORM")]
    pub output: Option<Output>,
}

/// Form of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For programs.
    Json,
    /// For people.
    Table,
}

fn rate(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|rate| (LOWEST_RATE..=HIGHEST_RATE).contains(rate));
    number
        .ok_or_else(|| format!("must be a number from {LOWEST_RATE} to {HIGHEST_RATE}, in requests a second"))
}

fn in_flight(text: &str) -> Result<NonZeroU32, String> {
    let number = text.parse::<i64>().ok().filter(|number| (1..=MOST_IN_FLIGHT).contains(number));
    let number = number.and_then(|number| u32::try_from(number).ok()).and_then(NonZeroU32::new);
    number.ok_or_else(|| format!("must be a whole number from 1 to {MOST_IN_FLIGHT}"))
}

fn run_time(text: &str) -> Result<Duration, String> {
    time(text, Duration::from_millis(1), DAY)
}

fn warm_up(text: &str) -> Result<Duration, String> {
    time(text, Duration::ZERO, DAY)
}

fn timeout(text: &str) -> Result<Duration, String> {
    time(text, Duration::from_millis(1), HOUR)
}

/// A number with its unit.
fn time(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "ms" => Some(0.001),
        "s" => Some(1.0),
        "m" => Some(60.0),
        "h" => Some(3_600.0),
        _ => None,
    };
    let number = number.trim().parse::<f64>().ok();
    let time = number.zip(seconds).and_then(|(number, unit)| Duration::try_from_secs_f64(number * unit).ok());
    time.filter(|time| (least..=most).contains(time)).ok_or_else(|| {
        format!(
            "must be a number with its unit (ms, s, m or h), from {least:?} to {} h",
            most.as_secs() / 3_600
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(run_time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(run_time("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(run_time("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(run_time("1h"), Ok(HOUR));
        assert_eq!(warm_up("0s"), Ok(Duration::ZERO));
        for wrong in ["", "10", "s", "-1s", "0s", "25h", "1d", "NaNs", "infs", "1 s s", "1e400s"] {
            let error = run_time(wrong).unwrap_err();
            assert!(error.contains("ms, s, m or h"), "{wrong}: {error}");
        }
    }

    #[test]
    fn rates_are_positive_numbers() {
        assert_eq!(rate("0.5"), Ok(0.5));
        for wrong in ["0", "-1", "1e-9", "NaN", "inf", "1e9", "fast", ""] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn places_are_whole_numbers() {
        assert_eq!(in_flight("7").map(NonZeroU32::get), Ok(7));
        for wrong in ["0", "-1", "1.5", "1000000", "99999999999999999999"] {
            assert!(in_flight(wrong).is_err(), "{wrong}");
        }
    }
}

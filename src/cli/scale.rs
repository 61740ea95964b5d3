//! `scoregate scale`: another number of replicas for a while, whatever load, schedules and configuration say. Exit code 0:
//! done; 1: no router, or it refused; 2: wrong arguments.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use http::{Method, StatusCode};
use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::admin::{Admin, AdminArgs, Change, printable};
use crate::core::bounds::{LONGEST, MOST, Spoken};
use crate::core::settings::Name;

/// Set the number of replicas of a deployment for a while, or its bounds
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  scoregate scale -e shop -d blue --replicas 3 --for 2h\n  \
    scoregate scale -e shop -d blue --min 2 --until 2026-12-24T18:00:00+01:00\n  scoregate scale -e shop -d blue --clear")]
pub struct ScaleArgs {
    #[command(flatten)]
    router: AdminArgs,
    /// Endpoint
    #[arg(long, short, value_parser = name)]
    endpoint: Name,
    /// Deployment
    #[arg(long, short, value_parser = name)]
    deployment: Name,
    /// Exactly this many replicas
    #[arg(long, value_name = "NUMBER", value_parser = replicas, conflicts_with_all = ["min", "max"])]
    replicas: Option<u32>,
    /// At least this many
    #[arg(long, value_name = "NUMBER", value_parser = replicas)]
    min: Option<u32>,
    /// At most this many
    #[arg(long, value_name = "NUMBER", value_parser = replicas)]
    max: Option<u32>,
    /// How long, such as 90s, 30m, 2h, 1d or 1h30m; at most 30 days
    #[arg(long = "for", value_name = "TIME", value_parser = duration, conflicts_with = "until")]
    time: Option<Duration>,
    /// Until when, with an offset, such as 2026-12-24T18:00:00+01:00
    #[arg(long, value_name = "TIME", value_parser = until)]
    until: Option<Timestamp>,
    /// Lift what was set
    #[arg(long, conflicts_with_all = ["replicas", "min", "max", "time", "until"])]
    clear: bool,
    /// Key of the admin listener [default: SCOREGATE_ADMIN_KEY, else that of the state directory]
    #[arg(long)]
    key: Option<SecretString>,
}

/// Runs the command.
///
/// # Errors
/// Nothing answers at the address, or what answers refuses.
pub fn run(args: &ScaleArgs) -> anyhow::Result<ExitCode> {
    if let Some(wrong) = wrong(args, Timestamp::now()) {
        return Err(super::azure::Usage::new(wrong).into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let router = args.router.router(args.key.as_ref())?;
    let said = runtime.block_on(ask(&router, args))?;
    writeln!(io::stdout(), "{said}")?;
    Ok(ExitCode::SUCCESS)
}

/// What has to be said as well, or otherwise.
fn wrong(args: &ScaleArgs, now: Timestamp) -> Option<&'static str> {
    let number = args.replicas.is_some() || args.min.is_some() || args.max.is_some();
    let end = args.time.is_some() || args.until.is_some();
    match (args.clear, number, end) {
        (true, ..) => None,
        (false, false, _) => Some("give a number (--replicas, --min, --max), or --clear"),
        (false, true, false) => Some("say for how long (--for 2h) or until when (--until)"),
        (false, true, true) if args.min.zip(args.max).is_some_and(|(min, max)| min > max) => {
            Some("--min must not be greater than --max")
        }
        (false, true, true) => {
            let fits = |until: &Timestamp| *until > now && *until <= now + LONGEST;
            let far = args.until.is_some_and(|until| !fits(&until));
            far.then_some("--until must lie in the next 30 days; to change the number for good, change the configuration")
        }
    }
}

async fn ask(router: &Admin, args: &ScaleArgs) -> anyhow::Result<String> {
    let (endpoint, deployment) = (&args.endpoint, &args.deployment);
    let path = format!("/endpoints/{endpoint}/deployments/{deployment}/override");
    if args.clear {
        let answer = router.call(Method::DELETE, &path, &Change::default()).await?;
        answer.json(router.place())?;
        return Ok(format!("{endpoint}/{deployment}: no operator holds the number of replicas any more"));
    }
    let body = body(args);
    let answer = router.call(Method::PUT, &path, &Change { body: Some(&body), etag: None }).await?;
    let view = answer.json(router.place())?;
    debug_assert_eq!(answer.status, StatusCode::OK);
    Ok(printable(&format!("{endpoint}/{deployment}: {}", sentence(&view))))
}

fn body(args: &ScaleArgs) -> Value {
    let mut body = json!({});
    for (key, number) in
        [("instance_count", args.replicas), ("min_instances", args.min), ("max_instances", args.max)]
    {
        if let Some(number) = number {
            body[key] = number.into();
        }
    }
    if let Some(time) = args.time {
        body["duration"] = time.as_secs().into();
    }
    if let Some(until) = args.until {
        body["until"] = until.to_string().into();
    }
    body
}

fn sentence(view: &Value) -> String {
    let left = Duration::from_secs(view["seconds_left"].as_u64().unwrap_or_default());
    let new = format!("{} (in {})", range(view), Spoken(left));
    match view.get("replaces") {
        Some(before) => format!("{new}; this replaces {}", range(before)),
        None => new,
    }
}

/// `3 replicas until …`, `at least 2 replicas until …`
fn range(view: &Value) -> String {
    let range = match (&view["min_instances"], &view["max_instances"]) {
        (min, max) if min == max => count("", min),
        (Value::Null, max) => count("at most ", max),
        (min, Value::Null) => count("at least ", min),
        (min, max) => count(&format!("{min} to "), max),
    };
    format!("{range} until {}", view["until"].as_str().unwrap_or_default())
}

fn count(before: &str, number: &Value) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{before}{number} replica{plural}")
}

fn name(text: &str) -> Result<Name, String> {
    Name::parse(text).map_err(str::to_owned)
}

fn replicas(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(0) => Err("a deployment that is asked to serve has 1 replica at least. To have none while nobody asks, set \
             `min_instances: 0` in its configuration; to send no more requests to it, change the endpoint's traffic"
            .to_owned()),
        Ok(number) if number <= MOST => Ok(number),
        _ => Err(format!("must be a whole number from 1 to {MOST}")),
    }
}

fn until(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "must be a time with its offset, such as 2026-12-24T18:00:00+01:00".to_owned())
}

/// `2h`, `1h30m`, `90s`, `2 h`; a bare number would leave its unit open.
fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::Span =
        text.parse().map_err(|_| "must be a time such as 90s, 30m, 2h or 1d".to_owned())?;
    let exact = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours());
    let time = exact.ok().and_then(|time| Duration::try_from(time).ok());
    let time = time
        .filter(|time| time.as_secs() > 0)
        .ok_or_else(|| "must be a time from 1s on, without months".to_owned())?;
    if time > LONGEST {
        let days = LONGEST.as_secs() / 86_400;
        return Err(format!(
            "must be at most {days}d; to change the number for good, change the configuration"
        ));
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        scale: ScaleArgs,
    }

    fn parse(words: &str) -> Result<ScaleArgs, clap::Error> {
        let line = format!("scale -e demo -d blue {words}");
        Line::try_parse_from(line.split_whitespace()).map(|line| line.scale)
    }

    #[test]
    fn a_number_and_an_end_are_asked_for() {
        let now: Timestamp = "2026-12-01T00:00:00Z".parse().unwrap();
        assert_eq!(wrong(&parse("--min 2 --until 2026-12-24T18:00:00+01:00").unwrap(), now), None);
        for until in ["2026-12-31T00:00:01Z", "2026-12-01T00:00:00Z"] {
            let said = wrong(&parse(&format!("--min 2 --until {until}")).unwrap(), now);
            assert!(said.is_some_and(|said| said.contains("--until")), "{until}: {said:?}");
        }
        assert_eq!(wrong(&parse("--replicas 3 --for 2h").unwrap(), now), None);
        assert_eq!(wrong(&parse("--clear").unwrap(), now), None);
        for words in ["", "--replicas 3", "--for 2h", "--min 1", "--min 3 --max 2 --for 2h"] {
            assert!(wrong(&parse(words).unwrap(), now).is_some(), "{words}");
        }
        for words in [
            "--replicas 3 --min 1 --for 2h",
            "--clear --for 2h",
            "--replicas 3 --for 2h --until 2026-01-01T00:00:00Z",
        ] {
            assert!(parse(words).is_err(), "{words}");
        }
    }

    #[test]
    fn numbers_that_cannot_be_are_answered_in_the_words_of_the_command_line() {
        for (words, says) in [
            ("--replicas 0 --for 2h", "set `min_instances: 0`"),
            ("--replicas 1001 --for 2h", "from 1 to 1000"),
            ("--min many --for 2h", "from 1 to 1000"),
            ("--replicas 3 --for 31d", "at most 30d"),
            ("--replicas 3 --until tomorrow", "a time with its offset"),
        ] {
            let error = parse(words).unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains("instance_count"), "{words}: {error}");
        }
    }

    #[test]
    fn times_have_units() {
        for (text, seconds) in
            [("90s", 90), ("30m", 1_800), ("2h", 7_200), ("1h30m", 5_400), ("30d", 2_592_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "2", "0s", "-1h", "1mo", "soon"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_sent_and_what_is_said() {
        assert_eq!(
            body(&parse("--replicas 3 --for 2h").unwrap()),
            json!({"instance_count": 3, "duration": 7200})
        );
        let until = body(&parse("--min 2 --max 4 --until 2026-12-24T18:00:00+01:00").unwrap());
        let expected = json!({"min_instances": 2, "max_instances": 4, "until": "2026-12-24T17:00:00Z"});
        assert_eq!(until, expected);
        let view = json!({"min_instances": 3, "max_instances": 3, "until": "T", "seconds_left": 7200});
        assert_eq!(sentence(&view), "3 replicas until T (in 2 h)");
        let view = json!({"max_instances": 3, "until": "T", "seconds_left": 60});
        assert_eq!(sentence(&view), "at most 3 replicas until T (in 1 min)");
        let view = json!({"min_instances": 1, "max_instances": 1, "until": "T", "seconds_left": 60,
            "replaces": {"min_instances": 2, "max_instances": 5, "until": "U"}});
        assert_eq!(sentence(&view), "1 replica until T (in 1 min); this replaces 2 to 5 replicas until U");
    }
}

//! How many instructions the real program takes for a request, from accept to access log; what the kernel does for it is not counted. Each
//! scenario runs twice under callgrind, once with three times the requests; the difference has no start and no end in it.
//! One over its limit fails the run. `README.md` here says how to run it.
//!
//! Names of scenarios as arguments run only those.

#[path = "support/counted.rs"]
mod counted;
#[path = "support/peers.rs"]
mod peers;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use counted::{Instructions, Router};
use peers::{Client, Replica, Script};
use serde_json::Value;

/// The key that requests carry.
const KEY: &str = "a-primary-key-0123456789";

/// Answers that fill caches and open connections, before the first one that counts.
const WARM_UP: usize = 20;

/// One way to use the router.
struct Scenario {
    name: &'static str,
    /// What its instructions are for.
    unit: &'static str,
    limit: u64,
    /// Units of the shorter run.
    units: usize,
    slots: u32,
    script: fn() -> Script,
    /// Calls the router for so many units.
    load: fn(&Router, &Replica, usize),
}

/// Limits are what was measured and two to five percent.
const SCENARIOS: [Scenario; 4] = [
    Scenario {
        name: "auth",
        unit: "request",
        // Target 30,000.
        limit: 56_800,
        units: 1_000,
        slots: 4,
        script: || Script { pieces: vec![answer(200)], paced: false },
        load: |router, _, requests| one_after_the_other(router, requests, 200),
    },
    Scenario {
        name: "large",
        unit: "request of 100 KB",
        limit: 56_500,
        units: 300,
        slots: 4,
        script: || Script { pieces: vec![answer(1_000)], paced: false },
        load: |router, _, requests| one_after_the_other(router, requests, 100_000),
    },
    Scenario {
        name: "stream",
        unit: "event",
        limit: 13_700,
        units: EVENTS * 50,
        slots: 4,
        script: stream,
        load: read_streams,
    },
    Scenario {
        name: "queue",
        unit: "request that waits",
        // 59,300: who waits is put in order by class and caller, and its wait is projected.
        limit: 62_200,
        units: 1_000,
        slots: 1,
        script: || Script { pieces: vec![answer(200)], paced: true },
        load: take_turns,
    },
];

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints its results")]
fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    if let Err(error) = counted::find_valgrind() {
        eprintln!("path: {error:#}");
        return ExitCode::FAILURE;
    }
    if let Some(name) = wanted.iter().find(|name| SCENARIOS.iter().all(|scenario| scenario.name != **name)) {
        eprintln!("path: no scenario is called {name}");
        return ExitCode::FAILURE;
    }
    let mut good = true;
    println!("scenario    worker  access log       sum     limit  for one");
    for scenario in &SCENARIOS {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == scenario.name) {
            continue;
        }
        match scenario.instructions() {
            Ok(instructions) => {
                let Scenario { name, limit, unit, .. } = scenario;
                let Instructions { worker, access_log } = instructions;
                let sum = worker + access_log;
                let within = sum <= *limit;
                let verdict = if within { "" } else { ": OVER ITS LIMIT" };
                println!("{name:<8} {worker:>9} {access_log:>11} {sum:>9} {limit:>9}  {unit}{verdict}");
                good &= within;
            }
            Err(error) => {
                eprintln!("path: {}: {error:#}", scenario.name);
                good = false;
            }
        }
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Scenario {
    /// Instructions for one unit.
    fn instructions(&self) -> anyhow::Result<Instructions> {
        let few = self.run(self.units)?;
        let many = self.run(3 * self.units)?;
        let one = |few: u64, many: u64| {
            let more = many.checked_sub(few).context("more requests took fewer instructions")?;
            anyhow::Ok(more / (2 * self.units as u64))
        };
        Ok(Instructions {
            worker: one(few.worker, many.worker)?,
            // The writer works by the clock, so that it may have less to do for more requests.
            access_log: one(few.access_log, many.access_log.max(few.access_log))?,
        })
    }

    fn run(&self, units: usize) -> anyhow::Result<Instructions> {
        // Kept, so that `callgrind_annotate` can tell where the instructions went.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("path");
        std::fs::create_dir_all(&folder)?;
        let name = format!("{}-{units}", self.name);
        let lines = folder.join(format!("{name}.access"));
        let _ = std::fs::remove_file(&lines);
        let replica = Replica::start((self.script)());
        let router = Router::start(&folder, &name, &self.configuration(&replica, &lines))?;
        (self.load)(&router, &replica, units);
        let instructions = router.instructions()?;
        self.check(&std::fs::read_to_string(lines)?, units)?;
        Ok(instructions)
    }

    /// One worker, two deployments that share the traffic, and everything on. Probes come so seldom that they do not
    /// count; the first one does not wait.
    fn configuration(&self, replica: &Replica, lines: &Path) -> String {
        let (address, slots) = (replica.address, self.slots);
        // Those that wait must meet in one queue.
        let green = if slots == 1 { 0 } else { 10 };
        let deployment = |name: &str| {
            format!(
                "
      - name: {name}
        replicas: [\"http://{address}\"]
        request_settings:
          {{ max_concurrent_requests_per_instance: {slots}, max_queue_wait_ms: 60000, request_timeout_ms: 60000 }}
        readiness_probe: {{ initial_delay: 0, period: 3600, timeout: 60 }}
        liveness_probe: {{ initial_delay: 0, period: 3600, timeout: 60 }}"
            )
        };
        format!(
            "listen: {{ address: \"127.0.0.1:0\", workers: 1 }}
admin: {{ address: \"127.0.0.1:0\" }}
access_log: \"file:{}\"
endpoints:
  - name: demo
    keys: {{ primary: {KEY}, secondary: another-key-0123456789 }}
    traffic: {{ green: {green} }}
    default: blue
    deployments:{}{}
",
            lines.display(),
            deployment("blue"),
            deployment("green"),
        )
    }

    /// That the router did what was to be measured.
    fn check(&self, lines: &str, units: usize) -> anyhow::Result<()> {
        let per_request = if self.unit == "event" { EVENTS } else { 1 };
        ensure!(
            lines.lines().count() == WARM_UP + units / per_request,
            "the access log has {} lines",
            lines.lines().count()
        );
        if self.slots == 1 {
            let waited = |line: &&str| {
                // Ten times what the look for a free slot takes, and a tenth of what the other request does.
                serde_json::from_str(line).is_ok_and(|line: Value| line["QueueMs"].as_f64() > Some(0.02))
            };
            let waited = lines.lines().filter(waited).count();
            ensure!(waited + 1 >= WARM_UP + units, "only {waited} of {units} requests waited in the queue");
        }
        Ok(())
    }
}

/// Events of one stream.
const EVENTS: usize = 20;

fn request(body: usize) -> Vec<u8> {
    let mut request = format!(
        "POST /api/v1/endpoint/demo/score HTTP/1.1\r\n\
         Host: scoring.example.com\r\n\
         User-Agent: python-requests/2.32.3\r\n\
         Accept-Encoding: gzip, deflate\r\n\
         Accept: */*\r\n\
         Connection: keep-alive\r\n\
         Content-Type: application/json\r\n\
         Authorization: Bearer {KEY}\r\n\
         Content-Length: {body}\r\n\r\n"
    )
    .into_bytes();
    request.resize(request.len() + body, b'x');
    request
}

fn answer(body: usize) -> Vec<u8> {
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\n\
         Server: gunicorn\r\n\
         Date: Sat, 21 Nov 2026 08:00:00 GMT\r\n\
         Connection: keep-alive\r\n\
         Content-Type: application/json\r\n\
         Content-Length: {body}\r\n\r\n"
    )
    .into_bytes();
    answer.resize(answer.len() + body, b'y');
    answer
}

/// The head, each event, and the end: a word is waited for before each.
fn stream() -> Script {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let event = format!("data: {{\"token\":\"{}\"}}\n\n", "z".repeat(40));
    let chunk = format!("{:x}\r\n{event}\r\n", event.len());
    let mut pieces = vec![head.as_bytes().to_vec()];
    pieces.extend(std::iter::repeat_n(chunk.into_bytes(), EVENTS));
    pieces.push(b"0\r\n\r\n".to_vec());
    Script { pieces, paced: true }
}

/// One client, one connection; both deployments have answered before the first one that counts.
fn one_after_the_other(router: &Router, requests: usize, body: usize) {
    let request = request(body);
    let mut client = Client::connect(router.address);
    for _ in 0..WARM_UP + requests {
        client.send(&request);
        client.answer();
    }
}

/// Like a client that reads tokens as they come.
fn read_streams(router: &Router, replica: &Replica, events: usize) {
    let request = request(200);
    let mut client = Client::connect(router.address);
    for _ in 0..WARM_UP + events / EVENTS {
        client.send(&request);
        replica.wait_for_request();
        replica.go();
        client.head();
        for _ in 0..EVENTS {
            replica.go();
            assert!(client.chunk());
        }
        replica.go();
        assert!(!client.chunk());
    }
}

/// Two clients and one slot: whenever one is served, the other one's next request already waits in the queue.
fn take_turns(router: &Router, replica: &Replica, requests: usize) {
    let request = request(200);
    let (mut served, mut waiting) = (Client::connect(router.address), Client::connect(router.address));
    served.send(&request);
    replica.wait_for_request();
    for turn in 1..=WARM_UP + requests {
        let another = turn < WARM_UP + requests;
        if another {
            waiting.send(&request);
        }
        replica.go();
        served.answer();
        if another {
            replica.wait_for_request();
        }
        std::mem::swap(&mut served, &mut waiting);
    }
}

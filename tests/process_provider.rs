//! The process provider with real processes: started, watched, restarted, ended, and no orphan in any case.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use scoregate::core::admission::ReplicaId;
use scoregate::core::settings::{Name, ProcessSettings};
use scoregate::provider::process::{Launcher, LogTail, Process};
use scoregate::provider::{Phase, Provider, Replica, ReplicaSet, Wanted};
use scoregate::shutdown::Tasks;
use tempfile::TempDir;
use tokio::sync::watch;

/// Longest time that a condition may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn settings(script: &str) -> ProcessSettings {
    ProcessSettings {
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        directory: None,
        environment: BTreeMap::new(),
        ports: (21_000, 21_199),
        start_timeout: Duration::from_secs(60),
        stop_timeout: Duration::from_secs(10),
    }
}

/// A provider at work, and a folder for its replicas to write to.
struct Running {
    settings: watch::Sender<ProcessSettings>,
    wanted: watch::Sender<Wanted>,
    replicas: watch::Receiver<ReplicaSet>,
    tasks: Tasks,
    folder: TempDir,
}

impl Running {
    fn start(mut settings: ProcessSettings, replicas: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        settings.directory.get_or_insert_with(|| folder.path().to_owned());
        let (settings, on_settings) = watch::channel(settings);
        let (wanted, on_wanted) = watch::channel(Wanted { replicas, ..Wanted::default() });
        let (publish, set) = watch::channel(ReplicaSet::new());
        let tasks = Tasks::new();
        let launcher = Launcher::new(PathBuf::from(env!("CARGO_BIN_EXE_scoregate")));
        let name = Name::parse("blue").unwrap();
        tasks.spawn(Process::new(name, on_settings, launcher, LogTail::default()).run(on_wanted, publish));
        Self { settings, wanted, replicas: set, tasks, folder }
    }

    async fn until(&mut self, condition: impl FnMut(&ReplicaSet) -> bool) -> ReplicaSet {
        let waiting = self.replicas.wait_for(condition);
        tokio::time::timeout(PATIENCE, waiting).await.expect("in time").unwrap().clone()
    }

    /// What a replica wrote into a file, once the line is complete.
    async fn file(&self, name: &str) -> String {
        file(&self.folder.path().join(name)).await
    }

    async fn pid(&self, name: &str) -> Pid {
        pid(&self.file(name).await)
    }

    fn want(&self, replicas: u32, remove: &[ReplicaId]) {
        self.wanted.send_replace(Wanted { replicas, remove: remove.iter().copied().collect() });
    }

    /// Ends the provider as the end of scoregate does.
    async fn end(self) {
        drop(self.wanted);
        tokio::time::timeout(PATIENCE, self.tasks.ended()).await.expect("ends in time");
        assert!(self.replicas.borrow().is_empty());
    }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("in vain: {what}"));
}

async fn file(path: &Path) -> String {
    let mut text = String::new();
    until(&path.display().to_string(), || {
        text = std::fs::read_to_string(path).unwrap_or_default();
        text.ends_with('\n')
    })
    .await;
    text.trim_end().to_owned()
}

fn pid(text: &str) -> Pid {
    Pid::from_raw(text.parse().unwrap()).unwrap()
}

/// Whether a process runs; one that has ended and waits to be reaped does not.
fn runs(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

async fn gone(pid: Pid) {
    until("the process ends", || !runs(pid)).await;
}

fn failure(set: &ReplicaSet) -> Option<&str> {
    set.iter().find_map(|replica| match &replica.phase {
        Phase::Failed(reason) => Some(reason.as_str()),
        Phase::Running | Phase::Stopping => None,
    })
}

fn running(set: &ReplicaSet) -> Vec<&Replica> {
    set.iter().filter(|replica| replica.phase == Phase::Running).collect()
}

/// A worker in the background, as of gunicorn; both pids are written.
const FORKS: &str = "sleep 1000 & echo $! > worker; echo $$ > main; wait";
/// The same, with last words at SIGTERM.
const POLITE: &str = "trap 'echo bye > bye; exit' TERM; sleep 1000 & echo $! > worker; echo $$ > main; wait";
/// The same, deaf to SIGTERM.
const DEAF: &str =
    "trap '' TERM; sleep 1000 & echo $! > worker; echo $$ > main; while :; do wait; sleep 1; done";
/// The same; the worker leaves the process group and its parent, as daemons do.
const DAEMON: &str = "setsid sh -c 'trap \"\" TERM; echo $$ > worker; sleep 1000; :' & \
                      until test -s worker; do sleep 0.01; done; echo $$ > main; wait";

#[tokio::test]
async fn port_and_name_are_filled_in() {
    let mut settings = settings("echo $PORT {port} {replica} $OWN > out; exec sleep 1000");
    settings.environment.insert("OWN".into(), "at-{port}".into());
    let mut run = Running::start(settings, 1);
    let set = run.until(|set| set.len() == 1).await;
    let port = set[0].authority.port;
    assert!((21_000..=21_199).contains(&port));
    assert_eq!(&*set[0].name, "blue-1");
    assert_eq!(run.file("out").await, format!("{port} {port} blue-1 at-{port}"));
    run.end().await;
}

#[tokio::test]
async fn a_removed_replica_ends_with_its_workers_and_another_takes_its_place() {
    let mut run = Running::start(settings(POLITE), 1);
    let (main, worker) = (run.pid("main").await, run.pid("worker").await);
    let first = run.until(|set| set.len() == 1).await[0].id;
    run.want(1, &[first]);
    let set = run.until(|set| set.len() == 1 && set[0].id != first).await;
    assert_eq!(&*set[0].name, "blue-2");
    assert!(!runs(main) && !runs(worker), "gone before the set says so");
    assert_eq!(run.file("bye").await, "bye");
    run.end().await;
}

#[tokio::test]
async fn all_end_at_the_same_time_when_nobody_wants_any() {
    let mut settings = settings("trap '' TERM; echo $$ > {replica}; while :; do sleep 1; done");
    settings.stop_timeout = Duration::from_secs(2);
    let run = Running::start(settings, 3);
    let pids = [run.pid("blue-1").await, run.pid("blue-2").await, run.pid("blue-3").await];
    let begin = std::time::Instant::now();
    run.end().await;
    assert!(!pids.into_iter().any(runs));
    let took = begin.elapsed();
    assert!(took >= Duration::from_secs(2), "SIGKILL comes after the stop timeout, not before: {took:?}");
    assert!(took < Duration::from_secs(6), "one after the other would take six: {took:?}");
}

#[tokio::test]
async fn a_replica_that_dies_is_failed_with_the_reason_and_comes_back() {
    // It fails until the test has seen that: a failure that is over may be missed on a busy machine.
    let script = "if test -e mended; then echo up > third; exec sleep 1000; fi; echo 'no model' >&2; exit 3";
    let mut run = Running::start(settings(script), 1);
    let set = run.until(|set| failure(set).is_some()).await;
    assert_eq!(failure(&set), Some("exit code 3; last line on stderr: no model"));
    std::fs::write(run.folder.path().join("mended"), "").unwrap();
    assert_eq!(run.file("third").await, "up");
    let set = run.until(|set| running(set).len() == 1 && set.len() == 1).await;
    assert_ne!(&*set[0].name, "blue-1", "another replica, with another name");
    run.end().await;
}

#[tokio::test]
async fn a_signal_is_named_and_workers_of_the_dead_are_ended() {
    let mut run = Running::start(settings(FORKS), 1);
    let (main, worker) = (run.pid("main").await, run.pid("worker").await);
    kill_process(main, Signal::KILL).unwrap();
    let set = run.until(|set| failure(set).is_some()).await;
    assert_eq!(failure(&set), Some("killed by signal 9"));
    assert!(!runs(worker));
    run.end().await;
}

#[tokio::test]
async fn a_command_or_directory_that_does_not_exist_is_named() {
    let mut missing = settings("");
    missing.command = vec!["/no/such/program".into()];
    let mut run = Running::start(missing, 1);
    let set = run.until(|set| failure(set).is_some()).await;
    let reason = failure(&set).unwrap();
    assert!(reason.contains("cannot start /no/such/program: No such file or directory"), "{reason}");
    run.end().await;

    let mut nowhere = settings("");
    nowhere.directory = Some("/no/such/folder".into());
    let mut run = Running::start(nowhere, 1);
    let set = run.until(|set| failure(set).is_some()).await;
    assert!(failure(&set).unwrap().contains("working directory /no/such/folder does not exist"));
    run.end().await;
}

#[tokio::test]
async fn other_settings_outdate_what_runs_and_start_anew() {
    let mut run = Running::start(settings("exec sleep 1000"), 1);
    let old = run.until(|set| set.len() == 1).await[0].id;
    run.settings.send_modify(|settings| settings.command = vec!["sleep".into(), "1001".into()]);
    let set = run.until(|set| set.len() == 2).await;
    assert!(set[0].outdated && set[0].id == old && !set[1].outdated);
    run.want(1, &[old]);
    run.until(|set| set.len() == 1).await;
    run.end().await;
}

#[tokio::test]
async fn a_port_that_is_taken_between_choice_and_start_is_changed_without_a_pause() {
    // Takes the port as another program would, in the way of the real server: it exits when it cannot bind.
    let bind = "import socket, time, os\ns = socket.socket()\ns.bind(('127.0.0.1', PORT))\ns.listen()\n";
    let script = format!(
        "p=$PORT; if mkdir first 2>/dev/null; then \
         setsid --fork python3 -c \"PORT = $p\n{bind}open('other', 'w').write(f'{{os.getpid()}}\\n')\ntime.sleep(1000)\" \
         </dev/null >/dev/null 2>&1; until test -s other; do sleep 0.01; done; kill -9 $PPID; \
         fi; echo $p > got; exec sleep 1000"
    );
    let mut run = Running::start(settings(&script), 1);
    let first = run.until(|set| set.len() == 1).await[0].authority.port;
    let other = run.pid("other").await;
    let set = run.until(|set| failure(set).is_some() || &*set[0].name == "blue-2").await;
    assert_eq!(failure(&set), None, "a pause");
    let second = set.last().unwrap().authority.port;
    assert_ne!(first, second);
    assert!(runs(other), "the other program is not ours to end");
    kill_process(other, Signal::KILL).unwrap();
    run.end().await;
}

#[tokio::test]
async fn no_free_port_is_said() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let mut run = Running::start(ProcessSettings { ports: (port, port), ..settings("sleep 1000") }, 1);
    let set = run.until(|set| failure(set).is_some()).await;
    assert!(failure(&set).unwrap().starts_with(&format!("no free port from {port} to {port}")));
    run.end().await;
}

#[tokio::test]
async fn a_chatty_replica_is_not_blocked() {
    let script = "head -c 30000000 /dev/zero | tr '\\0' 'x'; yes | head -n 300000; \
                  echo done > out; exec sleep 1000";
    let run = Running::start(settings(script), 1);
    assert_eq!(run.file("out").await, "done");
    run.end().await;
}

/// A process that starts a replica as scoregate does, and nothing else: this test's program itself, which is then
/// killed like scoregate would be.
const HOST: &str = "PROVIDER_TEST_HOST";

/// Not a test of its own: the part that is run in the process to be killed.
#[tokio::test]
async fn host() {
    let Some(folder) = std::env::var_os(HOST) else { return };
    let folder = PathBuf::from(folder);
    let script = std::fs::read_to_string(folder.join("script")).unwrap();
    let settings = ProcessSettings {
        directory: Some(folder),
        stop_timeout: Duration::from_millis(500),
        ..settings(&script)
    };
    let _run = Running::start(settings, 1);
    std::future::pending::<()>().await;
}

async fn killed_host(script: &str, kill_keeper: bool) {
    let folder = tempfile::tempdir().unwrap();
    let script = format!("echo \"own:$SCOREGATE_SECRET\" > own; {script}");
    std::fs::write(folder.path().join("script"), script).unwrap();
    let mut host = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "host", "--nocapture"])
        .env(HOST, folder.path())
        .env("SCOREGATE_SECRET", "seen")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let main = pid(&file(&folder.path().join("main")).await);
    let worker = pid(&file(&folder.path().join("worker")).await);
    let parent = std::fs::read_to_string(format!("/proc/{main}/stat")).unwrap();
    let keeper = pid(parent.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(1).unwrap());
    let name = std::fs::read_to_string(format!("/proc/{keeper}/comm")).unwrap();
    assert_eq!(name.trim(), "replica-keeper");
    assert_eq!(file(&folder.path().join("own")).await, "own:", "settings of scoregate are not passed on");

    host.kill().unwrap();
    host.wait().unwrap();
    if kill_keeper {
        kill_process(keeper, Signal::KILL).unwrap();
        gone(main).await;
        // Only the command itself is sure to end then; a server ends its workers, a shell does not.
        let _ = kill_process(worker, Signal::KILL);
        return;
    }
    gone(main).await;
    gone(worker).await;
    gone(keeper).await;
}

#[tokio::test]
async fn nothing_is_left_of_a_plain_replica_when_scoregate_is_killed() {
    killed_host("echo $$ > worker; echo $$ > main; exec sleep 1000", false).await;
}

#[tokio::test]
async fn nothing_is_left_of_a_replica_with_workers_when_scoregate_is_killed() {
    killed_host(FORKS, false).await;
}

#[tokio::test]
async fn nothing_is_left_of_a_deaf_replica_when_scoregate_is_killed() {
    killed_host(DEAF, false).await;
}

#[tokio::test]
async fn nothing_is_left_of_a_daemon_when_scoregate_is_killed() {
    killed_host(DAEMON, false).await;
}

#[tokio::test]
async fn the_command_ends_even_when_its_keeper_is_killed_too() {
    killed_host(FORKS, true).await;
}

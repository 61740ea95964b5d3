//! What operators have asked for a while: other bounds for the replicas of a deployment, until a time.
//!
//! Kept by name, so that a reload changes nothing, and where there is a state directory in a file of it, so that a restart
//! does not either. What it means for the number is decided in `core::bounds`; here it is only kept.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::watch;

use crate::core::bounds::Override;
use crate::core::settings::Name;

/// Where they are kept in the state directory.
const FILE: &str = "overrides.json";

/// The overrides of all deployments, by endpoint and deployment; a handle.
#[derive(Clone, Debug, Default)]
pub struct Overrides(Arc<Inner>);

/// Endpoint and deployment.
type Key = (Name, Name);
type Holds = BTreeMap<Key, watch::Sender<Option<Override>>>;
/// What holds for one deployment; one of the same name that comes later has another.
type Followed = watch::Receiver<Option<Override>>;

/// Why an override does not hold.
#[derive(Debug, Error)]
pub enum NotKept {
    /// The disk.
    #[error("the override cannot be written down: {0}")]
    Disk(#[from] io::Error),
    /// Its deployment went while it was written.
    #[error("the deployment has been removed meanwhile")]
    Gone,
}

#[derive(Debug, Default)]
struct Inner {
    holds: Mutex<Holds>,
    file: Option<PathBuf>,
    /// Held while the file is written, which takes its time; whoever reads does not wait for it.
    writing: Mutex<()>,
}

/// As it is in the file.
#[derive(Serialize, Deserialize)]
struct Entry {
    endpoint: String,
    deployment: String,
    #[serde(flatten)]
    hold: Override,
}

impl Entry {
    /// Whose it is, if it is one that somebody can have set.
    fn key(&self) -> Option<(Name, Name)> {
        let key = (Name::parse(&self.endpoint).ok()?, Name::parse(&self.deployment).ok()?);
        self.hold.is_possible().then_some(key)
    }
}

impl Overrides {
    /// With what is kept in a state directory. A file that cannot be understood is told, set aside and begun anew: it holds
    /// nothing that a router could not start without.
    pub fn open(folder: &Path) -> Self {
        let file = folder.join(FILE);
        let holds = Mutex::new(read(&file));
        Self(Arc::new(Inner { holds, file: Some(file), writing: Mutex::default() }))
    }

    /// What holds for a deployment, from now on and whenever it changes; whether it still holds is for the reader to see.
    pub fn follow(&self, endpoint: &Name, deployment: &Name) -> Followed {
        let key = (endpoint.clone(), deployment.clone());
        self.holds().entry(key).or_insert_with(|| watch::channel(None).0).subscribe()
    }

    /// What holds for a deployment now.
    pub fn get(&self, endpoint: &Name, deployment: &Name, now: Timestamp) -> Option<Override> {
        let holds = self.holds();
        let sender = holds.get(&(endpoint.clone(), deployment.clone()))?;
        let hold = *sender.borrow();
        hold.filter(|hold| hold.holds(now))
    }

    /// Other bounds for a deployment, or `None` to lift them; what was set before, which may be over. First written down,
    /// then in force; a disk may take its time.
    ///
    /// # Errors
    /// It cannot be written down, or the deployment has gone meanwhile; then nothing has changed.
    pub fn set(
        &self,
        endpoint: &Name,
        deployment: &Name,
        hold: Option<Override>,
    ) -> Result<Option<Override>, NotKept> {
        self.set_for(&self.follow(endpoint, deployment), &(endpoint.clone(), deployment.clone()), hold)
    }

    /// For the deployment that this receiver follows: it can go while the file is written, and come again.
    fn set_for(
        &self,
        meant: &Followed,
        key: &Key,
        hold: Option<Override>,
    ) -> Result<Option<Override>, NotKept> {
        let _turn = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(Some((key, hold)))?;
        {
            let holds = self.holds();
            if let Some(sender) = holds.get(key).filter(|sender| sender.subscribe().same_channel(meant)) {
                return Ok(sender.send_replace(hold));
            }
        }
        // Nobody else takes it out of the file again: when the deployment went, it may have had none.
        self.write(None)?;
        Err(NotKept::Gone)
    }

    /// The same on a thread that may wait for a disk. Whose it is is settled at once.
    ///
    /// # Errors
    /// It cannot be written down, or the deployment has gone meanwhile; then nothing has changed.
    pub async fn keep(
        &self,
        endpoint: &Name,
        deployment: &Name,
        hold: Option<Override>,
    ) -> Result<Option<Override>, NotKept> {
        let (this, key) = (self.clone(), (endpoint.clone(), deployment.clone()));
        let meant = self.follow(endpoint, deployment);
        let set = tokio::task::spawn_blocking(move || this.set_for(&meant, &key, hold));
        set.await.map_err(io::Error::other)?
    }

    /// A deployment is gone for good: one with the same name begins without. That holds at once; what is returned is to be
    /// run, and removes it from the file.
    pub fn forget(
        &self,
        endpoint: &Name,
        deployment: &Name,
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        let key = (endpoint.clone(), deployment.clone());
        let held = self.holds().remove(&key).and_then(|sender| sender.send_replace(None));
        held.map(|_| {
            let this = self.clone();
            async move {
                let all = tokio::task::spawn_blocking(move || {
                    let _turn = this.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
                    this.write(None)
                });
                if let Err(error) = all.await.map_err(io::Error::other).flatten() {
                    let (endpoint, deployment) = key;
                    tracing::warn!(%endpoint, %deployment, "an override is not removed from its file: {error}");
                }
            }
        })
    }

    /// All that hold, and what is about to.
    fn write(&self, changed: Option<(&Key, Option<Override>)>) -> io::Result<()> {
        let Some(file) = &self.0.file else { return Ok(()) };
        let entries = entries(&self.holds(), changed);
        write(file, &entries)
    }

    fn holds(&self) -> MutexGuard<'_, Holds> {
        // Every change is one insert or removal.
        self.0.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All that hold, with this one changed.
fn entries(holds: &Holds, changed: Option<(&Key, Option<Override>)>) -> Vec<Entry> {
    let others = holds.iter().filter(|(key, _)| changed.is_none_or(|(changed, _)| changed != *key));
    let others = others.filter_map(|(key, sender)| Some((key, (*sender.borrow())?)));
    let now = Timestamp::now();
    let new = changed.and_then(|(key, to)| Some((key, to?)));
    let all = others.chain(new).filter(|(_, hold)| hold.holds(now));
    let entry = |((endpoint, deployment), hold): (&(Name, Name), Override)| Entry {
        endpoint: endpoint.to_string(),
        deployment: deployment.to_string(),
        hold,
    };
    all.map(entry).collect()
}

/// What the file says. Whatever of it is forgotten is told, and is still in a file beside it.
fn read(file: &Path) -> Holds {
    let read = fs::read(file).and_then(|text| Ok(serde_json::from_slice::<Vec<Entry>>(&text)?));
    let entries = match read {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Holds::new(),
        Err(error) => {
            let place = file.display();
            let aside = set_aside(file);
            tracing::warn!("overrides are forgotten, {place} cannot be understood: {error}; {aside}");
            return Holds::new();
        }
    };
    let (good, bad): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.key().is_some());
    let aside = if bad.is_empty() { String::new() } else { set_aside(file) };
    for Entry { endpoint, deployment, .. } in bad {
        tracing::warn!(
            "an override of {endpoint:?}/{deployment:?} is forgotten: it has impossible numbers or names; {aside}"
        );
    }
    good.into_iter().filter_map(|entry| Some((entry.key()?, watch::channel(Some(entry.hold)).0))).collect()
}

/// Keeps a copy of the file, which the next change would overwrite, and says where.
fn set_aside(file: &Path) -> String {
    let aside = file.with_extension("json.bad");
    match fs::copy(file, &aside) {
        Ok(_) => format!("a copy is kept as {}", aside.display()),
        // What cannot be read may still be moved.
        Err(_) if fs::rename(file, &aside).is_ok() => format!("it is moved to {}", aside.display()),
        Err(error) => format!("no copy can be kept of it: {error}"),
    }
}

/// After a crash the file has the old content or the new one.
fn write(file: &Path, entries: &[Entry]) -> io::Result<()> {
    let staged = file.with_extension("json.scoregate-new");
    let folder = file.parent().unwrap_or_else(|| Path::new("."));
    let _ = fs::remove_file(&staged);
    let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged)?;
    new.write_all(&serde_json::to_vec_pretty(entries)?)?;
    new.sync_all()?;
    fs::rename(&staged, file)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn three(hours: i64) -> Override {
        let until = Timestamp::now() + jiff::SignedDuration::from_hours(hours);
        Override { min: Some(3), max: Some(3), until }
    }

    #[test]
    fn what_an_operator_said_is_there_after_a_restart_until_it_ends_or_is_lifted() {
        let folder = tempfile::tempdir().unwrap();
        let (demo, blue, green) = (name("demo"), name("blue"), name("green"));
        let before = Overrides::open(folder.path());
        let hold = three(2);
        before.set(&demo, &blue, Some(hold)).unwrap();
        before.set(&demo, &green, Some(three(-1))).unwrap();
        let after = Overrides::open(folder.path());
        let now = Timestamp::now();
        assert_eq!(after.get(&demo, &blue, now), Some(hold));
        assert_eq!(*after.follow(&demo, &blue).borrow(), Some(hold));
        assert_eq!(after.get(&demo, &blue, hold.until), None);
        assert_eq!(after.get(&demo, &green, Timestamp::MIN), None, "what is over is not kept");
        after.set(&demo, &blue, None).unwrap();
        assert_eq!(Overrides::open(folder.path()).get(&demo, &blue, now), None);
    }

    #[test]
    fn impossible_numbers_in_the_file_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let entry = |deployment: &str, min: u32, max: u32| {
            format!(
                r#"{{"endpoint":"demo","deployment":"{deployment}","min":{min},"max":{max},"until":"2999-01-01T00:00:00Z"}}"#
            )
        };
        let all =
            [entry("blue", 99_999, 99_999), entry("green", 3, 2), entry("black", 0, 1), entry("white", 2, 3)];
        fs::write(folder.path().join(FILE), format!("[{}]", all.join(","))).unwrap();
        let overrides = Overrides::open(folder.path());
        let held = |deployment| overrides.get(&name("demo"), &name(deployment), Timestamp::now()).is_some();
        assert_eq!(["blue", "green", "black", "white"].map(held), [false, false, false, true]);
        let aside = fs::read_to_string(folder.path().join("overrides.json.bad")).unwrap();
        assert!(aside.contains("99999"), "what is forgotten can be looked up");
    }

    /// A disk that writes for as long as nobody sends to it.
    fn busy_disk(overrides: &Overrides) -> (std::sync::mpsc::Sender<()>, tokio::task::JoinHandle<()>) {
        let (begun, slow) = std::sync::mpsc::channel();
        let (end, ends) = std::sync::mpsc::channel::<()>();
        let writer = overrides.clone();
        let disk = tokio::task::spawn_blocking(move || {
            let _turn = writer.0.writing.lock().unwrap();
            begun.send(()).unwrap();
            ends.recv().unwrap();
        });
        slow.recv().unwrap();
        (end, disk)
    }

    #[tokio::test]
    async fn a_disk_that_takes_its_time_keeps_nobody_from_reading() {
        let folder = tempfile::tempdir().unwrap();
        let overrides = Overrides::open(folder.path());
        let (demo, blue) = (name("demo"), name("blue"));
        let (end, disk) = busy_disk(&overrides);
        let mut set = Box::pin(overrides.keep(&demo, &blue, Some(three(2))));
        let soon = tokio::time::timeout(std::time::Duration::from_millis(20), &mut set).await;
        assert!(soon.is_err(), "not before it is written down");
        assert_eq!(*overrides.follow(&demo, &blue).borrow(), None);
        end.send(()).unwrap();
        set.await.unwrap();
        disk.await.unwrap();
        assert!(Overrides::open(folder.path()).get(&demo, &blue, Timestamp::now()).is_some());
    }

    #[tokio::test]
    async fn an_override_that_is_being_written_when_its_deployment_goes_is_gone_too() {
        for comes_again in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let overrides = Overrides::open(folder.path());
            let (demo, blue) = (name("demo"), name("blue"));
            let (end, disk) = busy_disk(&overrides);
            let mut set = Box::pin(overrides.keep(&demo, &blue, Some(three(2))));
            let waits = std::future::poll_fn(|cx| Poll::Ready(set.as_mut().poll(cx).is_pending())).await;
            assert!(waits, "for the disk");
            assert!(overrides.forget(&demo, &blue).is_none(), "nothing held yet");
            let successor = comes_again.then(|| overrides.follow(&demo, &blue));
            end.send(()).unwrap();
            assert!(matches!(set.await, Err(NotKept::Gone)));
            disk.await.unwrap();
            let now = Timestamp::now();
            assert_eq!(overrides.get(&demo, &blue, now), None);
            assert!(successor.is_none_or(|successor| successor.borrow().is_none()));
            assert_eq!(Overrides::open(folder.path()).get(&demo, &blue, now), None);
        }
    }

    #[tokio::test]
    async fn a_deployment_that_is_gone_takes_its_override_along() {
        let folder = tempfile::tempdir().unwrap();
        let overrides = Overrides::open(folder.path());
        let (demo, blue) = (name("demo"), name("blue"));
        overrides.set(&demo, &blue, Some(three(2))).unwrap();
        overrides.forget(&demo, &blue).expect("there was one").await;
        assert!(overrides.forget(&demo, &blue).is_none());
        assert_eq!(*overrides.follow(&demo, &blue).borrow(), None);
        assert_eq!(*Overrides::open(folder.path()).follow(&demo, &blue).borrow(), None);
    }

    #[test]
    fn what_cannot_be_written_down_does_not_hold_and_a_broken_file_keeps_nobody_from_starting() {
        let folder = tempfile::tempdir().unwrap();
        let (demo, blue) = (name("demo"), name("blue"));
        let overrides = Overrides::open(&folder.path().join("missing"));
        assert!(overrides.set(&demo, &blue, Some(three(2))).is_err());
        assert_eq!(overrides.get(&demo, &blue, Timestamp::now()), None);
        let aside = folder.path().join("overrides.json.bad");
        for broken in [&b"[{"[..], b"\xff"] {
            fs::write(folder.path().join(FILE), broken).unwrap();
            let overrides = Overrides::open(folder.path());
            overrides.set(&demo, &blue, Some(three(2))).unwrap();
            assert!(Overrides::open(folder.path()).get(&demo, &blue, Timestamp::now()).is_some());
            assert_eq!(fs::read(&aside).unwrap(), broken, "what was there is not lost");
        }
        // Not even a folder of that name keeps anybody from starting.
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(FILE)).unwrap();
        Overrides::open(folder.path()).set(&demo, &blue, Some(three(2))).unwrap();
    }

    #[test]
    fn who_sets_a_number_learns_what_it_replaces() {
        let (demo, blue) = (name("demo"), name("blue"));
        let overrides = Overrides::default();
        let (first, second) = (three(2), three(3));
        assert_eq!(overrides.set(&demo, &blue, Some(first)).unwrap(), None);
        assert_eq!(overrides.set(&demo, &blue, Some(second)).unwrap(), Some(first));
        assert_eq!(overrides.set(&demo, &blue, None).unwrap(), Some(second));
    }
}

//! New files are taken up, bad ones are not, and symlink swaps are seen.

use std::os::unix::fs::symlink;

use super::*;
use crate::core::settings::CertificateFiles;
use crate::data::tls::tests::{Echo, say, settings, write_pair};
use crate::shutdown::{Tasks, drain};

#[tokio::test]
async fn changed_files_are_taken_and_bad_ones_refused_once() {
    let folder = tempfile::tempdir().unwrap();
    let (files, _) = write_pair(&folder, "a", &["a.example"]);
    let tls = Arc::new(ServerTls::load(&settings([&files])).unwrap());
    let mut watch = CertificateWatch::new(Arc::clone(&tls));
    assert!(matches!(watch.look(), Look::Unchanged));
    let mut open = Echo::start(&tls).await.connect("a.example").await;

    write_pair(&folder, "a", &["b.example"]);
    assert!(matches!(watch.look(), Look::Taken));
    assert!(matches!(watch.look(), Look::Unchanged));
    assert_eq!(tls.certificates()[0].names, ["b.example"]);

    let good_key = std::fs::read(&files.key).unwrap();
    std::fs::write(&files.key, "rubbish").unwrap();
    assert!(matches!(watch.look(), Look::Refused(TlsError::NoKey { path }) if path == files.key));
    assert!(matches!(watch.look(), Look::Unchanged));
    std::fs::remove_file(&files.key).unwrap();
    assert!(matches!(watch.look(), Look::Refused(TlsError::Read { .. })));
    assert_eq!(tls.certificates()[0].names, ["b.example"]);

    std::fs::write(&files.key, good_key).unwrap();
    assert!(matches!(watch.look(), Look::Unchanged));
    write_pair(&folder, "a", &["c.example"]);
    assert!(matches!(watch.look(), Look::Taken));
    say(&mut open).await;
}

#[test]
fn a_change_between_load_and_first_look_is_not_missed() {
    let folder = tempfile::tempdir().unwrap();
    let (files, _) = write_pair(&folder, "a", &["a.example"]);
    let tls = Arc::new(ServerTls::load(&settings([&files])).unwrap());
    write_pair(&folder, "a", &["b.example"]);
    assert!(matches!(CertificateWatch::new(tls).look(), Look::Taken));
}

#[test]
fn the_links_of_a_kubernetes_volume_are_followed() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_pair(&old, "tls", &["a.example"]);
    write_pair(&new, "tls", &["b.example"]);
    let volume = tempfile::tempdir().unwrap();
    let data = volume.path().join("..data");
    symlink(old.path(), &data).unwrap();
    for file in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{file}"), volume.path().join(file)).unwrap();
    }
    let files =
        CertificateFiles { certificate: volume.path().join("tls.crt"), key: volume.path().join("tls.key") };
    let tls = Arc::new(ServerTls::load(&settings([&files])).unwrap());
    let mut watch = CertificateWatch::new(Arc::clone(&tls));
    assert!(matches!(watch.look(), Look::Unchanged));
    symlink(new.path(), volume.path().join("..next")).unwrap();
    std::fs::rename(volume.path().join("..next"), &data).unwrap();
    assert!(matches!(watch.look(), Look::Taken));
    assert_eq!(tls.certificates()[0].names, ["b.example"]);
}

#[tokio::test(start_paused = true)]
async fn the_watch_looks_each_second_and_ends_with_the_drain() {
    let folder = tempfile::tempdir().unwrap();
    let (files, _) = write_pair(&folder, "a", &["a.example"]);
    let tls = Arc::new(ServerTls::load(&settings([&files])).unwrap());
    let (trigger, listener) = drain();
    let tasks = Tasks::new();
    tasks.spawn(CertificateWatch::new(Arc::clone(&tls)).run(listener));
    tokio::time::sleep(PERIOD / 2).await;
    write_pair(&folder, "a", &["b.example"]);
    tokio::time::sleep(PERIOD).await;
    assert_eq!(tls.certificates()[0].names, ["b.example"]);
    trigger.force();
    tasks.ended().await;
}

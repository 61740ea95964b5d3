//! Files are bounded and each can be read alone; what is lost is said.

use std::path::Path;

use super::*;
use crate::observe::access::tests::record;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn settings(folder: &Path, files: u32, bytes: u64) -> RecordingSettings {
    RecordingSettings { directory: folder.to_owned(), max_file_bytes: bytes, files }
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn lines(path: &Path) -> Vec<Line<'static>> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn files_are_bounded_and_each_begins_with_what_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("made");
    let recorder = Recorder::start(&settings(&directory, 3, 10_000)).unwrap();
    recorder.settings(&name("demo"), &name("blue"), || serde_json::json!({ "profile": "aks" }));
    for _ in 0..1_000 {
        recorder.request(&record());
    }
    assert_eq!(recorder.lost(), 0);
    drop(recorder);
    let files = files(&directory);
    assert_eq!(files.len(), 3);
    let mut numbers = Vec::new();
    for path in &files {
        let lines = lines(path);
        let text = std::fs::read_to_string(path).unwrap();
        let head: usize = text.lines().take(2).map(|line| line.len() + 1).sum();
        assert!(text.len() - head <= 10_000);
        let Line::Recording { format: FORMAT_NOW, file, .. } = lines[0] else { panic!("{:?}", lines[0]) };
        numbers.push(file);
        assert!(matches!(&lines[1], Line::Settings { e, d, .. } if e == "demo" && d == "blue"));
        assert!(lines[2..].iter().all(|line| matches!(line, Line::Request(_))));
    }
    assert!(numbers.is_sorted() && numbers[0] > 3, "{numbers:?}");
}

const FORMAT_NOW: u32 = crate::core::recording::FORMAT;

#[test]
fn a_request_is_what_the_gate_saw_and_nothing_of_its_client() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(&settings(folder.path(), 1, 1 << 20)).unwrap();
    recorder.request(&record());
    let refused = Record { replica: None, reason: Some("queue_full"), ..record() };
    recorder.request(&refused);
    // It never came to a gate.
    recorder.request(&Record { route_time: Duration::ZERO, ..record() });
    drop(recorder);
    let path = &files(folder.path())[0];
    let lines = lines(path);
    assert_eq!(lines.len(), 3, "{lines:?}");
    let Line::Request(served) = &lines[1] else { panic!("{lines:?}") };
    assert_eq!((served.w, served.s, &*served.o), (2_000_000, Some(48_010_000), "ok"));
    let Line::Request(refused) = &lines[2] else { panic!("{lines:?}") };
    assert_eq!((refused.s, &*refused.o), (None, "queue_full"));
    let text = std::fs::read_to_string(path).unwrap();
    for secret in ["r-1", "primary", "sig"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[test]
fn what_is_lost_is_said_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), 1, 1 << 20);
    let recorder = Recorder::start_at(&settings, Instant::now(), SystemTime::now(), 300).unwrap();
    while recorder.lost() == 0 {
        recorder.request(&record());
    }
    let (lost, queue) = (recorder.lost(), Arc::clone(&recorder.0.as_ref().unwrap().lines.queue));
    // The next line is written after the count.
    while queue.lost() >= lost && !std::fs::read_to_string(&files(folder.path())[0]).unwrap().contains("lost")
    {
        recorder.request(&record());
        std::thread::yield_now();
    }
    let lost = recorder.lost();
    drop(recorder);
    let said = lines(&files(folder.path())[0]).into_iter().rev().find_map(|line| match line {
        Line::Lost { lines } => Some(lines),
        _ => None,
    });
    assert!(said.is_some_and(|said| said > 0 && said <= lost), "{said:?} of {lost}");
}

#[test]
fn only_files_of_recordings_are_removed_and_never_the_one_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let others = ["recording-of-monday.jsonl", "recording-1-2.jsonl", "recording-0000000001-000000.jsonl.gz"];
    // The last one is of a time when the clock went ahead.
    let old = ["recording-0000000001-000000.jsonl", "recording-9999999998-000007.jsonl"];
    for name in others.iter().chain(&old) {
        std::fs::write(folder.path().join(name), "kept").unwrap();
    }
    let recorder = Recorder::start(&settings(folder.path(), 1, 1_000)).unwrap();
    for _ in 0..100 {
        recorder.request(&record());
    }
    drop(recorder);
    let names: Vec<_> = files(folder.path())
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert!(others.iter().all(|name| names.contains(&(*name).to_owned())), "{names:?}");
    assert!(!old.iter().any(|name| names.contains(&(*name).to_owned())), "{names:?}");
    assert_eq!(names.len(), others.len() + 1, "{names:?}");
    let own = names.iter().find(|name| name.starts_with("recording-9999999999-")).unwrap();
    assert!(lines(&folder.path().join(own)).len() > 1);
}

#[test]
fn two_starts_in_one_second_do_not_take_each_others_files() {
    let folder = tempfile::tempdir().unwrap();
    let (settings, second) = (settings(folder.path(), 8, 1 << 20), SystemTime::now());
    let start = || Recorder::start_at(&settings, Instant::now(), second, QUEUE).unwrap();
    let (one, other) = (start(), start());
    one.request(&record());
    other.request(&record());
    drop((one, other));
    let files = files(folder.path());
    assert_eq!(files.len(), 2, "{files:?}");
    assert!(files.iter().all(|path| lines(path).len() == 2), "{files:?}");
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let error = Recorder::start(&settings(Path::new("/proc/nowhere"), 1, 1 << 20)).unwrap_err();
    assert!(error.to_string().contains("/proc/nowhere"), "{error}");
    assert!(!Recorder::off().is_on());
}

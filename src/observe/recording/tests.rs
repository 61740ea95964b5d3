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
        assert!(std::fs::metadata(path).unwrap().len() <= 10_000);
        let lines = lines(path);
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
fn a_folder_that_cannot_be_made_is_named() {
    let error = Recorder::start(&settings(Path::new("/proc/nowhere"), 1, 1 << 20)).unwrap_err();
    assert!(error.to_string().contains("/proc/nowhere"), "{error}");
    assert!(!Recorder::off().is_on());
}

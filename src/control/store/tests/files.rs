//! What people see of the state directory: who may read it, who may open it, and what becomes of files that they write.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use proptest::prelude::*;
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value, json};

use super::{
    assert_tidy, changed, document, endpoint, folder, holding, leaves, name, opened, sample, secrets,
};
use crate::control::store::layout::Item;
use crate::control::store::{Store, StoreError, text};
use crate::core::declared::{Declared, EndpointSecrets};

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn refused(folder: &Path) -> String {
    let before: Vec<_> = leaves(folder).iter().map(|path| fs::read(folder.join(path)).ok()).collect();
    let message = Store::open(folder).unwrap_err().to_string();
    let after: Vec<_> = leaves(folder).iter().map(|path| fs::read(folder.join(path)).ok()).collect();
    assert_eq!(before, after, "a folder that is refused must stay as it is");
    message
}

/// Writes one file of the sample anew and tells what `open` says to it, without the path of the folder.
fn told(path: &str, content: impl AsRef<[u8]>) -> String {
    let folder = holding(&sample());
    fs::create_dir_all(folder.path().join(path).parent().unwrap()).unwrap();
    fs::write(folder.path().join(path), content).unwrap();
    refused(folder.path()).replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn everything_is_private_but_the_address() {
    let outer = folder();
    let root = outer.path().join("made/here");
    let (mut store, empty) = Store::open(&root).unwrap();
    store.commit(&empty, &sample()).unwrap();
    store.admin_keys().unwrap();
    store.announce("http://127.0.0.1:8081").unwrap();
    for path in leaves(&root) {
        let expected = if path == "admin.json" { 0o644 } else { 0o600 };
        assert_eq!(mode(root.join(&path)), expected, "{path}");
    }
    for path in ["", "endpoints", "endpoints/orders", "endpoints/orders/deployments", "secrets"] {
        assert_eq!(mode(root.join(path)), 0o700, "{path}");
    }
}

#[test]
fn a_folder_with_other_things_in_it_keeps_its_mode_and_an_empty_one_becomes_private() {
    let folder = folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    drop(Store::open(folder.path()).unwrap());
    assert_eq!(mode(folder.path()), 0o755);
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    fs::set_permissions(&empty, fs::Permissions::from_mode(0o755)).unwrap();
    drop(Store::open(&empty).unwrap());
    assert_eq!(mode(&empty), 0o700);
}

#[test]
fn a_secret_that_others_can_read_becomes_private() {
    let folder = holding(&sample());
    let path = folder.path().join("secrets/orders.primary");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(opened(folder.path()), sample());
    assert_eq!(mode(path), 0o600);
}

#[test]
fn a_second_opener_is_told_who_has_it() {
    let folder = folder();
    let (store, _) = Store::open(folder.path()).unwrap();
    let message = Store::open(folder.path()).unwrap_err().to_string();
    assert!(message.contains(&format!("in use by process {}", std::process::id())), "{message}");
    assert!(message.contains(folder.path().to_str().unwrap()) && message.contains("--state"), "{message}");
    drop(store);
    assert!(Store::open(folder.path()).is_ok());
}

#[test]
fn files_say_what_is_declared_and_are_read_as_they_were_edited() {
    let folder = holding(&sample());
    let path = folder.path().join("endpoints/orders/deployments/blue.yaml");
    assert_eq!(fs::read_to_string(&path).unwrap(), "endpoint_name: orders\nname: blue\nversion: 1\n");
    assert_eq!(fs::read_to_string(folder.path().join("generation")).unwrap(), "1\n");
    assert_eq!(
        fs::read_to_string(folder.path().join("secrets/orders.primary")).unwrap(),
        "primary-key-of-orders\n"
    );
    fs::write(&path, "# by hand\nname: blue\nmodel: {path: /models/a}\n").unwrap();
    fs::write(folder.path().join("endpoints/orders/deployments/red.yaml"), "{}").unwrap();
    fs::write(folder.path().join("secrets/orders.primary"), "by hand").unwrap();
    let expected = changed(&sample(), |state| {
        let orders = state.endpoints.get_mut("orders").unwrap();
        let blue = document(json!({"name": "blue", "model": {"path": "/models/a"}}));
        orders.deployments.extend([(name("blue"), blue), (name("red"), Map::new())]);
        orders.secrets.primary = "by hand".into();
    });
    let found = opened(folder.path());
    assert_eq!(found.endpoints, expected.endpoints);
    assert_eq!(found.generation, 1);
}

#[test]
fn a_broken_file_is_refused_with_its_place_and_stays_as_it_is() {
    let blue = "endpoints/orders/deployments/blue.yaml";
    let message = told(blue, "name: blue\nmodel: [1, 2\nother: 3\n");
    assert!(message.starts_with(&format!("{blue}:")) && message.contains("not valid YAML"), "{message}");
    let message = told(blue, "name: blue\nname: blue\n");
    assert!(message.starts_with(&format!("{blue}:2: `name` is given twice; mend the file")), "{message}");
    for (content, problem) in [
        ("", "it is empty"),
        ("- a\n", "must hold `key: value` lines"),
        ("name: green\n", "`name` must be `blue`"),
        ("endpoint_name: other\n", "`endpoint_name` must be `orders`"),
        ("a: 1\n---\nb: 2\n", "more than one YAML document"),
        ("a: .nan\n", "not finite"),
        ("a: *nowhere\n", "needs an anchor"),
    ] {
        let message = told(blue, content);
        assert!(message.starts_with(blue) && message.contains(problem), "{content:?}: {message}");
    }
    assert!(told(blue, b"a: \xff\n").contains("it is not UTF-8"));
    assert!(told("generation", "many\n").starts_with("generation: it must hold one whole number; "));
    assert!(told("secrets/orders.signing", "\n").starts_with("secrets/orders.signing: it is empty; "));
    assert!(told("secrets/orders.signing", "a\nb\n").contains("it must be one line"));
}

#[test]
fn what_looks_like_a_declaration_is_never_passed_over() {
    let folder = holding(&sample());
    fs::remove_file(folder.path().join("secrets/orders.signing")).unwrap();
    let message = refused(folder.path());
    assert!(message.contains("orders.signing: it is missing, and endpoint orders needs it"), "{message}");
    assert!(told("endpoints/no_name/endpoint.yaml", "{}").contains("may hold only letters"));
    assert!(told("endpoints/flat.yaml", "{}").contains("move it to endpoints/NAME/endpoint.yaml"));
    assert!(told("endpoints/orders/endpoint.yml", "{}").contains("rename it to endpoint.yaml"));
    assert!(told("endpoints/orders/deployments/no_name.yaml", "{}").contains("may hold only letters"));
    assert!(told("endpoints/orders/deployments/red.yml", "{}").contains("ends in .yaml"));
    assert!(told("endpoints/lost/deployments/red.yaml", "{}").contains("its endpoint has no endpoint.yaml"));
}

#[test]
fn no_message_tells_a_value() {
    for content in [
        "password-one\n",
        "environment_variables: {KEY: password-one\n",
        "environment_variables:\n  KEY: !!int password-one\n",
        "environment_variables:\n  KEY: !!binary password-one\n",
        "environment_variables:\n  KEY: \"password-one\n",
        "environment_variables:\n\tKEY: password-one\n",
        "environment_variables:\n  <<: password-one\n",
        "environment_variables:\n  KEY: password-one: password-one\n",
    ] {
        let message = told("endpoints/orders/deployments/blue.yaml", content);
        assert!(!message.contains("password-one"), "{content:?}: {message}");
    }
    assert!(!format!("{:?}", sample()).contains("key-of-orders"));
    let message = told("journal.yaml", "generation: password-one\nput: []\nremove: []\n");
    assert!(message.contains("journal.yaml") && !message.contains("password-one"), "{message}");
}

#[test]
fn a_journal_cannot_lead_elsewhere() {
    for path in ["../outside", "/etc/passwd", "endpoints/../x/endpoint.yaml", "admin.key", "secrets/a.b"] {
        let text = format!("generation: 2\nput: []\nremove: ['{path}']\n");
        let message = told("journal.yaml", text);
        assert!(message.contains("names a file that scoregate does not write"), "{path}: {message}");
    }
    let message = told("journal.yaml", "generation: 9\nput: [endpoints/lost/endpoint.yaml]\nremove: []\n");
    assert!(message.contains("neither that nor an old one is there"), "{message}");
}

#[test]
fn files_of_others_are_left_alone() {
    let folder = holding(&sample());
    let others = [
        "README.md",
        ".git/config",
        "endpoints/notes.txt",
        "endpoints/.DS_Store",
        "endpoints/orders/notes.txt",
        "endpoints/orders/deployments/blue.yaml~",
        "endpoints/orders/deployments/.blue.yaml.swp",
        "secrets/other.txt",
    ];
    for path in others {
        fs::create_dir_all(folder.path().join(path).parent().unwrap()).unwrap();
        fs::write(folder.path().join(path), "mine").unwrap();
    }
    let (mut store, found) = Store::open(folder.path()).unwrap();
    assert_eq!(found, sample());
    let empty = changed(&found, |state| state.endpoints.clear());
    store.commit(&found, &empty).unwrap();
    drop(store);
    assert_eq!(opened(folder.path()), empty);
    for path in others {
        assert_eq!(fs::read_to_string(folder.path().join(path)).unwrap(), "mine", "{path}");
    }
    assert!(!folder.path().join("endpoints/other").exists(), "an empty folder was left");
}

#[test]
fn names_that_differ_in_case_only_lose_nothing() {
    let state = Declared {
        generation: 1,
        endpoints: [endpoint("orders", &["blue", "Blue"]), endpoint("ORDERS", &["blue"])].into(),
    };
    let folder = holding(&state);
    assert_eq!(opened(folder.path()), state);
}

#[test]
fn a_change_of_another_state_and_what_no_file_can_hold_are_refused() {
    let folder = holding(&sample());
    let (mut store, before) = Store::open(folder.path()).unwrap();
    let mut refuse = |before: &Declared, after: &Declared| store.commit(before, after).unwrap_err();
    let later = changed(&changed(&before, |_| {}), |_| {});
    for (from, to) in [(&before, &later), (&later, &changed(&later, |_| {})), (&before, &before)] {
        assert!(matches!(refuse(from, to), StoreError::Stale { present: 1, .. }));
    }
    for secret in ["", "two\nlines", "end\r"] {
        let after = changed(&before, |state| {
            let all = EndpointSecrets { primary: secret.into(), ..secrets("orders") };
            state.endpoints.get_mut("orders").unwrap().secrets = all;
        });
        let message = refuse(&before, &after).to_string();
        assert!(message.starts_with("cannot store secrets/orders.primary: it "), "{message}");
    }
    let after = changed(&before, |state| {
        state.endpoints.get_mut("orders").unwrap().document.insert("name".into(), "wrong".into());
    });
    let message = refuse(&before, &after).to_string();
    assert_eq!(
        message,
        "cannot store endpoints/orders/endpoint.yaml: `name` must be `orders`, as the path says"
    );
    drop(store);
    assert_eq!(opened(folder.path()), before);
    assert_tidy(folder.path(), &before);
}

#[test]
fn admin_keys_are_made_once_and_checked() {
    let folder = folder();
    let (mut store, _) = Store::open(folder.path()).unwrap();
    let made = store.admin_keys().unwrap();
    let (writer, reader) = (made.writer.expose_secret(), made.reader.expose_secret());
    assert!(writer.len() >= 32 && reader.len() >= 32 && writer != reader);
    drop(store);
    assert_eq!(fs::read_to_string(folder.path().join("admin.key")).unwrap(), format!("{writer}\n"));
    let (mut store, _) = Store::open(folder.path()).unwrap();
    assert_eq!(store.admin_keys().unwrap().writer.expose_secret(), writer);
    assert_eq!(store.admin_keys().unwrap().reader.expose_secret(), reader);
    fs::write(folder.path().join("reader.key"), "short\n").unwrap();
    let message = store.admin_keys().unwrap_err().to_string();
    assert!(message.contains("reader.key: it must hold 16 or more characters"), "{message}");
    assert!(!format!("{made:?}").contains(writer));
}

#[test]
fn the_address_is_announced_anew() {
    let folder = folder();
    let (store, _) = Store::open(folder.path()).unwrap();
    for url in ["http://127.0.0.1:8081", "http://[::1]:40001"] {
        store.announce(url).unwrap();
        let text = fs::read(folder.path().join("admin.json")).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), json!({ "url": url }));
    }
}

fn text() -> impl Strategy<Value = String> {
    let hard = [
        "",
        " ",
        "~",
        "null",
        "yes",
        "No",
        "on",
        "1e3",
        "0x10",
        "010",
        "1_000",
        "-",
        "- a",
        "a: b",
        "#c",
        "a #b",
        "'",
        "\"",
        "\\",
        "%",
        "@",
        "`",
        "<<",
        "---",
        "...",
        "? x",
        "| x",
        "> x",
        "&a",
        "*a",
        "!t",
        "[",
        "{",
        "2026-01-01",
        "12:30:45",
        ".inf",
        " lead",
        "trail ",
        "tab\t",
        "a\n",
        "\na",
        "a\n\nb\n\n",
        " a\n b",
        "\u{0}",
        "\u{7f}",
        "\u{85}",
        "\u{2028}",
        "\u{feff}",
        "\r\n",
        "😀",
        "a\rb",
        "true",
        "=",
    ];
    prop_oneof![
        prop::sample::select(hard.to_vec()).prop_map(str::to_owned),
        any::<String>(),
        "[ a\n#:'-]{0,120}"
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(text(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_document_is_read_as_it_was_written(map in prop::collection::btree_map(text(), value(), 0..5)) {
        let document: Map<String, Value> = map.into_iter().filter(|(key, _)| key != "name").collect();
        let written = text::encode(&Item::Endpoint(name("any")), &document);
        prop_assert!(written.is_ok(), "{written:?}");
        prop_assert_eq!(text::decode(&written.unwrap()), Ok(document));
    }
}

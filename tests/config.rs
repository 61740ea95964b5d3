//! The configuration file: examples work, mistakes are all found in their places, generated files are fresh, and
//! settings survive being written and read again.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;
use scoregate::config::{self, Loaded, Report};
use scoregate::core::settings::{ProviderSettings, ScaleSettings};
use serde_json::{Value, json};

#[path = "config/reference.rs"]
mod reference;

/// Every environment variable is set, to a value of its own.
fn env(name: &str) -> Option<String> {
    (!name.starts_with("UNSET")).then(|| format!("{name}-0123456789-0123456789-0123456789"))
}

fn parse(text: &str) -> Result<Loaded, Report> {
    config::parse_with("test.yaml", text, Path::new("/nowhere"), &env)
}

fn messages(text: &str) -> Vec<String> {
    parse(text)
        .unwrap_err()
        .diagnostics()
        .iter()
        .map(|d| format!("{}:{} {}", d.line, d.column, d.message))
        .collect()
}

#[test]
fn ten_mistakes_are_ten_errors_with_their_places() {
    let report = config::load(Path::new("config/broken.yaml")).unwrap_err();
    let found: Vec<_> = report.errors().map(|d| (d.line, d.column, d.message.as_str())).collect();
    let expected = [
        (2, 10, "`profile` must be one of `aks`, `aks-v1`, `managed`, not `azure`"),
        (
            4,
            12,
            "`address` must be an IP address and a port, such as `127.0.0.1:8080`, `0.0.0.0:80` or `[::]:80`, not \
             `localhost`",
        ),
        (5, 3, "unknown key `max_connection` in `listen`"),
        (7, 1, "`access_log` is given twice"),
        (9, 11, "`faq-` is not a name of an endpoint: it must not end with a hyphen"),
        (10, 22, "the key is too short: it needs 16 characters or more"),
        (11, 26, "`traffic` names `gren`, but there is no such deployment"),
        (16, 30, "`max_queue_wait_ms` must be a whole number from 0 to 31536000000, not `soon`"),
        (20, 26, "`min_instances` is 5, but `max_instances` is 3"),
        (
            23,
            20,
            "item 1 of `replicas` must be an http URL of host and port only, such as `http://127.0.0.1:5001`, not \
             `https://127.0.0.1:9001`",
        ),
    ];
    assert_eq!(found, expected, "{report}");
    let text = report.to_string();
    assert!(
        text.contains("error: unknown key `max_connection` in `listen`\n --> config/broken.yaml:5:3\n"),
        "{text}"
    );
    assert!(
        text.contains("11 |     traffic: { blue: 60, gren: 10 }\n   |                          ^^^^\n"),
        "{text}"
    );
    assert!(text.ends_with("10 errors"), "{text}");
}

#[test]
fn the_command_check_tells_by_its_exit_code() {
    let run =
        |file: &str| scoregate::cli::check::run(&scoregate::cli::check::Args { file: file.into() }).unwrap();
    assert_eq!(run("config/minimal.yaml"), std::process::ExitCode::SUCCESS);
    assert_eq!(run("config/broken.yaml"), std::process::ExitCode::FAILURE);
    assert_eq!(run("config/no-such-file.yaml"), std::process::ExitCode::FAILURE);
}

#[test]
fn the_minimal_file_means_what_it_says() {
    let loaded = config::load(Path::new("config/minimal.yaml")).unwrap();
    assert_eq!(loaded.warnings, []);
    let endpoint = &loaded.settings.endpoints[0];
    assert_eq!(endpoint.default_deployment, Some(0));
    assert_eq!(endpoint.traffic.pick(7), Some(0));
    assert_eq!(endpoint.deployments[0].scale, ScaleSettings::Manual { replicas: 1 });
    let ProviderSettings::Fixed(fixed) = &endpoint.deployments[0].provider else { panic!("fixed") };
    assert_eq!(fixed.replicas[0].to_string(), "127.0.0.1:5001");
}

#[test]
fn the_demo_is_valid_and_scales() {
    let settings = config::demo("primary-0123456789", "secondary-0123456789");
    let endpoint = &settings.endpoints[0];
    assert_eq!(endpoint.traffic.effective(0), 90.0);
    assert_eq!(endpoint.auth.keys.len(), 2);
    for deployment in &endpoint.deployments {
        let ScaleSettings::Utilization(scale) = &deployment.scale else { panic!("scales") };
        assert_eq!((scale.min, scale.max), (1, 4));
    }
}

/// A folder with everything that the example refers to.
fn example_folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("tls")).unwrap();
    std::fs::create_dir_all(dir.path().join("secrets")).unwrap();
    for name in ["scoring.pem", "scoring.key", "other.pem", "other.key"] {
        std::fs::write(dir.path().join("tls").join(name), "PEM").unwrap();
    }
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    std::fs::write(dir.path().join("secrets/digits.pem"), key.public_key_pem()).unwrap();
    std::fs::write(dir.path().join("secrets/jwks.json"), "{}").unwrap();
    std::fs::write(dir.path().join("secrets/faq-secondary"), "a-key-in-a-file-0123\n").unwrap();
    dir
}

#[test]
fn the_example_works_and_has_every_key() {
    let dir = example_folder();
    let text = std::fs::read_to_string("config/example.yaml").unwrap();
    let loaded =
        config::parse_with("example.yaml", &text, dir.path(), &env).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(loaded.warnings, []);
    let again = config::effective(&loaded.settings);
    let again = config::parse_with("again.yaml", &again, Path::new("/elsewhere"), &env);
    assert_eq!(again.unwrap_or_else(|e| panic!("{e}")).settings, loaded.settings);

    let schema = config::schema();
    let example: Value = serde_saphyr::from_str(&text).unwrap();
    let mut used = BTreeSet::new();
    keys_used(&schema, &schema, &example, "", &mut used);
    let mut known = BTreeSet::new();
    keys_known(&schema, &schema, "", &mut known);
    // `port` exists only to explain that it is not allowed.
    known.retain(|key| !key.ends_with("_route.port"));
    assert_eq!(known.difference(&used).collect::<Vec<_>>(), Vec::<&String>::new());
}

fn keys_used(root: &Value, schema: &Value, value: &Value, path: &str, used: &mut BTreeSet<String>) {
    let schema = reference::resolve(root, schema).unwrap();
    match value {
        Value::Array(items) => {
            items.iter().for_each(|item| keys_used(root, &schema["items"], item, path, used));
        }
        Value::Object(entries) if schema.get("properties").is_some() => {
            for (key, value) in entries {
                let path = format!("{path}.{key}");
                keys_used(root, &schema["properties"][key], value, &path, used);
                used.insert(path);
            }
        }
        _ => {}
    }
}

fn keys_known(root: &Value, schema: &Value, path: &str, known: &mut BTreeSet<String>) {
    let schema = reference::resolve(root, schema).unwrap();
    if let Some(items) = schema.get("items") {
        keys_known(root, items, path, known);
    }
    for (key, value) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        keys_known(root, value, &path, known);
        known.insert(path);
    }
}

#[test]
fn generated_files_are_fresh() {
    let schema = config::schema();
    let files = [
        ("config/schema.json", format!("{}\n", serde_json::to_string_pretty(&schema).unwrap())),
        ("docs/configuration.md", reference::page(&schema)),
    ];
    for (path, wanted) in files {
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::write(path, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(found == wanted, "{path} is stale; run UPDATE_SCHEMA=1 cargo test --test config");
    }
}

/// The defaults in the reference are those that hold.
#[test]
fn documented_defaults_are_the_real_ones() {
    let text = "endpoints: [{name: demo, keys: {primary: env:K}, deployments: [{name: blue, process: {command: [m]}}]}]";
    let settings = parse(text).unwrap().settings;
    let effective: Value = serde_saphyr::from_str(&config::effective(&settings)).unwrap();
    let schema = config::schema();
    let mut compared = 0;
    compare_defaults(&schema, &schema, &effective, "", &mut compared);
    assert!(compared > 30, "only {compared} defaults were compared");
}

fn compare_defaults(root: &Value, schema: &Value, value: &Value, path: &str, compared: &mut u32) {
    let schema = reference::resolve(root, schema).unwrap();
    if let Value::Array(items) = value {
        items.iter().for_each(|item| compare_defaults(root, &schema["items"], item, path, compared));
        return;
    }
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        let found = &value[key];
        // A default deployment's share is written out; nothing is allotted either way.
        if let (Some(default), false) = (property.get("default"), key == "traffic" || found.is_null()) {
            assert_eq!(found, default, "{path}");
            *compared += 1;
        }
        compare_defaults(root, property, found, &path, compared);
    }
}

#[test]
fn consequences_of_a_mistake_are_not_reported() {
    // The only deployment cannot be decoded: no word about `default`, an empty list or a missing name.
    let text = "endpoints: [{name: demo, keys: {primary: env:K}, default: blue, deployments: [blue]}]";
    assert_eq!(messages(text), ["1:79 item 1 of `deployments` must be a mapping, not `blue`"]);
    // A wrong auth_mode says nothing about keys; a wrong key nothing about its being there.
    let text = "endpoints: [{name: demo, auth_mode: kye, deployments: [{name: blue, replicas: [http://a]}]}]";
    assert_eq!(
        messages(text),
        ["1:37 `auth_mode` must be one of `key`, `jwt`, `key_or_jwt`, `none`, \
            `aml_token`, `aad_token`, not `kye`"]
    );
    let text =
        "endpoints: [{name: demo, keys: {primary: [1]}, deployments: [{name: blue, replicas: [http://a]}]}]";
    assert_eq!(messages(text).len(), 1);
    // A misspelled key is not missing as well.
    let text = "endpoints: [{nmae: demo, kyes: {primry: a}, deployments: [{name: blue, proces: {}}]}]";
    assert!(messages(text).iter().all(|message| message.contains("unknown key")), "{:?}", messages(text));
}

#[test]
fn lines_may_end_with_crlf_and_begin_with_a_byte_order_mark() {
    let report = parse("\u{feff}listen: 1\r\nendpoints: x\r\n").unwrap_err();
    assert_eq!((report.diagnostics()[0].line, report.diagnostics()[0].column), (1, 9));
    assert_eq!((report.diagnostics()[1].line, report.diagnostics()[1].column), (2, 12));
    assert!(report.to_string().contains("1 | listen: 1\n"), "{report}");
}

#[test]
fn secrets_do_not_appear_in_reports() {
    let secrets = [
        "endpoints: [{name: demo, keys: {primary: hunter2-hunter2-hunter2, secondary: hunter2-hunter2-hunter2}, x: 1}]",
        "endpoints: [{name: demo, keys: {primry: hunter2-hunter2-hunter2}}]",
        "endpoints: [{name: demo, keys: hunter2-hunter2-hunter2}]",
        "endpoints: [{name: demo, key: hunter2-hunter2-hunter2}]",
        "admin: {address: x, key: hunter2}",
        "endpoints: [{name: demo, clients: [{name: x, key: hunter2-hunter2}, {key: hunter2-hunter2-hunter2}, \
         {name: one, key: hunter2-hunter2-hunter2, secondary_key: hunter2-hunter2-hunter2, secret: hunter2}]}]",
        "admin:\n  sekret: hunter2-hunter2: x\n",
        "sekret: hunter2-hunter2\nsekret: hunter2-hunter2\n",
        "endpoints: [{name: demo, jwt: {keys: [{algorithm: HS256, secret: hunter2}, {algorithm: RS256, \
         secret: hunter2-hunter2-hunter2}, {algorithm: HS257, sekret: hunter2-hunter2-hunter2}]}}]",
        "x: &a hunter2-hunter2-hunter2\nendpoints: [{name: demo, keys: {primary: *a, secondary: *a}}]",
        "admin:\n  key: \"hunter2-hunter2-hunter2\n",
        "admin:\n  key: |\n    hunter2-hunter2\n  address: x\n\tx: hunter2",
        "admin: {key: [hunter2-hunter2-hunter2], address: 1}",
        "endpoints: [{name: demo, deployments: [{name: a, environment_variables: {TOKEN: hunter2, TOKEN: hunter2}}]}]",
    ];
    for text in secrets {
        let report = parse(text).unwrap_err();
        assert!(!report.to_string().contains("hunter2"), "{report}");
        assert!(!format!("{report:?}").contains("hunter2"), "{report:?}");
    }
    let text = "endpoints: [{name: demo, keys: {primary: hunter2-hunter2-hunter2}, clients: [{name: one, \
        key: also-hunter2-hunter2}], deployments: [{name: blue, \
        replicas: [http://a]}]}]";
    let settings = parse(text).unwrap().settings;
    let effective = config::effective(&settings);
    assert!(!effective.contains("hunter2") && !format!("{settings:?}").contains("hunter2"));
    assert!(effective.contains("primary: \"***\"") || effective.contains("primary: '***'"), "{effective}");
    assert!(messages(&effective)[0].contains("too short"), "a placeholder must not become a key");
}

#[test]
fn clients_and_limits_must_be_able_to_hold() {
    let endpoint = |rest: &str| {
        format!("endpoints: [{{name: demo, {rest}, deployments: [{{name: blue, replicas: [http://a]}}]}}]")
    };
    let client = |rest: &str| endpoint(&format!("clients: [{{name: one, key: env:ONE, {rest}}}]"));
    let cases = [
        (endpoint("clients: []"), "`keys` is missing in endpoint `demo`"),
        (endpoint("clients: [{name: one}]"), "`key` is missing in this client"),
        (endpoint("clients: [{key: env:ONE}]"), "`name` is missing in a client"),
        (endpoint("clients: [{name: Primary, key: env:ONE}]"), "a client must not be called `Primary`"),
        (endpoint("clients: [{name: 1one, key: env:ONE}]"), "is not a name of a client"),
        (
            endpoint("clients: [{name: one, key: env:ONE}, {name: ONE, key: env:TWO}]"),
            "two clients are called `ONE`",
        ),
        (
            endpoint("clients: [{name: one, key: env:ONE}, {name: two, key: env:ONE}]"),
            "the same key is a key of the client `one` already",
        ),
        (client("secondary_key: env:ONE"), "the same key is a key of the client `one` already"),
        (
            endpoint("keys: {primary: env:ONE}, clients: [{name: one, key: env:ONE}]"),
            "the same key is `primary` of `keys` already",
        ),
        (client("limits: {burst: 3}"), "`burst` is only for `requests_per_second`"),
        (client("limits: {concurrency: 0}"), "a whole number from 1 to 1000000"),
        (client("limits: {requests_per_second: 0}"), "a number from 0.001 to 1000000"),
        (client("limits: {requests_per_second: 0.0005}"), "a number from 0.001 to 1000000"),
        (client("limits: {requests_per_second: 1, burst: 0}"), "a whole number from 1 to 1000000"),
        (client("limits: {quota: {requests: 0, per: day}}"), "a whole number from 1 to"),
        (client("limits: {quota: {requests: 1}}"), "`per` is missing in `quota`"),
        (client("limits: {quota: {per: day}}"), "`requests` is missing in `quota`"),
        (client("limits: {quota: {requests: 1, per: week}}"), "`per` must be one of"),
        (client("class: urgent"), "`class` must be one of"),
    ];
    for (text, expected) in cases {
        let found = parse(&text).map(|loaded| loaded.settings).unwrap_err();
        assert!(found.to_string().contains(expected), "{text}\n{found}");
        assert_eq!(found.errors().count(), 1, "{text}\n{found}");
    }
    // Clients are enough; a mode that takes no keys has no use for them.
    assert_eq!(parse(&client("class: critical")).unwrap().warnings, []);
    for rest in ["clients: [{name: one, key: env:ONE}]", "default_limits: {concurrency: 1}"] {
        let loaded = parse(&endpoint(&format!("auth_mode: none, {rest}"))).unwrap();
        assert!(loaded.warnings[0].to_string().contains("has no effect"), "{:?}", loaded.warnings);
        assert!(loaded.settings.endpoints[0].auth.clients.is_empty());
        assert!(loaded.settings.endpoints[0].default_limits.is_unlimited());
    }
    let loaded = parse(&endpoint(
        "default_limits: {requests_per_second: 2.5}, clients: [{name: one, key: env:ONE}, \
         {name: two, key: env:TWO, limits: {}}]",
    ));
    let endpoint = &loaded.unwrap().settings.endpoints[0];
    assert_eq!(endpoint.default_limits.rate.unwrap().burst().get(), 3);
    assert_eq!(endpoint.auth.clients[0].limits, None);
    assert!(endpoint.auth.clients[1].limits.unwrap().is_unlimited());
}

#[test]
fn rules_between_values() {
    let endpoint = |rest: &str| format!("endpoints: [{{name: demo, auth_mode: none, {rest}}}]");
    let two = "deployments: [{name: blue, replicas: [http://a]}, {name: green, replicas: [http://b]}]";
    let one = |rest: &str| endpoint(&format!("deployments: [{{name: blue, {rest}}}]"));
    let by_load =
        |rest: &str| one(&format!("process: {{command: [m]}}, scale_settings: {{max_instances: 3, {rest}}}"));
    let cases = [
        (
            endpoint(&format!("traffic: {{blue: 90}}, {two}")),
            "`traffic` adds up to 90 % and nobody gets the rest",
        ),
        (endpoint(&format!("traffic: {{blue: 90, green: 10.01}}, {two}")), "`traffic` adds up to 100.01 %"),
        (endpoint(&format!("traffic: {{blue: 12.345}}, {two}")), "`blue` must be a number from 0 to 100"),
        (endpoint(&format!("scoring_route: /api/v1/x, {two}")), "which is a route of scoregate itself"),
        (endpoint("deployments: []"), "`deployments` is empty"),
        (one("replicas: [http://a], process: {command: [m]}"), "both `replicas` and `process`"),
        (one("type: control"), "does not say where its replicas come from"),
        (one("replicas: [http://a, http://a:80]"), "a:80 is listed twice"),
        (
            one("replicas: [http://a], scale_settings: {type: target_utilization}"),
            "fixed list, which cannot scale",
        ),
        (one("replicas: [http://a], instance_count: 2"), "`instance_count` is 2, but `replicas` lists 1"),
        (
            one("process: {command: [m]}, instance_count: 2, scale_settings: {max_instances: 3}"),
            "has no effect",
        ),
        (
            one("process: {command: [m]}, scale_settings: {min_instances: 2}"),
            "`max_instances` is 1 (the default)",
        ),
        (one("process: {command: [m]}, scale_settings: {max_instances: 0}"), "a whole number from 1 to 1000"),
        (
            by_load("schedules: [{cron: '0 8 * *', duration: 1, min_instances: 1}]"),
            "must have five fields and has 4",
        ),
        (
            by_load("schedules: [{cron: '0 8 * * MO-FR', duration: 1, min_instances: 1}]"),
            "the day of the week `MO-FR` is not understood",
        ),
        (by_load("schedules: [{cron: '0 8 30 2 *', duration: 1, min_instances: 1}]"), "it never comes"),
        (
            by_load(
                "schedules: [{cron: '0 8 * * *', time_zone: Europe/Berln, duration: 1, min_instances: 1}]",
            ),
            "did you mean `Europe/Berlin`?",
        ),
        (
            by_load("schedules: [{cron: '0 8 * * *', min_instances: 1}]"),
            "`duration` is missing in a schedule",
        ),
        (
            by_load("schedules: [{cron: '0 8 * * *', duration: 1, min_instances: 4}]"),
            "asks for 4 replicas, but `max_instances` is 3",
        ),
        (
            one("process: {command: [m]}, instance_count: 2, scale_settings: {schedules: []}"),
            "`schedules` has no effect",
        ),
        (
            one("process: {command: [m]}, scale_settings: {reject_budget_percentage: 0.1}"),
            "only for the policy `adaptive`",
        ),
        (
            one("process: {command: [m]}, scale_settings: {policy: adaptive, reject_budget_percentage: 0}"),
            "a number from 0.001 to 50",
        ),
        (
            one("process: {command: [m]}, scale_settings: {policy: best}"),
            "`azureml`, `azureml-strict`, `adaptive`",
        ),
        (
            one("process: {command: [m], ports: 20000-20001}, instance_count: 3"),
            "2 ports for up to 3 replicas",
        ),
        (
            one("replicas: [http://a], inference_config: {scoring_route: {path: /s, port: 1}}"),
            "no port of its own",
        ),
        (
            one("replicas: [http://a], request_settings: {idempotent: true, hedge: {}}"),
            "`hedge` does not say when",
        ),
        (
            one(
                "replicas: [http://a], request_settings: {idempotent: true, hedge: {after_ms: 1, after: p95}}",
            ),
            "`hedge` has both `after_ms` and `after`",
        ),
        (format!("admin: {{address: \"0.0.0.0:81\"}}\n{}", endpoint(two)), "`admin.key` is required"),
        (
            format!("listen: {{address: \"[::1]:81\"}}\nadmin: {{address: \"[::1]:81\"}}\n{}", endpoint(two)),
            "`admin.address` and `listen.address` are both [::1]:81",
        ),
        (format!("endpoints: [{{name: demo, {two}}}]"), "`keys` is missing in endpoint `demo`"),
        ("{}".to_owned(), "`endpoints` is missing in the file"),
    ];
    for (text, expected) in cases {
        let found = parse(&text).map(|loaded| loaded.settings).expect_err(&text);
        assert!(found.to_string().contains(expected), "{text}\n{found}");
        assert_eq!(found.errors().count(), 1, "{text}\n{found}");
    }
    let names = |n: usize| {
        (0..n).map(|i| format!("{{name: dep{i}, replicas: [http://a]}}")).collect::<Vec<_>>().join(",")
    };
    let many = |n: usize| endpoint(&format!("default: dep0, deployments: [{}]", names(n)));
    assert!(messages(&many(7))[0].contains("has 7 deployments; at most 6 are allowed"));
    assert!(parse(&format!("max_deployments_per_endpoint: 20\n{}", many(20))).is_ok());
    let hedge = one("replicas: [http://a], request_settings: {hedge: {after_ms: 1}}");
    let warnings = parse(&hedge).unwrap().warnings;
    assert!(warnings[0].message.contains("`hedge` is only for GET and HEAD requests"), "{warnings:?}");
    let quiet = parse(&endpoint(two)).unwrap().warnings;
    assert!(quiet[0].message.contains("neither `traffic` nor `default`"), "{quiet:?}");
}

/// The only warning of a file, or nothing.
fn warning(text: &str) -> Option<String> {
    let loaded = parse(text).map_err(|report| report.to_string()).unwrap();
    assert!(loaded.warnings.len() < 2, "{text}\n{:?}", loaded.warnings);
    loaded.warnings.first().map(|warning| warning.to_string())
}

#[test]
fn callers_that_nobody_is_are_told() {
    let endpoint = |rest: &str| {
        format!("endpoints: [{{name: demo, {rest}, deployments: [{{name: blue, replicas: [http://a]}}]}}]")
    };
    let keys = "keys: {primary: env:ONE}, clients: [{name: batch, key: env:TWO}, {name: web, key: env:SIX, class: critical}]";
    let jwt = "jwt: {audiences: [a], jwks_url: 'https://a/keys'}";
    let of = |rest: &str, caller: &str| {
        warning(&endpoint(&format!("{rest}, classes: {{callers: {{{caller}: sheddable}}}}")))
    };
    for (rest, caller, says) in [
        ("auth_mode: none", "primary", "does not ask its callers who they are"),
        (keys, "secondary", "no caller of endpoint `demo` is called so"),
        (
            keys,
            "Primary",
            "did you mean `primary`? keys and clients are called `primary`, `batch`, `web` here",
        ),
        (keys, "job-7", "`callers` names `job-7`"),
        (keys, "web", "the client `web`, whose own `class` goes first"),
        (&*format!("auth_mode: key_or_jwt, {keys}, {jwt}"), "secondary", "`callers` names `secondary`"),
        (&*format!("auth_mode: jwt, {jwt}"), "primary", "known by the `sub` of their tokens"),
    ] {
        let found = of(rest, caller).unwrap_or_else(|| panic!("{rest} {caller}"));
        assert!(found.contains(says), "{found}");
    }
    for (rest, caller) in [
        (keys, "primary"),
        (keys, "batch"),
        ("keys: {primary: env:ONE, secondary: env:TWO}", "secondary"),
        (&*format!("auth_mode: key_or_jwt, {keys}, {jwt}"), "job-7"),
        (&*format!("auth_mode: jwt, {jwt}"), "job-7"),
    ] {
        assert_eq!(of(rest, caller), None, "{rest} {caller}");
    }
    assert_eq!(warning(&endpoint("auth_mode: none, classes: {callers: {}}")), None);
    // The word is no secret, although the name before it is that of one.
    let urgent = messages(&endpoint(&format!("{keys}, classes: {{callers: {{primary: urgent}}}}")));
    let says = "`primary` must be one of `critical`, `default`, `sheddable`, not `urgent`";
    assert!(urgent.len() == 1 && urgent[0].ends_with(says), "{urgent:?}");
}

#[test]
fn settings_without_effect_are_told_where_they_stand() {
    let of = |scale: &str, request: &str| {
        warning(&format!(
            "endpoints: [{{name: demo, auth_mode: none, deployments: [{{name: blue, process: {{command: [m]}}, \
             scale_settings: {{{scale}}}, request_settings: {{{request}}}}}]}}]"
        ))
    };
    let slots = |slots: &str| format!("max_concurrent_requests_per_instance: {slots}");
    for (scale, request, says) in [
        (
            "policy: adaptive, target_utilization_percentage: 60",
            "",
            "`target_utilization_percentage` has no effect with `policy: adaptive`",
        ),
        ("warm_up_time: 5", "", "`warm_up_time` has no effect with one slot for each replica"),
        ("warm_up_time: 5", &*slots("0"), "`warm_up_time` has no effect with no limit of slots"),
        ("", &*format!("fair_share: true, {}", slots("0")), "`fair_share` has no effect"),
        ("", &*format!("queue_order: newest_first, {}", slots("0")), "`queue_order` has no effect"),
        ("", &*format!("max_queue_wait_ms: 0, {}", slots("auto")), "`max_queue_wait_ms: 0` nobody waits"),
        ("", &*format!("max_queue_length: 0, {}", slots("auto")), "`max_queue_length: 0` nobody waits"),
        ("", "idempotent: true, hedge: {after_ms: 5000}", "`after_ms` has no effect"),
    ] {
        let found = of(scale, request).unwrap_or_else(|| panic!("{scale} {request}"));
        assert!(found.contains(says), "{found}");
    }
    for (scale, request) in [
        ("target_utilization_percentage: 60", ""),
        ("warm_up_time: 0", ""),
        ("warm_up_time: 5", &*slots("2")),
        ("warm_up_time: 5", &*slots("Auto")),
        ("", &*slots("auto")),
        ("", "idempotent: true, hedge: {after_ms: 4999}"),
        ("", "fair_share: true, queue_order: newest_first"),
        ("", &*format!("fair_share: false, queue_order: fifo, {}", slots("0"))),
    ] {
        assert_eq!(of(scale, request), None, "{scale} {request}");
    }
    // What is printed with all defaults says nothing that would be told of.
    let text = "endpoints: [{name: demo, auth_mode: none, deployments: [{name: blue, process: {command: [m]}, \
        scale_settings: {policy: adaptive}}]}]";
    assert_eq!(warning(&config::effective(&parse(text).unwrap().settings)), None);
    let wrong = messages(&text.replace(
        "scale_settings: {policy: adaptive}",
        "request_settings: {max_concurrent_requests_per_instance: atuo}",
    ));
    assert!(wrong[0].ends_with("a whole number from 0 to 1000000, or `auto`, not `atuo`"), "{wrong:?}");
}

#[test]
fn profiles_have_their_defaults() {
    let of = |profile: &str| {
        let text = format!(
            "profile: {profile}\nendpoints: [{{name: demo, auth_mode: AML_Token, jwt: {{audiences: [a], jwks_url: \
             https://x/k}}, deployments: [{{name: blue, process: {{command: [m]}}}}]}}]"
        );
        parse(&text).unwrap().settings.endpoints[0].deployments[0].clone()
    };
    let (v1, v2) = (of("AKS-V1"), of("aks"));
    assert_eq!((v1.request.timeout.as_millis(), v2.request.timeout.as_millis()), (60_000, 5_000));
    assert_eq!((v1.liveness.initial_delay.as_secs(), v1.liveness.failure_threshold.get()), (310, 3));
    assert_eq!((v2.liveness.initial_delay.as_secs(), v2.liveness.failure_threshold.get()), (10, 30));
    let (ScaleSettings::Utilization(v1), ScaleSettings::Utilization(v2)) = (&v1.scale, &v2.scale) else {
        panic!("both scale")
    };
    assert_eq!((v1.min, v1.max, v1.down_after.as_secs(), v1.count_queue), (1, 10, 60, false));
    assert_eq!((v2.min, v2.max, v2.down_after.as_secs(), v2.count_queue), (1, 1, 20, true));
}

#[test]
fn files_that_cannot_be_read_as_yaml() {
    let first = |text: &str| messages(text).remove(0);
    assert_eq!(first(""), "1:1 the file is empty");
    assert_eq!(first("# nothing\n"), "1:1 the file is empty");
    assert!(
        first("endpoints:\n\t- name: x\n").starts_with("2:2 not valid YAML: tabs"),
        "{}",
        first("a:\n\t- b\n")
    );
    assert!(first("endpoints: [\n").contains("not valid YAML"));
    assert!(first("a: 1\n---\nb: 2\n").contains("more than one YAML document"));
    assert!(first("- a\n").contains("the file must be a mapping, not a list"));
    assert!(
        messages("a: !!str b\n").iter().any(|m| m.starts_with("1:4 YAML tags")),
        "{:?}",
        messages("a: !!str b\n")
    );
    assert!(first("a: *b\n").contains("not valid YAML"));
    assert!(first("a: &a [*a]\n").contains("alias"));
    let deep = format!("a: {}", "[".repeat(10_000));
    assert!(first(&deep).contains("not valid YAML"));
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        bomb += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(", "));
    }
    assert!(first(&bomb).contains("grows to more than 1000000 values"), "{}", first(&bomb));

    let wrong =
        "endpoints: [a, a, a]\n".to_owned() + &(0..200).map(|i| format!("k{i}: 1\n")).collect::<String>();
    let report = parse(&wrong).unwrap_err();
    assert_eq!(report.diagnostics().len(), 100);
    assert!(report.to_string().ends_with("100 errors or more; the first 100 are shown"));

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.yaml");
    assert!(config::load(&file).unwrap_err().to_string().contains("cannot read the file: No such file"));
    std::fs::write(&file, b"a: 1\nb: \xff\n").unwrap();
    assert!(
        config::load(&file)
            .unwrap_err()
            .to_string()
            .contains("not UTF-8 text; the first bad byte is on line 2")
    );
    std::fs::write(&file, vec![b'#'; 4 * 1024 * 1024 + 1]).unwrap();
    assert!(config::load(&file).unwrap_err().to_string().contains("larger than 4 MiB"));
}

fn some<T: Into<Value> + std::fmt::Debug + Clone + 'static>(
    key: &'static str,
    values: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<Value> {
    prop_oneof![Just(json!({})), values.prop_map(move |value| json!({ key: value.into() }))].boxed()
}

fn merged(parts: Vec<BoxedStrategy<Value>>) -> BoxedStrategy<Value> {
    let merge = |parts: Vec<Value>| {
        let entries = parts.into_iter().flat_map(|part| part.as_object().unwrap().clone());
        Value::Object(entries.collect())
    };
    parts.prop_map(merge).boxed()
}

/// Texts that YAML likes to take for something else.
fn tricky() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~äß€\u{1F600}]{0,90}",
        Just("null".to_owned()),
        Just("~".to_owned()),
        Just("off".to_owned()),
        Just("0x10".to_owned()),
        Just("1e3".to_owned()),
        Just("- a: {b".to_owned()),
        Just(" # x\n\n  y: z \n".to_owned()),
        Just("&a *b !c".to_owned()),
        Just("\t\n".to_owned()),
    ]
}

fn probe() -> BoxedStrategy<Value> {
    merged(vec![
        some("initial_delay", 0..400u32),
        some("period", 1..90u32),
        some("failure_threshold", 1..99u32),
    ])
}

fn schedules() -> BoxedStrategy<Value> {
    let one = merged(vec![
        Just(json!({ "cron": "*/5 8,20 * * MON-FRI", "duration": 60, "min_instances": 1 })).boxed(),
        some("time_zone", prop_oneof![Just("Europe/Berlin"), Just("UTC")]),
        some("name", tricky()),
    ]);
    prop::collection::vec(one, 0..3).prop_map(Value::from).boxed()
}

fn deployment(name: &'static str) -> BoxedStrategy<Value> {
    let request = merged(vec![
        some("request_timeout_ms", 1..31_536_000_001u64),
        some(
            "max_concurrent_requests_per_instance",
            prop_oneof![(0..50u32).prop_map(Value::from), Just(json!("auto"))],
        ),
        some("max_queue_wait_ms", 0..100_000u32),
        some("cold_start_wait_ms", 0..100_000u32),
        some("max_queue_length", 0..1000u32),
        some("max_body_bytes", 0..10_000_000_000u64),
        some("queue_order", prop_oneof![Just("fifo"), Just("newest_first")]),
        some("fair_share", any::<bool>()),
    ]);
    let scale = prop_oneof![
        Just(json!({})),
        (1..1000u32).prop_map(|count| json!({ "instance_count": count })),
        (0..500u32, 1..500u32, 1..100u32, 1..3601u32, schedules()).prop_map(
            |(min, more, target, poll, schedules)| json!({"scale_settings": {
                "type": "target_utilization", "min_instances": min, "max_instances": min + more,
                "target_utilization_percentage": target, "polling_interval": poll, "warm_up_time": poll - 1,
                "schedules": schedules,
            }})
        ),
        prop::sample::select(vec!["azureml", "azureml-strict", "adaptive"])
            .prop_map(|policy| json!({"scale_settings": { "policy": policy }})),
        (1..50_000u32).prop_map(|thousandths| json!({"scale_settings": {
            "policy": "adaptive", "reject_budget_percentage": f64::from(thousandths) / 1000.0,
        }})),
    ];
    let process = (
        scale,
        prop::collection::vec(tricky(), 0..4),
        prop::collection::btree_map("[A-Z]{1,8}", tricky(), 0..4),
    )
        .prop_map(|(scale, arguments, environment)| {
            let command: Vec<_> = std::iter::once("model".to_owned()).chain(arguments).collect();
            let mut value = json!({
                "process": { "command": command, "directory": "some/where", "ports": "1024-9000" },
                "environment_variables": environment,
            });
            value.as_object_mut().unwrap().extend(scale.as_object().unwrap().clone());
            value
        });
    let fixed = prop::collection::btree_set(1..60_000u16, 1..4).prop_map(|ports| {
        json!({ "replicas": ports.iter().map(|port| format!("http://[::1]:{port}")).collect::<Vec<_>>() })
    });
    merged(vec![
        Just(json!({ "name": name })).boxed(),
        some("type", Just("treatment")),
        some("request_settings", request),
        some("liveness_probe", probe()),
        some("readiness_probe", probe()),
        some("forward_authorization", any::<bool>()),
        some("inference_config", Just(json!({ "scoring_route": { "path": "/v1/m:predict" } }))),
        prop_oneof![process, fixed].boxed(),
    ])
}

fn endpoint(name: &'static str) -> BoxedStrategy<Value> {
    let auth = prop_oneof![
        Just(json!({ "auth_mode": "none" })),
        Just(json!({ "keys": { "primary": "env:A", "secondary": "env:B" } })),
        (0..3601u32, tricky()).prop_map(|(leeway, text)| json!({ "auth_mode": "aad_token", "jwt": {
            "audiences": [text], "leeway_s": leeway, "required_claims": { text.as_str(): ["a", text] },
            "keys": [{ "kid": text, "algorithm": "hs256", "secret": "env:S" }],
        }})),
        (1..86_401u32).prop_map(|refresh| json!({ "auth_mode": "KEY_OR_JWT", "keys": { "primary": "env:A" },
            "jwt": { "issuers": ["i"], "jwks_url": "https://x/y", "jwks_refresh_s": refresh }})),
    ];
    let limits = || {
        merged(vec![
            some("concurrency", 1..1_000_001u32),
            prop_oneof![
                Just(json!({})),
                (1..1_000_000_000u32).prop_map(|thousandths| json!({ "requests_per_second":
                    f64::from(thousandths) / 1000.0 })),
                (1..1_000_001u32, 1..1_000_001u32)
                    .prop_map(|(rate, burst)| json!({ "requests_per_second": rate, "burst": burst })),
            ]
            .boxed(),
            some(
                "quota",
                (
                    1..1_000_000_000_001u64,
                    prop_oneof![Just("minute"), Just("hour"), Just("day"), Just("month")],
                )
                    .prop_map(|(requests, per)| json!({ "requests": requests, "per": per })),
            ),
        ])
    };
    let auth = (auth, limits(), limits(), any::<bool>()).prop_map(|(mut auth, limits, own, second)| {
        if auth.get("keys").is_some() {
            let batch = json!({ "name": "batch", "key": "env:C", "class": "sheddable", "limits": own });
            let live = match second {
                true => json!({ "name": "live", "key": "env:D", "secondary_key": "env:E" }),
                false => json!({ "name": "live", "key": "env:D", "class": "critical" }),
            };
            auth["clients"] = json!([batch, live]);
            auth["default_limits"] = limits;
        }
        auth
    });
    let traffic = (0..10_001u32).prop_map(|parts| {
        json!({
            "traffic": { "green": f64::from(parts) / 100.0 }, "default": "blue",
        })
    });
    merged(vec![
        Just(json!({ "name": name })).boxed(),
        some("profile", prop_oneof![Just("aks"), Just("aks-v1"), Just("managed")]),
        auth.boxed(),
        prop_oneof![Just(json!({})), traffic].boxed(),
        some("cors", Just(json!({ "allow_origins": ["*", "https://a:1"], "max_age_s": 1 }))),
        some("scoring_route", Just(format!("/{name}/x"))),
        some("server_timing", any::<bool>()),
        some(
            "classes",
            prop_oneof![
                Just(json!({ "callers": { "primary": "critical", "a b": "sheddable" }, "header": "trust" })),
                Just(json!({ "swagger": "default", "header": "ignore" })),
            ],
        ),
        (deployment("blue"), deployment("green"))
            .prop_map(|pair| json!({ "deployments": [pair.0, pair.1] }))
            .boxed(),
    ])
}

fn file() -> BoxedStrategy<Value> {
    let listen = merged(vec![
        some("address", Just("[::]:0")),
        some("workers", 1..64u32),
        some("max_connections", 1..1_000_000u32),
        some("write_timeout_ms", 1..100_000u32),
    ]);
    merged(vec![
        some("profile", prop_oneof![Just("aks"), Just("aks-v1"), Just("managed")]),
        some("listen", listen),
        some("admin", Just(json!({ "address": "0.0.0.0:99", "key": "env:ADMIN" }))),
        some("drain_timeout_ms", 0..1_000_000u32),
        some("access_log", prop_oneof![Just("off"), Just("file:log dir/x#y.log")]),
        (endpoint("first"), endpoint("second"))
            .prop_map(|pair| json!({ "endpoints": [pair.0, pair.1] }))
            .boxed(),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn effective_settings_read_back_are_the_same(file in file()) {
        let settings = parse(&file.to_string()).unwrap_or_else(|e| panic!("{e}")).settings;
        let text = config::effective(&settings);
        let again = config::parse_with("again.yaml", &text, Path::new("/elsewhere"), &env);
        prop_assert_eq!(again.unwrap_or_else(|e| panic!("{e}\n{text}")).settings, settings);
    }

    #[test]
    fn no_text_breaks_the_reader(text in "[a-z:\\[\\]{}, \n\t&*!#'\"|>é-]{0,200}") {
        if let Err(report) = parse(&text) {
            prop_assert!(report.errors().count() > 0);
            prop_assert!(!report.to_string().is_empty());
        }
    }
}

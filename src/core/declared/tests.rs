//! Rules of changes, one by one.

use serde_json::json;

use super::*;

fn document(value: Value) -> Document {
    let Value::Object(document) = value else { panic!("{value} is no document") };
    document
}

fn secrets() -> EndpointSecrets {
    EndpointSecrets { primary: "first".into(), secondary: "second".into(), signing: "signs".into() }
}

struct Book {
    declared: Declared,
    facts: Facts,
}

impl Book {
    fn new() -> Self {
        let facts = Facts { foreign: ["in-the-file".to_owned()].into() };
        Self { declared: Declared::default(), facts }
    }

    /// With endpoint `shop` and deployments blue and green, blue with all traffic.
    fn blue_green() -> Self {
        let mut book = Self::new();
        book.good(Change::CreateEndpoint { document: document(json!({ "name": "shop" })) });
        for name in ["blue", "green"] {
            book.good(create(json!({ "name": name })));
        }
        book.good(traffic_of(json!({ "blue": 100 })));
        book
    }

    /// The same of v1: version-a is the default.
    fn versions() -> Self {
        let mut book = Self::new();
        book.good(Change::CreateEndpoint {
            document: document(json!({ "name": "shop", "profile": "aks-v1" })),
        });
        for name in ["version-a", "version-b"] {
            book.good(create(json!({ "name": name })));
        }
        book
    }

    #[track_caller]
    fn good(&mut self, change: Change) {
        self.declared = apply(&self.declared, &[change], &self.facts, &secrets()).unwrap();
    }

    #[track_caller]
    fn bad(&self, change: Change, code: Code, part: &str) {
        let refusal = apply(&self.declared, &[change], &self.facts, &secrets()).unwrap_err();
        assert_eq!(refusal.code, code, "{refusal}");
        assert!(refusal.message.contains(part), "{refusal}");
    }

    fn shop(&self) -> &DeclaredEndpoint {
        self.declared.endpoint("shop").unwrap().1
    }

    fn traffic(&self) -> Value {
        self.shop().document.get("traffic").cloned().unwrap_or_default()
    }
}

fn create(value: Value) -> Change {
    Change::CreateDeployment { endpoint: "shop".into(), document: document(value) }
}

fn traffic_of(value: Value) -> Change {
    Change::SetShares { endpoint: "shop".into(), key: "traffic", shares: document(value) }
}

fn patch(value: Value) -> Change {
    Change::PatchEndpoint { endpoint: "shop".into(), patch: document(value) }
}

fn delete(name: &str) -> Change {
    Change::DeleteDeployment { endpoint: "shop".into(), deployment: name.into() }
}

#[test]
fn a_new_endpoint_has_no_traffic_and_a_name_of_its_own() {
    let mut book = Book::new();
    let new = |value| Change::CreateEndpoint { document: document(value) };
    book.bad(new(json!({ "name": "shop", "traffic": { "blue": 100 } })), Code::Invalid, "no deployments yet");
    book.bad(new(json!({ "name": "x" })), Code::Invalid, "3 to 32");
    book.bad(new(json!({})), Code::Invalid, "needs a `name`");
    book.bad(new(json!({ "name": "In-The-File" })), Code::OwnedByFile, "configuration file");
    book.good(new(json!({ "name": "shop", "traffic": {}, "provisioning_state": "Creating", "tags": null })));
    assert_eq!(Value::Object(book.shop().document.clone()), json!({ "name": "shop" }));
    book.bad(new(json!({ "name": "SHOP" })), Code::AlreadyExists, "exists already");
    assert_eq!(book.declared.generation, 1);
}

#[test]
fn unknown_keys_and_wrong_types_are_refused_with_help() {
    let book = Book::blue_green();
    book.bad(patch(json!({ "descripton": "x" })), Code::Invalid, "did you mean `description`?");
    book.bad(patch(json!({ "instance_count": 1 })), Code::Invalid, "belongs to a deployment");
    book.bad(patch(json!({ "tags": 1 })), Code::Invalid, "`tags` of the endpoint must be a map");
    book.bad(
        create(json!({ "name": "red", "instance_cuont": 2 })),
        Code::Invalid,
        "did you mean `instance_count`?",
    );
    let typo = json!({ "name": "red", "code_configuration": { "code": "/x", "scoring_scirpt": "score.py" } });
    book.bad(create(typo), Code::Invalid, "did you mean `scoring_script`?");
    let typo = json!({ "name": "red", "environment": { "inference_config": { "scoring_rout": {} } } });
    book.bad(
        create(typo),
        Code::Invalid,
        "`environment.inference_config` has no key `scoring_rout`; did you mean `scoring_route`?",
    );
    book.bad(create(json!({ "name": "red", "instance_count": -2 })), Code::Invalid, "whole number");
    book.bad(create(json!({ "name": "red", "traffic": {} })), Code::Invalid, "belongs to an endpoint");
}

#[test]
fn v2_traffic_adds_up_to_0_or_100_of_known_deployments() {
    let mut book = Book::blue_green();
    for (traffic, part) in [
        (json!({ "blue": 90 }), "adds up to 90 %"),
        (json!({ "blue": 90, "green": 20 }), "adds up to 110 %"),
        (json!({ "blue": 99.5, "green": 0.5 }), "a whole number"),
        (json!({ "blue": -1 }), "percentage"),
        (json!({ "blue": "all" }), "percentage"),
        (json!({ "gren": 100 }), "did you mean `green`?"),
        (json!({ "Blue": 50, "blue": 50 }), "twice"),
    ] {
        book.bad(traffic_of(traffic), Code::Invalid, part);
    }
    book.good(traffic_of(json!({ "BLUE": 90, "green": 10 })));
    assert_eq!(book.traffic(), json!({ "blue": 90, "green": 10 }));
    book.good(traffic_of(json!({ "blue": 0, "green": 100 })));
    assert_eq!(book.traffic(), json!({ "green": 100 }));
    book.good(traffic_of(json!({})));
    assert_eq!(book.traffic(), json!({}));
}

#[test]
fn a_deployment_that_was_never_ready_gets_no_traffic_and_holds_up_nobody_else() {
    for mut book in [Book::blue_green(), Book::versions()] {
        let names: Vec<Name> = book.shop().deployments.keys().cloned().collect();
        let [first, second] = [names[0].to_string(), names[1].to_string()];
        let key = Name::parse("shop").unwrap();
        let unproven = |book: &mut Book| {
            let endpoint = book.declared.endpoints.get_mut(&key).unwrap();
            mark(endpoint.deployments.get_mut(second.as_str()).unwrap(), None);
        };
        unproven(&mut book);
        book.bad(traffic_of(json!({ &first: 90, &second: 10 })), Code::Invalid, "not been ready yet");
        book.bad(patch(json!({ "default": &second })), Code::Invalid, "not been ready yet");
        // What it has it may keep, and lose.
        let proven =
            Change::Proven { endpoint: "shop".into(), deployments: vec![second.clone(), "gone".into()] };
        book.good(proven);
        book.good(traffic_of(json!({ &first: 80, &second: 20 })));
        unproven(&mut book);
        book.good(patch(json!({ "description": "x" })));
        book.good(traffic_of(json!({ &first: 90, &second: 10 })));
        book.bad(traffic_of(json!({ &first: 80, &second: 20 })), Code::Invalid, "not been ready yet");
    }
}

#[test]
fn v1_gives_the_rest_to_the_default_and_the_first_version_is_it() {
    let mut book = Book::versions();
    assert_eq!(book.shop().document["default"], "version-a");
    book.good(traffic_of(json!({ "version-a": 20.5, "version-b": 10 })));
    assert_eq!(book.traffic(), json!({ "version-a": 20.5, "version-b": 10 }));
    book.bad(traffic_of(json!({ "version-a": 60, "version-b": 60 })), Code::Invalid, "adds up to 120 %");
    book.bad(delete("version-a"), Code::DeploymentHasTraffic, "holds 20.5 %");
    book.good(traffic_of(json!({ "version-b": 40 })));
    book.bad(delete("version-a"), Code::DeploymentIsDefault, "is the default");
    book.bad(patch(json!({ "default": null })), Code::Invalid, "cannot be removed");
    book.good(patch(json!({ "default": "Version-B" })));
    assert_eq!(book.shop().document["default"], "version-b");
    book.good(delete("version-a"));
    book.good(traffic_of(json!({})));
    book.good(delete("version-b"));
    assert_eq!(book.shop().document.get("default"), None);
}

#[test]
fn there_is_one_control() {
    let mut book = Book::versions();
    let control = |name: &str| Change::PatchDeployment {
        endpoint: "shop".into(),
        deployment: name.into(),
        patch: document(json!({ "version_type": "control" })),
    };
    book.good(control("version-a"));
    book.good(control("version-b"));
    assert_eq!(book.shop().deployments["version-a"]["version_type"], "treatment");
    assert_eq!(book.shop().deployments["version-b"]["version_type"], "control");
}

#[test]
fn deployments_are_counted_and_named_within_limits() {
    let mut book = Book::blue_green();
    for number in 2..20 {
        book.good(create(json!({ "name": format!("more-{number}") })));
    }
    book.bad(create(json!({ "name": "one-too-many" })), Code::Invalid, "20 deployments");
    book.bad(create(json!({ "name": "Blue" })), Code::AlreadyExists, "already");
    let mut book = Book::versions();
    for number in 2..6 {
        book.good(create(json!({ "name": format!("more-{number}") })));
    }
    book.bad(create(json!({ "name": "one-too-many" })), Code::Invalid, "6 deployments");
    let mut book = Book::new();
    book.good(Change::CreateEndpoint { document: document(json!({ "name": "e".repeat(32) })) });
    let long = document(json!({ "name": "d".repeat(31) }));
    book.bad(
        Change::CreateDeployment { endpoint: "e".repeat(32), document: long },
        Code::Invalid,
        "63 characters",
    );
}

#[test]
fn a_deployment_with_traffic_stays_and_one_without_goes_with_its_mirror() {
    let mut book = Book::blue_green();
    let mirror =
        |value| Change::SetShares { endpoint: "shop".into(), key: "mirror_traffic", shares: document(value) };
    book.bad(mirror(json!({ "green": 60 })), Code::Invalid, "at most 50 %");
    book.bad(mirror(json!({ "blue": 10 })), Code::Invalid, "holds live traffic");
    book.good(mirror(json!({ "green": 10 })));
    book.bad(traffic_of(json!({ "blue": 90, "green": 10 })), Code::Invalid, "holds live traffic");
    book.bad(delete("blue"), Code::DeploymentHasTraffic, "holds 100 %");
    book.bad(delete("red"), Code::DeploymentNotFound, "`blue`, `green`");
    book.good(delete("GREEN"));
    assert_eq!(book.shop().document["mirror_traffic"], json!({}));
    assert_eq!(book.shop().deployments.len(), 1);
}

#[test]
fn a_replacement_keeps_the_traffic_and_a_patch_takes_zero_and_empty_as_values() {
    let mut book = Book::blue_green();
    book.good(patch(json!({ "description": "x", "tags": { "a": "1", "b": "2" } })));
    book.good(patch(json!({ "description": "", "tags": { "a": null, "c": 0 } })));
    assert_eq!(book.shop().document["description"], "");
    assert_eq!(book.shop().document["tags"], json!({ "b": "2", "c": 0 }));
    let replacement = document(json!({ "server_timing": false }));
    book.good(Change::ReplaceEndpoint { endpoint: "shop".into(), document: replacement });
    assert_eq!(
        Value::Object(book.shop().document.clone()),
        json!({ "name": "shop", "server_timing": false, "traffic": { "blue": 100 } })
    );
    let other = document(json!({ "name": "other" }));
    let other = Change::ReplaceEndpoint { endpoint: "shop".into(), document: other };
    book.bad(other, Code::Invalid, "names cannot change");
}

#[test]
fn several_changes_are_made_together_or_not_at_all() {
    let book = Book::blue_green();
    let changes = [traffic_of(json!({ "green": 100 })), delete("blue")];
    let next = apply(&book.declared, &changes, &book.facts, &secrets()).unwrap();
    assert_eq!(next.generation, book.declared.generation + 1);
    assert_eq!(next.endpoint("shop").unwrap().1.deployments.len(), 1);
    let changes = [traffic_of(json!({})), delete("red")];
    apply(&book.declared, &changes, &book.facts, &secrets()).unwrap_err();
}

#[test]
fn keys_come_from_the_document_or_are_fresh_and_are_never_printed() {
    let mut book = Book::new();
    let keys = json!({ "name": "shop", "keys": { "primary": "my-own-key-0123456789" } });
    book.good(Change::CreateEndpoint { document: document(keys) });
    assert_eq!(book.shop().secrets.primary.expose_secret(), "my-own-key-0123456789");
    assert_eq!(book.shop().secrets.secondary.expose_secret(), "second");
    assert_eq!(book.shop().document.get("keys"), None);
    let set = Change::SetKey { endpoint: "shop".into(), which: WhichKey::Secondary, key: "other".into() };
    book.good(set);
    assert_eq!(book.shop().secrets.secondary.expose_secret(), "other");
    assert!(!format!("{:?}", book.declared).contains("my-own-key"));
    book.bad(patch(json!({ "keys": { "primary": "x" } })), Code::Invalid, "regenerating");
}

#[test]
fn what_is_to_follow_is_kept_through_other_changes_and_cannot_be_sent() {
    let mut book = Book::blue_green();
    let name = Name::parse("shop").unwrap();
    let green = Name::parse("green").unwrap();
    let then = [traffic_of(json!({ "green": 100 })), delete("blue")];
    let pending = Pending::of(&then, &[&green]);
    pending.keep(book.declared.endpoints.get_mut(&name).unwrap());
    book.good(patch(json!({ "description": "x", "pending": null })));
    book.good(Change::ReplaceEndpoint {
        endpoint: "shop".into(),
        document: document(json!({ "pending": {} })),
    });
    let kept = Pending::kept(book.shop()).unwrap();
    assert_eq!(kept, pending);
    let next = apply(&book.declared, &kept.changes(&name), &book.facts, &secrets()).unwrap();
    assert_eq!(next.endpoint("shop").unwrap().1.deployments.len(), 1);
    book.good(Change::Forget { endpoint: "shop".into() });
    assert_eq!(Pending::kept(book.shop()), None);
}

#[test]
fn environment_variables_become_texts() {
    let mut book = Book::blue_green();
    book.good(create(json!({ "name": "red", "environment_variables": { "A": 1, "B": true, "C": "x" } })));
    assert_eq!(
        book.shop().deployments["red"]["environment_variables"],
        json!({ "A": "1", "B": "true", "C": "x" })
    );
}

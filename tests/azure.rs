//! Azure's command line as its users type it: the program, an admin API that keeps what it is told, and what goes over the
//! wire between them.
#![allow(
    clippy::allow_attributes,
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test and its helpers fail by panicking, and their tasks end with the test"
)]

#[path = "support/admin.rs"]
mod admin;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use admin::Admin;

/// A user with a folder of files.
struct User {
    admin: Admin,
    folder: TempDir,
}

impl User {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let user = Self { admin: Admin::start().await, folder };
        for (name, text) in FILES {
            user.write(name, text);
        }
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_scoregate"), user.path("az")).unwrap();
        user
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let program = Path::new(env!("CARGO_BIN_EXE_scoregate")).parent().unwrap();
        let path = format!("{}:{}:/usr/bin:/bin", self.folder.path().display(), program.display());
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", path)
            .env("SCOREGATE_ADMIN", format!("http://{}", self.admin.address))
            .env("SCOREGATE_STATE", self.path("state"))
            .stdin(Stdio::null());
        command
    }

    /// Runs a line of shell.
    async fn sh(&self, line: &str) -> Output {
        let mut command = self.command("sh");
        command.arg("-ec").arg(line);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// Runs a line that succeeds; what it prints.
    async fn run(&self, line: &str) -> String {
        let output = self.sh(line).await;
        assert!(output.status.success(), "{line}\n{}", text(&output.stderr));
        assert_eq!(text(&output.stderr), "", "{line}: a pipe sees no progress");
        text(&output.stdout)
    }

    /// Runs a line that fails; exit code and what it says.
    async fn fail(&self, line: &str) -> (i32, String) {
        let output = self.sh(line).await;
        assert!(!output.status.success(), "{line}");
        assert_eq!(text(&output.stdout), "", "{line}");
        (output.status.code().unwrap(), text(&output.stderr))
    }

    fn with_blue(self) -> Self {
        self.admin.declare(
            json!({"name": "e", "auth_mode": "key", "traffic": {"blue": 100}}),
            &[json!({"name": "blue", "endpoint_name": "e", "instance_count": 1,
                "request_settings": {"max_queue_wait_ms": 500, "request_timeout_ms": 5000}})],
        );
        self
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const FILES: &[(&str, &str)] = &[
    ("endpoint.yml", "$schema: https://x\nname: my-endpoint\nauth_mode: key\n"),
    (
        "blue-deployment.yml",
        "name: blue\nendpoint_name: my-endpoint\nmodel:\n  path: model-1/model/\ncode_configuration:\n  code: model-1/onlinescoring/\n  \
         scoring_script: score.py\nenvironment:\n  conda_file: model-1/conda.yaml\n  image: mcr/x\ninstance_count: 1\n",
    ),
    ("green-deployment.yml", "name: green\nendpoint_name: my-endpoint\nmodel:\n  path: model-2/model/\n"),
    ("failing.yml", "name: red\nenvironment_variables:\n  FAIL: 1\n"),
    ("sample-request.json", "{\"data\": [[1, 2]]}"),
    (
        "with-blue.yml",
        "name: my-endpoint\ntype: online\nauth_mode: key\ntraffic: {blue: 100}\ndeployments:\n  - name: blue\n    model: {local_path: m.pkl}\n    \
         scale_settings: {scale_type: manual, instance_count: 2}\n",
    ),
    (
        "green-only.yml",
        "name: my-endpoint\ntype: online\ntraffic: {green: 100}\ndeployments:\n  - name: green\n    model: {local_path: m.pkl}\n",
    ),
    (
        "green-alone.yml",
        "name: green\nmodel: {local_path: m.pkl}\nscale_settings: {scale_type: manual, instance_count: 3}\n",
    ),
    (
        "inferenceconfig.json",
        r#"{"entryScript": "score.py", "sourceDirectory": "src", "condaFile": "env.yml"}"#,
    ),
    ("deploymentconfig.json", r#"{"computeType": "aks", "numReplicas": 1, "maxQueueWaitMs": 0}"#),
    ("model.pkl", ""),
];

#[tokio::test]
async fn an_endpoint_and_a_deployment_are_created_from_files_and_shown() {
    let user = User::new().await;
    let shown = user.run("az ml online-endpoint create --name e -f endpoint.yml -g group -w workspace").await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["name"], &shown["provisioning_state"]), (&json!("e"), &json!("Succeeded")));
    let asked = user.admin.asked_for("POST /endpoints");
    assert_eq!(asked.body, json!({"name": "e", "auth_mode": "key"}));

    let line = "az ml online-deployment create --name blue --endpoint e -f blue-deployment.yml --all-traffic --set instance_count=0";
    user.run(line).await;
    let asked = user.admin.asked_for("POST /endpoints/e/deployments?all_traffic=true");
    let of = |name: &str| json!(user.path(name));
    assert_eq!(asked.body["model"]["path"], of("model-1/model"));
    assert_eq!(asked.body["code_configuration"]["code"], of("model-1/onlinescoring"));
    assert_eq!(asked.body["environment"]["conda_file"], of("model-1/conda.yaml"));
    assert_eq!((&asked.body["instance_count"], &asked.body["endpoint_name"]), (&json!(0), &json!("e")));
    assert_eq!(user.run("az ml online-endpoint show -n e --query traffic -o tsv").await, "100\n");
    let (code, said) = user.fail("az ml online-endpoint create --name e -f endpoint.yml").await;
    assert_eq!((code, said.as_str()), (1, "scoregate: endpoint e exists already\n"));
}

#[tokio::test]
async fn an_update_sends_what_has_changed_and_from_which_state() {
    let user = User::new().await.with_blue();
    user.run("az ml online-deployment update --name blue --endpoint-name e --set instance_count=2 request_settings.max_queue_wait_ms=0").await;
    let asked = user.admin.asked_for("PATCH /endpoints/e/deployments/blue");
    assert_eq!(asked.body, json!({"instance_count": 2, "request_settings": {"max_queue_wait_ms": 0}}));
    assert_eq!(asked.headers["content-type"], "application/merge-patch+json");
    assert_eq!(asked.headers["if-match"], "\"1\"");

    user.run("az ml online-endpoint update --name e --traffic 'blue=90 green=10'").await;
    let asked = user.admin.asked_for("PATCH /endpoints/e");
    assert_eq!(asked.body, json!({"traffic": {"blue": 90, "green": 10}}));
    user.run("az ml online-endpoint update --name e --mirror-traffic green=10").await;
    assert_eq!(user.admin.asked_for("PATCH /endpoints/e").body, json!({"mirror_traffic": {"green": 10}}));

    user.run("az ml online-endpoint update --name e --set auth_mode=key").await;
    let changes = user.admin.asked().iter().filter(|asked| !asked.line.starts_with("GET")).count();
    assert_eq!(changes, 0, "nothing differs");
}

#[tokio::test]
async fn long_changes_are_followed_and_failures_told() {
    let user = User::new().await.with_blue();
    let (code, said) = user.fail("az ml online-deployment create -e e -f failing.yml").await;
    assert_eq!(code, 1);
    for words in ["deployment red", "start_failed", "no module named x", "get-logs -n red -e e"] {
        assert!(said.contains(words), "{said}");
    }
    let lines: Vec<String> = user.admin.asked().into_iter().map(|asked| asked.line).collect();
    let looks = lines.iter().filter(|line| line.starts_with("GET /operations/")).count();
    assert_eq!(looks, 2, "{lines:?}");
    user.run("az ml online-deployment create -e e -f green-deployment.yml --no-wait").await;
    assert_eq!(user.admin.asked().len(), 1, "--no-wait asks for nothing more");
    assert_eq!(user.run("az ml online-deployment get-logs -n blue -e e -l 7").await, "blue says\nhello\n");
    user.admin.asked_for("GET /endpoints/e/deployments/blue/logs?tail=7&container=inference-server");
}

#[tokio::test]
async fn who_is_overtaken_is_told() {
    let user = User::new().await;
    user.admin.declare(json!({"name": "e", "tags": {"moving": "yes"}}), &[]);
    let (code, said) = user.fail("az ml online-endpoint update -n e --set description=mine").await;
    assert!(code == 1 && said.contains("somebody else"), "{said}");
}

#[tokio::test]
async fn ctrl_c_ends_the_waiting_and_says_how_to_look() {
    let user = User::new().await.with_blue();
    let mut command = user.command("scoregate");
    command.args([
        "online-deployment",
        "create",
        "-n",
        "slow",
        "-e",
        "e",
        "--set",
        "environment_variables.HANG=1",
    ]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let id = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    // Whoever looks a second time listens to signals by then.
    let mut looks = 0;
    while looks < 2 {
        looks += user.admin.asked().iter().filter(|asked| asked.line.starts_with("GET /operations/")).count();
        tokio::task::yield_now().await;
    }
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("in the background") && said.contains("get-logs -n slow -e e"), "{said}");
}

#[tokio::test]
async fn an_endpoint_is_called_with_its_key_or_token() {
    let user = User::new().await.with_blue();
    let said = user
        .run("az ml online-endpoint invoke -n e --deployment-name green --request-file sample-request.json")
        .await;
    let said: String = serde_json::from_str(&said).expect("a JSON string, as az prints it");
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said, json!({"from": "green", "got": {"data": [[1, 2]]}}));
    assert_eq!(user.admin.asked_for("POST /score").headers["authorization"], "Bearer first");
    let bare = user.run("az ml online-endpoint invoke -n e -r sample-request.json -o tsv").await;
    assert!(bare.starts_with("{\"from\""), "{bare}");
    let (code, said) = user.fail("az ml online-endpoint invoke -n e -d broken -r sample-request.json").await;
    assert!(code == 1 && said.contains("502") && said.contains("model_error"), "{said}");

    user.run("az ml online-endpoint update -n e --set auth_mode=aml_token").await;
    user.admin.asked();
    user.run("az ml online-endpoint invoke -n e -r sample-request.json").await;
    assert_eq!(user.admin.asked_for("POST /score").headers["authorization"], "Bearer t0ken");
    assert_eq!(
        user.run("az ml online-endpoint get-credentials -n e -o tsv --query accessToken").await,
        "t0ken\n"
    );
}

#[tokio::test]
async fn keys_are_shown_and_made_anew() {
    let user = User::new().await.with_blue();
    assert_eq!(
        user.run("az ml online-endpoint get-credentials -n e -o tsv --query primaryKey").await,
        "first\n"
    );
    let printed =
        user.run("az ml online-endpoint regenerate-keys -n e --key-type Secondary --key-value -own-").await;
    assert_eq!(printed, "", "keys are not printed by the way");
    assert_eq!(
        user.admin.asked_for("POST /endpoints/e/keys/regenerate").body,
        json!({"keyType": "secondary", "keyValue": "-own-"})
    );
    user.run("az ml online-endpoint regenerate-keys -n e").await;
    assert_eq!(
        user.admin.asked_for("POST /endpoints/e/keys/regenerate").body,
        json!({"keyType": "primary", "keyValue": null})
    );
    let keys = user.run("az ml online-endpoint get-credentials -n e -o tsv --query secondaryKey").await;
    assert_eq!(keys, "-own-\n");
}

#[tokio::test]
async fn deleting_asks_and_the_router_may_refuse() {
    let user = User::new().await.with_blue();
    let (code, said) = user.fail("az ml online-deployment delete --name blue --endpoint e").await;
    assert!(code == 2 && said.contains("--yes"), "{said}");
    assert!(user.admin.asked().is_empty());
    let (code, said) = user.fail("az ml online-deployment delete --name blue --endpoint e --yes").await;
    assert_eq!((code, said.as_str()), (1, "scoregate: deployment blue still has traffic\n"));
    assert_eq!(user.run("az ml online-endpoint delete --name e --yes --no-wait").await, "");
    let (code, said) = user.fail("az ml online-endpoint show -n e").await;
    assert_eq!((code, said.as_str()), (1, "scoregate: there is no endpoint e\n"));
}

#[tokio::test]
async fn the_file_of_2021_is_the_whole_truth() {
    let user = User::new().await;
    user.run("az ml endpoint create -n e -f with-blue.yml").await;
    let asked = user.admin.asked_for("PUT /apply");
    let blue = json!({"name": "blue", "model": {"path": user.path("m.pkl")}, "instance_count": 2});
    assert_eq!(asked.body["deployments"], json!([blue]));
    assert_eq!(asked.body["endpoint"], json!({"name": "e", "auth_mode": "key", "traffic": {"blue": 100}}));
    let (code, said) = user.fail("az ml endpoint create -n e -f with-blue.yml").await;
    assert!(code == 1 && said.contains("exists already"), "{said}");
    let query =
        "az ml endpoint show --name e --query \"deployments[?name=='blue'].provisioning_state\" -o tsv";
    assert_eq!(user.run(query).await, "Succeeded\n");
    user.run("az ml endpoint update -n e -f green-only.yml").await;
    assert_eq!(user.run("az ml endpoint show -n e --query 'deployments[].name' -o tsv").await, "green\n");

    let line = "az ml endpoint update -n e --deployment blue --deployment-file green-alone.yml --traffic 'blue:10,green:90'";
    user.run(line).await;
    assert_eq!(user.run("az ml endpoint show -n e --query traffic -o tsv").await, "10\t90\n");
    user.run(line).await;
    user.run("az ml endpoint update -n e --traffic 'blue:0,green:100' && az ml endpoint delete -n e --deployment blue --yes").await;
    assert_eq!(user.run("az ml endpoint show -n e --query 'deployments[].name' -o tsv").await, "green\n");
    user.admin.asked();
    user.run("az ml endpoint update -n e -f endpoint.yml").await;
    assert!(
        user.admin.asked().iter().all(|asked| asked.line != "PUT /apply"),
        "without deployments none is deleted"
    );
}

#[tokio::test]
async fn versions_have_shares_and_a_default() {
    let user = User::new().await;
    user.run("az ml endpoint realtime create-version -n e --vn a --ic inferenceconfig.json --dc deploymentconfig.json --tp 20").await;
    let asked = user.admin.asked();
    let of = |line: &str| asked.iter().find(|asked| asked.line == line).unwrap().body.clone();
    assert_eq!(of("POST /endpoints"), json!({"name": "e", "profile": "aks-v1"}));
    let a = json!({
        "name": "a", "endpoint_name": "e", "instance_count": 1, "scale_settings": {"type": "default"},
        "request_settings": {"max_queue_wait_ms": 0}, "environment": {"conda_file": user.path("src/env.yml")},
        "code_configuration": {"code": user.path("src"), "scoring_script": "score.py"},
    });
    assert_eq!(of("POST /endpoints/e/deployments"), a);
    assert_eq!(of("PATCH /endpoints/e"), json!({"traffic": {"a": 20}}));

    user.run("az ml endpoint realtime create-version -n e --vn b --tp 10 --is-control-version-type true")
        .await;
    user.admin.asked();
    user.run("az ml endpoint realtime update-version -n e --vn b --tp 40 --is-default").await;
    assert_eq!(
        user.admin.asked_for("PATCH /endpoints/e").body,
        json!({"default": "b", "traffic": {"b": 40}})
    );
    user.run("az ml endpoint realtime update-version -n e --vn a --is-control-version-type true").await;
    let changes = user.admin.asked().into_iter().filter(|asked| asked.line.starts_with("PATCH"));
    let changes: Vec<_> = changes.map(|asked| (asked.line, asked.body)).collect();
    let kind = |name: &str, kind: &str| {
        (format!("PATCH /endpoints/e/deployments/{name}"), json!({"version_type": kind}))
    };
    assert_eq!(changes, [kind("b", "treatment"), kind("a", "control")]);
    user.run("az ml endpoint realtime update-version -n e --vn a --tp 0 && az ml endpoint realtime delete-version -n e --vn a").await;
    let shown = user
        .run("az ml endpoint realtime show -n e --query 'versions.b.[isDefault, trafficPercentile]' -o tsv")
        .await;
    assert_eq!(shown, "true\n40.0\n");
}

#[tokio::test]
async fn a_service_is_deployed_and_updated() {
    let user = User::new().await;
    let line = "az ml model deploy -m model.pkl -n svc --ct aks --ic inferenceconfig.json --dc deploymentconfig.json";
    user.run(line).await;
    let asked = user.admin.asked_for("POST /endpoints/svc/deployments");
    assert_eq!(asked.body["model"]["path"], json!(user.path("model.pkl").canonicalize().unwrap()));
    assert_eq!(
        user.run("az ml service show -n svc --query [state,computeType] -o tsv").await,
        "Healthy\nAKS\n"
    );
    assert_eq!(user.fail(line).await.0, 1);
    user.run(&format!("{line} --overwrite")).await;
    user.admin.asked();
    user.run("az ml service update -n svc --nr 2 --tags a=b").await;
    let bodies: Vec<_> =
        user.admin.asked().into_iter().filter(|asked| asked.line.starts_with("PATCH")).collect();
    assert_eq!(bodies[0].body, json!({"tags": {"a": "b"}}));
    assert_eq!(
        (bodies[1].line.as_str(), &bodies[1].body),
        ("PATCH /endpoints/svc/deployments/svc", &json!({"instance_count": 2}))
    );
    let said = user.run("az ml service run -n svc -d '{\"data\": 1}' -o tsv").await;
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["got"], json!({"data": 1}));
    assert_eq!(user.run("az ml service get-logs -n svc").await, "svc says\nhello\n");
    user.run("az ml service delete -n svc").await;
    assert_eq!(user.run("az ml service list").await, "[]\n");
}

#[tokio::test]
async fn wrong_usage_is_told_before_anything_is_asked() {
    let user = User::new().await;
    user.write("typo.yml", "name: e\ntype: online\ntrafic: {}\n");
    for (line, words) in [
        ("online-endpoint list --local", "--state"),
        ("online-endpoint create -f failing.yml --set a", "a.b=value"),
        ("online-deployment create -f failing.yml", "--endpoint-name"),
        ("online-endpoint update -n e --traffic blue=x", "0 to 100"),
        ("online-endpoint show -n e --query 'a['", "JMESPath"),
        ("online-endpoint show", "--name"),
    ] {
        let (code, said) = user.fail(&format!("az ml {line}")).await;
        assert!(code == 2 && said.contains(words), "{line}: {code} {said}");
    }
    let (code, said) = user.fail("az ml endpoint create -f typo.yml").await;
    assert!(code == 1 && said.contains("typo.yml") && said.contains("`traffic`"), "{said}");
    assert!(user.admin.asked().is_empty());
}

#[tokio::test]
async fn the_state_directory_says_where_and_with_which_key() {
    let user = User::new().await.with_blue();
    let url = format!("{{\"url\": \"http://{}\"}}", user.admin.address);
    user.write("state/admin.json", &url);
    user.write("state/admin.key", "open sesame\n");
    user.run("unset SCOREGATE_ADMIN; az ml online-endpoint list").await;
    assert_eq!(user.admin.asked_for("GET /endpoints").headers["authorization"], "Bearer open sesame");
    // 0.0.0.0 leads to this machine, but is not known to be it.
    let port = user.admin.address.port();
    user.run(&format!("scoregate online-endpoint list --admin http://0.0.0.0:{port}")).await;
    assert!(!user.admin.asked_for("GET /endpoints").headers.contains_key("authorization"));
    user.run("SCOREGATE_ADMIN_KEY=other az ml online-endpoint list").await;
    assert_eq!(user.admin.asked_for("GET /endpoints").headers["authorization"], "Bearer other");
}

#[tokio::test]
async fn every_verb_has_help_with_an_example() {
    let user = User::new().await;
    let groups = [
        ("online-endpoint", "create show list update delete invoke get-credentials regenerate-keys"),
        ("online-deployment", "create show list update delete get-logs"),
        ("endpoint", "create show list update delete invoke get-credentials regenerate-keys get-logs"),
        (
            "endpoint realtime",
            "create-version update-version delete-version delete get-access-token get-keys get-logs list regen-key run show update",
        ),
        ("service", "delete get-access-token get-keys get-logs list regen-key run show update"),
        ("model", "deploy"),
    ];
    for (group, verbs) in groups {
        for verb in verbs.split(' ') {
            let help = user.run(&format!("scoregate {group} {verb} --help")).await;
            assert!(help.contains("Example") && help.contains("scoregate "), "{group} {verb}");
        }
    }
}

#[tokio::test]
async fn shells_and_manuals_know_the_verbs() {
    let user = User::new().await;
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            user.run(&format!("scoregate completions {shell}")).await.contains("get-credentials"),
            "{shell}"
        );
    }
    assert!(user.run("scoregate man").await.contains("inference router"));
    user.run("scoregate man --dir pages").await;
    let page = std::fs::read_to_string(user.path("pages/scoregate-online-endpoint-invoke.1")).unwrap();
    assert!(page.contains("request\\-file") || page.contains("request-file"), "{page}");
}

#[tokio::test]
async fn every_command_of_the_page_runs() {
    let user = User::new().await;
    let page = include_str!("../docs/azure.md");
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let script: String = blocks.filter(|block| !block.contains("serve")).collect();
    assert!(script.matches("az ml").count() > 20, "{script}");
    let output = user.sh(&script).await;
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
}

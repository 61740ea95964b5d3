//! The description of the admin API is true: schemathesis finds no server error and no answer that it does not allow.

use std::path::Path;
use std::process::Command;

use http::Method;
use serde_json::json;

use crate::admin::Router;

#[tokio::test]
async fn schemathesis_finds_nothing() {
    let program = schemathesis();
    let router = Router::start("declared-schema").await;
    // Not a command: the number of replicas is one of the things that are tried out.
    router.change(Method::POST, "/endpoints", json!({ "name": "shop" })).await;
    let itself = format!("http://{}", router.process.data);
    let blue = json!({ "name": "blue", "replicas": [itself], "readiness_probe": { "initial_delay": 0 } });
    router.change(Method::POST, "/endpoints/shop/deployments", blue).await;
    let support = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support");
    let output = tokio::process::Command::new(program)
        .arg("--config-file")
        .arg(support.join("schemathesis.toml"))
        .arg("run")
        .arg(format!("http://{}/openapi.json", router.process.admin))
        .args(["--exclude-path", "/events", "--max-examples", "15", "--seed", "1"])
        .args(["-H", &format!("Authorization: Bearer {}", router.key("admin.key"))])
        .current_dir(router.folder.path())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("Tested: 29"), "{said}");
    // A panic would have ended its task without an answer.
    let log = std::fs::read_to_string(router.process.log()).unwrap();
    assert!(!log.contains("panicked"), "{log}");
}

/// Installs it where it is missing, and says where it is.
fn schemathesis() -> std::path::PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = root.join("tests/support/schemathesis.sh");
    let status = Command::new("bash").arg(&script).status().unwrap();
    assert!(status.success(), "{} did not succeed; it said why on standard error", script.display());
    root.join("target/schemathesis/bin/schemathesis")
}

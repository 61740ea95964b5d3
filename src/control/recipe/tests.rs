//! Every rule of a document, with real folders, files and programs; one test makes a real Python environment.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use serde_json::json;
use tempfile::TempDir;

use super::*;

/// A folder with a model, a script, and an interpreter that is none.
struct Machine {
    folder: TempDir,
    tools: Tools,
}

impl Machine {
    /// With `--python`.
    fn new() -> Self {
        let mut machine = Self::without_python();
        machine.program("venv/bin/azmlinfsrv");
        machine.tools.python = Some(machine.program("venv/bin/python"));
        machine
    }

    fn without_python() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut tools = Tools::new(None, folder.path().join("cache"));
        tools.path = folder.path().join("bin").into_os_string();
        let machine = Self { folder, tools };
        machine.file("model-1/model/model.joblib", "");
        machine.file("model-1/onlinescoring/score.py", "");
        machine
    }

    fn path(&self, path: &str) -> String {
        self.folder.path().join(path).to_str().unwrap().to_owned()
    }

    fn file(&self, path: &str, text: &str) -> String {
        let file = self.folder.path().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
        self.path(path)
    }

    fn program(&self, path: &str) -> PathBuf {
        let file =
            PathBuf::from(self.file(path, "#!/bin/sh\necho 3.11.7 cpython x86_64 /usr/bin/python3.11\n"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        file
    }

    /// The tutorial's deployment, changed by a merge.
    fn blue(&self, change: Value) -> Map<String, Value> {
        let document = json!({
            "name": "blue",
            "model": { "path": self.path("model-1/model/") },
            "code_configuration": { "code": self.path("model-1/onlinescoring"), "scoring_script": "score.py" },
        });
        let (Value::Object(document), Value::Object(change)) = (document, change) else { panic!("two maps") };
        document.into_iter().chain(change).collect()
    }

    fn recipe(&self, change: Value) -> Result<Recipe, RecipeError> {
        recipe(&self.blue(change), &self.tools)
    }

    /// A document of its own.
    fn of(&self, document: Value) -> Result<Recipe, RecipeError> {
        let Value::Object(document) = document else { panic!("a map") };
        recipe(&document, &self.tools)
    }

    #[track_caller]
    fn refuses(&self, change: Value, code: &str, words: &[&str]) {
        let error = self.recipe(change).unwrap_err();
        assert_eq!(error.code, code, "{error}");
        for word in words {
            assert!(error.message.contains(word), "{word:?} is not in {:?}", error.message);
        }
    }
}

/// Command, directory and environment.
#[track_caller]
fn process(recipe: &Recipe) -> (&[String], Option<&Path>, &BTreeMap<String, String>) {
    match &recipe.source {
        Source::Process { command, directory, environment } => (command, directory.as_deref(), environment),
        Source::Replicas(_) => panic!("{recipe:?}"),
    }
}

#[test]
fn a_scoring_script_runs_on_the_model_server_of_the_given_python() {
    let machine = Machine::new();
    let recipe = machine.recipe(json!({ "environment_variables": { "LEVEL": "high", "N": 2 } })).unwrap();
    let (command, directory, environment) = process(&recipe);
    let script = machine.path("model-1/onlinescoring/score.py");
    assert_eq!(
        command,
        [&machine.path("venv/bin/azmlinfsrv"), "--entry_script", &script, "--port", "{port}"]
    );
    assert_eq!(directory, Some(machine.folder.path().join("model-1/onlinescoring").as_path()));
    assert_eq!(environment["AZUREML_MODEL_DIR"], machine.path("model-1"));
    assert_eq!((environment["LEVEL"].as_str(), environment["N"].as_str()), ("high", "2"));
    assert_eq!(recipe.routes, Routes::azureml());
    assert_eq!((recipe.environment, recipe.no_effect), (None, vec![]));
}

#[test]
fn an_interpreter_without_the_command_runs_the_module() {
    let mut machine = Machine::new();
    machine.tools.python = Some(machine.program("usr/python3"));
    let recipe = machine.recipe(json!({})).unwrap();
    assert_eq!(
        process(&recipe).0[..3],
        [&machine.path("usr/python3"), "-m", "azureml_inference_server_http"]
    );
}

#[test]
fn the_folder_of_a_model_holds_the_last_part_of_its_path() {
    let machine = Machine::new();
    let folder_for = |model: Value| {
        let recipe = machine.recipe(json!({ "model": model })).unwrap();
        process(&recipe).2["AZUREML_MODEL_DIR"].clone()
    };
    for path in ["model-1/model", "model-1/model/", "model-1/model/."] {
        assert_eq!(folder_for(json!({ "path": machine.path(path) })), machine.path("model-1"), "{path}");
    }
    let file = machine.path("model-1/model/model.joblib");
    assert_eq!(folder_for(json!({ "local_path": file })), machine.path("model-1/model"));
    let up = folder_for(json!({ "path": machine.path("model-1/model/..") }));
    assert_eq!(Path::new(&up), machine.folder.path().canonicalize().unwrap(), "model-1 is the last part");
    machine.refuses(
        json!({ "model": { "path": "/" } }),
        "BadArgument",
        &["`model.path`", "AZUREML_MODEL_DIR"],
    );
}

#[test]
fn a_variable_of_the_document_beats_one_of_the_recipe() {
    let machine = Machine::new();
    let variables =
        json!({ "environment_variables": { "AZUREML_MODEL_DIR": "/elsewhere", "PYTHONUNBUFFERED": "" } });
    let recipe = machine.recipe(variables).unwrap();
    let environment = process(&recipe).2;
    assert_eq!(
        (environment["AZUREML_MODEL_DIR"].as_str(), environment["PYTHONUNBUFFERED"].as_str()),
        ("/elsewhere", "")
    );
}

#[test]
fn a_script_needs_no_model() {
    let machine = Machine::new();
    let recipe = machine.recipe(json!({ "model": null })).unwrap();
    assert!(!process(&recipe).2.contains_key("AZUREML_MODEL_DIR"));
}

#[test]
fn what_is_not_there_is_named_with_its_place() {
    let machine = Machine::new();
    let code = |code: &str, script: &str| json!({ "code_configuration": { "code": code, "scoring_script": script } });
    let folder = machine.path("model-1/onlinescoring");
    machine.refuses(
        code(&folder, "other.py"),
        "ResourceNotFound",
        &["`code_configuration.scoring_script`", "onlinescoring/other.py"],
    );
    machine.refuses(
        code("/no/such", "score.py"),
        "ResourceNotFound",
        &["`code_configuration.code`", "/no/such"],
    );
    machine.refuses(
        code("relative", "score.py"),
        "BadArgument",
        &["`code_configuration.code`", "relative path"],
    );
    let only = json!({ "code_configuration": { "code": folder } });
    machine.refuses(only, "BadArgument", &["both `code`", "`scoring_script`"]);
    let missing = json!({ "model": { "path": "/no/such" } });
    machine.refuses(missing, "ResourceNotFound", &["`model.path`", "/no/such"]);
    machine.refuses(json!({ "model": { "name": "m" } }), "BadArgument", &["`model` has no `path`"]);
    machine.refuses(json!({ "model": { "path": 3 } }), "BadArgument", &["`model.path` must be a text"]);
    machine.refuses(
        json!({ "environment_variables": { "A": [] } }),
        "BadArgument",
        &["`environment_variables.A`"],
    );
}

#[test]
fn assets_of_a_workspace_are_refused_with_what_to_do() {
    let machine = Machine::new();
    machine.refuses(json!({ "model": "azureml:m:1" }), "ResourceNotFound", &["azureml:m:1", "download it"]);
    machine.refuses(
        json!({ "model": { "path": "azureml://datastores/d/paths/m" } }),
        "ResourceNotFound",
        &["`model.path`", "download it"],
    );
    let code = json!({ "code_configuration": { "code": "azureml:c:1", "scoring_script": "score.py" } });
    machine.refuses(code, "ResourceNotFound", &["`code_configuration.code`"]);
}

#[test]
fn with_python_the_environment_of_the_document_has_no_effect() {
    let machine = Machine::new();
    let no_effect = |environment: Value| {
        let recipe = machine.recipe(json!({ "environment": environment })).unwrap();
        assert_eq!(recipe.environment, None);
        recipe.no_effect
    };
    assert_eq!(no_effect(json!("azureml:sklearn-env:3")), ["environment"]);
    let both =
        json!({ "name": "e", "version": 1, "os_type": "linux", "conda_file": "/no/such", "image": "i:1" });
    assert_eq!(no_effect(both), ["environment.conda_file", "environment.image"]);
    assert_eq!(no_effect(json!({ "build": { "path": "/x" } })), ["environment.build"]);
    assert!(no_effect(json!({ "name": "e" })).is_empty());
}

#[test]
fn without_python_and_conda_file_the_error_names_the_flag() {
    let machine = Machine::without_python();
    for environment in
        [Value::Null, json!("azureml:e:1"), json!({ "image": "i:1" }), json!({ "build": { "path": "/x" } })]
    {
        machine.refuses(
            json!({ "environment": environment }),
            "InvalidDeploymentSpec",
            &["`--python`", "conda_file"],
        );
    }
    machine.refuses(json!({ "environment": 7 }), "BadArgument", &["`environment` must be a map"]);
}

#[test]
fn a_conda_file_becomes_an_environment_called_after_its_packages() {
    let machine = Machine::without_python();
    machine.program("bin/python3");
    let file = |text: &str| {
        let file = machine.file("env/conda.yaml", text);
        machine.recipe(json!({ "environment": { "conda_file": file, "image": "i:1" } })).unwrap()
    };
    let first = file("name: e\ndependencies:\n- python=3.11\n- numpy=2\n- pip: [joblib==1.6.0]\n");
    let environment = first.environment.clone().unwrap();
    assert!(!environment.is_there());
    let (command, ..) = process(&first);
    assert!(
        command[0].starts_with(&machine.path("cache")) && command[0].ends_with("/bin/azmlinfsrv"),
        "{command:?}"
    );
    assert_eq!(first.no_effect, ["environment.image"]);

    let same = file("name: other\nchannels: [c]\ndependencies: [numpy=2, {pip: [joblib==1.6.0]}]\n");
    assert_eq!(same.environment.as_ref(), Some(&environment), "names and channels make no other environment");
    assert_ne!(
        file("dependencies: [numpy=2, {pip: [joblib==1.7.0]}]\n").environment,
        Some(environment.clone())
    );

    let inline = json!({ "dependencies": ["numpy=2", { "pip": ["joblib==1.6.0"] }] });
    let inline = machine.recipe(json!({ "environment": { "conda_file": inline } })).unwrap();
    assert_eq!(inline.environment, Some(environment));
}

#[test]
fn files_that_requirements_name_are_part_of_the_environments_name() {
    let machine = Machine::without_python();
    machine.program("bin/python3");
    let conda = machine.file("env/conda.yaml", "dependencies: [{pip: [-r more.txt]}]\n");
    let of_now =
        || machine.recipe(json!({ "environment": { "conda_file": conda } })).map(|recipe| recipe.environment);
    assert!(of_now().unwrap_err().message.contains("more.txt"));
    machine.file("env/more.txt", "numpy==1\n");
    let before = of_now().unwrap();
    machine.file("env/more.txt", "numpy==2\n");
    assert_ne!(of_now().unwrap(), before);
}

#[test]
fn another_python_than_the_file_asks_for_is_told() {
    let machine = Machine::without_python();
    machine.program("bin/python3");
    for (spec, told) in
        [("python=3.11", false), ("python=3.9", true), ("python>=3.8", true), ("python", false)]
    {
        let file = json!({ "conda_file": { "dependencies": [spec] } });
        let recipe = machine.recipe(json!({ "environment": file })).unwrap();
        let expected: &[&str] = if told { &["environment.conda_file.dependencies.python"] } else { &[] };
        assert_eq!(recipe.no_effect, expected, "{spec}");
    }
}

#[test]
fn a_conda_file_that_cannot_be_read_is_named() {
    let machine = Machine::without_python();
    machine.program("bin/python3");
    let gone = json!({ "environment": { "conda_file": "/no/such.yaml" } });
    machine.refuses(gone, "ResourceNotFound", &["`environment.conda_file`", "/no/such.yaml"]);
    let broken = machine.file("conda.yaml", "dependencies: [\n");
    let broken = json!({ "environment": { "conda_file": broken } });
    machine.refuses(broken, "BadArgument", &["conda.yaml is not a conda file"]);
}

#[test]
fn a_python_that_has_no_model_server_is_told_before_it_fails() {
    let machine = Machine::new();
    machine.file("venv/pyvenv.cfg", "include-system-site-packages = false\n");
    machine.refuses(json!({}), "ResourceNotFound", &["has no model server", "pip install"]);
    machine.file("venv/lib/python3.11/site-packages/azureml_inference_server_http/__init__.py", "");
    machine.recipe(json!({})).unwrap();
}

#[test]
fn routes_come_from_the_environment_or_the_deployment() {
    let machine = Machine::new();
    let config = json!({
        "scoring_route": { "path": "/v1/predict", "port": 8501 },
        "liveness_route": { "path": "/live", "port": 8501 },
        "readiness_route": { "path": "/ready", "port": 8501 },
    });
    let recipe = machine.recipe(json!({ "environment": { "inference_config": config } })).unwrap();
    let expected = Routes {
        scoring: "/v1/predict".to_owned(),
        swagger: "/swagger.json".to_owned(),
        liveness: "/live".to_owned(),
        readiness: "/ready".to_owned(),
    };
    assert_eq!(recipe.routes, expected);
    let ports = ["liveness_route", "readiness_route", "scoring_route"];
    assert_eq!(recipe.no_effect, ports.map(|route| format!("environment.inference_config.{route}.port")));

    let own = json!({ "inference_config": { "scoring_route": { "path": "/own" } } });
    assert_eq!(machine.recipe(own).unwrap().routes.scoring, "/own");
    let relative = json!({ "inference_config": { "scoring_route": { "path": "own" } } });
    machine.refuses(relative, "BadArgument", &["`inference_config.scoring_route.path`", "begins with `/`"]);
    let two =
        json!({ "inference_config": { "scoring_route": { "port": 1 }, "liveness_route": { "port": 2 } } });
    machine.refuses(two, "BadArgument", &["`inference_config.liveness_route.port` is 2", "one port"]);
}

#[test]
fn an_mlflow_model_runs_on_mlflows_server() {
    let machine = Machine::new();
    machine.file("mlflow-model/MLmodel", "");
    let model = json!({ "name": "blue", "model": { "path": machine.path("mlflow-model") } });
    let error = machine.of(model.clone()).unwrap_err();
    assert_eq!(error.code, "InvalidDeploymentSpec");
    assert!(error.message.contains("pip install mlflow"), "{error}");

    machine.program("bin/mlflow");
    let recipe = machine.of(model.clone()).unwrap();
    assert_eq!(process(&recipe).0[0], machine.path("bin/mlflow"));
    machine.program("venv/bin/mlflow");
    let recipe = machine.of(model).unwrap();
    let (command, directory, environment) = process(&recipe);
    let path = machine.path("mlflow-model");
    assert_eq!(command[0], machine.path("venv/bin/mlflow"), "the one beside --python comes first");
    assert_eq!(
        command[1..].join(" "),
        format!("models serve --model-uri {path} --host 127.0.0.1 --port {{port}} --env-manager local")
    );
    assert_eq!(directory, None);
    assert!(environment["PATH"].starts_with(&format!("{}:", machine.path("venv/bin"))), "{environment:?}");
    assert_eq!(recipe.routes, Routes::mlflow());

    let script = machine.recipe(json!({ "model": { "path": path, "type": "mlflow_model" } })).unwrap();
    assert!(process(&script).0[0].ends_with("azmlinfsrv"), "code comes before MLflow's server");
}

#[test]
fn kinds_of_models_are_checked() {
    let machine = Machine::new();
    let path = machine.path("model-1/model");
    let of = |kind: &str| json!({ "model": { "path": path, "type": kind } });
    machine.refuses(of("mlflow_model"), "ResourceNotFound", &["no file `MLmodel`"]);
    machine.refuses(of("onnx"), "BadArgument", &["`onnx`", "`custom_model`"]);
    let error = machine.of(of("triton_model")).unwrap_err();
    assert_eq!(error.code, "InvalidDeploymentSpec");
    assert!(error.message.contains("Triton") && error.message.contains("process.command"), "{error}");
    let error = machine.of(of("custom_model")).unwrap_err();
    assert!(error.message.contains("no `code_configuration`"), "{error}");
}

#[test]
fn a_container_alone_is_refused_with_what_would_be_needed() {
    let machine = Machine::new();
    for environment in [json!({ "image": "tensorflow/serving" }), json!({ "build": { "path": "/x" } })] {
        let model = json!({ "path": machine.path("model-1/model") });
        for model in [Value::Null, model] {
            let error = machine.of(json!({ "environment": environment, "model": model })).unwrap_err();
            assert_eq!(error.code, "InvalidDeploymentSpec");
            assert!(
                error.message.contains("`replicas:") && error.message.contains("process.command"),
                "{error}"
            );
        }
    }
}

#[test]
fn commands_and_lists_are_taken_as_they_are() {
    let machine = Machine::without_python();
    let recipe = machine
        .of(json!({
            "process": { "command": ["serve", "{port}"], "directory": "/srv", "ports": "20000-20010" },
            "environment_variables": { "A": "b" },
            "environment": { "inference_config": { "scoring_route": { "path": "/predict" } } },
            "model": "azureml:m:1",
        }))
        .unwrap();
    let (command, directory, environment) = process(&recipe);
    assert_eq!((command.join(" ").as_str(), directory), ("serve {port}", Some(Path::new("/srv"))));
    assert_eq!(environment, &BTreeMap::from([("A".to_owned(), "b".to_owned())]));
    assert_eq!(recipe.routes.scoring, "/predict");
    assert_eq!(recipe.no_effect, ["model"]);

    let recipe = machine
        .of(json!({
            "replicas": ["http://10.0.0.1:80"], "instance_count": 1, "environment_variables": { "A": "b" },
            "process": { "start_timeout_s": 5 },
        }))
        .unwrap();
    assert_eq!(recipe.source, Source::Replicas(vec!["http://10.0.0.1:80".to_owned()]));
    assert_eq!(recipe.no_effect, ["environment_variables", "instance_count", "process"]);
}

#[test]
fn a_document_must_choose_one_way() {
    let machine = Machine::new();
    let both = json!({ "replicas": ["http://h:1"], "process": { "command": ["x"] } });
    assert!(machine.of(both).unwrap_err().message.contains("both `replicas` and `process.command`"));
    let error = machine.of(json!({ "name": "blue" })).unwrap_err();
    assert_eq!(error.code, "BadArgument");
    for way in ["code_configuration", "mlflow_model", "process.command", "replicas"] {
        assert!(error.message.contains(way), "{error}");
    }
    assert!(machine.of(json!({ "replicas": [] })).unwrap_err().message.contains("at least one"));
    let relative = json!({ "process": { "command": ["x"], "directory": "here" } });
    assert!(machine.of(relative).unwrap_err().message.contains("`process.directory` is `here`"));
}

#[test]
fn keys_that_mean_nothing_here_are_listed_and_labels_are_not() {
    let machine = Machine::new();
    let recipe = machine
        .recipe(json!({
            "$schema": "s", "endpoint_name": "e", "type": "kubernetes", "description": "d", "tags": { "a": "b" },
            "properties": { "a": "b" }, "version_type": "control", "instance_count": 2,
            "request_settings": { "max_queue_wait_ms": 1 }, "scale_settings": { "type": "default" },
            "liveness_probe": { "period": 1 }, "readiness_probe": { "period": 1 }, "provisioning_state": "Succeeded",
            "process": { "start_timeout_s": 5, "directory": "/x" },
            "instance_type": "Standard_DS3_v2", "resources": { "requests": { "cpu": "0.1" } },
            "app_insights_enabled": true, "data_collector": { "collections": {} }, "startup_probe": { "period": 1 },
            "model_mount_path": "/m", "egress_public_network_access": "disabled", "private_network_connection": false,
        }))
        .unwrap();
    let expected = [
        "app_insights_enabled",
        "data_collector",
        "egress_public_network_access",
        "instance_type",
        "model_mount_path",
        "process.directory",
        "resources",
        "startup_probe",
    ];
    assert_eq!(recipe.no_effect, expected);
}

/// A wheel with one module, written by Python's own zip; pip installs it without a network.
fn wheel(machine: &Machine) -> String {
    let path = machine.path("demo-1.0-py3-none-any.whl");
    let script = "import sys, zipfile\n\
        with zipfile.ZipFile(sys.argv[1], 'w') as z:\n    \
        z.writestr('demo.py', 'value = 42')\n    \
        z.writestr('demo-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: demo\\nVersion: 1.0\\n')\n    \
        z.writestr('demo-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n    \
        z.writestr('demo-1.0.dist-info/RECORD', '')\n";
    assert!(Command::new("python3").args(["-c", script, &path]).status().unwrap().success());
    path
}

#[tokio::test]
async fn an_environment_is_made_once_shared_and_a_broken_one_leaves_nothing() {
    let machine = Machine::without_python();
    let tools = Tools::new(None, machine.folder.path().join("cache"));
    let interpreter = tools.interpreter(None).unwrap();
    let of = |requirement: String| {
        PythonEnvironment::of(&tools.cache, interpreter.clone(), vec![requirement]).unwrap()
    };

    let broken = of("/no/such-1.0-py3-none-any.whl".to_owned());
    let error = prepare(&broken, |_| {}).await.unwrap_err();
    assert_eq!(error.code, "ImageBuildFailure");
    assert!(error.message.contains("`pip install` failed") && error.message.contains("such-1.0"), "{error}");
    assert!(!broken.is_there() && !broken.folder().exists());

    let environment = of(wheel(&machine));
    // What a build that was killed left.
    std::fs::create_dir_all(environment.folder().join("bin")).unwrap();
    let phases = [Mutex::new(Vec::new()), Mutex::new(Vec::new())];
    let note = |index: usize| {
        let phases = &phases;
        move |phase: &str| phases[index].lock().unwrap().push(phase.to_owned())
    };
    let (first, second) = tokio::join!(prepare(&environment, note(0)), prepare(&environment, note(1)));
    assert_eq!((first, second), (Ok(()), Ok(())));
    assert_eq!(
        *phases[0].lock().unwrap(),
        ["preparing the Python environment", "installing Python packages (1 requirements)"]
    );
    assert!(phases[1].lock().unwrap().iter().all(|phase| phase.starts_with("waiting")), "{phases:?}");
    assert!(environment.is_there());
    let python = environment.folder().join("bin/python");
    let output = Command::new(python).args(["-c", "import demo; print(demo.value)"]).output().unwrap();
    assert_eq!(output.stdout, b"42\n", "{output:?}");
    let mode = environment.folder().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

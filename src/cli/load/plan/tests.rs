//! What arguments become, and what is said of those that are wrong.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    load: LoadArgs,
}

fn line(arguments: &[&str]) -> Result<LoadArgs, clap::Error> {
    let all = ["load", "http://127.0.0.1:8080/score"].into_iter().chain(arguments.iter().copied());
    Line::try_parse_from(all).map(|line| line.load)
}

fn plan(arguments: &[&str]) -> Result<Plan, PlanError> {
    Plan::new(&line(arguments).unwrap(), None)
}

fn usage_error(arguments: &[&str]) -> String {
    match plan(arguments) {
        Err(PlanError::Usage(text)) => text,
        Err(PlanError::File { .. }) => panic!("a file: {arguments:?}"),
        Ok(_) => panic!("accepted: {arguments:?}"),
    }
}

fn authorization(plan: &Plan, number: u64) -> String {
    plan.headers_of(number)[AUTHORIZATION].to_str().unwrap().to_owned()
}

#[test]
fn defaults_are_what_help_says() {
    let plan = plan(&[]).unwrap();
    assert_eq!((plan.rate, plan.arrivals, plan.max_in_flight), (50.0, Arrivals::Constant, 1024));
    assert_eq!((plan.warm_up, plan.timeout), (Duration::from_secs(1), Duration::from_secs(60)));
    assert_eq!(plan.length, Length::Time(DURATION));
    assert_eq!(plan.method, Method::POST);
    assert_eq!(plan.body, BODY);
    let headers = plan.headers_of(0);
    assert_eq!(headers[CONTENT_TYPE], "application/json");
    assert!(!headers.contains_key(AUTHORIZATION) && !headers.contains_key(DEPLOYMENT));
}

#[test]
fn wrong_values_name_flag_value_and_what_is_allowed() {
    let wrong: [(&[&str], &[&str]); 9] = [
        (&["--rate", "0"], &["'0'", "--rate", "from 0.001"]),
        (&["--rate", "-1"], &["'-1'", "--rate", "from 0.001"]),
        (&["--rate", "NaN"], &["'NaN'", "--rate", "from 0.001"]),
        (&["--rate", "1e12"], &["'1e12'", "--rate", "to 1000000"]),
        (&["--duration", "10"], &["'10'", "--duration", "unit"]),
        (&["--max-in-flight", "0"], &["'0'", "--max-in-flight", "from 1 to 100000"]),
        (&["--timeout", "2h"], &["'2h'", "--timeout", "1 h"]),
        (&["--duration", "1s", "--requests", "5"], &["--duration", "--requests"]),
        (&["--seed", "1"], &["--poisson"]),
    ];
    for (arguments, words) in wrong {
        let error = line(arguments).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
}

#[test]
fn what_does_not_fit_together_is_refused() {
    assert!(usage_error(&["--insecure"]).contains("https://"));
    assert!(usage_error(&["--header", "no-colon"]).contains("'Name: value'"));
    assert!(usage_error(&["--header", "a b: c"]).contains("'Name: value'"));
    assert!(usage_error(&["--header", "Content-Length: 3"]).contains("cannot be set"));
    assert!(usage_error(&["--header", "Host: a b"]).contains("host name"));
    assert!(usage_error(&["--key", "k", "--header", "authorization: Basic x"]).contains("not both"));
    assert!(
        usage_error(&["--deployment", "a", "--header", "azureml-model-deployment: b"]).contains("not both")
    );
    assert!(usage_error(&["--deployment", ""]).contains("--deployment"));
    assert!(usage_error(&["--key", " "]).contains("--key number 1 is empty"));
}

#[test]
fn secrets_are_in_no_error_and_in_no_debug() {
    for arguments in
        [&["--key", "hush\u{1}"], &["--header", "x: hush\u{1}"], &["--header", "Authorization hush"]]
    {
        assert!(!usage_error(arguments).contains("hush"));
        assert!(!format!("{:?}", line(arguments).unwrap()).contains("hush"));
    }
    let plan = plan(&["--key", "hush", "--header", "x-token: hush"]).unwrap();
    assert!(!format!("{:?}", plan.headers_of(0)).contains("hush"));
}

#[test]
fn every_key_meets_every_deployment() {
    let plan = plan(&["--key", "a", "--key", "b", "--deployment", "blue", "--deployment", "green"]).unwrap();
    let pairs: Vec<String> = (0..4)
        .map(|k| format!("{} {}", authorization(&plan, k), plan.headers_of(k)[DEPLOYMENT].to_str().unwrap()))
        .collect();
    assert_eq!(pairs, ["Bearer a blue", "Bearer b blue", "Bearer a green", "Bearer b green"]);
}

#[test]
fn key_files_have_a_key_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let file = path.to_str().unwrap();
    std::fs::write(&path, "first\r\n\n  second  \n").unwrap();
    let plan = plan(&["--key-file", file]).unwrap();
    assert_eq!([authorization(&plan, 0), authorization(&plan, 1)], ["Bearer first", "Bearer second"]);
    std::fs::write(&path, " \n\n").unwrap();
    assert!(usage_error(&["--key-file", file]).contains("holds no key"));
    std::fs::write(&path, "good\nhu\u{1}sh").unwrap();
    let error = usage_error(&["--key-file", file]);
    assert!(error.contains("line 2") && !error.contains("sh"), "{error}");
    let missing =
        Plan::new(&line(&["--key-file", "/nowhere/keys"]).unwrap(), None).err().unwrap().to_string();
    assert!(missing.contains("/nowhere/keys") && missing.contains("--key-file"), "{missing}");
}

#[test]
fn the_key_of_the_environment_is_for_when_no_other_is_given() {
    let key = || Some(SecretString::from("from outside"));
    let plan = |arguments: &[&str]| Plan::new(&line(arguments).unwrap(), key()).unwrap();
    assert_eq!(authorization(&plan(&[]), 0), "Bearer from outside");
    assert_eq!(authorization(&plan(&["--key", "given"]), 1), "Bearer given");
    assert_eq!(authorization(&plan(&["--header", "Authorization: Basic x"]), 0), "Basic x");
}

#[test]
fn bodies_come_from_text_or_file_and_get_has_none() {
    assert_eq!(plan(&["--data", "{}"]).unwrap().body, "{}");
    assert_eq!(plan(&["--data-file", "Cargo.toml"]).unwrap().body, std::fs::read("Cargo.toml").unwrap());
    let get = plan(&["--get"]).unwrap();
    assert_eq!((get.method, get.body.len()), (Method::GET, 0));
    assert!(line(&["--get", "--data", "x"]).is_err());
    assert!(matches!(plan(&["--data-file", "src"]), Err(PlanError::File { .. })));
    let own = plan(&["--header", "content-type: text/csv", "--header", "Host: other:81"]).unwrap();
    assert_eq!(own.headers[CONTENT_TYPE], "text/csv");
    assert_eq!(own.target.authority.as_str(), "other:81");
    assert_eq!(own.target.host, "127.0.0.1");
}

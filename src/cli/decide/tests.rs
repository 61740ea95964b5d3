//! What is answered to which lines.

use super::{DecideArgs, serve};

use clap::Parser;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: DecideArgs,
}

const CONFIG: &str = r#"{"type":"config","tick":1,"c":1,"min":1,"max":50,"queue_wait":0.5,"initial_replicas":4,"target_utilization":0.7}"#;

fn tick(t: u32, ready: u32, inflight: u32, queue: u32, rejected: u32) -> String {
    format!(
        r#"{{"type":"tick","t":{t}.000,"dt":1.000,"ready":{ready},"starting":0,"draining":0,"target":{ready},"inflight":{inflight},"inflight_draining":0,"busy":{inflight},"queue":{queue},"inflight_avg":{inflight}.5,"busy_avg":2.1,"queue_avg":0,"peak":3,"arrivals":3,"admitted":3,"completed":1,"rejected":{rejected},"service_sum":0.5,"service_sq":0,"wait_max":0,"oldest_wait":0,"cold_n":0,"cold_sum":0,"cold_max":0,"c":1,"min":1,"max":50}}"#
    )
}

fn run(arguments: &[&str], lines: &[String]) -> (Vec<serde_json::Value>, Result<(), String>) {
    let args = Cli::try_parse_from([&["decide"], arguments].concat()).expect("arguments").args;
    let mut output = Vec::new();
    let done = serve(&args, &mut lines.join("\n").as_bytes(), &mut output);
    let answers = String::from_utf8(output).expect("text");
    let answers = answers.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    (answers, done.map_err(|error| error.to_string()))
}

#[test]
fn one_line_answers_each_evaluation() {
    let lines = [CONFIG.to_owned(), tick(1, 4, 4, 3, 0), tick(2, 10, 4, 0, 0)];
    let (answers, done) = run(&[], &lines);
    assert_eq!(done, Ok(()));
    let replicas: Vec<_> = answers.iter().map(|answer| &answer["replicas"]).collect();
    assert_eq!(replicas, [10, 10]);
    assert!(answers[0]["reason"].as_str().expect("text").contains("over the target of 70 %"));
    assert_eq!(answers[0].get("numbers"), None);
}

#[test]
fn each_policy_sees_what_is_its_own() {
    let lines = [CONFIG.to_owned(), tick(1, 4, 2, 3, 2)];
    let one = |arguments: &[&str]| {
        let (answers, done) = run(arguments, &lines);
        assert_eq!(done, Ok(()));
        answers[0].clone()
    };
    let strict = one(&["--policy", "azureml-strict"]);
    assert_eq!(strict["replicas"], 4);
    assert_eq!(one(&["--policy", "azureml-strict", "--count-queue"])["replicas"], 8);
    assert_eq!(one(&["--policy", "azureml"])["replicas"], 10);
    assert_eq!(one(&["--set", "scale_settings.target_utilization_percentage=50"])["replicas"], 14);
    assert_eq!(one(&["--set", "max_instances=9"])["replicas"], 9);
    let adaptive =
        one(&["--policy", "adaptive", "--explain", "--set", "scale_settings.reject_budget_percentage=0.1"]);
    let numbers = &adaptive["numbers"];
    assert_eq!(numbers["kind"], "adaptive");
    assert_eq!(numbers["offered"], 1.5);
    assert_eq!(numbers["correction"], 0.0);
    let longer =
        one(&["--policy", "adaptive", "--explain", "--set", "request_settings.max_queue_wait_ms=5000"]);
    assert_eq!(longer["numbers"]["queue_wait"], 5.0);
    assert_eq!(longer["numbers"]["correction"], serde_json::Value::Null);
}

#[test]
fn a_bad_line_is_named_by_its_number() {
    let good = || tick(1, 4, 2, 3, 2);
    let with = |name: &str| good().replace("\"c\":1,", &format!("\"c\":1,\"{name}\":-1,"));
    let cases = [
        (vec![good()], "line 1: the first line must be the configuration"),
        (vec!["[1]".to_owned()], "line 1: it must be a JSON object"),
        (vec![CONFIG.replace("\"tick\":1,", "")], "line 1: `tick` is missing"),
        (vec![CONFIG.replace("\"tick\":1,", "\"tick\":0,")], "line 1: `tick` is 0; it must be from 0.001"),
        (vec![CONFIG.replace("\"min\":1", "\"min\":60")], "line 1: `min` is 60, but `max` is 50"),
        (
            vec![CONFIG.to_owned(), "nonsense".to_owned()],
            "line 2: it is not JSON; what cannot be read is at column 2",
        ),
        (vec![CONFIG.to_owned(), good(), String::new(), good()], "line 4: `t` is 1, and was 1"),
        (vec![CONFIG.to_owned(), good().replace("\"arrivals\":3,", "")], "line 2: `arrivals` is missing"),
        (vec![CONFIG.to_owned(), good().replace("\"dt\":1.000", "\"dt\":0")], "line 2: `dt` is 0"),
        (
            vec![CONFIG.to_owned(), good().replace("\"queue\":3", "\"queue\":-3")],
            "line 2: `queue` is -3; it must be a whole number",
        ),
        (
            vec![CONFIG.to_owned(), good().replace("\"queue\":3", "\"queue\":\"three\"")],
            "line 2: `queue` is the text \"three\"; it",
        ),
        (
            vec![CONFIG.to_owned(), good().replace("\"arrivals\"", "\"arivals\"")],
            "line 2: `arrivals` is missing; is `arivals` meant",
        ),
        (
            vec![CONFIG.to_owned(), good().replace("\"tick\"", "\"tock\"").replace("\"dt\"", "\"td\"")],
            "line 2: `type` must be `tick` here",
        ),
        (
            vec![CONFIG.to_owned(), good().replace("\"c\":1,", "\"c\":1,\"c\":1,")],
            "line 2: a name is given twice",
        ),
        (
            vec![CONFIG.to_owned(), CONFIG.to_owned()],
            "line 2: this is a second configuration, and a run has one",
        ),
        (
            vec![CONFIG.to_owned(), good().replace("\"min\":1", "\"min\":51")],
            "line 2: `min` is 51, but `max` is 50",
        ),
        (vec![CONFIG.to_owned(), good().replace("0.5,", "-0.5,")], "line 2: `service_sum` is -0.5"),
        (vec![CONFIG.to_owned(), with("patient_avg")], "line 2: `patient_avg` is -1; it must not be less"),
        (vec![CONFIG.to_owned(), with("patience")], "line 2: `patience` is -1"),
        (vec![CONFIG.to_owned(), with("inflight_draining_avg")], "line 2: `inflight_draining_avg` is -1"),
        (vec![CONFIG.to_owned(), " ".repeat(2 << 20)], "line 2: longer than"),
    ];
    for (lines, expected) in cases {
        let (_, done) = run(&[], &lines);
        let error = done.expect_err(expected);
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn bounds_that_contradict_each_other_say_whose_they_are() {
    let (_, done) = run(&["--set", "min_instances=60"], &[CONFIG.to_owned()]);
    let says = "line 1: `min` is 60 (by --set), but `max` is 50; `min` must not be greater";
    assert_eq!(done.expect_err("60 of 50"), says);
    let more = tick(1, 4, 2, 3, 2).replace("\"min\":1", "\"min\":20");
    let (_, done) = run(&["--set", "max_instances=9"], &[CONFIG.to_owned(), more]);
    let says = "line 2: `min` is 20, but `max` is 9 (by --set); `min` must not be greater";
    assert_eq!(done.expect_err("20 of 9"), says);
}

#[test]
fn a_bad_value_is_told_before_the_first_line() {
    let (_, done) = run(&["--set", "reject_budget_percentage=0.1"], &[]);
    assert!(done.expect_err("azureml").contains("only for the policy `adaptive`"));
    let (_, done) = run(&["--set", "target_utilization_percentage=seventy"], &[]);
    assert!(done.expect_err("text").contains("a whole number from 1 to 100"));
    let (_, done) = run(&["--set", "min_instances=few"], &[]);
    let says = "--set: `min_instances` must be a whole number from 0 to 1000, not `few`";
    assert_eq!(done.expect_err("text"), says, "and nothing of a key that was not set");
    assert_eq!(run(&["--set", "min_instances=0"], &[]).1, Ok(()));
    let wrong =
        Cli::try_parse_from(["decide", "--set", "instance_count=3"]).map(|_| ()).expect_err("no such key");
    assert!(wrong.to_string().contains("`instance_count` has no effect here"));
}

//! Pictures of many situations, as snapshots: `INSTA_UPDATE=always cargo test --lib cli::tree` renews them.

use insta::assert_snapshot;
use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-03-01T12:02:00Z";

#[expect(clippy::needless_pass_by_value, reason = "so that json! can stand in the call")]
fn graph(spec: Value, status: Value) -> TaskGraph {
    let mut object = json!({
        "apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskGraph",
        "metadata": {"name": "data-processing", "namespace": "prod"}, "spec": spec,
    });
    if !status.is_null() {
        object["status"] = status;
    }
    serde_json::from_value(object).unwrap()
}

fn picture(graph: &TaskGraph, width: usize) -> String {
    let picture = render(graph, NOW.parse().unwrap(), width, Style::default());
    for line in picture.lines() {
        assert!(text::width(line) <= width, "wider than {width}: {line:?}");
    }
    picture
}

#[test]
fn edited_and_rerun() {
    let mut load = succeeded("load", "01:00", "01:04");
    load["stale"] = json!(true);
    let failed = json!({"name": "check", "phase": "Failed", "attempts": 2, "stale": true, "reason": "Error",
        "failedAttempts": [{"attempt": 2, "exitCode": 3, "reason": "Error", "message": "no rows"}]});
    let removed = json!({"name": "report", "phase": "Cancelled", "attempts": 1, "removed": true, "reason": "Removed"});
    let entry = |time: &str, event: &str, message: &str| json!({"time": format!("2026-03-01T{time}Z"), "event": event, "message": message});
    let history = [
        entry("11:00:00", "Accepted", ""),
        entry("12:01:20", "Edited", "added check; removed report; changed load"),
        entry("12:01:50", "Rerun", "again: what failed, and what depends on it: 1 tasks"),
    ];
    let status = json!({"phase": "Running", "progress": "1/2", "tasks": [load, failed, removed], "history": history});
    let spec = json!({"tasks": [{"name": "load"}, {"name": "check", "dependsOn": ["load"]}]});
    assert_snapshot!(picture(&graph(spec, status), 80));
}

/// The pipeline of the examples.
fn pipeline() -> Value {
    json!({
        "tasks": [
            {"name": "fetch-data"},
            {"name": "validate", "dependsOn": ["fetch-data"]},
            {"name": "transform", "dependsOn": ["validate"]},
            {"name": "quality-check", "dependsOn": ["transform"], "decision": {"branches": [{"name": "good", "when": "true"}, {"name": "poor"}]}},
            {"name": "store-primary", "dependsOn": ["quality-check/good"]},
            {"name": "store-backup", "dependsOn": ["quality-check/poor"]},
            {"name": "notify", "dependsOn": ["store-primary", "store-backup"]},
        ],
        "finally": [{"name": "cleanup"}],
    })
}

fn succeeded(name: &str, from: &str, to: &str) -> Value {
    json!({"name": name, "phase": "Succeeded", "attempts": 1, "startTime": format!("2026-03-01T12:{from}Z"), "completionTime": format!("2026-03-01T12:{to}Z")})
}

#[test]
fn running() {
    let mut validate = succeeded("validate", "00:05", "00:17.5");
    validate["outputs"] = json!({"rows": 4_096, "quality": 0.97, "columns": ["id", "amount"], "note": "a text that is much too long to be shown in full"});
    let mut check = succeeded("quality-check", "01:00", "01:00");
    check.as_object_mut().unwrap().remove("startTime");
    check["branch"] = json!("good");
    let status = json!({
        "phase": "Running", "progress": "5/8", "startTime": "2026-03-01T12:00:00Z",
        "tasks": [
            succeeded("fetch-data", "00:00.100", "00:04.350"), validate, succeeded("transform", "00:18", "01:00"), check,
            {"name": "store-primary", "phase": "Running", "attempts": 1, "startTime": "2026-03-01T12:01:01Z"},
            {"name": "store-backup", "phase": "Skipped", "reason": "BranchNotTaken", "message": "quality-check took good"},
            {"name": "notify", "phase": "Pending"}, {"name": "cleanup", "phase": "Pending"},
        ],
    });
    let graph = graph(pipeline(), status);
    assert_snapshot!("running_100", picture(&graph, 100));
    assert_snapshot!("running_80", picture(&graph, 80));
    assert_snapshot!("running_40", picture(&graph, 40));
}

#[test]
fn waits() {
    let spec = json!({"tasks": [
        {"name": "checks", "decision": {"inclusive": true, "branches": [{"name": "security", "when": "true"}, {"name": "legal", "when": "true"}]}},
        {"name": "off-hours", "dependsOn": ["checks/security"], "delay": {"cron": "0 22 * * *"}},
        {"name": "ask", "dependsOn": ["checks/legal"], "approval": {}, "timeout": "1d"},
        {"name": "ask-again", "dependsOn": ["checks/legal"], "approval": {}, "retry": {"limit": 3}},
        {"name": "deploy", "dependsOn": ["off-hours", "ask", "ask-again"]},
        {"name": "asked", "approval": {}},
    ]});
    let status = json!({
        "phase": "Running", "progress": "2/6", "startTime": "2026-03-01T12:00:00Z",
        "tasks": [
            {"name": "checks", "phase": "Succeeded", "branches": ["security", "legal"], "completionTime": "2026-03-01T12:00:00Z"},
            {"name": "off-hours", "phase": "Waiting", "reason": "Delay", "attempts": 1, "startTime": "2026-03-01T12:00:00Z", "wakeAt": "2026-03-01T22:00:00.250Z"},
            {"name": "ask", "phase": "Waiting", "reason": "ApprovalPending", "attempts": 1, "startTime": "2026-03-01T12:00:00Z", "wakeAt": "2026-03-02T12:00:00Z"},
            {"name": "ask-again", "phase": "Waiting", "reason": "ApprovalPending", "attempts": 2, "startTime": "2026-03-01T12:01:00Z", "failedAttempts": [
                {"attempt": 1, "reason": "Rejected", "message": "by ann: not on a Sunday"},
            ]},
            {"name": "deploy"},
            {"name": "asked", "phase": "Succeeded", "reason": "Approved", "message": "by ben: fine", "attempts": 1, "startTime": "2026-03-01T12:00:00Z", "completionTime": "2026-03-01T12:01:30Z"},
        ],
    });
    assert_snapshot!("waits_100", picture(&graph(spec, status), 100));
}

#[test]
fn items() {
    let mut find = succeeded("find", "00:00", "00:01");
    find["outputs"] = json!({"images": ["a.png", "b.png", "c.gif"]});
    let mut convert = succeeded("convert", "00:01", "00:05");
    convert["items"] = json!({"total": 3, "succeeded": 2, "failed": 1, "failedIndexes": "2"});
    convert["outputs"] = json!({"thumbnail": ["small-a.png", "small-b.png", null]});
    let message = "3 of 10 items failed: 1,4-5; item 1: Error, exit code 3: no PNG";
    let status = json!({
        "phase": "Running", "progress": "2/4", "startTime": "2026-03-01T12:00:00Z",
        "tasks": [
            find, convert,
            {"name": "upload", "phase": "Running", "attempts": 1, "startTime": "2026-03-01T12:01:00Z", "items": {"total": 10, "succeeded": 7, "active": 2}},
            {"name": "check", "phase": "Failed", "attempts": 1, "startTime": "2026-03-01T12:01:00Z", "completionTime": "2026-03-01T12:01:10Z",
                "items": {"total": 10, "succeeded": 7, "failed": 3, "failedIndexes": "1,4-5"}, "reason": "ItemsFailed", "message": message,
                "failedAttempts": [{"attempt": 1, "exitCode": 3, "reason": "ItemsFailed", "message": message}]},
        ],
    });
    let after = |name: &str| json!({"name": name, "dependsOn": ["convert"]});
    let spec = json!({"tasks": [{"name": "find"}, {"name": "convert", "dependsOn": ["find"]}, after("upload"), after("check")]});
    assert_snapshot!("items", picture(&graph(spec, status), 100));
}

#[test]
fn retrying_and_blocked() {
    let spec = json!({"tasks": [{"name": "flaky"}, {"name": "pulls"}, {"name": "waits"}, {"name": "after", "dependsOn": ["flaky", "pulls", "waits"]}]});
    let status = json!({
        "phase": "Running", "progress": "0/4", "startTime": "2026-03-01T12:00:00Z",
        "tasks": [
            {"name": "flaky", "phase": "Retrying", "attempts": 2, "wakeAt": "2026-03-01T12:02:08Z", "startTime": "2026-03-01T12:01:00Z", "failedAttempts": [
                {"attempt": 1, "exitCode": 7, "reason": "Error", "message": "first"},
                {"attempt": 2, "exitCode": 7, "reason": "Error", "message": "the upstream answered 503: try again later"},
            ]},
            {"name": "pulls", "phase": "Running", "attempts": 1, "startTime": "2026-03-01T12:01:30Z", "reason": "ErrImageNeverPull",
             "message": "Container image \"localhost/nothing:1\" is not present with pull policy of Never"},
            {"name": "waits", "phase": "Ready"}, {"name": "after"},
        ],
    });
    assert_snapshot!("retrying_100", picture(&graph(spec, status), 100));
}

#[test]
fn failed() {
    let status = json!({
        "phase": "Failed", "progress": "8/8", "startTime": "2026-03-01T12:00:00Z", "completionTime": "2026-03-01T12:01:10Z",
        "message": "1 task failed: validate",
        "conditions": [{"type": "Failed", "status": "True", "reason": "TaskFailed", "lastTransitionTime": "2026-03-01T12:01:10Z"}],
        "tasks": [
            succeeded("fetch-data", "00:00", "00:04"),
            {"name": "validate", "phase": "Failed", "reason": "RetriesExhausted", "attempts": 3, "startTime": "2026-03-01T12:01:00Z", "completionTime": "2026-03-01T12:01:02Z",
             "failedAttempts": [{"attempt": 3, "exitCode": 1, "reason": "Error", "message": "row 17: amount is negative\nrow 23: \u{1b}[31mno id\n"}]},
            {"name": "transform", "phase": "Omitted", "reason": "DependencyFailed", "message": "validate failed"},
            {"name": "quality-check", "phase": "Omitted", "reason": "DependencyFailed", "message": "transform was omitted"},
            {"name": "store-primary", "phase": "Omitted", "reason": "DependencyFailed", "message": "quality-check was omitted"},
            {"name": "store-backup", "phase": "Omitted", "reason": "DependencyFailed", "message": "quality-check was omitted"},
            {"name": "notify", "phase": "Omitted", "reason": "DependencyFailed"},
            succeeded("cleanup", "01:05", "01:10"),
        ],
    });
    let graph = graph(pipeline(), status);
    assert_snapshot!("failed_100", picture(&graph, 100));
    assert_snapshot!("failed_80", picture(&graph, 80));
}

#[test]
fn refused() {
    let spec = json!({"tasks": [{"name": "a", "dependsOn": ["c"]}, {"name": "b", "dependsOn": ["a", "biuld"]}, {"name": "c", "dependsOn": ["b"]}]});
    let message = "spec.tasks: cycle: a → b → c → a\nspec.tasks[1].dependsOn[1]: no task \"biuld\"";
    let status = json!({
        "phase": "Pending",
        "conditions": [{"type": "Stalled", "status": "True", "reason": "Invalid", "lastTransitionTime": NOW}, {"type": "Accepted", "status": "False", "reason": "Invalid", "message": message, "lastTransitionTime": NOW}],
    });
    assert_snapshot!("refused_80", picture(&graph(spec, status), 80));
}

#[test]
fn waiting_for_a_template() {
    let spec = json!({"tasks": [{"name": "a", "templateRef": {"name": "extract"}}]});
    let status = json!({"phase": "Pending", "conditions": [
        {"type": "Accepted", "status": "False", "reason": "TemplateMissing", "message": "waits for TaskTemplate \"extract\"", "lastTransitionTime": NOW},
    ]});
    assert_snapshot!("waiting_80", picture(&graph(spec, status), 80));
}

#[test]
fn before_the_operator_saw_it() {
    assert_snapshot!("no_status_80", picture(&graph(pipeline(), Value::Null), 80));
    assert_snapshot!(
        "empty_status_80",
        picture(&graph(json!({"displayName": "Datenverarbeitung", "tasks": []}), json!({})), 80)
    );
}

#[test]
fn cancelled() {
    let spec = json!({"desiredState": "Cancel", "tasks": [{"name": "long"}, {"name": "next", "dependsOn": ["long"]}], "finally": [{"name": "report"}, {"name": "cleanup", "dependsOn": ["report"]}]});
    let status = json!({
        "phase": "Finalizing", "progress": "2/4", "message": "cancelled by desiredState", "startTime": "2026-03-01T12:00:00Z", "finallyTime": "2026-03-01T12:01:58Z",
        "ending": {"reason": "Cancelled", "time": "2026-03-01T12:01:50Z"},
        "tasks": [
            {"name": "long", "phase": "Cancelled", "reason": "Cancelled", "attempts": 1, "startTime": "2026-03-01T12:00:00Z", "completionTime": "2026-03-01T12:01:58Z"},
            {"name": "next", "phase": "Cancelled", "reason": "Cancelled"},
            {"name": "report", "phase": "Running", "attempts": 1, "startTime": "2026-03-01T12:01:59Z"}, {"name": "cleanup"},
        ],
    });
    assert_snapshot!("cancelled_80", picture(&graph(spec, status), 80));
}

#[test]
fn wide_characters_and_long_names() {
    let long = "a".repeat(63);
    let spec = json!({"displayName": "データ処理 – 日本語の表示名", "tasks": [{"name": long}, {"name": "b", "dependsOn": [long]}]});
    let status = json!({"phase": "Running", "tasks": [
        {"name": long, "phase": "Succeeded", "outputs": {"件数": "四千九十六行のデータが処理されました、問題はありません", "emoji": "👩‍👩‍👧‍👦"}},
        {"name": "b", "phase": "Failed", "failedAttempts": [{"attempt": 1, "exitCode": 2, "reason": "Error", "message": "ファイルが見つかりません: 注文.csv。パスを確認してから、もう一度実行してください。".repeat(4)}]},
    ]});
    assert_snapshot!("wide_80", picture(&graph(spec, status), 80));
}

#[test]
fn tasks_that_left_the_spec() {
    let spec = json!({"tasks": [{"name": "new"}]});
    let status = json!({"phase": "Running", "tasks": [{"name": "old", "phase": "Running", "attempts": 1}]});
    assert_snapshot!("left_80", picture(&graph(spec, status), 80));
}

#[test]
fn two_thousand_tasks() {
    let chain: Vec<Value> = (0..2_000)
        .map(|n| {
            if n == 0 {
                json!({"name": "t0"})
            } else {
                json!({"name": format!("t{n}"), "dependsOn": [format!("t{}", n - 1)]})
            }
        })
        .collect();
    let picture_of_chain = picture(&graph(json!({"tasks": chain}), json!({"phase": "Running"})), 80);
    assert_eq!(picture_of_chain.lines().count(), 2_001);
    let mut fan: Vec<Value> = (0..1_998).map(|n| json!({"name": format!("t{n}"), "dependsOn": ["first"]})).collect();
    fan.insert(0, json!({"name": "first"}));
    fan.push(json!({"name": "last", "dependsOn": (0..1_998).map(|n| format!("t{n}")).collect::<Vec<_>>()}));
    let picture_of_fan = picture(&graph(json!({"tasks": fan}), Value::Null), 120);
    assert_eq!(picture_of_fan.lines().count(), 2_001);
    let some =
        |picture: &str| picture.lines().take(16).chain(picture.lines().skip(1_998)).collect::<Vec<_>>().join("\n");
    assert_snapshot!("chain_of_2000", some(&picture_of_chain));
    assert_snapshot!("fan_of_2000", some(&picture_of_fan));
}

#[test]
fn colours_and_ascii() {
    let spec =
        json!({"tasks": [{"name": "a"}, {"name": "b", "dependsOn": ["a"]}, {"name": "c", "dependsOn": ["a", "b"]}]});
    let status = json!({"phase": "Running", "tasks": [{"name": "a", "phase": "Succeeded", "attempts": 2}, {"name": "b", "phase": "Failed"}]});
    let graph = graph(spec, status);
    let now = NOW.parse().unwrap();
    let coloured = render(&graph, now, 80, Style { colour: true, ascii: false });
    assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), picture(&graph, 80));
    assert!(coloured.contains("\u{1b}[1m\u{1b}[31m✘\u{1b}[0m"), "{coloured:?}");
    let ascii = render(&graph, now, 80, Style { colour: false, ascii: true });
    assert!(ascii.is_ascii(), "{ascii}");
    assert_snapshot!("ascii_80", ascii);
}

#[test]
fn child_graphs_and_graphs_of_templates() {
    let mut child = succeeded("nightly", "00:00", "00:20");
    child["outputs"] = json!({"rows": 7});
    child["job"] = json!("g-nightly-1-abc");
    child["progress"] = json!("2/2");
    let running = json!({"name": "weekly", "phase": "Running", "attempts": 2, "startTime": "2026-03-01T12:00:30Z",
        "job": "g-weekly-2-def", "progress": "1/5"});
    let spec = json!({"tasks": [
        {"name": "nightly", "templateRef": {"name": "load"}}, {"name": "weekly", "dependsOn": ["nightly"], "templateRef": {"name": "load"}}]});
    let parent = graph(spec, json!({"phase": "Running", "progress": "1/2", "tasks": [child, running]}));
    assert_snapshot!(picture(&parent, 90));
    let tasks = [succeeded("write", "00:00", "00:20"), succeeded("read", "00:20", "00:21")];
    let whole = graph(
        json!({"templateRef": {"name": "load"}}),
        json!({"phase": "Complete", "progress": "2/2", "tasks": tasks}),
    );
    assert_snapshot!(picture(&whole, 90));
}

#[test]
fn compensating() {
    let spec = json!({"tasks": [
        {"name": "reserve-inventory"},
        {"name": "charge-payment", "dependsOn": ["reserve-inventory"]},
        {"name": "ship-order", "dependsOn": ["charge-payment"]},
    ]});
    let mut reserve = succeeded("reserve-inventory", "00:00", "00:04");
    reserve["compensation"] = json!({"phase": "Pending"});
    let mut charge = succeeded("charge-payment", "00:05", "00:09");
    charge["compensation"] = json!({"phase": "Running", "attempts": 2, "startTime": "2026-03-01T12:01:55Z"});
    let ship = json!({"name": "ship-order", "phase": "Failed", "reason": "Error", "attempts": 1});
    let status = json!({
        "phase": "Compensating", "progress": "3/3", "startTime": "2026-03-01T12:00:00Z",
        "message": "failed: ship-order (Error)", "tasks": [reserve, charge, ship],
    });
    assert_snapshot!(picture(&graph(spec, status), 90), @r"
    ↻ prod/data-processing  Compensating  3/3  2m
      failed: ship-order (Error)
    ✔ reserve-inventory  Succeeded      4.0s
    │ ○ compensation     Pending
    └ ✔ charge-payment   Succeeded      4.0s
      │ ● compensation   Running    ×2  5.0s
      └ ✘ ship-order     Failed               Error
    ");
}

#[test]
fn a_cached_task() {
    let cached = json!({
        "name": "count", "phase": "Succeeded", "reason": "Cached", "completionTime": "2026-03-02T08:15:06Z",
        "message": "outputs of task count of graph monthly, 2026-03-02T08:15:04Z", "outputs": {"rows": 4000},
    });
    let status = json!({
        "phase": "Running", "progress": "1/2", "startTime": "2026-03-01T12:00:00Z",
        "tasks": [cached, {"name": "report", "phase": "Running", "attempts": 1, "startTime": "2026-03-01T12:01:58Z"}],
    });
    let spec = json!({"tasks": [{"name": "count"}, {"name": "report", "dependsOn": ["count"]}]});
    assert_snapshot!("cached", picture(&graph(spec, status), 120));
}

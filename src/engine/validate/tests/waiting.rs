//! Delays, approvals and inclusive decisions.

use serde_json::{Value, json};

use super::{problems, refused, spec};
use crate::engine::{Templates, compile, graph::Work};

fn delay(delay: Value) -> Value {
    json!({"tasks": [{"name": "wait", "delay": delay}]})
}

fn approvals(approvals: Value) -> Value {
    json!({"tasks": [{"name": "ask", "approval": {}}, {"name": "job", "container": {}}], "approvals": approvals})
}

#[test]
fn delays() {
    refused(vec![
        (
            delay(json!({})),
            &["spec.tasks[0].delay: a delay has exactly one of duration, until, cron; this one has none"],
        ),
        (
            delay(json!({"duration": "1h", "cron": "@daily"})),
            &["spec.tasks[0].delay: a delay has exactly one of duration, until, cron; this one has duration and cron"],
        ),
        (
            delay(json!({"duration": "1 hour"})),
            &[
                "spec.tasks[0].delay.duration: \"1 hour\" is not a duration; write whole numbers above zero with units, as in \"90s\" or \"1h30m\" (ms, s, m, h, d)",
            ],
        ),
        (
            delay(json!({"until": "tomorrow"})),
            &[
                "spec.tasks[0].delay.until: \"tomorrow\" is no time in RFC 3339: write it as in 2027-01-31T09:00:00+01:00",
            ],
        ),
        (
            delay(json!({"cron": "0 0 31 2 *"})),
            &["spec.tasks[0].delay.cron: \"0 0 31 2 *\" never fires: no month that it names has such a day"],
        ),
        (
            delay(json!({"cron": "0 25 * * *"})),
            &[
                "spec.tasks[0].delay.cron: \"0 25 * * *\" is no cron expression (value must be in range 0..=23; found 25): write minute, hour, day of the month, month, day of the week, as in \"30 9 * * MON-FRI\"",
            ],
        ),
        (
            delay(json!({"cron": "@daily", "timeZone": "Europe/Berln"})),
            &[
                "spec.tasks[0].delay.timeZone: no time zone \"Europe/Berln\" (did you mean \"Europe/Berlin\"?); write an IANA name, as in \"Europe/Berlin\"",
            ],
        ),
        (
            delay(json!({"cron": "@daily", "timeZone": "new york"})),
            &[
                "spec.tasks[0].delay.timeZone: no time zone \"new york\" (did you mean \"America/New_York\"?); write an IANA name, as in \"Europe/Berlin\"",
            ],
        ),
        (
            delay(json!({"until": "2027-01-31T09:00:00Z", "timeZone": "Europe/Berlin"})),
            &[
                "spec.tasks[0].delay.timeZone: timeZone is for cron: write the offset into `until`, as in 2027-01-31T09:00:00+01:00",
            ],
        ),
        (
            json!({"tasks": [{"name": "wait", "delay": {"duration": "1s"}, "retry": {"limit": 1}, "timeout": "1s", "startTimeout": "1s", "outputs": [{"name": "x"}]}]}),
            &[
                "spec.tasks[0].retry: a delay has no Job and never fails: retry has no meaning",
                "spec.tasks[0].timeout: a delay has no Job and never fails: timeout has no meaning",
                "spec.tasks[0].startTimeout: a delay has no Job and never fails: startTimeout has no meaning",
                "spec.tasks[0].outputs: a delay has no Job and never fails: outputs has no meaning",
            ],
        ),
        (
            json!({"tasks": [{"name": "wait", "delay": {"duration": "1s"}, "approval": {}}]}),
            &[
                "spec.tasks[0]: a task has exactly one of container, job, templateRef, decision, delay, approval; this one has delay and approval",
            ],
        ),
        (
            json!({"tasks": [
                {"name": "wait", "delay": {"duration": "1s"}},
                {"name": "t", "dependsOn": ["wait"], "when": "tasks.wait.outputs.x > 1", "container": {}},
            ]}),
            &["spec.tasks[1].when: task \"wait\" is a delay and leaves no outputs, so no \"x\""],
        ),
    ]);
    for good in [
        json!({"duration": "100ms"}),
        json!({"until": "2027-01-31T09:00:00+01:00"}),
        json!({"cron": " 0 9 * * mon-fri ", "timeZone": "America/New_York"}),
        json!({"cron": "@hourly"}),
    ] {
        assert_eq!(problems(delay(good.clone())), [""; 0], "{good}");
    }
}

#[test]
fn approvals_of_a_task_and_of_the_graph() {
    let by = "ann";
    let long = "x".repeat(1025);
    refused(vec![
        (
            json!({"tasks": [{"name": "ask", "approval": {"onTimeout": "Approve"}}]}),
            &[
                "spec.tasks[0].approval.onTimeout: without a timeout of the task it waits for ever: onTimeout has no meaning",
            ],
        ),
        (
            json!({"tasks": [{"name": "ask", "approval": {}, "startTimeout": "1m"}]}),
            &["spec.tasks[0].startTimeout: an approval has no Job: startTimeout has no meaning"],
        ),
        (
            approvals(json!([{"task": "", "attempt": 1, "decision": "Approved", "by": by}])),
            &["spec.approvals[0].task: the name is empty"],
        ),
        (
            approvals(json!([
                {"task": "ask", "attempt": 1, "decision": "Approved", "by": by},
                {"task": "ask", "attempt": 0, "decision": "Approved", "by": ""},
                {"task": "ask", "attempt": 1, "decision": "Rejected", "by": by, "message": long},
            ])),
            &[
                "spec.approvals[1].attempt: 0 is out of range: attempts count from 1",
                "spec.approvals[1].by: write who decided",
                "spec.approvals[2]: spec.approvals[0] decides on attempt 1 of this task already",
                "spec.approvals[2].message: 1025 characters; the limit is 1024",
            ],
        ),
    ]);
    let many: Vec<_> =
        (1..=2001).map(|n| json!({"task": "ask", "attempt": n, "decision": "Approved", "by": by})).collect();
    assert_eq!(problems(approvals(json!(many))), ["spec.approvals: 2001 approvals; the limit is 2000"]);
    let good = json!({"tasks": [{"name": "ask", "approval": {"onTimeout": "Reject"}, "timeout": "1d", "retry": {"limit": 3}}]});
    assert!(problems(good).is_empty());
}

#[test]
fn approvals_of_tasks_that_were_removed_or_are_others_now_stay() {
    for task in ["gone", "job"] {
        let left = approvals(json!([{"task": task, "attempt": 1, "decision": "Approved", "by": "ann"}]));
        assert_eq!(problems(left), [""; 0], "{task}");
    }
}

#[test]
fn approvals_are_settings() {
    let json = approvals(json!([{"task": "ask", "attempt": 2, "decision": "Rejected", "by": "ann", "message": "no"}]));
    let plan = compile(&spec(json), &Templates::new()).unwrap();
    assert_eq!(plan.settings.approvals["ask"][&2].message.as_deref(), Some("no"));
}

#[test]
fn the_hash_of_a_task_without_a_job_is_of_what_it_does() {
    let task = |task: Value| {
        let mut task = task;
        task["name"] = "t".into();
        let plan = compile(&spec(json!({"tasks": [task]})), &Templates::new()).unwrap();
        plan.graph.tasks[0].hash
    };
    let branches = json!([{"name": "a", "when": "true"}, {"name": "b"}]);
    let hashes = [
        task(json!({"decision": {"branches": branches}})),
        task(json!({"decision": {"branches": branches, "inclusive": true}})),
        task(json!({"delay": {"duration": "1h"}})),
        task(json!({"delay": {"duration": "2h"}})),
        task(json!({"delay": {"until": "2027-01-31T09:00:00Z"}})),
        task(json!({"delay": {"cron": "@daily"}})),
        task(json!({"delay": {"cron": "@daily", "timeZone": "Asia/Tokyo"}})),
        task(json!({"approval": {}})),
        task(json!({"approval": {}, "timeout": "1h"})),
        task(json!({"approval": {"onTimeout": "Reject"}, "timeout": "1h"})),
    ];
    let different: std::collections::BTreeSet<_> = hashes.iter().collect();
    assert_eq!(different.len(), hashes.len());
    assert_eq!(task(json!({"delay": {"duration": "60m"}})), task(json!({"delay": {"duration": "1h"}})));
}

#[test]
fn an_inclusive_decision() {
    let json = json!({"tasks": [{"name": "d", "decision": {"inclusive": true, "branches": [
        {"name": "a", "when": "true"}, {"name": "b"},
    ]}}]});
    let plan = compile(&spec(json), &Templates::new()).unwrap();
    assert!(matches!(plan.graph.tasks[0].work, Work::Decision { inclusive: true, .. }));
    refused(vec![(
        json!({"tasks": [{"name": "d", "decision": {"inclusive": true, "branches": [{"name": "a"}, {"name": "b", "when": "true"}]}}]}),
        &[
            "spec.tasks[0].decision.branches[0]: a branch without `when` is taken if no other is, so it must be the last",
        ],
    )]);
}

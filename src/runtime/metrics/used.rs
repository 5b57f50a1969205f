//! The chart's dashboards and alerts ask for nothing but metrics, labels and values that there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use regex::Regex;
use serde_json::Value;

use super::{ROWS, Row};

/// Labels that Prometheus adds when it scrapes, and that of a histogram's buckets.
const ADDED: [&str; 4] = ["job", "namespace", "pod", "le"];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/taskgraph").join(path)).unwrap()
}

/// All queries, by where they stand.
fn queries() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for name in ["operator", "tasks"] {
        let file = format!("dashboards/{name}.json");
        let board: Value = serde_json::from_str(&read(&file)).unwrap();
        for panel in board["panels"].as_array().unwrap() {
            let place = format!("{file}: {}", panel["title"].as_str().unwrap());
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{place} asks for nothing");
            found.extend(targets.iter().map(|target| (place.clone(), target["expr"].as_str().unwrap().to_owned())));
        }
    }
    let alerts: Value = serde_saphyr::from_str(&read("alerts/taskgraph.yaml")).unwrap();
    for alert in alerts.pointer("/groups/0/rules").and_then(Value::as_array).unwrap() {
        found.push((alert["alert"].to_string(), alert["expr"].as_str().unwrap().to_owned()));
    }
    found
}

/// The row that a series belongs to.
fn row_of(series: &str) -> Option<&'static Row> {
    let of = |row: &&Row| match row.kind {
        "histogram" => ["_bucket", "_sum", "_count"].iter().any(|end| series == format!("{}{end}", row.name)),
        _ => series == row.name,
    };
    ROWS.iter().find(of)
}

/// The values that a label may have, where they are known.
fn values(row: &Row, label: &str) -> Option<BTreeSet<String>> {
    let (_, told) = row.labels.iter().find(|(name, _)| *name == label)?;
    let values: BTreeSet<_> = told.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    (!values.is_empty()).then_some(values)
}

/// What is wrong with a query; the names of the metrics that it reads are added to `used`.
fn wrong(query: &str, used: &mut BTreeSet<&'static str>) -> Vec<String> {
    let series = Regex::new(r"(taskgraph_\w+)\s*\{([^}]*)\}").unwrap();
    let matcher = Regex::new(r#"(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)""#).unwrap();
    let grouping = Regex::new(r"by \(([^)]*)\)").unwrap();
    let mut problems = Vec::new();
    let mut labels: BTreeSet<&str> = ADDED.into();
    for found in series.captures_iter(query) {
        let Some(row) = row_of(&found[1]) else {
            problems.push(format!("there is no metric {}", &found[1]));
            continue;
        };
        used.insert(row.name);
        labels.extend(row.labels.iter().map(|(name, _)| *name));
        for pair in matcher.captures_iter(found.get(2).map_or("", |text| text.as_str())) {
            let (label, wanted) = (&pair[1], &pair[2]);
            if !ADDED.contains(&label) && !row.labels.iter().any(|(name, _)| *name == label) {
                problems.push(format!("{} has no label {label}", row.name));
            }
            let Some(known) = values(row, label) else { continue };
            problems.extend(
                wanted
                    .split('|')
                    .filter(|value| !known.contains(*value))
                    .map(|value| format!("label {label} of {} is never {value}", row.name)),
            );
        }
    }
    let named = query.matches("taskgraph_").count();
    if named != series.captures_iter(query).count() {
        problems.push("a metric is read without choosing the job".into());
    }
    for group in grouping.captures_iter(query) {
        let unknown = group[1].split(',').map(str::trim).filter(|label| !labels.contains(label));
        problems.extend(unknown.map(|label| format!("grouped by {label}, which there is not")));
    }
    problems
}

#[test]
fn dashboards_and_alerts_ask_for_what_there_is() {
    let mut used = BTreeSet::new();
    let problems: BTreeMap<_, _> = queries()
        .iter()
        .map(|(place, query)| (place.clone(), wrong(query, &mut used)))
        .filter(|(_, problems)| !problems.is_empty())
        .collect();
    assert!(problems.is_empty(), "{problems:#?}");
    let unused: Vec<_> = ROWS.iter().map(|row| row.name).filter(|name| !used.contains(name)).collect();
    assert!(unused.is_empty(), "no dashboard shows {unused:?}");
}

#[test]
fn what_is_not_there_is_found() {
    for (query, expected) in [
        ("rate(taskgraph_tasks_total{job=\"x\"}[5m])", "there is no metric taskgraph_tasks_total"),
        ("taskgraph_task_duration_seconds{job=\"x\"}", "there is no metric taskgraph_task_duration_seconds"),
        ("taskgraph_leader{zone=\"x\"}", "taskgraph_leader has no label zone"),
        (
            "taskgraph_tasks_finished_total{outcome=~\"Failed|Lost\"}",
            "label outcome of taskgraph_tasks_finished_total is never Lost",
        ),
        ("sum by (task) (taskgraph_leader{job=\"x\"})", "grouped by task, which there is not"),
        ("sum(taskgraph_leader)", "a metric is read without choosing the job"),
    ] {
        assert_eq!(wrong(query, &mut BTreeSet::new()), [expected], "{query}");
    }
}

#[test]
fn every_alert_says_what_to_do() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/alerts.md")).unwrap();
    let headings: BTreeSet<_> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let alerts: Value = serde_saphyr::from_str(&read("alerts/taskgraph.yaml")).unwrap();
    let mut names = BTreeSet::new();
    for alert in alerts.pointer("/groups/0/rules").and_then(Value::as_array).unwrap() {
        let name = alert["alert"].as_str().unwrap();
        assert_eq!(alert["annotations"]["runbook_url"], format!("docs/alerts.md#{}", name.to_lowercase()));
        names.insert(name);
    }
    assert_eq!(headings, names, "docs/alerts.md on the left");
}

//! Every query of the dashboards and alerts, run by a real Prometheus that scraped a real operator at work.

use std::{
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use kube::{Api, api::PostParams};
use regex::Regex;
use serde_json::{Value, json};
use taskgraph::webhook::certificates::{Material, Policy};

use crate::{
    fixture::{Fixture, container, task, task_with},
    support::{Namespace, Play, namespace::PATIENCE, operator::fetch, ports, process::Program, webhook::configuration},
};

/// How far rates look back: at several scrapes, one a second, on a busy machine too.
const WINDOW: &str = "20s";
/// What only brings data when something fails that a test cannot make fail as it likes, and why.
const RARE: [(&str, &str); 4] = [
    (r#"answer="failed""#, "the API server has to fail to say what somebody may do"),
    (r#"code=~"5xx|none""#, "the API server has to fail"),
    (r#"fate="dropped""#, "a collector has to refuse spans for good"),
    ("taskgraph_cloud_events_dropped_total", "a sink has to refuse events for good"),
];

/// A Prometheus. Dropped, it is killed.
struct Prometheus {
    address: SocketAddr,
    _program: Program,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// Scrapes `target` every second.
    async fn start(target: SocketAddr) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()?));
        let labels = json!({"namespace": "system", "pod": "operator"});
        let scrape = json!({"job_name": "taskgraph-metrics", "static_configs": [{"targets": [target.to_string()], "labels": labels}]});
        let alerts = root().join("charts/taskgraph/alerts/taskgraph.yaml");
        let config = json!({"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "scrape_configs": [scrape], "rule_files": [alerts]});
        let file = folder.path().join("prometheus.yml");
        // JSON is YAML
        fs::write(&file, config.to_string())?;
        let flag = |name: &str, value: String| format!("--{name}={value}");
        let args = [
            flag("config.file", file.display().to_string()),
            flag("storage.tsdb.path", folder.path().join("data").display().to_string()),
            flag("web.listen-address", address.to_string()),
        ];
        let program = Program::start(&program()?, args, &[], &folder.path().join("log"))?;
        let begin = Instant::now();
        while fetch(address, "/-/ready").await.ok().is_none_or(|(code, _)| code != 200) {
            ensure!(begin.elapsed() < PATIENCE, "Prometheus does not start: {}", program.log_tail(20));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(Self { address, _program: program, _folder: folder })
    }

    /// The values of a query's result.
    async fn ask(&self, query: &str) -> Result<Vec<f64>> {
        let (_, body) = fetch(self.address, &format!("/api/v1/query?query={}", escaped(query))).await?;
        let answer: Value = serde_json::from_str(&body).with_context(|| body.clone())?;
        ensure!(answer["status"] == "success", "{query}: {}", answer["error"]);
        let result = answer["data"]["result"].as_array().context("no list")?;
        Ok(result.iter().filter_map(|one| one["value"][1].as_str()?.parse().ok()).collect())
    }

    /// Whether a query brings something that can be drawn.
    async fn has_data(&self, query: &str) -> Result<bool> {
        Ok(self.ask(query).await?.iter().any(|value| !value.is_nan()))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The program, built from its pinned module where that was not done before.
fn program() -> Result<PathBuf> {
    let tools = root().join("hack/charts/tools");
    let run = |verb: &str| -> Result<String> {
        let output = Command::new(&tools).arg(verb).output()?;
        ensure!(output.status.success(), "{verb}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    run("build")?;
    Ok(PathBuf::from(run("bindir")?).join("prometheus"))
}

fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() {
            escaped.push(byte.into());
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}

/// The queries of the dashboards, by panel.
fn dashboards() -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join("charts/taskgraph/dashboards"))? {
        let board: Value = serde_json::from_str(&fs::read_to_string(entry?.path())?)?;
        for panel in board["panels"].as_array().context("no panels")? {
            for target in panel["targets"].as_array().context("no queries")? {
                let query = target["expr"].as_str().context("no query")?;
                let query = query.replace("$__rate_interval", WINDOW).replace("$job", "taskgraph-metrics");
                found.push((format!("{}: {}", board["title"], panel["title"]), query));
            }
        }
    }
    Ok(found)
}

/// The alerts, by name.
fn alerts() -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(root().join("charts/taskgraph/alerts/taskgraph.yaml"))?;
    let rules: Value = serde_saphyr::from_str(&text)?;
    let rules = rules.pointer("/groups/0/rules").and_then(Value::as_array).context("no rules")?;
    let pair = |rule: &Value| Some((rule["alert"].as_str()?.to_owned(), rule["expr"].as_str()?.to_owned()));
    rules.iter().map(|rule| pair(rule).context("no alert")).collect()
}

fn is_rare(query: &str) -> bool {
    RARE.iter().any(|(part, _)| query.contains(part))
}

fn script(task: &str, attempt: u32) -> Play {
    match (task, attempt) {
        ("boom" | "undo:stays", _) | ("flaky", 1) => Play::fails(1),
        ("cached", _) => Play::succeeds(r#"{"rows": 1}"#),
        _ => Play::succeeds("").after(Duration::from_millis(200)),
    }
}

/// Gives the operator graphs that succeed, fail, retry, undo and remember.
async fn work(fixture: &Fixture, number: u32) -> Result<()> {
    let retry = json!({"retry": {"limit": 1, "backoff": {"initial": "50ms"}}});
    let cache = json!({"cache": {"maxAge": "1h", "key": (number % 2).to_string()}});
    let good = json!({"parallelism": 1, "tasks": [task("a", &[]), task("b", &[]), task("c", &["a"]),
        task_with("flaky", &[], retry), task_with("cached", &[], cache)]});
    let undo = json!({"compensate": {"container": container()}});
    let bad = json!({"tasks": [task_with("pay", &[], undo.clone()), task_with("stays", &[], undo), task("boom", &["pay", "stays"])]});
    for (kind, spec) in [("good", good), ("bad", bad)] {
        fixture.namespace.create(&format!("{kind}-{number}"), spec).await?;
    }
    Ok(())
}

/// All that must bring data, by where it stands: the queries of dashboards, and what alerts read (an alert itself is quiet
/// while all is well).
fn wanted() -> Result<Vec<(String, String)>> {
    let mut wanted = dashboards()?;
    ensure!(wanted.len() >= 40, "the dashboards were not read");
    let selector = Regex::new(r"taskgraph_\w+\s*\{[^}]*\}")?;
    for (name, query) in alerts()? {
        wanted.extend(selector.find_iter(&query).map(|read| (name.clone(), read.as_str().to_owned())));
    }
    wanted.retain(|(_, query)| !is_rare(query));
    Ok(wanted)
}

/// Admission, to be served by an operator with a certificate from files.
struct Admission {
    address: SocketAddr,
    authorities: String,
    folder: tempfile::TempDir,
}

impl Admission {
    fn new() -> Result<Self> {
        let policy = Policy { names: vec!["127.0.0.1".to_owned()], validity: Duration::from_hours(1) };
        let made = policy.renew(&Material::default(), false, Timestamp::now())?.context("an empty Secret is filled")?;
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("tls.crt"), &made.certificate)?;
        fs::write(folder.path().join("tls.key"), &made.key)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()?));
        Ok(Self { address, authorities: made.authorities, folder })
    }

    fn args(&self) -> [String; 4] {
        let folder = self.folder.path().display().to_string();
        ["--webhook-listen".into(), self.address.to_string(), "--webhook-certificates".into(), folder]
    }

    /// Has the API server ask it.
    async fn install(&self, namespace: &Namespace) -> Result<()> {
        let object = configuration(&namespace.name, self.address, &self.authorities)?;
        Api::all(namespace.client.clone()).create(&PostParams::default(), &object).await?;
        Ok(())
    }
}

#[tokio::test]
async fn every_query_of_dashboards_and_alerts_brings_data() -> Result<()> {
    let collector = super::telemetry::Collector::start().await?;
    let (admission, endpoint) = (Admission::new()?, collector.endpoint());
    let [listen, address, certificates, folder] = &admission.args();
    let args = ["--otlp-endpoint", &endpoint, listen, address, certificates, folder];
    let fixture = Fixture::with_args("prom", &args, script).await?;
    let prometheus = Prometheus::start(fixture.operator.address().await).await?;
    admission.install(&fixture.namespace).await?;
    let (mut missing, begin) = (wanted()?, Instant::now());
    for number in 0.. {
        work(&fixture, number).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut left = Vec::new();
        for (place, query) in missing {
            if !prometheus.has_data(&query).await.with_context(|| place.clone())? {
                left.push((place, query));
            }
        }
        if left.is_empty() {
            break;
        }
        assert!(begin.elapsed() < 2 * PATIENCE, "no data: {left:#?}");
        missing = left;
    }
    // those that are quiet, and those that only bring data when something fails, can be asked even so
    for (place, query) in dashboards()?.into_iter().chain(alerts()?) {
        prometheus.ask(&query).await.with_context(|| place)?;
    }
    // and Prometheus itself takes the alerts as they are
    let (_, rules) = fetch(prometheus.address, "/api/v1/rules").await?;
    let rules: Value = serde_json::from_str(&rules)?;
    let rules = rules.pointer("/data/groups/0/rules").and_then(Value::as_array).context("no rules")?;
    let wrong: Vec<_> = rules.iter().filter(|rule| rule["health"] == "err").collect();
    assert!(wrong.is_empty() && rules.len() == alerts()?.len(), "{wrong:#?}");
    Ok(())
}

//! `taskgraph-operator try`: runs a small graph on the cluster and checks what came of it. `helm test` does that, with
//! no other image than the operator's own.

use std::{collections::BTreeMap, env, fs, hash::BuildHasher, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams},
};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    api::{self, CONDITION_STALLED, TaskGraph, TaskGraphStatus, TaskPhase},
    runtime::{client, health::Health, metrics::Metrics},
};

/// How often the graph is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// A trial that failed stays to be looked at, but not for ever.
const TTL: &str = "1h";
/// What the first task leaves behind, and the last one must have been given.
const QUALITY: f64 = 0.97;
/// Where the program lies in its image.
const PROGRAM: &str = "/taskgraph-operator";

/// Arguments of `try`.
#[derive(Args, Clone, Debug)]
pub struct TrialArgs {
    /// Image of the tasks: the operator's own
    #[arg(long, value_name = "IMAGE")]
    image: String,
    /// When a machine pulls it
    #[arg(long, value_enum, default_value_t = Pull::IfNotPresent)]
    pull_policy: Pull,
    /// A Secret to pull it with, in the graph's namespace; may be given several times
    #[arg(long, value_name = "NAME")]
    pull_secret: Vec<String>,
    /// Namespace of the graph. Absent: the one that the program runs in, or that of the kubeconfig's context
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// How long it may take
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    timeout: Duration,
}

/// When a machine pulls an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum Pull {
    Always,
    IfNotPresent,
    Never,
}

/// Arguments of `say`.
#[derive(Args, Clone, Debug)]
pub struct SayArgs {
    /// Outputs to leave behind: NAME=JSON, or NAME=env:VARIABLE for the JSON in an environment variable
    #[arg(value_name = "NAME=JSON", value_parser = output)]
    outputs: Vec<(String, Given)>,
    /// The file that Kubernetes reads the outputs from
    #[arg(long, value_name = "FILE", default_value = "/dev/termination-log")]
    to: PathBuf,
}

/// Where the value of an output comes from.
#[derive(Clone, Debug, PartialEq)]
enum Given {
    Json(Value),
    Variable(String),
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = text.parse::<api::Duration>().map_err(|error| error.to_string())?;
    Ok(Duration::from_millis(duration.millis()))
}

fn output(text: &str) -> Result<(String, Given), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=JSON")?;
    let given = match value.strip_prefix("env:") {
        Some(variable) => Given::Variable(variable.to_owned()),
        None => Given::Json(serde_json::from_str(value).map_err(|error| error.to_string())?),
    };
    Ok((name.to_owned(), given))
}

/// What a task of the trial does: writes its outputs, and ends.
pub fn say(args: &SayArgs) -> Result<()> {
    let mut outputs = Map::new();
    for (name, given) in &args.outputs {
        let value = match given {
            Given::Json(value) => value.clone(),
            Given::Variable(variable) => {
                let text = env::var(variable).with_context(|| format!("failed to read {variable}"))?;
                serde_json::from_str(&text).with_context(|| format!("{variable} is no JSON: {text}"))?
            }
        };
        outputs.insert(name.clone(), value);
    }
    fs::write(&args.to, Value::Object(outputs).to_string())
        .with_context(|| format!("failed to write {}", args.to.display()))
}

/// Runs a graph, and removes it if it went as it should. Errors say what did not, and where to look.
pub async fn run(args: &TrialArgs) -> Result<()> {
    let client = client::connect(&Metrics::new().0, &Health::default()).await?;
    let namespace = args.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    let graphs: Api<TaskGraph> = Api::namespaced(client, &namespace);
    let random = std::hash::RandomState::new().hash_one(std::process::id());
    let name = format!("taskgraph-test-{:08x}", random >> 32);

    let end = Instant::now() + args.timeout;
    let graph = graph(&name, args)?;
    let (creation, deletion) = (PostParams::default(), DeleteParams::foreground());
    match tried(end, || graphs.create(&creation, &graph)).await {
        // an answer was lost: by 32 random bits nobody else has the name
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        result => {
            result.with_context(|| format!("failed to create a graph in namespace {namespace}"))?;
        }
    }
    println!("created TaskGraph {name} in namespace {namespace}");
    if let Err(error) = follow(&graphs, &name, args.timeout, end).await {
        println!("the graph stays for {TTL}: kubectl -n {namespace} describe taskgraph {name}");
        return Err(error);
    }
    match tried(end, || graphs.delete(&name, &deletion)).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        result => {
            result.context("failed to delete the graph")?;
        }
    }
    println!("all went as it should; the graph is deleted");
    Ok(())
}

/// Makes a call, again and again until `end` where what failed may pass by itself: so soon after an install the API server
/// may not reach the operator's webhook yet.
async fn tried<T, F>(end: Instant, call: impl Fn() -> F) -> Result<T, kube::Error>
where
    F: Future<Output = Result<T, kube::Error>>,
{
    loop {
        match call().await {
            Err(error) if passes(&error) && Instant::now() < end => {
                println!("trying again: {error}");
                sleep(LOOK).await;
            }
            result => return result,
        }
    }
}

/// Whether a call that failed so may succeed later.
fn passes(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code >= 500 || status.code == 429,
        _ => true,
    }
}

/// Waits until the graph is judged. Calls that fail are tried again until the time is over.
async fn follow(graphs: &Api<TaskGraph>, name: &str, timeout: Duration, end: Instant) -> Result<()> {
    loop {
        let why = match graphs.get(name).await {
            Ok(graph) => match judge(&graph) {
                Verdict::Passed => return Ok(()),
                Verdict::Failed(why) => bail!(why),
                Verdict::Wait(why) => why,
            },
            Err(error) => format!("failed to read the graph: {error}"),
        };
        if Instant::now() >= end {
            bail!("not finished within {}s: {why}", timeout.as_secs());
        }
        sleep(LOOK).await;
    }
}

/// What is to be said of the graph as it stands.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed(String),
    /// It goes on; what it waits for.
    Wait(String),
}

fn judge(graph: &TaskGraph) -> Verdict {
    // the CRD's default
    let seen = |status: &&TaskGraphStatus| status.observed_generation != Some(-1);
    let Some(status) = graph.status.as_ref().filter(seen) else {
        let namespace = graph.namespace().unwrap_or_default();
        return Verdict::Wait(format!(
            "no operator has looked at the graph: does one run, serve namespace {namespace}, and hold the Lease?"
        ));
    };
    let message = status.message.as_deref().unwrap_or("no message");
    if status.holds(CONDITION_STALLED).is_some() {
        return Verdict::Failed(format!("the graph was refused: {message}"));
    }
    let progress = status.progress.as_deref().unwrap_or("nothing");
    if status.completion_time.is_none() {
        return Verdict::Wait(format!("{progress} done; {message}"));
    }
    let ended: BTreeMap<_, _> = status.tasks.iter().map(|task| (task.name.as_str(), task.phase)).collect();
    let wrong: Vec<_> = EXPECTED
        .iter()
        .filter(|(task, phase)| ended.get(task) != Some(phase))
        .map(|(task, phase)| format!("{task} should be {} and is {:?}", phase.name(), ended.get(task)))
        .collect();
    let given = status.tasks.iter().find(|task| task.name == "publish").and_then(|task| task.outputs.get("published"));
    if !wrong.is_empty() {
        Verdict::Failed(format!("{}; {message}", wrong.join(", ")))
    } else if given.and_then(Value::as_f64) != Some(QUALITY) {
        Verdict::Failed(format!("publish was given {given:?} instead of {QUALITY}"))
    } else {
        Verdict::Passed
    }
}

/// How the tasks of [`graph`] end.
const EXPECTED: [(&str, TaskPhase); 5] = [
    ("measure", TaskPhase::Succeeded),
    ("quality", TaskPhase::Succeeded),
    ("publish", TaskPhase::Succeeded),
    ("reject", TaskPhase::Skipped),
    ("cleanup", TaskPhase::Succeeded),
];

/// Outputs, an expression in the environment, a decision, and `finally`. Its pods keep to the standard "restricted".
fn graph(name: &str, args: &TrialArgs) -> Result<TaskGraph> {
    let task = |outputs: &str| {
        json!({"template": {"spec": {
            "imagePullSecrets": args.pull_secret.iter().map(|name| json!({"name": name})).collect::<Vec<_>>(),
            "containers": [{
                "name": "main",
                "image": args.image,
                "imagePullPolicy": format!("{:?}", args.pull_policy),
                "command": [PROGRAM, "say", outputs],
                "env": [],
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                },
            }],
        }}})
    };
    let mut publish = task("published=env:QUALITY");
    publish["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "QUALITY", "value": "${{ tasks.measure.outputs.quality }}"}]);
    let graph = json!({
        "apiVersion": format!("{}/{}", api::GROUP, api::VERSION),
        "kind": "TaskGraph",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "taskgraph-test"}},
        "spec": {
            "description": "Made by `helm test`, to see whether taskgraph works.",
            "timeout": "10m",
            "ttlAfterFinished": TTL,
            "podDefaults": {"securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"},
            }},
            "tasks": [
                {"name": "measure", "job": task(&format!("quality={QUALITY}"))},
                {"name": "quality", "dependsOn": ["measure"], "decision": {"branches": [
                    {"name": "good", "when": "tasks.measure.outputs.quality > 0.95"}, {"name": "poor"},
                ]}},
                {"name": "publish", "dependsOn": ["quality/good"], "job": publish},
                {"name": "reject", "dependsOn": ["quality/poor"], "job": task("rejected=true")},
            ],
            "finally": [{"name": "cleanup", "job": task("clean=true")}],
        },
    });
    serde_json::from_value(graph).context("the graph of the trial is none; this is a defect")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{engine::Templates, validate};

    #[derive(Parser)]
    struct Line<T: Args> {
        #[command(flatten)]
        args: T,
    }

    fn parse<T: Args>(line: &[&str]) -> T {
        Line::<T>::try_parse_from([&["x"], line].concat()).unwrap().args
    }

    fn trial() -> TaskGraph {
        let args = ["--image", "localhost/taskgraph:1", "--pull-secret", "registry", "--pull-policy", "Never"];
        graph("taskgraph-test-0000002a", &parse(&args)).unwrap()
    }

    #[test]
    fn the_graph_is_valid_and_says_what_is_expected_of_it() {
        let graph = trial();
        let checked = validate::check(Some(&graph.name_any()), &graph.spec, &Templates::new());
        assert!(checked.is_ok(), "{:#?}", checked.err());
        let mut tasks = graph.spec.tasks.iter().chain(&graph.spec.finally);
        assert!(tasks.by_ref().all(|task| EXPECTED.iter().any(|(name, _)| *name == task.name)));
        let text = serde_json::to_string(&graph.spec).unwrap();
        assert!(text.contains(r#""imagePullPolicy":"Never""#) && text.contains(r#"[{"name":"registry"}]"#), "{text}");
    }

    fn with_status(status: Value) -> Verdict {
        let mut graph = trial();
        graph.metadata.namespace = Some("team".into());
        graph.status = serde_json::from_value(status).unwrap();
        judge(&graph)
    }

    #[test]
    fn is_judged_by_its_status() {
        let tasks = |published: Value| {
            json!([
                {"name": "measure", "phase": "Succeeded"}, {"name": "quality", "phase": "Succeeded"},
                {"name": "publish", "phase": "Succeeded", "outputs": {"published": published}},
                {"name": "reject", "phase": "Skipped"}, {"name": "cleanup", "phase": "Succeeded"},
            ])
        };
        let ended = |tasks: Value| json!({"completionTime": "2026-01-01T00:00:00Z", "message": "m", "tasks": tasks});
        let mut failed = tasks(json!(0.97));
        failed[2]["phase"] = json!("Failed");
        for (status, expected) in [
            (Value::Null, "Wait(\"no operator has looked"),
            (json!({"progress": "1/5", "message": "measure cannot start"}), "Wait(\"1/5 done; measure cannot start"),
            (
                json!({"message": "no", "conditions": [{"type": "Stalled", "status": "True", "reason": "Invalid", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}),
                "Failed(\"the graph was refused: no\")",
            ),
            (ended(tasks(json!(0.97))), "Passed"),
            (ended(tasks(json!("0.97"))), "Failed(\"publish was given"),
            (ended(failed), "Failed(\"publish should be Succeeded and is Some(Failed); m\")"),
            (ended(json!([])), "Failed(\"measure should be Succeeded and is None"),
        ] {
            let verdict = format!("{:?}", with_status(status));
            assert!(verdict.starts_with(expected), "{verdict}");
        }
    }

    #[test]
    fn a_task_says_its_outputs() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log");
        let to = file.to_str().unwrap();
        say(&parse(&["a=1", r#"b={"c": [true]}"#, "--to", to])).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), r#"{"a":1,"b":{"c":[true]}}"#);
        let missing = say(&parse(&["a=env:TASKGRAPH_NO_SUCH_VARIABLE", "--to", to])).unwrap_err();
        assert_eq!(missing.to_string(), "failed to read TASKGRAPH_NO_SUCH_VARIABLE");
        assert!(output("a").is_err() && output("a=b").is_err());
    }
}

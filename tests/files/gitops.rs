//! The graphs in `gitops/statuses`: one in each state that `GitOps` tools may meet, with the status that the operator
//! writes. `hack/charts/check` asks Argo CD's and Flux' own code what they make of them.

use std::{collections::BTreeMap, env, fs};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use taskgraph::{
    api::{
        CONDITION_ACCEPTED, CONDITION_COMPLETE, CONDITION_FAILED, CONDITION_RECONCILING, CONDITION_STALLED,
        CONDITION_SUSPENDED, DesiredState, GraphPhase, TaskGraphSpec, TaskGraphStatus,
    },
    controller::{report::Verdict, restored::held},
    engine::{
        Action, Attempt, AttemptResult, Blame, Event, Failure, Identity, Plan, Run, Templates, compile, event::Step,
    },
};

use crate::objects::{files_below, read, relative, root};

/// Two tasks, one after the other; the first can be undone; and one that always runs.
fn spec() -> Value {
    json!({
        "tasks": [
            {"name": "reserve", "container": {"image": "shop:1"}, "compensate": {"container": {"image": "shop:1"}}},
            {"name": "ship", "dependsOn": ["reserve"], "container": {"image": "shop:1"}},
        ],
        "finally": [{"name": "tidy", "container": {"image": "shop:1"}}],
    })
}

/// A run, what of it goes on, and its clock.
struct Told {
    run: Run,
    plan: Plan,
    going: BTreeMap<(String, bool), Attempt>,
    now: Timestamp,
}

impl Told {
    fn begin(spec: Value) -> Self {
        let spec: TaskGraphSpec = serde_json::from_value(spec).unwrap();
        let plan = compile(&spec, &Templates::new()).unwrap();
        let identity = Identity { name: "order".into(), namespace: "shop".into(), uid: "6f1c".into() };
        let now: Timestamp = "2026-03-02T09:00:00Z".parse().unwrap();
        let run = Run::new(plan.graph.clone(), plan.settings.clone(), identity, now);
        let mut told = Self { run, plan, going: BTreeMap::new(), now };
        told.step([]);
        told
    }

    /// Steps a second later; what is to be launched is, and what is to be stopped goes on until `gone`.
    fn step(&mut self, events: impl IntoIterator<Item = Event>) -> &mut Self {
        self.now += SignedDuration::from_secs(1);
        let Step { actions, .. } = self.run.step(events, self.now);
        self.run.stored(self.run.sequence());
        let mut launched = Vec::new();
        for action in actions {
            if let Action::Launch(launch) = action {
                let def = self.plan.graph.task(launch.attempt.task);
                let (attempt, name) = (launch.attempt, def.name.to_string());
                let job = format!("order-{name}-{}-4kq2v7", attempt.number);
                self.going.insert((name, def.undoes.is_some()), attempt);
                launched.extend([Event::Launched { attempt, job }, Event::Started { attempt }]);
            }
        }
        if !launched.is_empty() {
            self.run.step(launched, self.now);
            self.run.stored(self.run.sequence());
        }
        self
    }

    fn end(&mut self, task: &str, undoing: bool, result: AttemptResult) -> &mut Self {
        let attempt = self.going.remove(&(task.to_owned(), undoing)).unwrap_or_else(|| panic!("{task} does not run"));
        let time = self.now;
        self.step([Event::Finished { attempt, result, time }])
    }

    fn ok(&mut self, task: &str) -> &mut Self {
        self.end(task, false, success())
    }

    fn undone(&mut self, task: &str) -> &mut Self {
        self.end(task, true, success())
    }

    fn fail(&mut self, task: &str) -> &mut Self {
        let message = Some("exit code 1: no truck".into());
        let failure = Failure { reason: "Error".into(), message, exit_code: Some(1), blame: Blame::Task };
        self.end(task, false, AttemptResult::Failed(failure))
    }

    fn gone(&mut self, task: &str) -> &mut Self {
        let attempt = self.going.remove(&(task.to_owned(), false)).unwrap();
        self.step([Event::Gone { attempt }])
    }

    fn want(&mut self, state: DesiredState) -> &mut Self {
        self.plan.settings.desired_state = state;
        self.run.set_settings(self.plan.settings.clone());
        self.step([])
    }

    /// Failed tasks run once more.
    fn rerun(&mut self) -> &mut Self {
        let rerun = serde_json::from_value(json!({"id": "again", "scope": "Failed"})).unwrap();
        assert!(self.run.rerun(&rerun, self.now) > 0);
        self.step([])
    }

    /// The status, as the operator stores it: first the verdict on the spec, then what the run knows.
    fn status(&self, verdict: &Verdict, generation: i64) -> TaskGraphStatus {
        let mut status = TaskGraphStatus::default();
        verdict.write(&mut status, generation, self.now);
        self.run.write(&mut status, self.now);
        status
    }
}

fn success() -> AttemptResult {
    AttemptResult::Succeeded { outputs: serde_json::Map::new(), message: None }
}

fn begun() -> Told {
    Told::begin(spec())
}

fn refused() -> Verdict {
    Verdict::Refused("Invalid", "spec.tasks[1].dependsOn[0]: no task \"reserv\" (did you mean \"reserve\"?)".into())
}

/// A graph that was never accepted.
fn not_accepted(verdict: &Verdict) -> TaskGraphStatus {
    let (Verdict::Refused(_, message) | Verdict::Waiting(_, message)) = verdict else { panic!("it was accepted") };
    let mut status =
        TaskGraphStatus { phase: Some(GraphPhase::Pending), message: Some(message.clone()), ..Default::default() };
    verdict.write(&mut status, 1, "2026-03-02T09:00:00Z".parse().unwrap());
    status
}

/// The CRD's default.
fn unseen() -> TaskGraphStatus {
    TaskGraphStatus { observed_generation: Some(-1), ..Default::default() }
}

/// A graph that was saved in the middle of its run, and is another object now.
fn restored() -> TaskGraphStatus {
    let mut status = begun().status(&Verdict::Accepted, 3);
    status.uid = Some("6f1c".into());
    let object =
        json!({"metadata": {"name": "order", "namespace": "shop", "uid": "9a40", "generation": 1}, "status": status});
    let verdict = held(&serde_json::from_value(object).unwrap());
    verdict.write(&mut status, 1, "2026-03-02T10:00:00Z".parse().unwrap());
    status
}

/// All states: a name, the generation of the spec, and the status that was written of an earlier one or of this.
fn states() -> Vec<(&'static str, i64, Option<TaskGraphStatus>)> {
    let accepted = |told: &Told| Some(told.status(&Verdict::Accepted, 1));
    let waiting = json!({"tasks": [{"name": "ask", "approval": {}}]});
    let missing = Verdict::Waiting("TemplateNotFound", "there is no TaskTemplate named \"ship\" yet".into());
    vec![
        ("new", 1, Some(unseen())),
        ("restored", 1, Some(restored())),
        ("template-missing", 1, Some(not_accepted(&missing))),
        ("refused", 1, Some(not_accepted(&refused()))),
        ("running", 1, accepted(&begun())),
        ("running-edited", 2, accepted(&begun())),
        ("running-edit-refused", 2, Some(begun().status(&refused(), 2))),
        ("approval-pending", 1, accepted(&Told::begin(waiting))),
        ("suspended", 1, accepted(begun().want(DesiredState::Suspend))),
        ("resumed", 1, accepted(begun().want(DesiredState::Suspend).want(DesiredState::Run))),
        ("cancelling", 1, accepted(begun().want(DesiredState::Cancel))),
        ("compensating", 1, accepted(begun().ok("reserve").fail("ship"))),
        ("finalizing", 1, accepted(begun().ok("reserve").ok("ship"))),
        ("complete", 1, accepted(begun().ok("reserve").ok("ship").ok("tidy"))),
        ("complete-edited", 2, accepted(begun().ok("reserve").ok("ship").ok("tidy"))),
        ("complete-edit-waits", 2, Some(begun().ok("reserve").ok("ship").ok("tidy").status(&missing, 2))),
        ("complete-edit-refused", 2, Some(begun().ok("reserve").ok("ship").ok("tidy").status(&refused(), 2))),
        ("failed", 1, accepted(begun().ok("reserve").fail("ship").undone("reserve").ok("tidy"))),
        ("failed-edit-refused", 2, Some(begun().fail("reserve").ok("tidy").status(&refused(), 2))),
        ("failed-edit-waits", 2, Some(begun().fail("reserve").ok("tidy").status(&missing, 2))),
        ("failed-rerun", 2, Some(begun().fail("reserve").ok("tidy").rerun().status(&Verdict::Accepted, 2))),
        ("cancelled", 1, accepted(begun().want(DesiredState::Cancel).gone("reserve").ok("tidy"))),
    ]
}

#[test]
fn every_phase_is_there() {
    let phases: Vec<_> = states().into_iter().filter_map(|(_, _, status)| status?.phase).collect();
    for phase in [
        GraphPhase::Pending,
        GraphPhase::Running,
        GraphPhase::Suspended,
        GraphPhase::Cancelling,
        GraphPhase::Compensating,
        GraphPhase::Finalizing,
        GraphPhase::Complete,
        GraphPhase::Failed,
    ] {
        assert!(phases.contains(&phase), "{phase:?}");
    }
}

#[test]
fn recorded_statuses_are_what_the_operator_writes() {
    let mut expected = BTreeMap::new();
    for (name, generation, status) in states() {
        let mut object = json!({
            "apiVersion": "taskgraph.dev/v1alpha1",
            "kind": "TaskGraph",
            "metadata": {"name": "order", "namespace": "shop", "generation": generation},
            "spec": spec(),
        });
        if let Some(status) = status {
            object["status"] = serde_json::to_value(status).unwrap();
        }
        expected.insert(format!("gitops/statuses/{name}.yaml"), serde_saphyr::to_string(&object).unwrap());
    }
    if env::var_os("UPDATE").is_some_and(|value| value == "1") {
        for (file, text) in &expected {
            fs::write(root().join(file), text).unwrap();
        }
    }
    let found: BTreeMap<_, _> =
        files_below("gitops/statuses", &["yaml"]).iter().map(|path| (relative(path), read(path))).collect();
    assert!(found == expected, "gitops/statuses is stale; run `UPDATE=1 cargo test --test files gitops`");
}

/// Every condition holds in one of them, and not in another: the checks ask for them.
#[test]
fn every_condition_is_there() {
    let held = |status: &TaskGraphStatus, type_: &str| {
        status.conditions.iter().any(|condition| condition.type_ == type_ && condition.status == "True")
    };
    let statuses: Vec<_> = states().into_iter().filter_map(|(_, _, status)| status).collect();
    for type_ in [
        CONDITION_ACCEPTED,
        CONDITION_COMPLETE,
        CONDITION_FAILED,
        CONDITION_SUSPENDED,
        CONDITION_RECONCILING,
        CONDITION_STALLED,
    ] {
        let times = statuses.iter().filter(|status| held(status, type_)).count();
        assert!((1..statuses.len()).contains(&times), "{type_} holds in {times} of {}", statuses.len());
    }
}

/// Who reads the document copies the checks from there.
#[test]
fn the_document_shows_the_checks_as_they_are() {
    let document = read(&root().join("docs/gitops.md"));
    for file in ["gitops/health.lua", "gitops/flux-health.yaml"] {
        // comments are for who reads the file
        for line in read(&root().join(file)).lines().filter(|line| !line.starts_with('#')) {
            assert!(document.contains(line.trim()), "docs/gitops.md lacks: {line}");
        }
    }
}

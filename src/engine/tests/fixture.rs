//! Graphs made by hand, and a run that is told what happens in words.

use std::sync::{Arc, LazyLock};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use crate::{
    api::{
        Approval, ApprovalDecision, DesiredState, Duration, FailurePolicy, OnTimeout, Output, TaskGraphSpec,
        TaskGraphStatus, TaskPhase, TemplateRef,
    },
    engine::{
        Action, Attempt, AttemptResult, Blame, Edited, Event, Failure, Graph, Identity, Plan, Run, Settings, Step,
        TaskId, Templates, compile,
        graph::{BranchDef, CacheRule, ChildDef, ForEachDef, Guard, Role, TaskDef, TriggerRule, Work, order::Order},
        payload::Arguments,
        policy::waiting::Delay,
        validate::attach,
    },
};

/// A graph under construction.
#[derive(Default)]
pub struct Build {
    tasks: Vec<TaskDef>,
    finally: Vec<TaskDef>,
    /// Tasks that are undone, and how often that is retried.
    undone: Vec<(TaskId, u32)>,
}

/// One task under construction.
pub struct TaskBuild<'a> {
    def: &'a mut TaskDef,
    earlier: Vec<(Arc<str>, TaskId, bool)>,
    undone: &'a mut Vec<(TaskId, u32)>,
}

impl Build {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn task(&mut self, name: &str) -> TaskBuild<'_> {
        let earlier = named(&self.tasks, 0);
        self.tasks.push(blank(name, false));
        TaskBuild { def: self.tasks.last_mut().unwrap(), earlier, undone: &mut self.undone }
    }

    /// All of `tasks` must have been added before.
    pub fn finally(&mut self, name: &str) -> TaskBuild<'_> {
        let earlier = named(&self.finally, self.tasks.len());
        self.finally.push(blank(name, true));
        TaskBuild { def: self.finally.last_mut().unwrap(), earlier, undone: &mut self.undone }
    }

    pub fn graph(self) -> Arc<Graph> {
        let first_finally = self.tasks.len();
        let mut tasks: Vec<_> = self.tasks.into_iter().chain(self.finally).collect();
        for place in 0..tasks.len() {
            for dependency in tasks[place].dependencies.clone() {
                tasks[dependency.index()].dependents.push(TaskId(u32::try_from(place).unwrap()));
            }
        }
        let by_name = tasks.iter().zip(0..).map(|(task, place)| (Arc::clone(&task.name), TaskId(place))).collect();
        let before: Vec<Vec<usize>> =
            tasks.iter().map(|task| task.dependencies.iter().map(|id| id.index()).collect()).collect();
        let compensations = self.undone.iter().map(|(id, retries)| {
            let mut undo = blank(&tasks[id.index()].name, false);
            undo.undoes = Some(*id);
            undo.trigger = TriggerRule::AllFinished;
            undo.retry.limit = *retries;
            undo.start_timeout = tasks[id.index()].start_timeout;
            undo
        });
        let (compensations, first_compensation) = (compensations.collect(), tasks.len());
        attach(&mut tasks, compensations, &Order::new(&before));
        Arc::new(Graph { tasks, first_finally, first_compensation, by_name, ..Graph::default() })
    }
}

impl TaskBuild<'_> {
    /// `TASK` or `TASK/BRANCH`, as in a spec.
    pub fn after(self, names: &[&str]) -> Self {
        for name in names {
            let (name, branch) = name.split_once('/').map_or((*name, None), |(name, branch)| (name, Some(branch)));
            let &(_, id, _) = self.earlier.iter().find(|(known, ..)| **known == *name).expect("an earlier task");
            if !self.def.dependencies.contains(&id) {
                self.def.dependencies.push(id);
            }
            if let Some(branch) = branch {
                match self.def.guards.iter_mut().find(|guard| guard.decision == id) {
                    Some(guard) => guard.branches.push(branch.into()),
                    None => self.def.guards.push(Guard { decision: id, branches: vec![branch.into()] }),
                }
            }
        }
        let handlers = |id: &TaskId| self.earlier.iter().any(|(_, known, handler)| known == id && *handler);
        self.def.handler = !self.def.dependencies.is_empty() && self.def.dependencies.iter().all(handlers);
        self
    }

    pub fn trigger(self, trigger: TriggerRule) -> Self {
        self.def.trigger = trigger;
        self.def.handler |= matches!(trigger, TriggerRule::AnyFailed | TriggerRule::AllFinished);
        self
    }

    /// A decision that takes its first branch, whatever it is asked.
    pub fn decision(self, branches: &[&str]) -> Self {
        let branches = branches.iter().map(|name| BranchDef { name: (*name).into(), when: None }).collect();
        self.def.work = Work::Decision { branches, inclusive: false };
        self
    }

    /// That decision takes every branch that holds.
    pub fn inclusive(self) -> Self {
        if let Work::Decision { inclusive, .. } = &mut self.def.work {
            *inclusive = true;
        }
        self
    }

    pub fn delay(self, seconds: u64) -> Self {
        self.def.work = Work::Delay(Delay::For(Duration::from_secs(seconds)));
        self
    }

    /// Waits for an approval, at most so long.
    pub fn approval(self, on_timeout: OnTimeout, seconds: Option<u64>) -> Self {
        self.def.work = Work::Approval(on_timeout);
        self.def.timeout = seconds.map(Duration::from_secs);
        self
    }

    /// Runs a graph template, in place of a container.
    pub fn child(self) -> Self {
        self.def.work = Work::Graph(ChildDef {
            template: TemplateRef { name: "template".into(), ..TemplateRef::default() },
            arguments: Arguments::default(),
            content: 0,
            depth: 1,
        });
        self
    }

    /// With so many items.
    pub fn for_each(self, items: usize) -> Self {
        let items =
            Arguments { values: Map::from_iter([("items".to_owned(), json!(vec![1; items]))]), ..Arguments::default() };
        self.def.for_each =
            Some(ForEachDef { items, parallelism: None, max_failures: None, retries_per_item: 0, per_item: false });
        self
    }

    /// With a Job, or child graph, for each of its items.
    pub fn per_item(self, parallelism: Option<u32>, max_failures: Option<u32>) -> Self {
        if let Some(rule) = &mut self.def.for_each {
            *rule = ForEachDef { parallelism, max_failures, per_item: true, ..rule.clone() };
        }
        self
    }

    pub fn retries(self, limit: u32) -> Self {
        self.def.retry.limit = limit;
        self
    }

    /// Another definition: attempts are made from something else.
    pub fn variant(self, number: u64) -> Self {
        self.def.hash = self.def.hash.wrapping_add(number);
        self
    }

    pub fn start_timeout(self, seconds: u64) -> Self {
        self.def.start_timeout = Duration::from_secs(seconds);
        self
    }

    pub fn priority(self, priority: u8) -> Self {
        self.def.priority = priority;
        self
    }

    pub fn allow_failure(self) -> Self {
        self.def.allow_failure = true;
        self
    }

    /// It can be undone; `retries`: of that.
    pub fn compensate(self, retries: u32) -> Self {
        let id = TaskId(u32::try_from(self.earlier.len()).unwrap());
        self.undone.push((id, retries));
        self
    }

    /// It may reuse a success of the last minute.
    pub fn cached(self) -> Self {
        self.def.cache = Some(CacheRule { key: None, max_age: Duration::from_secs(60) });
        self
    }

    pub fn output(self, output: Output) -> Self {
        self.def.outputs.push(output);
        self
    }
}

fn named(tasks: &[TaskDef], offset: usize) -> Vec<(Arc<str>, TaskId, bool)> {
    let id = |place: usize| TaskId(u32::try_from(place + offset).unwrap());
    tasks.iter().enumerate().map(|(place, task)| (Arc::clone(&task.name), id(place), task.handler)).collect()
}

/// A task with nothing but a container, and long enough waits between attempts.
fn blank(name: &str, finally: bool) -> TaskDef {
    static BLANK: LazyLock<TaskDef> = LazyLock::new(|| {
        let spec = json!({"tasks": [{
            "name": "blank",
            "container": {"image": "localhost/busybox:1"},
            "retry": {"limit": 0, "backoff": {"initial": "10s", "factor": 2, "max": "300s"}},
        }]});
        let graph = Arc::try_unwrap(planned(spec).graph).expect("nobody else has it");
        graph.tasks.into_iter().next().expect("one task")
    });
    TaskDef { name: name.into(), finally, ..BLANK.clone() }
}

/// The plan of a spec that is valid.
pub fn planned(spec: Value) -> Plan {
    let spec: TaskGraphSpec = serde_json::from_value(spec).expect("a spec");
    compile(&spec, &Templates::new()).expect("a valid spec")
}

/// The settings that a spec without any has.
pub fn settings() -> Settings {
    Settings {
        desired_state: DesiredState::Run,
        parallelism: None,
        failure_policy: FailurePolicy::StopLaunching,
        timeout: None,
        compensation_timeout: Duration::from_secs(3600),
        finally_timeout: Duration::from_secs(3600),
        ttl_after_finished: None,
        approvals: Arc::default(),
    }
}

/// Adds an approval to settings.
pub fn decide(settings: &mut Settings, task: &str, attempt: u32, decision: ApprovalDecision) {
    let message = Some("as agreed".to_owned());
    let approval = Approval { task: task.into(), attempt, decision, by: "ann".into(), message };
    Arc::make_mut(&mut settings.approvals).entry(task.into()).or_default().insert(attempt, approval);
}

pub fn identity() -> Identity {
    Identity { name: "g".into(), namespace: "default".into(), uid: "6f1c".into() }
}

/// So many seconds after the start.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap().checked_add(SignedDuration::from_secs(seconds)).unwrap()
}

/// A run, its clock, and what the last step answered.
pub struct Driver {
    pub run: Run,
    pub graph: Arc<Graph>,
    pub now: Timestamp,
    pub last: Step,
}

impl Driver {
    pub fn new(build: Build) -> Self {
        Self::with(build, settings())
    }

    pub fn with(build: Build, settings: Settings) -> Self {
        Self::begin(build.graph(), settings)
    }

    /// Of a spec as users write it.
    pub fn of(spec: Value) -> Self {
        let plan = planned(spec);
        Self::begin(plan.graph, plan.settings)
    }

    /// Of a spec that uses these templates.
    pub fn with_templates(spec: Value, templates: Value) -> Self {
        let spec: TaskGraphSpec = serde_json::from_value(spec).expect("a spec");
        let Value::Object(templates) = templates else { panic!("templates by name") };
        let templates = templates.into_iter().map(|(name, template)| {
            let template = serde_json::from_value(template).expect("a template");
            (TemplateRef { name, ..TemplateRef::default() }, Arc::new(template))
        });
        let plan = compile(&spec, &templates.collect()).expect("a valid spec");
        Self::begin(plan.graph, plan.settings)
    }

    fn begin(graph: Arc<Graph>, settings: Settings) -> Self {
        let run = Run::new(Arc::clone(&graph), settings, identity(), at(0));
        let mut driver = Self { run, graph, now: at(0), last: Step::default() };
        driver.step([]);
        driver
    }

    /// A further run from what the first would have stored.
    pub fn restarted(&self) -> Self {
        self.restored_from(&self.status())
    }

    pub fn restored_from(&self, status: &TaskGraphStatus) -> Self {
        let settings = self.run.settings().clone();
        let run = Run::restore(Arc::clone(&self.graph), settings, identity(), status);
        Self { run, graph: Arc::clone(&self.graph), now: self.now, last: Step::default() }
    }

    pub fn status(&self) -> TaskGraphStatus {
        let mut status = TaskGraphStatus::default();
        self.run.write(&mut status, self.now);
        status
    }

    pub fn step(&mut self, events: impl IntoIterator<Item = Event>) -> &Step {
        self.last = self.run.step(events, self.now);
        &self.last
    }

    /// Edits the graph; what was going on is told anew, as a controller would.
    pub fn edit(&mut self, spec: Value) -> Edited {
        let plan = planned(spec);
        let edited = self.run.edit(plan.graph, plan.settings, self.now);
        self.graph = Arc::clone(self.run.graph());
        self.told_again();
        edited
    }

    /// Has tasks started afresh; how many.
    pub fn rerun(&mut self, rerun: Value) -> usize {
        let rerun = serde_json::from_value(rerun).expect("a rerun");
        let count = self.run.rerun(&rerun, self.now);
        self.told_again();
        count
    }

    /// Steps, told of the Jobs that run.
    fn told_again(&mut self) {
        let live: Vec<_> = self.run.live().map(|live| live.attempt).collect();
        let told = live.into_iter().flat_map(|attempt| {
            let job = format!("g-{}", self.graph.task(attempt.task).name);
            [Event::Launched { attempt, job }, Event::Started { attempt }]
        });
        self.step(told.collect::<Vec<_>>());
    }

    pub fn set(&mut self, change: impl FnOnce(&mut Settings)) -> &Step {
        let mut settings = self.run.settings().clone();
        change(&mut settings);
        self.run.set_settings(settings);
        self.step([])
    }

    /// Somebody decides on an attempt.
    pub fn decide(&mut self, task: &str, attempt: u32, decision: ApprovalDecision) -> &Step {
        self.set(|settings| decide(settings, task, attempt, decision))
    }

    /// Lets time pass and steps.
    pub fn wait(&mut self, seconds: i64) -> &Step {
        self.now += SignedDuration::from_secs(seconds);
        self.step([])
    }

    /// Of a task, or of what undoes one: `undo:TASK`.
    pub fn id(&self, name: &str) -> TaskId {
        match name.strip_prefix("undo:") {
            Some(task) => self.graph.find_in_role(Role::Compensation, task).expect(name),
            None => self.graph.find(name).expect(name),
        }
    }

    /// The last attempt of a task.
    pub fn attempt(&self, name: &str) -> Attempt {
        let id = self.id(name);
        Attempt::new(id, self.run.task(id).attempts)
    }

    pub fn phase(&self, name: &str) -> TaskPhase {
        self.run.task(self.id(name)).phase
    }

    pub fn reason(&self, name: &str) -> &str {
        self.run.task(self.id(name)).reason.as_deref().unwrap_or_default()
    }

    /// `TASK`, or `undo:TASK`.
    pub fn name(&self, id: TaskId) -> String {
        let task = self.graph.task(id);
        let undo = if task.undoes.is_some() { "undo:" } else { "" };
        format!("{undo}{}", task.name)
    }

    /// Phases and reasons of all tasks, in one line: `a=Succeeded b=Omitted/DependencyFailed`. Compensations that are
    /// Pending are left out.
    pub fn line(&self) -> String {
        let waits =
            |id: &TaskId| self.graph.task(*id).undoes.is_some() && self.run.task(*id).phase == TaskPhase::Pending;
        let words = self.graph.ids().filter(|id| !waits(id)).map(|id| {
            let status = self.run.task(id);
            let reason = status.reason.as_ref().map(|reason| format!("/{reason}")).unwrap_or_default();
            format!("{}={}{reason}", self.name(id), status.phase.name())
        });
        words.collect::<Vec<_>>().join(" ")
    }

    /// What the last step asked for: `launch a/1`, `stop b/2`, `await c/1`.
    pub fn actions(&self) -> Vec<String> {
        let describe = |attempt: &Attempt| format!("{}/{}", self.name(attempt.task), attempt.number);
        let word = |action: &Action| match action {
            Action::Launch(launch) => format!("launch {}", describe(&launch.attempt)),
            Action::LookUp { task, .. } => format!("look up {}", self.graph.task(*task).name),
            Action::Stop { attempt } => format!("stop {}", describe(attempt)),
            Action::AwaitGone { attempt } => format!("await {}", describe(attempt)),
        };
        self.last.actions.iter().map(word).collect()
    }

    pub fn finished(&self, name: &str, result: AttemptResult) -> Event {
        Event::Finished { attempt: self.attempt(name), result, time: self.now }
    }

    pub fn ok(&mut self, name: &str) -> &Step {
        self.ok_with(name, json!({}))
    }

    pub fn ok_with(&mut self, name: &str, outputs: Value) -> &Step {
        let Value::Object(outputs) = outputs else { panic!("outputs are an object") };
        self.step([self.finished(name, AttemptResult::Succeeded { outputs, message: None })])
    }

    pub fn fail(&mut self, name: &str) -> &Step {
        self.fail_by(name, Blame::Task)
    }

    pub fn fail_by(&mut self, name: &str, blame: Blame) -> &Step {
        self.step([self.finished(name, failed(blame))])
    }

    pub fn gone(&mut self, name: &str) -> &Step {
        self.step([Event::Gone { attempt: self.attempt(name) }])
    }

    pub fn launched(&self, name: &str) -> Event {
        Event::Launched { attempt: self.attempt(name), job: format!("g-{name}") }
    }
}

pub fn failed(blame: Blame) -> AttemptResult {
    AttemptResult::Failed(Failure {
        reason: "Error".into(),
        message: Some("exit code 1".into()),
        exit_code: Some(1),
        blame,
    })
}

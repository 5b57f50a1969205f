//! What is drawn at random: a graph, and what becomes of each attempt.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::super::fixture::Build;
use crate::{
    api::{ApprovalDecision, DesiredState, FailurePolicy, OnTimeout},
    engine::{Attempt, AttemptResult, Blame, Failure, Graph, TaskId, graph::TriggerRule},
};

/// A graph and its world.
#[derive(Clone, Debug)]
pub struct Plan {
    pub tasks: Vec<TaskPlan>,
    /// How many of `tasks`, counted from the end, belong to `finally`.
    pub finally: usize,
    pub policy: FailurePolicy,
    pub parallelism: Option<u32>,
    /// Seconds.
    pub timeout: Option<u64>,
    /// What the user changes, and after how many seconds.
    pub changes: Vec<(i64, Change)>,
    /// Whether Jobs vanish.
    pub lossy: bool,
    /// Decides all that attempts do.
    pub seed: u64,
}

#[derive(Clone, Debug)]
pub enum Change {
    Desired(DesiredState),
    Policy(FailurePolicy),
    Parallelism(Option<u32>),
    /// On a task by its place, and one of its attempts.
    Approval(usize, u32, ApprovalDecision),
}

/// What a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Job,
    /// It runs a graph template.
    Child,
    Decision {
        inclusive: bool,
    },
    /// Seconds.
    Delay(u64),
    /// It times out after so many seconds.
    Approval(OnTimeout, u64),
}

#[derive(Clone, Debug, PartialEq)]
pub struct TaskPlan {
    /// How far back each dependency lies, and whether it is on a branch that is taken, where it is a decision.
    pub dependencies: Vec<(usize, Option<bool>)>,
    pub trigger: TriggerRule,
    pub kind: Kind,
    /// How many items it has, if it is run for each of a list.
    pub items: Option<usize>,
    /// Whether each of them has a Job: how many at once, and how many may fail. Of a child graph always.
    pub per_item: Option<(Option<u32>, Option<u32>)>,
    pub retries: u32,
    pub allow_failure: bool,
    /// It can be undone, and that is retried so often.
    pub compensate: Option<u32>,
    pub priority: u8,
    /// Whether an earlier success may stand in for it, and what comes of the question.
    pub cache: Option<Recall>,
    /// Which of several definitions its attempts are made from.
    pub variant: u64,
}

/// What is said to a task that asks for an earlier success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recall {
    /// There is one.
    Hit,
    /// There is none.
    Miss,
    /// Nothing.
    Silent,
}

/// What becomes of an attempt; times in milliseconds.
#[derive(Clone, Debug)]
pub struct Script {
    pub create: i64,
    /// It is that of a child graph.
    pub child: bool,
    /// After the Job exists; `None`: never. A child graph is accepted at last, however long it takes.
    pub start: Option<i64>,
    pub blocked_by_cluster: bool,
    /// After the pod started.
    pub run: i64,
    pub result: AttemptResult,
    pub gone: i64,
}

impl TaskPlan {
    /// How many items it has, if it is run for each of a list.
    pub fn items(&self) -> Option<usize> {
        // only what has attempts is run for each
        self.items.filter(|_| matches!(self.kind, Kind::Job | Kind::Child))
    }

    /// How many of its items may run at once and fail, if each has a Job or child graph of its own.
    pub fn per_item(&self) -> Option<(Option<u32>, Option<u32>)> {
        self.items()?;
        self.per_item.or((self.kind == Kind::Child).then_some((None, None)))
    }

    /// Takes away a `maxFailures` that may stop items: which of them failed first would say whose fault the attempt was.
    pub fn stop_no_items(&mut self) {
        let items = self.items.unwrap_or(0);
        if let Some((_, max_failures)) = &mut self.per_item {
            *max_failures = max_failures.filter(|limit| *limit as usize + 1 >= items);
        }
    }

    /// What of it an attempt is made from, as a number.
    fn definition(&self) -> u64 {
        xxh3_64(format!("{:?} {:?} {:?} {}", self.kind, self.items, self.per_item(), self.variant).as_bytes())
    }

    /// Adds the task to a graph.
    fn build(&self, name: &str, after: &[&str], finally: bool, build: &mut Build) {
        let made = if finally { build.finally(name) } else { build.task(name) };
        let made = made.after(after).retries(self.retries).priority(self.priority).start_timeout(120);
        // a task without dependencies has no trigger
        let made = if after.is_empty() { made } else { made.trigger(self.trigger) };
        let made = match self.kind {
            Kind::Child => made.child(),
            Kind::Job => made,
            Kind::Decision { inclusive: false } => made.decision(&["yes", "no"]),
            Kind::Decision { inclusive: true } => made.decision(&["yes", "no"]).inclusive(),
            Kind::Delay(seconds) => made.delay(seconds),
            Kind::Approval(on_timeout, seconds) => made.approval(on_timeout, Some(seconds)),
        };
        let made = match self.items() {
            Some(items) => made.for_each(items),
            None => made,
        };
        let made = match self.per_item() {
            Some((parallelism, max_failures)) => made.per_item(parallelism, max_failures),
            None => made,
        };
        let made = made.variant(self.definition());
        let plain = self.kind == Kind::Job && self.items.is_none() && self.compensate.is_none();
        let caches = self.cache.is_some() && !finally && plain;
        let made = if caches { made.cached() } else { made };
        let made = if self.allow_failure { made.allow_failure() } else { made };
        let can_be_undone = matches!(self.kind, Kind::Job | Kind::Child | Kind::Approval(..));
        if let Some(retries) = self.compensate.filter(|_| !finally && can_be_undone) {
            made.compensate(retries);
        }
    }
}

/// A graph of those tasks that are there, named `t0`, `t1`, ... by their places; those from `first_finally` on belong
/// to `finally`. A dependency on a place where no task is does not count.
pub fn graph(tasks: &[Option<&TaskPlan>], first_finally: usize) -> Arc<Graph> {
    let mut build = Build::new();
    for (place, task) in tasks.iter().enumerate() {
        let Some(task) = task else { continue };
        let finally = place >= first_finally;
        let first = if finally { first_finally } else { 0 };
        let mut names = Vec::new();
        for (back, branch) in &task.dependencies {
            let Some(other) = place.checked_sub(back + 1).filter(|other| *other >= first) else { continue };
            let Some(before) = tasks[other] else { continue };
            names.push(match branch.filter(|_| matches!(before.kind, Kind::Decision { .. })) {
                Some(taken) => format!("t{other}/{}", if taken { "yes" } else { "no" }),
                None => format!("t{other}"),
            });
        }
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        task.build(&format!("t{place}"), &names, finally, &mut build);
    }
    build.graph()
}

impl Plan {
    pub fn graph(&self) -> Arc<Graph> {
        let tasks: Vec<_> = self.tasks.iter().map(Some).collect();
        graph(&tasks, self.tasks.len() - self.finally)
    }

    /// How many items a task has, if it is run for each of a list.
    pub fn items(&self, id: TaskId) -> Option<usize> {
        self.tasks.get(id.index())?.items()
    }

    /// How many of its items may run at once and fail, if each has a Job or child graph of its own.
    pub fn per_item(&self, id: TaskId) -> Option<(Option<u32>, Option<u32>)> {
        self.tasks.get(id.index())?.per_item()
    }

    /// What becomes of an attempt: always the same.
    pub fn script(&self, attempt: Attempt) -> Script {
        let mut key = self.seed.to_le_bytes().to_vec();
        key.extend(attempt.task.0.to_le_bytes());
        // what is behind the tasks undoes them, by Jobs
        let child = self.tasks.get(attempt.task.index()).is_some_and(|task| task.kind == Kind::Child);
        key.extend(attempt.item.into_iter().flat_map(u32::to_le_bytes));
        script(&key, attempt.number, child, self.items(attempt.task).filter(|_| attempt.item.is_none()))
    }
}

/// What becomes of an attempt of a task, which `key` tells from others.
pub fn script(key: &[u8], number: u32, child: bool, items: Option<usize>) -> Script {
    let draw = |what: u8, of: u64| {
        let mut bytes = key.to_vec();
        bytes.extend(number.to_le_bytes());
        bytes.push(what);
        xxh3_64(&bytes) % of
    };
    let millis = |what, of| i64::try_from(draw(what, of)).unwrap();
    let failed = |blame| {
        AttemptResult::Failed(Failure { reason: "Error".into(), message: Some("no".into()), exit_code: Some(1), blame })
    };
    let result = match draw(0, 10) {
        0..5 => AttemptResult::Succeeded {
            outputs: Map::from_iter([("attempt".to_owned(), left_by(number, items))]),
            message: None,
        },
        5..8 => failed(Blame::Task),
        8 => failed(Blame::Cluster),
        _ => failed(Blame::Final),
    };
    let start = if child { Some(millis(3, 200_000)) } else { (draw(2, 12) > 0).then(|| millis(3, 20_000)) };
    Script {
        create: millis(1, 2_000),
        child,
        start,
        blocked_by_cluster: draw(4, 2) == 0,
        run: millis(5, 60_000),
        result,
        gone: millis(6, 30_000),
    }
}

/// The output `attempt` of a task: of each item, if it has items.
pub fn left_by(attempt: u32, items: Option<usize>) -> Value {
    items.map_or_else(|| json!(attempt), |items| json!(vec![attempt; items]))
}

fn trigger() -> impl Strategy<Value = TriggerRule> {
    use TriggerRule::*;
    prop_oneof![
        4 => Just(NoneFailed),
        1 => Just(AllSucceeded),
        1 => (1..3u32).prop_map(MinSucceeded),
        1 => Just(AllFinished),
        1 => Just(AnyFailed),
    ]
}

fn kind() -> impl Strategy<Value = Kind> {
    let on_timeout = prop::sample::select(vec![OnTimeout::Fail, OnTimeout::Reject, OnTimeout::Approve]);
    prop_oneof![
        12 => Just(Kind::Job),
        4 => Just(Kind::Child),
        4 => any::<bool>().prop_map(|inclusive| Kind::Decision { inclusive }),
        2 => (0..90u64).prop_map(|seconds| Kind::Delay(seconds.max(1))),
        2 => (on_timeout, 1..120u64).prop_map(|(on_timeout, seconds)| Kind::Approval(on_timeout, seconds)),
    ]
}

pub fn task() -> impl Strategy<Value = TaskPlan> {
    let dependencies = prop::collection::vec((0..5usize, prop::option::of(any::<bool>())), 0..4);
    let items = prop_oneof![3 => Just(None), 1 => (0..4usize).prop_map(Some)];
    let per_item = prop::option::of((prop::option::of(1..3u32), prop::option::of(0..3u32)));
    let items = (items, per_item);
    let compensate = prop::option::of(0..3u32);
    let cache =
        prop::sample::select(vec![None, None, None, Some(Recall::Hit), Some(Recall::Miss), Some(Recall::Silent)]);
    let numbers = (0..3u32, 0..3u8, 0..2u64);
    (dependencies, trigger(), kind(), items, prop::bool::weighted(0.1), compensate, cache, numbers).prop_map(
        |(dependencies, trigger, kind, (items, per_item), allow_failure, compensate, cache, numbers)| {
            let (retries, priority, variant) = numbers;
            TaskPlan {
                dependencies,
                trigger,
                kind,
                items,
                per_item,
                retries,
                allow_failure,
                compensate,
                priority,
                cache,
                variant,
            }
        },
    )
}

pub fn policy() -> impl Strategy<Value = FailurePolicy> {
    prop::sample::select(vec![
        FailurePolicy::StopLaunching,
        FailurePolicy::CancelRunning,
        FailurePolicy::FinishBranches,
    ])
}

fn change() -> impl Strategy<Value = Change> {
    use DesiredState::*;
    prop_oneof![
        3 => prop::sample::select(vec![Run, Suspend, Suspend, Cancel]).prop_map(Change::Desired),
        1 => policy().prop_map(Change::Policy),
        1 => prop::option::of(1..4u32).prop_map(Change::Parallelism),
        3 => (0..12usize, 1..4u32, prop::sample::select(vec![ApprovalDecision::Approved, ApprovalDecision::Rejected]))
            .prop_map(|(task, attempt, decision)| Change::Approval(task, attempt, decision)),
    ]
}

pub fn plan() -> impl Strategy<Value = Plan> {
    let tasks = (prop::collection::vec(task(), 1..12), 0..3usize);
    let changes = prop_oneof![Just(vec![]), prop::collection::vec((0..200i64, change()), 1..6)];
    let timeout = prop_oneof![3 => Just(None), 1 => (20..200u64).prop_map(Some)];
    (tasks, policy(), prop::option::of(1..4u32), timeout, changes, any::<bool>(), any::<u64>()).prop_map(
        |((tasks, finally), policy, parallelism, timeout, mut changes, lossy, seed)| {
            changes.sort_by_key(|(time, _)| *time);
            let finally = finally.min(tasks.len() - 1);
            Plan { tasks, finally, policy, parallelism, timeout, changes, lossy, seed }
        },
    )
}

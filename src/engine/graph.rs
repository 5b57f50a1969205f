//! A graph that was found valid: names interned, expressions compiled, dependencies indexed.

pub(crate) mod order;

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    expr::{EvalError, Expression, Scope},
    payload::{Arguments, Payload, text::Text},
    policy::waiting::{Approvals, Delay},
};
use crate::api::{
    DesiredState, Duration, FailurePolicy, OnTimeout, Output, PodDefaults, ROLE_COMPENSATION, ROLE_TASK, TemplateRef,
    VolumeUse,
};

/// A task by its place: `spec.tasks` first, then `spec.finally`, then the compensations of `spec.tasks`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskId(pub u32);

impl TaskId {
    /// Its place in [`Graph::tasks`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Which graph a run belongs to: what expressions read as `graph`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its UID.
    pub uid: String,
}

/// A valid graph. It never changes.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// The tasks: `spec.tasks` first, then `spec.finally`, then what undoes tasks of `spec.tasks`, in their order; in a
    /// run, then those that were removed.
    pub tasks: Vec<TaskDef>,
    /// Place of the first task of `finally`.
    pub first_finally: usize,
    /// Place of the first compensation.
    pub first_compensation: usize,
    /// Tasks by name; a compensation has the name of the task that it undoes, and is not among them.
    pub by_name: BTreeMap<Arc<str>, TaskId>,
    /// The graph's arguments.
    pub arguments: Arc<Map<String, Value>>,
    /// What it returns once all ended well.
    pub outputs: Vec<OutputDef>,
    /// What its pods share.
    pub pod_defaults: Option<PodDefaults>,
}

/// One value that a graph returns.
#[derive(Clone, Debug)]
pub struct OutputDef {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Expression,
}

impl Graph {
    /// The definition of a task.
    ///
    /// # Panics
    /// If `id` is of another graph.
    pub fn task(&self, id: TaskId) -> &TaskDef {
        &self.tasks[id.index()]
    }

    /// A task by its name.
    pub fn find(&self, name: &str) -> Option<TaskId> {
        self.by_name.get(name).copied()
    }

    /// The same graph with tasks that were removed from it, and of which attempts must be known.
    #[must_use]
    pub fn with_removed<'a>(mut self: Arc<Self>, names: impl IntoIterator<Item = &'a str>) -> Arc<Self> {
        for name in names {
            // copied only where there is something to add
            let graph = Arc::make_mut(&mut self);
            let id = TaskId(u32::try_from(graph.tasks.len()).unwrap_or(u32::MAX));
            let task = TaskDef::removed(name);
            graph.by_name.insert(Arc::clone(&task.name), id);
            graph.tasks.push(task);
        }
        self
    }

    /// What has attempts under this name in this role.
    pub fn find_in_role(&self, role: Role, name: &str) -> Option<TaskId> {
        let id = self.find(name)?;
        match role {
            Role::Task => Some(id),
            Role::Compensation => self.task(id).compensation,
        }
    }

    /// The ids of all tasks of `finally`, in order.
    pub fn finally(&self) -> impl Iterator<Item = TaskId> + use<> {
        self.ids().take(self.first_compensation).skip(self.first_finally)
    }

    /// The id of the first compensation, if there is one.
    pub(crate) fn first_compensation_id(&self) -> TaskId {
        TaskId(u32::try_from(self.first_compensation).unwrap_or(u32::MAX))
    }

    /// The ids of all compensations, in order.
    pub fn compensations(&self) -> impl Iterator<Item = TaskId> + use<> {
        let removed = self.tasks.iter().rev().take_while(|task| task.is_removed()).count();
        self.ids().take(self.tasks.len() - removed).skip(self.first_compensation)
    }

    /// The ids of tasks that were removed.
    pub fn removed(&self) -> impl Iterator<Item = TaskId> + use<> {
        let first = self.tasks.len() - self.tasks.iter().rev().take_while(|task| task.is_removed()).count();
        self.ids().skip(first)
    }

    /// The ids of what a status tells of: `tasks`, `finally`, and what was removed.
    pub fn told(&self) -> impl Iterator<Item = TaskId> + use<> {
        self.ids().take(self.first_compensation).chain(self.removed())
    }

    /// The ids of all tasks, in order.
    pub fn ids(&self) -> impl Iterator<Item = TaskId> + use<> {
        (0..u32::try_from(self.tasks.len()).unwrap_or(u32::MAX)).map(TaskId)
    }
}

/// What an attempt is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// To do a task.
    Task,
    /// To undo one.
    Compensation,
}

impl Role {
    /// Its word on Jobs and pods: the value of [`LABEL_ROLE`](crate::api::LABEL_ROLE).
    pub fn label(self) -> &'static str {
        match self {
            Self::Task => ROLE_TASK,
            Self::Compensation => ROLE_COMPENSATION,
        }
    }

    /// The role that a label tells.
    pub fn of_label(label: &str) -> Option<Self> {
        [Self::Task, Self::Compensation].into_iter().find(|role| role.label() == label)
    }
}

/// One task of a valid graph, templates resolved and defaults filled in; or what undoes one.
#[derive(Clone, Debug)]
pub struct TaskDef {
    /// Its name; of a compensation, the name of the task that it undoes.
    pub name: Arc<str>,
    /// The task that it undoes, if it is a compensation.
    pub undoes: Option<TaskId>,
    /// What undoes it, if it has `compensate`.
    pub compensation: Option<TaskId>,
    /// Whether it belongs to `spec.finally`.
    pub finally: bool,
    /// What comes before it; each task once.
    pub dependencies: Vec<TaskId>,
    /// What comes after it; each task once.
    pub dependents: Vec<TaskId>,
    /// Branches that must have been taken.
    pub guards: Vec<Guard>,
    /// Which outcomes of its dependencies let it start.
    pub trigger: TriggerRule,
    /// A failure handler: its trigger is `AnyFailed` or `AllFinished`, or it has dependencies and all are handlers.
    pub handler: bool,
    /// Condition on starting.
    pub when: Option<Expression>,
    /// What it does.
    pub work: Work,
    /// What it does it for, if for each item of a list.
    pub for_each: Option<ForEachDef>,
    /// How failed attempts are tried again.
    pub retry: RetryRule,
    /// How long one attempt may take.
    pub timeout: Option<Duration>,
    /// How long an attempt may wait for its pod to start.
    pub start_timeout: Duration,
    /// Whether its failure counts as success.
    pub allow_failure: bool,
    /// 0 (last) to 10 (first).
    pub priority: u8,
    /// Declared outputs.
    pub outputs: Vec<Output>,
    /// Claims of the graph that its containers mount.
    pub volumes: Vec<VolumeUse>,
    /// When the outputs of an earlier success stand in for it.
    pub cache: Option<CacheRule>,
    /// Hash of all that an attempt is made from (not of the values of expressions).
    pub hash: u64,
}

impl TaskDef {
    /// How long an attempt may wait for its pod to start; `None` where it has no pod of its own.
    pub fn starts_within(&self) -> Option<Duration> {
        matches!(self.work, Work::Job(_)).then_some(self.start_timeout)
    }

    /// Whether an attempt of it is a Job or child graph for each item.
    pub fn is_per_item(&self) -> bool {
        self.for_each.as_ref().is_some_and(|rule| rule.per_item)
    }

    /// A task that is in no spec any more.
    fn removed(name: &str) -> Self {
        Self {
            name: name.into(),
            undoes: None,
            compensation: None,
            finally: false,
            dependencies: Vec::new(),
            dependents: Vec::new(),
            guards: Vec::new(),
            trigger: TriggerRule::NoneFailed,
            handler: false,
            when: None,
            work: Work::Removed,
            retry: RetryRule {
                limit: 0,
                initial: Duration::from_millis(1),
                factor: 1.0,
                max: Duration::from_millis(1),
                when: None,
            },
            timeout: None,
            start_timeout: Duration::from_millis(1),
            allow_failure: false,
            priority: 0,
            outputs: Vec::new(),
            volumes: Vec::new(),
            cache: None,
            for_each: None,
            hash: 0,
        }
    }

    /// Whether it was removed from the spec.
    pub fn is_removed(&self) -> bool {
        matches!(self.work, Work::Removed)
    }

    /// What its attempts are for.
    pub fn role(&self) -> Role {
        if self.undoes.is_some() { Role::Compensation } else { Role::Task }
    }
}

/// One of `branches` of `decision` must have been taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// A task with a decision.
    pub decision: TaskId,
    /// Names of its branches.
    pub branches: Vec<Arc<str>>,
}

/// A trigger, ready to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TriggerRule {
    /// `NoneFailed`
    NoneFailed,
    /// `AllSucceeded`
    AllSucceeded,
    /// `AnySucceeded` (1) and `minSucceeded`.
    MinSucceeded(u32),
    /// `AllFinished`
    AllFinished,
    /// `AnyFailed`
    AnyFailed,
}

/// What a task does.
#[derive(Clone, Debug)]
pub enum Work {
    /// Each attempt is a Job.
    Job(Payload),
    /// Each attempt is a child graph.
    Graph(ChildDef),
    /// A branch is chosen; there is no Job.
    Decision {
        /// The branches, in the order in which they are tried.
        branches: Vec<BranchDef>,
        /// Every branch that holds is taken, not only the first.
        inclusive: bool,
    },
    /// It waits for a time; there is no Job.
    Delay(Delay),
    /// Each attempt waits for an approval, and it may mean this that nobody decides; there is no Job.
    Approval(OnTimeout),
    /// Nothing any more: it was removed from the spec, and had attempts.
    Removed,
}

impl Work {
    /// What an attempt is made from, all expressions replaced by their values; `None` where there are no attempts.
    ///
    /// Of a Job: its container or pod template. Of a child graph: its arguments.
    pub fn render(&self, scope: &Scope<'_>) -> Option<Result<Arc<Value>, EvalError>> {
        match self {
            Self::Job(payload) => Some(payload.render(scope)),
            Self::Graph(child) => Some(child.render(scope)),
            Self::Decision { .. } | Self::Delay(_) | Self::Approval(_) | Self::Removed => None,
        }
    }
}

/// A graph template that a task runs.
#[derive(Clone, Debug)]
pub struct ChildDef {
    /// Which template.
    pub template: TemplateRef,
    pub(crate) arguments: Arguments,
    /// Hash of the template and of all that it runs.
    pub content: u64,
    /// How deep child graphs nest from here: 1 if this one has none itself.
    pub depth: usize,
}

impl ChildDef {
    fn render(&self, scope: &Scope<'_>) -> Result<Arc<Value>, EvalError> {
        Ok(Arc::new(Value::Object(self.arguments.merge(scope)?.into_owned())))
    }
}

/// The items of a task, and how they are gone through.
#[derive(Clone, Debug)]
pub struct ForEachDef {
    /// The list, expressions as they were written, under the name `items`.
    pub(crate) items: Arguments,
    /// How many items may run at once.
    pub parallelism: Option<u32>,
    /// How many items may fail; `None`: none, but all are tried.
    pub max_failures: Option<u32>,
    /// How often an item that failed is tried again.
    pub retries_per_item: u32,
    /// Whether each item has a Job or child graph of its own.
    pub per_item: bool,
}

/// A branch of a decision.
#[derive(Clone, Debug)]
pub struct BranchDef {
    /// Its name.
    pub name: Arc<str>,
    /// Its condition; without one it holds if no other branch does.
    pub when: Option<Expression>,
}

/// Retries, defaults filled in.
#[derive(Clone, Debug)]
pub struct RetryRule {
    /// How many attempts there may be after the first.
    pub limit: u32,
    /// Wait before the first retry.
    pub initial: Duration,
    /// By how much each wait is longer than the one before.
    pub factor: f64,
    /// The longest wait.
    pub max: Duration,
    /// Condition on trying again, over `exitCode`, `reason`, `attempt`.
    pub when: Option<Expression>,
}

/// `cache` of a task.
#[derive(Clone, Debug)]
pub struct CacheRule {
    /// What must be the same beside the task itself.
    pub(crate) key: Option<Text>,
    /// How old the success may be.
    pub max_age: Duration,
}

/// Settings of a graph that may change while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What the user wants now.
    pub desired_state: DesiredState,
    /// How many tasks may run at once.
    pub parallelism: Option<u32>,
    /// What a failed task means for the others.
    pub failure_policy: FailurePolicy,
    /// How long all of `tasks` may take.
    pub timeout: Option<Duration>,
    /// How long all compensations may take.
    pub compensation_timeout: Duration,
    /// How long all of `finally` may take.
    pub finally_timeout: Duration,
    /// How long the graph stays after it finished.
    pub ttl_after_finished: Option<Duration>,
    /// What was decided on tasks that wait for an approval.
    pub approvals: Arc<Approvals>,
}

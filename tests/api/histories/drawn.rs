//! What is drawn at random: the spec of a graph, what is done to it, and what its pods do.

use std::time::Duration;

use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    fixture::container,
    support::{Play, player::Ending},
};

/// Names of tasks: `t0` to `t5`, and `t6`, `t7` in `finally`.
pub const SLOTS: usize = 8;
const FIRST_FINALLY: usize = 6;

/// Draws numbers: the same from the same seed.
pub struct Dice(u64);

impl Dice {
    /// Of a seed, for a purpose.
    pub fn new(seed: u64, purpose: &str) -> Self {
        Self(xxh3_64(&[&seed.to_le_bytes(), purpose.as_bytes()].concat()))
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = xxh3_64(&self.0.to_le_bytes());
        usize::try_from(self.0 >> 33).unwrap_or(0) % limit
    }

    pub fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    fn millis(&mut self, limit: usize) -> Duration {
        Duration::from_millis(self.below(limit) as u64)
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Container,
    Items,
    Template,
    Child,
    Decision,
    Delay,
    Approval,
}

/// One task, dependencies by slot.
#[derive(Clone, Debug)]
struct Task {
    kind: Kind,
    dependencies: Vec<(usize, &'static str)>,
    trigger: Option<&'static str>,
    retries: usize,
    allow_failure: bool,
    compensate: bool,
    image: usize,
}

impl Task {
    fn draw(dice: &mut Dice, slot: usize) -> Self {
        use Kind::*;
        let kinds = [
            Container, Container, Container, Container, Container, Items, Template, Child, Decision, Decision, Delay,
            Approval,
        ];
        let first = if slot < FIRST_FINALLY { 0 } else { FIRST_FINALLY };
        let dependencies = (first..slot).filter(|_| dice.one_in(2)).collect::<Vec<_>>();
        Self {
            kind: dice.pick(&kinds),
            dependencies: dependencies.into_iter().map(|slot| (slot, dice.pick(&["", "odd", "even"]))).collect(),
            trigger: dice.pick(&[None, None, None, Some("AllFinished"), Some("AnyFailed"), Some("AnySucceeded")]),
            retries: dice.below(3),
            allow_failure: dice.one_in(8),
            compensate: dice.one_in(4),
            image: dice.below(2),
        }
    }

    fn container(&self) -> Value {
        let mut container = container();
        container["image"] = json!(format!("localhost/busybox:{}", self.image));
        container
    }

    /// As a spec has it, beside the other tasks.
    fn render(&self, slot: usize, tasks: &[Option<Task>]) -> Value {
        let known =
            self.dependencies.iter().filter_map(|(other, branch)| Some((other, branch, tasks[*other].as_ref()?)));
        let depends_on: Vec<String> = known
            .map(|(other, branch, task)| match task.kind {
                Kind::Decision if !branch.is_empty() => format!("t{other}/{branch}"),
                _ => format!("t{other}"),
            })
            .collect();
        let mut task = json!({"name": format!("t{slot}"), "dependsOn": depends_on});
        let first = depends_on.first().map(|text| text.split('/').next().unwrap_or_default().to_owned());
        match self.kind {
            Kind::Container => task["container"] = self.container(),
            Kind::Items => {
                task["container"] = self.container();
                task["forEach"] = json!({"items": ["a", "b"]});
            }
            Kind::Template => task["templateRef"] = json!({"name": "plain"}),
            Kind::Child => task["templateRef"] = json!({"name": "load"}),
            Kind::Decision => {
                let when = first.map_or("true".to_owned(), |name| format!("tasks.{name}.attempts % 2 == 1"));
                task["decision"] = json!({"branches": [{"name": "odd", "when": when}, {"name": "even"}]});
            }
            Kind::Delay => task["delay"] = json!({"duration": format!("{}ms", 50 + 200 * self.retries)}),
            Kind::Approval => task["approval"] = json!({}),
        }
        // what a decision asks must be certain to be final
        let may = |trigger: &&str| self.kind != Kind::Decision || *trigger != "AnySucceeded";
        if let Some(trigger) = self.trigger.filter(|trigger| may(trigger)).filter(|_| !depends_on.is_empty()) {
            task["trigger"] = json!(trigger);
        }
        let has_attempts = !matches!(self.kind, Kind::Decision | Kind::Delay);
        if has_attempts && self.retries > 0 {
            task["retry"] = json!({"limit": self.retries, "backoff": {"initial": "20ms", "max": "50ms"}});
        }
        if has_attempts && self.allow_failure {
            task["allowFailure"] = json!(true);
        }
        if has_attempts && self.compensate && slot < FIRST_FINALLY {
            let retry = json!({"limit": 2, "backoff": {"initial": "20ms", "max": "50ms"}});
            task["compensate"] = json!({"container": container(), "retry": retry});
        }
        task
    }
}

/// Something that is done to a graph.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// The spec is changed already.
    Patch,
    DeleteJob,
    Approve,
}

/// The spec of a graph, as its user would have it.
pub struct Spec {
    tasks: Vec<Option<Task>>,
    parallelism: Option<usize>,
    failure_policy: &'static str,
    desired: &'static str,
    rerun: Option<(u32, Value)>,
    approvals: Vec<Value>,
    /// A task depends on one that there is not.
    is_broken: bool,
}

impl Spec {
    /// Two to eight tasks.
    pub fn draw(dice: &mut Dice) -> Self {
        let mut tasks = vec![None; SLOTS];
        let last = 1 + dice.below(SLOTS - 1);
        for slot in (0..=last).filter(|slot| *slot < 2 || *slot == last || !dice.one_in(4)).collect::<Vec<_>>() {
            tasks[slot] = Some(Task::draw(dice, slot));
        }
        Self {
            tasks,
            parallelism: dice.one_in(4).then(|| 1 + dice.below(3)),
            failure_policy: dice.pick(&["FinishBranches", "StopLaunching", "CancelRunning"]),
            desired: if dice.one_in(10) { "Suspend" } else { "Run" },
            rerun: None,
            approvals: Vec::new(),
            is_broken: false,
        }
    }

    pub fn is_cancelled(&self) -> bool {
        self.desired == "Cancel"
    }

    /// What is done next.
    pub fn act(&mut self, dice: &mut Dice) -> Act {
        match dice.below(20) {
            0..8 => self.edit(dice),
            8..12 if !self.is_cancelled() => {
                let scope = dice.pick(&["Failed", "All", "Tasks"]);
                let mut named = self.names();
                named.retain(|name| name == "t0" || dice.one_in(2));
                self.rerun(if scope == "Tasks" {
                    json!({"scope": scope, "tasks": named})
                } else {
                    json!({"scope": scope})
                });
            }
            12..14 if !self.is_cancelled() => self.desired = if self.desired == "Run" { "Suspend" } else { "Run" },
            14 if dice.one_in(3) => self.desired = "Cancel",
            15 => self.is_broken = !self.is_broken,
            16 => self.failure_policy = dice.pick(&["FinishBranches", "StopLaunching", "CancelRunning"]),
            17 => return Act::DeleteJob,
            _ => return Act::Approve,
        }
        Act::Patch
    }

    fn names(&self) -> Vec<String> {
        (0..SLOTS).filter(|slot| self.tasks[*slot].is_some()).map(|slot| format!("t{slot}")).collect()
    }

    fn edit(&mut self, dice: &mut Dice) {
        for _ in 0..=dice.below(2) {
            // `t0` stays: a graph has a task
            let slot = 1 + dice.below(SLOTS - 1);
            self.tasks[slot] =
                if self.tasks[slot].is_some() && dice.one_in(2) { None } else { Some(Task::draw(dice, slot)) };
        }
    }

    /// Asks for a rerun.
    pub fn rerun(&mut self, wanted: Value) {
        let number = self.rerun.as_ref().map_or(1, |(number, _)| number + 1);
        self.rerun = Some((number, wanted));
    }

    /// Whether an attempt was decided on.
    pub fn has_approved(&self, task: &str, attempt: u32) -> bool {
        self.approvals.iter().any(|known| known["task"] == task && known["attempt"] == attempt)
    }

    /// Decides on an attempt. What was decided stays.
    pub fn approve(&mut self, task: &str, attempt: u32, decision: &str) {
        if !self.has_approved(task, attempt) {
            self.approvals.push(json!({"task": task, "attempt": attempt, "decision": decision, "by": "ann"}));
        }
    }

    /// From now on nothing keeps the graph from its end.
    pub fn mend(&mut self) {
        self.is_broken = false;
        if self.is_cancelled() {
            // one that came too late would be refused for ever
            self.rerun = None;
        } else {
            self.desired = "Run";
        }
    }

    pub fn render(&self) -> Value {
        let render = |slots: std::ops::Range<usize>| -> Vec<Value> {
            slots.filter_map(|slot| Some(self.tasks[slot].as_ref()?.render(slot, &self.tasks))).collect()
        };
        let mut tasks = render(0..FIRST_FINALLY);
        if self.is_broken {
            tasks[0]["dependsOn"] = json!(["nobody"]);
        }
        let rerun = self.rerun.as_ref().map(|(number, wanted)| {
            let mut rerun = wanted.clone();
            rerun["id"] = json!(number.to_string());
            // none must be told as none, or a merge leaves those of before; those that were removed since would be refused
            if let Some(named) = rerun["tasks"].as_array_mut() {
                named.retain(|name| self.names().iter().any(|known| name == known));
            }
            rerun
        });
        json!({
            "tasks": tasks, "finally": render(FIRST_FINALLY..SLOTS), "parallelism": self.parallelism,
            "failurePolicy": self.failure_policy, "desiredState": self.desired, "rerun": rerun, "approvals": self.approvals,
        })
    }
}

/// What the pod of an attempt does. `calm`: nothing goes wrong any more.
pub fn play(dice: &mut Dice, attempt: u32, calm: bool) -> Play {
    let succeeds = Play::succeeds(json!({"n": attempt}).to_string());
    if calm {
        return succeeds.after(dice.millis(30));
    }
    let ends = match dice.below(10) {
        0..6 => succeeds,
        6..9 => Play::fails(1),
        _ => Play::ends(Ending::Evicted),
    };
    let runs = if dice.one_in(3) { Duration::ZERO } else { dice.millis(400) };
    let ends = ends.after(runs);
    if dice.one_in(4) { ends.lingering(dice.millis(200)) } else { ends }
}

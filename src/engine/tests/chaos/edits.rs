//! Random edits and reruns of random graphs, among failures, suspensions, cancels, specs that are not valid, and crashes.
//!
//! A world of its own: all is known by the names of tasks, since an edit gives them other ids.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    super::fixture::{Build, at, failed, identity, settings},
    oracle::may_start,
};
use crate::{
    api::{DesiredState, FailurePolicy, Rerun, RerunScope, TaskGraphStatus},
    engine::{Action, Attempt, AttemptResult, Blame, Event, Graph, Run, Settings, graph::TriggerRule},
};

/// Names of tasks: `t0` to `t5`, and `t6`, `t7` in `finally`.
const SLOTS: usize = 8;
const FIRST_FINALLY: usize = 6;
/// Milliseconds after which nobody changes anything any more.
const CALM: i64 = 300_000;

#[derive(Clone, Debug)]
struct TaskPlan {
    dependencies: Vec<(usize, bool)>,
    trigger: TriggerRule,
    decision: bool,
    retries: u32,
    variant: u64,
}

#[derive(Clone, Debug)]
enum Act {
    /// Slots that become something else, or nothing.
    Edit(Vec<(usize, Option<TaskPlan>)>),
    Rerun(RerunScope, usize),
    Desired(DesiredState),
    Hold(bool),
    Crash,
}

#[derive(Clone, Debug)]
struct History {
    slots: Vec<Option<TaskPlan>>,
    policy: FailurePolicy,
    parallelism: Option<u32>,
    timeout: Option<u64>,
    acts: Vec<(i64, Act)>,
    seed: u64,
}

fn graph(slots: &[Option<TaskPlan>]) -> Arc<Graph> {
    let mut build = Build::new();
    let mut present: BTreeSet<usize> = BTreeSet::new();
    let decides = |slot: usize| slots[slot].as_ref().is_some_and(|plan| plan.decision);
    for (slot, plan) in slots.iter().enumerate() {
        let Some(plan) = plan else { continue };
        let same_list = |other: &usize| (*other < FIRST_FINALLY) == (slot < FIRST_FINALLY) && *other < slot;
        let mut names: Vec<String> = plan
            .dependencies
            .iter()
            .filter(|(other, _)| present.contains(other) && same_list(other))
            .map(
                |(other, branch)| {
                    if decides(*other) && *branch { format!("t{other}/yes") } else { format!("t{other}") }
                },
            )
            .collect();
        names.dedup();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        present.insert(slot);
        let name = format!("t{slot}");
        let made = if slot < FIRST_FINALLY { build.task(&name) } else { build.finally(&name) };
        let made = made.after(&names).retries(plan.retries).start_timeout(120).variant(plan.variant);
        let made = if names.is_empty() { made } else { made.trigger(plan.trigger) };
        if plan.decision {
            made.decision(&["yes", "no"]).variant(1 << 32);
        }
    }
    build.graph()
}

/// An attempt by the name of its task.
type Key = (String, u32);

struct Job {
    started: Option<i64>,
    ends: Option<i64>,
    result: AttemptResult,
    gone_delay: i64,
    deleted: Option<i64>,
    definition: u64,
}

impl Job {
    fn end(&self) -> Option<i64> {
        self.ends.filter(|end| self.deleted.is_none_or(|deleted| *end <= deleted))
    }

    /// When no pod of it is left.
    fn gone(&self) -> Option<i64> {
        self.end().or(self.deleted.map(|deleted| deleted + self.gone_delay))
    }
}

struct World {
    history: History,
    now: i64,
    run: Run,
    settings: Settings,
    /// What stands on the API server: a status, and the graph that its revision holds.
    stored: TaskGraphStatus,
    revision: Arc<Graph>,
    slots: Vec<Option<TaskPlan>>,
    jobs: BTreeMap<Key, Job>,
    created: BTreeSet<Key>,
    creates: Vec<(i64, Key, u64)>,
    mail: Vec<(i64, Key)>,
    gone_asked: BTreeSet<Key>,
    /// Launches that were asked for, and are not forgotten.
    asked: BTreeSet<Key>,
    reruns: u32,
    held: bool,
    draws: u64,
}

fn time(millis: i64) -> Timestamp {
    at(0).checked_add(SignedDuration::from_millis(millis)).unwrap()
}

impl World {
    fn new(history: History) -> Self {
        let revision = graph(&history.slots);
        let settings = Settings {
            failure_policy: history.policy,
            parallelism: history.parallelism,
            timeout: history.timeout.map(crate::api::Duration::from_secs),
            ..settings()
        };
        let run = Run::new(Arc::clone(&revision), settings.clone(), identity(), time(0));
        let mut stored = TaskGraphStatus::default();
        run.write(&mut stored, time(0));
        Self {
            slots: history.slots.clone(),
            history,
            now: 0,
            run,
            settings,
            stored,
            revision,
            jobs: BTreeMap::new(),
            created: BTreeSet::new(),
            creates: Vec::new(),
            mail: Vec::new(),
            gone_asked: BTreeSet::new(),
            asked: BTreeSet::new(),
            reruns: 0,
            held: false,
            draws: 0,
        }
    }

    fn draw(&mut self, limit: u64) -> u64 {
        self.draws += 1;
        xxh3_64(&[self.history.seed.to_le_bytes(), self.draws.to_le_bytes()].concat()) % limit
    }

    fn key(&self, attempt: Attempt) -> Key {
        (self.run.graph().task(attempt.task).name.to_string(), attempt.number)
    }

    /// Runs until nothing is left to do.
    fn play(&mut self) {
        let mut acts = std::mem::take(&mut self.history.acts);
        acts.push((CALM, Act::Hold(false)));
        acts.push((CALM, Act::Desired(DesiredState::Run)));
        let mut acts = acts.into_iter().peekable();
        let mut wake = Some(0);
        for _ in 0..5_000 {
            let act = acts.peek().map(|(time, _)| *time);
            let mail = self.mail.iter().map(|(due, _)| *due).chain(self.creates.iter().map(|(due, ..)| *due)).min();
            let Some(next) = [act, mail, wake].into_iter().flatten().min() else { break };
            self.now = self.now.max(next);
            while let Some((_, act)) = acts.next_if(|(time, _)| *time <= self.now) {
                self.act(act);
            }
            self.create_due();
            wake = self.round();
        }
        assert!(self.run.is_finished(), "D: it never ends; at {}: {:?}", self.now, self.told().tasks);
    }

    fn told(&self) -> TaskGraphStatus {
        let mut status = self.stored.clone();
        self.run.write(&mut status, time(self.now));
        status
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Desired(state) => {
                // a cancel cannot be taken back
                if self.settings.desired_state != DesiredState::Cancel {
                    self.settings.desired_state = state;
                    self.run.set_settings(self.settings.clone());
                }
            }
            Act::Hold(held) => {
                self.held = held;
                self.run.set_on_hold(held);
            }
            Act::Crash => self.restart(),
            Act::Edit(changes) => {
                for (slot, plan) in changes {
                    self.slots[slot] = plan;
                }
                if self.slots[..FIRST_FINALLY].iter().all(Option::is_none) {
                    return;
                }
                self.revision = graph(&self.slots);
                self.run.edit(Arc::clone(&self.revision), self.settings.clone(), time(self.now));
                self.store_told(true);
                self.restart();
            }
            Act::Rerun(scope, slot) => {
                if self.run.is_cancelled() {
                    return;
                }
                self.reruns += 1;
                let tasks = if scope == RerunScope::Tasks { vec![format!("t{slot}")] } else { Vec::new() };
                self.run.rerun(&Rerun { id: self.reruns.to_string(), scope, tasks }, time(self.now));
                self.store_told(true);
                self.restart();
            }
        }
    }

    fn store_told(&mut self, told_to: bool) {
        let status = self.told();
        assert!(status.sequence >= self.stored.sequence);
        for before in &self.stored.tasks {
            let Some(after) = status.tasks.iter().find(|task| task.name == before.name) else {
                assert_eq!(before.attempts, 0, "E: {} was forgotten", before.name);
                continue;
            };
            assert!(after.attempts >= before.attempts, "E: attempts of {} fell", before.name);
            if before.phase.is_final() && !told_to {
                let same =
                    (after.phase, &after.outputs, &after.branch) == (before.phase, &before.outputs, &before.branch);
                assert!(same || after.removed, "C: {before:?} became {after:?}");
            }
        }
        self.run.stored(status.sequence);
        self.stored = status;
    }

    /// Begins anew from what is stored; what was under way and not carried out is lost.
    fn restart(&mut self) {
        self.creates.clear();
        self.gone_asked.clear();
        let stored: BTreeMap<&str, u32> =
            self.stored.tasks.iter().map(|task| (task.name.as_str(), task.attempts)).collect();
        self.asked.retain(|(name, number)| stored.get(name.as_str()).is_some_and(|known| known >= number));
        self.run = Run::restore(Arc::clone(&self.revision), self.settings.clone(), identity(), &self.stored);
        self.run.set_on_hold(self.held);
        self.mail = self.jobs.keys().map(|key| (self.now, key.clone())).collect();
        self.watch_all();
    }

    fn watch_all(&mut self) {
        let due: Vec<_> = self
            .jobs
            .iter()
            .flat_map(|(key, job)| [job.started, job.end()].into_iter().flatten().map(|time| (time, key.clone())))
            .filter(|(time, _)| *time > self.now)
            .collect();
        self.mail.extend(due);
    }

    fn create_due(&mut self) {
        let now = self.now;
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.creates).into_iter().partition(|(at, ..)| *at <= now);
        self.creates = later;
        for (_, key, definition) in due {
            self.create(&key, definition);
        }
    }

    fn create(&mut self, key: &Key, definition: u64) {
        let now = self.now;
        self.mail.push((now, key.clone()));
        if self.jobs.contains_key(key) {
            return;
        }
        assert!(self.created.insert(key.clone()), "A: {key:?} is created a second time");
        let numbers = self.created.iter().filter(|(name, number)| *name == key.0 && *number != key.1);
        // one whose create was lost may have been called off
        assert!(numbers.map(|(_, number)| *number).max().unwrap_or(0) < key.1, "A: numbers of {} rise", key.0);
        for ((name, number), job) in &self.jobs {
            let live = *name == key.0 && job.gone().is_none_or(|gone| gone > now);
            assert!(!live, "A: {key:?} is created while attempt {number} has a pod");
        }
        let millis = |limit: u64, this: &mut Self| i64::try_from(this.draw(limit)).unwrap();
        let result = match self.draw(10) {
            0..6 => AttemptResult::Succeeded {
                outputs: json!({"attempt": key.1}).as_object().unwrap().clone(),
                message: None,
            },
            6..8 => failed(Blame::Task),
            8 => failed(Blame::Cluster),
            _ => failed(Blame::Final),
        };
        let started = (self.draw(12) > 0).then(|| now + millis(5_000, self));
        let ends = started.map(|started| started + millis(60_000, self));
        let gone_delay = millis(20_000, self);
        self.jobs.insert(key.clone(), Job { started, ends, result, gone_delay, deleted: None, definition });
        self.mail.extend([started, ends].into_iter().flatten().map(|time| (time, key.clone())));
    }

    /// All that is to be seen of an attempt now.
    fn look(&mut self, key: &Key, events: &mut Vec<Event>) {
        let Some(task) = self.run.graph().find(&key.0) else {
            // the controller clears away what belongs to no task
            if let Some(job) = self.jobs.get_mut(key) {
                job.deleted.get_or_insert(self.now);
            }
            return;
        };
        let attempt = Attempt::new(task, key.1);
        if let Some(job) =
            self.jobs.get(key).filter(|job| job.gone().is_none_or(|gone| gone > self.now) || job.deleted.is_none())
        {
            events.push(Event::Launched { attempt, job: format!("g-{}-{}", key.0, key.1) });
            if job.definition != self.run.graph().task(task).hash {
                events.push(Event::Outdated { attempt, definition: job.definition });
            }
            if job.started.is_some_and(|started| started <= self.now) {
                events.push(Event::Started { attempt });
            }
            if let Some(end) = job.end().filter(|end| *end <= self.now) {
                events.push(Event::Finished { attempt, result: job.result.clone(), time: time(end) });
            }
        }
        if self.gone_asked.contains(key)
            && self.jobs.get(key).is_none_or(|job| job.gone().is_some_and(|gone| gone <= self.now))
        {
            self.gone_asked.remove(key);
            events.push(Event::Gone { attempt });
        }
    }

    /// One reconcile; when to come back.
    fn round(&mut self) -> Option<i64> {
        let now = self.now;
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.mail).into_iter().partition(|(at, _)| *at <= now);
        self.mail = later;
        let mut events = Vec::new();
        for key in due.into_iter().map(|(_, key)| key).collect::<BTreeSet<_>>() {
            self.look(&key, &mut events);
        }
        let step = self.run.step(events, time(now));
        for transition in &step.transitions {
            assert!(!transition.from.is_final(), "C: {transition:?} leaves a final phase");
        }
        let wake = step.wake_at.map(|wake| i64::try_from(wake.duration_since(time(0)).as_millis()).unwrap());
        assert!(wake.is_none_or(|wake| wake > now), "it would spin");
        if self.draw(25) == 0 && now < CALM {
            self.restart();
            return Some(now);
        }
        if step.store_first || self.run.is_finished() || self.draw(3) == 0 {
            self.store_told(false);
        }
        for action in step.actions {
            self.perform(action);
            if self.draw(40) == 0 && now < CALM {
                self.restart();
                return Some(now);
            }
        }
        wake
    }

    fn perform(&mut self, action: Action) {
        let now = self.now;
        match action {
            Action::Launch(launch) => {
                let id = launch.attempt.task;
                let (key, definition) = (self.key(launch.attempt), self.run.graph().task(id).hash);
                // what had begun before a restart is asked for again, whatever was edited since
                if self.asked.insert(key.clone()) {
                    let (run, cancelled) = (&self.run, self.run.is_cancelled());
                    assert!(may_start(run.graph(), run, id), "B: {key:?} is launched before its gates were passed");
                    assert!(!self.held || cancelled, "{key:?} is launched though the spec is not valid");
                    let suspended = self.settings.desired_state == DesiredState::Suspend;
                    assert!(!suspended || cancelled, "{key:?} is launched while suspended");
                }
                let due = now + i64::try_from(self.draw(2_000)).unwrap();
                self.creates.push((due, key, definition));
            }
            Action::Stop { attempt } => {
                let key = self.key(attempt);
                self.creates.retain(|(_, known, _)| *known != key);
                if let Some(job) = self.jobs.get_mut(&key) {
                    job.deleted.get_or_insert(now);
                }
                self.answer_gone(key);
            }
            Action::LookUp { .. } => panic!("no task has a cache"),
            Action::AwaitGone { attempt } => {
                let key = self.key(attempt);
                self.answer_gone(key);
            }
        }
    }

    fn answer_gone(&mut self, key: Key) {
        let gone = self.jobs.get(&key).map_or(Some(self.now), Job::gone).expect("it waits for pods that stay");
        self.gone_asked.insert(key.clone());
        self.mail.push((gone.max(self.now), key));
    }
}

fn task_plan() -> impl Strategy<Value = TaskPlan> {
    use TriggerRule::*;
    let trigger = prop_oneof![
        5 => Just(NoneFailed), 1 => Just(AllSucceeded), 1 => (1..3u32).prop_map(MinSucceeded), 1 => Just(AllFinished),
        1 => Just(AnyFailed)
    ];
    (prop::collection::vec((0..SLOTS, any::<bool>()), 0..3), trigger, prop::bool::weighted(0.2), 0..3u32, 0..2u64)
        .prop_map(|(mut dependencies, trigger, decision, retries, variant)| {
            dependencies.sort_unstable();
            dependencies.dedup_by_key(|(slot, _)| *slot);
            TaskPlan { dependencies, trigger, decision, retries, variant }
        })
}

fn act() -> impl Strategy<Value = Act> {
    use DesiredState::*;
    let change = (0..SLOTS, prop::option::weighted(0.7, task_plan()));
    let scope = prop::sample::select(vec![RerunScope::Failed, RerunScope::All, RerunScope::Tasks, RerunScope::Tasks]);
    prop_oneof![
        6 => prop::collection::vec(change, 1..4).prop_map(Act::Edit),
        3 => (scope, 0..SLOTS).prop_map(|(scope, slot)| Act::Rerun(scope, slot)),
        2 => prop::sample::select(vec![Run, Suspend]).prop_map(Act::Desired),
        1 => Just(Act::Desired(Cancel)),
        1 => any::<bool>().prop_map(Act::Hold),
        2 => Just(Act::Crash),
    ]
}

fn history() -> impl Strategy<Value = History> {
    let slots = (task_plan(), prop::collection::vec(prop::option::weighted(0.7, task_plan()), SLOTS - 1));
    let policy = prop::sample::select(vec![
        FailurePolicy::StopLaunching,
        FailurePolicy::CancelRunning,
        FailurePolicy::FinishBranches,
    ]);
    let acts = prop::collection::vec((0..CALM, act()), 0..10);
    let limits = (prop::option::of(1..4u32), prop_oneof![3 => Just(None), 1 => (20..200u64).prop_map(Some)]);
    (slots, policy, limits, acts, any::<u64>()).prop_map(
        |((first, rest), policy, (parallelism, timeout), mut acts, seed)| {
            acts.sort_by_key(|(time, _)| *time);
            let slots = [Some(first)].into_iter().chain(rest).collect();
            History { slots, policy, parallelism, timeout, acts, seed }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// What must always hold (design: A to F) holds through edits and reruns; `play` panics where it does not.
    #[test]
    fn the_invariants_hold_through_edits_and_reruns(history in history()) {
        World::new(history).play();
    }
}

proptest! {
    /// An edited run, and the one that is restored from its status, are one and the same.
    #[test]
    fn an_edited_run_is_the_one_that_its_status_tells_of(history in history(), change in history()) {
        let mut world = World::new(history);
        world.history.acts.truncate(3);
        world.play();
        let after = graph(&change.slots);
        world.run.edit(Arc::clone(&after), world.settings.clone(), time(world.now));
        let status = world.told();
        let mut twin = Run::restore(after, world.settings.clone(), identity(), &status);
        let step = (world.run.step([], time(world.now)), twin.step([], time(world.now)));
        prop_assert_eq!(step.0.actions, step.1.actions);
        let mut told = TaskGraphStatus::default();
        twin.write(&mut told, time(world.now));
        prop_assert_eq!(&world.told().tasks, &told.tasks);
        prop_assert_eq!(world.told().completion_time, told.completion_time);
    }
}

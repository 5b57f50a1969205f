//! Does with a run what a controller does, and crashes.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::{
    super::fixture::{at, decide, identity, settings},
    cluster::{Cluster, Millis, is_lost, lost},
    oracle::{judge_end, judge_step, judge_store},
    plan::{Change, Plan, Recall},
};
use crate::{
    api::{DesiredState, Duration, GraphPhase, TaskGraphStatus, TaskPhase},
    engine::{Action, Attempt, Event, Graph, Remembered, Run, Settings, TaskId, policy::indexes::Indexes},
};

/// What goes wrong beside the attempts.
pub struct Chaos {
    /// How often the operator crashes.
    pub crashes: u32,
    /// Events come late, twice and out of order.
    pub noise: bool,
    /// Every step is made by a run that was restored from the status of that moment.
    pub restart_each_step: bool,
}

/// What came of it.
pub struct Outcome {
    pub phase: Option<GraphPhase>,
    pub tasks: Vec<TaskOutcome>,
    /// Every action, as text, and when it was asked for.
    pub log: Vec<(Millis, String)>,
}

/// What became of a task; times left out.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskOutcome {
    name: String,
    attempts: u32,
    disruptions: u32,
    pub result: (TaskPhase, Option<String>, Map<String, Value>),
}

impl Outcome {
    /// Phases, reasons and outputs.
    pub fn results(&self) -> Vec<&(TaskPhase, Option<String>, Map<String, Value>)> {
        self.tasks.iter().map(|task| &task.result).collect()
    }
}

struct Dice(u64);

impl Dice {
    /// splitmix64, by Vigna
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

struct Operator<'a> {
    plan: &'a Plan,
    chaos: &'a Chaos,
    graph: Arc<Graph>,
    settings: Settings,
    run: Run,
    stored: TaskGraphStatus,
    cluster: Cluster,
    dice: Dice,
    now: Millis,
    mail: Vec<(Millis, Event)>,
    /// What a restart found: in order, as far as one Job goes.
    found: Vec<Event>,
    creates: Vec<(Millis, Attempt)>,
    crashes_left: u32,
    restarted: bool,
    log: Vec<(Millis, String)>,
}

fn time(millis: Millis) -> Timestamp {
    at(0).checked_add(SignedDuration::from_millis(millis)).unwrap()
}

/// An earlier success, just young enough.
fn remembered(now: Millis) -> Remembered {
    let outputs = json!({"attempt": 0}).as_object().unwrap().clone();
    Remembered { outputs, graph: "earlier".into(), task: "t".into(), time: time(now - 50_000) }
}

/// Runs the plan to its end; panics where something does not hold that must.
pub fn operate(plan: &Plan, chaos: &Chaos) -> Outcome {
    let settings = Settings {
        failure_policy: plan.policy,
        parallelism: plan.parallelism,
        timeout: plan.timeout.map(Duration::from_secs),
        compensation_timeout: Duration::from_secs(2_000),
        finally_timeout: Duration::from_secs(2_000),
        ..settings()
    };
    let graph = plan.graph();
    let run = Run::new(Arc::clone(&graph), settings.clone(), identity(), time(0));
    let mut stored = TaskGraphStatus::default();
    run.write(&mut stored, time(0));
    let mut operator = Operator {
        plan,
        chaos,
        graph,
        settings,
        run,
        stored,
        cluster: Cluster::new(),
        dice: Dice(plan.seed),
        now: 0,
        mail: Vec::new(),
        found: Vec::new(),
        creates: Vec::new(),
        crashes_left: chaos.crashes,
        restarted: false,
        log: Vec::new(),
    };
    operator.operate();
    judge_end(&operator.run, &operator.cluster, plan);
    operator.outcome()
}

impl Operator<'_> {
    fn operate(&mut self) {
        let mut changes = self.plan.changes.clone();
        // in the end every graph is let run
        changes.push((400, Change::Desired(DesiredState::Run)));
        let mut changes = changes.into_iter().peekable();
        let mut wake = Some(0);
        for _ in 0..20_000 {
            let next_change = changes.peek().map(|(seconds, _)| seconds * 1000);
            let next_mail = self.mail.iter().map(|(due, _)| *due).min();
            let next_create = self.creates.iter().map(|(due, _)| *due).min();
            let Some(next) = [next_change, next_mail, next_create, wake].into_iter().flatten().min() else { break };
            self.now = self.now.max(next);
            while let Some((_, change)) = changes.next_if(|(seconds, _)| seconds * 1000 <= self.now) {
                self.change(&change);
            }
            self.create_due();
            wake = self.round();
            if self.run.is_finished() && changes.peek().is_none() && self.mail.is_empty() && self.creates.is_empty() {
                break;
            }
        }
        let open: Vec<_> = self.stored.tasks.iter().filter(|task| !task.phase.is_final()).collect();
        assert!(self.run.is_finished(), "D: the graph never ends; at {}: {open:?}", self.now);
    }

    fn change(&mut self, change: &Change) {
        match change {
            Change::Desired(state) => self.settings.desired_state = *state,
            Change::Policy(policy) => self.settings.failure_policy = *policy,
            Change::Parallelism(limit) => self.settings.parallelism = *limit,
            // what was decided stays
            Change::Approval(task, attempt, decision) => {
                let task = format!("t{task}");
                let known = self.settings.approvals.get(task.as_str()).is_some_and(|known| known.contains_key(attempt));
                if !known {
                    decide(&mut self.settings, &task, *attempt, *decision);
                }
            }
        }
        self.run.set_settings(self.settings.clone());
    }

    fn create_due(&mut self) {
        let now = self.now;
        let (due, waiting) = std::mem::take(&mut self.creates).into_iter().partition(|(time, _)| *time <= now);
        self.creates = waiting;
        let due: Vec<(Millis, Attempt)> = due;
        for (_, attempt) in due {
            self.cluster.create(attempt, self.plan, now);
            self.watch(attempt, now);
        }
    }

    /// Foresees the events of a Job, from `from` on.
    fn watch(&mut self, attempt: Attempt, from: Millis) {
        for (due, event) in self.cluster.events(attempt, time) {
            self.post(due.max(from), event);
        }
    }

    fn post(&mut self, due: Millis, event: Event) {
        let late = |dice: &mut Dice| i64::try_from(dice.below(3_000)).unwrap();
        if self.chaos.noise {
            if self.dice.one_in(6) {
                let much_later = due + late(&mut self.dice) * 20;
                self.mail.push((much_later, event.clone()));
            }
            let delay = late(&mut self.dice);
            self.mail.push((due + delay, event));
        } else {
            self.mail.push((due, event));
        }
    }

    /// What is to be seen now.
    fn take_mail(&mut self) -> Vec<Event> {
        let now = self.now;
        let (due, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.mail).into_iter().partition(|(time, _)| *time <= now);
        self.mail = waiting;
        let cluster = &self.cluster;
        let mut events: Vec<_> = due
            .into_iter()
            .map(|(_, event)| event)
            .filter(|event| match event {
                // what was foreseen of a Job does not come to pass if it was deleted before
                Event::Finished { attempt, result, .. } => cluster.ended.contains(attempt) || is_lost(result),
                _ => true,
            })
            .collect();
        if self.chaos.noise {
            for place in (1..events.len()).rev() {
                let other = usize::try_from(self.dice.below(place as u64 + 1)).unwrap();
                events.swap(place, other);
            }
        }
        events
    }

    /// One reconcile; when to come back.
    fn round(&mut self) -> Option<Millis> {
        self.cluster.forget(self.now);
        let mut events = std::mem::take(&mut self.found);
        events.extend(self.take_mail());
        // a restart asks once more who is gone and what is remembered: one more restart at each answer would never end
        let is_answer = |event: &Event| matches!(event, Event::Gone { .. } | Event::LookedUp { .. });
        let answers_only = !events.is_empty() && events.iter().all(is_answer);
        if self.chaos.restart_each_step && !answers_only {
            self.restore_exactly(&mut events);
        }
        let step = self.run.step(events, time(self.now));
        let cancelled = self.run_is_cancelled();
        let suspended = self.settings.desired_state == DesiredState::Suspend && !cancelled;
        judge_step(&self.run, &step, suspended, self.restarted);
        self.restarted = false;
        for action in &step.actions {
            self.log.push((self.now, format!("{action:?}")));
        }
        let wake = step.wake_at.map(|wake| i64::try_from(wake.duration_since(time(0)).as_millis()).unwrap());
        assert!(wake.is_none_or(|wake| wake > self.now), "it would spin");
        if self.crash() {
            return Some(self.now);
        }
        if step.store_first || self.dice.one_in(4) || self.chaos.restart_each_step {
            self.store();
            if self.crash() {
                return Some(self.now);
            }
        }
        for action in step.actions {
            self.act(action);
            if self.crash() {
                return Some(self.now);
            }
        }
        self.lose_something();
        wake
    }

    fn run_is_cancelled(&self) -> bool {
        let mut status = TaskGraphStatus::default();
        self.run.write(&mut status, time(self.now));
        status.ending.is_some_and(|ending| ending.reason == crate::api::EndingReason::Cancelled)
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Launch(launch) => {
                let due = self.now + self.plan.script(launch.attempt).create;
                self.creates.push((due, launch.attempt));
            }
            Action::Stop { attempt } => {
                self.creates.retain(|(_, known)| known.whole() != attempt);
                self.cluster.delete(attempt, self.now);
                self.answer_gone(attempt);
            }
            Action::AwaitGone { attempt } => self.answer_gone(attempt),
            Action::LookUp { task, key } => {
                let found = match self.plan.tasks[task.index()].cache {
                    Some(Recall::Hit) => Some(remembered(self.now)),
                    // the wait for an answer that never comes begins again with each restart
                    Some(Recall::Silent) if self.chaos.noise => return,
                    _ => None,
                };
                self.post(self.now, Event::LookedUp { task, key, found });
            }
        }
    }

    fn answer_gone(&mut self, attempt: Attempt) {
        let gone = self.cluster.gone(attempt, self.now).expect("it waits for pods that stay");
        self.post(gone.max(self.now), Event::Gone { attempt });
    }

    fn store(&mut self) {
        let mut status = self.stored.clone();
        self.run.write(&mut status, time(self.now));
        judge_store(&self.stored, &status);
        self.run.stored(status.sequence);
        self.stored = status;
    }

    fn crash(&mut self) -> bool {
        let crash = self.crashes_left > 0 && self.dice.one_in(12);
        if crash {
            self.crashes_left -= 1;
            self.creates.clear();
            self.mail.clear();
            self.run = Run::restore(Arc::clone(&self.graph), self.settings.clone(), identity(), &self.stored);
            self.restarted = true;
            self.found = self.look();
        }
        crash
    }

    /// What a restarted operator finds; what is still to come is foreseen.
    fn look(&mut self) -> Vec<Event> {
        let attempts: Vec<_> = self.cluster.jobs.keys().copied().collect();
        let mut found = Vec::new();
        for attempt in attempts {
            for (due, event) in self.cluster.events(attempt, time) {
                if due <= self.now { found.push(event) } else { self.post(due, event) }
            }
        }
        let known = self.run.live().filter(|live| live.job.is_some()).map(|live| live.attempt);
        let gone = known.chain(self.run.live_items()).filter(|attempt| !self.cluster.jobs.contains_key(attempt));
        found.extend(gone.map(|attempt| lost(attempt, time(self.now))));
        found
    }

    /// A restart that loses nothing: creates and events under way go on, beside all that is to be seen.
    fn restore_exactly(&mut self, events: &mut Vec<Event>) {
        self.store();
        self.run = Run::restore(Arc::clone(&self.graph), self.settings.clone(), identity(), &self.stored);
        for attempt in self.cluster.jobs.keys() {
            let seen = self.cluster.events(*attempt, time).into_iter().filter(|(due, _)| *due <= self.now);
            events.extend(seen.map(|(_, event)| event));
        }
        self.restarted = true;
    }

    /// Somebody deletes a Job whose name is stored.
    fn lose_something(&mut self) {
        if !self.plan.lossy || !self.chaos.noise || !self.dice.one_in(20) {
            return;
        }
        let stored_job = |id: TaskId| match self.graph.task(id).undoes {
            Some(undone) => self.stored.tasks[undone.index()].compensation.as_ref()?.job.clone(),
            None => self.stored.tasks[id.index()].job.clone(),
        };
        let stored_item = |id: TaskId, number: u32, index: u32| {
            let task = self.stored.tasks.get(id.index()).filter(|task| task.attempts == number)?;
            Some(Indexes::read(task.items.as_ref()?.launched.as_deref(), u32::MAX).holds(index))
        };
        let known = |attempt: &&Attempt| match attempt.item {
            Some(index) => stored_item(attempt.task, attempt.number, index) == Some(true),
            None => stored_job(attempt.task) == Some(super::cluster::name(**attempt)),
        };
        let Some(attempt) = self.cluster.jobs.keys().find(known).copied() else { return };
        self.cluster.lose(attempt);
        let due = self.now;
        self.post(due, lost(attempt, time(due)));
    }

    fn outcome(self) -> Outcome {
        let mut status = TaskGraphStatus::default();
        self.run.write(&mut status, time(self.now));
        let undone = status.tasks.clone().into_iter().filter_map(|task| {
            let name = format!("undo:{}", task.name);
            Some(task.compensation?.into_task(name))
        });
        let tasks = status.tasks.clone().into_iter().chain(undone).map(|task| TaskOutcome {
            name: task.name,
            attempts: task.attempts,
            disruptions: task.disruptions,
            result: (task.phase, task.reason, task.outputs),
        });
        Outcome { phase: status.phase, tasks: tasks.collect(), log: self.log }
    }
}

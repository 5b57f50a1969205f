//! What a user does to the spec of a graph, and what a controller does with its run; and it crashes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    super::{
        super::fixture::{at, decide, identity, settings},
        cluster::lost,
        plan::{Recall, TaskPlan},
    },
    history::{Act, CALM, FIRST_FINALLY, History, SLOTS, Slots, graph},
    jobs::{Jobs, Key, Made},
    judge::{Begun, judge_end, judge_launch, judge_store, judge_transition},
};
use crate::{
    api::{DesiredState, Duration, Rerun, RerunScope, TaskGraphStatus},
    engine::{
        Action, Attempt, Event, Graph, Remembered, Run, Settings, TaskId,
        graph::{Role, Work},
        policy::indexes::Indexes,
    },
};

/// What stands in the spec.
#[derive(Clone, Debug)]
pub struct Spec {
    slots: Slots,
    settings: Settings,
    rerun: Option<Rerun>,
    is_valid: bool,
}

/// Why a valid spec is not acted on yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// Until what the graph did is undone.
    Undoing,
    /// Until the graph has finished.
    Finished,
}

pub struct World {
    pub history: History,
    pub now: i64,
    pub run: Run,
    /// Those that the run has.
    pub settings: Settings,
    spec: Spec,
    /// The spec was not looked at since it changed, or since a restart.
    unseen: bool,
    waiting: Option<Waiting>,
    /// An edit, a rerun or both are to be carried out.
    pending: bool,
    /// The run was stepped since it was restored.
    has_turned: bool,
    /// What stands on the API server: a status, and the tasks that its revision holds.
    pub stored: TaskGraphStatus,
    accepted: Slots,
    revision: Arc<Graph>,
    pub jobs: Jobs,
    creates: Vec<(i64, Key, Made)>,
    mail: Vec<(i64, Key)>,
    /// Whether the Job is to be gone, or only its pods.
    gone_asked: BTreeMap<Key, bool>,
    look_ups: Vec<Event>,
    /// Launches that were asked for, and are not forgotten.
    asked: BTreeSet<Key>,
    draws: u64,
}

pub fn time(millis: i64) -> Timestamp {
    at(0).checked_add(SignedDuration::from_millis(millis)).unwrap()
}

impl World {
    pub fn new(history: History) -> Self {
        let settings = Settings {
            failure_policy: history.policy,
            parallelism: history.parallelism,
            timeout: history.timeout.map(Duration::from_secs),
            compensation_timeout: Duration::from_secs(2_000),
            finally_timeout: Duration::from_secs(2_000),
            ..settings()
        };
        let revision = graph(&history.slots);
        let run = Run::new(Arc::clone(&revision), settings.clone(), identity(), time(0));
        let mut stored = TaskGraphStatus::default();
        run.write(&mut stored, time(0));
        let spec = Spec { slots: history.slots.clone(), settings: settings.clone(), rerun: None, is_valid: true };
        Self {
            accepted: history.slots.clone(),
            revision,
            jobs: Jobs::new(history.seed),
            history,
            now: 0,
            run,
            settings,
            spec,
            unseen: false,
            waiting: None,
            pending: false,
            has_turned: false,
            stored,
            creates: Vec::new(),
            mail: Vec::new(),
            gone_asked: BTreeMap::new(),
            look_ups: Vec::new(),
            asked: BTreeSet::new(),
            draws: 0,
        }
    }

    fn draw(&mut self, limit: u64) -> u64 {
        self.draws += 1;
        xxh3_64(&[self.history.seed.to_le_bytes(), self.draws.to_le_bytes()].concat()) % limit
    }

    /// Whether something goes wrong that does so once in `chances` times; in the end nothing does any more.
    fn goes_wrong(&mut self, chances: u64) -> bool {
        self.now < CALM && self.draw(chances) == 0
    }

    fn key(&self, attempt: Attempt) -> Key {
        let task = self.run.graph().task(attempt.task);
        let name = format!("{}{}", if task.undoes.is_some() { "undo:" } else { "" }, task.name);
        Key { name, number: attempt.number, item: attempt.item }
    }

    /// The task as it was drawn, of what is run now.
    fn plan(&self, id: TaskId) -> Option<&TaskPlan> {
        let task = self.run.graph().task(id);
        let slot = (0..SLOTS).find(|slot| task.undoes.is_none() && *task.name == format!("t{slot}"))?;
        self.accepted[slot].as_ref()
    }

    fn find(&self, name: &str) -> Option<TaskId> {
        match name.strip_prefix("undo:") {
            Some(task) => self.run.graph().find_in_role(Role::Compensation, task),
            None => self.run.graph().find(name),
        }
    }

    /// Runs until nothing is left to do.
    pub fn play(&mut self) {
        let mut acts = std::mem::take(&mut self.history.acts);
        acts.push((CALM, Act::Invalid(false)));
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
        let open = || self.told().tasks.into_iter().filter(|task| !task.phase.is_final()).collect::<Vec<_>>();
        assert!(self.run.is_finished(), "D: it never ends; at {}: {:?}", self.now, open());
        assert!(!self.unseen && !self.pending && self.waiting.is_none(), "D: an edit is never carried out");
        judge_end(&self.run, &self.jobs);
    }

    pub fn told(&self) -> TaskGraphStatus {
        let mut status = self.stored.clone();
        self.run.write(&mut status, time(self.now));
        status
    }

    fn act(&mut self, act: Act) {
        let spec = &mut self.spec;
        match act {
            Act::Crash => return self.restart(),
            Act::Lose(which) => return self.lose(which),
            // admission lets nobody take a cancel back
            Act::Desired(_) if spec.settings.desired_state == DesiredState::Cancel => {}
            Act::Desired(state) => spec.settings.desired_state = state,
            Act::Policy(policy) => spec.settings.failure_policy = policy,
            Act::Parallelism(limit) => spec.settings.parallelism = limit,
            Act::Invalid(invalid) => spec.is_valid = !invalid,
            Act::Approval(slot, number, decision) => {
                let name = format!("t{slot}");
                let of_task = spec.settings.approvals.get(name.as_str());
                // what was decided stays
                if of_task.is_none_or(|known| !known.contains_key(&number)) {
                    decide(&mut spec.settings, &name, number, decision);
                }
            }
            Act::Edit(changes) => {
                for (slot, plan) in changes {
                    let is_last = spec.slots[..FIRST_FINALLY].iter().flatten().count() == 1;
                    // a graph has a task
                    if plan.is_some() || slot >= FIRST_FINALLY || spec.slots[slot].is_none() || !is_last {
                        spec.slots[slot] = plan;
                    }
                }
            }
            Act::Items(slot, items, per_item) => {
                if let Some(plan) = &mut spec.slots[slot] {
                    (plan.items, plan.per_item) = (items, per_item);
                }
            }
            Act::Rerun(scope, slot) => {
                let last: u32 = spec.rerun.as_ref().map_or(0, |rerun| rerun.id.parse().unwrap());
                let tasks = if scope == RerunScope::Tasks { vec![format!("t{slot}")] } else { Vec::new() };
                // one that comes too late would be refused for ever
                if spec.settings.desired_state != DesiredState::Cancel {
                    spec.rerun = Some(Rerun { id: (last + 1).to_string(), scope, tasks });
                }
            }
        }
        self.unseen = true;
    }

    /// Somebody deletes a Job whose name is stored, so that everybody misses it.
    fn lose(&mut self, which: usize) {
        let is_stored = |key: &&Key| {
            let name = key.name.strip_prefix("undo:").unwrap_or(&key.name);
            let task = self.stored.tasks.iter().find(|task| task.name == name);
            let (attempts, job) = match (task, key.item) {
                (Some(task), Some(index)) => {
                    let launched = task.items.as_ref().and_then(|items| items.launched.as_deref());
                    (task.attempts, Indexes::read(launched, u32::MAX).holds(index))
                }
                (Some(task), None) if key.name == name => (task.attempts, task.job.is_some()),
                (Some(task), None) => {
                    task.compensation.as_ref().map_or((0, false), |undo| (undo.attempts, undo.job.is_some()))
                }
                (None, _) => (0, false),
            };
            attempts == key.number && job && !self.jobs.is_lost(key)
        };
        let known: Vec<Key> = self.jobs.keys().filter(is_stored).cloned().collect();
        if let Some(key) = known.get(which % known.len().max(1)) {
            self.jobs.lose(key);
            self.mail.push((self.now, key.clone()));
        }
    }

    /// Follows the spec as far as it was not followed yet.
    fn follow(&mut self) {
        let may_go_on = match self.waiting {
            Some(Waiting::Undoing) => !self.run.is_undoing(),
            Some(Waiting::Finished) => self.run.is_finished(),
            None => false,
        };
        if self.unseen || may_go_on {
            self.unseen = false;
            self.look_at_spec();
        }
        // the first turn takes in Jobs of which the status does not tell
        if self.pending && self.has_turned {
            self.carry_out();
        }
    }

    fn look_at_spec(&mut self) {
        let wanted = &self.spec.settings;
        (self.waiting, self.pending) = (None, false);
        if !self.spec.is_valid {
            let (desired_state, approvals) = (wanted.desired_state, Arc::clone(&wanted.approvals));
            self.settings = Settings { desired_state, approvals, ..self.settings.clone() };
            self.run.set_settings(self.settings.clone());
            return self.run.set_on_hold(true);
        }
        self.settings = wanted.clone();
        self.run.set_settings(self.settings.clone());
        let rerun = self.new_rerun().is_some();
        let edited = self.spec.slots != self.accepted;
        if rerun && (self.run.is_cancelled() || self.settings.desired_state == DesiredState::Cancel) {
            // refused for ever, and any edit with it, until it is taken out
            self.spec.rerun = None;
            self.unseen = true;
        } else if (edited || rerun) && self.run.is_undoing() {
            self.waiting = Some(Waiting::Undoing);
        } else if edited && !self.run.edit_waits(&graph(&self.spec.slots)).is_empty() {
            self.waiting = Some(Waiting::Finished);
        } else {
            self.pending = edited || rerun;
        }
        self.run.set_on_hold(self.pending);
    }

    fn new_rerun(&self) -> Option<&Rerun> {
        self.spec.rerun.as_ref().filter(|rerun| self.run.last_rerun() != Some(&rerun.id))
    }

    /// Carries out what is pending, stores it, and begins anew from there.
    fn carry_out(&mut self) {
        let graph = graph(&self.spec.slots);
        let status = self.told();
        let mut run = Run::restore(Arc::clone(self.run.graph()), self.settings.clone(), identity(), &status);
        if self.spec.slots != self.accepted {
            run.edit(Arc::clone(&graph), self.settings.clone(), time(self.now));
        }
        if let Some(rerun) = self.new_rerun() {
            run.rerun(rerun, time(self.now));
        }
        // the revision is there, and nothing names it
        if self.goes_wrong(8) {
            return self.restart();
        }
        self.accepted.clone_from(&self.spec.slots);
        self.revision = graph;
        self.run = run;
        self.store(true);
        self.restart();
    }

    fn store(&mut self, told_to: bool) {
        let status = self.told();
        judge_store(&self.stored, &status, told_to);
        self.run.stored(status.sequence);
        self.stored = status;
    }

    /// Begins anew from what is stored; what was under way and not carried out is lost.
    fn restart(&mut self) {
        self.creates.clear();
        self.gone_asked.clear();
        self.look_ups.clear();
        (self.unseen, self.pending, self.waiting, self.has_turned) = (true, false, None, false);
        self.run = Run::restore(Arc::clone(&self.revision), self.settings.clone(), identity(), &self.stored);
        let known = |key: &Key| self.find(&key.name).is_some_and(|id| self.run.task(id).attempts >= key.number);
        let forgotten: Vec<Key> = self.asked.iter().filter(|key| !known(key)).cloned().collect();
        for key in &forgotten {
            self.asked.remove(key);
        }
        // what is known to have begun is asked for again, whatever was edited since
        let begun: Vec<Key> = self.run.live().map(|live| self.key(live.attempt)).collect();
        self.asked.extend(begun);
        self.mail = self.jobs.keys().map(|key| (self.now, key.clone())).collect();
        let now = self.now;
        let keys: Vec<Key> = self.jobs.keys().cloned().collect();
        for key in keys {
            self.watch(&key, now);
        }
    }

    /// Foresees what will be seen of a Job after `from`: mostly at once, now and then late, or once more.
    fn watch(&mut self, key: &Key, from: i64) {
        for due in self.jobs.news(key).into_iter().filter(|due| *due > from) {
            let late = |this: &mut Self, chances: u64, most: u64| match this.draw(chances) {
                0 => i64::try_from(this.draw(most)).unwrap(),
                _ => 0,
            };
            let at_first = due + late(self, 2, 3_000);
            let again = due + late(self, 6, 60_000);
            self.mail.extend([(at_first, key.clone()), (again, key.clone())]);
        }
    }

    fn create_due(&mut self) {
        let now = self.now;
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.creates).into_iter().partition(|(at, ..)| *at <= now);
        self.creates = later;
        for (_, key, made) in due {
            self.jobs.create(&key, made, now);
            self.mail.push((now, key.clone()));
            self.watch(&key, now);
        }
    }

    /// All that is to be seen of an attempt now.
    fn look(&mut self, key: &Key, events: &mut Vec<Event>) {
        let now = self.now;
        let Some(task) = self.find(&key.name) else {
            // the controller clears away what belongs to no task
            return self.jobs.delete(&key.whole(), now);
        };
        let attempt = Attempt { task, number: key.number, item: key.item };
        let is_over = key.number <= self.run.task(task).attempts && !self.run.is_live(attempt);
        if key.item.is_none() || !is_over || !self.jobs.has_ended(key, now) {
            events.extend(self.jobs.look(key, attempt, self.run.graph().task(task).hash, now));
        }
        let is_missed = match attempt.item {
            Some(_) => self.run.live_items().any(|live| live == attempt),
            None => self.run.live().any(|live| live.attempt == attempt && live.job.is_some()),
        };
        if is_missed && self.jobs.is_lost(key) {
            events.push(lost(attempt, time(now)));
        }
        if self.gone_asked.get(key).is_some_and(|wholly| self.jobs.gone(key, *wholly, now) <= now) {
            self.gone_asked.remove(key);
            events.push(Event::Gone { attempt });
        }
    }

    /// One reconcile; when to come back.
    fn round(&mut self) -> Option<i64> {
        let now = self.now;
        self.follow();
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.mail).into_iter().partition(|(at, _)| *at <= now);
        self.mail = later;
        let mut events = std::mem::take(&mut self.look_ups);
        for key in due.into_iter().map(|(_, key)| key).collect::<BTreeSet<_>>() {
            self.look(&key, &mut events);
        }
        let step = self.run.step(events, time(now));
        self.has_turned = true;
        for transition in &step.transitions {
            judge_transition(&self.run, transition);
        }
        let wake = step.wake_at.map(|wake| i64::try_from(wake.duration_since(time(0)).as_millis()).unwrap());
        assert!(wake.is_none_or(|wake| wake > now), "it would spin");
        assert!(wake.is_none() || !self.run.is_finished());
        if self.goes_wrong(25) {
            self.restart();
            return Some(now);
        }
        if step.store_first || self.run.is_finished() || self.draw(3) == 0 {
            self.store(false);
        }
        for action in step.actions {
            self.perform(action);
            if self.goes_wrong(40) {
                self.restart();
                return Some(now);
            }
        }
        // what was put off until now, or until the graph had come so far
        let goes_on = self.pending || self.unseen || (self.waiting.is_some() && self.run.is_finished());
        if goes_on || !self.look_ups.is_empty() { Some(now) } else { wake }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Launch(launch) => {
                let (key, task) = (self.key(launch.attempt), self.run.graph().task(launch.attempt.task));
                let plan = self.plan(launch.attempt.task).filter(|_| launch.attempt.item.is_some());
                let items = launch.items.as_ref().map(|items| items.len()).or_else(|| plan?.items());
                let per_item = plan.and_then(TaskPlan::per_item);
                let made = Made { definition: task.hash, child: matches!(task.work, Work::Graph(_)), items, per_item };
                let known = self.asked.iter().any(|known| known.whole() == key.whole());
                let begun = match self.jobs.items(&key.whole()).next() {
                    _ if key.item.is_none() => Begun::No,
                    Some(_) => Begun::Items,
                    None if known => Begun::Lost,
                    None => Begun::No,
                };
                if self.asked.insert(key.clone()) {
                    judge_launch(&self.run, launch.attempt, self.spec_holds(), begun);
                }
                let due = self.now + self.jobs.creation_takes(&key, made);
                self.creates.push((due, key, made));
            }
            Action::Stop { attempt } => {
                let key = self.key(attempt);
                self.creates.retain(|(_, known, _)| known.whole() != key);
                self.jobs.delete(&key, self.now);
                self.answer_gone(key, true);
            }
            Action::AwaitGone { attempt } => self.answer_gone(self.key(attempt), false),
            Action::LookUp { task, key } => {
                let found = match self.plan(task).and_then(|plan| plan.cache) {
                    Some(Recall::Silent) => return,
                    Some(Recall::Hit) => Some(Remembered {
                        outputs: json!({"attempt": 0}).as_object().unwrap().clone(),
                        graph: "earlier".into(),
                        task: "t".into(),
                        time: time(self.now - 50_000),
                    }),
                    _ => None,
                };
                self.look_ups.push(Event::LookedUp { task, key, found });
            }
        }
    }

    /// Whether the spec keeps everything from starting: it is not valid, or an edit of it is pending.
    fn spec_holds(&self) -> bool {
        !self.spec.is_valid || self.pending
    }

    fn answer_gone(&mut self, key: Key, wholly: bool) {
        let gone = self.jobs.gone(&key, wholly, self.now);
        self.gone_asked.insert(key.clone(), wholly);
        self.mail.push((gone.max(self.now), key));
    }
}

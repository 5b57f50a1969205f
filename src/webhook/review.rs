//! Judges a request: what is wrong with it, and what is to be said about it. Pure: what is looked up is given.
//!
//! All rules are those of [`validate`] and of the controller's [`judge`]; this only decides what of a request they are
//! asked about. Two things hold for every update:
//!
//! - one that leaves the spec alone (labels, finalizers, the status) is never refused;
//! - what was wrong before is not held against it: a graph that is not valid any more can still be cancelled, and is
//!   mended one problem at a time.

use std::{collections::BTreeMap, sync::Arc};

use kube::core::admission::Operation;
use serde_json::Value;

use super::request::{Object, Request};
use crate::{
    api::{TaskGraphSpec, TaskGraphStatus, TaskTemplateSpec, TemplateKind, TemplateRef, noted_user},
    controller::{
        accept::{read_spec, read_status, verdict_of},
        edit::{judge, without_past_rerun},
        mend,
        report::Verdict,
        revision::Pinned,
        templates::Found,
        view::parent_of,
    },
    engine::{Identity, Plan, Problem, Refusal, Run, compile},
    validate,
};

/// At most so many problems are told at once.
const PROBLEMS: usize = 100;
/// At most so many warnings: the API server cuts them short otherwise.
const WARNINGS: usize = 10;

/// What came of judging a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What it needs and whoever made it may not do.
    pub forbidden: Vec<Problem>,
    /// What is wrong with the object; with neither it is allowed.
    pub problems: Vec<Problem>,
    /// What whoever made it is to know all the same.
    pub warnings: Vec<String>,
}

impl Outcome {
    /// What is told of it, what is forbidden first: no more than a person reads.
    #[must_use]
    pub fn told(self) -> (Vec<Problem>, Vec<String>) {
        let Self { forbidden: mut problems, problems: others, mut warnings } = self;
        problems.extend(others);
        let more = problems.len().saturating_sub(PROBLEMS);
        if more > 0 {
            problems.truncate(PROBLEMS);
            problems.push(Problem { path: "spec".to_owned(), message: format!("... and {more} more problems") });
        }
        warnings.truncate(WARNINGS);
        (problems, warnings)
    }
}

/// What of a request is judged.
#[derive(Debug)]
pub enum Subject<'a> {
    /// A graph whose spec is new.
    Graph(Box<GraphChange<'a>>),
    /// A template whose spec is new.
    Template(TemplateChange<'a>),
}

/// A graph that is created, or whose spec is changed.
#[derive(Debug)]
pub struct GraphChange<'a> {
    /// Its name, where it has one yet.
    pub name: Option<&'a str>,
    /// Its namespace.
    pub namespace: &'a str,
    /// Who asks for it.
    pub user: &'a str,
    /// Of a child graph: the UID of its parent, and the parent's `ControllerRevision`.
    pub parent: Option<(String, String)>,
    /// What there was, of an update.
    pub old: Option<Old<'a>>,
    spec: &'a Value,
    deleted: bool,
}

/// A graph as it was.
#[derive(Debug)]
pub struct Old<'a> {
    /// Its UID.
    pub uid: &'a str,
    status: &'a Value,
    spec: &'a Value,
}

impl<'a> Old<'a> {
    /// A text of its status: to read all of that takes milliseconds.
    fn said(&self, field: &str) -> Option<&'a str> {
        self.status.get(field)?.as_str()
    }

    /// Its status, as far as it can be read.
    fn status(&self) -> TaskGraphStatus {
        read_status(self.status.clone()).0
    }
}

/// A template that is created or changed.
#[derive(Debug)]
pub struct TemplateChange<'a> {
    /// Where it is looked for.
    pub namespace: &'a str,
    reference: TemplateRef,
    spec: &'a Value,
    old: Option<&'a Value>,
}

/// What was looked up for a request.
#[derive(Debug, Default)]
pub struct Known {
    /// What the graph was accepted with: it has begun.
    pub pinned: Option<Pinned>,
    /// Of a child graph: the templates of its parent.
    pub parents: Option<Found>,
    /// Templates that were read live, and count more than those of the cache.
    pub fresh: Found,
}

/// A template, and what the cache has under its name.
pub type Cached = (TemplateRef, Option<Arc<TaskTemplateSpec>>);

/// Finds templates that a spec needs.
pub type Lookup<'a> = &'a (dyn Fn(&TaskGraphSpec, &str) -> Found + Sync);

/// What there is to judge; `None`: nothing, and the request is allowed.
pub fn subject(request: &Request) -> Option<Subject<'_>> {
    let object = request.object.as_ref()?;
    let old = match request.operation {
        Operation::Create => None,
        Operation::Update => Some(request.old_object.as_ref()?),
        Operation::Delete | Operation::Connect => return None,
    };
    if !request.is_ours() || old.is_some_and(|old| old.spec == object.spec) {
        return None;
    }
    match request.kind.kind.as_str() {
        "TaskGraph" => Some(Subject::Graph(Box::new(GraphChange::of(request, object, old)))),
        "TaskTemplate" => Some(Subject::Template(TemplateChange::of(request, object, old, TemplateKind::TaskTemplate))),
        "ClusterTaskTemplate" => {
            Some(Subject::Template(TemplateChange::of(request, object, old, TemplateKind::ClusterTaskTemplate)))
        }
        _ => None,
    }
}

impl<'a> GraphChange<'a> {
    fn of(request: &'a Request, object: &'a Object, old: Option<&'a Object>) -> Self {
        let annotations = object.metadata.annotations.as_ref();
        let revision = annotations.and_then(|all| all.get(crate::api::ANNOTATION_REVISION));
        let old = old.map(|old| Old {
            uid: old.metadata.uid.as_deref().unwrap_or_default(),
            status: &old.status,
            spec: &old.spec,
        });
        Self {
            name: object.metadata.name.as_deref().filter(|name| !name.is_empty()),
            namespace: request.namespace.as_deref().unwrap_or_default(),
            user: request.user_info.username.as_deref().unwrap_or_default(),
            parent: parent_of(&object.metadata).and_then(|owner| Some((owner.uid.clone(), revision?.clone()))),
            old,
            spec: &object.spec,
            deleted: object.metadata.deletion_timestamp.is_some(),
        }
    }

    /// The name of the `ControllerRevision` that it was accepted with: it has begun.
    pub fn revision(&self) -> Option<&'a str> {
        self.old.as_ref()?.said("revision")
    }

    /// Judges it.
    pub fn judge(&self, known: &Known, lookup: Lookup<'_>) -> Outcome {
        let mut outcome = Outcome { problems: self.in_anothers_name(), ..Outcome::default() };
        if self.deleted {
            // nothing of it is started any more
            return outcome;
        }
        let Outcome { problems, warnings, .. } = self.objections(self.spec, known, lookup);
        let before = match &self.old {
            Some(old) if !problems.is_empty() => self.objections(old.spec, known, lookup).problems,
            _ => Vec::new(),
        };
        if problems.iter().all(|problem| before.contains(problem)) {
            outcome.warnings.extend(problems.iter().map(|problem| format!("as before, {problem}")));
        } else {
            outcome.problems.splice(0..0, problems);
        }
        outcome.warnings.extend(warnings);
        outcome
    }

    /// Approvals that the request adds, and that name somebody else than who makes it.
    fn in_anothers_name(&self) -> Vec<Problem> {
        let list = |spec: &'a Value| spec.get("approvals").and_then(Value::as_array).into_iter().flatten();
        let key = |entry: &'a Value| {
            (entry.get("task").and_then(Value::as_str), entry.get("attempt").and_then(Value::as_u64))
        };
        let before: BTreeMap<_, _> =
            self.old.iter().flat_map(|old| list(old.spec)).map(|entry| (key(entry), entry)).collect();
        let user = noted_user(self.user);
        let added = list(self.spec).enumerate().filter(|(_, entry)| before.get(&key(entry)) != Some(entry));
        let wrong = added.filter_map(|(index, entry)| {
            let by = entry.get("by").and_then(Value::as_str)?;
            (by != user).then(|| Problem {
                path: format!("spec.approvals[{index}].by"),
                message: format!("is {by:?}, but the request is made by {user:?}: nobody approves in another's name"),
            })
        });
        wrong.collect()
    }

    /// All that the controller would object to in a spec of this graph.
    fn objections(&self, spec: &Value, known: &Known, lookup: Lookup<'_>) -> Outcome {
        let spec = match read_spec(spec) {
            Ok(spec) => without_past_rerun(spec, self.old.as_ref().and_then(|old| old.said("rerun"))),
            Err(verdict) => return of_verdict(&verdict),
        };
        let templates = self.templates(&spec, known, lookup);
        match validate::check(self.name, &spec, &templates.specs) {
            Ok(plan) => self.edit(&plan, &Pinned::new(spec, &templates), known),
            Err(refusal) => of_refusal(refusal),
        }
    }

    /// The templates that the controller would take: those that the graph began with, then as they are now; of a child
    /// graph its parent's.
    fn templates(&self, spec: &TaskGraphSpec, known: &Known, lookup: Lookup<'_>) -> Found {
        let now = || known.fresh.or(&lookup(spec, self.namespace), spec);
        match (&known.pinned, &known.parents) {
            (Some(pinned), _) => pinned.found().or(&now(), spec),
            (None, Some(parents)) => parents.needed_by(spec),
            (None, None) => now(),
        }
    }

    /// A valid spec, against the graph as it runs.
    fn edit(&self, plan: &Plan, next: &Pinned, known: &Known) -> Outcome {
        let (Some(old), Some(pinned)) = (&self.old, &known.pinned) else { return Outcome::default() };
        let status = old.status();
        let judged = match compile(&pinned.spec, &pinned.templates()) {
            Ok(accepted) => {
                let identity = Identity {
                    name: self.name.unwrap_or_default().into(),
                    namespace: self.namespace.into(),
                    uid: old.uid.into(),
                };
                let run = Run::restore(accepted.graph, accepted.settings, identity, &status);
                judge(&run, pinned, next, plan).map(|_| ())
            }
            // accepted by an operator with other rules: this mends it
            Err(_) => mend::may_be_replaced(pinned, &status, plan, next),
        };
        judged.err().map(|verdict| of_verdict(&verdict)).unwrap_or_default()
    }
}

impl<'a> TemplateChange<'a> {
    fn of(request: &'a Request, object: &'a Object, old: Option<&'a Object>, kind: TemplateKind) -> Self {
        let name = object.metadata.name.clone().unwrap_or_default();
        Self {
            namespace: request.namespace.as_deref().unwrap_or_default(),
            reference: TemplateRef { name, kind },
            spec: &object.spec,
            old: old.map(|old| &old.spec),
        }
    }

    /// Judges it.
    pub fn judge(&self, known: &Known, lookup: Lookup<'_>) -> Outcome {
        let problems = self.objections(self.spec, known, lookup);
        let before = match self.old {
            Some(old) if !problems.is_empty() => self.objections(old, known, lookup),
            _ => Vec::new(),
        };
        if problems.iter().all(|problem| before.contains(problem)) {
            let warnings = problems.iter().map(|problem| format!("as before, {problem}")).collect();
            return Outcome { warnings, ..Outcome::default() };
        }
        Outcome { problems, ..Outcome::default() }
    }

    fn objections(&self, spec: &Value, known: &Known, lookup: Lookup<'_>) -> Vec<Problem> {
        let spec: TaskTemplateSpec = match serde_path_to_error::deserialize(spec) {
            Ok(spec) => spec,
            Err(error) => {
                let path = format!("spec.{}", error.path());
                return vec![Problem { path, message: error.into_inner().to_string() }];
            }
        };
        let others = match &spec.graph {
            Some(graph) => known.fresh.or(&lookup(graph, self.namespace), graph),
            None => Found::default(),
        };
        validate::check_template(&self.reference, &spec, &others.specs)
    }
}

impl Subject<'_> {
    /// What comes of it where it cannot be judged by now, and why.
    pub fn unjudged(&self, why: &str) -> Outcome {
        let problems = match self {
            Self::Graph(change) => change.in_anothers_name(),
            Self::Template(_) => Vec::new(),
        };
        let warning = format!("it is checked after it is stored, as {why}");
        Outcome { problems, warnings: vec![warning], ..Outcome::default() }
    }

    /// Judges it.
    pub fn judge(&self, known: &Known, lookup: Lookup<'_>) -> Outcome {
        match self {
            Self::Graph(change) => change.judge(known, lookup),
            Self::Template(change) => change.judge(known, lookup),
        }
    }

    /// The templates that a judgement rests on, and that may be others by now than the cache has them: with what it has.
    /// Those that are missing, and where the request is refused, those that are there.
    pub fn unsure(&self, known: &Known, lookup: Lookup<'_>, refused: bool) -> Vec<Cached> {
        let (spec, namespace) = match self {
            // most graphs name none, and to read one again costs as much as to read it
            Self::Graph(change) if known.parents.is_none() && names_templates(change.spec) => {
                (read_spec(change.spec).ok(), change.namespace)
            }
            Self::Graph(_) => (None, ""),
            Self::Template(change) => {
                let template: Option<TaskTemplateSpec> = serde_json::from_value(change.spec.clone()).ok();
                (template.and_then(|template| template.graph).map(|graph| *graph), change.namespace)
            }
        };
        let Some(spec) = spec else { return Vec::new() };
        let now = known.fresh.or(&lookup(&spec, namespace), &spec);
        let is_pinned =
            |reference: &TemplateRef| known.pinned.as_ref().is_some_and(|pinned| pinned.template(reference).is_some());
        let missing = now.lacks(&spec).into_iter().map(|reference| (reference, None));
        let there = now.specs.into_iter().filter(|_| refused).map(|(reference, spec)| (reference, Some(spec)));
        missing.chain(there).filter(|(reference, _)| !is_pinned(reference)).collect()
    }
}

/// Whether a graph runs any template.
fn names_templates(spec: &Value) -> bool {
    let names = |value: &Value| value.get("templateRef").is_some_and(|reference| !reference.is_null());
    let tasks = ["tasks", "finally"].into_iter().filter_map(|list| spec.get(list)?.as_array()).flatten();
    names(spec) || tasks.into_iter().any(|task| names(task) || task.get("compensate").is_some_and(names))
}

/// What cannot be carried out is refused; what only has to wait is told.
fn of_verdict(verdict: &Verdict) -> Outcome {
    match verdict {
        Verdict::Accepted => Outcome::default(),
        Verdict::Waiting(reason, message) if *reason != crate::controller::edit::EDIT_REFUSED => {
            Outcome { warnings: message.lines().map(str::to_owned).collect(), ..Outcome::default() }
        }
        Verdict::Refused(..) | Verdict::Waiting(..) => Outcome { problems: verdict.problems(), ..Outcome::default() },
    }
}

fn of_refusal(refusal: Refusal) -> Outcome {
    // templates may be applied after the graph that names them
    let missing = Refusal { problems: Vec::new(), missing: refusal.missing };
    let warnings = match verdict_of(&missing) {
        Verdict::Waiting(_, message) => message.lines().map(str::to_owned).collect(),
        Verdict::Accepted | Verdict::Refused(..) => Vec::new(),
    };
    Outcome { problems: refusal.problems, warnings, ..Outcome::default() }
}

#[cfg(test)]
mod tests;

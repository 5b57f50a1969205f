//! One task: what it is, and everything about it that concerns no other.

use std::{collections::BTreeMap, fmt::Display, sync::Arc};

use super::{
    Checker,
    dependencies::{self, Waiting},
    expressions::Site,
    for_each, hash,
    names::{label_problem, member_problem},
    payloads::{self, PayloadSource},
    problems::Problems,
    settings::{self, Waits},
    templates::{self, Given, Template},
    waiting,
};
use crate::{
    api::{Decision, Duration, Opaque, Output, Retry, Task, TaskGraphSpec, TemplateRef},
    engine::{
        expr::Expression,
        graph::{BranchDef, RetryRule, TaskDef, TriggerRule, Work},
        payload::{Payload, PayloadKind},
    },
};

/// How long an attempt may wait for its pod to start, where the task does not say.
pub const START_TIMEOUT: Duration = Duration::from_secs(600);
const MAX_OUTPUTS: usize = 64;
/// Most branches of a decision.
pub const MAX_BRANCHES: usize = 64;

/// What is wrong stands among the problems.
pub(super) struct Reported;

/// Where a task stands in the spec.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub finally: bool,
    pub index: usize,
}

impl Place {
    /// `spec.tasks[3]`
    pub fn path(self) -> String {
        format!("spec.{}[{}]", if self.finally { "finally" } else { "tasks" }, self.index)
    }
}

/// All tasks, in the order of their ids.
pub fn all_tasks(spec: &TaskGraphSpec) -> impl Iterator<Item = (Place, &Task)> {
    let place = |finally| move |(index, task)| (Place { finally, index }, task);
    spec.tasks.iter().enumerate().map(place(false)).chain(spec.finally.iter().enumerate().map(place(true)))
}

/// Texts that only people read; the CRD has the same bounds.
pub fn check_words(words: &Words<'_>, path: &str, problems: &mut Problems) {
    let mut bounded = |text: &str, limit: usize, field: String| {
        let length = text.chars().count();
        if length > limit {
            problems.add(format!("{path}.{field}"), format!("{length} characters; the limit is {limit}"));
        }
    };
    bounded(words.display_name.unwrap_or_default(), 255, "displayName".to_owned());
    bounded(words.description.unwrap_or_default(), 4096, "description".to_owned());
    bounded(words.type_.unwrap_or_default(), 50, "type".to_owned());
    for (index, tag) in words.tags.iter().enumerate() {
        bounded(tag, 63, format!("tags[{index}]"));
    }
    if words.tags.len() > 32 {
        problems.add(format!("{path}.tags"), format!("{} tags; the limit is 32", words.tags.len()));
    }
}

/// What [`check_words`] looks at.
pub struct Words<'a> {
    pub display_name: Option<&'a str>,
    pub description: Option<&'a str>,
    pub type_: Option<&'a str>,
    pub tags: &'a [String],
}

/// Names and defaults of declared outputs.
pub fn check_outputs(outputs: &[Output], path: impl Display, problems: &mut Problems) {
    if outputs.len() > MAX_OUTPUTS {
        problems.add(&path, format!("{} outputs; the limit is {MAX_OUTPUTS}", outputs.len()));
    }
    let mut seen = BTreeMap::new();
    for (index, output) in outputs.iter().enumerate() {
        if let Some(problem) = member_problem(&output.name) {
            problems.add(format!("{path}[{index}].name"), problem);
        } else if let Some(first) = seen.insert(output.name.as_str(), index) {
            problems.add(
                format!("{path}[{index}].name"),
                format!("{:?} is the name of outputs[{first}] already", output.name),
            );
        }
        if let (Some(type_), Some(default)) = (output.type_, &output.default)
            && !type_.accepts(default)
        {
            let given = crate::engine::expr::describe(default);
            problems.add(format!("{path}[{index}].default"), format!("{given}: the type is {}", type_.name()));
        }
    }
}

impl<'a> Checker<'a> {
    /// The definition of a task, if nothing about it is wrong; `dependents` and `handler` are left to be filled in.
    pub(super) fn task(&mut self, number: usize, place: Place, task: &'a Task, waiting: Waiting) -> Option<TaskDef> {
        let path = place.path();
        self.check_texts(task, &path);
        let trigger = dependencies::trigger(task, &path, &mut self.problems);
        let when = self.condition(task.when.as_deref(), number, format_args!("{path}.when"));
        check_outputs(&task.outputs, format_args!("{path}.outputs"), &mut self.problems);
        settings::priority(task.priority, format_args!("{path}.priority"), &mut self.problems);
        let timeout = settings::duration(task.timeout.as_ref(), format_args!("{path}.timeout"), &mut self.problems);
        let start_timeout =
            settings::duration(task.start_timeout.as_ref(), format_args!("{path}.startTimeout"), &mut self.problems);

        let template = self.template(task, &path);
        let defaults = template.as_ref().map(|template| Arc::clone(&template.spec));
        let defaults = defaults.as_deref();
        let retry = self.retry(
            task.retry.as_ref(),
            defaults.and_then(|defaults| defaults.retry.as_ref()),
            format_args!("{path}.retry"),
        );
        let timeout = timeout.or_else(|| defaults.and_then(|defaults| defaults.timeout.as_ref()?.parse().ok()));
        let work = self.work(number, task, &path, template.as_ref());
        let for_each = self.for_each(number, task, work.as_ref(), &path);
        let outputs =
            merge_outputs(defaults.map(|defaults| defaults.outputs.as_slice()).unwrap_or_default(), &task.outputs);
        self.volumes(task, &path, work.as_ref());
        let cache = self.cache(number, place, task, work.as_ref());
        let (work, for_each, (when, retry)) = (work?, for_each.ok()?, when.ok().zip(retry)?);
        Some(TaskDef {
            name: task.name.as_str().into(),
            undoes: None,
            compensation: None,
            finally: place.finally,
            handler: matches!(trigger, TriggerRule::AllFinished | TriggerRule::AnyFailed),
            dependencies: waiting.dependencies,
            dependents: Vec::new(),
            guards: waiting.guards,
            trigger,
            when,
            hash: hash::definition(&work, for_each.as_ref(), self.spec.pod_defaults.as_ref(), timeout, &task.volumes),
            work,
            for_each,
            retry,
            timeout,
            start_timeout: start_timeout.unwrap_or(START_TIMEOUT),
            allow_failure: task.allow_failure.unwrap_or(false),
            priority: settings::priority(
                task.priority.or(defaults.and_then(|defaults| defaults.priority)),
                "",
                &mut Problems::default(),
            ),
            outputs,
            volumes: task.volumes.clone(),
            cache,
        })
    }

    /// The name of a task, and what only people read of it.
    fn check_texts(&mut self, task: &Task, path: &str) {
        if let Some(problem) = label_problem(&task.name) {
            self.problems.add(format!("{path}.name"), problem);
        }
        let words = Words {
            display_name: task.display_name.as_deref(),
            description: task.description.as_deref(),
            type_: task.type_.as_deref(),
            tags: &task.tags,
        };
        check_words(&words, path, &mut self.problems);
    }

    /// A condition that may be absent.
    fn condition(
        &mut self,
        text: Option<&str>,
        task: usize,
        path: impl Display,
    ) -> Result<Option<Expression>, Reported> {
        let Some(text) = text else { return Ok(None) };
        let site = Site::Condition(task);
        self.expressions.expression(text, site, &path.to_string(), &mut self.problems).map(Some).ok_or(Reported)
    }

    /// The retries of a task, or else those of its template.
    pub(super) fn retry(
        &mut self,
        own: Option<&Retry>,
        default: Option<&Retry>,
        path: impl Display,
    ) -> Option<RetryRule> {
        // a default was reported with its template
        let mut ignored = Problems::default();
        let problems = if own.is_some() { &mut self.problems } else { &mut ignored };
        let retry = own.or(default);
        let Waits { limit, initial, factor, max } = settings::waits(retry, &path, problems);
        let when = match retry.and_then(|retry| retry.when.as_deref()) {
            Some(when) => Some(self.expressions.expression(when, Site::Retry, &format!("{path}.when"), problems)?),
            None => None,
        };
        Some(RetryRule { limit, initial, factor, max, when })
    }

    /// The template that a task runs, checked the first time that it is asked for.
    pub(super) fn template(&mut self, task: &Task, path: &str) -> Option<Template> {
        let reference = task.template_ref.as_ref()?;
        let path = format!("{path}.templateRef");
        if reference.name.is_empty() || reference.name.len() > 253 {
            self.problems.add(format!("{path}.name"), "write the name of a template: 1 to 253 characters");
            return None;
        }
        if let Some(known) = self.compiled_templates.get(reference).cloned() {
            self.check_depth(reference, known.graph.as_ref().map_or(0, |child| child.depth), &path);
            return Some(known);
        }
        let Some(spec) = self.chain.templates.get(reference) else {
            self.missing.push((path, reference.clone()));
            return None;
        };
        if spec.graph.is_some() && !self.may_nest(reference, &path) {
            return None;
        }
        let mut template =
            templates::compile(reference, spec, &mut self.expressions, &mut self.payloads, &mut self.problems);
        template.graph = self.graph_template(reference, spec);
        self.compiled_templates.insert(reference.clone(), template.clone());
        Some(template)
    }

    /// What a task does: exactly one of the six forms.
    pub(super) fn work(&mut self, number: usize, task: &Task, path: &str, template: Option<&Template>) -> Option<Work> {
        let has_one_form = self.check_form(task, path);
        if task.arguments.is_some() && task.template_ref.is_none() {
            self.problems.add(format!("{path}.arguments"), "arguments are for a task with templateRef");
        }
        let mut work = None;
        let site = for_each::site(number, task, template);
        if let Some(container) = &task.container {
            work = Some(self.payload(PayloadKind::Container, container, site, format!("{path}.container")));
        }
        if let Some(job) = &task.job {
            work = Some(self.payload(PayloadKind::PodTemplate, &job.template, site, format!("{path}.job.template")));
        }
        if let (Some(reference), Some(template)) = (&task.template_ref, template) {
            work = self.template_work(site, task, path, reference, template);
        }
        if let (Some(arguments), None) = (&task.arguments, template) {
            // without the template, what can be told is whether their expressions are right
            templates::check_expressions(
                arguments,
                &format!("{path}.arguments"),
                site,
                &mut self.expressions,
                &mut self.problems,
            );
        }
        if let Some(decision) = &task.decision {
            work = self.decision(decision, number, task, path);
        }
        if let Some(delay) = &task.delay {
            work = waiting::delay(delay, task, path, &mut self.problems);
        }
        if let Some(approval) = &task.approval {
            work = Some(waiting::approval(approval, task, path, &mut self.problems));
        }
        work.filter(|_| has_one_form)
    }

    /// Whether a task has exactly one of the six forms; reported if not.
    fn check_form(&mut self, task: &Task, path: &str) -> bool {
        let forms = [
            ("container", task.container.is_some()),
            ("job", task.job.is_some()),
            ("templateRef", task.template_ref.is_some()),
            ("decision", task.decision.is_some()),
            ("delay", task.delay.is_some()),
            ("approval", task.approval.is_some()),
        ];
        let given: Vec<&str> = forms.iter().filter(|(_, given)| *given).map(|(form, _)| *form).collect();
        if given.len() != 1 {
            let has = if given.is_empty() { "none".to_owned() } else { given.join(" and ") };
            let all = "container, job, templateRef, decision, delay, approval";
            self.problems.add(path, format!("a task has exactly one of {all}; this one has {has}"));
        }
        given.len() == 1
    }

    /// The work of a task that runs a template.
    fn template_work(
        &mut self,
        site: Site,
        task: &Task,
        path: &str,
        reference: &TemplateRef,
        template: &Template,
    ) -> Option<Work> {
        let arguments_path = format!("{path}.arguments");
        let given = Given { reference, arguments: task.arguments.as_ref(), site, path: &arguments_path };
        let arguments = templates::merge(given, &template.spec, &mut self.expressions, &mut self.problems);
        match (&template.payload, &template.graph) {
            (Some(payload), _) => Some(Work::Job(Payload {
                kind: payload.kind,
                source: Arc::clone(&payload.source),
                slots: Arc::clone(&payload.slots),
                arguments: Some(arguments),
            })),
            (None, Some(child)) => self.child(task, &template.spec, child, arguments, path),
            (None, None) => None,
        }
    }

    fn payload(&mut self, kind: PayloadKind, source: &Opaque, site: Site<'_>, path: String) -> Work {
        let payload = payloads::compile(kind, source, &path, site, &mut self.expressions, &mut self.problems);
        self.payloads.push(PayloadSource { path, kind, source: Arc::clone(&payload.source) });
        Work::Job(Payload { kind, source: payload.source, slots: payload.slots, arguments: None })
    }

    fn decision(&mut self, decision: &Decision, number: usize, task: &Task, path: &str) -> Option<Work> {
        let meaningless = waiting::of_attempts(task).into_iter().chain(waiting::of_jobs(task));
        waiting::refuse("a decision has no Job", meaningless, path, &mut self.problems);
        let path = format!("{path}.decision.branches");
        let last = decision.branches.len().saturating_sub(1);
        if decision.branches.is_empty() {
            self.problems.add(&path, "a decision has at least one branch");
        } else if decision.branches.len() > MAX_BRANCHES {
            self.problems.add(&path, format!("{} branches; the limit is {MAX_BRANCHES}", decision.branches.len()));
        }
        let mut seen = BTreeMap::new();
        let mut branches = Vec::with_capacity(decision.branches.len());
        for (index, branch) in decision.branches.iter().enumerate() {
            if let Some(problem) = label_problem(&branch.name) {
                self.problems.add(format!("{path}[{index}].name"), problem);
            } else if let Some(first) = seen.insert(branch.name.as_str(), index) {
                self.problems.add(
                    format!("{path}[{index}].name"),
                    format!("{:?} is the name of branches[{first}] already", branch.name),
                );
            }
            if branch.when.is_none() && index < last {
                self.problems.add(
                    format!("{path}[{index}]"),
                    "a branch without `when` is taken if no other is, so it must be the last",
                );
            }
            let when = self.condition(branch.when.as_deref(), number, format_args!("{path}[{index}].when"));
            branches.push(when.map(|when| BranchDef { name: branch.name.as_str().into(), when }));
        }
        branches
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .ok()
            .map(|branches| Work::Decision { branches, inclusive: decision.inclusive })
    }
}

/// The outputs of a template, then those of the task; where both declare one, the task's.
pub fn merge_outputs(template: &[Output], own: &[Output]) -> Vec<Output> {
    let mut outputs: Vec<Output> =
        template.iter().filter(|output| own.iter().all(|other| other.name != output.name)).cloned().collect();
    outputs.extend_from_slice(own);
    outputs
}

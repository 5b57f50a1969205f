//! Templates of graphs: as the whole of a graph, and as child graphs; and what graphs return.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    Checker, Found, Plan, Templates,
    expressions::{Expressions, Site},
    hash,
    names::{Names, member_problem, shorten},
    problems::Problems,
    tasks::merge_outputs,
    templates::{self, Child, title},
};
use crate::{
    api::{Task, TaskGraphSpec, TaskTemplateSpec, TemplateRef},
    engine::{
        graph::{ChildDef, OutputDef, Work, order::Order},
        payload::{Arguments, places::member},
        policy::outputs,
    },
};

/// How deep child graphs may nest below a graph that a user applied.
pub const MAX_DEPTH: usize = 5;
/// Most bytes of a spec together with all templates that it needs, as JSON: they are stored in one object.
pub const MAX_PINNED_BYTES: usize = 1 << 20;
/// Most values that a graph returns.
const MAX_OUTPUTS: usize = 64;

const RUNS_ITSELF: &str = "a graph template cannot run itself";
const NESTS_TOO_DEEP: &str = "child graphs nest more than";

/// Whether a problem is one of several templates together: each of them has it.
#[cfg(feature = "kubernetes")]
pub fn is_shared(problem: &super::Problem) -> bool {
    [RUNS_ITSELF, NESTS_TOO_DEEP].iter().any(|known| problem.message.starts_with(known))
}

/// The graph templates that lead to the graph that is being checked, the outermost first.
pub struct Chain<'a> {
    pub templates: &'a Templates,
    /// Whether the first of them is the whole of a graph, which makes it no child.
    whole: bool,
    names: Vec<TemplateRef>,
}

impl<'a> Chain<'a> {
    /// Of a graph that a user wrote out.
    pub fn new(templates: &'a Templates) -> Self {
        Self { templates, whole: false, names: Vec::new() }
    }

    /// Whether the graph is none of a template.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    fn and(&self, reference: &TemplateRef) -> Self {
        let names = [self.names.as_slice(), std::slice::from_ref(reference)].concat();
        Self { templates: self.templates, whole: self.whole, names }
    }

    /// How many child graphs deep the graph stands.
    fn depth(&self) -> usize {
        self.names.len() - usize::from(self.whole)
    }

    /// `a → b → c`
    fn with(&self, last: &TemplateRef) -> String {
        let names: Vec<_> = self.names.iter().map(|reference| shorten(&reference.name)).collect();
        [names, vec![shorten(&last.name)]].concat().join(" → ")
    }
}

/// Checks a graph that runs a template as the whole of it.
pub fn whole(spec: &TaskGraphSpec, reference: &TemplateRef, templates: &Templates, found: &mut Found) -> Option<Plan> {
    let own = [
        ("tasks", spec.tasks.is_empty()),
        ("finally", spec.finally.is_empty()),
        ("outputs", spec.outputs.is_empty()),
        ("volumeClaimTemplates", spec.volume_claim_templates.is_empty()),
    ];
    for (field, _) in own.iter().filter(|(_, empty)| !empty) {
        let problem = format!("with templateRef the {field} are the template's: leave them out, or templateRef");
        found.problems.add(format!("spec.{field}"), problem);
    }
    if reference.name.is_empty() || reference.name.len() > 253 {
        found.problems.add("spec.templateRef.name", "write the name of a template: 1 to 253 characters");
        return None;
    }
    let Some(template) = templates.get(reference) else {
        found.missing.push(("spec.templateRef".to_owned(), reference.clone()));
        return None;
    };
    let order = Order::new(&[]);
    let mut none = Expressions::new(Names::new(BTreeMap::new()), Vec::new(), 0, Vec::new(), order.ancestors(), None);
    let compiled = templates::compile(reference, template, &mut none, &mut found.payloads, &mut found.problems);
    let Some(graph) = &template.graph else {
        let problem = format!("{} is no graph: run it as a task of one", title(reference));
        found.problems.add("spec.templateRef", problem);
        return None;
    };
    check_fields(reference, graph, &mut found.problems);
    let arguments = merge(reference, template, spec.arguments.as_ref(), &mut found.problems);
    let whole = resolve(spec, template, arguments)?;
    let chain = Chain { templates, whole: true, names: vec![reference.clone()] };
    let given = serde_json::to_value(spec).unwrap_or_default();
    // what the graph says itself keeps its path
    let plan = nested(reference, &whole, &chain, found, |field| given.get(field).is_none());
    found.templates.insert(reference.clone(), compiled);
    plan
}

/// The spec that a graph with `templateRef` comes to: the template's tasks, the graph's own settings over the
/// template's. `None` where the template is no graph.
pub fn resolve(
    spec: &TaskGraphSpec,
    template: &TaskTemplateSpec,
    arguments: Map<String, Value>,
) -> Option<TaskGraphSpec> {
    let graph = template.graph.as_deref()?;
    let pod_defaults = match (&spec.pod_defaults, &graph.pod_defaults) {
        (Some(own), Some(others)) => Some(own.over(others)),
        (own, other) => own.as_ref().or(other.as_ref()).cloned(),
    };
    Some(TaskGraphSpec {
        template_ref: None,
        arguments: Some(arguments),
        display_name: spec.display_name.clone(),
        description: spec.description.clone(),
        tags: spec.tags.clone(),
        parallelism: spec.parallelism.or(graph.parallelism),
        failure_policy: spec.failure_policy.or(graph.failure_policy),
        timeout: spec.timeout.as_ref().or(graph.timeout.as_ref()).or(template.timeout.as_ref()).cloned(),
        compensation_timeout: spec.compensation_timeout.as_ref().or(graph.compensation_timeout.as_ref()).cloned(),
        finally_timeout: spec.finally_timeout.as_ref().or(graph.finally_timeout.as_ref()).cloned(),
        ttl_after_finished: spec.ttl_after_finished.clone(),
        desired_state: spec.desired_state,
        approvals: spec.approvals.clone(),
        rerun: spec.rerun.clone(),
        pod_defaults,
        ..graph.clone()
    })
}

/// The arguments of a graph over the defaults of its template. They are taken as they are: no expression is read in them.
fn merge(
    reference: &TemplateRef,
    template: &TaskTemplateSpec,
    given: Option<&Map<String, Value>>,
    problems: &mut Problems,
) -> Map<String, Value> {
    let none = Map::new();
    let given = given.unwrap_or(&none);
    let title = title(reference);
    for name in given.keys().filter(|name| template.parameters.iter().all(|parameter| parameter.name != **name)) {
        let hint = problems.hint(name, template.parameters.iter().map(|parameter| parameter.name.as_str()));
        problems.add(format!("spec.arguments{}", member(name)), format!("{title} has no parameter {name:?}{hint}"));
    }
    let mut merged = Map::new();
    for parameter in &template.parameters {
        let value = given.get(&parameter.name);
        if value.is_none() && parameter.required {
            problems.add("spec.arguments", format!("{title} requires the argument {:?}", parameter.name));
        }
        if let (Some(type_), Some(value)) = (parameter.type_, value)
            && !type_.accepts(value)
        {
            let given = crate::engine::expr::describe(value);
            let problem = format!("{given}: {title} takes a value of type {}", type_.name());
            problems.add(format!("spec.arguments{}", member(&parameter.name)), problem);
        }
        let value = value.or(parameter.default.as_ref()).cloned().unwrap_or_default();
        merged.insert(parameter.name.clone(), value);
    }
    merged
}

/// A template has none of the fields that belong to one run.
fn check_fields(reference: &TemplateRef, graph: &TaskGraphSpec, problems: &mut Problems) {
    for (field, _) in graph.fields_of_one_run().iter().filter(|(_, given)| *given) {
        let path = format!("{}: spec.graph.{field}", title(reference));
        problems.add(path, "belongs to one run of a graph: leave it out of the template");
    }
}

/// Checks the graph of a template; the paths of what is found become those of the template, where `is_templates` says so
/// of a field of the spec.
fn nested(
    reference: &TemplateRef,
    graph: &TaskGraphSpec,
    chain: &Chain<'_>,
    found: &mut Found,
    is_templates: impl Fn(&str) -> bool,
) -> Option<Plan> {
    let mut inner = Found { templates: std::mem::take(&mut found.templates), ..Found::default() };
    if let Some(defaults) = graph.pod_defaults.clone().filter(|_| is_templates("podDefaults")) {
        inner.defaults.push(("spec.podDefaults".to_owned(), defaults));
    }
    let plan = super::plan(graph, chain, &mut inner);
    let title = title(reference);
    let path = |path: &str| match path.strip_prefix("spec") {
        Some(below) => {
            let field = below.trim_start_matches('.').split(['.', '[']).next().unwrap_or_default();
            if is_templates(field) { format!("{title}: spec.graph{below}") } else { path.to_owned() }
        }
        // of a template that this one uses
        None => path.to_owned(),
    };
    for problem in inner.problems.list {
        found.problems.add(path(&problem.path), problem.message);
    }
    found.missing.extend(inner.missing.into_iter().map(|(at, reference)| (path(&at), reference)));
    found.defaults.extend(inner.defaults.into_iter().map(|(at, defaults)| (path(&at), defaults)));
    found.claims.extend(inner.claims.into_iter().map(|(at, claim)| (path(&at), claim)));
    for mut payload in inner.payloads {
        payload.path = path(&payload.path);
        found.payloads.push(payload);
    }
    found.templates = inner.templates;
    plan
}

/// What a graph was found with is stored in one object.
pub fn check_size(spec: &TaskGraphSpec, found: &mut Found) {
    let templates: usize = found.templates.values().map(|template| outputs::size(&*template.spec)).sum();
    let bytes = outputs::size(spec).saturating_add(templates);
    if templates > 0 && bytes > MAX_PINNED_BYTES {
        let problem =
            format!("{bytes} bytes as JSON with all templates that it needs; the limit is {MAX_PINNED_BYTES}");
        found.problems.add("spec", problem);
    }
}

impl Checker<'_> {
    /// Whether a graph template may be run here: it runs itself nowhere, and does not nest too deep.
    pub(super) fn may_nest(&mut self, reference: &TemplateRef, path: &str) -> bool {
        if self.chain.names.contains(reference) {
            let problem = format!("{RUNS_ITSELF}: {}", self.chain.with(reference));
            self.problems.add(path, problem);
            return false;
        }
        self.check_depth(reference, 1, path)
    }

    /// Whether child graphs of a template may nest here, `depth` deep.
    pub(super) fn check_depth(&mut self, reference: &TemplateRef, depth: usize, path: &str) -> bool {
        let fits = self.chain.depth() + depth <= MAX_DEPTH;
        if !fits {
            let chain = self.chain.with(reference);
            self.problems.add(path, format!("{NESTS_TOO_DEEP} {MAX_DEPTH} deep: {chain}"));
        }
        fits
    }

    /// Checks the graph of a template as a child graph.
    pub(super) fn graph_template(&mut self, reference: &TemplateRef, spec: &TaskTemplateSpec) -> Option<Child> {
        let graph = spec.graph.as_deref()?;
        check_fields(reference, graph, &mut self.problems);
        // of the arguments it counts which there are: their values come from the task
        let names = spec.parameters.iter().map(|parameter| (parameter.name.clone(), Value::Null));
        let graph = TaskGraphSpec { template_ref: None, arguments: Some(names.collect()), ..graph.clone() };
        let mut found = Found {
            problems: std::mem::take(&mut self.problems),
            missing: std::mem::take(&mut self.missing),
            payloads: std::mem::take(&mut self.payloads),
            defaults: std::mem::take(&mut self.defaults),
            claims: std::mem::take(&mut self.claims),
            templates: std::mem::take(&mut self.compiled_templates),
        };
        let plan = nested(reference, &graph, &self.chain.and(reference), &mut found, |_| true);
        Found {
            problems: self.problems,
            missing: self.missing,
            payloads: self.payloads,
            defaults: self.defaults,
            claims: self.claims,
            templates: self.compiled_templates,
        } = found;
        let tasks = &plan?.graph.tasks;
        let below = tasks.iter().map(|task| if let Work::Graph(child) = &task.work { child.depth } else { 0 }).max();
        Some(Child {
            content: hash::content(&graph, tasks),
            depth: 1 + below.unwrap_or(0),
            outputs: graph.outputs.iter().map(|output| output.name.clone()).collect(),
        })
    }

    /// A task that runs a graph template.
    pub(super) fn child(
        &mut self,
        task: &Task,
        template: &TaskTemplateSpec,
        child: &Child,
        arguments: Arguments,
        path: &str,
    ) -> Option<Work> {
        if task.start_timeout.is_some() {
            let problem = "a child graph has no pod to wait for: its own tasks have a startTimeout each";
            self.problems.add(format!("{path}.startTimeout"), problem);
        }
        let of_pods = [("cache", task.cache.is_some()), ("volumes", !task.volumes.is_empty())];
        for (field, given) in of_pods {
            if given {
                let problem = format!("a child graph has no {field}: its own tasks have them, in the template");
                self.problems.add(format!("{path}.{field}"), problem);
            }
        }
        let returned = |name: &str| child.outputs.iter().any(|known| known == name);
        for output in merge_outputs(&template.outputs, &task.outputs) {
            if output.default.is_none() && !returned(&output.name) {
                let hint = self.problems.hint(&output.name, child.outputs.iter().map(String::as_str));
                let problem = format!("the graph template returns no output {:?}{hint}", output.name);
                self.problems.add(format!("{path}.outputs"), problem);
            }
        }
        Some(Work::Graph(ChildDef {
            template: task.template_ref.clone()?,
            arguments,
            content: child.content,
            depth: child.depth,
        }))
    }

    /// What the graph returns.
    pub(super) fn returns(&mut self) -> Vec<OutputDef> {
        let outputs = &self.spec.outputs;
        if outputs.len() > MAX_OUTPUTS {
            self.problems.add("spec.outputs", format!("{} outputs; the limit is {MAX_OUTPUTS}", outputs.len()));
        }
        let mut seen = BTreeMap::new();
        let mut compiled = Vec::with_capacity(outputs.len());
        for (index, output) in outputs.iter().enumerate() {
            let path = format!("spec.outputs[{index}]");
            if let Some(problem) = member_problem(&output.name) {
                self.problems.add(format!("{path}.name"), problem);
            } else if let Some(first) = seen.insert(output.name.as_str(), index) {
                let problem = format!("{:?} is the name of outputs[{first}] already", output.name);
                self.problems.add(format!("{path}.name"), problem);
            }
            let value =
                self.expressions.expression(&output.value, Site::Output, &format!("{path}.value"), &mut self.problems);
            compiled.extend(value.map(|value| OutputDef { name: output.name.clone(), value }));
        }
        compiled
    }
}

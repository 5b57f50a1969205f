//! Templates: checked once each, and what a task makes of one.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value};

use super::{
    expressions::{Expressions, Site},
    names::member_problem,
    payloads::{self, Compiled, PayloadSource},
    problems::Problems,
    settings,
    size::too_deep,
    tasks::check_outputs,
};
use crate::{
    api::{Parameter, TaskTemplateSpec, TemplateRef},
    engine::payload::{
        Arguments, PayloadKind,
        places::{argument_spots, member},
        text::Part,
    },
};

/// `template "x" (TaskTemplate)`
pub fn title(reference: &TemplateRef) -> String {
    format!("template {:?} ({})", reference.name, reference.kind.name())
}

/// A template that was looked at.
#[derive(Clone, Debug)]
pub struct Template {
    pub spec: Arc<TaskTemplateSpec>,
    /// None where it was refused, and for a graph.
    pub payload: Option<Compiled>,
    /// What a child graph made from it is; None where it was refused, and for anything else.
    pub graph: Option<Child>,
}

/// A graph template, as a task runs it.
#[derive(Clone, Debug)]
pub struct Child {
    /// Hash of it and of all that it runs.
    pub content: u64,
    /// How deep child graphs nest from here: 1 if it runs none itself.
    pub depth: usize,
    /// Names of what it returns.
    pub outputs: Arc<[String]>,
}

/// Checks a template and compiles its payload; a graph is left to be checked. Problems are reported under its [`title`].
pub fn compile(
    reference: &TemplateRef,
    spec: &Arc<TaskTemplateSpec>,
    expressions: &mut Expressions<'_>,
    payloads: &mut Vec<PayloadSource>,
    problems: &mut Problems,
) -> Template {
    let path = format!("{}: spec", title(reference));
    check_parameters(&spec.parameters, &path, problems);
    settings::duration(spec.timeout.as_ref(), format_args!("{path}.timeout"), problems);
    settings::priority(spec.priority, format_args!("{path}.priority"), problems);
    settings::waits(spec.retry.as_ref(), format_args!("{path}.retry"), problems);
    if let Some(when) = spec.retry.as_ref().and_then(|retry| retry.when.as_deref()) {
        expressions.expression(when, Site::Retry, &format!("{path}.retry.when"), problems);
    }
    check_outputs(&spec.outputs, format_args!("{path}.outputs"), problems);

    let names: Vec<&str> = spec.parameters.iter().map(|parameter| parameter.name.as_str()).collect();
    let mut compiled = Vec::new();
    let given = [spec.container.is_some(), spec.job.is_some(), spec.graph.is_some()];
    if given.iter().filter(|given| **given).count() != 1 {
        problems.add(&path, "a template has exactly one of container, job, graph");
    }
    let forms = [
        (PayloadKind::Container, spec.container.as_ref(), "container"),
        (PayloadKind::PodTemplate, spec.job.as_ref().map(|job| &job.template), "job.template"),
    ];
    for (kind, source, field) in forms {
        let Some(source) = source else { continue };
        let path = format!("{path}.{field}");
        if too_deep(source) {
            problems.add(path, "nests too deep");
            continue;
        }
        let payload = payloads::compile(kind, source, &path, Site::Template(&names), expressions, problems);
        payloads.push(PayloadSource { path, kind, source: Arc::clone(&payload.source) });
        compiled.push(payload);
    }
    Template { spec: Arc::clone(spec), payload: compiled.pop().filter(|_| compiled.is_empty()), graph: None }
}

fn check_parameters(parameters: &[Parameter], path: &str, problems: &mut Problems) {
    const MAX: usize = 64;
    if parameters.len() > MAX {
        problems.add(format!("{path}.parameters"), format!("{} parameters; the limit is {MAX}", parameters.len()));
    }
    let mut seen = BTreeMap::new();
    for (index, parameter) in parameters.iter().enumerate() {
        let at = format!("{path}.parameters[{index}]");
        if let Some(problem) = member_problem(&parameter.name) {
            problems.add(format!("{at}.name"), problem);
        } else if let Some(first) = seen.insert(parameter.name.as_str(), index) {
            problems
                .add(format!("{at}.name"), format!("{:?} is the name of parameters[{first}] already", parameter.name));
        }
        let Some(default) = &parameter.default else { continue };
        if parameter.required {
            problems.add(format!("{at}.default"), "a required parameter has no default");
        }
        if let Some(type_) = parameter.type_.filter(|type_| !type_.accepts(default)) {
            problems.add(
                format!("{at}.default"),
                format!("{}: the type is {}", crate::engine::expr::describe(default), type_.name()),
            );
        }
        for (below, ..) in argument_spots(default) {
            problems
                .add(format!("{at}.default{below}"), "`${{ }}` may not stand in a default, which is taken as it is");
        }
    }
}

/// Where the arguments of a task stand.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    pub reference: &'a TemplateRef,
    pub arguments: Option<&'a Map<String, Value>>,
    /// Where their expressions stand.
    pub site: Site<'a>,
    /// Field path of the arguments.
    pub path: &'a str,
}

/// The arguments of a task over the defaults of its template.
pub fn merge(
    given: Given<'_>,
    template: &TaskTemplateSpec,
    expressions: &mut Expressions<'_>,
    problems: &mut Problems,
) -> Arguments {
    let none = Map::new();
    let arguments = given.arguments.unwrap_or(&none);
    let title = title(given.reference);
    for name in arguments.keys() {
        if !template.parameters.iter().any(|parameter| parameter.name == *name) {
            let hint = problems.hint(name, template.parameters.iter().map(|parameter| parameter.name.as_str()));
            let problem = format!("{title} has no parameter {name:?}{hint}");
            problems.add(format!("{}{}", given.path, member(name)), problem);
        }
    }
    let mut merged = Arguments::default();
    for parameter in &template.parameters {
        match arguments.get(&parameter.name) {
            Some(value) => take(parameter, value, given, &mut merged, expressions, problems),
            None if parameter.required => {
                problems.add(given.path, format!("{title} requires the argument {:?}", parameter.name));
            }
            None => {
                merged.values.insert(parameter.name.clone(), parameter.default.clone().unwrap_or_default());
            }
        }
    }
    merged
}

/// Checks the expressions in arguments for which there is no template.
pub fn check_expressions(
    arguments: &Map<String, Value>,
    path: &str,
    site: Site<'_>,
    expressions: &mut Expressions<'_>,
    problems: &mut Problems,
) {
    for (name, value) in arguments {
        for (below, _, text, is_name) in argument_spots(value) {
            if !is_name {
                expressions.text(text, site, &format!("{path}{}{below}", member(name)), problems);
            }
        }
    }
}

/// Takes one argument, its expressions compiled; checks its type as far as it is known.
fn take(
    parameter: &Parameter,
    value: &Value,
    given: Given<'_>,
    merged: &mut Arguments,
    expressions: &mut Expressions<'_>,
    problems: &mut Problems,
) {
    let path = format!("{}{}", given.path, member(&parameter.name));
    let mut open = false;
    for (below, pointer, text, is_name) in argument_spots(value) {
        let at = format!("{path}{below}");
        if is_name {
            problems.add(at, "`${{ }}` may not stand in the name of a field");
            continue;
        }
        let Some(text) = expressions.text(text, given.site, &at, problems) else {
            // reported; its type cannot be judged
            open = true;
            continue;
        };
        // alone in the argument, an expression keeps the type of its value, which is not known yet
        open |= pointer.is_empty() && matches!(text.0.as_slice(), [Part::Expression(_)]);
        let name = parameter.name.replace('~', "~0").replace('/', "~1");
        merged.slots.push((format!("/{name}{pointer}"), text));
    }
    match parameter.type_ {
        Some(type_) if open => merged.types.push((parameter.name.clone(), type_)),
        Some(type_) if !type_.accepts(value) => {
            let problem = format!(
                "{}: {} takes a value of type {}",
                crate::engine::expr::describe(value),
                title(given.reference),
                type_.name()
            );
            problems.add(path, problem);
        }
        _ => {}
    }
    merged.values.insert(parameter.name.clone(), value.clone());
}

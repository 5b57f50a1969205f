//! All checks of all objects: the form first, then what the operator checks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::de::DeserializeOwned;

use super::{
    objects::{self, Content, Kind, Object},
    report::{self, Report, Severity},
    schema::{Finding, MAX_PROBLEMS, Schema},
    source::Source,
    yaml,
};
use crate::{
    api::{TaskGraphSpec, TaskTemplateSpec, TemplateKind, TemplateRef, crd},
    cli::suggest,
    engine::{Problem, Refusal, Templates},
    validate,
};

/// Collects the objects of all files, then checks them together: graphs find their templates in any of the files.
pub struct Checker<'a> {
    namespace: Option<&'a str>,
    strict: bool,
    objects: Vec<Object>,
    report: Report,
}

/// A template that can be read, by what graphs call it.
type Known = BTreeMap<(TemplateKind, Option<String>, String), Arc<TaskTemplateSpec>>;

impl<'a> Checker<'a> {
    /// `namespace`: of objects that name none. `strict`: a template that is not among the files is a problem.
    pub fn new(namespace: Option<&'a str>, strict: bool) -> Self {
        Self { namespace, strict, objects: Vec::new(), report: Report::default() }
    }

    /// Takes the objects of a file.
    pub fn add(&mut self, source: &Source) {
        self.report.summary.files += 1;
        let file = &source.name;
        let text = match std::str::from_utf8(&source.bytes) {
            Ok(text) => text,
            Err(error) => {
                let lines_before = source.bytes.iter().take(error.valid_up_to()).filter(|byte| **byte == b'\n').count();
                return self.broken(
                    file,
                    Some(lines_before as u64 + 1),
                    None,
                    String::new(),
                    "is not UTF-8 text".to_owned(),
                );
            }
        };
        for document in yaml::documents(text) {
            match yaml::parse(document) {
                Ok(node) => {
                    for content in objects::contents(file, self.namespace, node) {
                        self.take(file, content);
                    }
                }
                Err(error) => self.broken(file, error.line, error.column, String::new(), error.message),
            }
        }
    }

    fn take(&mut self, file: &str, content: Content) {
        match content {
            Content::Ours(object) => {
                match object.kind {
                    Kind::Graph => self.report.summary.graphs += 1,
                    Kind::Template | Kind::ClusterTemplate => self.report.summary.templates += 1,
                }
                self.objects.push(object);
            }
            Content::Other => self.report.summary.ignored += 1,
            Content::Broken(line, path, message) => self.broken(file, (line > 0).then_some(line), None, path, message),
        }
    }

    fn broken(&mut self, file: &str, line: Option<u64>, column: Option<u64>, path: String, message: String) {
        let (file, severity) = (file.to_owned(), Severity::Error);
        self.report.add(report::Problem { file, line, column, object: None, path, message, severity });
    }

    /// Checks all objects.
    pub fn finish(mut self) -> Report {
        let schemas = schemas();
        let known = known_templates(&self.objects);
        let doubles = doubles(&self.objects);
        for (object, double) in self.objects.iter().zip(doubles) {
            let error = |problem: Problem| (Severity::Error, problem);
            let refusal = match object.kind {
                Kind::Graph => refuse_graph(object, &known),
                Kind::Template | Kind::ClusterTemplate => refuse_template(object, &known),
            };
            let refusal = refusal.unwrap_or_default();
            let said: BTreeSet<&str> = refusal.problems.iter().map(|problem| problem.path.as_str()).collect();
            let form = schemas.get(object.kind.name()).map(|schema| schema.check(&object.node)).unwrap_or_default();
            let mut found: Vec<(Severity, Problem)> = Vec::new();
            found.extend(double.map(|message| error(Problem { path: "metadata.name".to_owned(), message })));
            found.extend(object.check_metadata().into_iter().map(error));
            found.extend(
                form.into_iter().filter(|finding| !is_said(finding, &said)).map(|finding| error(finding.problem)),
            );
            found.extend(refusal.problems.into_iter().map(error));
            let severity = if self.strict { Severity::Error } else { Severity::Warning };
            found.extend(refusal.missing.into_iter().map(|(path, template)| {
                let message = missing(object, &template, &known);
                (severity, Problem { path, message })
            }));
            tell(&mut self.report, object, found);
        }
        self.report
    }
}

/// Whether the operator's own checks said the same, and better: of the same field, or, where a rule speaks of a
/// whole part, of something in it.
fn is_said(finding: &Finding, said: &BTreeSet<&str>) -> bool {
    let path = finding.problem.path.as_str();
    let inside = |other: &&str| other.strip_prefix(path).is_some_and(|rest| rest.starts_with(['.', '[']));
    said.contains(path) || finding.by_rule && said.iter().any(inside)
}

fn tell(report: &mut Report, object: &Object, mut found: Vec<(Severity, Problem)>) {
    let cut = found.len().saturating_sub(MAX_PROBLEMS);
    found.truncate(MAX_PROBLEMS);
    // as one reads the file; what stands on one line keeps its order
    found.sort_by_key(|(_, problem)| object.node.line_of(&problem.path));
    found.dedup();
    if cut > 0 {
        let message = format!("{cut} more problems are not shown");
        found.push((Severity::Error, Problem { path: String::new(), message }));
    }
    for (severity, Problem { path, message }) in found {
        let line = Some(object.node.line_of(&path)).filter(|line| *line > 0);
        let (file, title) = (object.file.clone(), Some(object.title()));
        report.add(report::Problem { file, line, column: None, object: title, path, message, severity });
    }
}

/// For each object, whether one before it has the same kind, namespace and name.
fn doubles(objects: &[Object]) -> Vec<Option<String>> {
    let mut seen = BTreeMap::new();
    objects
        .iter()
        .map(|object| {
            let name = object.name.as_deref()?;
            let first = seen.insert((object.kind, object.namespace.as_deref(), name), object)?;
            let place = format!("{}:{}", first.file, first.node.line);
            Some(format!("{} {} is there already: {place}", object.kind.name(), suggest::quoted(name)))
        })
        .collect()
}

fn known_templates(objects: &[Object]) -> Known {
    let mut known = Known::new();
    for object in objects {
        let kind = match object.kind {
            Kind::Graph => continue,
            Kind::Template => TemplateKind::TaskTemplate,
            Kind::ClusterTemplate => TemplateKind::ClusterTaskTemplate,
        };
        if let (Some(name), Some(spec)) = (&object.name, spec::<TaskTemplateSpec>(object)) {
            known.insert((kind, object.namespace.clone(), name.clone()), Arc::new(spec));
        }
    }
    known
}

/// The templates as a graph of `namespace` sees them.
fn templates_for(namespace: Option<&str>, known: &Known) -> Templates {
    known
        .iter()
        .filter(|((kind, of, _), _)| *kind == TemplateKind::ClusterTaskTemplate || of.as_deref() == namespace)
        .map(|((kind, _, name), spec)| (TemplateRef { name: name.clone(), kind: *kind }, Arc::clone(spec)))
        .collect()
}

/// The spec of an object, if its form is right.
fn spec<T: DeserializeOwned>(object: &Object) -> Option<T> {
    let spec = object.node.get("spec")?.to_json();
    serde_json::from_value(spec).ok()
}

/// What the operator says of a graph. What it says of templates is told of the templates themselves: all that
/// it was given are among the files.
fn refuse_graph(object: &Object, known: &Known) -> Option<Refusal> {
    let spec = spec::<TaskGraphSpec>(object)?;
    let templates = templates_for(object.namespace.as_deref(), known);
    let mut refusal = validate::check(object.name.as_deref(), &spec, &templates).err()?;
    refusal.problems.retain(|problem| !problem.path.starts_with("template "));
    Some(refusal)
}

/// What the operator would say of a template in a graph that uses it.
fn refuse_template(object: &Object, known: &Known) -> Option<Refusal> {
    let kind = match object.kind {
        Kind::ClusterTemplate => TemplateKind::ClusterTaskTemplate,
        Kind::Template | Kind::Graph => TemplateKind::TaskTemplate,
    };
    let reference = TemplateRef { name: object.name.clone().unwrap_or_else(|| "(no name)".to_owned()), kind };
    let templates = templates_for(object.namespace.as_deref(), known);
    let problems = validate::check_template(&reference, &spec::<TaskTemplateSpec>(object)?, &templates);
    Some(Refusal { problems, missing: Vec::new() })
}

fn missing(object: &Object, template: &TemplateRef, known: &Known) -> String {
    let kind = match template.kind {
        TemplateKind::TaskTemplate => "TaskTemplate",
        TemplateKind::ClusterTaskTemplate => "ClusterTaskTemplate",
    };
    let name = suggest::quoted(&template.name);
    let elsewhere = known.keys().find(|(kind, _, name)| *kind == template.kind && *name == template.name);
    let place = |namespace: Option<&str>| {
        namespace.map_or("no namespace of its own".to_owned(), |name| format!("namespace {name:?}"))
    };
    let hint = if let Some((_, namespace, _)) = elsewhere {
        let (there, here) = (place(namespace.as_deref()), place(object.namespace.as_deref()));
        format!(" (the one in the files has {there}, the graph {here}: -n gives one to objects without)")
    } else {
        let names = known.keys().filter(|(kind, ..)| *kind == template.kind).map(|(_, _, name)| name.as_str());
        suggest::did_you_mean(&template.name, names)
    };
    format!("{kind} {name} is not among the files, so the arguments were not checked{hint}")
}

/// The schemas of all kinds.
fn schemas() -> BTreeMap<&'static str, Schema> {
    let crds = crd::all();
    let of = |kind: Kind| Some((kind.name(), Schema::of(crds.iter().find(|crd| crd.spec.names.kind == kind.name())?)));
    Kind::ALL.into_iter().filter_map(of).collect()
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;

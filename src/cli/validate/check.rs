//! All checks of all objects: the form first, then what the operator checks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::de::DeserializeOwned;

use super::{
    objects::{self, Content, Kind, Object},
    report::{Problem, Report, Severity},
    schema::{Finding, MAX_PROBLEMS, Schema},
    source::Source,
    yaml,
};
use crate::{
    api::{ClusterTaskTemplate, TaskGraph, TaskGraphSpec, TaskTemplate, TaskTemplateSpec, TemplateKind, TemplateRef},
    cli::suggest,
    engine::{Plan, Refusal, Templates},
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
                let lines_before = source.bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
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
        self.report.add(Problem { file, line, column, object: None, path, message, severity });
    }

    /// Checks all objects; `check` is what the operator does with a graph.
    pub fn finish(
        mut self,
        check: impl Fn(Option<&str>, &TaskGraphSpec, &Templates) -> Result<Plan, Refusal>,
    ) -> Report {
        let schemas = Schemas::new();
        let known = known_templates(&self.objects);
        let doubles = doubles(&self.objects);
        for (object, double) in self.objects.iter().zip(doubles) {
            let mut found: Vec<(Severity, String, String)> = Vec::new();
            found.extend(double.map(|first| (Severity::Error, "metadata.name".to_owned(), first)));
            found.extend(object.check_metadata());
            let refusal =
                (object.kind == Kind::Graph).then(|| refusal(object, &known, &check)).flatten().unwrap_or_default();
            let form = schemas.check(object);
            let semantic: BTreeSet<&str> = refusal.problems.iter().map(|problem| problem.path.as_str()).collect();
            let form = form.into_iter().filter(|finding| !is_said_by(finding, &semantic));
            found.extend(form.map(|finding| (Severity::Error, finding.path, finding.message)));
            found.extend(refusal.problems.into_iter().map(|problem| (Severity::Error, problem.path, problem.message)));
            let severity = if self.strict { Severity::Error } else { Severity::Warning };
            found.extend(
                refusal
                    .missing
                    .into_iter()
                    .map(|(path, template)| (severity, path, missing(object, &template, &known))),
            );
            tell(&mut self.report, object, found);
        }
        self.report
    }
}

/// Whether the operator's own checks said the same, and better: of the same field, or, where a rule speaks of a
/// whole part, of something in it.
fn is_said_by(finding: &Finding, semantic: &BTreeSet<&str>) -> bool {
    let inside =
        |path: &&str| path.strip_prefix(finding.path.as_str()).is_some_and(|rest| rest.starts_with(['.', '[']));
    semantic.contains(finding.path.as_str()) || finding.by_rule && semantic.iter().any(inside)
}

fn tell(report: &mut Report, object: &Object, mut found: Vec<(Severity, String, String)>) {
    let cut = found.len().saturating_sub(MAX_PROBLEMS);
    found.truncate(MAX_PROBLEMS);
    let mut problems: Vec<Problem> = found
        .into_iter()
        .map(|(severity, path, message)| {
            let line = Some(object.node.line_of(&path)).filter(|line| *line > 0);
            let (file, object) = (object.file.clone(), Some(object.title()));
            Problem { file, line, column: None, object, path, message, severity }
        })
        .collect();
    // as one reads the file; what stands on one line keeps its order
    problems.sort_by_key(|problem| problem.line);
    problems.dedup();
    problems.into_iter().for_each(|problem| report.add(problem));
    if cut > 0 {
        let (file, title) = (object.file.clone(), Some(object.title()));
        let message = format!("{cut} more problems are not shown");
        report.add(Problem {
            file,
            line: None,
            column: None,
            object: title,
            path: String::new(),
            message,
            severity: Severity::Error,
        });
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

fn refusal(
    object: &Object,
    known: &Known,
    check: impl Fn(Option<&str>, &TaskGraphSpec, &Templates) -> Result<Plan, Refusal>,
) -> Option<Refusal> {
    let spec = spec::<TaskGraphSpec>(object)?;
    check(object.name.as_deref(), &spec, &templates_for(object.namespace.as_deref(), known)).err()
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
    let hint = match elsewhere {
        Some((_, namespace, _)) => {
            let (there, here) = (place(namespace.as_deref()), place(object.namespace.as_deref()));
            format!(" (the one in the files has {there}, the graph {here}: -n gives one to objects without)")
        }
        None => {
            let names = known.keys().filter(|(kind, ..)| *kind == template.kind).map(|(_, _, name)| name.as_str());
            suggest::did_you_mean(&template.name, names)
        }
    };
    format!("{kind} {name} is not among the files, so the arguments were not checked{hint}")
}

/// The schemas of all kinds.
struct Schemas {
    graph: Schema,
    template: Schema,
    cluster_template: Schema,
}

impl Schemas {
    fn new() -> Self {
        Self {
            graph: Schema::of::<TaskGraph>(),
            template: Schema::of::<TaskTemplate>(),
            cluster_template: Schema::of::<ClusterTaskTemplate>(),
        }
    }

    fn check(&self, object: &Object) -> Vec<Finding> {
        match object.kind {
            Kind::Graph => self.graph.check(&object.node),
            Kind::Template => self.template.check(&object.node),
            Kind::ClusterTemplate => self.cluster_template.check(&object.node),
        }
    }
}

//! The one entry for checking what users write: controller, command line and (later) admission call only this.

use crate::{
    api::TaskGraphSpec,
    engine::{self, Plan, Problem, Refusal, Templates},
    jobs,
};

/// Checks a graph: the rules of graphs and the types of Kubernetes together. `name` is the graph's, where it has one yet.
pub fn check(name: Option<&str>, spec: &TaskGraphSpec, templates: &Templates) -> Result<Plan, Refusal> {
    let report = engine::validate::check(spec, templates);
    let mut problems: Vec<_> = name
        .and_then(jobs::name::check)
        .map(|message| Problem { path: "metadata.name".into(), message })
        .into_iter()
        .collect();
    for payload in &report.payloads {
        problems.extend(jobs::check::check(payload.kind, &payload.source, &payload.path));
    }
    match report.outcome {
        Ok(plan) if problems.is_empty() => Ok(plan),
        Ok(_) => Err(Refusal { problems, missing: Vec::new() }),
        Err(mut refusal) => {
            refusal.problems.extend(problems);
            Err(refusal)
        }
    }
}

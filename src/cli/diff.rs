//! `kubectl taskgraph diff`: what an edit would do to the graph as it is now, found out by the operator's own code.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::{Api, ResourceExt};

use super::{
    tree::{ClusterArgs, client::Graphs},
    validate::graphs_of,
};
use crate::{
    api::{ClusterTaskTemplate, TaskGraph, TaskGraphSpec, TaskPhase, TaskTemplate, TemplateKind},
    controller::revision::Pinned,
    engine::{Edited, Identity, Refusal, Run, Templates, compile},
    validate,
};

/// Arguments of `diff`.
#[derive(Args, Clone, Debug)]
pub struct DiffArgs {
    /// A file with the edited graph (or several), or - for the standard input.
    #[arg(short, long = "filename", value_name = "FILE|-", required = true)]
    filename: PathBuf,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Runs the verb. Exit code: 0 nothing would happen, 1 something would; everything that goes wrong is an error.
pub fn run(args: &DiffArgs) -> Result<ExitCode> {
    let edited = graphs_of(&args.filename).map_err(|message| anyhow!(message))?;
    if edited.is_empty() {
        bail!("there is no TaskGraph in {}", args.filename.display());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let graphs = Graphs::connect(&args.cluster).await?;
        let (mut text, mut effect) = (String::new(), false);
        for (name, spec) in edited {
            let lines = look(&graphs, &name, &spec).await.with_context(|| format!("TaskGraph {name:?}"))?;
            effect |= !lines.is_empty();
            let _ = writeln!(text, "{name}: {}", if lines.is_empty() { "nothing would happen" } else { "" }.trim_end());
            for line in &lines {
                let _ = writeln!(text, "  {line}");
            }
        }
        // a reader that has gone away (`| head`) is no problem of ours
        let _ = io::stdout().lock().write_all(text.as_bytes());
        Ok(if effect { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    })
}

/// What would happen to one graph, a line each.
async fn look(graphs: &Graphs, name: &str, spec: &TaskGraphSpec) -> Result<Vec<String>> {
    let live = graphs.get(name).await?;
    let pinned = pinned(graphs, &live).await?;
    let known = pinned.as_ref().map(Pinned::templates).unwrap_or_default();
    let templates = templates(graphs, spec, &known).await?;
    let plan = match validate::check(Some(name), spec, &templates) {
        Ok(plan) => plan,
        Err(refusal) => return Ok(refused(&refusal)),
    };
    let before = pinned.map_or_else(|| live.spec.clone(), |pinned| pinned.spec);
    let Ok(now) = compile(&before, &known) else {
        bail!("the graph was accepted by an operator with other rules: this version cannot tell what would happen");
    };
    let identity = Identity {
        name: live.name_any(),
        namespace: live.namespace().unwrap_or_default(),
        uid: live.uid().unwrap_or_default(),
    };
    let Some(status) = live.status.as_ref().filter(|status| status.revision.is_some()) else {
        return Ok(vec!["the graph was not accepted yet: it would begin with this".to_owned()]);
    };
    let mut run = Run::restore(now.graph, now.settings, identity, status);
    let mut problems = run.edit_problems(&plan.graph);
    problems.extend(run.edit_waits(&plan.graph));
    if !problems.is_empty() {
        return Ok(problems.iter().map(|problem| format!("refused: {problem}")).collect());
    }
    let finished = run.is_finished();
    let edited = run.edit(Arc::clone(&plan.graph), plan.settings, Timestamp::now());
    let mut lines = told(&edited);
    let step = run.step([], Timestamp::now());
    let starts = |id| run.graph().task(id).name.to_string();
    let ready = step.transitions.iter().filter(|one| one.to == TaskPhase::Running).map(|one| starts(one.task));
    lines.extend(list("would start at once", &ready.collect::<Vec<_>>()));
    if finished && !run.is_finished() {
        lines.push("the graph had finished, and would be reopened".to_owned());
    }
    Ok(lines)
}

fn refused(refusal: &Refusal) -> Vec<String> {
    let missing = refusal.missing.iter().map(|(path, template)| {
        format!("would wait: {path}: there is no {:?} named {:?}", template.kind, template.name)
    });
    refusal.problems.iter().map(|problem| format!("refused: {problem}")).chain(missing).collect()
}

/// What an edit does, a line for each kind of effect.
fn told(edited: &Edited) -> Vec<String> {
    let vanish: Vec<String> = edited.removed.iter().filter(|name| !edited.stopped.contains(name)).cloned().collect();
    let take: Vec<String> = edited.changed.iter().filter(|name| !edited.stale.contains(name)).cloned().collect();
    [
        ("added", &edited.added),
        ("removed", &vanish),
        ("removed, and stopped", &edited.stopped),
        ("changed", &take),
        ("changed, but would keep what they ran (stale)", &edited.stale),
        ("decided again", &edited.again),
    ]
    .into_iter()
    .filter_map(|(word, names)| list(word, names))
    .collect()
}

fn list(word: &str, names: &[String]) -> Option<String> {
    (!names.is_empty()).then(|| format!("{word}: {}", names.join(", ")))
}

/// What the graph began with or was edited to last.
async fn pinned(graphs: &Graphs, live: &TaskGraph) -> Result<Option<Pinned>> {
    let Some(name) = live.status.as_ref().and_then(|status| status.revision.as_deref()) else { return Ok(None) };
    let api: Api<ControllerRevision> = Api::namespaced(graphs.client.clone(), &graphs.namespace);
    let object = api.get_opt(name).await.context("cannot read the graph's ControllerRevision")?;
    Ok(object.and_then(|object| Pinned::of(&object, live.uid().as_deref().unwrap_or_default())))
}

/// The templates that a spec uses, as the operator would take them: those that the graph used before are pinned.
async fn templates(graphs: &Graphs, spec: &TaskGraphSpec, known: &Templates) -> Result<Templates> {
    let own: Api<TaskTemplate> = Api::namespaced(graphs.client.clone(), &graphs.namespace);
    let of_cluster: Api<ClusterTaskTemplate> = Api::all(graphs.client.clone());
    let mut found = BTreeMap::new();
    for reference in spec.tasks.iter().chain(&spec.finally).filter_map(|task| task.template_ref.as_ref()) {
        if found.contains_key(reference) {
            continue;
        }
        let template = match (known.get(reference), reference.kind) {
            (Some(template), _) => Some(Arc::clone(template)),
            (None, TemplateKind::TaskTemplate) => {
                own.get_opt(&reference.name).await?.map(|template| Arc::new(template.spec))
            }
            (None, TemplateKind::ClusterTaskTemplate) => {
                of_cluster.get_opt(&reference.name).await?.map(|template| Arc::new(template.spec.0))
            }
        };
        if let Some(template) = template {
            found.insert(reference.clone(), template);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_are_told_a_line_each() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let edited = Edited {
            added: names(&["new"]),
            removed: names(&["idle", "busy"]),
            stopped: names(&["busy"]),
            changed: names(&["next", "done"]),
            stale: names(&["done"]),
            again: names(&["skipped"]),
            judged_anew: false,
        };
        let expected = [
            "added: new",
            "removed: idle",
            "removed, and stopped: busy",
            "changed: next",
            "changed, but would keep what they ran (stale): done",
            "decided again: skipped",
        ];
        assert_eq!(told(&edited), expected);
        assert!(told(&Edited::default()).is_empty());
    }
}

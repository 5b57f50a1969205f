//! `kubectl taskgraph diff`: what the graphs of files would do to those on the cluster, if they were applied.

mod effect;
mod files;

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, Result};
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::{Api, ResourceExt};

use self::{
    effect::{Accepted, Lines, applied, begins, refused},
    files::{Files, Wanted},
};
use super::tree::{ClusterArgs, client::Graphs};
use crate::{
    api::{ClusterTaskTemplate, TaskGraph, TaskGraphSpec, TaskTemplate, TaskTemplateSpec, TemplateKind, TemplateRef},
    controller::{accept::read_spec, revision::Pinned, templates::Found},
};

/// Arguments of `diff`.
#[derive(Args, Clone, Debug)]
pub struct DiffArgs {
    /// A file with edited graphs, a directory, or - for the standard input; may be given several times.
    #[arg(short, long = "filename", value_name = "FILE|DIR|-", required = true)]
    filename: Vec<PathBuf>,
    /// Look into the directories below, too.
    #[arg(short = 'R', long)]
    recursive: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Runs the verb. Exit code: 0 nothing would happen, 1 something would; everything that goes wrong is an error.
pub fn run(args: &DiffArgs) -> Result<ExitCode> {
    let files = Files::read(&args.filename, args.recursive, args.cluster.namespace())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let graphs = Graphs::connect(&args.cluster).await?;
        let (mut text, mut effect) = (String::new(), false);
        for wanted in &files.graphs {
            let namespace = wanted.namespace.as_deref().unwrap_or(&graphs.namespace);
            let title = format!("{namespace}/{}", wanted.name);
            let lines = look(&graphs.within(namespace), &files, wanted).await.with_context(|| title.clone())?;
            effect |= !lines.is_empty();
            let _ = writeln!(text, "{title}:{}", if lines.is_empty() { " nothing would happen" } else { "" });
            for line in &lines {
                let _ = writeln!(text, "  {line}");
            }
        }
        // a reader that has gone away (`| head`) is no problem of ours
        let _ = io::stdout().lock().write_all(text.as_bytes());
        Ok(if effect { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    })
}

/// What would happen to one graph.
async fn look(graphs: &Graphs, files: &Files, wanted: &Wanted) -> Result<Lines> {
    let live = graphs.find(&wanted.name).await?;
    let stands = live.as_ref().map(|live| serde_json::to_value(&live.spec)).transpose()?;
    let spec = match read_spec(&applied(wanted.spec.clone(), stands.as_ref())) {
        Ok(spec) => spec,
        Err(verdict) => return Ok(refused(&verdict)),
    };
    let pinned = match &live {
        Some(live) => pinned(graphs, live).await?,
        None => None,
    };
    let known = pinned.as_ref().map(Pinned::found).unwrap_or_default();
    let templates = templates(graphs, files, &spec, &known).await?;
    let now = Timestamp::now();
    let accepted = live.as_ref().and_then(|live| Some((live, live.status.as_ref()?)));
    match accepted.filter(|(_, status)| status.revision.is_some()) {
        Some((live, status)) => {
            // it is gone: the operator pins the spec as it is
            let pinned = pinned.unwrap_or_else(|| Pinned::new(live.spec.clone(), &templates));
            Accepted { live, status, pinned }.edited(&spec, &templates, now)
        }
        None => Ok(begins(&wanted.name, &spec, &templates, now)),
    }
}

/// What the graph began with or was edited to last.
async fn pinned(graphs: &Graphs, live: &TaskGraph) -> Result<Option<Pinned>> {
    let Some(name) = live.status.as_ref().and_then(|status| status.revision.as_deref()) else { return Ok(None) };
    let api: Api<ControllerRevision> = Api::namespaced(graphs.client.clone(), &graphs.namespace);
    let object = api.get_opt(name).await.context("cannot read the graph's ControllerRevision")?;
    Ok(object.and_then(|object| Pinned::of(&object, live.uid().as_deref().unwrap_or_default())))
}

/// The templates that a spec uses, and those that these use, as the operator would take them: of the graph those that it
/// used before, else as the files have them, else as they are on the cluster.
async fn templates(graphs: &Graphs, files: &Files, spec: &TaskGraphSpec, known: &Found) -> Result<Found> {
    let (mut others, mut asked) = (Found::default(), BTreeSet::new());
    loop {
        let found = known.or(&others, spec);
        let open: Vec<TemplateRef> =
            found.lacks(spec).into_iter().filter(|reference| asked.insert(reference.clone())).collect();
        if open.is_empty() {
            return Ok(found);
        }
        for reference in open {
            if let Some(template) = template(graphs, files, &reference).await? {
                others.specs.insert(reference, template);
            }
        }
    }
}

async fn template(graphs: &Graphs, files: &Files, reference: &TemplateRef) -> Result<Option<Arc<TaskTemplateSpec>>> {
    let failed = || format!("cannot read the template {:?}", reference.name);
    let (kind, name) = (reference.kind, &reference.name);
    let in_files = |namespace: Option<&str>| files.templates.get(&(kind, namespace.map(str::to_owned), name.clone()));
    let own = (kind == TemplateKind::TaskTemplate).then_some(graphs.namespace.as_str());
    // one whose file names no namespace goes where the command line says
    let unnamed = own.filter(|namespace| *namespace == graphs.default_namespace).and_then(|_| in_files(None));
    if let Some(template) = in_files(own).or(unnamed) {
        return Ok(Some(Arc::clone(template)));
    }
    let client = graphs.client.clone();
    Ok(match kind {
        TemplateKind::TaskTemplate => {
            let api: Api<TaskTemplate> = Api::namespaced(client, &graphs.namespace);
            api.get_opt(name).await.with_context(failed)?.map(|template| Arc::new(template.spec))
        }
        TemplateKind::ClusterTaskTemplate => {
            let api: Api<ClusterTaskTemplate> = Api::all(client);
            api.get_opt(name).await.with_context(failed)?.map(|template| Arc::new(template.spec.0))
        }
    })
}

//! The operator against the floor on the machines of kwok, in alternating pairs; and how long it takes from a pod's
//! end to the next Job.
//!
//! `cargo bench --bench cluster -- --help`. Needs a cluster with kwok (`hack/cluster/cluster up`) and a machine that
//! does nothing else: only ratios within one run say anything.
#![allow(missing_docs)]

#[path = "../../tests/support/mod.rs"]
mod support;

mod floor;
mod operated;
mod report;
mod scale;
mod shape;

use std::{fs, path::Path};

use anyhow::{Context, Result};
use clap::Parser;
use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{Node, Pod, ServiceAccount},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams},
};

use report::{HandOff, Pairs, Report};
use shape::Shape;
use support::{Namespace, Operator, crds, embedded, operator::Settings};

/// Machines of kwok that the pods share.
const MACHINES: usize = 4;

/// Measures the operator against the floor.
#[derive(Debug, Parser)]
struct Arguments {
    /// Pairs of runs for each shape.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Runs of the chain for the hand-off; 0: leave it out.
    #[arg(long, default_value_t = 10)]
    hand_off_runs: usize,
    /// Only shapes whose name begins so; with `--scale`, wholes whose name has this in it.
    #[arg(long, default_value = "")]
    shape: String,
    /// Instead: large graphs, many items and many child graphs beside small graphs, and 5,000 waiting tasks. Takes
    /// about half an hour.
    #[arg(long)]
    scale: bool,
    /// Only the floor.
    #[arg(long)]
    floor_only: bool,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let kubeconfig = embedded::kubeconfig()?;
    let client = embedded::client(&kubeconfig).await?;
    ensure_machines(&client).await?;
    crds::install(&client).await?;
    let namespace = Namespace::new(&client, "bench").await?;
    // the API server refuses pods before it is there
    namespace.until_all::<ServiceAccount>("default", |accounts| !accounts.is_empty()).await;
    let (operator, place) = operator(&arguments, &client, &kubeconfig, &namespace).await?;
    let result = if arguments.scale {
        measure_scale(&namespace, &arguments.shape, operator.as_ref(), place).await
    } else {
        measure(&arguments, &namespace, place).await
    };
    drop(operator);
    Api::<k8s_openapi::api::core::v1::Namespace>::all(client)
        .delete(&namespace.name, &DeleteParams::background())
        .await?;
    let report = result?;
    print!("{report}");
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    fs::create_dir_all(&dir)?;
    let file = if arguments.scale { "scale.json" } else { "cluster.json" };
    fs::write(dir.join(file), serde_json::to_string_pretty(&report)?)?;
    Ok(())
}

async fn measure(arguments: &Arguments, namespace: &Namespace, operator: String) -> Result<Report> {
    let chain = Shape::chain(30);
    let shapes = [chain.clone(), Shape::fan(300), Shape::layers(500, 50)];
    let mut report = Report { operator, ..Report::default() };
    for shape in shapes.iter().filter(|shape| shape.name.starts_with(&arguments.shape)) {
        let (mut by_floor, mut by_operator) = (Vec::new(), Vec::new());
        for pair in 0..arguments.pairs {
            by_floor.push(floor::run(namespace, shape).await?);
            clean(namespace).await?;
            if !arguments.floor_only {
                by_operator.push(operated::run(namespace, shape).await?);
                clean(namespace).await?;
            }
            eprintln!(
                "{} {}/{}: floor {:?} operator {:?}",
                shape.name,
                pair + 1,
                arguments.pairs,
                by_floor.last(),
                by_operator.last()
            );
        }
        report.pairs.push(Pairs::new(shape.name.clone(), shape.size(), by_floor, by_operator));
    }
    if !arguments.floor_only && arguments.hand_off_runs > 0 {
        let mut links = Vec::new();
        for _ in 0..arguments.hand_off_runs {
            links.extend(operated::hand_offs(namespace, &chain).await?);
            clean(namespace).await?;
        }
        report.hand_off = Some(HandOff::new(chain.name, arguments.hand_off_runs, &links));
    }
    Ok(report)
}

async fn measure_scale(
    namespace: &Namespace,
    part: &str,
    operator: Option<&Operator>,
    place: String,
) -> Result<Report> {
    // before the rest: memory that was given back is not all given back
    let waiting = match operator {
        Some(operator) => Some(scale::wait(namespace, operator).await?),
        None => None,
    };
    eprintln!("{waiting:?}");
    Ok(Report { operator: place, waiting, scale: scale::measure(namespace, part).await?, ..Report::default() })
}

/// The operator: the one that is installed, or else a process with its default options.
async fn operator(
    arguments: &Arguments,
    client: &Client,
    kubeconfig: &Path,
    namespace: &Namespace,
) -> Result<(Option<Operator>, String)> {
    if arguments.floor_only {
        return Ok((None, "none".into()));
    }
    let labelled = ListParams::default().labels("app.kubernetes.io/name=taskgraph");
    let installed = Api::<Deployment>::all(client.clone()).list(&labelled).await?.items;
    let wanted = |deployment: &Deployment| deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1) > 0;
    if installed.iter().any(wanted) {
        return Ok((None, "installed in the cluster".into()));
    }
    let dir = tempfile::tempdir()?.keep();
    let settings =
        Settings { namespace: None, log: dir.join("operator.log"), ..Settings::new(kubeconfig, &namespace.name) };
    let place = format!("process {}, log {}", settings.program.display(), settings.log.display());
    Ok((Some(Operator::start(settings)?), place))
}

async fn ensure_machines(client: &Client) -> Result<()> {
    let machines = Api::<Node>::all(client.clone()).list(&ListParams::default().labels("type=kwok")).await?.items.len();
    if machines < MACHINES {
        embedded::script("kwok", &[&MACHINES.to_string()]).context("machines of kwok")?;
    }
    Ok(())
}

/// Deletes what a run left, and waits until it is gone: the next run finds the cluster as this one did.
async fn clean(namespace: &Namespace) -> Result<()> {
    let graphs = namespace.graphs();
    graphs.delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
    namespace.jobs().delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
    namespace.until_all::<taskgraph::api::TaskGraph>("gone", <[_]>::is_empty).await;
    namespace.until_all::<Job>("gone", <[_]>::is_empty).await;
    namespace.until_all::<Pod>("gone", <[_]>::is_empty).await;
    Ok(())
}

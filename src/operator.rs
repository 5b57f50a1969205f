//! The operator program: puts the parts together, and takes them apart again in order.

use std::net::SocketAddr;

use anyhow::Context as _;
use futures::FutureExt as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    controller::{self, Options, templates::Caches},
    runtime::{
        args::Args,
        client,
        health::{self, Health},
        lease,
        metrics::Metrics,
        parts,
        settings::{Follower, Settings},
        shutdown,
        sink::Outlet,
        telemetry,
        traces::{Collector, Exporter, Tracer},
    },
    webhook,
};

/// Runs the operator until it is told to stop.
///
/// Errors are those that no waiting mends: bad arguments, no cluster configured, a port that is taken.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let (said, unread) = match args.settings.as_deref().map(Settings::read) {
        Some(Ok(settings)) => (settings, None),
        Some(Err(error)) => (Settings::default(), Some(error)),
        None => (Settings::default(), None),
    };
    let levels = telemetry::init(args.log_format, &args.log_level)?;
    if let Some(level) = &said.log_level
        && let Err(error) = levels.set(level)
    {
        warn!("logLevel in --settings: {error}; --log-level counts");
    }
    if let Some(error) = unread {
        warn!("{error}; the arguments count");
    }
    let stop = shutdown::on_signals().context("failed to listen for signals")?;
    let (metrics, registry) = Metrics::new();
    let health = Health::default();
    health.show_in(&metrics);
    let client = client::connect(&metrics, &health).await?;
    let outlet = Outlet::open(&args.sink).await.context("failed to set up the sink of CloudEvents")?;
    // what is taken is told before a Lease is held that nobody would give back
    let listener = bind(args.listen, "--listen").await?;
    let webhook_listener = match args.webhook_listen {
        Some(address) => Some(bind(address, "--webhook-listen").await?),
        None => None,
    };
    let identity = args.identity();
    info!(version = env!("CARGO_PKG_VERSION"), %identity, listen = %listener.local_addr()?, namespace = args.namespace, "starting");

    // health is told and the Lease kept until the controller has ended
    let ended = CancellationToken::new();
    let served = tokio::spawn(health::serve(listener, health.clone(), registry, ended.clone()));
    let (tracer, exporter) = tracer(&args, said.trace_ratio, &metrics, &health)?;
    let beside = |part, work| tokio::spawn(parts::run(health.clone(), part, work));
    let sent = exporter.map(|exporter| beside("sending traces", exporter.run(ended.clone()).boxed()));
    if let Some(path) = args.settings.clone() {
        let arguments = Settings { log_level: Some(args.log_level.clone()), trace_ratio: Some(args.trace_ratio) };
        let follower = Follower { path, levels, tracer: tracer.clone(), arguments, last: said };
        beside("following the settings", follower.run(ended.clone()).boxed());
    }
    beside(
        "asking for the cluster's version",
        health.kubernetes().clone().watch(client.clone(), ended.clone()).boxed(),
    );
    let (leadership, mut elector) =
        lease::elect(client.clone(), lease_config(&args, &client, identity), metrics.leader.clone());
    elector.shown = health.lease().clone();
    let elected = beside("keeping the Lease", elector.run(ended.clone()).boxed());

    let templates = Caches::default();
    let admission = webhook_listener.map(|listener| {
        let options = webhook::Options {
            source: webhook::source(&args, &own_namespace(&args, &client)),
            templates: templates.reader(),
            access: args.webhook_access,
            metrics: metrics.clone(),
            health: health.clone(),
        };
        let served = webhook::run(listener, client.clone(), options, stop.clone());
        let told = served.map(|result| {
            if let Err(error) = result {
                warn!(%error, "serving admission ended badly");
            }
        });
        beside("serving admission", told.boxed())
    });
    let options = Options { namespace: args.namespace, concurrency: args.concurrency, templates, tracer, outlet };
    controller::run(client, options, leadership, metrics, health, stop).await;

    ended.cancel();
    if let Err(error) = elected.await {
        warn!(%error, "the Lease was not given back");
    }
    if let Some(sent) = sent {
        // it gives up by itself
        let _ = sent.await;
    }
    if let Ok(Err(error)) = served.await {
        warn!(%error, "serving health and metrics ended badly");
    }
    if let Some(admission) = admission {
        let _ = admission.await;
    }
    info!("stopped");
    Ok(())
}

/// What traces graphs, if an endpoint is given; `ratio`: what counts more than the argument.
fn tracer(
    args: &Args,
    ratio: Option<f64>,
    metrics: &Metrics,
    health: &Health,
) -> anyhow::Result<(Tracer, Option<Exporter>)> {
    let Some(endpoint) = args.otlp_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty()) else {
        return Ok((Tracer::off(), None));
    };
    let collector = Collector::new(endpoint, &args.otlp_headers, args.otlp_certificate.as_deref())?;
    let (tracer, exporter) = Tracer::new(collector, ratio.unwrap_or(args.trace_ratio), metrics.clone(), health.clone());
    Ok((tracer, Some(exporter)))
}

async fn bind(address: SocketAddr, argument: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("failed to listen on {address}: choose another address with {argument}"))
}

fn lease_config(args: &Args, client: &kube::Client, identity: String) -> lease::Config {
    lease::Config { namespace: own_namespace(args, client), shard: 0, identity, duration: args.lease_duration }
}

/// Where the Lease lies, and what else is the operator's own.
fn own_namespace(args: &Args, client: &kube::Client) -> String {
    args.lease_namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned())
}

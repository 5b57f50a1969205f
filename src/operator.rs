//! The operator program: puts the parts together, and takes them apart again in order.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    controller::{self, Options, templates::Caches},
    runtime::{args::Args, client, health, health::Health, lease, metrics::Metrics, shutdown, telemetry},
    webhook,
};

/// Runs the operator until it is told to stop.
///
/// Errors are those that no waiting mends: bad arguments, no cluster configured, a port that is taken.
pub async fn run(args: Args) -> anyhow::Result<()> {
    telemetry::init(args.log_format, &args.log_level)?;
    let stop = shutdown::on_signals().context("failed to listen for signals")?;
    let (metrics, registry) = Metrics::new();
    let health = Health::default();
    let client = client::connect(&metrics, &health).await?;
    let listener = bind(args.listen, "--listen").await?;
    let identity = args.identity();
    info!(version = env!("CARGO_PKG_VERSION"), %identity, listen = %listener.local_addr()?, namespace = args.namespace, "starting");

    // health is told and the Lease kept until the controller has ended
    let ended = CancellationToken::new();
    let served = tokio::spawn(health::serve(listener, health.clone(), registry, ended.clone()));
    let (leadership, elector) =
        lease::elect(client.clone(), lease_config(&args, &client, identity), metrics.leader.clone());
    let elected = tokio::spawn(elector.run(ended.clone()));

    let templates = Caches::default();
    let admission = match args.webhook_listen {
        Some(address) => {
            let listener = bind(address, "--webhook-listen").await?;
            let source = webhook::source(&args, &own_namespace(&args, &client));
            let (reader, stop) = (templates.reader(), stop.clone());
            Some(tokio::spawn(webhook::run(
                listener,
                source,
                client.clone(),
                reader,
                args.webhook_access,
                health.clone(),
                stop,
            )))
        }
        None => None,
    };
    let options = Options { namespace: args.namespace, concurrency: args.concurrency, templates };
    controller::run(client, options, leadership, metrics, health, stop).await;

    ended.cancel();
    if let Err(error) = elected.await {
        warn!(%error, "the Lease was not given back");
    }
    if let Ok(Err(error)) = served.await {
        warn!(%error, "serving health and metrics ended badly");
    }
    if let Some(admission) = admission
        && let Ok(Err(error)) = admission.await
    {
        warn!(%error, "serving admission ended badly");
    }
    info!("stopped");
    Ok(())
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

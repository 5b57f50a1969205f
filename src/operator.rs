//! The operator program: puts the parts together, and takes them apart again in order.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    controller::{self, Options},
    runtime::{args::Args, client, health, health::Health, lease, metrics::Metrics, shutdown, sink::Outlet, telemetry},
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
    let outlet = Outlet::open(&args.sink).await.context("failed to set up the sink of CloudEvents")?;
    let listener = bind(args.listen).await?;
    let identity = args.identity();
    info!(version = env!("CARGO_PKG_VERSION"), %identity, listen = %listener.local_addr()?, namespace = args.namespace, "starting");

    // health is told and the Lease kept until the controller has ended
    let ended = CancellationToken::new();
    let served = tokio::spawn(health::serve(listener, health.clone(), registry, ended.clone()));
    let (leadership, elector) =
        lease::elect(client.clone(), lease_config(&args, &client, identity), metrics.leader.clone());
    let elected = tokio::spawn(elector.run(ended.clone()));

    let options = Options { namespace: args.namespace, concurrency: args.concurrency, outlet };
    controller::run(client, options, leadership, metrics, health, stop).await;

    ended.cancel();
    if let Err(error) = elected.await {
        warn!(%error, "the Lease was not given back");
    }
    if let Ok(Err(error)) = served.await {
        warn!(%error, "serving health and metrics ended badly");
    }
    info!("stopped");
    Ok(())
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("failed to listen on {address}: choose another address with --listen"))
}

fn lease_config(args: &Args, client: &kube::Client, identity: String) -> lease::Config {
    let namespace = args.lease_namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    lease::Config { namespace, shard: 0, identity, duration: args.lease_duration }
}

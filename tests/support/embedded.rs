//! The embedded cluster, or any other that the user names.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use taskgraph::runtime::connections::stack;

/// The kubeconfig of the cluster to work on: `TASKGRAPH_E2E_KUBECONFIG`, or the embedded cluster's.
pub fn kubeconfig() -> Result<PathBuf> {
    if let Some(path) = env::var_os("TASKGRAPH_E2E_KUBECONFIG") {
        return Ok(path.into());
    }
    let path = PathBuf::from(script("kubeconfig", &[])?);
    ensure!(path.exists(), "no cluster: run hack/cluster/cluster up, or set TASKGRAPH_E2E_KUBECONFIG");
    Ok(path)
}

/// A client for it.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let config =
        Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig)?, &KubeConfigOptions::default()).await?;
    Ok(stack(&config)?.build())
}

/// Runs a verb of `hack/cluster/cluster`; what it prints.
pub fn script(verb: &str, args: &[&str]) -> Result<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/cluster/cluster");
    let output =
        Command::new(&script).arg(verb).args(args).output().with_context(|| format!("{} {verb}", script.display()))?;
    ensure!(output.status.success(), "{} {verb}: {}", script.display(), String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

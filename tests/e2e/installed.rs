//! What who runs the cluster does: helm, and a look at the operator's pods and their Lease.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{
    Client, ResourceExt,
    api::{DeleteParams, ListParams},
};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    support::{Namespace, control_plane, embedded},
    world::output,
};

/// Where the operator of the whole cluster is installed, and the name of both its release and its pods' label.
pub const SYSTEM: &str = "taskgraph-system";
/// The charts of this checkout.
pub const CHARTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts");

/// helm on the cluster, to be run.
pub fn program(args: &[&str]) -> Result<Command> {
    let mut command = Command::new(control_plane::bin_dir()?.join("helm"));
    command.args(args).env("KUBECONFIG", embedded::kubeconfig()?);
    Ok(command)
}

/// Runs helm on the cluster; what it prints.
pub async fn helm(args: &[&str]) -> Result<String> {
    output(program(args)?, String::new()).await
}

/// Installs the charts in a folder for the whole cluster, or upgrades what is installed; returns when the new pods are
/// ready. `options`: those of `hack/install`.
pub async fn install(charts: &Path, options: &[&str]) -> Result<()> {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/hack/install"));
    command.args(options).env("CHARTS", charts).env("KUBECONFIG", embedded::kubeconfig()?);
    output(command, String::new()).await.map(|_| ())
}

/// An operator on the cluster, one or more replicas.
pub struct Installed {
    /// Where it is.
    namespace: Namespace,
}

impl Installed {
    /// That of the whole cluster.
    pub fn for_all(client: &Client) -> Self {
        Self { namespace: Namespace { name: SYSTEM.into(), client: client.clone() } }
    }

    /// Its pods of one image, those that are about to end left out.
    pub async fn pods_of(&self, image: &str) -> Result<Vec<Pod>> {
        let labelled = ListParams::default().labels("app.kubernetes.io/name=taskgraph");
        let mut pods = self.namespace.pods().list(&labelled).await?.items;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none() && runs(pod, image));
        Ok(pods)
    }

    /// Waits until no pod of another image is left.
    pub async fn until_all_of(&self, image: &str) {
        let is_ours = |pod: &&Pod| pod.labels().get("app.kubernetes.io/name").is_some_and(|name| name == "taskgraph");
        let alone = |pods: &[Pod]| pods.iter().filter(is_ours).all(|pod| runs(pod, image));
        self.namespace.until_all::<Pod>(&format!("all of {image}"), alone).await;
    }

    /// Waits until a replica of an image leads; its pod.
    pub async fn leader_of(&self, image: &str) -> Result<Pod> {
        let pods = self.pods_of(image).await?;
        ensure!(!pods.is_empty(), "no pod runs {image}");
        let holder = self.leader("one of the new replicas", |name| pods.iter().any(|pod| pod.name_any() == name)).await;
        pods.into_iter().find(|pod| pod.name_any() == holder).context("its pod")
    }

    /// Waits until the Lease is held by somebody `wanted`; by whom.
    pub async fn leader(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let held = |lease: Option<&Lease>| {
            let holder = lease?.spec.as_ref()?.holder_identity.clone()?;
            wanted(&holder).then_some(holder)
        };
        self.namespace.until_object(self.namespace.api(), "taskgraph-shard-0", &format!("held by {what}"), held).await
    }

    /// Kills the program in a pod, as the kernel does when memory is short; returns when it runs again in that pod.
    pub async fn kill_program(&self, pod: &Pod) -> Result<()> {
        let restarts = restarts(pod);
        kill(pod)?;
        let again = |now: Option<&Pod>| {
            let now = now?;
            (restarts_and_ready(now) == (restarts + 1, true)).then_some(())
        };
        self.namespace.until_object(self.namespace.pods(), &pod.name_any(), "running again", again).await;
        Ok(())
    }

    /// Kills a pod as the loss of its machine does: the program cannot give back the Lease, and never runs again there.
    /// How long it then took until somebody else led.
    pub async fn kill_pod(&self, pod: &Pod) -> Result<Duration> {
        let name = pod.name_any();
        let begin = Instant::now();
        kill(pod)?;
        // before the kubelet starts it again
        self.namespace.pods().delete(&name, &DeleteParams::default().grace_period(0)).await?;
        self.leader("another", |holder| !holder.is_empty() && holder != name).await;
        Ok(begin.elapsed())
    }
}

fn runs(pod: &Pod, image: &str) -> bool {
    pod.spec.iter().flat_map(|spec| &spec.containers).any(|container| container.image.as_deref() == Some(image))
}

fn restarts(pod: &Pod) -> i32 {
    restarts_and_ready(pod).0
}

fn restarts_and_ready(pod: &Pod) -> (i32, bool) {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.and_then(|statuses| statuses.first()).map_or((0, false), |status| (status.restart_count, status.ready))
}

/// Sends SIGKILL to the operator in a pod of this machine.
fn kill(pod: &Pod) -> Result<()> {
    let uid = pod.uid().context("a UID")?;
    let processes: Vec<PathBuf> = fs::read_dir("/proc")?.flatten().map(|entry| entry.path()).collect();
    let is_it = |process: &&PathBuf| {
        let read = |name: &str| fs::read_to_string(process.join(name)).unwrap_or_default();
        // the kernel keeps 15 letters of the name
        read("comm").trim() == "taskgraph-opera" && read("cgroup").contains(&uid)
    };
    let process = processes.iter().find(is_it).with_context(|| {
        format!("{}: no such process on this machine: only the embedded cluster's pods can be killed", pod.name_any())
    })?;
    let number = process.file_name().and_then(|name| name.to_str()?.parse().ok()).context("a process id")?;
    kill_process(Pid::from_raw(number).context("a process id")?, Signal::KILL)?;
    Ok(())
}

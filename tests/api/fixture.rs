//! One operator in one namespace, with all that looks at it.

use anyhow::Result;
use kube::api::ListParams;
use serde_json::{Value, json};
use taskgraph::api::{DesiredState, ROLE_COMPENSATION, ROLE_TASK, TaskGraph};

use crate::support::{
    Auditor, ControlPlane, Namespace, Operator, Play, Player, Proxy,
    namespace::finished,
    operator::Settings,
    replay,
    sight::{Key, Object, Sight, Sighting},
};

/// A namespace with an operator of its own behind a proxy, its pods played.
pub struct Fixture {
    // dropped in this order: the operator before what it talks to
    pub operator: Operator,
    pub proxy: Proxy,
    pub player: Player,
    pub auditor: Auditor,
    pub namespace: Namespace,
    control_plane: &'static ControlPlane,
    /// Arguments of the operator, beside those that every one has.
    args: Vec<String>,
}

/// A second operator.
#[expect(dead_code, reason = "held: it runs as long as it lives")]
pub struct Another {
    operator: Operator,
    proxy: Proxy,
}

impl Fixture {
    /// All of it. `test` is the beginning of the namespace's name.
    pub async fn new(test: &str, script: impl Fn(&str, u32) -> Play + Send + Sync + 'static) -> Result<Self> {
        Self::on(ControlPlane::shared(), test, script).await
    }

    /// The same on another control plane than that of all tests.
    pub async fn on(
        control_plane: &'static ControlPlane,
        test: &str,
        script: impl Fn(&str, u32) -> Play + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::with(control_plane, test, &[], |namespace| Player::start(namespace, script)).await
    }

    /// All of it, with a player of the test's own.
    pub async fn with_player(test: &str, player: impl FnOnce(&Namespace) -> Player) -> Result<Self> {
        Self::with(ControlPlane::shared(), test, &[], player).await
    }

    /// All of it, the operator with more arguments.
    pub async fn with_args(
        test: &str,
        args: &[&str],
        script: impl Fn(&str, u32) -> Play + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::with(ControlPlane::shared(), test, args, |namespace| Player::start(namespace, script)).await
    }

    async fn with(
        control_plane: &'static ControlPlane,
        test: &str,
        args: &[&str],
        player: impl FnOnce(&Namespace) -> Player,
    ) -> Result<Self> {
        let args: Vec<String> = args.iter().copied().map(String::from).collect();
        let namespace = Namespace::new(&control_plane.client().await?, test).await?;
        let auditor = Auditor::start(&namespace).await?;
        let player = player(&namespace);
        let proxy = Proxy::start(control_plane).await?;
        let settings = Settings::new(proxy.kubeconfig(), &namespace.name);
        let operator = Operator::start(Settings { args: args.clone(), ..settings })?;
        Ok(Self { operator, proxy, player, auditor, namespace, control_plane, args })
    }

    /// Creates a graph and waits for its end.
    pub async fn run(&self, name: &str, spec: Value) -> Result<TaskGraph> {
        self.namespace.create(name, spec).await?;
        Ok(self.namespace.until_finished(name).await)
    }

    /// Starts the operator again, behind a new proxy: nothing of the old one gets through any more.
    pub async fn restart(&mut self) -> Result<()> {
        let identity = self.operator.identity().to_owned();
        self.start_as(&identity).await
    }

    /// Starts an operator of another name in the place of the one that was: a new pod of the same Deployment.
    pub async fn start_as(&mut self, identity: &str) -> Result<()> {
        self.split().1.start_as(identity).await
    }

    /// What is seen, and the operator to be killed meanwhile.
    pub fn split(&mut self) -> (&Sight, Operated<'_>) {
        let Self { operator, proxy, auditor, namespace, control_plane, args, .. } = self;
        (auditor.sight(), Operated { operator, proxy, namespace, control_plane, args })
    }

    /// Starts one more operator, whose Lease is elsewhere: both believe that they lead.
    pub async fn start_another(&self) -> Result<Another> {
        // another test's second operator must not hold it
        let lease = Namespace::new(&self.control_plane.client().await?, "lease").await?;
        let proxy = Proxy::start(self.control_plane).await?;
        let settings = Settings::new(proxy.kubeconfig(), &self.namespace.name);
        let operator = Operator::start(Settings { lease_namespace: lease.name, ..settings })?;
        Ok(Another { operator, proxy })
    }

    /// Waits until an attempt's Job exists, whatever the status says by then; the Job's name. `undo:TASK` is what undoes a
    /// task.
    pub async fn until_job(&self, task: &str, attempt: u32) -> String {
        let (role, name) = role_and_name(task);
        let is_it = |key: &Key| key.role == role && key.task == name && key.attempt == attempt;
        let found = |one: &Sighting| matches!(&one.object, Object::Job(key) if is_it(key)).then(|| one.name.clone());
        self.auditor.sight().until(&format!("attempt {attempt} of {task}"), |seen| seen.iter().find_map(found)).await
    }

    /// Waits until an attempt's pod runs.
    pub async fn until_pod_runs(&self, task: &str) {
        let (role, name) = role_and_name(task);
        let runs = |one: &Sighting| matches!(&one.object, Object::Pod(key, pod) if key.role == role && key.task == name && pod.phase == "Running");
        self.auditor
            .sight()
            .until(&format!("a running pod of {task}"), |seen| seen.iter().any(runs).then_some(()))
            .await;
    }

    /// Judges what happened; a graph that finished by itself must come to the same phases in the simulator.
    pub async fn judge(&self) -> Result<Vec<Sighting>> {
        let seen = self.auditor.judge().await?;
        let templates = replay::templates(&self.namespace).await?;
        for graph in self.namespace.graphs().list(&ListParams::default()).await? {
            // the simulator knows nothing of what the graph was before
            let as_created =
                graph.status.as_ref().is_some_and(|status| status.revision_number <= 1 && status.reopen_time.is_none());
            if as_created
                && finished(&graph).is_some()
                && graph.spec.desired_state.unwrap_or_default() == DesiredState::Run
            {
                let (simulated, stored) = replay::phases(&graph, &templates, &seen)?;
                assert_eq!(
                    simulated, stored,
                    "{}: the simulator on the left, the cluster on the right",
                    self.namespace.name
                );
            }
        }
        Ok(seen)
    }
}

/// The operator of a fixture, beside all else.
pub struct Operated<'a> {
    operator: &'a mut Operator,
    proxy: &'a mut Proxy,
    namespace: &'a Namespace,
    control_plane: &'static ControlPlane,
    args: &'a [String],
}

impl Operated<'_> {
    async fn start_as(&mut self, identity: &str) -> Result<()> {
        *self.proxy = Proxy::start(self.control_plane).await?;
        let settings = Settings::new(self.proxy.kubeconfig(), &self.namespace.name);
        *self.operator =
            Operator::start(Settings { identity: identity.to_owned(), args: self.args.to_vec(), ..settings })?;
        Ok(())
    }

    /// Kills it as a power cut would, and starts it again.
    pub async fn kill_and_restart(&mut self) -> Result<()> {
        self.operator.kill().await?;
        let identity = self.operator.identity().to_owned();
        self.start_as(&identity).await
    }
}

/// The labels of a task's Job, or of that of what undoes it.
fn role_and_name(task: &str) -> (&'static str, &str) {
    task.strip_prefix("undo:").map_or((ROLE_TASK, task), |undone| (ROLE_COMPENSATION, undone))
}

/// A task with a container.
pub fn task(name: &str, depends_on: &[&str]) -> Value {
    json!({"name": name, "dependsOn": depends_on, "container": container()})
}

/// A task with a container, and more fields.
pub fn task_with(name: &str, depends_on: &[&str], more: Value) -> Value {
    let mut task = task(name, depends_on);
    if let (Value::Object(task), Value::Object(more)) = (&mut task, more) {
        task.extend(more);
    }
    task
}

/// A container; what it does is the player's to say.
pub fn container() -> Value {
    json!({"image": "localhost/busybox:1", "command": ["true"]})
}

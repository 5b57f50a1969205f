//! The operator is upgraded, rolled back, upgraded again and killed, by helm and by force, while graphs of several shapes
//! run: they end as if nothing had happened, and nothing runs twice.

use std::{
    env,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use kube::{ResourceExt, api::PostParams};
use serde_json::json;
use taskgraph::api::TaskGraph;

use crate::{
    installed::{CHARTS, Installed, SYSTEM, helm, install},
    shapes::Wave,
    support::{Namespace, namespace::PATIENCE},
    world::{World, shell},
};

/// The most that a takeover from a killed leader may take on a machine that does much else; 15 s are promised, of one with
/// time.
const TAKEOVER: Duration = Duration::from_secs(20);
/// How often admission is asked while the operator is replaced.
const ASK: Duration = Duration::from_millis(100);

/// The operator of an earlier commit.
struct Before {
    charts: PathBuf,
    image: String,
    tag: String,
}

impl Before {
    /// As `hack/before` made it, whose answer is in `TASKGRAPH_BEFORE`: a folder named as the image's tag.
    fn read() -> Result<Self> {
        let folder =
            PathBuf::from(env::var_os("TASKGRAPH_BEFORE").context("TASKGRAPH_BEFORE: what hack/before prints")?);
        let tag = folder.file_name().context("a folder's name")?.to_string_lossy().into_owned();
        Ok(Self { charts: folder.join("source/charts"), image: format!("localhost/taskgraph:{tag}"), tag })
    }

    async fn install(&self) -> Result<()> {
        install(&self.charts, &["--set", "replicas=2", "--set-string", &format!("image.tag={}", self.tag)]).await?;
        // its chart says that it is ready before the machine's proxy leads anybody to it
        let world = World::new("before").await?;
        let (graphs, (graph, dry)) = (world.namespace.graphs(), asked()?);
        let answered = async {
            while graphs.create(&dry, &graph).await.is_err() {
                tokio::time::sleep(ASK).await;
            }
        };
        tokio::time::timeout(PATIENCE, answered).await.context("admission does not answer")
    }
}

/// A good graph, to be created in no more than appearance.
fn asked() -> Result<(TaskGraph, PostParams)> {
    let spec = serde_json::from_value(json!({"tasks": [shell("a", &[], "true")]}))?;
    Ok((TaskGraph::new("asked", spec), PostParams { dry_run: true, ..PostParams::default() }))
}

/// Asks admission all the time: each graph that it is shown is good.
struct Asker {
    enough: Arc<AtomicBool>,
    asks: tokio::task::JoinHandle<Result<(usize, Vec<String>)>>,
}

impl Asker {
    fn start(namespace: &Namespace) -> Self {
        let (enough, graphs) = (Arc::new(AtomicBool::new(false)), namespace.graphs());
        let stop = Arc::clone(&enough);
        let asks = tokio::spawn(async move {
            let (graph, dry) = asked()?;
            let (mut asked, mut refused) = (0, Vec::new());
            let mut pace = tokio::time::interval(ASK);
            while !stop.load(Ordering::Relaxed) {
                pace.tick().await;
                asked += 1;
                refused.extend(graphs.create(&dry, &graph).await.err().map(|error| error.to_string()));
            }
            Ok((asked, refused))
        });
        Self { enough, asks }
    }

    /// Nothing was refused, but for so many reviews that were cut off.
    async fn end(self, most_cut_off: usize) -> Result<()> {
        self.enough.store(true, Ordering::Relaxed);
        let (asked, refused) = self.asks.await??;
        let (cut_off, refused): (Vec<_>, Vec<_>) = refused.into_iter().partition(|error| is_cut_off(error));
        ensure!(cut_off.len() <= most_cut_off, "{} of {asked} cut off: {cut_off:#?}", cut_off.len());
        ensure!(asked > 0 && refused.is_empty(), "{} of {asked} refused: {refused:#?}", refused.len());
        println!("admission: asked {asked} times, {} times cut off, else answered", cut_off.len());
        Ok(())
    }
}

/// Whether a review's connection was closed before its answer.
fn is_cut_off(refusal: &str) -> bool {
    refusal.contains("failed to call webhook")
        && ["EOF", "connection reset by peer"].iter().any(|end| refusal.contains(end))
}

/// What is on the cluster.
struct Stage {
    world: World,
    operator: Installed,
}

impl Stage {
    /// A namespace, and the operator of `image`, which leads.
    async fn new(test: &str, image: &str) -> Result<Self> {
        let world = World::new(test).await?;
        let operator = Installed::for_all(&world.namespace.client);
        operator.leader_of(image).await?;
        Wave::prepare(&world).await?;
        Ok(Self { world, operator })
    }

    /// Begins graphs, replaces the operator by one of `image`, and gives the graphs the word once that leads.
    async fn replace(
        &self,
        prefix: &'static str,
        image: &str,
        replacing: impl Future<Output = Result<()>>,
    ) -> Result<Wave> {
        let wave = Wave::begin(&self.world, prefix).await?;
        let asker = Asker::start(&self.world.namespace);
        let begin = std::time::Instant::now();
        replacing.await?;
        let leader = self.operator.leader_of(image).await?;
        println!("{prefix}: {} leads, {:.1?} after helm was called", leader.name_any(), begin.elapsed());
        self.operator.until_all_of(image).await;
        // each of two replicas before closes connections that the API server may just have begun to use
        asker.end(if image == now() { 2 } else { 0 }).await?;
        wave.release(&self.world).await?;
        Ok(wave)
    }

    /// All graphs end as they would have, and nothing ran twice.
    async fn ended(&self, waves: &[Wave]) -> Result<()> {
        for wave in waves {
            wave.ended(&self.world).await?;
        }
        self.world.judge().await
    }
}

/// The image of this checkout.
fn now() -> String {
    format!("localhost/taskgraph:{}", env!("CARGO_PKG_VERSION"))
}

async fn upgrade() -> Result<()> {
    install(CHARTS.as_ref(), &["--set", "replicas=2"]).await
}

async fn rollback() -> Result<()> {
    helm(&["rollback", "taskgraph", "--namespace", SYSTEM, "--wait", "--timeout", "120s"]).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "replaces the operator of the cluster: hack/test runs it alone"]
async fn upgraded_and_rolled_back() -> Result<()> {
    let before = Before::read()?;
    before.install().await?;
    let stage = Stage::new("upgrade", &before.image).await?;
    let waves = [
        stage.replace("up", &now(), upgrade()).await?,
        stage.replace("back", &before.image, rollback()).await?,
        stage.replace("again", &now(), upgrade()).await?,
    ];
    stage.ended(&waves).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "kills the operator of the cluster: hack/test runs it alone"]
async fn killed() -> Result<()> {
    upgrade().await?;
    let stage = Stage::new("killed", &now()).await?;
    let wave = Wave::begin(&stage.world, "kill").await?;
    let leader = stage.operator.leader_of(&now()).await?;
    // it holds the Lease still when it is back, and goes on at once
    stage.operator.kill_program(&leader).await?;
    let leader = stage.operator.leader_of(&now()).await?;
    let took = stage.operator.kill_pod(&leader).await?;
    println!("killed: another leads after {took:.1?}");
    ensure!(took < TAKEOVER, "{took:?}");
    wave.release(&stage.world).await?;
    stage.ended(&[wave]).await
}

//! The watches: graphs into the queue, Jobs and pods into the index, templates into their caches.

use std::{collections::HashSet, fmt::Debug, pin::pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, future};
use kube::{
    Api, Client, Resource,
    api::ListParams,
    core::{DeserializeGuard, NamespaceResourceScope},
    runtime::{
        WatchStreamExt,
        reflector::{self, Store, store::Writer},
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::{
    Context,
    index::{Index, Indexed},
    view::GraphView,
};
use crate::{api::LABEL_GRAPH_UID, runtime::status::answer_of};

/// How often it is asked whether what may not be read may be by now.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// An API for one namespace or for all.
pub fn api<K>(client: Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    }
}

/// Watches Jobs or pods of graphs into the index; `synced` turns true when the first list is in.
pub async fn index<K>(ctx: Arc<Context>, api: Api<K>, synced: watch::Sender<bool>)
where
    K: Indexed + Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = watcher::Config::default().labels(LABEL_GRAPH_UID);
    let mut events = pin!(watcher(api, config).default_backoff());
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
        note(&ctx, K::kind(&()).as_ref(), &event);
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                listed.extend(object.uid());
                wake(&ctx, &ctx.index, |index| index.apply(object));
            }
            Ok(Event::InitDone) => {
                ctx.index.retain::<K>(&listed).into_iter().for_each(|graph| ctx.registry.wake(graph));
                listed = HashSet::new();
                synced.send_replace(true);
            }
            Ok(Event::Apply(object)) => {
                wake(&ctx, &ctx.index, |index| index.apply(object));
            }
            Ok(Event::Delete(object)) => wake(&ctx, &ctx.index, |index| index.delete(&object)),
            // told in `note`
            Err(_) => {}
        }
    }
}

fn wake(ctx: &Context, index: &Index, change: impl FnOnce(&Index) -> Option<reflector::ObjectRef<GraphView>>) {
    if let Some(graph) = change(index) {
        ctx.registry.wake(graph);
    }
}

/// Waits until the templates may be listed. A watch would complain at each try.
async fn until_permitted<K>(ctx: &Context, api: &Api<DeserializeGuard<K>>)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    while let Err(kube::Error::Api(status)) = api.list_metadata(&ListParams::default().limit(1)).await
        && status.code == 403
    {
        ctx.templates.set_cluster_forbidden(true);
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    answer_of(error).is_some_and(|status| status.code == 403)
}

/// Shows how a watch does, by what it brought last.
fn note<K>(ctx: &Context, kind: &str, event: &watcher::Result<Event<K>>) {
    let watches = ctx.hands.health.watches();
    match event {
        // that is before the list is asked for
        Ok(Event::Init) => {}
        Ok(Event::InitDone) => {
            watches.seen(kind);
            watches.synced(kind);
        }
        Ok(_) => watches.seen(kind),
        // the API server ends watches now and then; the watcher lists again
        Err(watcher::Error::WatchError(status)) if status.code == 410 => debug!(kind, "watch expired"),
        Err(error) => {
            let is_new = watches.failed(kind, error);
            match watches.problem_of(kind) {
                Some(problem) if is_new => warn!(kind, %error, "{problem}"),
                Some(_) => debug!(kind, %error, "watch failed; trying again"),
                None => warn!(kind, %error, "watch failed; trying again"),
            }
        }
    }
}

/// The stream of graphs for the queue, cached in `writer`. Graphs that are gone are forgotten.
pub fn graphs(
    ctx: Arc<Context>,
    api: Api<GraphView>,
    writer: Writer<GraphView>,
) -> impl Stream<Item = Result<GraphView, watcher::Error>> + Send + 'static {
    let reader = writer.as_reader();
    let seen =
        watcher(api, watcher::Config::default()).default_backoff().modify(GraphView::prune).reflect(writer).inspect(
            move |event| {
                note(&ctx, "TaskGraph", event);
                if let Ok(event) = event {
                    keep_track(&ctx, &reader, event);
                }
            },
        );
    // the queue would pause all that it is woken by, for up to half a minute, at each error
    seen.applied_objects().filter(|seen| future::ready(seen.is_ok()))
}

/// Indexes child graphs, and wakes their parents; forgets graphs that are gone.
fn keep_track(ctx: &Context, graphs: &Store<GraphView>, event: &Event<GraphView>) {
    match event {
        Event::Apply(graph) | Event::InitApply(graph) if graph.parent().is_some() => {
            wake(ctx, &ctx.index, |index| index.apply(graph.clone()));
        }
        Event::Delete(graph) => {
            if graph.parent().is_some() {
                wake(ctx, &ctx.index, |index| index.delete(graph));
            }
            ctx.registry.remove(graph.uid());
            ctx.courier.deleted(graph.uid());
            ctx.index.settle(graph.uid());
            ctx.templates.set_waiting(graph, false);
        }
        Event::InitDone => {
            let known: HashSet<_> = graphs.state().iter().filter_map(|graph| graph.metadata.uid.clone()).collect();
            ctx.registry.retain(|uid| known.contains(uid));
            ctx.courier.retain(|uid| known.contains(uid));
            ctx.index.retain::<GraphView>(&known).into_iter().for_each(|graph| ctx.registry.wake(graph));
            ctx.index.settle_others(|uid| known.contains(uid));
        }
        _ => {}
    }
}

/// Whether the operator can do without what it watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// It tries until it is let.
    Needed,
    /// It goes on without, and goes on trying.
    Optional,
}

/// Keeps a cache of templates; every change wakes the graphs that wait for one.
pub async fn templates<K>(
    ctx: Arc<Context>,
    api: Api<DeserializeGuard<K>>,
    mut writer: Writer<DeserializeGuard<K>>,
    rights: Rights,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let optional = rights == Rights::Optional;
    let kind = K::kind(&());
    loop {
        if optional {
            until_permitted(&ctx, &api).await;
        }
        let events = watcher(api.clone(), watcher::Config::default()).default_backoff();
        let mut events =
            pin!(events.modify(|template: &mut DeserializeGuard<K>| template.meta_mut().managed_fields = None));
        while let Some(event) = events.next().await {
            match &event {
                Err(error) if optional && is_forbidden(error) => {
                    ctx.hands.health.watches().passed_over(&kind, error);
                    ctx.templates.set_cluster_forbidden(true);
                    // who may list and not watch would be asked without end
                    tokio::time::sleep(ASK_AGAIN).await;
                    // a watch that is let again tells of nothing until something changes; a list tells at once
                    break;
                }
                _ => note(&ctx, &kind, &event),
            }
            let Ok(event) = event else { continue };
            writer.apply_watcher_event(&event);
            if optional && matches!(event, Event::InitDone) {
                ctx.templates.set_cluster_forbidden(false);
            }
            if matches!(event, Event::Apply(_) | Event::InitDone) {
                ctx.templates.changed();
                ctx.templates.waiting().into_iter().for_each(|graph| ctx.registry.wake(graph));
            }
        }
    }
}

//! The watches: graphs into the queue, Jobs and pods into the index, templates into their caches.

use std::{collections::HashSet, fmt::Debug, sync::Arc};

use futures::{Stream, StreamExt, TryStreamExt, future, pin_mut};
use kube::{
    Api, Client, Resource,
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
use crate::api::LABEL_GRAPH_UID;

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
    let events = watcher(api, config).default_backoff();
    pin_mut!(events);
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
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
            Err(error) => watch_failed(K::kind(&()).as_ref(), &error),
        }
    }
}

fn wake(ctx: &Context, index: &Index, change: impl FnOnce(&Index) -> Option<reflector::ObjectRef<GraphView>>) {
    if let Some(graph) = change(index) {
        ctx.registry.wake(graph);
    }
}

fn watch_failed(kind: &str, error: &watcher::Error) {
    match error {
        // the API server ends watches now and then; the watcher lists again
        watcher::Error::WatchError(status) if status.code == 410 => debug!(kind, "watch expired"),
        error => warn!(kind, %error, "watch failed; trying again"),
    }
}

/// The stream of graphs for the queue, cached in `writer`. Graphs that are gone are forgotten.
pub fn graphs(
    ctx: Arc<Context>,
    api: Api<GraphView>,
    writer: Writer<GraphView>,
) -> impl Stream<Item = Result<GraphView, watcher::Error>> + Send + 'static {
    let reader = writer.as_reader();
    let seen = watcher(api, watcher::Config::default())
        .default_backoff()
        .inspect_err(|error| watch_failed("TaskGraph", error))
        .modify(GraphView::prune)
        .reflect(writer)
        .inspect_ok(move |event| keep_track(&ctx, &reader, event));
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

/// Keeps a cache of templates; every change wakes the graphs that wait for one.
pub async fn templates<K>(ctx: Arc<Context>, api: Api<DeserializeGuard<K>>, writer: Writer<DeserializeGuard<K>>)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let events = watcher(api, watcher::Config::default())
        .default_backoff()
        .modify(|template: &mut DeserializeGuard<K>| template.meta_mut().managed_fields = None)
        .reflect(writer);
    events
        .for_each(|event| {
            match event {
                Ok(Event::Apply(_) | Event::InitDone) => {
                    ctx.templates.changed();
                    ctx.templates.waiting().into_iter().for_each(|graph| ctx.registry.wake(graph));
                }
                Ok(_) => {}
                Err(error) => watch_failed(K::kind(&()).as_ref(), &error),
            }
            future::ready(())
        })
        .await;
}

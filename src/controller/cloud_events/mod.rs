//! CloudEvents: what happens to graphs and tasks, sent to a sink, each fact at least once and in the order of its graph.
//!
//! Nothing waits for the sink, and no event is kept while it is away: what there is to tell is worked out from the
//! stored status ([`facts`]) when it can be sent. What of a status was not delivered yet stands in the status itself
//! (`status.cloudEvents`), written along with it, so whoever takes the graph up next goes on from there.
//!
//! | file | part |
//! |---|---|
//! | [`event`] | every type, and what an event carries |
//! | [`facts`] | what there is to tell of a status, given what was told |
//! | [`render`] | a fact as an event |
//! | [`desk`] | the graphs of which something is to be told |
//! | [`deliver`] | sends, and notes in the status of finished graphs that all is sent |

pub mod deliver;
pub mod desk;
pub mod event;
pub mod facts;
pub mod render;

use std::sync::Arc;

use self::{
    deliver::Deliverer,
    desk::{Desk, Origin},
    event::GraphName,
};
use super::{cluster::Cluster, view::GraphView};
use crate::{
    api::{CloudEventsStatus, TaskGraphStatus},
    runtime::{
        health::Health,
        lease::Leadership,
        metrics::{DropLabel, Metrics},
        sink::Outlet,
    },
};

/// Takes what is stored of graphs, and has it told. Without a sink it does nothing.
#[derive(Clone, Debug, Default)]
pub struct Courier(Option<Arc<Desk>>);

impl Courier {
    /// A courier, and what delivers for it, which is to be run.
    pub fn new(
        outlet: Option<Outlet>,
        cluster: &Cluster,
        leadership: &Leadership,
        metrics: &Metrics,
        health: &Health,
    ) -> (Self, Option<Deliverer>) {
        let Some(outlet) = outlet else { return (Self::default(), None) };
        for reason in [DropLabel::REFUSED, DropLabel::FORGOTTEN, DropLabel::DELETED] {
            // there from the beginning: Prometheus sees no rise in the first value of a series
            drop(metrics.cloud_events_dropped.get_or_create(&reason));
        }
        let (desk, queue) = Desk::new(metrics.clone());
        let desk = Arc::new(desk);
        let deliverer =
            Deliverer::new(outlet, Arc::clone(&desk), queue, cluster.clone(), leadership.clone(), health.clone());
        (Self(Some(desk)), Some(deliverer))
    }

    /// A status is about to be written over the one that is stored: what was told until then is known from here on.
    pub fn begin(&self, view: &GraphView, stored: &TaskGraphStatus) {
        if let Some(desk) = &self.0 {
            desk.begin(view.uid(), || name_of(view), stored);
        }
    }

    /// What of a status is still to be delivered, to be stored with it.
    pub fn owed(&self, view: &GraphView, status: &TaskGraphStatus) -> Option<CloudEventsStatus> {
        self.0.as_ref().map(|desk| desk.owed(view.uid(), status))
    }

    /// A status is stored: it is told from now on.
    pub fn stored(&self, view: &GraphView, status: &TaskGraphStatus) {
        if let Some(desk) = &self.0 {
            desk.stored(view.uid(), || name_of(view), status, Origin::Stored);
        }
    }

    /// A status is taken over by one that is stored, and tells what that does not tell any more.
    pub fn superseded(&self, view: &GraphView, status: &TaskGraphStatus) {
        if let Some(desk) = &self.0 {
            desk.stored(view.uid(), || name_of(view), status, Origin::Superseded);
        }
    }

    /// Of a graph that is not followed here, having finished or being refused: tells what is still to be told.
    pub fn unfollowed(&self, view: &GraphView) {
        if let Some(desk) = &self.0
            && self.owes(view)
        {
            desk.take_up(view.uid(), || name_of(view));
        }
    }

    /// Whether the status of a graph, as it is watched, says that something is still to be told.
    pub fn owes(&self, view: &GraphView) -> bool {
        let status = &view.status;
        self.0.is_some() && status.cloud_events.as_ref().is_some_and(|owed| owed.owes(status.sequence))
    }

    /// A graph was deleted: what is known of it is told, if it is not too much.
    pub fn deleted(&self, uid: &str) {
        if let Some(desk) = &self.0 {
            desk.deleted(uid);
        }
    }

    /// Of all other graphs than these it is known that they are gone.
    pub fn retain(&self, known: impl Fn(&str) -> bool) {
        if let Some(desk) = &self.0 {
            desk.retain(known);
        }
    }

    /// Forgets all: another operator may tell from now on.
    pub fn clear(&self) {
        if let Some(desk) = &self.0 {
            desk.clear();
        }
    }
}

fn name_of(view: &GraphView) -> GraphName {
    GraphName { namespace: view.namespace().into(), name: view.name().into(), uid: view.uid().into() }
}

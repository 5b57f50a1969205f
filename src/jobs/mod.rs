//! From an attempt to its Job, and from Jobs and Pods to what the engine is told. Pure: no client, no clock.
//!
//! | module | part |
//! |---|---|
//! | [`strict`] | JSON read as a type, every misfit with its path |
//! | `allowed` | the fields that a task may set |
//! | [`mod@check`] | containers and pod templates: what is wrong with them |
//! | [`name`] | names of Jobs, and shards |
//! | [`build`] | an attempt as a Job |
//! | [`child`] | an attempt as a child graph |
//! | [`copied`] | what somebody copied of a Job, pod or child graph |
//! | [`item`] | the Job of one item, where each has its own |
//! | [`items`] | the items of a task with `forEach`, in a `ConfigMap` and in the Job |
//! | [`view`] | what we read of a Job and a Pod |
//! | [`mod@observe`] | a Job and its Pods as events of the engine |
//! | [`indexed`] | the same, of a Job with many items |
//! | [`outcome`] | how an attempt ended |
//! | [`volumes`] | claims of a graph, and the pods that mount them |
//! | [`mod@trace`] | hands a trace context on |
//! | [`refuse`] | why a Job or its pod was not created |

mod allowed;
pub mod build;
pub mod check;
pub mod child;
pub mod copied;
pub mod indexed;
mod item;
pub mod items;
pub mod name;
pub mod observe;
pub mod outcome;
pub mod refuse;
mod required;
pub mod strict;
pub mod trace;
pub mod view;
pub mod volumes;

pub use build::{Item, Order, definition_of};
pub use copied::{is_copied_child, is_copied_job, is_copied_pod};
pub use items::{Items, ItemsMap};
pub use name::{event_name, indexed_job_name, item_job_name, job_name, shard};
pub use observe::{Key, goes_on, labels_of, needs_live_pods, observe};
pub use refuse::{Refused, blocked_by_events, refusal};
pub use view::{JobView, PodView};

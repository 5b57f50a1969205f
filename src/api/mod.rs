//! The kinds of group `taskgraph.dev`: a file each. The CRDs in `crds/` are generated from here.

pub mod cache;
pub mod cloud_events;
#[cfg(feature = "kubernetes")]
pub mod crd;
pub mod duration;
pub mod graph;
pub mod names;
pub mod opaque;
#[cfg(feature = "kubernetes")]
pub mod reference;
pub mod rerun;
mod schema;
pub mod status;
pub mod task;
pub mod template;
pub mod volume;
pub mod waiting;

pub use cache::*;
pub use cloud_events::*;
pub use duration::{Duration, DurationText};
pub use graph::*;
pub use names::*;
pub use opaque::Opaque;
pub use rerun::*;
pub use status::*;
pub use task::*;
pub use template::*;
pub use volume::*;
pub use waiting::*;

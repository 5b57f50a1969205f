//! What the tests and the benches with a cluster share: a control plane without machines, the operator as a process, a
//! proxy that makes faults, a player for pods, an auditor that judges from outside, and the table of who may do what.
//!
//! Four programs include this (`tests/api`, `tests/e2e`, `benches/cluster`, `benches/webhook`); each uses a part of it.
#![allow(dead_code, unused_imports)]

pub mod acts;
pub mod auditor;
pub mod control_plane;
pub mod crds;
pub mod embedded;
pub mod flux;
pub mod guarded;
pub mod namespace;
pub mod operator;
pub mod player;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod replay;
pub mod rights;
pub mod sight;
pub mod sink;
pub mod webhook;
pub mod wire;

pub use auditor::Auditor;
pub use control_plane::ControlPlane;
pub use namespace::Namespace;
pub use operator::Operator;
pub use player::{Play, Player};
pub use proxy::Proxy;

//! The engine's rules, a file each; and what must hold of whole runs whatever happens.

mod fixture;

mod attempts;
mod branches;
mod cache;
mod chaos;
mod children;
mod compensations;
mod edits;
mod endings;
mod expressions;
mod failure;
mod items;
mod outputs;
mod per_item;
mod readded;
mod refused;
mod reruns;
mod restarts;
mod retries;
mod sim;
mod slots;
mod status;
mod triggers;
mod waiting;
mod writers;

//! The rules, one a file. Each is a pure function of what it is given: it looks at no run and changes none.

pub mod calloff;
pub mod compensation;
pub mod guard;
pub mod indexes;
pub mod items;
pub mod outputs;
pub mod per_item;
pub mod retry;
pub mod returns;
pub mod trigger;
pub mod waiting;

//! The engine's rules, a file each; and what must hold of whole runs whatever happens.

mod fixture;

mod attempts;

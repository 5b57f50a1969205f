//! The verbs of `kubectl taskgraph`.

//! One round: events in, actions out.

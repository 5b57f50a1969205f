//! Runs whole graphs in virtual time.

//! What the API server asks before it stores one of our objects.

pub mod access;

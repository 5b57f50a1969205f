//! What was found wrong so far.

use std::fmt::Display;

use super::{Problem, names::suggest};
use crate::engine::expr::cut;

/// How many suggestions one check makes: each costs a look at every name that there is.
const MAX_HINTS: usize = 50;
/// Longest path and message, in bytes. What users write may be quoted in them, and may be of any length.
const MAX_PATH: usize = 500;
const MAX_MESSAGE: usize = 1000;

/// Problems, in the order in which they were found.
#[derive(Debug)]
pub struct Problems {
    pub list: Vec<Problem>,
    hints_left: usize,
}

impl Default for Problems {
    fn default() -> Self {
        Self { list: Vec::new(), hints_left: MAX_HINTS }
    }
}

impl Problems {
    /// Something is wrong at `path`.
    pub fn add(&mut self, path: impl Display, message: impl Into<String>) {
        let (path, message) = (path.to_string(), message.into());
        self.list.push(Problem {
            path: cut(&path, MAX_PATH).into_owned(),
            message: cut(&message, MAX_MESSAGE).into_owned(),
        });
    }

    /// Several things are wrong at one place.
    pub fn add_all(&mut self, path: &str, messages: Vec<String>) {
        for message in messages {
            self.add(path, message);
        }
    }

    /// ` (did you mean "build"?)`, or nothing.
    pub fn hint<'a>(&mut self, name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
        if self.hints_left == 0 {
            return String::new();
        }
        self.hints_left -= 1;
        suggest(name, known).unwrap_or_default()
    }
}

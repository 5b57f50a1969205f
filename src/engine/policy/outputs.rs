//! What a container left behind, against what its task declares.

use std::io;

use serde::Serialize;
use serde_json::{Map, Value};

use super::super::{
    event::{Blame, Failure},
    reason,
};
use crate::api::Output;

/// How many bytes of JSON the outputs of all tasks of a graph may take together.
pub const MAX_TOTAL: usize = 256 * 1024;

/// The outputs with the defaults of the missing ones filled in, and their size in bytes of JSON; or why the attempt
/// failed after all. `used`: what the other tasks' outputs take.
pub fn check(
    declared: &[Output],
    mut outputs: Map<String, Value>,
    used: usize,
) -> Result<(Map<String, Value>, usize), Failure> {
    for output in declared {
        match (outputs.get(&output.name), &output.default) {
            (Some(value), _) => {
                if let Some(wanted) = output.type_.filter(|wanted| !wanted.accepts(value)) {
                    let message = format!(
                        "output {:?} is {}, but the task declares {}",
                        output.name,
                        describe(value),
                        wanted.name()
                    );
                    return Err(failure(reason::OUTPUT_INVALID, message, Blame::Task));
                }
            }
            (None, Some(default)) => {
                outputs.insert(output.name.clone(), default.clone());
            }
            (None, None) => {
                let message = format!(
                    "the container left no output {:?}: it writes a JSON object to its termination message, or the task declares a default",
                    output.name
                );
                return Err(failure(reason::OUTPUT_MISSING, message, Blame::Task));
            }
        }
    }
    bounded(outputs, used)
}

/// The outputs and their size, if they fit beside what is `used`.
pub(super) fn bounded(outputs: Map<String, Value>, used: usize) -> Result<(Map<String, Value>, usize), Failure> {
    let bytes = if outputs.is_empty() { 0 } else { size(&outputs) };
    if used.saturating_add(bytes) > MAX_TOTAL {
        let message = format!(
            "with {bytes} bytes of outputs the graph would have {} of at most {MAX_TOTAL}: leave large data on a volume or in a store, and its place as the output",
            used.saturating_add(bytes)
        );
        return Err(failure(reason::OUTPUTS_TOO_LARGE, message, Blame::Final));
    }
    Ok((outputs, bytes))
}

/// How many bytes of JSON a value takes.
pub fn size(value: &impl Serialize) -> usize {
    struct Counter(usize);
    impl io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.saturating_add(bytes.len());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    // what cannot be written as JSON counts as far as it came; JSON values always can
    let _ = serde_json::to_writer(&mut counter, value);
    counter.0
}

pub(super) fn failure(reason: &str, message: String, blame: Blame) -> Failure {
    Failure { reason: reason.to_owned(), message: Some(message), exit_code: None, blame }
}

pub(super) fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a number",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

//! What a graph returns, once all of it ended well.

use serde_json::{Map, Value};

use super::{
    super::{expr::Scope, graph::OutputDef, reason},
    outputs,
};
use crate::api::{CONDITION_FAILED, TaskGraphStatus};

/// The outputs of a graph, or why it failed after all: a reason, and a sentence for people.
pub type Returned = Result<Map<String, Value>, (&'static str, String)>;

/// Evaluates what a graph returns. `used`: what the outputs of its tasks take, in bytes of JSON; all share one bound.
pub fn evaluate(returns: &[OutputDef], scope: &Scope<'_>, used: usize) -> Returned {
    let mut values = Map::new();
    for output in returns {
        let value = output
            .value
            .eval(scope)
            .map_err(|error| (reason::EXPRESSION_ERROR, format!("output {}: {error}", output.name)))?;
        values.insert(output.name.clone(), value);
        let all = used.saturating_add(outputs::size(&values));
        if all > outputs::MAX_TOTAL {
            let message = format!(
                "with output {} the outputs of the tasks and the graph take {all} bytes of at most {}",
                output.name,
                outputs::MAX_TOTAL
            );
            return Err((reason::OUTPUTS_TOO_LARGE, message));
        }
    }
    Ok(values)
}

/// What a finished graph returned, as its stored status tells.
pub fn restore(status: &TaskGraphStatus) -> Returned {
    let own = |failed: &&crate::api::Condition| {
        [reason::EXPRESSION_ERROR, reason::OUTPUTS_TOO_LARGE].into_iter().find(|known| *known == failed.reason)
    };
    match status.holds(CONDITION_FAILED).and_then(|failed| Some((own(&failed)?, failed.message.clone()))) {
        Some(why) => Err(why),
        None => Ok(status.outputs.clone()),
    }
}

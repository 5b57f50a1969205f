//! Payloads: the expressions in containers and pod templates, compiled.

use std::sync::Arc;

use serde_json::Value;

use super::{
    expressions::{Expressions, Site},
    problems::Problems,
};
use crate::{
    api::Opaque,
    engine::payload::{
        PayloadKind, Slot,
        places::{self, Place, Spot},
        text::{Part, Text},
    },
};

/// A container or pod template as it was written, for the checks that need Kubernetes' types.
#[derive(Clone, Debug, PartialEq)]
pub struct PayloadSource {
    /// Field path: `spec.tasks[3].container`, or `template "x" (TaskTemplate): spec.job.template`.
    pub path: String,
    /// Which form it has.
    pub kind: PayloadKind,
    /// The JSON.
    pub source: Arc<Value>,
}

/// A payload, apart from arguments.
#[derive(Clone, Debug)]
pub struct Compiled {
    pub kind: PayloadKind,
    pub source: Arc<Value>,
    pub slots: Arc<[Slot]>,
}

/// Checks and compiles one payload.
pub fn compile(
    kind: PayloadKind,
    source: &Opaque,
    path: &str,
    site: Site<'_>,
    expressions: &mut Expressions<'_>,
    problems: &mut Problems,
) -> Compiled {
    let source = Arc::clone(source.value());
    let mut slots = Vec::new();
    for spot in places::spots(kind, &source) {
        let at = format!("{path}{}", spot.path);
        if let Place::Forbidden(why) = spot.place {
            problems.add(at, why);
        } else if let Some(text) = expressions.text(spot.text, site, &at, problems) {
            slots.extend(slot(spot, text, &at, problems));
        }
    }
    for (below, problem) in places::environment_problems(kind, &source) {
        problems.add(format!("{path}{below}"), problem);
    }
    Compiled { kind, source, slots: slots.into() }
}

fn slot(spot: Spot<'_>, text: Text, at: &str, problems: &mut Problems) -> Option<Slot> {
    let env = spot.place == Place::Env;
    let opens = |parts: &[Part]| matches!(parts, [Part::Literal(literal), Part::Expression(_)] if places::opens_expansion(literal));
    if env && text.0.windows(2).any(opens) {
        problems.add(at, "Kubernetes would read the value of the expression as part of `$(NAME)`: write `$$` for a dollar sign before it");
        return None;
    }
    Some(Slot { pointer: spot.pointer, text, env })
}

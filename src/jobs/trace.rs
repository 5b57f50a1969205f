//! Hands the trace context of an attempt on: to containers as `TRACEPARENT`, to a child graph as its annotation
//! `traceparent`. Nothing else of a Job depends on it, its definition hash neither.

use serde_json::{Value, json};

use crate::api::{ANNOTATION_TRACEPARENT, TRACEPARENT_VARIABLE};

/// Adds a trace context to a Job, or to a child graph. A container that has a variable of that name keeps its own.
pub fn hand_on(object: &mut Value, traceparent: &str) {
    if object["kind"] == "TaskGraph" {
        object["metadata"]["annotations"][ANNOTATION_TRACEPARENT] = traceparent.into();
        return;
    }
    for list in ["initContainers", "containers"] {
        let containers = object.pointer_mut(&format!("/spec/template/spec/{list}"));
        for container in containers.and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(env) = container.get_mut("env").and_then(Value::as_array_mut) else { continue };
            if env.iter().all(|variable| variable["name"] != TRACEPARENT_VARIABLE) {
                // first: a variable can refer only to those before it
                env.insert(0, json!({"name": TRACEPARENT_VARIABLE, "value": traceparent}));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_get_it_unless_they_have_their_own() {
        let own = json!([{"name": "TRACEPARENT", "value": "mine"}]);
        let mut job = json!({"kind": "Job", "spec": {"template": {"spec": {
            "initContainers": [{"name": "i", "env": []}],
            "containers": [{"name": "a", "env": [{"name": "A", "value": "$(TRACEPARENT)"}]}, {"name": "b", "env": own}],
        }}}});
        hand_on(&mut job, "00-x");
        let ours = json!({"name": "TRACEPARENT", "value": "00-x"});
        let spec = &job["spec"]["template"]["spec"];
        assert_eq!(spec["initContainers"][0]["env"], json!([ours]));
        assert_eq!(spec["containers"][0]["env"], json!([ours, {"name": "A", "value": "$(TRACEPARENT)"}]));
        assert_eq!(spec["containers"][1]["env"], own);
    }

    #[test]
    fn a_child_graph_gets_it() {
        let mut child = json!({"kind": "TaskGraph", "metadata": {"annotations": {"a": "b"}}});
        hand_on(&mut child, "00-x");
        assert_eq!(child["metadata"]["annotations"], json!({"a": "b", "traceparent": "00-x"}));
    }
}

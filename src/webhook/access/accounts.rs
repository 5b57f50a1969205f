//! The service accounts that a spec lets pods run as, each with its field.

use serde_json::Value;

/// The account that every pod has that names none.
const DEFAULT: &str = "default";
/// The field of a pod, and its old name.
const FIELDS: [&str; 2] = ["serviceAccountName", "serviceAccount"];

/// Those of a graph whose spec stands at `path`, those of its compensations included. Of templates that it names their
/// own authors were asked.
pub fn of_graph<'a>(spec: &'a Value, path: &str) -> Vec<(String, &'a str)> {
    let mut found = named(&spec["podDefaults"], &format!("{path}.podDefaults"));
    for list in ["tasks", "finally"] {
        for (index, task) in spec[list].as_array().into_iter().flatten().enumerate() {
            let at = format!("{path}.{list}[{index}]");
            found.extend(of_work(task, &at));
            found.extend(of_work(&task["compensate"], &format!("{at}.compensate")));
        }
    }
    found
}

/// Those of a template.
pub fn of_template(spec: &Value) -> Vec<(String, &str)> {
    let mut found = of_work(spec, "spec");
    found.extend(of_graph(&spec["graph"], "spec.graph"));
    found
}

/// Of a task, a compensation or a template: a `container` has none of its own.
fn of_work<'a>(work: &'a Value, path: &str) -> Vec<(String, &'a str)> {
    named(&work["job"]["template"]["spec"], &format!("{path}.job.template.spec"))
}

fn named<'a>(pod: &'a Value, path: &str) -> Vec<(String, &'a str)> {
    let name = |field: &str| pod[field].as_str().filter(|name| !name.is_empty() && *name != DEFAULT);
    FIELDS.iter().filter_map(|field| Some((format!("{path}.{field}"), name(field)?))).collect()
}

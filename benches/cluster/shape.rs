//! The graphs that are measured.

use serde_json::{Value, json};

/// A graph by its dependencies.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Its name in tables.
    pub name: String,
    /// `dependencies[i]`: the tasks that task `i` waits for.
    pub dependencies: Vec<Vec<usize>>,
}

impl Shape {
    /// Each task waits for the one before.
    pub fn chain(length: usize) -> Self {
        let dependencies = (0..length).map(|place| place.checked_sub(1).into_iter().collect()).collect();
        Self { name: format!("chain {length}"), dependencies }
    }

    /// One task, then all but one side by side, then one that waits for all of them.
    pub fn fan(size: usize) -> Self {
        let mut dependencies = vec![vec![]];
        dependencies.extend((2..size).map(|_| vec![0]));
        dependencies.push((1..size.saturating_sub(1)).collect());
        Self { name: format!("fan {size}"), dependencies }
    }

    /// Layers of `width`; each task waits for two of the layer before.
    pub fn layers(size: usize, width: usize) -> Self {
        let before = |place: usize| match place.checked_sub(width) {
            None => vec![],
            Some(above) => vec![above, above - above % width + (above + 1) % width],
        };
        Self { name: format!("layers {size}"), dependencies: (0..size).map(before).collect() }
    }

    /// How many tasks it has.
    pub fn size(&self) -> usize {
        self.dependencies.len()
    }

    /// `dependents[i]`: the tasks that wait for task `i`.
    pub fn dependents(&self) -> Vec<Vec<usize>> {
        let mut dependents = vec![vec![]; self.size()];
        for (task, dependencies) in self.dependencies.iter().enumerate() {
            for dependency in dependencies {
                dependents[*dependency].push(task);
            }
        }
        dependents
    }

    /// The same graph as a `TaskGraph`'s spec, its pods on kwok's machines.
    pub fn spec(&self) -> Value {
        let tasks: Vec<Value> = self
            .dependencies
            .iter()
            .enumerate()
            .map(|(place, dependencies)| {
                let names: Vec<String> = dependencies.iter().map(|dependency| task_name(*dependency)).collect();
                json!({"name": task_name(place), "dependsOn": names, "container": container()})
            })
            .collect();
        json!({"tasks": tasks, "podDefaults": {"nodeSelector": node_selector(), "tolerations": tolerations()}})
    }
}

/// Name of the task at a place.
pub fn task_name(place: usize) -> String {
    format!("t{place}")
}

/// What every task runs; kwok does not look at it.
pub fn container() -> Value {
    json!({"image": "localhost/busybox:1", "imagePullPolicy": "Never", "command": ["true"]})
}

/// Only kwok's machines.
pub fn node_selector() -> Value {
    json!({"type": "kwok"})
}

/// Their taint, and any other.
pub fn tolerations() -> Value {
    json!([{"operator": "Exists"}])
}

//! Graphs of several shapes that wait for a word before they end, so that what happens to the operator happens in mid-run.

use anyhow::Result;
use serde_json::{Value, json};
use taskgraph::api::TaskGraph;

use crate::{
    support::namespace::{finished, line, status, task},
    world::{World, graph, shell},
};

/// What a child graph of [`items`] runs.
const PAIR: &str = "pair";
/// Tasks of [`swift`], one after the other.
const SWIFT: usize = 80;

/// One shape.
struct Shape {
    name: &'static str,
    spec: Value,
    /// How it ends.
    condition: &'static str,
    /// Phases and attempts of all tasks, as [`line`] has them.
    line: String,
    /// Outputs of one task.
    outputs: Option<(&'static str, Value)>,
}

/// Graphs of all shapes, begun together.
pub struct Wave {
    prefix: &'static str,
    shapes: Vec<Shape>,
}

impl Wave {
    /// Makes the template that some of them use.
    pub async fn prepare(world: &World) -> Result<()> {
        let graph = json!({
            "tasks": [shell("first", &[], "sleep 1"), with(shell("second", &["first"], "printf '{\"twice\": %d}' $((2 * N)) > /dev/termination-log"), "N", "${{ args.n }}")],
            "outputs": [{"name": "twice", "value": "tasks.second.outputs.twice"}],
        });
        let spec = json!({"parameters": [{"name": "n", "type": "integer", "required": true}], "graph": graph});
        let template = json!({"apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskTemplate", "metadata": {"name": PAIR}, "spec": spec});
        world.apply(&template.to_string()).await?;
        Ok(())
    }

    /// Applies them, and waits until they run.
    pub async fn begin(world: &World, prefix: &'static str) -> Result<Self> {
        let wave = Self { prefix, shapes: vec![chain(), fan(), items(), undone(), swift()] };
        let graphs: Vec<Value> = wave.shapes.iter().map(|shape| graph(&wave.name(shape), shape.spec.clone())).collect();
        world.apply(&json!({"apiVersion": "v1", "kind": "List", "items": graphs}).to_string()).await?;
        let runs = |graph: &TaskGraph| task(graph, "t1").is_some_and(|task| task.attempts > 0);
        world.namespace.until(&wave.name(&wave.shapes[0]), "in mid-run", runs).await;
        Ok(wave)
    }

    /// Gives the word, as the embedded cluster's `admin`. None of them has ended before.
    pub async fn release(&self, world: &World) -> Result<()> {
        for shape in &self.shapes {
            let name = self.name(shape);
            let graph = world.namespace.graphs().get(&name).await?;
            assert_eq!(finished(&graph), None, "{name} waits for the word");
            let approval = json!({"task": "go", "attempt": 1, "decision": "Approved", "by": "admin"});
            world.namespace.edit(&name, json!({"approvals": [approval]})).await?;
        }
        Ok(())
    }

    /// Waits until all have ended, and checks that each did as if nothing had happened to the operator.
    pub async fn ended(&self, world: &World) -> Result<()> {
        for shape in &self.shapes {
            let name = self.name(shape);
            let graph = world.namespace.until_finished(&name).await;
            assert_eq!((finished(&graph), line(&graph)), (Some(shape.condition), shape.line.clone()), "{name}");
            if let Some((of, expected)) = &shape.outputs {
                let outputs = task(&graph, of).map(|task| Value::Object(task.outputs));
                assert_eq!(outputs.as_ref(), Some(expected), "{name}");
            }
            let history: Vec<_> = status(&graph).history.into_iter().map(|entry| entry.event).collect();
            let undone = (shape.condition == "Failed").then_some("Compensating");
            let expected: Vec<_> = ["Accepted", "Approved"].into_iter().chain(undone).chain(["Finished"]).collect();
            assert_eq!(history, expected, "{name}: each once");
        }
        Ok(())
    }

    fn name(&self, shape: &Shape) -> String {
        format!("{}-{}", self.prefix, shape.name)
    }
}

/// With a variable.
fn with(mut task: Value, name: &str, value: &str) -> Value {
    task["container"]["env"] = json!([{"name": name, "value": value}]);
    task
}

/// With further fields.
fn and(mut task: Value, more: Value) -> Value {
    if let (Some(task), Value::Object(more)) = (task.as_object_mut(), more) {
        task.extend(more);
    }
    task
}

/// The word.
fn go(depends_on: &[&str]) -> Value {
    json!({"name": "go", "dependsOn": depends_on, "approval": {}})
}

/// A task that adds one to what `before` left.
fn one_more(name: &str, before: Option<&str>, line: &str) -> Value {
    let count = before.map_or("0".to_owned(), |before| format!("${{{{ tasks.{before}.outputs.n }}}}"));
    let line = format!("{line}; echo \"{{\\\"n\\\": $((N + 1))}}\" > /dev/termination-log");
    with(shell(name, before.as_slice(), &line), "N", &count)
}

/// One after the other, each with what the one before left; one of them fails first.
fn chain() -> Shape {
    let mut tasks = vec![one_more("t0", None, "sleep 1")];
    for (place, before) in ["t0", "t1", "t2", "t3", "t4"].into_iter().enumerate() {
        tasks.push(one_more(&format!("t{}", place + 1), Some(before), "sleep 1"));
    }
    tasks[3] = and(
        one_more("t3", Some("t2"), "[ \"$TASKGRAPH_ATTEMPT\" -gt 1 ]"),
        json!({"retry": {"limit": 1, "backoff": {"initial": "1s"}}}),
    );
    let last = and(one_more("last", Some("t5"), "true"), json!({"dependsOn": ["t5", "go"]}));
    tasks.extend([go(&["t2"]), last]);
    Shape {
        name: "chain",
        spec: json!({"tasks": tasks, "finally": [shell("end", &[], "true")]}),
        condition: "Complete",
        line:
            "t0=Succeeded/1 t1=Succeeded/1 t2=Succeeded/1 t3=Succeeded/2 t4=Succeeded/1 t5=Succeeded/1 go=Succeeded/1 \
               last=Succeeded/1 end=Succeeded/1"
                .into(),
        outputs: Some(("last", json!({"n": 7}))),
    }
}

/// Many, some at a time, and a decision over what they left; one runs longer than the operator is away.
fn fan() -> Shape {
    let mut tasks: Vec<Value> = (0..6).map(|place| shell(&format!("w{place}"), &[], "sleep 1")).collect();
    tasks.push(shell("long", &[], "sleep 15; echo '{\"rows\": 3}' > /dev/termination-log"));
    let branches = json!({"branches": [{"name": "many", "when": "tasks.long.outputs.rows > 2"}, {"name": "few"}]});
    tasks.push(go(&["w0"]));
    tasks.push(json!({"name": "settle", "dependsOn": ["w1"], "delay": {"duration": "5s"}}));
    tasks.push(json!({"name": "choice", "dependsOn": ["long", "go", "settle"], "decision": branches}));
    tasks.extend([shell("many", &["choice/many"], "true"), shell("few", &["choice/few"], "true")]);
    let ran: Vec<_> = (0..6).map(|place| format!("w{place}=Succeeded/1 ")).collect();
    Shape {
        name: "fan",
        spec: json!({"parallelism": 3, "tasks": tasks}),
        condition: "Complete",
        line: ran.concat()
            + "long=Succeeded/1 go=Succeeded/1 settle=Succeeded/1 choice=Succeeded/0 many=Succeeded/1 few=Skipped/0",
        outputs: None,
    }
}

/// Items in one Job, and items that are child graphs.
fn items() -> Shape {
    let square =
        "sleep 1; n=$(cat /var/run/taskgraph/item); printf '{\"square\": %d}' $((n * n)) > /dev/termination-log";
    let each = and(
        shell("each", &[], square),
        json!({"forEach": {"items": [1, 2, 3, 4], "parallelism": 2}, "outputs": [{"name": "square", "type": "integer"}]}),
    );
    let pairs = json!({"name": "pairs", "templateRef": {"name": PAIR}, "arguments": {"n": "${{ item }}"},
        "forEach": {"strategy": "PerItem", "items": [5, 6], "parallelism": 1}});
    let all = "echo \"{\\\"all\\\": \\\"$A $B\\\"}\" > /dev/termination-log";
    let mut join = shell("join", &["each", "pairs", "go"], all);
    join["container"]["env"] = json!([
        {"name": "A", "value": "${{ tasks.each.outputs.square }}"}, {"name": "B", "value": "${{ tasks.pairs.outputs.twice }}"},
    ]);
    Shape {
        name: "items",
        spec: json!({"tasks": [each, pairs, go(&[]), join]}),
        condition: "Complete",
        line: "each=Succeeded/1 pairs=Succeeded/1 go=Succeeded/1 join=Succeeded/1".into(),
        outputs: Some(("join", json!({"all": "[1,4,9,16] [10,12]"}))),
    }
}

/// What fails after the word, and is undone in reverse.
fn undone() -> Shape {
    let undo = |line: &str| json!({"compensate": {"container": shell("x", &[], line)["container"]}});
    let mut pay = and(shell("pay", &["book"], "sleep 1"), undo("[ \"$TASKGRAPH_ATTEMPT\" -gt 1 ]"));
    pay["compensate"]["retry"] = json!({"limit": 1, "backoff": {"initial": "1s"}});
    let tasks =
        json!([and(shell("book", &[], "sleep 1"), undo("true")), pay, go(&["pay"]), shell("ship", &["go"], "exit 1")]);
    Shape {
        name: "undone",
        spec: json!({"tasks": tasks, "finally": [shell("end", &[], "true")]}),
        condition: "Failed",
        line:
            "book=Succeeded/1 undo:book=Succeeded/1 pay=Succeeded/1 undo:pay=Succeeded/2 go=Succeeded/1 ship=Failed/1 \
               end=Succeeded/1"
                .into(),
        outputs: None,
    }
}

/// One after the other as fast as it can go, on the machines of kwok, where pods end at once.
fn swift() -> Shape {
    let name = |place: usize| format!("t{place}");
    let before = |place: usize| place.checked_sub(1).map(name);
    let mut tasks: Vec<Value> =
        (0..SWIFT).map(|place| shell(&name(place), before(place).as_deref().as_slice(), "true")).collect();
    tasks.extend([go(&[]), shell("last", &["go", &name(SWIFT - 1)], "true")]);
    let ran: Vec<_> = (0..SWIFT).map(|place| format!("{}=Succeeded/1 ", name(place))).collect();
    Shape {
        name: "swift",
        spec: json!({"tasks": tasks, "podDefaults": {"nodeSelector": {"type": "kwok"}, "tolerations": [{"operator": "Exists"}]}}),
        condition: "Complete",
        line: ran.concat() + "go=Succeeded/1 last=Succeeded/1",
        outputs: None,
    }
}

//! What expressions give, and that none of them can do harm.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::engine::expr::functions::MAX_ELEMENTS;

struct Tasks(Vec<(TaskPhase, Map<String, Value>, u32)>);

impl TaskLookup for Tasks {
    fn task(&self, id: TaskId) -> (TaskPhase, &Map<String, Value>, u32) {
        let (phase, outputs, attempts) = &self.0[id.index()];
        (*phase, outputs, *attempts)
    }
}

fn find(name: &str) -> Result<TaskId, String> {
    match name {
        "a" => Ok(TaskId(0)),
        "build-image" => Ok(TaskId(1)),
        "skipped" => Ok(TaskId(2)),
        _ => Err(format!("no task {name:?}")),
    }
}

fn parsed(text: &str) -> Result<Expression, Vec<String>> {
    compile::compile(text, &mut find)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// Evaluates over a small world.
fn eval(text: &str) -> Result<Value, String> {
    eval_with(
        text,
        json!({"source": "orders.csv", "n": 3, "half": 0.5, "list": [3, 1, 2], "nested": {"a-b": [{"x": 1}]}, "none": null}),
    )
}

fn eval_with(text: &str, arguments: Value) -> Result<Value, String> {
    let expression = parsed(text).map_err(|problems| problems.join("; "))?;
    let outputs = object(
        json!({"rows": 10, "quality": 1, "ratio": 0.97, "names": ["x", "y"], "by": {"eu": 1, "as": 2, "af": 3}}),
    );
    let tasks = Tasks(vec![
        (TaskPhase::Succeeded, outputs, 2),
        (TaskPhase::Failed, Map::new(), 1),
        (TaskPhase::Skipped, Map::new(), 0),
    ]);
    let identity = Identity { name: "g".into(), namespace: "ns".into(), uid: "u-1".into() };
    let arguments = object(arguments);
    let scope = Scope {
        identity: &identity,
        arguments: &arguments,
        tasks: &tasks,
        attempt: Some(2),
        item: None,
        failure: Some((Some(137), "OOMKilled")),
    };
    expression.eval(&scope).map_err(|error| error.0)
}

#[test]
fn values() {
    for (text, value) in [
        // what is named
        ("args.source", json!("orders.csv")),
        ("args.nested[\"a-b\"][0].x", json!(1)),
        ("args.nested", json!({"a-b": [{"x": 1}]})),
        ("args[\"source\"]", json!("orders.csv")),
        ("graph.name + '/' + graph.namespace + '/' + graph.uid", json!("g/ns/u-1")),
        ("graph", json!({"name": "g", "namespace": "ns", "uid": "u-1"})),
        ("tasks.a.outputs.rows", json!(10)),
        (
            "tasks.a.outputs",
            json!({"rows": 10, "quality": 1, "ratio": 0.97, "names": ["x", "y"], "by": {"eu": 1, "as": 2, "af": 3}}),
        ),
        ("tasks.a.phase", json!("Succeeded")),
        ("tasks.a.attempts", json!(2)),
        ("tasks[\"build-image\"].phase == 'Failed'", json!(true)),
        ("tasks['skipped']", json!({"phase": "Skipped", "outputs": {}, "attempts": 0})),
        ("attempt", json!(2)),
        ("exitCode > 128 && reason == 'OOMKilled'", json!(true)),
        // numbers compare and compute by what they are worth
        ("tasks.a.outputs.quality > 0.95", json!(true)),
        ("tasks.a.outputs.quality == 1.0", json!(true)),
        ("0.95 < tasks.a.outputs.quality", json!(true)),
        ("tasks.a.outputs.ratio >= 1", json!(false)),
        ("args.n + args.half", json!(3.5)),
        ("args.half * args.n", json!(1.5)),
        ("args.n / args.half", json!(6.0)),
        ("args.n - 0.5", json!(2.5)),
        ("7 / 2", json!(3)),
        ("7 % 2", json!(1)),
        ("-args.n", json!(-3)),
        ("args.n in [1.0, 3.0]", json!(true)),
        ("9223372036854775808u", json!(9_223_372_036_854_775_808_u64)),
        // presence
        ("has(args.source) && !has(args.other)", json!(true)),
        ("has(tasks.a.outputs.rows)", json!(true)),
        ("has(tasks.skipped.outputs.rows) ? tasks.skipped.outputs.rows : 0", json!(0)),
        ("'rows' in tasks.a.outputs", json!(true)),
        ("tasks.skipped.outputs.?rows.orValue(7)", json!(7)),
        ("tasks.a.outputs[?'rows'].orValue(7)", json!(10)),
        ("args.none == null", json!(true)),
        // an absent value is an error only where it is come to
        ("true || tasks.skipped.outputs.rows > 1", json!(true)),
        ("tasks.skipped.phase == 'Skipped' ? 1 : tasks.skipped.outputs.rows", json!(1)),
        // functions and macros
        ("size(args.list) + args.list.size()", json!(6)),
        ("args.source.endsWith('.csv') && args.source.startsWith('o') && args.source.contains('der')", json!(true)),
        (r"args.source.matches('^[a-z]+\\.csv$')", json!(true)),
        ("matches(args.source, 'x')", json!(false)),
        ("string(args.n) + 'x'", json!("3x")),
        ("int('12') + int(2.9)", json!(14)),
        ("double(1)", json!(1.0)),
        ("type(args.n) == int && type('') == string", json!(true)),
        ("args.list.map(x, x * 2)", json!([6, 2, 4])),
        ("args.list.map(x, x > 1, x + 0.5)", json!([3.5, 2.5])),
        ("args.list.filter(x, x > 1)", json!([3, 2])),
        ("args.list.exists(x, x == 2) && args.list.all(x, x > 0) && args.list.exists_one(x, x == 1)", json!(true)),
        ("tasks.a.outputs.by.map(k, k)", json!(["af", "as", "eu"])),
        ("args.list.map(x, args.list.filter(y, y < x))", json!([[1, 2], [], [1]])),
        ("{'b': 1, 'a': [2.5, null, true]}", json!({"a": [2.5, null, true], "b": 1})),
        ("[1, 2] + [3]", json!([1, 2, 3])),
        ("'é' + \"ü\"", json!("éü")),
        ("'rm -rf $(HOME)'", json!("rm -rf $(HOME)")),
    ] {
        assert_eq!(eval(text), Ok(value), "{text}");
    }
}

#[test]
fn objects_of_a_result_are_in_order_every_time() {
    let first = eval("{'z': 1, 'm': 2, 'a': 3, 'q': tasks.a.outputs.by}").unwrap().to_string();
    for _ in 0..20 {
        assert_eq!(eval("{'z': 1, 'm': 2, 'a': 3, 'q': tasks.a.outputs.by}").unwrap().to_string(), first);
    }
}

#[test]
fn errors() {
    for (text, wrong) in [
        ("tasks.a.outputs.colour", "task \"a\" has no output \"colour\": it left rows, quality, ratio"),
        ("tasks.skipped.outputs.rows + 1", "task \"skipped\" has no output \"rows\": it is Skipped and left none"),
        ("tasks.a.outputs.names[7]", "output \"names\" has no element 7"),
        ("args.nested.b", "argument \"nested\" has no member \"b\""),
        ("args.other", "there is no argument \"other\""),
        ("args.source > 1", "> cannot be applied to string and int"),
        ("args.source + 1", "+ cannot be applied to string and int"),
        ("args.source && true", "&& cannot be applied"),
        ("1 / 0", "divides by zero"),
        ("1.0 / 0", "no finite number"),
        ("9223372036854775807 + 1", "too large"),
        ("args.list[5]", "has no element 5"),
        ("int('x')", "x"),
        ("args.n.map(x, x)", "must be a list or a map"),
        ("tasks.a.outputs.?rows", ".orValue"),
        ("b'x'", "no place in JSON"),
    ] {
        let error = eval(text).unwrap_err();
        assert!(error.contains(wrong), "{text}: {error}");
        assert!(error.starts_with('`'), "the text of the expression is named: {error}");
    }
}

#[test]
fn conditions_must_be_booleans() {
    let expression = parsed("args.n").unwrap();
    let identity = Identity::default();
    let arguments = object(json!({"n": 3}));
    let scope = Scope {
        identity: &identity,
        arguments: &arguments,
        tasks: &Tasks(vec![]),
        attempt: None,
        item: None,
        failure: None,
    };
    assert_eq!(
        expression.eval_bool(&scope).unwrap_err().0,
        "`args.n`: the value is the number 3, and must be true or false"
    );
    assert_eq!(parsed("args.n == 3").unwrap().eval_bool(&scope), Ok(true));
    // `exitCode` is null where no container ended
    let scope = Scope { failure: Some((None, "JobLost")), ..scope };
    assert_eq!(parsed("exitCode == null && reason == 'JobLost'").unwrap().eval_bool(&scope), Ok(true));
    assert_eq!(parsed("exitCode == 137").unwrap().eval_bool(&scope), Ok(false));
}

#[test]
fn refused() {
    for (text, wrong) in [
        ("", "is empty"),
        ("1 +", "does not parse: line 1, column"),
        ("a b", "does not parse"),
        ("foo == 1", "no variable \"foo\""),
        ("arg.source", "no variable \"arg\" (did you mean \"args\"?)"),
        ("now()", "no function \"now\""),
        ("args.source.startWith('x')", "no function \"startWith\" (did you mean \"startsWith\"?)"),
        ("timestamp('2026-01-01T00:00:00Z')", "no function \"timestamp\""),
        ("optional.some(1)", "no function \"some\""),
        ("tasks.x.outputs.y", "no task \"x\""),
        ("tasks", "must be followed by the name of a task"),
        ("tasks[args.n].phase", "must be followed by the name of a task"),
        ("tasks.all(t, true)", "must be followed by the name of a task"),
        ("tasks.a.output.x", "no \"output\" (did you mean \"outputs\"?)"),
        ("tasks.a.phase.x", "had a member \"x\""),
        ("graph.id", "graph has name, namespace, uid, and no \"id\""),
        ("attempt.x", "had a member \"x\""),
        ("args[0]", "no list"),
        ("tasks.build-image.outputs.x", "tasks.build-image is a subtraction: write tasks[\"build-image\"]"),
        ("1 + tasks.build-image.outputs.x-1", "tasks.build-image is a subtraction"),
        ("tasks.biuld-image.phase", "is a subtraction: write tasks[\"biuld-image\"]; no task"),
        ("tasks.a-1.phase", "tasks.a-1 is a subtraction"),
        ("[1].map(args, args)", "\"args\" has a meaning of its own"),
        ("[1].map(a, [1].map(b, [1].map(c, c)))", "nest more than 2 deep"),
        ("Foo{x: 1}", "no type \"Foo\""),
        ("args.source.matches(args.n)", "must be a text in quotes"),
        ("args.source.matches('(')", "no regular expression"),
        ("args.source.matches('((a{100}){100}){100}')", "too costly"),
        ("args.source.matches()", "takes a text and a pattern"),
    ] {
        let problems = parsed(text).map(|_| ()).unwrap_err();
        assert!(problems.iter().any(|problem| problem.contains(wrong)), "{text}: {problems:?}");
    }
    assert_eq!(parsed("foo + bar + tasks.x.phase").unwrap_err().len(), 3, "all at once");
    // no subtraction of a name
    for text in ["tasks.a.attempts-1", "'tasks.build-image'", "tasks.a.attempts - args.n", "args.tasks.a-1 == 1"] {
        assert!(parsed(text).is_ok(), "{text}");
    }
}

#[test]
fn the_known_functions_are_known_to_the_interpreter() {
    for (name, text) in functions::GLOBAL.iter().zip([
        "bool('true')",
        "bytes('x') == b'x'",
        "double(1)",
        "dyn(1)",
        "has(args.x)",
        "int(1)",
        "matches('a', 'a')",
        "size('a')",
        "string(1)",
        "type(1) == int",
        "uint(1)",
    ]) {
        assert!(text.starts_with(name));
        assert!(eval(text).is_ok(), "{text}: {:?}", eval(text));
    }
    for text in [
        "[1].all(x, true)",
        "'a'.contains('a')",
        "'a'.endsWith('a')",
        "[1].exists(x, true)",
        "[1].existsOne(x, true)",
        "[1].exists_one(x, true)",
        "[1].filter(x, true)",
        "optional.of(1).hasValue()",
        "[1].map(x, x)",
        "'a'.matches('a')",
        "optional.none().or(optional.of(1)).value()",
        "optional.none().orValue(1)",
        "[1].size()",
        "'a'.startsWith('a')",
        "optional.ofNonZeroValue(1).value()",
    ] {
        assert!(eval(text).is_ok(), "{text}: {:?}", eval(text));
    }
}

/// None of these may take long, however large the data.
#[test]
fn costs_are_bounded() {
    let list: Vec<u32> = (0..1000).collect();
    let long = "x".repeat(400_000);
    let arguments = json!({"list": list, "many": (0..=MAX_ELEMENTS).collect::<Vec<_>>(), "long": long, "texts": vec![&long[..600]; 1000]});
    let doubled = |times: usize| format!("[args.long]{}", ".map(a, a + a)".repeat(times));
    let widened = |times: usize| format!("[args.long]{}", ".map(a, [a,a,a,a,a,a,a,a])".repeat(times));
    for (text, wrong) in [
        ("args.many.all(x, true)".to_owned(), "runs over 1001 elements; the limit is 1000"),
        ("args.list.all(x, args.list.all(y, x + y >= 0 && x * y >= 0))".to_owned(), "costs too much"),
        ("args.list.exists(x, args.list.exists(y, args.long == args.long + 'a'))".to_owned(), "costs too much"),
        ("args.texts.all(x, args.texts.all(y, x == y))".to_owned(), "costs too much"),
        (doubled(40), "costs too much"),
        (widened(40), "costs too much"),
    ] {
        let start = std::time::Instant::now();
        let error = eval_with(&text, arguments.clone()).unwrap_err();
        assert!(error.contains(wrong), "{text}: {error}");
        assert!(start.elapsed() < std::time::Duration::from_secs(20), "{text}: {:?}", start.elapsed());
    }
    // and what is reasonable goes
    assert_eq!(eval_with("args.list.all(x, x >= 0 && x < 1000)", arguments.clone()), Ok(json!(true)));
    assert_eq!(
        eval_with("args.list.filter(x, x % 100 == 0).map(x, args.list.exists(y, y == x))", arguments.clone()),
        Ok(json!(vec![true; 10]))
    );
    assert_eq!(eval_with("size(args.long)", arguments), Ok(json!(400_000)));
}

/// The longest and deepest texts within the limits fit a thread's stack.
#[test]
fn deep_expressions_fit_the_stack() {
    let nested = |open: &str, close: &str, times: usize| format!("{}1{}", open.repeat(times), close.repeat(times));
    let texts = [
        format!("1{}", "+1".repeat(98)),
        format!("1{}", "+1".repeat(200)),
        format!("1{}", " + 1.5".repeat(98)),
        format!("[[1]]{}", "[0]".repeat(98)),
        format!("[1]{}", ".map(x,x)".repeat(90)),
        format!("true{}", " || true".repeat(200)),
        format!("{}true", "!".repeat(200)),
        format!("{}1", "true ? 1 : ".repeat(95)),
        format!("args.x{}", ".x".repeat(299)),
        format!("[[1]]{}", "[0]".repeat(298)),
        format!("[1]{}", ".map(x,x)".repeat(149)),
        format!("[1]{}", ".map(x,[x])".repeat(90)),
        nested("(", ")", 24),
        nested("[", "]", 24),
        nested("{1:", "}", 24),
        nested("size(", ")", 24),
        format!("{}1{}", "(1+1+1+1+".repeat(24), ")".repeat(24)),
    ];
    for text in texts {
        // half of what threads have by default
        let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(move || match parsed(&text) {
            Ok(_) => drop(eval(&text)),
            Err(problems) => {
                assert!(problems.iter().all(|problem| problem.contains("levels deep")), "{text}: {problems:?}");
            }
        });
        thread.unwrap().join().unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_text_is_taken(text in ".{0,200}") {
        drop(eval(&text));
    }

    /// Texts made of what expressions are made of.
    #[test]
    fn any_tokens_are_taken(tokens in prop::collection::vec(prop::sample::select(vec![
        "args", "tasks", "graph", "attempt", ".", "a", "outputs", "phase", "[", "]", "(", ")", "{", "}", "'x'", "\"", "'", "r'", "'''", "1", "2.5", "0u", "-",
        "+", "*", "/", "%", "!", "&&", "||", "==", "<", ">=", "?", ":", ",", "in", "has(", ".map(", "x", ",x)", ".exists(x,", "size(", "true", "null",
        ".?", "[?", " ", "\\", "`", "@", "//", "\n", "💥", "b'\\xff'", ".matches('a')", ".matches(", "9999999999999999999999", "1e999", "0x", "optional.of(",
    ]), 0..40)) {
        drop(eval(&tokens.concat()));
    }

    /// Trees that parse, over values of every type: evaluation gives a value or an error.
    #[test]
    fn any_tree_is_evaluated(tree in tree()) {
        if parsed(&tree).is_ok() {
            drop(eval(&tree));
        }
    }
}

fn tree() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "1",
        "-7",
        "2.5",
        "0",
        "'t'",
        "''",
        "true",
        "null",
        "b'x'",
        "3u",
        "[]",
        "{}",
        "args.list",
        "args.source",
        "args.none",
        "args.nested",
        "args.gone",
        "tasks.a.outputs",
        "tasks.a.outputs.by",
        "tasks.skipped.outputs.x",
        "attempt",
        "graph",
        "int",
        "optional.none()",
        "9223372036854775807",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(4, 24, 3, |inner| {
        let operator = prop::sample::select(vec!["+", "-", "*", "/", "%", "==", "!=", "<", ">=", "&&", "||", "in"]);
        let function = prop::sample::select(vec![
            "size", "string", "int", "double", "bool", "uint", "bytes", "type", "dyn", "-", "!",
        ]);
        let makro = prop::sample::select(vec!["map", "filter", "all", "exists", "exists_one"]);
        prop_oneof![
            (inner.clone(), operator, inner.clone())
                .prop_map(|(left, operator, right)| format!("({left} {operator} {right})")),
            (function, inner.clone()).prop_map(|(function, argument)| format!("{function}({argument})")),
            (inner.clone(), makro, inner.clone())
                .prop_map(|(range, makro, body)| format!("{range}.{makro}(x, {body})")),
            (inner.clone(), inner.clone()).prop_map(|(list, index)| format!("{list}[{index}]")),
            (inner.clone(), inner.clone()).prop_map(|(one, other)| format!("[{one}, {other}, {{'k': {one}}}]")),
            (inner.clone(), inner.clone(), inner)
                .prop_map(|(condition, one, other)| format!("({condition} ? {one} : {other})")),
        ]
    })
}

//! YAML and JSON as trees whose every part knows its line.
//!
//! A file is cut into documents first, as `kubectl` does it, so that a broken document hides
//! nothing of the others. All that a file can make grow (nesting, aliases, nodes, text) is bounded.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Options, Spanned};

/// The deepest nesting that is read. Kubernetes' own objects stay well below.
const MAX_DEPTH: usize = 64;
/// The most parts (lists, maps, scalars) of one document, aliases resolved: several times what fits
/// into etcd, so that a graph that is too large is still told so by the bounds of its fields.
const MAX_NODES: usize = 600_000;
/// Stack for the reading of one document, in bytes.
const STACK: usize = 16 * 1024 * 1024;
/// The most text of one document, in bytes, aliases resolved.
const MAX_TEXT: usize = 32 * 1024 * 1024;

/// A value, and the line where it begins.
#[derive(Debug)]
pub struct Node {
    /// Line in the file, from 1; 0 where it is not known.
    pub line: u64,
    /// The value.
    pub kind: NodeKind,
}

/// A value of JSON.
#[derive(Debug)]
pub enum NodeKind {
    /// `null`, a boolean, a number or a text.
    Scalar(Value),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file.
    Map(Vec<(Key, Node)>),
}

/// Key of a map, and its line.
#[derive(Debug)]
pub struct Key {
    /// Line in the file, from 1; 0 where it is not known.
    pub line: u64,
    /// The key.
    pub name: String,
}

/// Why a document cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Line in the file, from 1, if known.
    pub line: Option<u64>,
    /// Column, from 1, if known.
    pub column: Option<u64>,
    /// What is wrong.
    pub message: String,
}

impl Node {
    /// The member of a map.
    pub fn get(&self, name: &str) -> Option<&Node> {
        match &self.kind {
            NodeKind::Map(members) => members.iter().find(|(key, _)| key.name == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text of a member.
    pub fn text(&self, name: &str) -> Option<&str> {
        match &self.get(name)?.kind {
            NodeKind::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// As JSON, without the lines.
    pub fn to_json(&self) -> Value {
        match &self.kind {
            NodeKind::Scalar(value) => value.clone(),
            NodeKind::List(items) => items.iter().map(Self::to_json).collect(),
            NodeKind::Map(members) => {
                members.iter().map(|(key, value)| (key.name.clone(), value.to_json())).collect::<Map<_, _>>().into()
            }
        }
    }

    /// Line of what a field path like `spec.tasks[3].dependsOn[0]` names, or of the nearest part
    /// around it that exists.
    pub fn line_of(&self, path: &str) -> u64 {
        let (mut node, mut line, mut rest) = (self, self.line, path);
        loop {
            let (next, next_line, tail) = match &node.kind {
                NodeKind::Scalar(_) => return line,
                NodeKind::List(items) => {
                    match index_segment(rest).and_then(|(index, tail)| Some((items.get(index)?, tail))) {
                        Some((item, tail)) => (item, item.line, tail),
                        None => return line,
                    }
                }
                NodeKind::Map(members) => match member_segment(members, rest) {
                    Some((key, value, tail)) => (value, key.line, tail),
                    None => return line,
                },
            };
            if next_line > 0 {
                line = next_line;
            }
            (node, rest) = (next, tail);
        }
    }
}

/// `[3].rest` as `(3, ".rest")`.
fn index_segment(path: &str) -> Option<(usize, &str)> {
    let (index, tail) = path.strip_prefix('[')?.split_once(']')?;
    Some((index.parse().ok()?, tail))
}

/// The member that a path begins with: `name`, `.name`, `[name]` or `["name"]`. Names may hold dots, as
/// labels do: the longest that fits wins.
fn member_segment<'n, 'p>(members: &'n [(Key, Node)], path: &'p str) -> Option<(&'n Key, &'n Node, &'p str)> {
    let bracketed = path.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    if let Some((name, tail)) = bracketed {
        let name = name.trim_matches('"');
        return members.iter().find(|(key, _)| key.name == name).map(|(key, value)| (key, value, tail));
    }
    let path = path.strip_prefix('.').unwrap_or(path);
    members
        .iter()
        .filter_map(|(key, value)| {
            let tail = path.strip_prefix(key.name.as_str())?;
            (!key.name.is_empty() && (tail.is_empty() || tail.starts_with(['.', '[', ':'])))
                .then_some((key, value, tail))
        })
        .max_by_key(|(key, ..)| key.name.len())
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::<NodeKind>::deserialize(deserializer)
            .map(|spanned| Self { line: spanned.referenced.line(), kind: spanned.value })
    }
}

impl<'de> Deserialize<'de> for NodeKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = NodeKind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON can hold")
    }

    fn visit_unit<E>(self) -> Result<NodeKind, E> {
        Ok(NodeKind::Scalar(Value::Null))
    }

    fn visit_none<E: de::Error>(self) -> Result<NodeKind, E> {
        self.visit_unit()
    }

    fn visit_bool<E>(self, value: bool) -> Result<NodeKind, E> {
        Ok(NodeKind::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<NodeKind, E> {
        Ok(NodeKind::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<NodeKind, E> {
        Ok(NodeKind::Scalar(value.into()))
    }

    // whole numbers beyond 64 bits: JSON readers take them as floating point, and so does this
    fn visit_i128<E: de::Error>(self, value: i128) -> Result<NodeKind, E> {
        #[expect(clippy::cast_precision_loss, reason = "as every JSON reader does")]
        self.visit_f64(value as f64)
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<NodeKind, E> {
        #[expect(clippy::cast_precision_loss, reason = "as every JSON reader does")]
        self.visit_f64(value as f64)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<NodeKind, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("infinity and NaN cannot be written in JSON"))?;
        Ok(NodeKind::Scalar(Value::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<NodeKind, E> {
        Ok(NodeKind::Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<NodeKind, E> {
        Ok(NodeKind::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<NodeKind, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(NodeKind::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NodeKind, A::Error> {
        let mut members = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            members.push((Key { line: key.referenced.line(), name: key.value }, map.next_value()?));
        }
        Ok(NodeKind::Map(members))
    }
}

/// One document of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document<'t> {
    /// Lines of the file before it.
    pub lines_before: u64,
    /// Its text, with the `---` that begins it.
    pub text: &'t str,
}

/// The documents of a file that say something, cut at lines that begin with `---`.
pub fn documents(text: &str) -> Vec<Document<'_>> {
    let mut found = Vec::new();
    let (mut start, mut start_line, mut says_something, mut directives) = (0, 0, false, false);
    let mut offset = 0;
    for (number, line) in (0..).zip(text.split_inclusive('\n')) {
        if is_separator(line) && !directives {
            if says_something {
                found.push(Document { lines_before: start_line, text: &text[start..offset] });
            }
            (start, start_line, says_something) = (offset, number, false);
        }
        // directives belong to the document after the next mark
        directives = line.starts_with('%') && !says_something || directives && !is_separator(line);
        says_something |= line_says_something(line);
        offset += line.len();
    }
    if says_something {
        found.push(Document { lines_before: start_line, text: &text[start..] });
    }
    found
}

fn is_separator(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

/// False for blank lines, comments, directives and bare document marks.
fn line_says_something(line: &str) -> bool {
    let content = if is_separator(line) { &line[3..] } else { line };
    let content = content.trim_start_matches('\u{feff}').trim();
    !(content.is_empty() || content.starts_with('#') || content == "..." || line.starts_with('%'))
}

/// Reads one document.
pub fn parse(document: Document<'_>) -> Result<Node, SyntaxError> {
    // the reader takes some 40 KiB of stack for each level when not optimized: 64 levels need room of their own
    let read = || {
        serde_saphyr::from_str_with_options::<Node>(document.text, options())
            .map_err(|error| syntax_error(document, &error))
    };
    let mut node =
        on_a_large_stack(read).unwrap_or_else(|message| Err(SyntaxError { line: None, column: None, message }))?;
    shift_lines(&mut node, document.lines_before);
    Ok(node)
}

fn on_a_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| format!("cannot start a thread to read it: {error}"))?;
        thread.join().map_err(|_| "the YAML reader gave up on it".to_owned())
    })
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
            max_total_scalar_bytes: MAX_TEXT,
            max_documents: 1,
            // one anchor used by a thousand tasks is fair: what aliases grow to is bounded by the nodes
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_NODES },
        // as kubectl reads them: 0644 is 420
        legacy_octal_numbers: true,
        with_snippet: false,
    }
}

fn syntax_error(document: Document<'_>, error: &serde_saphyr::Error) -> SyntaxError {
    let location = error.location().filter(|location| location.line() > 0);
    let message = error.without_snippet().to_string();
    SyntaxError {
        line: location.map(|location| location.line() + document.lines_before),
        column: location.map(|location| location.column()),
        // what follows counts lines from the start of the document
        message: message.split(" at line ").next().unwrap_or(&message).to_owned(),
    }
}

fn shift_lines(node: &mut Node, lines: u64) {
    let shift = |line: &mut u64| {
        if *line > 0 {
            *line += lines;
        }
    };
    shift(&mut node.line);
    match &mut node.kind {
        NodeKind::Scalar(_) => {}
        NodeKind::List(items) => items.iter_mut().for_each(|item| shift_lines(item, lines)),
        NodeKind::Map(members) => {
            for (key, value) in members {
                shift(&mut key.line);
                shift_lines(value, lines);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn only(text: &str) -> Result<Node, SyntaxError> {
        let documents = documents(text);
        assert_eq!(documents.len(), 1, "{text}");
        parse(documents[0])
    }

    #[test]
    fn cuts_a_file_into_documents() {
        let text = "# first\n---\na: 1\n---\n# nothing\n---\n\n--- # note\nb: |\n  --- not a mark\n  ---\n...\n";
        let found = documents(text);
        let lines: Vec<u64> = found.iter().map(|document| document.lines_before).collect();
        assert_eq!(lines, [1, 7]);
        assert_eq!(parse(found[0]).unwrap().to_json(), json!({"a": 1}));
        let second = parse(found[1]).unwrap();
        assert_eq!(second.to_json(), json!({"b": "--- not a mark\n---\n"}));
        assert_eq!(second.line_of("b"), 9);
        assert_eq!(
            documents("%YAML 1.2\n---\na: 1\n---\nb: 2\n").iter().map(|d| parse(*d).unwrap().line).collect::<Vec<_>>(),
            [3, 5]
        );
        assert!(documents("# only a comment\n---\n---\n").is_empty());
    }

    #[test]
    fn finds_the_line_of_a_path() {
        let node = only("spec:\n  labels:\n    taskgraph.dev/x: a\n  tasks:\n  - name: a\n  - name: b\n    dependsOn:\n    - c\n    - d\n").unwrap();
        for (path, line) in [
            ("spec", 1),
            ("spec.tasks[1].dependsOn[1]", 9),
            ("spec.tasks[1].dependsOn", 7),
            ("spec.tasks[1]", 6),
            ("spec.tasks[7].x", 4),
            ("spec.labels.taskgraph.dev/x", 3),
            ("spec.labels[\"taskgraph.dev/x\"]", 3),
            ("spec.labels[taskgraph.dev/x]", 3),
            ("spec.nothing.here", 1),
            ("", 1),
        ] {
            assert_eq!(node.line_of(path), line, "{path}");
        }
    }

    #[test]
    fn reads_scalars_as_kubectl_does() {
        let node = only("[yes, 'yes', 0644, 12, -3, 1.5, ~, text, 1e3]").unwrap();
        assert_eq!(node.to_json(), json!([true, "yes", 420, 12, -3, 1.5, null, "text", 1000.0]));
        assert_eq!(only("{\n\t\"a\":\t\"\\ud83d\\ude00\"}").unwrap().to_json(), json!({"a": "😀"}));
        assert!(only(".nan").is_err());
    }

    #[test]
    fn tells_where_the_syntax_breaks() {
        let documents = documents("a: 1\n---\nb: [1,\nc: 2\n");
        let error = parse(documents[1]).unwrap_err();
        assert_eq!((error.line, error.message.as_str()), (Some(3), "unclosed bracket '['"));
        let error = only("a: 1\na: 2\n").unwrap_err();
        assert_eq!(error.line, Some(2));
        assert!(error.message.contains("duplicate"), "{error:?}");
    }

    #[test]
    fn bounds_what_a_file_can_make_grow() {
        let laughs = (1..12).fold("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, level| {
            let alias = format!("*a{}", level - 1);
            format!("{text}a{level}: &a{level} [{}]\n", vec![alias; 10].join(", "))
        });
        assert!(only(&laughs).is_err());
        assert!(only(&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))).is_err());
        assert!(only(&"- ".repeat(100_000)).is_err());
        assert!(only(&format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000))).is_err());
        let many = format!("base: &base {{image: x}}\ntasks:\n{}", "- *base\n".repeat(5_000));
        assert!(only(&many).is_ok());
    }
}

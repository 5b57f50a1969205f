//! The functions of expressions, and the budget that the ones with costs draw on.
//!
//! CEL's own `+`, macros and `matches` cost as much as the data makes them; [`compile`](super::compile) replaces
//! them by the ones here. Their names begin with `@`, so that no text can name them.

use std::{
    any::Any,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use cel::{
    Env, ExecutionError,
    common::{
        ast::operators,
        types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelString, CelUInt, DYN_TYPE, Type},
        value::{CowVal, StaticVal, Val},
    },
};
use regex::Regex;

use super::convert;

/// Longest list or map that a macro runs over.
pub const MAX_ELEMENTS: usize = 1000;
/// What one evaluation may cost. A unit is a step of the interpreter or 16 bytes copied: some 20 to 100 ns.
const BUDGET: u64 = 4_000_000;

/// `@items(RANGE, COST, BUDGET)`: what a macro runs over, as a list.
pub const ITEMS: &str = "@items";
/// `@keep(VALUE, BUDGET)`: an element of the list that `map` or `filter` builds.
pub const KEEP: &str = "@keep";
/// `@matches(TEXT, PATTERN)`
pub const MATCHES: &str = "@matches";

/// Arithmetic, and the functions that stand for it.
pub const ARITHMETIC: [(&str, &str); 5] = [
    (operators::ADD, "@add"),
    (operators::SUBSTRACT, "@subtract"),
    (operators::MULTIPLY, "@multiply"),
    (operators::DIVIDE, "@divide"),
    (operators::MODULO, "@modulo"),
];

/// The functions that expressions may call, on their own (`size(x)`).
pub const GLOBAL: [&str; 11] =
    ["bool", "bytes", "double", "dyn", "has", "int", "matches", "size", "string", "type", "uint"];
/// The functions that expressions may call on a value (`x.size()`), and the macros.
pub const MEMBERS: [&str; 15] = [
    "all",
    "contains",
    "endsWith",
    "exists",
    "existsOne",
    "exists_one",
    "filter",
    "hasValue",
    "map",
    "matches",
    "or",
    "orValue",
    "size",
    "startsWith",
    "value",
];
/// The functions of `optional`.
pub const OPTIONAL: [&str; 3] = ["none", "of", "ofNonZeroValue"];
/// The names of types, for `type(x) == int`.
pub const TYPES: [&str; 11] =
    ["bool", "bytes", "double", "int", "list", "map", "null_type", "optional_type", "string", "type", "uint"];

/// The environment of every evaluation and of the parser.
pub fn environment() -> Arc<Env> {
    static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
        let mut environment = Env::stdlib();
        let functions: [(&str, usize, cel::common::functions::Function); 8] = [
            (ITEMS, 3, items),
            (KEEP, 2, keep),
            (MATCHES, 2, matches),
            ("@add", 3, add),
            ("@subtract", 3, subtract),
            ("@multiply", 3, multiply),
            ("@divide", 3, divide),
            ("@modulo", 3, modulo),
        ];
        for (name, arguments, function) in functions {
            let added = environment.add_overload(name, name, (0..arguments).map(|_| DYN_TYPE).collect(), function);
            debug_assert!(added.is_ok(), "{name} is declared once");
        }
        Arc::new(environment)
    });
    Arc::clone(&ENVIRONMENT)
}

/// The name of a function or operator as users write it.
pub fn shown(function: &str) -> String {
    let name = ARITHMETIC.iter().find(|(_, ours)| *ours == function).map_or(function, |(operator, _)| operator);
    name.trim_matches(|c| c == '_' || c == '@').to_owned()
}

/// What is left of an evaluation's budget. Clones share it.
#[derive(Clone, Debug)]
pub struct Budget(Arc<AtomicU64>);

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(BUDGET)))
    }
}

impl Budget {
    /// Takes `cost`, or fails if less is left.
    pub fn spend(&self, cost: u64) -> Result<(), ExecutionError> {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(cost));
        taken.map(|_| ()).map_err(|_| {
            // nothing more may be had, or an `exists` would go on trying
            self.0.store(0, Ordering::Relaxed);
            ExecutionError::function_error("", "the expression costs too much with these values")
        })
    }
}

/// A regular expression, compiled with the expression that it stands in.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl Pattern {
    /// Longest pattern, in bytes.
    const MAX_LENGTH: usize = 256;
    /// Bound on the size of the compiled pattern, which bounds the time to compile and to match it.
    const MAX_COMPILED: usize = 64 << 10;

    /// Compiles `pattern`, or says what is wrong with it.
    pub fn new(pattern: &str) -> Result<Self, String> {
        if pattern.len() > Self::MAX_LENGTH {
            return Err(format!(
                "the pattern of matches has {} bytes; the limit is {}",
                pattern.len(),
                Self::MAX_LENGTH
            ));
        }
        let compiled = regex::RegexBuilder::new(pattern).size_limit(Self::MAX_COMPILED).nest_limit(32).build();
        compiled.map(Self).map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => format!("the pattern {pattern:?} is too costly"),
            other => {
                let text = other.to_string();
                let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                format!("the pattern {pattern:?} is no regular expression: {why}")
            }
        })
    }
}

macro_rules! opaque_value {
    ($type:ty) => {
        impl Val for $type {
            fn get_type(&self) -> &Type {
                &DYN_TYPE
            }
            fn cel_type() -> &'static Type {
                &DYN_TYPE
            }
            fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
                Box::new(self.clone())
            }
            fn as_any(&self) -> Option<&dyn Any> {
                Some(self)
            }
        }
        impl StaticVal for $type {}
    };
}
opaque_value!(Budget);
opaque_value!(Pattern);

type Answer<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

fn broken() -> ExecutionError {
    ExecutionError::InternalError("a function was called otherwise than it is compiled".to_owned())
}

fn spend(budget: &CowVal<'_, '_>, cost: u64) -> Result<(), ExecutionError> {
    budget.downcast_ref::<Budget>().ok_or_else(broken)?.spend(cost)
}

/// The elements of a list, or the keys of a map in order (CEL's own order changes from run to run).
fn items<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let [range, cost, budget] = <[_; 3]>::try_from(arguments).map_err(|_| broken())?;
    let keys = range.downcast_ref::<CelMap>().map(|map| {
        let mut keys: Vec<_> = map.inner().keys().cloned().collect();
        keys.sort();
        keys
    });
    let length = match (&keys, range.downcast_ref::<CelList>()) {
        (Some(keys), _) => keys.len(),
        (None, Some(list)) => list.inner().len(),
        (None, None) => {
            return Err(ExecutionError::UnexpectedType {
                got: range.get_type().name().to_owned(),
                want: "a list or a map".to_owned(),
            });
        }
    };
    if length > MAX_ELEMENTS {
        return Err(ExecutionError::function_error(
            "",
            format!("a macro runs over {length} elements; the limit is {MAX_ELEMENTS}"),
        ));
    }
    let each = cost.downcast_ref::<CelInt>().and_then(|cost| u64::try_from(*cost.inner()).ok()).unwrap_or(u64::MAX);
    let weight = convert::weight(range.as_ref()).saturating_add(length as u64);
    spend(&budget, weight.saturating_mul(each))?;
    Ok(match keys {
        Some(keys) => CowVal::owned(CelList::from(keys.into_iter().map(key_value).collect::<Vec<_>>())),
        None => range,
    })
}

fn key_value(key: cel::common::types::CelMapKey<'_>) -> Box<dyn Val + '_> {
    use cel::common::types::CelMapKey as Key;
    match key {
        Key::Bool(key) => Box::new(key),
        Key::Int(key) => Box::new(key),
        Key::UInt(key) => Box::new(key),
        Key::String(key) => Box::new(key),
    }
}

fn keep<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let [value, budget] = <[_; 2]>::try_from(arguments).map_err(|_| broken())?;
    spend(&budget, convert::weight(value.as_ref()))?;
    Ok(value)
}

fn matches<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let [text, pattern] = <[_; 2]>::try_from(arguments).map_err(|_| broken())?;
    let Some(text) = text.downcast_ref::<CelString>() else {
        return Err(ExecutionError::no_such_overload(
            "matches",
            vec![text.get_type().name().to_owned(), "string".to_owned()],
        ));
    };
    let pattern = pattern.downcast_ref::<Pattern>().ok_or_else(broken)?;
    Ok(CowVal::owned(CelBool::from(pattern.0.is_match(text.inner()))))
}

/// Both operands as doubles, where one is a double and the other a whole number.
///
/// CEL knows no sum of an `int` and a `double`. JSON knows one kind of number, and whether a program writes
/// 1 or 1.0 is its library's whim, so here it must not matter.
fn mixed(left: &dyn Val, right: &dyn Val) -> Option<(f64, f64)> {
    #[allow(clippy::cast_precision_loss)] // a double is what was asked for
    let number = |value: &dyn Val| match (
        value.downcast_ref::<CelDouble>(),
        value.downcast_ref::<CelInt>(),
        value.downcast_ref::<CelUInt>(),
    ) {
        (Some(number), _, _) => Some((*number.inner(), true)),
        (_, Some(number), _) => Some((*number.inner() as f64, false)),
        (_, _, Some(number)) => Some((*number.inner() as f64, false)),
        _ => None,
    };
    let ((left, left_double), (right, right_double)) = (number(left)?, number(right)?);
    (left_double != right_double).then_some((left, right))
}

macro_rules! arithmetic {
    ($name:ident, $operator:expr, $accessor:ident, $method:ident, $mixed:expr) => {
        fn $name<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
            let [left, right, budget] = <[_; 3]>::try_from(arguments).map_err(|_| broken())?;
            if let Some((left, right)) = mixed(left.as_ref(), right.as_ref()) {
                let compute: Option<fn(f64, f64) -> f64> = $mixed;
                if let Some(compute) = compute {
                    return Ok(CowVal::owned(CelDouble::from(compute(left, right))));
                }
            }
            spend(&budget, convert::weight(left.as_ref()).saturating_add(convert::weight(right.as_ref())))?;
            let unknown = || {
                let types = [&left, &right].map(|operand| operand.get_type().name().to_owned()).to_vec();
                ExecutionError::no_such_overload($operator, types)
            };
            let result =
                left.$accessor().ok_or_else(unknown)?.$method(right.as_ref()).map_err(|error| match error {
                    ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => error,
                    ExecutionError::Overflow(..) => ExecutionError::function_error("", "a number grows too large"),
                    _ => unknown(),
                })?;
            Ok(CowVal::Owned(result.into_owned()))
        }
    };
}
arithmetic!(add, operators::ADD, as_adder, add, Some(|left, right| left + right));
arithmetic!(subtract, operators::SUBSTRACT, as_subtractor, sub, Some(|left, right| left - right));
arithmetic!(multiply, operators::MULTIPLY, as_multiplier, mul, Some(|left, right| left * right));
arithmetic!(divide, operators::DIVIDE, as_divider, div, Some(|left, right| left / right));
arithmetic!(modulo, operators::MODULO, as_modder, modulo, None);

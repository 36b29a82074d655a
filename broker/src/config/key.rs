//! One named setting of Kafka's: its type, default, rule and documentation, and how a text is
//! checked.
//!
//! Topic and broker tables are lists of these. The messages are Kafka's, because administrators and
//! clients' suites look for them.

use std::fmt;

/// A setting's type, with the numbers that DescribeConfigs gives them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Boolean,
    String,
    Int,
    Long,
    Double,
    List,
}

/// Where a value came from, with the numbers that DescribeConfigs gives them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ConfigSource {
    /// Set on the topic.
    Topic,
    /// Given to this broker at start.
    StaticBroker,
    /// Built in.
    Default,
}

/// What a value must satisfy beyond its type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    Any,
    AtLeast(i64),
    Between(i64, i64),
    /// A fraction from 0 to 1.
    Fraction,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A comma-separated list of these words, each at most once.
    ListOf(&'static [&'static str]),
    /// Kafka's list of `partition:broker` pairs, or `*`.
    ReplicaList,
}

/// One setting: a row of a table.
#[derive(Clone, Copy, Debug)]
pub struct ConfigKey {
    pub name: &'static str,
    pub kind: Kind,
    /// As DescribeConfigs prints it.
    pub default: &'static str,
    pub rule: Rule,
    /// The broker setting that gives the default of a topic setting, empty if there is none; of a
    /// broker setting, its own name.
    pub broker_synonym: &'static str,
    pub documentation: &'static str,
}

/// A checked value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Boolean(bool),
    /// Kinds `String` and `List`.
    Text(String),
    /// Kinds `Int` and `Long`.
    Integer(i64),
    Double(f64),
}

/// A value that its key does not take, in Kafka's words.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("Invalid value {value} for configuration {name}: {reason}")]
pub struct ValueError {
    pub name: &'static str,
    pub value: String,
    pub reason: String,
}

impl Kind {
    /// `DescribeConfigsResponse.config_type`.
    pub const fn wire(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::String => 2,
            Self::Int => 3,
            Self::Long => 5,
            Self::Double => 6,
            Self::List => 7,
        }
    }
}

impl ConfigSource {
    /// `DescribeConfigsResponse.config_source`.
    pub const fn wire(self) -> i8 {
        match self {
            Self::Topic => 1,
            Self::StaticBroker => 4,
            Self::Default => 5,
        }
    }
}

impl ConfigKey {
    /// Checks a text against the type and the rule. Blanks around it are dropped, as Kafka does.
    pub fn parse(&self, text: &str) -> Result<Value, ValueError> {
        let trimmed = text.trim();
        let refuse =
            |reason: String| ValueError { name: self.name, value: text.to_owned(), reason };
        let value = match self.kind {
            Kind::Boolean => parse_boolean(trimmed),
            Kind::Int => parse_integer(trimmed, i64::from(i32::MIN), i64::from(i32::MAX), "INT"),
            Kind::Long => parse_integer(trimmed, i64::MIN, i64::MAX, "LONG"),
            Kind::Double => trimmed
                .parse()
                .map(Value::Double)
                .map_err(|_| "Not a number of type DOUBLE".to_owned()),
            Kind::String => Ok(Value::Text(trimmed.to_owned())),
            Kind::List => Ok(Value::Text(join_list(trimmed))),
        }
        .map_err(refuse)?;
        self.rule.check(&value).map_err(refuse)?;
        Ok(value)
    }

    /// The name under which the broker's settings hold a value for this key.
    pub fn broker_name(&self) -> Option<&'static str> {
        (!self.broker_synonym.is_empty()).then_some(self.broker_synonym)
    }

    /// The default as a checked value.
    pub fn default_value(&self) -> Value {
        self.parse(self.default).expect("a test parses the default of every key")
    }
}

impl Rule {
    /// The reason in Kafka's words, if the value breaks the rule.
    fn check(self, value: &Value) -> Result<(), String> {
        match (self, value) {
            (Self::AtLeast(min), Value::Integer(number)) if *number < min => {
                Err(format!("Value must be at least {min}"))
            }
            (Self::Between(min, _), Value::Integer(number)) if *number < min => {
                Err(format!("Value must be at least {min}"))
            }
            (Self::Between(_, max), Value::Integer(number)) if *number > max => {
                Err(format!("Value must be no more than {max}"))
            }
            (Self::Fraction, Value::Double(number)) if *number > 1.0 => {
                Err("Value must be no more than 1".to_owned())
            }
            (Self::Fraction, Value::Double(number)) if *number < 0.0 || number.is_nan() => {
                Err("Value must be at least 0".to_owned())
            }
            (Self::OneOf(words), Value::Text(text)) if !words.contains(&text.as_str()) => {
                Err(format!("String must be one of: {}", words.join(", ")))
            }
            (Self::ListOf(words), Value::Text(text)) => check_list(words, text),
            (Self::ReplicaList, Value::Text(text)) => check_replica_list(text),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => value.fmt(f),
            Self::Text(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Double(value) => value.fmt(f),
        }
    }
}

fn parse_boolean(text: &str) -> Result<Value, String> {
    if text.eq_ignore_ascii_case("true") {
        Ok(Value::Boolean(true))
    } else if text.eq_ignore_ascii_case("false") {
        Ok(Value::Boolean(false))
    } else {
        Err("Expected value to be either true or false".to_owned())
    }
}

fn parse_integer(text: &str, min: i64, max: i64, kind: &str) -> Result<Value, String> {
    match text.parse::<i64>() {
        Ok(number) if (min..=max).contains(&number) => Ok(Value::Integer(number)),
        _ => Err(format!("Not a number of type {kind}")),
    }
}

/// A list as Kafka prints it: commas without blanks.
fn join_list(text: &str) -> String {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(",")
}

fn check_list(words: &[&str], text: &str) -> Result<(), String> {
    let mut seen: Vec<&str> = Vec::with_capacity(words.len());
    for word in text.split(',').filter(|word| !word.is_empty()) {
        if !words.contains(&word) {
            return Err(format!("String must be one of: {}", words.join(", ")));
        }
        if seen.contains(&word) {
            return Err("Configuration values must not be duplicated".to_owned());
        }
        seen.push(word);
    }
    Ok(())
}

fn check_replica_list(text: &str) -> Result<(), String> {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_pair = |pair: &str| {
        pair.split_once(':').is_some_and(|(left, right)| is_number(left) && is_number(right))
    };
    if text.is_empty() || text == "*" || text.split(',').all(is_pair) {
        return Ok(());
    }
    Err("Must be the literal '*' or a list of replicas in the following format: \
         [partitionId]:[brokerId],[partitionId]:[brokerId],..."
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn key(kind: Kind, rule: Rule) -> ConfigKey {
        ConfigKey { name: "k", kind, default: "", rule, broker_synonym: "", documentation: "" }
    }

    #[test]
    fn values_are_checked_by_type_and_rule_in_kafkas_words() {
        use Kind::{Boolean, Double, Int, List, Long, String};
        for (kind, rule, text, expected) in [
            (Boolean, Rule::Any, " TRUE ", Ok("true")),
            (Boolean, Rule::Any, "yes", Err("Expected value to be either true or false")),
            (Int, Rule::Any, "2147483648", Err("Not a number of type INT")),
            (Long, Rule::Any, "2147483648", Ok("2147483648")),
            (Long, Rule::Any, "abc", Err("Not a number of type LONG")),
            (Long, Rule::AtLeast(1), "0", Err("Value must be at least 1")),
            (Int, Rule::Between(1, 9), "10", Err("Value must be no more than 9")),
            (Double, Rule::Fraction, "0.5", Ok("0.5")),
            (Double, Rule::Fraction, "1.5", Err("Value must be no more than 1")),
            (Double, Rule::Fraction, "NaN", Err("Value must be at least 0")),
            (String, Rule::OneOf(&["a", "b"]), "c", Err("String must be one of: a, b")),
            (List, Rule::ListOf(&["a", "b"]), " a , b ", Ok("a,b")),
            (List, Rule::ListOf(&["a"]), "a,a", Err("Configuration values must not be duplicated")),
            (List, Rule::ReplicaList, "0:1,1:2", Ok("0:1,1:2")),
            (List, Rule::ReplicaList, "*", Ok("*")),
        ] {
            let result = key(kind, rule).parse(text);
            match expected {
                Ok(printed) => assert_eq!(result.expect(text).to_string(), printed),
                Err(reason) => assert_eq!(
                    result.expect_err(text).to_string(),
                    format!("Invalid value {text} for configuration k: {reason}")
                ),
            }
        }
        assert!(key(List, Rule::ReplicaList).parse("0-1").is_err());
    }
}

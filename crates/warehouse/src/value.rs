//! Types of the schema file, and JSON values turned into them without loss, or refused.

pub use crate::misfit::Misfit;
use crate::time;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt, io::Write, str::FromStr};

/// The widest decimal that Parquet's readers share.
pub const DECIMAL_DIGITS: u8 = 38;

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Type {
    Boolean,
    Integer,
    Bigint,
    Decimal { precision: u8, scale: u8 },
    Double,
    Text,
    Date,
    Timestamp,
    Timestamptz,
    Json,
    Bytes,
    List(Box<Type>),
}

/// A value of a column. Infinite dates and times are the extremes of their number; they become the contract's
/// 9999-12-31 and 0001-01-01 where rows are written, so that until then they are unlike every finite value.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Value {
    Null,
    Boolean(bool),
    Integer(i32),
    Bigint(i64),
    /// The number times ten to the power of the column's scale.
    Decimal(i128),
    Double(f64),
    /// Of text and json columns.
    Text(String),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since 1970-01-01 UTC, of timestamp and timestamptz columns.
    Timestamp(i64),
    Bytes(Vec<u8>),
    List(Vec<Value>),
}

impl Value {
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }
}

/// As PostgreSQL tells values apart: NaN equals NaN.
impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Boolean(a), Value::Boolean(b)) => a == b,
            (Value::Integer(a), Value::Integer(b)) => a == b,
            (Value::Bigint(a), Value::Bigint(b)) => a == b,
            (Value::Decimal(a), Value::Decimal(b)) => a == b,
            (Value::Double(a), Value::Double(b)) => a == b || (a.is_nan() && b.is_nan()),
            (Value::Text(a), Value::Text(b)) => a == b,
            (Value::Date(a), Value::Date(b)) => a == b,
            (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
            (Value::Bytes(a), Value::Bytes(b)) => a == b,
            (Value::List(a), Value::List(b)) => a == b,
            _ => false,
        }
    }
}

impl Type {
    /// Whether a key may be made of it.
    pub fn is_keyable(&self) -> bool {
        !matches!(self, Type::List(_) | Type::Json)
    }

    pub fn is_instant(&self) -> bool {
        matches!(self, Type::Timestamp | Type::Timestamptz)
    }

    /// Whether equal values of both types are the same key.
    pub fn joins(&self, other: &Type) -> bool {
        let class = |of: &Type| match of {
            Type::Integer | Type::Bigint | Type::Decimal { .. } => 1,
            Type::Double => 2,
            Type::Text => 3,
            Type::Date => 4,
            Type::Timestamp | Type::Timestamptz => 5,
            Type::Bytes => 6,
            Type::Boolean => 7,
            Type::Json | Type::List(_) => 0,
        };
        class(self) != 0 && class(self) == class(other)
    }

    /// Reads a JSON value; `null` is [`Value::Null`] in every type.
    pub fn read(&self, json: &RawValue) -> Result<Value, Misfit> {
        let json = json.get();
        if json == "null" {
            return Ok(Value::Null);
        }
        match self {
            Type::Text if !json.starts_with('"') => Ok(Value::Text(json.to_owned())),
            Type::Text => Ok(Value::Text(string(json)?.into_owned())),
            Type::Json => Ok(Value::Text(json.to_owned())),
            Type::List(element) => {
                let items: Vec<&RawValue> = serde_json::from_str(json).map_err(|_| Misfit::Kind)?;
                Ok(Value::List(items.into_iter().map(|item| element.read(item)).collect::<Result<_, _>>()?))
            }
            _ if json.starts_with(['{', '[']) => Err(Misfit::Kind),
            // PostgreSQL quotes what JSON has no notation for; others quote numbers to keep their digits.
            _ if json.starts_with('"') => self.read_text(&string(json)?),
            Type::Date | Type::Timestamp | Type::Timestamptz | Type::Bytes => Err(Misfit::Kind),
            _ => self.read_text(json),
        }
    }

    fn read_text(&self, text: &str) -> Result<Value, Misfit> {
        match self {
            Type::Boolean => match text {
                "true" | "t" => Ok(Value::Boolean(true)),
                "false" | "f" => Ok(Value::Boolean(false)),
                _ => Err(Misfit::Kind),
            },
            Type::Integer => {
                let value = scaled(text, 0, DECIMAL_DIGITS)?;
                i32::try_from(value).map(Value::Integer).map_err(|_| Misfit::Range)
            }
            Type::Bigint => {
                let value = scaled(text, 0, DECIMAL_DIGITS)?;
                i64::try_from(value).map(Value::Bigint).map_err(|_| Misfit::Range)
            }
            Type::Decimal { precision, scale } => Ok(Value::Decimal(scaled(text, *scale, *precision)?)),
            Type::Double => double(text).map(Value::Double),
            Type::Date => time::date(text).map(Value::Date),
            Type::Timestamp => time::timestamp(text).map(Value::Timestamp),
            Type::Timestamptz => time::timestamptz(text).map(Value::Timestamp),
            Type::Bytes => {
                let digits = text.strip_prefix("\\x").ok_or(Misfit::Kind)?;
                hex::decode(digits).map(Value::Bytes).map_err(|_| Misfit::Kind)
            }
            Type::Text | Type::Json | Type::List(_) => Err(Misfit::Kind),
        }
    }
}

fn string(json: &str) -> Result<Cow<'_, str>, Misfit> {
    match json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(content) if !content.contains('\\') => Ok(Cow::Borrowed(content)),
        // The line is valid JSON, so only half a surrogate pair can stand in the way.
        _ => serde_json::from_str(json).map(Cow::Owned).map_err(|_| Misfit::Surrogate),
    }
}

/// A number times `10^scale`, of at most `precision` digits.
fn scaled(text: &str, scale: u8, precision: u8) -> Result<i128, Misfit> {
    let Some(plain) = Plain::parse(text) else { return Number::parse(text)?.scaled(scale, precision) };
    let Plain { mut digits, mut places } = plain;
    while places > scale {
        if digits % 10 != 0 {
            return Err(Misfit::Digits);
        }
        (digits, places) = (digits / 10, places - 1);
    }
    // At most 38 digits: 18 of its own, and what the scale adds is judged before it is multiplied.
    let zeros = u32::from(scale - places);
    let bound = 10_i128.pow(u32::from(precision).saturating_sub(zeros));
    if digits == 0 {
        return Ok(0);
    }
    if u32::from(precision) < zeros || i128::from(digits).abs() >= bound {
        return Err(Misfit::Range);
    }
    Ok(i128::from(digits) * 10_i128.pow(zeros))
}

/// A number as most are written: at most 18 digits, perhaps a point, no exponent.
struct Plain {
    /// Without the point.
    digits: i64,
    /// Behind the point.
    places: u8,
}

impl Plain {
    fn parse(text: &str) -> Option<Plain> {
        let (negative, rest) = match text.as_bytes() {
            [b'-', rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        if rest.is_empty() || rest.len() > 18 {
            return None;
        }
        let (mut digits, mut point) = (0_i64, None);
        for (at, byte) in rest.iter().enumerate() {
            match byte {
                b'0'..=b'9' => digits = digits * 10 + i64::from(byte - b'0'),
                b'.' if point.is_none() && at > 0 && at + 1 < rest.len() => point = Some(at),
                _ => return None,
            }
        }
        let places = point.map_or(0, |point| rest.len() - point - 1) as u8;
        Some(Plain { digits: if negative { -digits } else { digits }, places })
    }
}

/// A finite decimal number as it was written.
struct Number<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    exponent: i64,
}

impl<'a> Number<'a> {
    fn parse(text: &'a str) -> Result<Self, Misfit> {
        if is_not_finite(text) {
            return Err(Misfit::NotFinite);
        }
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() && fraction.is_empty() || !digits(whole) || !digits(fraction) {
            return Err(Misfit::Kind);
        }
        if !digits(exponent.strip_prefix(['-', '+']).unwrap_or(exponent)) {
            return Err(Misfit::Kind);
        }
        // An exponent beyond i32 could only belong to zero or to a number that fits nowhere.
        let exponent = i64::from(exponent.parse::<i32>().map_err(|_| Misfit::Range)?);
        Ok(Number { negative, whole, fraction, exponent })
    }

    /// Its digits without zeros around them, and the power of ten of the last one.
    fn significant(&self) -> (String, i64) {
        let digits = [self.whole, self.fraction].concat();
        let kept = digits.trim_end_matches('0');
        let power = self.exponent - self.fraction.len() as i64 + (digits.len() - kept.len()) as i64;
        (kept.trim_start_matches('0').to_owned(), power)
    }

    /// The number times `10^scale`, of at most `precision` digits.
    fn scaled(&self, scale: u8, precision: u8) -> Result<i128, Misfit> {
        let (mut digits, power) = self.significant();
        if digits.is_empty() {
            return Ok(0);
        }
        let zeros = power + i64::from(scale);
        if zeros < 0 {
            return Err(Misfit::Digits);
        }
        if zeros + digits.len() as i64 > i64::from(precision) {
            return Err(Misfit::Range);
        }
        digits.extend(std::iter::repeat_n('0', zeros as usize));
        let value: i128 = digits.parse().map_err(|_| Misfit::Range)?;
        Ok(if self.negative { -value } else { value })
    }
}

fn is_not_finite(text: &str) -> bool {
    let name = text.strip_prefix(['-', '+']).unwrap_or(text);
    ["nan", "infinity", "inf"].iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// The nearest double, when it still has all the digits that were given.
fn double(text: &str) -> Result<f64, Misfit> {
    if is_not_finite(text) {
        return text.parse().map_err(|_| Misfit::Kind);
    }
    let number = Number::parse(text)?;
    let value: f64 = text.parse().map_err(|_| Misfit::Kind)?;
    if value.is_infinite() {
        return Err(Misfit::Range);
    }
    let (digits, power) = number.significant();
    if digits.is_empty() {
        return Ok(value);
    }
    // 17 digits tell all doubles apart: who gives more must mean the very value of the double, which has up to 767.
    let first = power + digits.len() as i64 - 1;
    let shown = if digits.len() <= 17 { digits.len() } else { 767 };
    let written = format!("{:.*e}", shown - 1, value.abs());
    let (mantissa, exponent) = written.split_once('e').ok_or(Misfit::Kind)?;
    let mantissa = mantissa.replace('.', "");
    let same = mantissa.trim_end_matches('0') == digits && exponent.parse() == Ok(first);
    if same { Ok(value) } else { Err(Misfit::Digits) }
}

impl FromStr for Type {
    type Err = String;

    fn from_str(text: &str) -> Result<Type, String> {
        if let Some(element) = text.strip_suffix("[]") {
            return Ok(Type::List(Box::new(element.parse()?)));
        }
        Ok(match text {
            "boolean" => Type::Boolean,
            "integer" => Type::Integer,
            "bigint" => Type::Bigint,
            "double" => Type::Double,
            "text" => Type::Text,
            "date" => Type::Date,
            "timestamp" => Type::Timestamp,
            "timestamptz" => Type::Timestamptz,
            "json" => Type::Json,
            "bytes" => Type::Bytes,
            _ => return decimal(text),
        })
    }
}

fn decimal(text: &str) -> Result<Type, String> {
    let inside = text.strip_prefix("decimal(").and_then(|rest| rest.strip_suffix(')'));
    let Some(inside) = inside else {
        return Err(format!(
            "{text} is no type; types are boolean, integer, bigint, decimal(p,s), double, text, date, timestamp, \
             timestamptz, json, bytes, and T[] for a list of T"
        ));
    };
    let (precision, scale) = inside.split_once(',').unwrap_or((inside, "0"));
    match (precision.trim().parse(), scale.trim().parse()) {
        (Ok(precision), Ok(scale)) if (1..=DECIMAL_DIGITS).contains(&precision) && scale <= precision => {
            Ok(Type::Decimal { precision, scale })
        }
        _ => Err(format!("{text}: a decimal has 1 to {DECIMAL_DIGITS} digits, of which 0 to all are decimal places")),
    }
}

impl fmt::Display for Type {
    fn fmt(&self, to: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Type::Boolean => to.write_str("boolean"),
            Type::Integer => to.write_str("integer"),
            Type::Bigint => to.write_str("bigint"),
            Type::Decimal { precision, scale } => write!(to, "decimal({precision},{scale})"),
            Type::Double => to.write_str("double"),
            Type::Text => to.write_str("text"),
            Type::Date => to.write_str("date"),
            Type::Timestamp => to.write_str("timestamp"),
            Type::Timestamptz => to.write_str("timestamptz"),
            Type::Json => to.write_str("json"),
            Type::Bytes => to.write_str("bytes"),
            Type::List(element) => write!(to, "{element}[]"),
        }
    }
}

/// Appends a value to the bytes of a key, so that equal values give equal bytes whatever their types
/// ([`Type::joins`]), and different ones different bytes.
pub fn write_key(value: &Value, of: &Type, key: &mut Vec<u8>) {
    let start = key.len();
    // The length, which is known afterwards; of null it stays as it is.
    key.extend_from_slice(&u32::MAX.to_be_bytes());
    let written = match value {
        Value::Null | Value::List(_) => return,
        Value::Boolean(value) => write!(key, "{value}"),
        Value::Integer(value) => write!(key, "{value}"),
        Value::Bigint(value) => write!(key, "{value}"),
        Value::Decimal(value) => write_decimal(*value, of, key),
        // -0 equals 0, and every NaN every NaN.
        Value::Double(value) => write!(key, "{:?}", value + 0.0),
        Value::Text(text) => key.write_all(text.as_bytes()),
        Value::Date(days) => write!(key, "{days}"),
        Value::Timestamp(micros) => write!(key, "{micros}"),
        Value::Bytes(bytes) => key.write_all(bytes),
    };
    written.expect("a vector takes all that is written to it");
    let length = (key.len() - start - 4) as u32;
    key[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// A decimal without zeros at its end, as an integer prints where it is one.
fn write_decimal(value: i128, of: &Type, key: &mut Vec<u8>) -> std::io::Result<()> {
    let Type::Decimal { scale, .. } = of else { return write!(key, "{value}") };
    let power = 10_u128.pow(u32::from(*scale));
    let (whole, mut fraction) = (value.unsigned_abs() / power, value.unsigned_abs() % power);
    let sign = if value < 0 { "-" } else { "" };
    if fraction == 0 {
        return write!(key, "{sign}{whole}");
    }
    let mut width = usize::from(*scale);
    while fraction.is_multiple_of(10) {
        (fraction, width) = (fraction / 10, width - 1);
    }
    write!(key, "{sign}{whole}.{fraction:0width$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(of: &str, json: &str) -> Result<Value, Misfit> {
        let of: Type = of.parse().expect("type");
        of.read(serde_json::from_str(json).expect("json"))
    }

    #[test]
    fn whole_numbers_fit_up_to_the_last_one() {
        assert_eq!(read("integer", "2147483647"), Ok(Value::Integer(i32::MAX)));
        assert_eq!(read("integer", "2147483648"), Err(Misfit::Range));
        assert_eq!(read("integer", "1.0"), Ok(Value::Integer(1)));
        assert_eq!(read("integer", "1.5"), Err(Misfit::Digits));
        assert_eq!(read("bigint", "-9223372036854775808"), Ok(Value::Bigint(i64::MIN)));
        assert_eq!(read("bigint", "9223372036854775808"), Err(Misfit::Range));
        assert_eq!(read("integer", "true"), Err(Misfit::Kind));
        assert_eq!(read("integer", "{}"), Err(Misfit::Kind));
    }

    #[test]
    fn decimals_keep_every_digit_or_stay_out() {
        assert_eq!(read("decimal(5,2)", "123.45"), Ok(Value::Decimal(12345)));
        assert_eq!(read("decimal(5,2)", "123.4500"), Ok(Value::Decimal(12345)));
        assert_eq!(read("decimal(5,2)", "123.456"), Err(Misfit::Digits));
        assert_eq!(read("decimal(5,2)", "1000"), Err(Misfit::Range));
        assert_eq!(read("decimal(5,2)", "1e2"), Ok(Value::Decimal(10000)));
        assert_eq!(read("decimal(5,2)", "\"NaN\""), Err(Misfit::NotFinite));
        let widest = "12345678901234567890123456789012345678";
        assert_eq!(read("decimal(38,0)", widest), Ok(Value::Decimal(widest.parse().expect("number"))));
        assert_eq!(read("decimal(38,10)", "\"-0.0000000001\""), Ok(Value::Decimal(-1)));
        assert_eq!(read("decimal(38,0)", "1e999999999999"), Err(Misfit::Range));
    }

    proptest! {
        #[test]
        fn numbers_are_read_alike_with_and_without_the_short_way(
            text in "-?(0|[1-9][0-9]{0,22})(\\.[0-9]{1,12})?", scale in 0_u8..20, more in 0_u8..19
        ) {
            let precision = (scale + more).max(1);
            prop_assert_eq!(scaled(&text, scale, precision), Number::parse(&text).and_then(|number| number.scaled(scale, precision)));
        }
    }

    #[test]
    fn doubles_keep_the_digits_that_postgresql_prints() {
        for text in ["0.1", "1e23", "9.999999999999999e+22", "5e-324", "1.7976931348623157e+308", "-0"] {
            assert!(read("double", text).is_ok(), "{text}");
        }
        assert_eq!(read("double", "9007199254740993"), Err(Misfit::Digits));
        assert_eq!(read("double", "0.12345678901234567890"), Err(Misfit::Digits));
        assert_eq!(read("double", "1152921504606846976"), Ok(Value::Double(1_152_921_504_606_846_976.0)));
        assert_eq!(read("double", "1152921504606846977"), Err(Misfit::Digits));
        let tenth = "0.1000000000000000055511151231257827021181583404541015625";
        assert_eq!(read("double", tenth), Ok(Value::Double(0.1)));
        assert_eq!(read("double", &tenth.replace("5625", "5624")), Err(Misfit::Digits));
        assert_eq!(read("double", "1e400"), Err(Misfit::Range));
        assert_eq!(read("double", "1e-400"), Err(Misfit::Digits));
        assert_eq!(read("double", "\"NaN\""), Ok(Value::Double(f64::NAN)));
        assert_eq!(read("double", "\"-Infinity\""), Ok(Value::Double(f64::NEG_INFINITY)));
    }

    #[test]
    fn text_takes_the_content_of_a_string_and_the_text_of_all_else() {
        assert_eq!(read("text", r#""a\u00e9\n""#), Ok(Value::Text("aé\n".into())));
        assert_eq!(read("text", "1.50"), Ok(Value::Text("1.50".into())));
        assert_eq!(read("text", r#"{"a": 1}"#), Ok(Value::Text(r#"{"a": 1}"#.into())));
        assert_eq!(read("text", r#""\ud800""#), Err(Misfit::Surrogate));
        assert_eq!(
            read("json", r#"{"b":1.0,"a":1,"b":"\u0041"}"#),
            Ok(Value::Text(r#"{"b":1.0,"a":1,"b":"\u0041"}"#.into()))
        );
    }

    #[test]
    fn lists_hold_values_of_their_type_and_nulls() {
        let list = Value::List(vec![Value::Integer(1), Value::Null]);
        assert_eq!(read("integer[]", "[1,null]"), Ok(list));
        assert_eq!(read("integer[]", "[[1]]"), Err(Misfit::Kind));
        assert_eq!(
            read("text[]", r#"["a",[1, 2]]"#),
            Ok(Value::List(vec![Value::Text("a".into()), Value::Text("[1, 2]".into())]))
        );
        assert_eq!(read("bytes", r#""\\x00ff""#), Ok(Value::Bytes(vec![0, 255])));
    }

    #[test]
    fn a_key_is_the_same_in_every_type_that_joins() {
        let key = |of: &str, json: &str| {
            let mut key = Vec::new();
            write_key(&read(of, json).expect("value"), &of.parse().expect("type"), &mut key);
            key
        };
        assert_eq!(key("integer", "-7"), key("bigint", "-7"));
        assert_eq!(key("integer", "-7"), key("decimal(10,3)", "-7.000"));
        assert_ne!(key("decimal(10,3)", "-0.5"), key("decimal(10,3)", "0.5"));
        assert_eq!(key("decimal(10,3)", "0.5"), key("decimal(9,1)", "0.5"));
        assert_ne!(key("text", "\"\""), key("text", "null"));
    }
}

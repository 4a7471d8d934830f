//! Columns as databases have them: types, values at their edges, and how each is asked for as the text that
//! [`crate::reader`] makes of it.

use crate::reader::double;

#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The type in PostgreSQL.
    pub of: &'static str,
    /// The type in the schema file.
    pub declared: &'static str,
    /// Expressions of SQL; null is added.
    pub values: &'static [&'static str],
}

const fn kind(of: &'static str, declared: &'static str, values: &'static [&'static str]) -> Kind {
    Kind { of, declared, values }
}

pub const KINDS: &[Kind] = &[
    kind("boolean", "boolean", &["true", "false"]),
    kind("smallint", "integer", &["-32768", "32767", "0"]),
    kind("integer", "integer", &["-2147483648", "2147483647", "7"]),
    kind("bigint", "bigint", &["-9223372036854775808", "9223372036854775807", "9007199254740993"]),
    kind("numeric(12,2)", "decimal(12,2)", &["0.10", "-9999999999.99", "100", "-0.00"]),
    kind("numeric(38,10)", "decimal(38,10)", &["1234567890123456789012345678.0123456789", "-0.0000000001", "1e27"]),
    kind("numeric", "text", &["'NaN'", "'Infinity'", "1.500", "1e60", "-0.00"]),
    kind("double precision", "double", &["'NaN'", "'-Infinity'", "0.1", "-0.0", "5e-324", "1.7976931348623157e308"]),
    kind("real", "double", &["0.1", "16777217", "'Infinity'"]),
    kind(
        "text",
        "text",
        &["''", "E'\\n\\r\\t\\\\\"'", "U&'\\2028 \\+01F600 \\00FC'", "'null'", "repeat('x', 3000)", "' a '"],
    ),
    kind("varchar(9)", "text", &["'{\"a\":1}'", "'[1]'"]),
    kind("char(4)", "text", &["'ab'", "''"]),
    kind("uuid", "text", &["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"]),
    kind("interval", "text", &["'1 year 2 mons -3 days 04:05:06.789'", "'0'"]),
    kind("inet", "text", &["'10.0.0.1/8'", "'::1'"]),
    kind("time", "text", &["'24:00:00'", "'00:00:00.000001'"]),
    kind("timetz", "text", &["'12:00:00+05:30'"]),
    kind("int4range", "text", &["'[1,5)'", "'empty'"]),
    kind("bit(3)", "text", &["B'101'"]),
    kind("money", "text", &["'1234.5'"]),
    kind("odd_mood", "text", &["'so so'", "'\"fine\"'"]),
    kind("odd_pair", "text", &["ROW(1, 'a \"b\"')", "ROW(NULL, NULL)"]),
    kind("odd_amount", "decimal(9,3)", &["1.125", "-999999.999"]),
    kind(
        "date",
        "date",
        &["'2024-02-29'", "'infinity'", "'-infinity'", "'0044-03-15 BC'", "'9999-12-30'", "'20000-01-01'"],
    ),
    kind("timestamp", "timestamp", &["'2024-02-29 23:59:59.999999'", "'infinity'", "'-infinity'", "'0001-01-02'"]),
    kind("date", "timestamp", &["'2024-02-29'", "'infinity'"]),
    kind(
        "timestamptz",
        "timestamptz",
        &["'2024-03-31 02:30:00 Europe/Berlin'", "'infinity'", "'-infinity'", "'1900-01-01'"],
    ),
    kind("timestamptz(0)", "timestamptz", &["'2024-03-31 02:30:00.5+00'"]),
    kind(
        "json",
        "json",
        &[
            "'{\"b\": 1.0,\n \"a\":1, \"b\":\"\\u0041\", \"big\":12345678901234567890.10}'",
            "'[]'",
            "'\"text\"'",
            "'null'",
            "'1e5'",
        ],
    ),
    kind("jsonb", "json", &["'{\"b\": 1.0, \"a\": [1, null, \"ü\"]}'", "'null'"]),
    kind("jsonb", "text", &["'{\"b\": 1.0}'", "'[1, 2]'", "'true'"]),
    kind("bytea", "bytes", &["'\\x'", "'\\x00ff0a0d'"]),
    kind("macaddr", "text", &["'08:00:2b:01:02:03'"]),
    kind("bit varying", "text", &["B''", "B'1011'"]),
    kind("xml", "text", &["'<a b=\"c\">\n&amp;</a>'"]),
    kind("tsvector", "text", &["'a:1 fat:2,4A ''q''''s'''"]),
    kind("int4multirange", "text", &["'{[1,3),[5,)}'", "'{}'"]),
    kind("tstzrange", "text", &["'[2024-01-01,infinity)'", "'(,)'"]),
    kind("\"char\"", "text", &["'x'", "''"]),
    kind("oid", "text", &["4294967295"]),
    kind("point", "text", &["'(1.5,-2)'"]),
    kind("odd_list", "integer[]", &["'{1,NULL}'", "'{}'"]),
    kind("odd_pairs", "json", &["ARRAY[ROW(1, 'a')::odd_pair, NULL]"]),
    kind("odd_inner", "decimal(9,3)", &["1.125", "-0.001"]),
    kind("odd_mood[]", "text[]", &["ARRAY['so so', NULL]::odd_mood[]"]),
    kind("odd_types.hstore", "json", &["'a=>1, \"b c\"=>NULL'", "''"]),
    kind("odd_types.citext", "text", &["'A'", "'a'", "''"]),
    kind("numeric", "text", &["repeat('9', 1000)::numeric + 0.5", "('0.' || repeat('0', 900) || '1')::numeric"]),
    kind("double precision", "double", &["1e-310", "-5e-324", "-0.0", "123456789012345680000"]),
    kind("real", "double", &["1e-45", "3.4028235e38", "'NaN'", "-0.0"]),
    kind("date", "date", &["'5874897-12-31'", "'4713-01-01 BC'", "'0001-01-01'"]),
    kind("timestamp", "timestamp", &["'4713-01-01 BC'", "'294246-12-31 23:59:59.999999'"]),
    kind("json", "json", &["(repeat('[', 300) || repeat(']', 300))::json", "'{\"\": 1e400}'", "'\"\\ud800\\u0000\"'"]),
    kind("integer[]", "json", &["'[2:3][-1:0]={{1,2},{3,NULL}}'", "'[-5:-4]={7,8}'"]),
    kind("integer[]", "integer[]", &["'{}'", "'{1,NULL,-3}'", "'[5:6]={1,2}'"]),
    kind("text[]", "text[]", &["'{\"a,b\",NULL,\"\"}'", "ARRAY[E'\\n', '{c}']"]),
    kind("numeric(6,2)[]", "decimal(6,2)[]", &["'{1.50,-9999.99}'", "'{NULL}'"]),
    kind("timestamptz[]", "timestamptz[]", &["'{infinity,2024-01-01}'"]),
    kind("date[]", "date[]", &["'{-infinity,2024-01-01,NULL}'"]),
    kind("double precision[]", "double[]", &["'{NaN,Infinity,0.1}'"]),
    kind("boolean[]", "boolean[]", &["'{t,f,NULL}'"]),
    kind("bytea[]", "bytes[]", &["ARRAY['\\x00'::bytea, NULL]"]),
    kind("integer[]", "text", &["'{{1,2},{3,4}}'"]),
    kind("integer[]", "json", &["'{{1,2},{3,4}}'", "'{}'"]),
];

/// What a kind's types are before and after a change: the database holds more, and the file follows later.
#[derive(Clone, Copy, Debug)]
pub struct Widening {
    pub before: Kind,
    pub after: Kind,
}

pub const WIDENINGS: &[Widening] = &[
    Widening {
        before: kind("integer", "integer", &["1", "-2147483648"]),
        after: kind("bigint", "bigint", &["2147483648", "-9223372036854775808", "5"]),
    },
    Widening {
        before: kind("numeric(6,2)", "decimal(6,2)", &["1.25", "-9999.99"]),
        after: kind("numeric", "decimal(38,10)", &["1.255", "123456.5", "'NaN'", "1.250", "'Infinity'"]),
    },
    Widening { before: kind("integer", "integer", &["1", "2"]), after: kind("text", "text", &["'one'", "'1'"]) },
];

/// SQL for the text of a column, before [`shown`].
pub fn asked(declared: &str, of: &str, column: &str) -> String {
    if let Some(element) = declared.strip_suffix("[]") {
        let item = asked(element, of.trim_end_matches("[]"), "x");
        return format!(
            "CASE WHEN {column} IS NOT NULL THEN (SELECT '[' || coalesce(string_agg(coalesce({item}, 'null'), ',' \
             ORDER BY o), '') || ']' FROM unnest({column}) WITH ORDINALITY u(x, o)) END"
        );
    }
    let finite = |finite: String, last: &str, first: &str| {
        format!(
            "CASE WHEN isfinite({column}) THEN {finite} WHEN {column} > '2000-01-01' THEN '{last}' \
             WHEN {column} < '2000-01-01' THEN '{first}' END"
        )
    };
    match declared {
        "boolean" => format!("CASE WHEN {column} THEN 'true' WHEN NOT {column} THEN 'false' END"),
        // The null of JSON and that of SQL are the same in a line.
        "text" => format!(
            "CASE json_typeof(to_json({column})) WHEN 'string' THEN to_json({column}) #>> '{{}}' WHEN 'null' THEN NULL \
             ELSE to_json({column})::text END"
        ),
        "json" => format!("nullif(translate(to_json({column})::text, E'\\n\\r', ''), 'null')"),
        "date" => finite(format!("({column} - date '1970-01-01')::text"), "2932896", "-719162"),
        "timestamp" | "timestamptz" => finite(
            format!("trunc(extract(epoch FROM {column}) * 1000000)::bigint::text"),
            "253402300799999999",
            "-62135596800000000",
        ),
        "bytes" => format!("encode({column}, 'hex')"),
        _ => format!("({column})::text"),
    }
}

/// The declared type cannot hold the value.
#[derive(Debug)]
pub struct DoesNotFit;

/// The text as it stands in the warehouse.
pub fn shown(declared: &str, text: String) -> Result<String, DoesNotFit> {
    match declared {
        "integer" => text.parse::<i32>().map(|number| number.to_string()).map_err(|_| DoesNotFit),
        "bigint" => text.parse::<i64>().map(|number| number.to_string()).map_err(|_| DoesNotFit),
        "double" => Ok(double(text.parse().map_err(|_| DoesNotFit)?)),
        "double[]" => {
            let items = text.trim_matches(['[', ']']).split(',').map(|item| match item {
                "null" => Ok("null".to_owned()),
                number => number.parse().map(double).map_err(|_| DoesNotFit),
            });
            Ok(format!("[{}]", items.collect::<Result<Vec<_>, DoesNotFit>>()?.join(",")))
        }
        _ => match declared.strip_prefix("decimal(").and_then(|rest| rest.strip_suffix(')')?.split_once(',')) {
            Some((precision, scale)) => {
                decimal(&text, precision.parse().map_err(|_| DoesNotFit)?, scale.parse().map_err(|_| DoesNotFit)?)
            }
            None => Ok(text),
        },
    }
}

fn decimal(text: &str, precision: usize, scale: usize) -> Result<String, DoesNotFit> {
    if text.ends_with(|end: char| end.is_ascii_alphabetic()) {
        return Err(DoesNotFit);
    }
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    let whole = whole.trim_start_matches('0');
    if fraction.len() > scale || whole.len() > precision - scale {
        return Err(DoesNotFit);
    }
    let sign = if whole.is_empty() && fraction.is_empty() { "" } else { sign };
    let whole = if whole.is_empty() { "0" } else { whole };
    Ok(if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction:0<scale$}") })
}

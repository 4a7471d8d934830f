//! Which errors are one, as a person would say.

mod gz;

use gz::entries;
use std::collections::HashSet;

fn fingerprint(log: &str) -> String {
    let found = entries(log.as_bytes(), "shop/2024/07/01/app.gz");
    assert_eq!(found.len(), 1, "{log}");
    found[0].fingerprint.clone()
}

fn same(logs: &[&str]) {
    let first = fingerprint(logs[0]);
    for log in &logs[1..] {
        assert_eq!(fingerprint(log), first, "two errors of\n{}\nand\n{log}", logs[0]);
    }
}

fn different(logs: &[&str]) {
    let mut seen = std::collections::HashMap::new();
    for log in logs {
        if let Some(other) = seen.insert(fingerprint(log), *log) {
            panic!("one error of\n{other}\nand\n{log}");
        }
    }
}

fn java(message: &str, exception: &str, frames: &[&str]) -> String {
    let frames: String = frames.iter().map(|frame| format!("\tat {frame}\n")).collect();
    format!("2024-07-01T10:00:00Z [http-1] ERROR a.B - {message}\n{exception}\n{frames}")
}

#[test]
fn a_restart_and_a_deployment_change_nothing() {
    same(&[
        &java(
            "Order 17 failed",
            "a.OrderException: order 17 of 10.0.0.1 is gone",
            &["java.util.List.get(List.java:1)", "a.B.store(B.java:10)", "a.C.run(C.java:3)"],
        ),
        &java(
            "Order 99 failed",
            "a.OrderException: order 99 of 10.9.0.7 is gone",
            &["java.util.List.get(List.java:7)", "a.B.store(B.java:44)", "a.C.run(C.java:9)"],
        ),
    ]);
    same(&[
        &java("x", "a.E: t", &["a.B.lambda$store$3(B.java:1)"]),
        &java("x", "a.E: t", &["a.B.lambda$store$7(B.java:9)"]),
    ]);
    same(&[
        &java("x", "a.E: t", &["a.B$$Lambda$14/0x0000000800066840.run(Unknown Source)", "a.B.go(B.java:2)"]),
        &java("x", "a.E: t", &["a.B$$Lambda$99/0x00000008000aaaaa.run(Unknown Source)", "a.B.go(B.java:5)"]),
    ]);
    same(&[
        "Traceback (most recent call last):\n  File \"/app/v1/shop/a.py\", line 3, in f\n    g()\nValueError: bad id 'a1'\n",
        "Traceback (most recent call last):\n  File \"/srv/v2/shop/a.py\", line 30, in f\n    g()\nValueError: bad id 'b2'\n",
    ]);
    same(&[
        "panic: runtime error: index out of range [5] with length 3\n\ngoroutine 1 [running]:\nmain.main.func1(0xc00)\n\t/a/main.go:7 +0x1\n",
        "panic: runtime error: index out of range [9] with length 4\n\ngoroutine 52 [running]:\nmain.main.func2(0xd00)\n\t/b/main.go:9 +0x2\n",
    ]);
    same(&[
        "thread 'main' panicked at src/main.rs:5:10:\nindex out of bounds: the len is 3 but the index is 5\n",
        "thread 'worker-2' panicked at src/main.rs:50:1:\nindex out of bounds: the len is 9 but the index is 12\nnote: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n",
    ]);
    same(&[
        "thread 'main' panicked at /build-17/app/src/main.rs:5:10:\nno order\n",
        "thread 'main' panicked at /builds/shop/src/main.rs:6:10:\nno order\n",
        "thread 'main' panicked at 'no order', src/main.rs:6:10\n",
    ]);
    same(&[
        "thread 'main' panicked at /builder/cargo/registry/src/index-6f17d22b/tokio-1.38.0/src/time/mod.rs:5:10:\nx\n",
        "thread 'main' panicked at /agent/cargo/registry/src/index-1949cf8c/tokio-1.39.2/src/time/mod.rs:7:10:\nx\n",
    ]);
    same(&[
        r#"{"level":"error","msg":"request 8f14e45f-ceea-467f-a5d5-1b2c3d4e5f60 to https://pay.example.com/v1/7?x=1 took 30s"}"#,
        r#"{"level":"error","msg":"request 7d04e45f-ceea-467f-b5d5-1b2c3d4e5f61 to https://pay.example.com/v2/9 took 31s"}"#,
    ]);
    same(&[
        "2024-07-01T10:00:00Z ERROR cannot open /tmp/upload-9f3/a.bin: No such file",
        "2024-07-02T11:00:00Z ERROR cannot open /tmp/upload-77/b.bin: No such file",
    ]);
}

#[test]
fn what_a_person_keeps_apart_stays_apart() {
    different(&[
        "thread 'main' panicked at crates/cart/src/lib.rs:5:10:\nno order\n",
        "thread 'main' panicked at crates/pay/src/lib.rs:5:10:\nno order\n",
        "thread 'main' panicked at /build-17/app/src/main.rs:5:10:\nno order\n",
    ]);
    different(&[
        &java("Order 17 failed", "a.OrderException: gone", &["a.B.store(B.java:10)"]),
        &java("Order 17 failed", "a.OrderException: gone", &["a.B.load(B.java:10)"]),
        &java("Order 17 failed", "a.OtherException: gone", &["a.B.store(B.java:10)"]),
        &java("Order 17 failed", "a.OrderException: locked", &["a.B.store(B.java:10)"]),
        &java("Refund 17 failed", "a.OrderException: gone", &["a.B.store(B.java:10)"]),
        &(java("Order 17 failed", "a.OrderException: gone", &["a.B.store(B.java:10)"])
            + "Caused by: java.io.IOException: x\n\tat a.D.d(D.java:1)\n"),
        &(java("Order 17 failed", "a.OrderException: gone", &["a.B.store(B.java:10)"])
            + "Caused by: java.sql.SQLException: x\n\tat a.D.d(D.java:1)\n"),
    ]);
    different(&[
        "ERROR: connection refused",
        "ERROR: connection reset",
        "ERROR: GET /api/orders/17 failed",
        "ERROR: GET /api/users/17 failed",
        "ERROR: cannot reach https://pay.example.com/x",
        "ERROR: cannot reach https://stock.example.com/x",
    ]);
    different(&[
        "Traceback (most recent call last):\n  File \"/app/a.py\", line 3, in f\n    g()\nKeyError: 'amount'\n",
        "Traceback (most recent call last):\n  File \"/app/a.py\", line 3, in f\n    g()\nKeyError: 'currency'\n",
    ]);
}

#[test]
fn ruby_php_and_elixir_are_told_apart_by_functions_and_not_by_lines() {
    let ruby = |function: &str, id: u32, line: u32| {
        format!("pay.rb:{line}:in 'Pay#{function}': order {id} is gone (PayError)\n\tfrom run.rb:{line}:in '<main>'\n")
    };
    let rails = |function: &str, line: u32| {
        format!(
            "E, [2024-07-01T10:00:00.123456 #{line}] ERROR -- : gone (PayError)\n/gems/a-1.{line}/a.rb:1:in `b'\npay.rb:{line}:in `block in {function}'\n"
        )
    };
    let php = |function: &str, line: u32| {
        format!(
            "PHP Fatal error:  Uncaught Exception: order {line} in /app/x.php:{line}\nStack trace:\n#0 /app/x.php({line}): {function}('{line}')\n#1 {{main}}\n  thrown in /app/x.php on line {line}\n"
        )
    };
    let elixir = |function: &str, line: u32| {
        format!(
            "10:00:00.123 [error] ** (RuntimeError) gone {line}\n    (stdlib 4.2) a.erl:{line}: :a.b/1\n    lib/a.ex:{line}: A.{function}/1\n"
        )
    };
    same(&[&ruby("charge", 17, 3), &ruby("charge", 99, 44)]);
    same(&[&rails("charge", 17), &rails("charge", 99)]);
    same(&[&php("charge", 17), &php("charge", 99)]);
    same(&[&elixir("charge", 17), &elixir("charge", 99)]);
    different(&[&ruby("charge", 17, 3), &ruby("refund", 17, 3)]);
    different(&[&rails("charge", 17), &rails("refund", 17)]);
    different(&[&php("charge", 17), &php("refund", 17)]);
    different(&[&elixir("charge", 17), &elixir("refund", 17)]);
}

#[test]
fn each_service_has_its_own() {
    let of = |key: &str| entries(b"ERROR: x", key)[0].fingerprint.clone();
    assert_ne!(of("shop/a.gz"), of("pay/a.gz"));
    assert_eq!(of("shop/a.gz"), of("shop/2024/07/01/b.gz"));
}

#[test]
fn generated_names_and_everything_that_counts_or_measures_change_nothing() {
    let frames = |first: &str, line: u32| java("x", "a.E: t", &[first, &format!("a.B.go(B.java:{line})")]);
    for (one, other) in [
        (
            "a.B$$FastClassBySpringCGLIB$$1a2b.invoke(<generated>)",
            "a.B$$FastClassBySpringCGLIB$$9f8e.invoke(<generated>)",
        ),
        ("jdk.proxy2/jdk.proxy2.$Proxy17.run(Unknown Source)", "jdk.proxy3/jdk.proxy3.$Proxy99.run(Unknown Source)"),
        ("a.B$$Lambda/0x0000000800066840.run(Unknown Source)", "a.B$$Lambda/0x00000008000aaaaa.run(Unknown Source)"),
        (
            "jdk.internal.reflect.GeneratedMethodAccessor17.invoke(Unknown Source)",
            "jdk.internal.reflect.DirectMethodHandleAccessor.invoke(DirectMethodHandleAccessor.java:103)",
        ),
    ] {
        same(&[&frames(one, 5), &frames(other, 99)]);
    }
    let error = |text: &str| format!("2024-07-01T10:00:00Z ERROR a.B - {text}\n");
    for (one, other) in [
        ("pod shop-7d4b9c6f5-x2x9z failed", "pod shop-6c5f9d7b8-k8j2p failed"),
        ("trace 4bf92f3577b34da6a3ce929d0e0e4736 failed", "trace 00f067aa0ba902b7aaaaaaaaaaaaaaaa failed"),
        ("session abcdefabcdef expired", "session 5f2b9c1e8a7d expired"),
        ("deadline 2024-07-01 10:00:00 passed after 30.5s", "deadline 2025-01-31 23:59:59 passed after 200 ms"),
        ("connect to [2001:db8::1]:8080 failed", "connect to 192.168.1.77:9090 failed"),
        ("Duplicate entry '17-abc' for key 'orders.PRIMARY'", "Duplicate entry '99-xyz' for key 'orders.PRIMARY'"),
        (r#"order {"id":17,"total":9.5} failed"#, r#"order {"id":18,"total":19.5} failed"#),
        ("Thread pool-3-thread-17 died", "Thread pool-4-thread-2 died"),
    ] {
        same(&[&error(one), &error(other)]);
    }
}

/// What is known of one entry is used for the next that differs in numbers only: the answer must be the one that each
/// gives alone, whichever came first.
#[test]
fn an_entry_is_read_alike_alone_and_behind_any_other() {
    let texts = [
        java("order 17 failed", "a.V1Exception: 0x1f", &["a.V1.run1(V.java:1)", "a.C.run(C.java:3)"]),
        java("order 99 failed", "a.V1Exception: 1x1f", &["a.V1.run1(V.java:7)", "a.C.run(C.java:3)"]),
        java("order 17 failed", "a.V2Exception: 0x1f", &["a.V2.run1(V.java:1)", "a.C.run(C.java:3)"]),
        java("order 17 failed", "a.V2Exception: 0x1f", &["okhttp3.V.run1(V.java:1)", "a.C.run(C.java:3)"]),
        java("order 17 failed", "a.V2Exception: 0x1f", &["okhttp4.V.run1(V.java:1)", "a.C.run(C.java:3)"]),
        "2024-07-01T10:00:00Z ERROR a.B - order 17\nno trace\n".into(),
        "2024-07-01T10:00:00Z ERROR a.B - order 18\nno trace\n".into(),
        "2024-07-01T10:00:00Z ERROR a.C - order 18\nno trace\n".into(),
        "{\"level\":\"error\",\"msg\":\"x\",\"stack\":\"thread 'main' panicked at src/2/main.rs:5:10:\\nidx 1\"}\n"
            .into(),
        "{\"level\":\"error\",\"msg\":\"x\",\"stack\":\"thread 'main' panicked at src/3/main.rs:5:10:\\nidx 2\"}\n"
            .into(),
        "{\"level\":\"error\",\"msg\":\"x 1\",\"stack\":\"E 1\"}\n".into(),
        "{\"level\":\"error\",\"msg\":\"x 2\\nE 2\"}\n".into(),
    ];
    let alone: Vec<_> = texts.iter().map(|text| entries(text.as_bytes(), "shop/a.gz").remove(0)).collect();
    for first in 0..texts.len() {
        for second in 0..texts.len() {
            let both = entries([texts[first].as_str(), &texts[second]].concat().as_bytes(), "shop/a.gz");
            for (found, expected) in both.iter().zip([&alone[first], &alone[second]]) {
                assert_eq!(
                    (&found.fingerprint, &found.category, &found.exception, &found.message, &found.stack),
                    (
                        &expected.fingerprint,
                        &expected.category,
                        &expected.exception,
                        &expected.message,
                        &expected.stack
                    )
                );
            }
            assert_eq!(both.len(), 2, "{}{}", texts[first], texts[second]);
        }
    }
}

/// In one object, where texts that differ in their numbers only are read once.
#[test]
fn codes_tell_errors_apart_and_other_numbers_do_not() {
    let log = |messages: &[&str]| {
        let lines = messages.iter().map(|message| format!("2024-07-01T10:00:00Z [main] ERROR a.B - {message}\n"));
        entries(lines.collect::<String>().as_bytes(), "shop/2024/07/01/app.gz")
    };
    let codes = [
        "HTTP 404 for order 17",
        "HTTP 500 for order 18",
        "exit code 1",
        "exit code 2",
        "[Errno 13] no",
        "[Errno 12] no",
        "SQLSTATE=23505",
        "SQLSTATE=40001",
        "status 500 from https://a.example/1",
        "status 502 from https://a.example/2",
    ];
    let found: HashSet<String> = log(&codes).into_iter().map(|entry| entry.fingerprint).collect();
    assert_eq!(found.len(), codes.len());
    let once = ["order 17, status 500", "order 18, status 500", "order 19, status 500"];
    let found: HashSet<String> = log(&once).into_iter().map(|entry| entry.fingerprint).collect();
    assert_eq!(found.len(), 1);
}

#[test]
fn a_message_that_is_no_text_is_told_by_what_it_holds() {
    let of = |message: &str| format!("{{\"level\":\"error\",\"msg\":{message}}}");
    let messages = [
        "null",
        "{}",
        r#"{"code":5}"#,
        r#"{"status":5}"#,
        r#"{"code":5,"why":"refused"}"#,
        "404",
        "true",
        r#"["a b c"]"#,
    ];
    let logs: Vec<String> = messages[1..].iter().map(|message| of(message)).collect();
    different(&logs.iter().map(String::as_str).collect::<Vec<_>>());
    same(&[&of("null"), &of("{}"), &of("[]"), r#"{"level":"error"}"#]);
    same(&[&of(r#"{"code":5,"user":"jane"}"#), &of(r#"{"code":6,"user":"joe"}"#)]);
    let entry = |log: &str| entries(log.as_bytes(), "shop/2024/07/01/app.gz").remove(0);
    assert_eq!(entry(&of(r#"{"code": 5}"#)).message, r#"{"code": 5}"#);
    assert_eq!(entry(r#"{"level":"error","err":{"errno":-111}}"#).message, r#"{"errno":-111}"#);
    assert_eq!(entry(r#"{"level":"error","msg":{"a":1},"stack":"TypeError: b\n    at c (d.js:1:2)"}"#).message, "b");
}

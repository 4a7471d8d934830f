//! Which errors are one, as a person would say.

mod gz;

use gz::entries;

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
    same(&[&java("x", "a.E: t", &["a.B.lambda$store$3(B.java:1)"]), &java("x", "a.E: t", &["a.B.lambda$store$7(B.java:9)"])]);
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
        &java("Order 17 failed", "a.OrderException: gone", &["a.B.store(B.java:10)"]),
        &java("Order 17 failed", "a.OrderException: gone", &["a.B.load(B.java:10)"]),
        &java("Order 17 failed", "a.OtherException: gone", &["a.B.store(B.java:10)"]),
        &java("Order 17 failed", "a.OrderException: locked", &["a.B.store(B.java:10)"]),
        &java("Refund 17 failed", "a.OrderException: gone", &["a.B.store(B.java:10)"]),
        &(java("Order 17 failed", "a.OrderException: gone", &["a.B.store(B.java:10)"]) + "Caused by: java.io.IOException: x\n\tat a.D.d(D.java:1)\n"),
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
fn each_service_has_its_own() {
    let of = |key: &str| entries(b"ERROR: x", key)[0].fingerprint.clone();
    assert_ne!(of("shop/a.gz"), of("pay/a.gz"));
    assert_eq!(of("shop/a.gz"), of("shop/2024/07/01/b.gz"));
}

//! Basic authentication against a node that knows one password: it is read from the secret when it is needed, read
//! again when it was rotated, and never logged.

use async_trait::async_trait;
use errors::{Name, Named, describe};
use sources::{Auth, Indices, OpenSearch, ReadSecret, SecretError, SourceError};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// "reader:first" and "reader:second" in base64.
const FIRST: &str = "Basic cmVhZGVyOmZpcnN0";
const SECOND: &str = "Basic cmVhZGVyOnNlY29uZA==";

/// Stands for Secrets Manager: its value, and how often it was read.
struct Held(Mutex<(&'static str, u32)>);

impl Held {
    fn new(value: &'static str) -> Arc<Self> {
        Arc::new(Held(Mutex::new((value, 0))))
    }

    fn rotate(&self, value: &'static str) {
        self.0.lock().expect("lock").0 = value;
    }

    fn reads(&self) -> u32 {
        self.0.lock().expect("lock").1
    }
}

#[async_trait]
impl ReadSecret for Held {
    async fn read(&self) -> Result<String, SecretError> {
        let mut held = self.0.lock().expect("lock");
        held.1 += 1;
        match held.0 {
            "" => Err(SecretError("secret opensearch: AccessDeniedException".into())),
            value => Ok(value.to_owned()),
        }
    }
}

/// Answers each search as an empty index does, if the request carries what it accepts at the moment.
struct Server {
    url: String,
    accepted: Arc<Mutex<&'static str>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let accepted = Arc::new(Mutex::new(FIRST));
        let accepts = accepted.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.expect("a connection"), *accepts.lock().expect("lock"));
            }
        });
        Server { url, accepted }
    }

    fn accept(&self, header: &'static str) {
        *self.accepted.lock().expect("lock") = header;
    }

    fn source(&self, auth: Auth) -> OpenSearch {
        let name = |name: &str| name.to_owned();
        let indices = Indices { messages: name("messages"), history: name("history"), audit: name("audit") };
        let _ = rustls::crypto::ring::default_provider().install_default();
        OpenSearch::connect(&self.url, auth, &aws_config::SdkConfig::builder().build(), indices).expect("a URL")
    }
}

fn answer(mut stream: TcpStream, accepted: &str) {
    let (mut length, mut authorization) = (0, String::new());
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    for line in reader.by_ref().lines() {
        let line = line.expect("a line of the head");
        let Some((name, value)) = line.split_once(": ") else {
            if line.is_empty() {
                break;
            } else {
                continue;
            };
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().expect("a length"),
            "authorization" => authorization = value.to_owned(),
            _ => {}
        }
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink()).expect("the body");
    let (status, body) = if authorization == accepted {
        ("200 OK", r#"{"timed_out":false,"aggregations":{"earliest":{"value":null}}}"#)
    } else {
        ("401 Unauthorized", r#"{"error":{"type":"security_exception","reason":"no"},"status":401}"#)
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).expect("written");
}

const FIRST_SECRET: &str = r#"{"username":"reader","password":"first"}"#;
const SECOND_SECRET: &str = r#"{"username":"reader","password":"second","engine":"opensearch"}"#;

#[tokio::test]
async fn the_password_of_the_secret_opens_the_node_and_is_read_once() {
    let (server, secret) = (Server::start(), Held::new(FIRST_SECRET));
    let source = server.source(Auth::Basic(secret.clone()));
    for _ in 0..3 {
        assert_eq!(source.earliest().await.expect("an answer"), None);
    }
    assert_eq!(secret.reads(), 1);
    let error = server.source(Auth::None).earliest().await.expect_err("no password");
    assert_eq!(error.name(), Name::SourceRejected);
}

#[tokio::test]
async fn a_rotated_password_is_read_again() {
    let (server, secret) = (Server::start(), Held::new(FIRST_SECRET));
    let source = server.source(Auth::Basic(secret.clone()));
    source.earliest().await.expect("an answer");
    server.accept(SECOND);
    secret.rotate(SECOND_SECRET);
    source.earliest().await.expect("an answer with the new password");
    assert_eq!(secret.reads(), 2);
}

#[tokio::test]
async fn a_wrong_password_is_refused_by_name_and_never_told() {
    let (server, secret) = (Server::start(), Held::new(SECOND_SECRET));
    let error = server.source(Auth::Basic(secret.clone())).earliest().await.expect_err("a wrong password");
    assert_eq!((error.name(), secret.reads()), (Name::SourceRejected, 2), "{error}");
    let told = format!("{error:?} {}", describe(&error));
    assert!(!told.contains("second") && !told.contains(&SECOND[6..]), "{told}");
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_or_used_is_named_and_never_told() {
    let server = Server::start();
    for (value, reason) in [
        ("", "AccessDeniedException"),
        ("hunter2", "is not {\"username\""),
        (r#"{"username":"reader","pass":"hunter2"}"#, "is not {\"username\""),
    ] {
        let secret = Held::new(value);
        let error = server.source(Auth::Basic(secret.clone())).earliest().await.expect_err("no password");
        let told = describe(&error);
        assert!(matches!(error, SourceError::Secret { .. }), "{told}");
        assert_eq!((error.name(), secret.reads()), (Name::SourceUnavailable, 1), "{told}");
        assert!(told.contains(reason) && !told.contains("hunter2"), "{told}");
    }
}

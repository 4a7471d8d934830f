//! What a person at a terminal is told of an error: what happened, without what the SDK says twice, and what to do. The
//! registry's advice is for runs; the operator of a command may have nothing but an expired login.

use errors::{Name, advice, describe};

/// Codes by which AWS refuses the caller, and not what was asked.
const NOT_LOGGED_IN: &[&str] = &[
    "ExpiredToken",
    "RequestExpired",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
    "IncompleteSignature",
];

/// How the SDK says that no service responded.
const UNCONNECTED: &[&str] =
    &["dispatch failure: io error: client error (Connect)", "dispatch failure: timeout", "dispatch failure: other"];

/// The error and its causes in one line.
pub fn what(error: &dyn std::error::Error) -> String {
    let text = describe(error);
    // Behind the code and the message the SDK repeats both in its own words.
    let text = match text.split_once(": service error: unhandled error") {
        // An error of the service has a code, which stands here in brackets.
        Some((said, rest)) if !rest.starts_with(" (") => format!("{said}: what answered there is not the service"),
        Some((said, _)) => said.to_owned(),
        None => text,
    };
    let mut text = text.replace("tcp connect error: ", "");
    for sdk in UNCONNECTED {
        text = text.replace(sdk, "no connection");
    }
    text
}

/// What to do about it. `what` is what [`what`] says.
pub fn what_to_do(what: &str, name: Name) -> &'static str {
    if NOT_LOGGED_IN.iter().any(|code| what.contains(code)) {
        return "AWS does not accept your credentials: log in again (aws sso login), or set AWS_PROFILE or new keys.";
    }
    if ["no connection", "timed out", "is not the service"].iter().any(|sign| what.contains(sign)) {
        return "Look at AWS_ENDPOINT_URL, AWS_REGION, the network and a proxy. The local cloud is started by: make up";
    }
    match name {
        Name::StoreDenied | Name::LedgerDenied => "Your credentials may not do that: repeat it with an operator's.",
        name => advice(name.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use archive::JobRuns;
    use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig};
    use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
    use errors::Named;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// What DynamoDB's client makes of a server that is not DynamoDB, or of none.
    async fn asked(port: u16) -> (String, &'static str) {
        let credentials = Credentials::new("key", "secret", None, None, "test");
        // Not what the environment says: it may point at a local cloud.
        let aws = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(runtime::aws_config().await.http_client().expect("a client"))
            .endpoint_url(format!("http://127.0.0.1:{port}"))
            .region(Region::new("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .retry_config(RetryConfig::disabled());
        let error = JobRuns::new(&aws.build(), "runs".to_owned()).get("r1").await.expect_err("it is not DynamoDB");
        let what = what(&error);
        let advice = what_to_do(&what, error.name());
        (what, advice)
    }

    /// Answers one request with a status and a body.
    fn answering(status: u16, body: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a request");
            assert!(stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0));
            let answer =
                format!("HTTP/1.1 {status} No\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            let _ = stream.write_all(answer.as_bytes());
        });
        port
    }

    #[tokio::test]
    async fn nobody_at_the_address_is_no_fault_of_aws() {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        let (what, advice) = asked(port).await;
        assert!(what.contains("no connection") && what.contains("Connection refused"), "{what}");
        assert!(!what.contains("dispatch failure"), "{what}");
        assert!(advice.contains("AWS_ENDPOINT_URL"), "{advice}");
    }

    #[tokio::test]
    async fn expired_credentials_are_said_once_and_end_in_a_login() {
        let body =
            r#"{"__type":"com.amazon.coral.service#ExpiredTokenException","message":"The security token is expired"}"#;
        let (what, advice) = asked(answering(400, body)).await;
        assert!(what.ends_with("ExpiredTokenException: The security token is expired"), "{what}");
        assert!(advice.contains("log in again"), "{advice}");
    }

    #[tokio::test]
    async fn whoever_may_not_do_it_is_not_told_to_apply_terraform() {
        let body = r#"{"__type":"com.amazon.coral.service#AccessDeniedException","message":"not authorized"}"#;
        let (what, advice) = asked(answering(400, body)).await;
        assert!(what.ends_with("not authorized"), "{what}");
        assert!(advice.contains("an operator's"), "{advice}");
    }

    #[tokio::test]
    async fn a_proxy_in_the_way_is_told() {
        let (what, advice) = asked(answering(403, "<html>Blocked</html>")).await;
        assert!(what.contains("is not the service"), "{what}");
        assert!(advice.contains("proxy"), "{advice}");
    }

    #[test]
    fn an_error_of_a_run_keeps_its_advice() {
        let missing = storage::StoreError::Missing { bucket: "b".into(), key: "k".into() };
        assert_eq!(what_to_do(&what(&missing), missing.name()), advice("ObjectMissing"));
    }
}

//! What an upload to S3 says of its bytes, over a connection to a server that takes everything.

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc::{Receiver, Sender, channel},
};
use storage::{Algorithm, Checksum, Objects};

/// The head of a request, in lower case.
type Head = String;

fn answer(stream: TcpStream, heads: &Sender<Head>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        reader.read_line(&mut head)?;
    }
    let head = head.to_lowercase();
    let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    if value("expect:").is_some() {
        reader.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let length = value("content-length:").and_then(|length| length.parse().ok()).unwrap_or(0);
    std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
    let body = if head.contains("?uploads") {
        "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
    } else if head.starts_with("post") {
        "<CompleteMultipartUploadResult><ETag>t</ETag></CompleteMultipartUploadResult>"
    } else {
        ""
    };
    let length = body.len();
    heads.send(head).expect("the test is there");
    let answer = format!("HTTP/1.1 200 OK\r\netag: t\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    reader.get_mut().write_all(answer.as_bytes())
}

async fn objects() -> (Objects, Receiver<Head>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (sender, heads) = channel();
    std::thread::spawn(move || listener.incoming().try_for_each(|stream| answer(stream?, &sender)));
    let credentials = Credentials::new("key", "secret", None, None, "test");
    let aws = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(runtime::aws_config().await.http_client().expect("a client"))
        .endpoint_url(format!("http://127.0.0.1:{port}"))
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .retry_config(RetryConfig::disabled());
    (Objects::new(&aws.build(), "bucket".to_owned()), heads)
}

/// The checksum goes with the bytes and is signed; the bytes are not hashed once more for the signature.
fn check(head: &str, checksum: &str) {
    let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    assert!(value(&format!("{checksum}:")).is_some_and(|value| !value.is_empty()), "{head}");
    assert_eq!(value("x-amz-content-sha256:"), Some("unsigned-payload"), "{head}");
    let signed = value("authorization:").and_then(|all| all.split("signedheaders=").nth(1)).unwrap_or_default();
    assert!(signed.split([';', ',']).any(|name| name == checksum), "{head}");
}

#[tokio::test]
async fn an_upload_is_signed_by_its_checksum_and_hashed_once() {
    let (objects, heads) = objects().await;
    objects.put("k", "few", "text/plain").await.expect("taken");
    check(&heads.recv().expect("a request"), "x-amz-checksum-sha256");
    for (mut upload, checksum) in [
        (objects.upload("k", "text/plain"), "x-amz-checksum-sha256"),
        (objects.staged_upload("k", "text/plain"), "x-amz-checksum-crc32"),
    ] {
        upload.write(&vec![7; 9 << 20]).await.expect("taken");
        upload.finish().await.expect("taken");
        let heads: Vec<Head> = heads.try_iter().collect();
        let algorithm = checksum.trim_start_matches("x-amz-checksum-");
        assert!(heads[0].contains(&format!("x-amz-checksum-algorithm: {algorithm}")), "{}", heads[0]);
        let parts: Vec<&Head> = heads.iter().filter(|head| head.starts_with("put")).collect();
        assert_eq!(parts.len(), 2);
        parts.iter().for_each(|head| check(head, checksum));
    }
    let mut small = objects.staged_upload("k", "text/plain");
    small.write(b"few").await.expect("taken");
    small.finish().await.expect("taken");
    check(&heads.recv().expect("a request"), "x-amz-checksum-crc32");
}

#[test]
fn a_crc32_is_that_of_gzip_and_of_s3() {
    assert_eq!(Algorithm::Crc32.of(b"123456789"), Checksum::Crc32(0xcbf4_3926));
}
